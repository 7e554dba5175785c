"""Margins proven by contradiction, beside branching on the same bounds.

    python benchmarks/contradiction.py [--seconds 20] [--margins 2] [NETWORK:IMAGE ...]

Every question is prepared as the complete search does: with optimised slopes, and in dense networks with one pass over
the layers. Then the open margins nearest to zero, and the farthest, are proven alone, one core, both ways.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

from common import benchmark_folder
from complete import NETWORKS
from krelax import ball, classification, load_images, load_onnx
from krelax.bounds.bounded import Bounded
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound, by_groups
from krelax.problem.queries import Queries
from krelax.search.complete import decide_question
from krelax.search.effort import Complete

QUESTIONS = (
    "mnist_6_100:46",
    "mnist_6_100:38",
    "mnist_9_100:6",
    "mnist_9_200:18",
    "mnist_cnn_a_adv:16",
    "cifar_cnn_a_mix:26",
)
# Clips do not pay behind a pass.
PLAIN = replace(Complete().branching, clips=None)
WAYS = {
    "contradiction": Complete(split=("neurons",), turn=0.0, hope=1.0, passes=(), branching=PLAIN),
    "branching": Complete(split=("neurons",), hope=torch.inf, share=1.0, passes=(), sweeps=(), branching=PLAIN),
}


def prepared(name: str, image: int) -> tuple[Instance, Queries, Bounded]:
    """A question about an image, and the bounds that a search starts from."""
    family, eps, _, _ = NETWORKS[name]
    folder = benchmark_folder() / family
    network = load_onnx(folder / f"{name}.onnx")
    digits = "mnist_test" if family == "eran" else "mnist_sdp" if name.startswith("mnist") else "cifar10_sdp"
    data = load_images(folder / f"{digits}.npz", network.input_shape, 10)
    instance = Instance.of(network, ball(torch.tensor(data.images[image : image + 1]).double(), eps))
    queries = classification(torch.tensor([int(data.labels[image])]), 10)
    found = bound(instance, queries, METHODS["alpha"])
    if family == "eran" and "conv" not in name:
        found = by_groups(instance, queries, found, Complete().passes[0].multi_neuron, True)
    return instance, queries, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", default=QUESTIONS)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--margins", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| question | margin | bound | " + " | ".join(f"by {way}" for way in WAYS) + " |")
    print("|" + "---|" * (3 + len(WAYS)))
    for question in args.questions:
        name, image = question.split(":")
        instance, queries, found = prepared(name, int(image))
        order = found.value[0].argsort(descending=True)
        open_ = order[found.value[0, order] <= 0].tolist()
        for margin in dict.fromkeys([*open_[: args.margins - 1], *open_[-1:]]):
            one = slice(margin, margin + 1)
            asked = Queries(queries.rows[:, one], queries.offsets[:, one], torch.zeros(1, 1, dtype=torch.long), 1)
            bounds, results = Bounded(found.value[:, one], found.bounds), []
            for effort in WAYS.values():
                began = time.perf_counter()
                decided = decide_question(instance.until(args.seconds), asked, bounds, effort, lambda _: None)
                spent = time.perf_counter() - began
                results.append(f"{spent:.1f} s" if decided.margin > 0 else "open")
            print(f"| {question} | {margin} | {float(bounds.value):.2f} | " + " | ".join(results) + " |", flush=True)


if __name__ == "__main__":
    main()
