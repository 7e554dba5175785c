"""Tightening by branching: leaves and bounds never exceed exact minima, and with enough leaves they reach them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from tests import exact as ground
from tests.bounds.problems import Problem, problems
from tests.bounds.test_ascent import convolution, dense, pooled, residual, smooth
from tests.exact import Layer, as_network, ranges
from tests.marks import at_night_after
from torch import Tensor

from krelax.activations import LeakyReLU, Rule
from krelax.bounds import branching
from krelax.bounds.backward import Form, neurons, outputs, signed
from krelax.bounds.branching import Branching, Effort
from krelax.bounds.compression import without_inactive
from krelax.bounds.evaluator import Evaluator
from krelax.bounds.instance import Instance
from krelax.bounds.intermediate import bound_by_rule
from krelax.bounds.layers import LayerBounds, advance, start
from krelax.bounds.leaves import Leaves
from krelax.bounds.multineuron import choose
from krelax.bounds.optimise import Ascent
from krelax.bounds.split import Split
from krelax.bounds.tightening import tighten_layer
from krelax.errors import InputError
from krelax.hull.grouping import Grouping
from krelax.network.graph import Network
from krelax.problem.region import Box, Region, ball

SMALL = Effort(leaves=8, rounds=4, root=Ascent(4, 0.5, 0.9), leaf=Ascent(2, 0.3, 0.9))


def bounds_of(instance: Instance) -> LayerBounds:
    """CROWN's bounds of every node."""
    bounds = start(instance.region)
    for node in instance.network.nodes[1:]:
        if bounds.relaxations and len(bounds.lower) in instance.network.activations():
            bound_by_rule(instance, bounds, node.inputs[0], Rule.ADAPTIVE)
        advance(instance.network, bounds)
    return bounds


def of_box(layers: list[Layer], lower: list[float], upper: list[float], fast: torch.dtype = torch.float32) -> Instance:
    box = Box(torch.tensor([lower], dtype=torch.float64), torch.tensor([upper], dtype=torch.float64))
    return Instance.of(as_network(layers), box, fast)


def margin_forms(instance: Instance, rows: Tensor) -> tuple[Form, Form]:
    """The forms `rows @ y` in both types."""
    zero = torch.zeros(1, len(rows), dtype=torch.float64)
    fast = instance.fast_network.dtype
    return outputs(instance.network, rows[None], zero), outputs(
        instance.fast_network, rows[None].to(fast), zero.to(fast)
    )


# --- leaves ----------------------------------------------------------------------------------------------------------


@dataclass
class Cell:
    """A polygon on which the network is affine: the sign of every hidden neuron there, and the smallest margins."""

    signs: list[int]
    margins: list[Fraction]


def cells(layers: list[Layer], rows: list[list[float]], lower: list[float], upper: list[float]) -> Iterator[Cell]:
    """All cells of a ReLU network, by rational arithmetic."""
    pieces: Any = [([], ground._Piece(ground._box(lower, upper), [(1, 0, 0), (0, 1, 0)]))]
    denominator = 1
    for layer in [*layers, Layer(rows, [0.0] * len(rows), None)]:
        weight, bias, scale = ground._integers(layer)
        for _, piece in pieces:
            piece.rows = ground._affine(weight, bias, denominator, piece.rows)
        denominator *= scale
        if layer.slope is not None:
            for i in range(len(bias)):
                pieces = [new for signs, piece in pieces for new in activated(signs, piece, i)]
    for signs, piece in pieces:
        values = [[Fraction(ground._value(row, v), v[2] * denominator) for v in piece.polygon] for row in piece.rows]
        yield Cell(signs, [min(v) for v in values])


def activated(signs: list[int], piece: ground._Piece, i: int) -> Iterator[tuple[list[int], ground._Piece]]:
    """The parts of a piece on both sides of its row i, with ReLU applied to it."""
    for part, sign in zip(ground._cut(piece.polygon, piece.rows[i]), (1, -1), strict=True):
        if part:
            row = piece.rows[i] if sign > 0 else (0, 0, 0)
            yield [*signs, sign], ground._Piece(part, [*piece.rows[:i], row, *piece.rows[i + 1 :]])


def random_layers(seed: int, *widths: int) -> list[Layer]:
    rng = np.random.default_rng(seed)
    pairs = itertools.pairwise(widths)
    return [Layer(rng.normal(size=(m, n)).tolist(), (rng.normal(size=m) / 2).tolist()) for n, m in pairs]


def every_leaf(evaluator: Evaluator, queries: int, unstable: Tensor, seed: int) -> Leaves:
    """Every set of splits of the unstable neurons for every query, with random slopes and multipliers."""
    sides = torch.tensor(list(itertools.product([0.0, 1.0, -1.0], repeat=len(unstable))))
    leaves = evaluator.roots(torch.arange(queries).repeat_interleave(len(sides)), len(unstable))
    sides = sides.repeat(queries, 1)
    order = (sides == 0).to(torch.int8).argsort(dim=1, stable=True)  # splits first
    leaves.side = sides.gather(1, order)
    leaves.neuron = torch.where(leaves.side != 0, unstable[order], -1)
    generator = torch.Generator().manual_seed(seed)
    leaves.multiplier = 2 * torch.rand(sides.shape, generator=generator)
    for slope in leaves.slopes:  # and shares and tilts
        slope.copy_(torch.where((slope > 0) & (slope < 1), slope, torch.rand(slope.shape, generator=generator)))
    return leaves


def with_groups(instance: Instance, bounds: LayerBounds, size: int) -> LayerBounds:
    """The same bounds with groups in every layer, if there are to be any."""
    for i, relaxation in bounds.relaxations.items():
        triangle = relaxation.triangle()
        assert triangle is not None
        score = triangle.height()[0].flatten()
        grouping = Grouping(size, neurons=8, overlap=2)
        chosen = choose(instance, bounds, i, score, grouping, Ascent(8, 0.5, 0.9)) if size else None
        if chosen is not None:
            bounds.groups[i] = (chosen,)
    return bounds


@pytest.mark.usefixtures("both_evaluators")
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("seed", at_night_after(1, [1, 2, 3]))
@pytest.mark.parametrize("size", [0, 2, 3])
def test_no_leaf_exceeds_the_exact_minimum_over_its_cut_region(seed: int, steps: int, size: int) -> None:
    layers, rows = random_layers(seed, 2, 3, 3), [[1.0, -2.0, 0.5], [-1.0, 1.0, 1.0]]
    lower, upper = [-1.0, -1.5], [1.5, 1.5]
    instance = of_box(layers, lower, upper)
    bounds = with_groups(instance, bounds_of(instance), size)
    assert bool(bounds.groups) == bool(size)
    evaluator = Evaluator(instance, bounds, *margin_forms(instance, torch.tensor(rows, dtype=torch.float64)))
    unstable = torch.cat([bounds.relaxations[i].unstable()[0] for i in evaluator.nodes]).nonzero()[:, 0]
    assert len(unstable) >= 3
    leaves = every_leaf(evaluator, len(rows), unstable, seed)
    evaluator.improve(leaves, Ascent(steps, 0.3, 0.9))
    truth = list(cells(layers, rows, lower, upper))
    tight = 0
    columns = (evaluator.prove(leaves), leaves.query, leaves.neuron, leaves.side)
    for value, query, neuron, side in zip(*(t.tolist() for t in columns), strict=True):
        splits = [(n, s) for n, s in zip(neuron, side, strict=True) if n >= 0]
        inside = [c.margins[query] for c in truth if all(c.signs[n] == s for n, s in splits)]
        if inside:
            assert Fraction(value) <= min(inside), splits
            tight += float(min(inside)) - value < 1e-3
    assert steps == 0 or size or tight > 0  # random shares are far from the best


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("both_evaluators")
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems(depth=3, width=6, batch=1))
def test_no_tightened_bound_exceeds_the_exact_range(problem: Problem) -> None:
    check_tightened(problem)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems(depth=3, width=6, batch=1))
def test_no_tightened_bound_exceeds_the_exact_range_of_many(problem: Problem) -> None:
    check_tightened(problem)


def check_tightened(problem: Problem) -> None:
    """Layer by layer, each over the tightened bounds of those before it; leaky and residual networks among them."""
    region = Box(torch.from_numpy(problem.lower), torch.from_numpy(problem.upper))
    instance = Instance.of(as_network(problem.layers), region)
    bounds = start(region)
    for i, node in enumerate(instance.network.nodes[1:], start=1):
        if i in instance.network.activations():
            tighten_layer(instance, bounds, node.inputs[0], SMALL)
        advance(instance.network, bounds)
    for place, layer in zip(problem.places(), problem.pre_activations()[0], strict=True):
        lower, upper = bounds.lower[place][0].tolist(), bounds.upper[place][0].tolist()
        for r, low, high in zip(layer, lower, upper, strict=True):
            assert Fraction(low) <= r.low
            assert Fraction(high) >= r.high


def test_the_slope_behind_a_split_is_that_of_the_activation_to_the_last_bit() -> None:
    """A leaky slope that had gone through single precision would be another network's."""
    one = torch.ones(1, 1, dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):  # as proven from the start, and as proposed and then proven
        proposed = LeakyReLU(0.01).relax(-one.to(dtype), one.to(dtype))
        side = torch.tensor([-1.0], dtype=dtype)
        split = Split(proposed, one.to(dtype).unsqueeze(0), torch.tensor([0]), side, 0 * side)
        exact = LeakyReLU(0.01).relax(-one, one)
        step = split.over(LayerBounds(relaxations={1: exact}), 1)
        assert step.backward(one.unsqueeze(0)).slopes.item() == 0.01


@pytest.mark.parametrize("seed", at_night_after(1, [1, 2, 4]))
def test_enough_leaves_reach_the_exact_minimum(seed: int) -> None:
    layers = random_layers(seed, 2, 4, 3, 3)
    instance = of_box(layers, [-1.0, -1.0], [1.0, 1.0], fast=torch.float64)
    bounds = bounds_of(instance)
    node = instance.network.activations()[-1] - 1
    tighten_layer(instance, bounds, node, Effort(64, 12, leaf=Ascent(1000, 0.5, 0.986)))
    truth = ranges(layers, [-1.0, -1.0], [1.0, 1.0])[-1]
    unstable = bounds.relaxations[node + 1].unstable()[0].tolist()
    assert any(unstable)
    lower, upper = bounds.lower[node][0].tolist(), bounds.upper[node][0].tolist()
    for r, low, high in itertools.compress(zip(truth, lower, upper, strict=True), unstable):
        if r.low < 0 < r.high:
            assert low == pytest.approx(float(r.low), abs=1e-6)
            assert high == pytest.approx(float(r.high), abs=1e-6)
        else:  # which ends the search for both of its bounds
            assert low >= 0 or high <= 0


def prepared(make: Callable[[np.random.Generator], Network], seed: int = 0) -> tuple[Instance, LayerBounds, int]:
    """A network over one region, CROWN's bounds, and the last pre-activation."""
    rng = np.random.default_rng(seed)
    network = make(rng)
    region: Region = ball(torch.from_numpy(rng.normal(size=(1, 4)) / 2), 0.6, clip=None)
    instance = Instance.of(network, region)
    return instance, bounds_of(instance), network.nodes[network.activations()[-1]].inputs[0]


@pytest.mark.usefixtures("both_evaluators")
@pytest.mark.parametrize("make", [dense, convolution, residual, smooth, pooled], ids=lambda f: f.__name__)
def test_no_sample_leaves_the_tightened_bounds(make: Callable[[np.random.Generator], Network]) -> None:
    gained = 0.0
    for seed in range(2):
        instance, bounds, node = prepared(make, seed)
        before = bounds.upper[node] - bounds.lower[node]
        tighten_layer(instance, bounds, node, replace(SMALL, leaves=64, rounds=6))
        share = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        share[:10_000] = share[:10_000].round()
        value = instance.network.values(torch.lerp(instance.region.lower, instance.region.upper, share))[node]
        slack = 1e-9 * (1 + value.abs())
        assert (value >= bounds.lower[node] - slack).all()
        assert (value <= bounds.upper[node] + slack).all()
        gained += float((before - (bounds.upper[node] - bounds.lower[node])).sum())
    assert gained > 0.1


def queries_of(instance: Instance, node: int, index: list[int]) -> tuple[Form, Form]:
    place = torch.tensor([index])
    exact, fast = (signed(neurons(n, node, place)) for n in (instance.network, instance.fast_network))
    return exact, fast


def branched(
    instance: Instance,
    bounds: LayerBounds,
    forms: tuple[Form, Form],
    effort: Effort,
    low: Tensor,
    *more: Any,
    **rest: Any,
) -> Tensor:
    """Bounds after a search for as long as its effort says."""
    return Branching(instance, bounds, forms, effort, low, *more, **rest).run(effort.seconds).value


@pytest.mark.usefixtures("both_evaluators")
def test_a_search_about_nothing_finds_nothing() -> None:
    instance, bounds, node = prepared(dense)
    none, both = torch.zeros(0, dtype=torch.float64), queries_of(instance, node, [0])
    exact, fast = (Form({i: a[:, :0] for i, a in f.coeff.items()}, f.constant[:, :0]) for f in both)
    assert branched(instance, bounds, (exact, fast), SMALL, none).shape == (0,)


@pytest.mark.usefixtures("both_evaluators")
def test_queries_do_not_mix() -> None:
    """Each of two queries gets the same bound alone and next to others."""
    instance, bounds, node = prepared(dense)
    effort = Effort(leaves=8, rounds=5)
    low = torch.full((4,), -torch.inf, dtype=torch.float64)
    both = branched(instance, bounds, queries_of(instance, node, [1, 3]), effort, low)
    half = replace(effort, leaves=4)
    for i, neuron in enumerate((1, 3)):
        alone = branched(instance, bounds, queries_of(instance, node, [neuron]), half, low[:2])
        assert torch.allclose(alone, both[i::2], rtol=0, atol=1e-4)


@pytest.mark.usefixtures("both_evaluators")
def test_two_cores_find_what_one_finds() -> None:
    """Portions of a round are bounded side by side; leaves do not notice in which of them they are."""
    instance, bounds, node = prepared(convolution)
    effort, low = Effort(leaves=64, rounds=8), torch.full((4,), -torch.inf, dtype=torch.float64)
    found = []
    for _ in on_one_core_and_on_two():
        search = Branching(instance, bounds, queries_of(instance, node, [0, 1]), effort, low)
        found.append((search.run().value, search.leaves, search.worst()))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


@pytest.mark.usefixtures("both_evaluators")
def test_rounds_that_overlap_close_every_leaf() -> None:
    """On two cores a round begins before the last one ends: what is taken in between is missed by none."""
    instance, bounds, node = prepared(dense)
    low = torch.full((4,), -torch.inf, dtype=torch.float64)
    forms = queries_of(instance, node, [0, 2])
    root = Branching(instance, bounds, forms, Effort(rounds=0), low).run().value
    best = Branching(instance, bounds, forms, Effort(rounds=40), low).run().value
    target = root + 0.9 * (best - root)
    effort = Effort(leaves=4, rounds=10**9, partial=False)
    for _ in on_one_core_and_on_two():
        search = Branching(instance, bounds, forms, effort, low, target)
        value = search.run().value
        assert bool((value > target).all())
        assert search.leaves > 16


def on_one_core_and_on_two() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        for cores in (1, 2):
            torch.set_num_threads(cores)
            yield
    finally:
        torch.set_num_threads(threads)


def test_bounds_are_never_below_where_they_start() -> None:
    instance, bounds, node = prepared(dense)
    forms, high = queries_of(instance, node, [0, 2]), torch.full((4,), 1e9, dtype=torch.float64)
    assert torch.equal(branched(instance, bounds, forms, SMALL, high), high)


@pytest.mark.usefixtures("both_evaluators")
def test_queries_without_weight_are_left_alone() -> None:
    instance, bounds, node = prepared(dense)
    forms, low = queries_of(instance, node, [0, 2]), torch.full((4,), -1e9, dtype=torch.float64)
    weight = torch.tensor([0.0, 1.0, 0.0, 2.0])
    found = branched(instance, bounds, forms, SMALL, low, weight=weight)
    assert torch.equal(found > -1e9, weight > 0)


@pytest.mark.usefixtures("both_evaluators")
def test_a_task_ends_with_the_first_query_that_reaches_its_target() -> None:
    instance, bounds, node = prepared(dense)
    forms, low = queries_of(instance, node, [0, 2]), torch.full((4,), -torch.inf, dtype=torch.float64)
    target, task = torch.tensor([-1e6, torch.inf, torch.inf, torch.inf]), torch.tensor([0, 1, 0, 1])
    root = branched(instance, bounds, forms, replace(SMALL, rounds=0), low)
    found = branched(instance, bounds, forms, SMALL, low, target.double(), task=task)
    assert torch.equal(found > root, torch.tensor([False, True, False, True]))


def test_a_full_pool_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    instance, bounds, node = prepared(dense)
    forms, low = queries_of(instance, node, [0, 2]), torch.full((4,), -torch.inf, dtype=torch.float64)
    root = branched(instance, bounds, forms, replace(SMALL, rounds=0), low)
    monkeypatch.setattr(branching, "memory_budget", lambda _: 1)
    assert torch.equal(branched(instance, bounds, forms, SMALL, low), root)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_without_inactive_neurons_the_network_is_the_same_on_the_region(seed: int) -> None:
    layers = random_layers(seed, 2, 8, 8, 3)
    instance = of_box(layers, [0.0, 0.0], [0.5, 0.5])
    known = bounds_of(instance)
    top = instance.network.activations()[-1] - 1
    small, bounds, forms, _ = without_inactive(instance, known, queries_of(instance, top, [0, 1, 2]), top)
    below = next(iter(forms[0].coeff))
    kept = known.upper[below][0] > 0
    assert 0 < kept.sum() < 8
    x = torch.rand(100, 2, dtype=torch.float64) / 2
    assert torch.allclose(small.network.values(x)[below], instance.network.values(x)[below][:, kept], atol=1e-12)
    assert torch.equal(bounds.upper[below], known.upper[below][:, kept])
    assert forms[0].coeff[below].shape == (1, 6, int(kept.sum()))


def test_more_rounds_are_better() -> None:
    instance, bounds, node = prepared(dense)
    forms, low = queries_of(instance, node, [0, 1, 2, 3]), torch.full((8,), -torch.inf, dtype=torch.float64)
    values = [branched(instance, bounds, forms, Effort(32, n), low).mean() for n in (0, 3, 10)]
    assert values[0] < values[1] < values[2]


def test_time_limits_are_kept() -> None:
    """Long searches end soon after their limit with what they have; after the deadline nothing is tried."""
    instance, bounds, node = prepared(dense)
    forms, low = queries_of(instance, node, [0, 1, 2, 3]), torch.full((8,), -torch.inf, dtype=torch.float64)
    low = branched(instance, bounds, forms, Effort(32, 0), low)
    assert low.isfinite().all()
    long = Effort(256, 100_000, leaf=Ascent(50))
    for late, limit in ((instance, 0.3), (replace(instance, deadline=time.perf_counter() + 0.3), None)):
        began = time.process_time()  # which other programs do not lengthen
        found = branched(late, bounds, forms, replace(long, seconds=limit), low)
        assert time.process_time() - began < 3
        assert (found >= low).all()
    over = replace(instance, deadline=time.perf_counter() - 1)
    assert torch.equal(branched(over, bounds, forms, long, low), low)


def test_several_regions_are_refused() -> None:
    instance, bounds, node = prepared(dense)
    two = replace(instance, region=instance.region.select(torch.tensor([0, 0])))
    low = torch.full((2,), -torch.inf, dtype=torch.float64)
    with pytest.raises(InputError, match="one region"):
        branched(two, bounds, queries_of(instance, node, [0]), SMALL, low)
