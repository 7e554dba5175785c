"""Where there is no time: fewer steps, coarser bounds, and never an unsound one."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from tests.bounds.problems import margins
from tests.exact import Layer, as_network, minimum, ranges

from krelax.activations import ReLU
from krelax.bounds import methods
from krelax.bounds.backward import outputs
from krelax.bounds.instance import Instance, OutOfTime
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.optimise import Ascent, ascend, initial
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.problem.queries import Queries
from krelax.problem.region import Box

LAYERS = [
    Layer([[1, 1], [1, -2], [-1, 1], [2, 1]], [0, 1, 0, -1]),
    Layer([[1, -1, 1, 0], [0, 1, -1, 1], [1, 1, 0, -1]], [0, -1, 1]),
    Layer([[1, -1, 1], [-1, 2, 1]], [0, 0]),
]
LOWER, UPPER, ROWS = [-1.0, -1.0], [1.0, 1.0], [[1.0, -1.0], [-1.0, 0.5]]
optimising = pytest.mark.parametrize("name", ["crown", "alpha"])


def problem() -> tuple[Instance, Queries]:
    region = Box(*(torch.tensor([end], dtype=torch.float64) for end in (LOWER, UPPER)))
    rows = torch.tensor([ROWS], dtype=torch.float64)
    return Instance.of(as_network(LAYERS), region), margins(rows, torch.zeros(1, 2, dtype=torch.float64))


def wide(width: int) -> Network:
    builder = Builder((2,))
    first, weight = (torch.zeros(1, dtype=torch.float64).expand(width, n) for n in (2, width))
    x = builder.add(ReLU(), builder.add(Dense(first), 0))
    for _ in range(2):
        x = builder.add(ReLU(), builder.add(Dense(weight), x))
    return builder.build(x)


def test_small_networks_afford_every_step() -> None:
    ascent = Ascent(24, 0.5, 0.88)
    assert ascent.affordable(wide(1000)) == ascent


def test_wide_networks_afford_fewer_steps_that_shrink_faster() -> None:
    ascent = Ascent(24, 0.5, 0.88)
    some, few = ascent.affordable(wide(3000)), ascent.affordable(wide(20000))
    assert ascent.steps > some.steps > few.steps >= 4
    assert ascent.decay > some.decay > few.decay > 0
    assert ascent.rate == some.rate == few.rate
    assert Ascent(2, 0.5, 0.88).affordable(wide(20000)) == Ascent(2, 0.5, 0.88)


def test_an_ascent_ends_after_its_seconds() -> None:
    instance, queries = problem()
    bounds = bound(instance, queries, METHODS["crown"]).bounds.to(torch.float32, instance.network)
    form = outputs(instance.fast_network, queries.rows.float(), queries.offsets.float())
    start = initial(bounds, list(bounds.relaxations), 2)
    moved, still = (ascend(instance, form, bounds, Ascent(20, 0.5, 0.9, seconds)) for seconds in (None, -1.0))
    same = [
        all(torch.equal(p.value, q.value) for p, q in zip(witness[i].parameters(), start[i].parameters(), strict=True))
        for witness in (moved, still)
        for i in start
    ]
    assert all(same[len(start) :])
    assert not all(same[: len(start)])


@optimising
def test_without_time_for_layers_bounds_are_sound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every margin and every pre-activation, against exact ones; the margins are no worse than interval arithmetic."""
    monkeypatch.setattr(methods, "_patience", lambda *_: -1.0)
    instance, queries = problem()
    found = bound(instance, queries, METHODS[name])
    exact = [minimum(LAYERS, row, 0.0, LOWER, UPPER) for row in ROWS]
    assert all(Fraction(v) <= m for v, m in zip(found.value[0].tolist(), exact, strict=True))
    assert (found.value >= bound(instance, queries, METHODS["interval"]).value).all()
    places = [node.inputs[0] for node in instance.network.nodes if isinstance(node.op, ReLU)]
    for place, layer in zip(places, ranges(LAYERS, LOWER, UPPER), strict=True):
        ends = zip(found.bounds.lower[place][0].tolist(), found.bounds.upper[place][0].tolist(), layer, strict=True)
        assert all(Fraction(a) <= exactly.low and exactly.high <= Fraction(b) for a, b, exactly in ends)


@optimising
def test_a_distant_deadline_changes_nothing(name: str) -> None:
    instance, queries = problem()
    calm = bound(instance, queries, METHODS[name]).value
    assert torch.equal(calm, bound(instance.until(1000.0), queries, METHODS[name]).value)


@optimising
def test_nothing_is_bounded_after_the_deadline(name: str) -> None:
    instance, queries = problem()
    with pytest.raises(OutOfTime):
        bound(replace(instance, deadline=time.perf_counter() - 1), queries, METHODS[name])


def test_optimisation_goes_on_from_what_is_known() -> None:
    instance, queries = problem()
    crown = bound(instance, queries, METHODS["crown"])
    afresh, further = (bound(instance, queries, METHODS["alpha"], found=found) for found in (None, crown))
    assert torch.equal(afresh.value, further.value)
