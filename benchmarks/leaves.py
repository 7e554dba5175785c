"""Leaves a second of whole searches on margins, proofs noted: by compiled kernels beside torch, in one sitting.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/leaves.py [--seconds 5] [--questions mnist_6_100/14 ...] [--clips]
    python benchmarks/leaves.py --cores 2 [--seconds 5] [--questions ...] [--clips]

For each question optimised slopes are found first, and the roots of the search; what is measured begins behind them.
Both ways take turns, twice each; figures are leaves for each CPU second of the process, of the better turn, so that
other work on the machine counts as little as possible. With `--clips` intervals are narrowed from the beginning. With
`--cores`, one search on one core takes turns with one on so many instead, and figures are leaves for each second.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from common import benchmark_folder
from krelax import ball, classification, load_images, load_onnx, read_vnnlib
from krelax.bounds import lanes
from krelax.bounds.backward import outputs
from krelax.bounds.branching import Branching
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, Bounded, bound
from krelax.cli.printing import table
from krelax.lanes.ready import Kernels
from krelax.problem.queries import Queries
from krelax.proof.log import MARGINS, Forms, ProofLog
from krelax.run.bench import read_instances
from krelax.search.effort import Complete
from krelax.search.questions import about_specification

# Images of networks with their radii, and instances of lists.
IMAGES = (
    ("eran/mnist_6_100", 0.026, (14, 38, 46)),
    ("eran/mnist_9_200", 0.015, (14,)),
    ("eran/mnist_conv_small", 0.12, (4,)),
    ("sdp/mnist_cnn_a_adv", 0.3, (35,)),
    ("sdp/cifar_cnn_a_mix", 2 / 255, (40,)),
)
LISTS = (("mnist_fc", (33,)), ("sri_resnet_a", (20,)), ("sri_resnet_b", (23,)))
TURNS = 2


def questions(chosen: list[str]) -> Iterator[tuple[str, Instance, Queries]]:
    """The questions named, or all."""
    folder = benchmark_folder()
    for path, eps, images in IMAGES:
        folder_name, name = path.split("/")
        wanted = [i for i in images if not chosen or f"{name}/{i}" in chosen]
        if not wanted:
            continue
        network = load_onnx(folder / f"{path}.onnx")
        digits = {"eran": "mnist_test", "sdp": "mnist_sdp" if "mnist" in name else "cifar10_sdp"}[folder_name]
        data = load_images(folder / folder_name / f"{digits}.npz", network.input_shape, 10)
        for i in wanted:
            region = ball(torch.tensor(data.images[i : i + 1]).double(), eps)
            asked = classification(torch.tensor([int(data.labels[i])]), 10)
            yield f"{name} {i}", Instance.of(network, region), asked
    for name, numbers in LISTS:
        for line in read_instances(folder / "vnncomp" / name / "instances.csv", None):
            if line.index in numbers and (not chosen or f"{name}/{line.index}" in chosen):
                network = load_onnx(line.onnx)
                asked = about_specification(network, read_vnnlib(line.vnnlib))
                yield f"{name} {line.index}", Instance.of(network, asked.region), asked.queries


def searching(instance: Instance, queries: Queries, found: Bounded, clips: bool) -> Branching:
    """A search on the margins that are open, as the complete search does it."""
    index = (found.value[0] <= 0).nonzero()[:, 0]
    exact, fast = (
        outputs(n, *(t[:, index].to(n.dtype) for t in (queries.rows, queries.offsets)))
        for n in (instance.network, instance.fast_network)
    )
    effort = replace(Complete().branching, clips=0.0 if clips else None)
    begin, names = found.value[0, index], (MARGINS, Forms.single(index.numpy()))
    noting = replace(instance, logs=(ProofLog(),))
    return Branching(noting, found.bounds, (exact, fast), effort, begin, torch.zeros_like(begin), names=names)


def rate(search: Branching, seconds: float, clock: Callable[[], float] = time.process_time) -> tuple[float, int]:
    """Leaves for each second of a clock, roots left out, and how many."""
    search.run(0)
    before, began = search.leaves, clock()
    search.run(seconds)
    count = search.leaves - before
    return count / (clock() - began), count


def on_cores(search: Callable[[], Branching], cores: int, seconds: float) -> tuple[float, float]:
    """Leaves a second of one search on one core and on so many, of the better of several turns."""
    best = {1: 0.0, cores: 0.0}
    for count in [1, cores] * TURNS:
        torch.set_num_threads(count)
        best[count] = max(best[count], rate(search(), seconds, time.perf_counter)[0])
    return best[1], best[cores]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--questions", nargs="*", default=[])
    parser.add_argument("--clips", action="store_true")
    parser.add_argument("--cores", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[tuple[str, ...]] = []
    for name, instance, queries in questions(given.questions):
        with torch.no_grad():
            found = bound(instance, queries, METHODS["alpha"])
        if given.cores:
            always = Kernels("1")
            lanes.kernels = lambda kernels=always: kernels
            search = partial(searching, instance, queries, found, given.clips)
            one, several = on_cores(search, given.cores, given.seconds)
            rows.append((name, f"{one:.0f}", f"{several:.0f}", f"{several / one:.2f}"))
            print(*rows[-1], flush=True)
            continue
        best: dict[str, tuple[float, int]] = {"0": (0.0, 0), "1": (0.0, 0)}
        for way in [*best] * TURNS:
            kernels = Kernels(way)
            lanes.kernels = lambda kernels=kernels: kernels
            best[way] = max(best[way], rate(searching(instance, queries, found, given.clips), given.seconds))
        (old, few), (new, many) = best["0"], best["1"]
        rows.append((name, f"{old:.0f}", f"{new:.0f}", f"{new / old:.1f}", str(few), str(many)))
        print(*rows[-1], flush=True)
    head = ("question", "torch, leaves/s", "kernels, leaves/s", "ratio", "leaves", "leaves")
    print(table(("question", "one core", f"{given.cores} cores", "ratio") if given.cores else head, rows))


if __name__ == "__main__":
    main()
