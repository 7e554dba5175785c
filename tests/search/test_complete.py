"""Verdicts of the staged run on hundreds of tiny instances against the exact minimum over all activation patterns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
import pytest
import torch
from tests.exact import Layer, as_network, minimum
from tests.exact_cells import Clause, least_margin
from tests.marks import at_night_after
from tests.search.asking import Array, Question, answers, check_counterexample, margin_at, replayed, specification

from krelax.activations import LeakyReLU, Max, ReLU
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Conv, Dense
from krelax.network.ops import Reshape, Take
from krelax.op import Op
from krelax.run.verify import VerifyOptions, verify
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan
from krelax.search.verdict import Outcome, Verdict

# Every instance of these families must be decided, by the staged run and by splitting nothing but neurons.
DECIDED = ("dense", "leaky", "residual", "convolution")

# For the questions about one network: what is decided takes a few seconds at most, but a search that does not end is a
# failure; what cannot be decided gets a moment.
ENOUGH, MOMENT = 120.0, 0.3
NEAR = Fraction(1, 10**6)  # instances with a smaller margin are left out: float32 may not see which side it is on
GROUPS, NETWORKS, BOXES = 9, 4, 4


T = TypeVar("T")


class Instance(NamedTuple):
    question: Question
    margin: Fraction


class Known(NamedTuple):
    """A network and questions whose exact margins are known, and how many others were too near to zero."""

    network: Network
    instances: list[Instance]
    excluded: int

    @property
    def questions(self) -> list[Question]:
        return [instance.question for instance in self.instances]


@dataclass(frozen=True)
class Draw:
    """Random choices, and the denominators that numbers may have."""

    rng: np.random.Generator
    denominators: tuple[int, ...] = (1, 2, 3, 4, 5)

    def numbers(self, *shape: int) -> Array:
        """Fractions between -2 and 2, all with the same denominator."""
        denominator = int(self.rng.choice(self.denominators))
        return self.rng.integers(-2 * denominator, 2 * denominator + 1, size=shape) / denominator

    def one_of(self, *values: T) -> T:
        return values[self.rng.integers(len(values))]


def layer(builder: Builder, draw: Draw, x: int, width: int, act: Op | None = None) -> int:
    """A dense layer of random numbers."""
    weight, bias = draw.numbers(width, *builder.shape(x)), draw.numbers(width)
    y = builder.add(Dense(torch.from_numpy(weight), torch.from_numpy(bias)), x)
    return y if act is None else builder.add(act, y)


def dense(draw: Draw, act: Op | None = None) -> tuple[Builder, int]:
    """One to three hidden layers of eight neurons in all, or fewer."""
    builder, x = Builder((draw.one_of(1, 2, 3),)), 0
    for width in draw.one_of((3,), (8,), (4, 4), (6, 2), (3, 3, 2), (2, 2, 2)):
        x = layer(builder, draw, x, width, act or ReLU())
    return builder, x


def leaky(draw: Draw) -> tuple[Builder, int]:
    """Slopes that float32 has, or rounds down: a lower line with such a slope is not quite below the activation."""
    return dense(draw, LeakyReLU(draw.one_of(0.01, 0.5, 0.7)))


def residual(draw: Draw) -> tuple[Builder, int]:
    """Blocks `x + W relu(V x + b) + c` and `x - relu(W x + b)`."""
    builder = Builder((draw.one_of(1, 2, 3),))
    x = layer(builder, draw, 0, 2, ReLU())
    block = layer(builder, draw, layer(builder, draw, x, 3, ReLU()), 2)
    x = builder.add(Add((1, 1)), x, block)
    return builder, builder.add(Add((1, -1)), x, layer(builder, draw, x, 2, ReLU()))


def convolution(draw: Draw) -> tuple[Builder, int]:
    """Two channels over a strip of three pixels, with or without padding, and a dense layer."""
    builder = Builder((1, 1, 3))
    weight, bias = (torch.from_numpy(draw.numbers(*shape)) for shape in ((2, 1, 2), (2,)))
    stride, padding = draw.one_of(((1,), (0,)), ((2,), (1,)))
    x = builder.add(ReLU(), builder.add(Conv(weight, bias, stride, padding, (1,)), 0))
    x = builder.add(Reshape((4,)), x)
    return builder, layer(builder, draw, x, 3, ReLU())


def pooled(draw: Draw) -> tuple[Builder, int]:
    """The largest of three and of two neurons, then a ReLU layer."""
    builder = Builder((draw.one_of(1, 2, 3),))
    x = layer(builder, draw, 0, 4, LeakyReLU(0.25))
    x = builder.add(Max(), builder.add(Take(torch.tensor([[0, 1, 2], [2, 3, 3]])), x))
    return builder, layer(builder, draw, x, 2, ReLU())


FAMILIES: dict[str, Callable[[Draw], tuple[Builder, int]]] = {
    f.__name__: f for f in (dense, leaky, residual, convolution, pooled)
}


def random_network(draw: Draw, family: str) -> Network:
    """Of one to three outputs."""
    builder, x = FAMILIES[family](draw)
    return replayed(builder.build(layer(builder, draw, x, draw.one_of(1, 2, 3))))


def random_box(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Around a point that activations often have on their zero lines; now and then some inputs are fixed."""
    centre = rng.integers(-2, 3, size=shape) / 2
    radius = rng.choice([0.25, 0.5, 1.0, 2.0, 0.0], p=[0.25, 0.25, 0.25, 0.2, 0.05], size=shape)
    return centre - radius, centre + radius + 2.0**-7 * (radius > 0)


def random_clauses(draw: Draw, outputs: int) -> list[Clause]:
    """One margin, or unsafe sets that are intersections, unions, or unions of intersections of half-spaces."""
    sizes: tuple[int, ...] = draw.one_of((1,), (2,), (3,), (1, 1), (2, 1), (1, 1, 1), (2, 2))
    return [(draw.numbers(m, outputs), draw.rng.integers(-4, 5, size=m) / 4) for m in sizes]


def shifted(clauses: list[Clause], shift: Fraction) -> list[Clause]:
    """All margins moved by the same number, up to rounding."""
    return [(rows, np.array([float(Fraction(o) + shift) for o in offsets])) for rows, offsets in clauses]


def instance(draw: Draw, network: Network, aim: Fraction | None) -> Instance:
    """A random question, moved so that the margin is very nearly `aim` if there is one."""
    lower, upper = random_box(draw.rng, network.input_shape)
    clauses = random_clauses(draw, int(np.prod(network.output_shape)))
    margin = least_margin(network, lower, upper, clauses).value
    if aim is not None:
        clauses = shifted(clauses, aim - margin)
        margin = least_margin(network, lower, upper, clauses).value
    return Instance(Question(lower, upper, tuple(clauses)), margin)


AIMS = (None, None, *(sign * Fraction(1, 2**bits) for sign in (1, -1) for bits in (2, 5, 9, 12)))


def distinct(instances: Iterator[Instance]) -> list[Instance]:
    """Those with boxes of their own: others would be merged into one question."""
    return list({(i.question.lower.tobytes(), i.question.upper.tobytes()): i for i in instances}.values())


@cache
def known(family: str, seed: int) -> Known:
    """A network with a few questions whose margins are not too near to zero."""
    draw = Draw(np.random.default_rng([sorted(FAMILIES).index(family), seed]))
    network = random_network(draw, family)
    drawn = distinct(instance(draw, network, draw.one_of(*AIMS)) for _ in range(BOXES))
    kept = [i for i in drawn if abs(i.margin) > NEAR]
    return Known(network, kept, len(drawn) - len(kept))


@cache
def tied(family: str, seed: int) -> Known:
    """Margins of exactly zero. Binary fractions, because the shift that makes them so must be a float."""
    draw = Draw(np.random.default_rng([sorted(FAMILIES).index(family), seed, 0]), (1, 2, 4))
    network = random_network(draw, family)
    drawn = distinct(instance(draw, network, Fraction(0)) for _ in range(2 * BOXES))
    kept = [i for i in drawn if i.margin == 0]
    return Known(network, kept, len(drawn) - len(kept))


def check(network: Network, asked: Instance, outcome: Outcome) -> None:
    """Nothing that the outcome says contradicts the exact margin."""
    assert outcome.verdict is not (Verdict.HOLDS if asked.margin <= 0 else Verdict.VIOLATED), outcome
    assert outcome.margin is None or Fraction(outcome.margin) <= asked.margin
    if outcome.verdict is Verdict.VIOLATED:
        check_counterexample(outcome, network, asked.question)
        assert outcome.counterexample is not None
        assert margin_at(network, asked.question, outcome.counterexample.x) < Fraction(1, 1000)  # float32 rounds


def check_all(asked: Known, plan: str | Plan = "auto", complete: bool = False) -> None:
    """No answer is wrong; with `complete`, none is missing either."""
    seconds = ENOUGH if complete else MOMENT
    found = answers(asked.network, asked.questions, plan, seconds) if asked.instances else []
    for one, outcome in zip(asked.instances, found, strict=True):
        check(asked.network, one, outcome)
        if complete:
            assert outcome.verdict is (Verdict.HOLDS if one.margin > 0 else Verdict.VIOLATED), outcome


@pytest.mark.parametrize("group", at_night_after(1, range(GROUPS)))
@pytest.mark.parametrize("family", FAMILIES)
def test_verdicts_are_the_truth(family: str, group: int) -> None:
    for seed in range(group * NETWORKS, (group + 1) * NETWORKS):
        check_all(known(family, seed), complete=family in DECIDED)


@pytest.mark.parametrize("seed", at_night_after(1, [2, 0, 1]))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_margin_of_zero_is_no_proof(family: str, seed: int) -> None:
    """The property asks for more than zero, and zero is what it is, at one input or at many."""
    check_all(tied(family, seed))


CLIPS = [(None, 0), (0.0, 2), (None, 2), (None, 4), (0.0, 0)]
# every family always, half of them with clips
SPLIT = [(family, *CLIPS[(i + j) % 2]) for j in range(2) for i, family in enumerate(DECIDED)]
SPLIT += [(family, *clips) for clips in CLIPS[2:] for family in DECIDED]


@pytest.mark.parametrize(("family", "clips", "first"), at_night_after(len(DECIDED), SPLIT))
def test_splitting_neurons_alone(family: str, clips: float | None, first: int) -> None:
    """The staged run splits so few inputs themselves, and hardly gets to neurons here; with clips from the beginning,
    too, which wait a second there."""
    plan = Plan((Complete(split=("neurons",), branching=replace(Complete().branching, clips=clips)),))
    for seed in range(first, first + 2):
        check_all(known(family, seed), plan, complete=True)
    check_all(tied(family, first // 2), plan)


@pytest.mark.parametrize(
    ("family", "first"),
    at_night_after(2, [(f, i) for i in (0, 2) for f in ("leaky", "residual", "convolution", "dense")]),
)
def test_contradictions_alone(family: str, first: int) -> None:
    """Which branching and passes mostly leave nothing to do."""
    plan = Plan((Complete(split=("neurons",), passes=(), turn=0.0, hope=0.0, judged=0, promising=0.0, portion=0.01),))
    for seed in range(first, first + 2):
        check_all(known(family, seed), plan, complete=True)
    check_all(tied(family, first // 2), plan)


@pytest.mark.parametrize("family", DECIDED)
def test_a_specification_of_several_boxes(family: str) -> None:
    """One answer for all boxes: the worst."""
    for seed in range(NETWORKS):
        network, instances, _ = asked = known(family, seed)
        outcome = verify(network, specification(network, asked.questions), VerifyOptions(timeout=ENOUGH))
        worst = min(one.margin for one in instances)
        assert outcome.verdict is not (Verdict.HOLDS if worst < 0 else Verdict.VIOLATED)
        assert outcome.margin is None or worst < 0 or Fraction(outcome.margin) <= worst
        assert outcome.verdict is (Verdict.HOLDS if worst > 0 else Verdict.VIOLATED)


@pytest.mark.slow
def test_the_instances_are_many_and_of_every_kind() -> None:
    """Enough that hold and that do not, and enough of both close to the border."""
    for family in FAMILIES:
        margins = [one.margin for seed in range(GROUPS * NETWORKS) for one in known(family, seed).instances]
        assert len(margins) >= 125
        for sign in (1, -1):
            side = [sign * m for m in margins if sign * m > 0]
            assert len(side) >= 40
            assert sum(m < Fraction(1, 100) for m in side) >= 10
        assert sum(len(tied(family, seed).instances) for seed in range(3)) >= 4


@pytest.mark.parametrize("seed", at_night_after(5, range(20)))
def test_both_exact_references_agree(seed: int) -> None:
    """With two inputs there is another one, made independently; the minimum is attained where it is said to be."""
    draw = Draw(np.random.default_rng(seed))
    width, skip, slope = draw.one_of(1, 2, 3, 4), draw.one_of(False, True), draw.one_of(0.0, 0.01, 0.5)
    widths = [2, *[2 if skip else width] * draw.one_of(1, 2, 3)]
    layers = [Layer(draw.numbers(m, n).tolist(), draw.numbers(m).tolist(), slope, skip) for n, m in pairwise(widths)]
    network, row = as_network(layers), draw.numbers(widths[-1])
    lower, upper = random_box(draw.rng, (2,))
    least = least_margin(network, lower, upper, [(row[None], np.ones(1))])
    assert least.value == minimum(layers, row.tolist(), 1.0, lower.tolist(), upper.tolist())
    at = np.array([float(x) for x in least.at])
    assert ((lower <= at) & (at <= upper)).all()
    assert float(network(torch.from_numpy(at)[None])[0].numpy() @ row) + 1 == pytest.approx(float(least.value))
