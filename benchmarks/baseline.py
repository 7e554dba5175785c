"""Margins, answers and costs that must not get worse: one question of each kind, beside what it gave before.

    python benchmarks/baseline.py [--only crown] [--write]

Prints a line for each question, and ends with 1 where an answer is lost, a margin is lower by more than a thousandth of
it, or the cost more than doubled. Costs are CPU seconds in units of a fixed piece of work, which is timed at the start:
so they mean about the same on another machine. `--write` keeps what is found as the new baseline, in
benchmarks/baseline.json: with a reason in the commit. Questions about data that is not there are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line has it, and before NumPy is imported

import numpy as np
import torch

from krelax import METHODS, Instance, ball, bound, classification, load_images, load_onnx
from krelax.network.graph import Network
from krelax.run.bench import bench, read_instances
from krelax.run.verify import VerifyOptions
from krelax.search.processes import cpu_seconds

_KEPT = Path(__file__).with_suffix(".json")
# What a margin may lose, relatively, as another processor rounds otherwise; and how many times a cost may grow, and by
# how many seconds, on machines that do other work.
_LESS, _DEARER, _SPARE = 1e-3, 2.0, 1.0
_LIMIT = 120.0

# Network, data, image, radius, and methods that bound its worst margin.
IMAGES = [
    ("digits_dense.onnx", "digits_test.npz", 2, "0.06", ("crown", "alpha", "krelu", "krelu3", "lp", "lp-krelu")),
    ("digits_conv.onnx", "digits_test.npz", 2, "0.06", ("zonotope", "crown", "alpha", "krelu", "lp-krelu")),
    ("eran/mnist_6_100.onnx", "eran/mnist_test.npz", 4, "0.015", ("crown", "alpha", "krelu")),
    ("eran/mnist_conv_small.onnx", "eran/mnist_test.npz", 2, "0.08", ("crown", "alpha", "krelu")),
    ("sdp/cifar_cnn_a_adv.onnx", "sdp/cifar10_sdp.npz", 0, "2/255", ("crown", "alpha")),
]
# List and property, which `auto` decides within `_LIMIT` seconds even where others work beside it.
ANSWERS = [
    ("acasxu", "prop_2"),
    ("cersyve", "prop_pendulum"),
    ("cgan", "cGAN_imgSz32_nCh_1_prop_0_input_eps_0.010_output_eps_0.015"),
    ("dist_shift", "index2101_delta0.13"),
    ("linearizenn", ""),
    ("lsnc", "quadrotor2d_state_0"),
    ("mnist_fc", ""),
    ("ml4acopf", "118_ieee_prop4"),
    ("nn4sys", "pensieve_parallel_36"),
    ("nn4sys", "lindex_1000"),
    ("safenlp", ""),
    ("veristressgt", "meap1"),
    ("veristressgt", "fp"),
    ("vit", "pgd_2_3_16_8835"),
    ("vit", "ibp_3_3_8_3493"),
]


@dataclass(frozen=True)
class Found:
    """What came of a question: a margin or an answer, and CPU seconds."""

    name: str
    margin: float | None
    answer: str | None
    seconds: float


def margins(data: Path, name: str, images: str, index: int, eps: str, methods: tuple[str, ...]) -> Iterator[Found]:
    """The worst margin of an image by every method."""
    network: Network = load_onnx(data / name, check=False)
    given = load_images(data / images, network.input_shape, network.output_shape[-1])
    x, label = (
        torch.from_numpy(given.images[index : index + 1]).double(),
        torch.from_numpy(given.labels[index : index + 1]),
    )
    region = ball(x, float(Fraction(eps)), norm="linf")
    for method in methods:
        began = cpu_seconds()
        queries = classification(label, network.output_shape[-1])
        worst = bound(Instance.of(network, region), queries, METHODS[method]).value.min()
        yield Found(f"{Path(name).stem} {index} {method}", float(worst), None, cpu_seconds() - began)


def answers(data: Path, name: str, query: str) -> Iterator[Found]:
    """The answer to the first instance of a list whose property is called so."""
    listed = read_instances(data / "vnncomp" / name / "instances.csv", timeout=_LIMIT)
    chosen = next(i for i in listed if i.vnnlib.name.startswith(query))
    for result in bench([chosen], VerifyOptions()):
        label = f"{name} {chosen.onnx.stem} {chosen.vnnlib.name.partition('.vnnlib')[0]}"
        yield Found(label, None, result.answer, result.cpu or 0.0)


def everything(only: str) -> Iterator[Found]:
    """Questions whose data is there, and whose name has `only` in it."""
    bundled = Path(str(files("krelax") / "data"))
    others = Path(os.environ.get("KRELAX_BENCHMARKS", _KEPT.resolve().parents[2] / "shared" / "benchmarks"))
    for name, images, index, eps, methods in IMAGES:
        data = bundled if (bundled / name).is_file() else others
        wanted = tuple(m for m in methods if only in f"{Path(name).stem} {index} {m}")
        if wanted and (data / name).is_file():
            yield from margins(data, name, images, index, eps, wanted)
    for name, query in ANSWERS:
        if only in f"{name} {query}" and (others / "vnncomp" / name).is_dir():
            yield from answers(others, name, query)


def unit() -> float:
    """CPU seconds of a fixed piece of work, half of it products of matrices, half Python's own; the least of some."""
    matrix, taken = np.linspace(-1, 1, 512 * 512).reshape(512, 512), list[float]()
    for _ in range(5):
        began = time.process_time()
        for _ in range(10):
            matrix = np.clip(matrix @ matrix, -1, 1)
        sum(i * i for i in range(1_000_000))
        taken.append(time.process_time() - began)
    return min(taken)


def worse(found: Found, one: float, before: dict[str, Any]) -> str:
    """How a question is worse than it was, in a few words; empty if it is not. A unit takes `one` second, or so."""
    if found.answer != before["answer"]:
        return f"was {before['answer']}"
    if found.margin is not None and found.margin < before["margin"] - _LESS * max(1.0, abs(before["margin"])):
        return f"was {before['margin']:.6g}"
    most = _DEARER * before["units"] * one + _SPARE
    return f"cost {before['units']:.4g} units" if found.seconds > most else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a part of the names of questions")
    parser.add_argument("--write", action="store_true", help="keep what is found")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kept: dict[str, Any] = json.loads(_KEPT.read_text(encoding="utf-8")) if _KEPT.is_file() else {}
    one, lost = unit(), 0
    for found in everything(arguments.only):
        units = found.seconds / one
        what = worse(found, one, kept[found.name]) if found.name in kept else "" if arguments.write else "new"
        shown = found.answer or f"{found.margin:.6g}"
        print(f"{found.name:60} {shown:>10} {units:9.1f} units {found.seconds:7.2f} s  {what}".rstrip(), flush=True)
        lost += bool(what)
        if arguments.write:
            kept[found.name] = {"answer": found.answer, "margin": found.margin, "units": round(units, 2)}
    if arguments.write:
        _KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return int(lost > 0 and not arguments.write)


if __name__ == "__main__":
    sys.exit(main())
