"""The convex barrier, shown: what share of the gap to the exact optimum joint relaxations close.

    python benchmarks/barrier.py [--quick | --write | --draw]

For each question (network, image, worst margin): the optimum of the triangle linear program, which no relaxation of
single neurons beats (Salman et al. 2019); k-ReLU for k = 2, 3, 4; the linear program with cuts of hulls of pairs and
triples; and the exact optimum, from branching below and an attack above.
Everything twice: with groups in every layer, and with the triangle's pre-activation bounds for all. CPU seconds of this
process, one thread. With `--write` the tables and the figure of docs/barrier.md are written as well (needs matplotlib).
With `--draw` nothing is measured: the figure is drawn from the tables that the page has.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import krelax
from common import benchmark_folder
from krelax import ball, classification, load_onnx
from krelax.activations import ReLU
from krelax.bounds.backward import Form, lower_bound, outputs
from krelax.bounds.bounded import Bounded
from krelax.bounds.branching import Branching, Effort
from krelax.bounds.cutting import bound_by_cutting
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.methods import METHODS, Method, bound
from krelax.bounds.multineuron import MultiNeuron, choose, neuron_scores
from krelax.bounds.optimise import Ascent, ascend
from krelax.bounds.steps import over
from krelax.cli.printing import table
from krelax.hull.grouping import Grouping
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Dense
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.attack import Attack, search

DOCS = Path(__file__).resolve().parents[1] / "docs"
DATA = Path(krelax.__file__).parent / "data"

DIGITS = [(name, image, 0.07) for name in ("digits_dense", "digits_conv") for image in range(4)]
MNIST = [("mnist_6_100", 0, 0.02), ("mnist_6_100", 4, 0.015), ("mnist_9_100", 0, 0.015), ("mnist_conv_small", 2, 0.08)]
QUICK = [DIGITS[0], DIGITS[4], MNIST[1]]
SHOWN = "mnist_6_100 4"  # bound against CPU seconds


@dataclass(frozen=True)
class Relaxation:
    """Groups in every layer; with `program`, the linear program over their hulls instead of dual ascent."""

    name: str
    grouping: Grouping
    program: bool = False
    outer: Ascent = field(default_factory=lambda: Ascent(300, 0.3, 0.99))

    @property
    def multi_neuron(self) -> MultiNeuron:
        return MultiNeuron(self.grouping, combinations=Ascent(24, 0.5, 0.92), outer=self.outer)


RELAXATIONS = (
    Relaxation("k = 2", Grouping(2, neurons=60, overlap=3)),
    Relaxation("k = 3", Grouping(3, neurons=40, overlap=2, enough=1.0)),
    Relaxation("k = 4", Grouping(4, neurons=30, overlap=1, enough=1.0)),
    Relaxation("LP, k = 2", Grouping(2, neurons=100, overlap=4), program=True),
    Relaxation("LP, k = 3", Grouping(3, neurons=80, overlap=4, enough=1.0), program=True),
)

ALPHA = METHODS["alpha"]
SPLITTING = replace(ALPHA, name="splitting", multi_neuron=(MultiNeuron(None, splitting=Effort(rounds=30)),) * 2)
BRANCHING = Effort(leaves=128, rounds=300, depth=64, leaf=Ascent(5, 0.2, 0.9))
ATTACK = Attack(restarts=100, steps=300, samples=1000, last_step=5e-4)
AGREED = 0.01  # share of the gap below which the optimum is called exact


@dataclass(frozen=True)
class Measured:
    """A bound and the CPU seconds it took from nothing."""

    value: float
    seconds: float


@dataclass(frozen=True)
class Case:
    """One margin of one region, and its bounds by optimised slopes."""

    name: str
    eps: float
    instance: Instance
    query: Queries
    alpha: Bounded
    seconds: float


@dataclass(frozen=True)
class Result:
    """What was found for a case; `lower <= exact optimum <= upper`."""

    name: str
    eps: float
    barrier: Measured
    whole: dict[str, Measured]
    final: dict[str, Measured]
    lower: float
    upper: float
    seconds: float

    @property
    def gap(self) -> float:
        """At most what single neurons lose."""
        return self.upper - self.barrier.value

    @property
    def exact(self) -> bool:
        """Whether both ends agree."""
        return self.upper - self.lower <= AGREED * self.gap

    def closed(self, found: Measured) -> float:
        """Share of the gap closed, at least; in percent."""
        return 100 * (found.value - self.barrier.value) / self.gap


def timed(f: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the CPU seconds it took."""
    began = time.process_time()
    result = f()
    return result, time.process_time() - began


def case_of(name: str, image: int, eps: float) -> Case:
    """The margin of an image whose bound by optimised slopes is the smallest."""
    digits = name.startswith("digits")
    folder = DATA if digits else benchmark_folder() / "eran"
    network = load_onnx(folder / f"{name}.onnx")
    data = np.load(folder / ("digits_test.npz" if digits else "mnist_test.npz"))
    x = torch.from_numpy(data["images"][image : image + 1] / 255.0).reshape(1, *network.input_shape)
    instance = Instance.of(network, ball(x, eps))
    queries = classification(torch.from_numpy(data["labels"][[image]]), 10)
    worst = bound(instance, queries, ALPHA).value[0].argmin(0, keepdim=True)
    query = Queries(queries.rows[:, worst], queries.offsets[:, worst], torch.zeros(1, 1).long(), 1)
    return prepared(f"{name} {image}", eps, instance, query)


def prepared(name: str, eps: float, instance: Instance, query: Queries) -> Case:
    """A case with its bounds by optimised slopes."""
    alpha, seconds = timed(lambda: bound(instance, query, ALPHA))
    return Case(name, eps, instance, query, alpha, seconds)


def by_method(case: Case, method: Method) -> Measured:
    found, seconds = timed(lambda: bound(case.instance, case.query, method))
    return Measured(float(found.value), seconds)


def whole(case: Case, relaxation: Relaxation) -> Measured:
    """Groups in every layer: those of a layer also tighten the pre-activations of the next."""
    return by_method(case, replace(ALPHA, multi_neuron=(relaxation.multi_neuron,), program=relaxation.program))


def final(case: Case, relaxation: Relaxation) -> Measured:
    """Groups over the pre-activation bounds of the barrier: only the bound of the margin profits."""
    value, seconds = timed(lambda: _final(case, relaxation))
    return Measured(float(value), case.seconds + seconds)


def _final(case: Case, relaxation: Relaxation) -> Tensor:
    instance, fast, bounds = case.instance, form_of(case, fast=True), grouped(case, relaxation)
    if relaxation.program:
        return bound_by_cutting(instance, case.query, Bounded(case.alpha.value, bounds)).value
    with torch.no_grad():
        witness = ascend(instance, fast, bounds.to(torch.float32, instance.network), relaxation.outer)
        value = lower_bound(instance.network, instance.region, form_of(case), over(witness, bounds), bounds)
    return torch.maximum(case.alpha.value, value)


def grouped(case: Case, relaxation: Relaxation) -> LayerBounds:
    """What is known by optimised slopes, with groups, whose combinations are bounded with the groups before them."""
    k, combinations = case.alpha.bounds, relaxation.multi_neuron.combinations
    bounds = k.copy()
    with torch.no_grad():
        for i, score in neuron_scores(case.instance, form_of(case, fast=True), k).items():
            groups = choose(case.instance, bounds, i, score, relaxation.grouping, combinations)
            bounds.groups |= {} if groups is None else {i: (groups,)}
    return bounds


def form_of(case: Case, fast: bool = False) -> Form:
    """The margin as a linear form of the output."""
    network = case.instance.fast_network if fast else case.instance.network
    return outputs(network, case.query.rows.to(network.dtype), case.query.offsets.to(network.dtype))


def attacked(case: Case) -> float:
    """The margin at the worst point found: an upper bound of the optimum."""
    shift = 1 - case.alpha.value  # a positive margin: the attack does not stop at the first counterexample
    shifted = replace(case.query, offsets=case.query.offsets + shift)
    x, _ = search(case.instance, shifted.to(torch.float32), ATTACK)
    x = case.instance.region.project(x.double().unsqueeze(1))[:, 0]
    return float(case.query.values(case.instance.network(x).unsqueeze(1)))


def branched(case: Case, target: float) -> float:
    """A lower bound of the optimum: layers tightened by branching, then branching on the margin itself."""
    found = bound(case.instance, case.query, SPLITTING)
    forms, enough = (form_of(case), form_of(case, fast=True)), torch.tensor([target]).double()
    return float(Branching(case.instance, found.bounds, forms, BRANCHING, found.value[0], enough).run().value)


def measured(case: Case, relaxations: Sequence[Relaxation] = RELAXATIONS) -> Result:
    """Everything about a case."""
    barrier = by_method(case, METHODS["lp"])
    everywhere = {r.name: whole(case, r) for r in relaxations}
    margin_only = {r.name: final(case, r) for r in relaxations}
    upper, attack_seconds = timed(lambda: attacked(case))
    lower, seconds = timed(lambda: branched(case, upper - AGREED / 2 * (upper - barrier.value)))
    return Result(case.name, case.eps, barrier, everywhere, margin_only, lower, upper, attack_seconds + seconds)


def example(rows: list[list[float]], through: list[float]) -> Network:
    """The sum of `ReLU(rows @ x)`, plus `through @ x`."""
    builder = Builder((2,))
    a = builder.add(ReLU(), builder.add(Dense(torch.tensor(rows).double(), None), 0))
    total = builder.add(Dense(torch.ones(1, len(rows)).double(), None), a)
    passed = builder.add(Dense(torch.tensor([through]).double(), None), 0)
    return builder.build(builder.add(Add((1, 1)), total, passed))


ROTATED, MAXIMUM = example([[1.0, 1.0], [1.0, -1.0]], [0.0, 0.0]), example([[-1.0, 1.0]], [1.0, 0.0])
TEXTBOOK = (
    ("ReLU(u + v) + ReLU(u - v), u, v in [-1, 1]", ROTATED, -1.0),
    ("x + ReLU(y - x), x, y in [0, 1]", MAXIMUM, 0.0),
)  # the second has one neuron, which there is no other to join with


def textbook() -> list[Result]:
    """The minima of the negative of both examples, with groups of all neurons of their one layer."""
    results = []
    pairs = Relaxation("k = 2", Grouping(2), outer=Ascent(1000, 0.3, 0.997))
    for name, network, low in TEXTBOOK:
        region = Box(torch.full((1, 2), low).double(), torch.ones(1, 2).double())
        query = Queries(-torch.ones(1, 1, 1).double(), torch.zeros(1, 1).double(), torch.zeros(1, 1).long(), 1)
        results.append(measured(prepared(name, 0.0, Instance.of(network, region), query), [pairs]))
    return results


Table = tuple[Sequence[str], list[tuple[str, ...]]]


def summary(results: Sequence[Result], relaxations: Sequence[Relaxation]) -> Table:
    """Medians over the questions."""
    header = ("relaxation", "neurons", "all layers: closed %", "range", "CPU s", "margin only: closed %", "CPU s")
    return header, [(r.name, str(r.grouping.neurons), *_medians(results, r.name)) for r in relaxations]


def _medians(results: Sequence[Result], name: str) -> Iterator[str]:
    for side in ("whole", "final"):
        found = [getattr(q, side)[name] for q in results]
        closed = [q.closed(m) for q, m in zip(results, found, strict=True)]
        yield f"{median(closed):.1f}"
        if side == "whole":
            yield f"{min(closed):.0f} to {max(closed):.0f}"
        yield f"{median(m.seconds for m in found):.1f}"


def every(results: Sequence[Result], relaxations: Sequence[Relaxation], side: str) -> Table:
    """The share closed and CPU seconds, question by question, for `side` "whole" or "final"."""
    header = ("question", "eps", "barrier", "exact", *(r.name for r in relaxations))
    rows = []
    for q in results:
        exact = f"{q.upper:.3f}" if q.exact else f"{q.lower:.3f} to {q.upper:.3f}"
        found = [getattr(q, side)[r.name] for r in relaxations]
        cells = f"{q.barrier.value:.3f} ({q.barrier.seconds:.1f})", f"{exact} ({q.seconds:.0f})"
        rows.append((q.name, f"{q.eps:g}", *cells, *(f"{q.closed(m):.0f} ({m.seconds:.1f})" for m in found)))
    return header, rows


def examples(results: Sequence[Result]) -> Table:
    """Upper bounds of the maxima."""
    header = ("maximum of", "barrier", "k-ReLU", "exact")
    found = ((q.barrier.value, *(m.value for m in q.whole.values()), q.lower) for q in results)
    return header, [(q.name, *(f"{-v:.3f}" for v in values)) for q, values in zip(results, found, strict=True)]


def markdown(content: Table) -> str:
    """As a table in Markdown, numbers to the right."""
    rule = ["---"] + ["--:"] * (len(content[0]) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (content[0], rule, *content[1]))


def replaced(text: str, name: str, block: str) -> str:
    """`text` with what stands between the marks of `name` replaced."""
    begin, end = f"<!-- {name} -->\n\n", f"\n\n<!-- end of {name} -->"
    return text.split(begin, 1)[0] + begin + block + end + text.split(end, 1)[1]


def table_rows(text: str, name: str) -> list[list[str]]:
    """The rows of the table that stands between the marks of `name`."""
    block = text.split(f"<!-- {name} -->", 1)[1].split(f"<!-- end of {name} -->", 1)[0].strip()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]


def read_cell(cell: str) -> Measured:
    """A number and the CPU seconds behind it, as in `0.830 (0.2)`."""
    value, seconds = cell.rstrip(")").split(" (")
    return Measured(float(value), float(seconds))


def read_results(text: str, relaxations: Sequence[Relaxation]) -> list[Result]:
    """The results that the tables of docs/barrier.md show, with their rounding."""
    results = []
    for row, other in zip(table_rows(text, "all layers"), table_rows(text, "margin only"), strict=True):
        barrier, (exact, seconds) = read_cell(row[2]), row[3].rstrip(")").split(" (")
        lower, upper = (float(end) for end in (exact.split(" to ")[0], exact.split(" to ")[-1]))
        sides = []
        for cells in (row[4:], other[4:]):
            found = {r.name: read_cell(cell) for r, cell in zip(relaxations, cells, strict=True)}
            gap = (upper - barrier.value) / 100  # cells have percents of it
            sides.append({name: Measured(barrier.value + m.value * gap, m.seconds) for name, m in found.items()})
        results.append(Result(row[0], float(row[1]), barrier, *sides, lower, upper, float(seconds)))
    return results


# those of Okabe and Ito (2008)
COLOURS = {"k = 2": "#0072B2", "k = 3": "#D55E00", "k = 4": "#009E73", "LP, k = 2": "#56B4E9", "LP, k = 3": "#E69F00"}
EXACT = "#CC79A7"


def look(relaxation: Relaxation) -> dict[str, Any]:
    """One colour for every k and solver; circles, squares for programs."""
    colour = COLOURS[relaxation.name]
    marker = "s" if relaxation.program else "o"
    return {"color": colour, "marker": marker, "linestyle": "none", "markersize": 7}


def draw(results: Sequence[Result], relaxations: Sequence[Relaxation], path: Path) -> None:
    """Shares of the gap closed, and bounds of one question against CPU seconds."""
    import matplotlib.pyplot as plt

    plt.rcParams |= {"font.size": 11, "svg.hashsalt": "krelax", "axes.spines.top": False, "axes.spines.right": False}
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.4), layout="constrained", width_ratios=(1.15, 1))
    draw_shares(left, results, relaxations)
    draw_costs(right, next(q for q in results if q.name == SHOWN), relaxations)
    figure.savefig(path, metadata={"Date": None})


def draw_shares(axes: Any, results: Sequence[Result], relaxations: Sequence[Relaxation]) -> None:
    """A mark for each question and a bar at the median: filled for groups in all layers, open for the margin only."""
    for i, r in enumerate(relaxations):
        for side, at, fill in (("whole", i - 0.18, "full"), ("final", i + 0.18, "none")):
            closed = [q.closed(getattr(q, side)[r.name]) for q in results]
            spread = np.linspace(-0.09, 0.09, len(closed))
            axes.plot(at + spread, closed, **look(r) | {"markersize": 5}, fillstyle=fill, alpha=0.75)
            axes.plot([at - 0.15, at + 0.15], [median(closed)] * 2, color="black", linewidth=2.2, zorder=3)
    axes.set_xticks(range(len(relaxations)), [r.name.replace(", ", "\n") for r in relaxations])
    axes.axhline(0, color="black", linestyle="--", linewidth=1)
    axes.axhline(100, color=EXACT, linewidth=1.5)
    axes.set(ylim=(-5, 105), ylabel="gap closed, %")
    axes.set_yticks(range(0, 101, 20), ["0\nbarrier", "20", "40", "60", "80", "100\nexact"])
    axes.set_title("Filled: groups in all layers. Open: for the margin only. Bars: medians", fontsize=11)


def draw_costs(axes: Any, result: Result, relaxations: Sequence[Relaxation]) -> None:
    """Bound against CPU seconds."""
    for r in relaxations:
        for side, fill in (("whole", "full"), ("final", "none")):
            found, label = getattr(result, side)[r.name], r.name if side == "whole" else None
            axes.plot(found.seconds, found.value, **look(r) | {"markersize": 9}, fillstyle=fill, label=label)
    axes.plot(result.barrier.seconds, result.barrier.value, "k+", markersize=10, label="triangle LP")
    axes.axhline(result.barrier.value, color="black", linestyle="--", linewidth=1, label="barrier")
    axes.axhline(result.upper, color=EXACT, linewidth=1.5, label="exact")
    axes.set(xscale="log", xticks=(0.3, 1, 3, 10, 30, 100), xticklabels=("0.3", "1", "3", "10", "30", "100"))
    axes.minorticks_off()
    axes.set(xlabel="CPU seconds, all bounds included", ylabel="lower bound of the margin")
    axes.set_title(f"{result.name}, radius {result.eps:g}", fontsize=11)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)


def write(shown: dict[str, Table]) -> None:
    """Put tables and figure into docs/barrier.md."""
    text = (DOCS / "barrier.md").read_text()
    for name, content in shown.items():
        text = replaced(text, name, markdown(content))
    (DOCS / "barrier.md").write_text(text)
    draw_page()


def draw_page() -> None:
    """Draw the figure of docs/barrier.md from its tables."""
    draw(read_results((DOCS / "barrier.md").read_text(), RELAXATIONS), RELAXATIONS, DOCS / "barrier.svg")


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--quick", action="store_true", help="three questions, three relaxations")
    either.add_argument("--write", action="store_true", help="write docs/barrier.md and docs/barrier.svg")
    either.add_argument("--draw", action="store_true", help="draw docs/barrier.svg from the tables of docs/barrier.md")
    arguments = parser.parse_args()
    if arguments.draw:
        draw_page()
        return
    torch.set_num_threads(1)
    relaxations = RELAXATIONS[:3] if arguments.quick else RELAXATIONS
    solved, results = textbook(), []
    for question in QUICK if arguments.quick else DIGITS + MNIST:
        results.append(measured(case_of(*question), relaxations))
        print(f"{results[-1].name}: {time.process_time():.0f} CPU s so far", file=sys.stderr, flush=True)
    shown = {
        "examples": examples(solved),
        "summary": summary(results, relaxations),
        "all layers": every(results, relaxations, "whole"),
        "margin only": every(results, relaxations, "final"),
    }
    for name, content in shown.items():
        print(f"{name}\n\n{table(*content)}\n")
    if arguments.write:
        write(shown)


if __name__ == "__main__":
    main()
