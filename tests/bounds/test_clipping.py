"""Clips: no input at which a margin is small falls out of the intervals behind them, and searches with them agree with
exact minima."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from tests.bounds.test_ascent import convolution, residual
from tests.bounds.test_branching import SMALL, bounds_of, margin_forms, of_box, random_layers
from tests.exact import Layer, minimum
from tests.marks import at_night_after
from torch import Tensor

from krelax.bounds.branching import Branching
from krelax.bounds.clipping import MULTIPLIERS, Lines
from krelax.bounds.evaluator import Evaluator
from krelax.bounds.instance import Instance
from krelax.bounds.leaves import Leaves
from krelax.bounds.narrowing import Narrowing
from krelax.bounds.optimise import Ascent
from krelax.network.graph import Network
from krelax.problem.region import Box, ball


def dyadic_layers(seed: int, *widths: int) -> list[Layer]:
    """Weights so short that float64 computes such networks exactly at points of a grid."""
    rng = np.random.default_rng(seed)
    shapes = pairwise(widths)
    return [Layer((rng.integers(-8, 9, (m, n)) / 4).tolist(), (rng.integers(-4, 5, m) / 8).tolist()) for n, m in shapes]


def grid(count: int = 129) -> Tensor:
    line = torch.linspace(-0.5, 0.5, count, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


def random_leaves(evaluator: Evaluator, query: Tensor, candidates: Tensor, depth: int, seed: int) -> Leaves:
    """Leaves with random splits, slopes and multipliers."""
    generator = torch.Generator().manual_seed(seed)
    leaves = evaluator.roots(query, depth + 1)
    for row in range(len(leaves)):
        count = int(torch.randint(depth + 1, (), generator=generator))
        leaves.neuron[row, :count] = candidates[torch.randperm(len(candidates), generator=generator)[:count]]
    split = leaves.neuron >= 0
    leaves.side[split] = torch.where(torch.rand(split.shape, generator=generator) < 0.5, 1.0, -1.0)[split]
    leaves.multiplier[split] = torch.rand(split.shape, generator=generator)[split]
    for slope in leaves.slopes:
        slope.copy_(torch.where((slope > 0) & (slope < 1), slope, torch.rand(slope.shape, generator=generator)))
    return leaves


@pytest.mark.usefixtures("both_evaluators")
@pytest.mark.parametrize("seeds", at_night_after(1, [[0, 6, 9], range(12)]), ids=["some", "all"])
def test_no_input_with_a_small_margin_is_lost(seeds: Sequence[int]) -> None:
    """One clip behind the other: whoever satisfies the splits of a leaf, and has a margin at most the level, is inside
    the intervals behind it; and what leaves prove holds there."""
    assert sum(clipped(seed) for seed in seeds) > 100


def clipped(seed: int) -> int:
    """How many clips of random leaves narrow anything."""
    layers = dyadic_layers(seed, 2, 6, 5, 2)
    instance = of_box(layers, [-0.5, -0.5], [0.5, 0.5])
    bounds, x = bounds_of(instance), grid()
    values = [x]
    for node in instance.network.nodes[1:]:
        values.append(node.op.forward(*(values[j] for j in node.inputs)))  # type: ignore[attr-defined]
    rows = torch.tensor([[1.0, -1.0]]).double()
    margins = values[-1] @ rows.T
    level = float(margins.quantile(0.02))
    evaluator = Evaluator(instance, bounds, *margin_forms(instance, rows))
    undecided = torch.cat([bounds.relaxations[i].unstable()[0] for i in evaluator.nodes]).nonzero()[:, 0]
    leaves = random_leaves(evaluator, torch.zeros(60, dtype=torch.long), undecided, 2, seed)
    evaluator.improve(leaves, Ascent(20, 0.3, 0.9))
    narrowing = Narrowing(evaluator)
    assert narrowing.begin(leaves)
    leaves, narrowed = narrowing.widened(leaves), 0
    pre = torch.cat([values[instance.network.nodes[i].inputs[0]] for i in evaluator.nodes], 1)
    for _ in range(3):
        found = narrowing.clip(leaves, level)
        leaves = found.leaves
        narrowed += int(found.narrowed.sum())
        for row, intervals in enumerate(own_intervals(evaluator, leaves)):
            split = leaves.neuron[row] >= 0
            signed = pre[:, leaves.neuron[row][split]] * leaves.side[row][split]
            here = (signed >= 0).all(1) & (margins[:, 0] <= level)
            assert not (bool(here.any()) and bool(found.empty[row]))
            assert (margins[here, 0] >= found.value[row]).all()
            for at, entries, lower, upper in intervals:
                z = values[at][here][:, entries]
                assert (z >= lower).all()
                assert (z <= upper).all()
    return narrowed


def own_intervals(evaluator: Evaluator, leaves: Leaves) -> list[list[tuple[int, Tensor, Tensor, Tensor]]]:
    """For every leaf the pre-activations with intervals of its own, which entries, and their ends."""
    result: list[list[tuple[int, Tensor, Tensor, Tensor]]] = [[] for _ in range(len(leaves))]
    for i, _, own in evaluator.sites.own_intervals(leaves):
        source = evaluator.instance.network.nodes[i].inputs[0]
        for row in range(len(leaves)):
            result[row].append((source, own.entries, own.lower[row].double(), own.upper[row].double()))
    return result


@pytest.mark.parametrize("seed", at_night_after(1, range(3)))
def test_lines_prove_no_more_than_is_true(seed: int) -> None:
    """Whatever the multipliers, the bound of a line is below its values in the half-space, in rational arithmetic."""
    rng = np.random.default_rng(seed)
    lower, upper = -rng.random((1, 5)), rng.random((1, 5))
    coeff, constant, g, h = rng.normal(size=(4, 5)), rng.normal(size=4), rng.normal(size=(3, 5)), rng.normal(size=3) / 2
    lines = Lines(Box(*map(torch.from_numpy, (lower, upper))), *map(torch.from_numpy, (coeff, constant)))
    codes = rng.integers(0, 256, size=(3, 4)).astype(np.uint8)
    bounds = lines.bounds(*map(torch.from_numpy, (g, h)), codes)  # type: ignore[call-arg]
    assert torch.equal(bounds == -torch.inf, torch.from_numpy(codes == 0))

    def exactly(a: Any, b: float, x: Any) -> Fraction:
        return sum((Fraction(p) * Fraction(q) for p, q in zip(a, x, strict=True)), Fraction(b))

    corners = np.where(rng.random((200, 5)) < 0.5, lower, upper)
    for leaf, line in np.argwhere(codes > 0).tolist():
        m = Fraction(float(MULTIPLIERS[codes[leaf, line]]))
        worst = min(exactly(coeff[line], constant[line], x) + m * exactly(g[leaf], h[leaf], x) for x in corners)
        assert Fraction(float(bounds[leaf, line])) <= worst


def test_proposed_multipliers_are_nearly_the_best() -> None:
    rng = np.random.default_rng(3)
    coeff, constant, g = rng.normal(size=(20, 40)), rng.normal(size=20), rng.normal(size=(6, 40))
    box = Box(*(torch.full((1, 40), s).double() for s in (-1.0, 1.0)))
    lines = Lines(box, *map(torch.from_numpy, (coeff, constant)))
    h = torch.from_numpy(0.6 * abs(g).sum(1))
    plain = torch.from_numpy(constant - abs(coeff).sum(1)).expand(6, -1)
    codes = lines.propose(torch.from_numpy(g), h, plain, torch.ones(6, 20, dtype=torch.bool))
    found = torch.maximum(plain, lines.bounds(torch.from_numpy(g), h, codes))
    every = [lines.bounds(torch.from_numpy(g), h, np.full((6, 20), c, np.uint8)) for c in range(1, 256)]
    best = torch.maximum(plain, torch.stack(every).amax(0))
    assert (best > plain + 0.1 * plain.abs()).double().mean() > 0.8
    assert (best - found <= 0.04 * plain.abs() + 0.1 * (best - plain)).all()


@pytest.mark.usefixtures("both_evaluators")
@pytest.mark.parametrize("gap", [-0.01, 0.01])
@pytest.mark.parametrize("seed", at_night_after(1, [0, 2, 1, *range(3, 8)]))
def test_searches_with_clips_end_with_the_truth(seed: int, gap: float) -> None:
    """Margins a little above or below zero: proven, or not."""
    layers, rows = random_layers(seed, 2, 4, 4, 2), [[1.0, -1.0], [-1.0, 1.0]]
    least = [minimum(layers, row, 0.0, [-1.0, -1.0], [1.0, 1.0]) for row in rows]
    instance = of_box(layers, [-1.0, -1.0], [1.0, 1.0])
    shift = torch.tensor([[gap - float(value) for value in least]]).double()
    forms = margin_forms(instance, torch.tensor(rows).double())
    for form in forms:
        form.constant = form.constant + shift.to(form.constant.dtype)
    start = torch.full((2,), -1.0).double()
    effort = replace(SMALL, rounds=200, depth=24, partial=False, clips=0.0)
    search = Branching(instance, bounds_of(instance), forms, effort, start, torch.zeros_like(start))
    bound = search.run().value
    assert search._clips.begun
    for value, exact, offset in zip(bound.tolist(), least, shift[0].tolist(), strict=True):
        assert Fraction(value) <= exact + Fraction(offset)
        assert (value > 0) == (gap > 0)


@pytest.mark.usefixtures("both_evaluators")
@pytest.mark.parametrize("make", [convolution, residual])
def test_counterexamples_are_not_clipped_away(make: Any) -> None:
    """On networks with convolutions and connections around layers, of whose margin a sampled input falls short."""
    network: Network = make(np.random.default_rng(1))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, *network.input_shape, generator=generator).double()
    sampled = x + 0.3 * (torch.rand(4000, *network.input_shape, generator=generator).double() - 0.5)
    instance = Instance.of(network, ball(x, 0.15, clip=None))
    rows = torch.eye(network(sampled).flatten(1).shape[1]).double()[:1]
    least = float((network(sampled).flatten(1) @ rows.T).min())
    asked = [replace(f, constant=f.constant - (least + 0.001)) for f in margin_forms(instance, rows)]
    effort = replace(SMALL, leaves=64, rounds=30, depth=40, partial=False, clips=0.0)
    start = torch.full((1,), -10.0).double()
    search = Branching(instance, bounds_of(instance), (asked[0], asked[1]), effort, start, torch.zeros(1).double())
    assert float(search.run().value) <= 0
    assert search._clips.begun
    assert int(search._tree.open.clip.max()) >= 0
