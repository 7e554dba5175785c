"""Splits of sigmoid and tanh: at any point, and again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.curved import Problem, problem
from tests.marks import at_night_after
from torch import Tensor

from krelax.activations import Activation, Sigmoid, Tanh
from krelax.bounds.backward import outputs
from krelax.bounds.branching import Branching, Effort
from krelax.bounds.curved import Pieces, worth_splitting
from krelax.bounds.evaluator import Evaluator
from krelax.bounds.instance import Instance
from krelax.bounds.leaves import Leaves
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.optimise import Ascent
from krelax.bounds.sites import Anywhere

KINDS = ["s", "t", "st", "trs", "ttt"]


def evaluator_of(case: Problem) -> Evaluator:
    instance = Instance.of(case.network, case.box)
    networks = (case.network, instance.fast_network)
    forms = (outputs(n, *(t.to(n.dtype) for t in (case.queries.rows, case.queries.offsets))) for n in networks)
    return Evaluator(instance, bound(instance, case.queries, METHODS["crown"]).bounds, *forms)


def grown(evaluator: Evaluator, splits: int, seed: int) -> Leaves:
    """All leaves of a tree whose splits are drawn, twice as many with every one."""
    draw = torch.Generator().manual_seed(seed)
    neurons = sum(site.count for _, site in evaluator.sites.splittable())
    leaves = evaluator.roots(torch.zeros(1, dtype=torch.long), splits)
    for _ in range(splits):
        evaluator.improve(leaves, Ascent(2, 0.3, 0.9))
        leaves.branch = torch.randint(0, neurons, (len(leaves),), generator=draw)
        if len(leaves) > 1:  # the same neuron again, in half of the leaves
            again = leaves.neuron[:, 0] >= min(
                s.first for _, s in evaluator.sites.splittable() if isinstance(s, Anywhere)
            )
            again &= torch.rand(len(leaves), generator=draw) < 0.5
            leaves.branch = torch.where(
                again & is_curved(evaluator, leaves.neuron[:, 0]), leaves.neuron[:, 0], leaves.branch
            )
        seen = (leaves.neuron == leaves.branch[:, None]).any(1) & ~is_curved(evaluator, leaves.branch)
        leaves.branch[seen] = next(s.first for _, s in evaluator.sites.splittable() if isinstance(s, Anywhere))
        leaves.at = evaluator.sites.points(leaves)
        leaves = leaves.children()
    return leaves


def is_curved(evaluator: Evaluator, neuron: Tensor) -> Tensor:
    sites = [s for _, s in evaluator.sites.splittable() if isinstance(s, Anywhere)]
    parts = [(neuron >= s.first) & (neuron < s.first + s.count) for s in sites]
    return torch.stack(parts).any(0)


def pre_activations(evaluator: Evaluator, x: Tensor) -> Tensor:
    """Of all neurons, by their numbers, `(inputs, neurons)`."""
    network, values = evaluator.instance.network, {0: x}
    for i, node in enumerate(network.nodes[1:], 1):
        values[i] = node.op.forward(*(values[j] for j in node.inputs))
    return torch.cat([values[network.nodes[i].inputs[0]].flatten(1) for i, _ in evaluator.sites.splittable()], 1)


# every network always, without steps and with some in turn
STEPPED = [(kinds, (0, 5)[(i + j) % 2]) for j in range(2) for i, kinds in enumerate(KINDS)]


@pytest.mark.parametrize(("kinds", "steps"), at_night_after(len(KINDS), STEPPED))
def test_no_leaf_is_above_a_value_in_its_region(kinds: str, steps: int, tmp_path: Path) -> None:
    """Whatever slopes and multipliers are. Together the leaves have every input."""
    case = problem(tmp_path / "model.onnx", 11, kinds)
    evaluator, x = evaluator_of(case), case.inputs(20000)
    z, margins = pre_activations(evaluator, x), case.margins(x)[:, 0]
    with torch.no_grad():
        leaves = grown(evaluator, 4, seed=3)
        evaluator.improve(leaves, Ascent(steps, 0.3, 0.9))
        leaves.multiplier += (leaves.neuron >= 0) * torch.rand(leaves.multiplier.shape) * 0.1
        proven, covered, met = evaluator.prove(leaves), torch.zeros(len(x), dtype=torch.bool), 0
    repeated = False
    for row in range(len(leaves)):
        here = torch.ones(len(x), dtype=torch.bool)
        for n, p, side in zip(*(t[row].tolist() for t in (leaves.neuron, leaves.point, leaves.side)), strict=True):
            here &= side * (z[:, n] - p) >= 0
        repeated |= len(set(leaves.neuron[row].tolist())) < leaves.neuron.shape[1]
        covered |= here
        if bool(here.any()):
            met += 1
            assert float(proven[row]) <= float(margins[here].min())
    assert repeated
    assert met > 4
    assert bool(covered.all())
    assert bool((proven > proven.min() + 1e-3).any())


@pytest.mark.parametrize("kinds", ["t", "ss"])
def test_every_split_makes_the_relaxation_smaller(kinds: str, tmp_path: Path) -> None:
    """With the slopes that they inherit, and multipliers of zero, children are not below their parents."""
    evaluator = evaluator_of(problem(tmp_path / "model.onnx", 5, kinds))
    with torch.no_grad():
        leaves = evaluator.roots(torch.zeros(1, dtype=torch.long), 6)
        evaluator.improve(leaves, Ascent(30, 0.3, 0.95))
        for _ in range(5):
            assert bool((leaves.branch >= 0).all())
            before = evaluator.prove(leaves)
            leaves = leaves.children()
            after = evaluator.prove(leaves).view(2, -1)
            assert bool((after >= before - 1e-12).all())
            evaluator.improve(leaves, Ascent(3, 0.05, 0.8))


@pytest.mark.parametrize(("kinds", "seed"), at_night_after(2, [("t", 5), ("rs", 8), ("st", 8)]))
def test_a_search_gets_far_above_the_bound_without_splits(kinds: str, seed: int, tmp_path: Path) -> None:
    case = problem(tmp_path / "model.onnx", seed, kinds)
    instance = Instance.of(case.network, case.box)
    found = bound(instance, case.queries, METHODS["alpha"])
    networks = (case.network, instance.fast_network)
    forms = [outputs(n, *(t.to(n.dtype) for t in (case.queries.rows, case.queries.offsets))) for n in networks]
    effort = Effort(leaves=64, rounds=12, leaf=Ascent(6, 0.1, 0.8))
    search = Branching(instance, found.bounds, (forms[0], forms[1]), effort, found.value[0])
    proven, truth = float(search.run().value), float(case.margins(case.inputs(100000)).min())
    assert proven <= truth
    assert truth - proven < 0.5 * (truth - float(found.value))


@pytest.mark.parametrize("op", [Sigmoid(), Tanh()], ids=lambda op: op.name)
def test_neurons_are_cut_where_the_worse_piece_is_relaxed_best(op: Activation) -> None:
    """Nearly so, for either line, against a search of the interval."""
    ends = torch.tensor([[-4.0, -0.1, 0.5, -9.0, -2.0, 2.0], [4.0, 6.0, 7.0, 0.3, 1.0, 2.5]]).double()
    whole = op.relax(ends[:1], ends[1:])
    found, share = worth_splitting(whole), torch.linspace(0.01, 0.99, 99).double()[:, None]
    tried = ends[0] + share * (ends[1] - ends[0])
    pairs = (ends[:1].expand(99, -1), tried), (tried, ends[1:].expand(99, -1))
    below, above = (op.relax(*pair).losses()[0] for pair in pairs)
    for gain, lost, *pieces in zip((found.lower, found.upper), whole.losses()[0], below, above, strict=True):
        best = (lost - torch.maximum(*pieces)).max(0).values.clamp(min=0)
        assert bool((gain[0] >= 0.6 * best - 1e-4).all())
        assert bool((gain <= lost).all())
        assert bool((best > 1e-3).any())


@pytest.mark.parametrize("op", [Sigmoid(), Tanh()], ids=lambda op: op.name)
def test_losses_are_how_far_good_lines_are_from_the_curve(op: Activation) -> None:
    """Against the hull of many points of the graph: the largest distance of the curve from it."""
    ends = torch.tensor([[-4.0, -0.1, 0.5, -9.0, -2.0, -3.0], [4.0, 6.0, 7.0, 0.3, 1.0, -1.0]]).double()
    for k, found in enumerate(zip(*(t[0].tolist() for t in op.relax(ends[:1], ends[1:]).losses()[0]), strict=True)):
        z = torch.linspace(*ends[:, k].tolist(), 400).double()  # type: ignore[call-overload]
        for side, lost in zip((1.0, -1.0), found, strict=True):
            value = side * op.forward(z)
            slopes = (value[None] - value[:, None]) / (z[None] - z[:, None])
            hull, at = value.clone(), 0
            while at < 399:
                last = at + 1 + int(slopes[at, at + 1 :].argmin())
                hull[at : last + 1] = value[at] + slopes[at, last] * (z[at : last + 1] - z[at])
                at = last
            assert abs(float((value - hull).max()) - lost) < 0.02


def test_intervals_are_cut_at_every_point() -> None:
    whole = Tanh().relax(torch.tensor([[-1.0, -2.0]]).double(), torch.tensor([[1.0, 2.0]]).double())
    place, point = torch.tensor([0, 0, 3, 3]), torch.tensor([-0.5, 0.25, 1.0, 1.5])
    own = Pieces(place, point, torch.tensor([1.0, -1.0, 1.0, 1.0])).over(whole, 2)
    assert own.lower.tolist() == [[-0.5, -2.0], [-1.0, 1.5]]
    assert own.upper.tolist() == [[0.25, 2.0], [1.0, 2.0]]
