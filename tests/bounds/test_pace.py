"""How long leaves are optimised: chosen by what ascents bring, and nothing that they make worse is kept."""

from __future__ import annotations

from dataclasses import replace
from math import log2, sqrt
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.search.small import _dense
from torch import Tensor

from krelax.activations import ReLU, Sigmoid
from krelax.bounds.backward import outputs
from krelax.bounds.branching import Branching, Effort
from krelax.bounds.instance import Instance
from krelax.bounds.leaves import Leaves
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.optimise import Ascent
from krelax.bounds.pace import Pace, _doublings
from krelax.problem.queries import Queries
from krelax.problem.region import Box


def test_trees_whose_halves_gain_the_same_double_with_each_gain() -> None:
    left, gain = torch.tensor([1.0, 3.0, 8.0, 0.0]), torch.tensor([1.0, 0.5, 2.0, 1.0])
    assert torch.allclose(_doublings(left, gain, gain), torch.tensor([1.0, 6.0, 4.0, 0.0]).double(), atol=1e-3)


def test_trees_of_halves_that_gain_differently() -> None:
    golden = (1 + sqrt(5)) / 2  # its first power and its second
    found = _doublings(torch.tensor([10.0]), torch.tensor([1.0]), torch.tensor([2.0]))
    assert float(found) == pytest.approx(10 * log2(golden), abs=1e-2)


def test_a_half_that_gains_nothing_makes_the_largest_tree() -> None:
    assert float(_doublings(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([9.0]))) == pytest.approx(60)


class Pretended:
    """Leaves gain so much by a split for each number of steps, and their optima are so much higher."""

    splits_curves = False

    def __init__(self, gains: dict[int, float]) -> None:
        self.gains = gains

    def improve(self, leaves: Leaves, ascent: Ascent) -> None:
        splits = (leaves.neuron >= 0).sum(1)
        leaves.value = -10 + self.gains[ascent.steps] * splits


def _leaves(count: int) -> Leaves:
    instance, bounds, forms, effort, start, _ = _posed(ReLU())
    return Branching(instance, bounds, forms, effort, start)._evaluator.roots(torch.zeros(count, dtype=torch.long), 8)


def _posed(act: ReLU | Sigmoid) -> tuple[Any, ...]:
    network = _dense(np.random.default_rng(3), 6, act, (10, 10))
    instance = Instance.of(network, Box(-torch.ones(1, 6), torch.ones(1, 6)).to(torch.float64, "cpu"))
    rows = torch.tensor([[[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]], dtype=torch.float64)
    queries = Queries(rows, torch.full((1, 2), -1.0, dtype=torch.float64), torch.tensor([[0, 1]]), 2)
    found = bound(instance, queries, METHODS["alpha"])
    forms = [outputs(n, *(t.to(n.dtype) for t in (queries.rows, queries.offsets)))
             for n in (instance.network, instance.fast_network)]  # fmt: skip
    effort = Effort(rounds=10**9, partial=False)
    return instance, found.bounds, tuple(forms), effort, found.value[0], torch.zeros(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("gains", "steps"),
    [({2: 1.0, 10: 1.0, 30: 1.0}, 2), ({2: 0.5, 10: 2.0, 30: 2.1}, 10), ({2: 0.2, 10: 0.3, 30: 5.0}, 30),
     ({2: 1.0, 10: 1.1, 30: 1.2}, 2)],
)  # fmt: skip
def test_the_ascent_with_the_least_work_is_taken(gains: dict[int, float], steps: int) -> None:
    leaves = _leaves(4)
    leaves.branch = torch.zeros_like(leaves.branch)
    pace = Pace(Pretended(gains), Ascent(2, 0.1, 0.8))  # type: ignore[arg-type]
    assert not pace.is_due(100)
    pace.look(leaves, torch.zeros(1, dtype=torch.float64))
    assert pace.ascent.steps == steps
    assert pace.kept == replace(pace.ascent, steps=0)


def test_curves_have_long_ascents_from_the_beginning() -> None:
    pace = Pace(SimpleNamespace(splits_curves=True), Ascent(2, 0.1, 0.8))  # type: ignore[arg-type]
    assert pace.ascent.steps > 2
    assert not pace.is_due(10**9)


def test_children_are_not_worse_than_their_parents() -> None:
    """Though their ascents overshoot."""
    instance, bounds, forms, effort, start, target = _posed(Sigmoid())
    wild = replace(effort, leaf=Ascent(3, 20.0, 1.0))  # type: ignore[type-var]
    search = Branching(instance, bounds, forms, wild, start, target)  # type: ignore[arg-type]
    search._pace = SimpleNamespace(ascent=wild.leaf, kept=replace(wild.leaf, steps=0), is_due=lambda n: False)  # type: ignore
    seen: list[Tensor] = []
    inherit = search._floors.inherit

    def shown(parents: Leaves, children: Leaves) -> None:
        seen.append(children.value - parents.value.repeat(2))
        inherit(parents, children)

    search._floors.inherit = shown  # type: ignore[method-assign]
    with torch.no_grad():
        search._improve_roots()
        for _ in range(4):
            rows = (search._tree.open.branch >= 0).nonzero()[:, 0]
            search._split(search._tree.open.select(rows))
    assert seen
    assert all(bool((d > -1e-3).all()) for d in seen)
