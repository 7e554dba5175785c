"""Bounds of single margins at the root, beside those measured for MN-BaB: DeepPoly, optimised slopes, PRIMA.

    python benchmarks/root_bounds.py [--methods crown,alpha,krelu,krelu3,lp-krelu] [--strategy NAMES] [--cases 8]

The margin of the label and one other class, over an L-infinity ball clipped to [0, 1], by each method alone: that one
margin is all it is asked. With `--strategy sparse,affine` methods with groups form them in each of these ways.
CPU seconds of this process and wall, one thread. PRIMA's groups are triples.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from common import benchmark_folder
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, Method, bound
from krelax.bounds.multineuron import MultiNeuron
from krelax.cli.printing import table
from krelax.hull.grouping import Strategy
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries, classification
from krelax.problem.region import ball

RADII = {"mnist_6_100": 0.026, "mnist_conv_small": 0.12}
PEER = {"deeppoly": "DeepPoly", "alpha_20_steps": "α, 20 steps", "prima_20_steps": "PRIMA, 20 steps"}


@dataclass(frozen=True)
class Case:
    """One margin and what the peer found for it."""

    name: str
    instance: Instance
    query: Queries
    peer: tuple[float, ...]


def margin(label: int, other: int) -> Queries:
    """The margin `y[label] - y[other]` alone, taken from those of the classification."""
    queries = classification(torch.tensor([label]), 10)
    column = other - (other > label)  # other classes in increasing order
    rows, offsets = (t[:, column : column + 1] for t in (queries.rows, queries.offsets))
    assert rows[0, 0].nonzero()[:, 0].tolist() == sorted((label, other))
    return Queries(rows, offsets, torch.zeros(1, 1, dtype=torch.int64), 1)


def case_of(folder: Path, row: dict[str, str]) -> Case:
    """The problem of one line of the peer's results."""
    network = load_onnx(folder / "eran" / f"{row['network']}.onnx")
    data = np.load(folder / "eran" / "mnist_test.npz")
    image, label, other = (int(row[key]) for key in ("image", "label", "other"))
    assert data["labels"][image] == label
    x = torch.from_numpy(data["images"][image : image + 1] / 255.0).reshape(1, *network.input_shape)
    instance = Instance.of(network, ball(x, RADII[row["network"]]))
    peer = tuple(float(row[key]) for key in PEER)
    return Case(f"{row['network']} {image}: {label} against {other}", instance, margin(label, other), peer)


def cases(count: int) -> list[Case]:
    """The first lines of the peer's results."""
    folder = benchmark_folder()
    with (folder / "peers" / "mn_bab_root_bounds.csv").open() as lines:
        return [case_of(folder, row) for row in list(csv.DictReader(lines))[:count]]


def asked_for(names: Sequence[str], strategies: Sequence[Strategy]) -> dict[str, Method]:
    """Methods by the heads of their columns; if there are strategies, those with groups once for each of them."""
    methods: dict[str, Method] = {}
    for name in names:
        method = METHODS[name]
        if strategies and any(multi_neuron.grouping for multi_neuron in method.multi_neuron):
            methods |= {f"{name}, {strategy}": grouped(method, strategy) for strategy in strategies}
        else:
            methods[name] = method
    return methods


def grouped(method: Method, strategy: Strategy) -> Method:
    """The method with its groups formed in another way."""

    def changed(multi_neuron: MultiNeuron) -> MultiNeuron:
        grouping = multi_neuron.grouping
        return (
            multi_neuron if grouping is None else replace(multi_neuron, grouping=replace(grouping, strategy=strategy))
        )

    return replace(method, multi_neuron=tuple(changed(multi_neuron) for multi_neuron in method.multi_neuron))


def measured(case: Case, method: Method) -> tuple[float, float, float]:
    """Bound, CPU seconds, seconds."""
    began, wall = time.process_time(), time.perf_counter()
    value = float(bound(case.instance, case.query, method).value)
    return value, time.process_time() - began, time.perf_counter() - wall


def strategies(text: str) -> list[Strategy]:
    """Names with commas in between."""
    return [Strategy(name) for name in text.split(",")]


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--methods", type=lambda s: s.split(","), default=["crown", "alpha", "krelu", "krelu3", "lp-krelu"]
    )
    parser.add_argument("--strategy", type=strategies, default=[])
    parser.add_argument("--cases", type=int, default=8)
    return parser.parse_args()


def main() -> None:
    """Print the table of bounds and the table of costs."""
    arguments = options()
    torch.set_num_threads(1)
    asked, methods = cases(arguments.cases), asked_for(arguments.methods, arguments.strategy)
    for method in methods.values():  # once before the clock runs: compilation and imports
        measured(asked[0], method)
    found = {case.name: [measured(case, method) for method in methods.values()] for case in asked}
    bounds = [
        (case.name, *(f"{value:.3f}" for value, _, _ in found[case.name]), *(f"{p:.3f}" for p in case.peer))
        for case in asked
    ]
    print(table(("lower bound of the margin", *methods, *PEER.values()), bounds), end="\n\n")
    costs = [(name, *(f"{cpu:.2f} ({wall:.2f})" for _, cpu, wall in row)) for name, row in found.items()]
    print(table(("CPU seconds (wall)", *methods), costs))


if __name__ == "__main__":
    main()
