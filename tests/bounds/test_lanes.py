"""Compiled kernels against torch and against exact truth: the same proposals, and proofs that are never above it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from tests.bounds.test_ascent import convolution, dense, residual
from tests.bounds.test_branching import bounds_of, margin_forms, with_groups
from tests.bounds.test_clipping import random_leaves
from tests.marks import at_night_after
from tests.random_networks import Case, draw, known

from krelax.activations.leaky_relu import LeakyReLU
from krelax.bounds import lane_tables
from krelax.bounds.backward import Form, outputs
from krelax.bounds.evaluator import Evaluator
from krelax.bounds.instance import Instance
from krelax.bounds.lane_tables import tables_of
from krelax.bounds.lanes import Lanes
from krelax.bounds.layers import LayerBounds
from krelax.bounds.leaves import Leaves
from krelax.bounds.multineuron import choose
from krelax.bounds.narrowing import Narrowing
from krelax.bounds.optimise import Ascent
from krelax.bounds.sites import Kinked
from krelax.hull.grouping import Grouping
from krelax.hull.jit import COMPILED
from krelax.lanes import ready
from krelax.lanes.matrices import Block, Matrix, grouped
from krelax.lanes.products import multiply
from krelax.lanes.vectors import LANES
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Dense, Scale
from krelax.problem.queries import Queries
from krelax.problem.region import Box, Region, ball

Make = Callable[[np.random.Generator], Network]
pytestmark = pytest.mark.skipif(not COMPILED, reason="kernels are compiled")


def leaky(rng: np.random.Generator) -> Network:
    """Leaky layers, around one of which a connection leads."""
    builder = Builder((4,))
    weights = [torch.from_numpy(rng.normal(size=(m, n)) / n**0.5) for n, m in pairwise((4, 6, 6, 3))]
    bias = [torch.from_numpy(rng.normal(size=len(w)) / 4) for w in weights]
    first = builder.add(LeakyReLU(0.1), builder.add(Dense(weights[0], bias[0]), 0))
    second = builder.add(LeakyReLU(0.3), builder.add(Dense(weights[1], bias[1]), first))
    return builder.build(builder.add(Dense(weights[2], bias[2]), builder.add(Add((1, -1)), second, first)))


MAKERS = (dense, convolution, residual, leaky)
every_network = pytest.mark.parametrize("make", MAKERS, ids=lambda f: f.__name__)


def lanes_of(instance: Instance, bounds: LayerBounds, form: Form, evaluator: Evaluator) -> Lanes | None:
    """The kernels for what an evaluator bounds, if they model it."""
    sites = {i: s for i, s in evaluator.sites.every.items() if isinstance(s, Kinked)}
    tables = tables_of(instance, bounds, form, sites, None) if len(sites) == len(evaluator.sites.every) else None
    return None if tables is None else Lanes(instance, bounds, sites, tables)


@cache
def bounded(make: Make, seed: int, size: int) -> tuple[Instance, LayerBounds, torch.Tensor]:
    """A network over a random region, its bounds, perhaps with groups, and margins."""
    rng = np.random.default_rng(seed)
    network = make(rng)
    region: Region = ball(torch.from_numpy(rng.normal(size=(1, *network.input_shape)) / 2), 0.6, clip=None)
    instance = Instance.of(network, region, torch.float32)
    bounds = with_groups(instance, bounds_of(instance), size)
    return instance, bounds, torch.from_numpy(rng.normal(size=(3, network.output_shape[-1])))


def both(make: Make, seed: int, count: int = 90, size: int = 0) -> tuple[Evaluator, Lanes, Leaves]:
    """An evaluator by torch, the kernels for the same margins, and random leaves, perhaps with groups."""
    instance, bounds, rows = bounded(make, seed, size)
    exact, fast = margin_forms(instance, rows)
    evaluator = Evaluator(instance, bounds, exact, fast)
    lanes = lanes_of(instance, bounds, exact, evaluator)
    assert lanes is not None
    undecided = torch.cat([bounds.relaxations[i].unstable().flatten() for i in evaluator.nodes]).nonzero()[:, 0]
    leaves = random_leaves(evaluator, torch.arange(count) % 3, undecided, min(3, len(undecided) - 1), seed)
    return evaluator, lanes, leaves


@pytest.fixture(autouse=True)
def _torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluators bound by torch here: kernels are called by name."""
    monkeypatch.setattr("krelax.bounds.lanes.Gate.lanes", lambda self, passes: None)


# --- against torch ---------------------------------------------------------------------------------------------------


seeds = pytest.mark.parametrize("seed", at_night_after(1, range(3)))
sizes = pytest.mark.parametrize("size", [0, 2], ids=["alone", "pairs"])


@every_network
@seeds
def test_proposals_with_pairs_are_those_of_torch(make: Make, seed: int) -> None:
    """The same before any step. What a share is worth is often nothing but rounding, which Adam makes a step of: so
    after a step most slopes, shares and tilts are the same, and after several the values are as good."""
    evaluator, lanes, leaves = both(make, seed, size=2)
    for steps, near in ((0, 1e-4), (1, 0.05), (4, 0.05)):
        theirs, ours = leaves.select(leaves.rows()), leaves.select(leaves.rows())
        expected = evaluator.improve(theirs, Ascent(steps, 0.1, 0.8))
        points, _ = lanes.improve(ours, Ascent(steps, 0.1, 0.8))
        off = (ours.value - theirs.value) / (1 + theirs.value.abs())
        assert off.abs().median() < near
        assert off.mean() > -near
        if steps == 0:
            assert off.abs().max() < near
            assert (ours.branch == theirs.branch).double().mean() > 0.95
            assert ((points - expected.points).abs() < 1e-5).double().mean() > 0.99
        if steps == 1:
            moved = sum(float((a != b).double().sum()) for a, b in zip(theirs.slopes, leaves.slopes, strict=True))
            assert moved > 100
            for mine, other in zip((ours.multiplier, *ours.slopes), (theirs.multiplier, *theirs.slopes), strict=True):
                assert ((mine - other).abs() < 1e-3).double().mean() > 0.6


@every_network
@pytest.mark.parametrize("seed", at_night_after(1, range(3)))
def test_proposals_are_those_of_torch(make: Make, seed: int) -> None:
    """Values, affine bounds at the centre and points where they are attained, after several steps, and next splits."""
    evaluator, lanes, leaves = both(make, seed)
    theirs, ours = leaves.select(leaves.rows()), leaves.select(leaves.rows())
    expected = evaluator.improve(theirs, Ascent(4, 0.1, 0.8))
    points, middle = lanes.improve(ours, Ascent(4, 0.1, 0.8))
    torch.testing.assert_close(ours.value, theirs.value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(middle, expected.middle, rtol=1e-4, atol=1e-4)
    assert (ours.branch == theirs.branch).double().mean() > 0.95  # ties
    assert ((points - expected.points).abs() < 1e-5).double().mean() > 0.99
    for mine, other in zip((ours.multiplier, *ours.slopes), (theirs.multiplier, *theirs.slopes), strict=True):
        assert ((mine - other).abs() < 1e-3).double().mean() > 0.95


@every_network
@sizes
@seeds
def test_proofs_differ_from_those_of_torch_by_rounding(make: Make, seed: int, size: int) -> None:
    """With pairs torch rounds what they take over to what can be written down outright."""
    evaluator, lanes, leaves = both(make, seed, size=size)
    near = 1e-5 if size else 1e-11
    evaluator.improve(leaves, Ascent(2, 0.3, 0.8))
    torch.testing.assert_close(lanes.prove(leaves), evaluator.prove(leaves), rtol=0, atol=near)
    coeff, constant = evaluator.affine(leaves)
    assert coeff is not None
    mine = lanes.over_inputs(leaves)
    torch.testing.assert_close(mine[0], coeff, rtol=0, atol=near)
    torch.testing.assert_close(mine[1], constant, rtol=0, atol=near)


@every_network
@sizes
def test_leaves_with_intervals_of_their_own_are_those_of_torch(make: Make, size: int) -> None:
    evaluator, lanes, leaves = both(make, 1, size=size)
    evaluator.improve(leaves, Ascent(8, 0.3, 0.9))
    narrowing = Narrowing(evaluator)
    if not narrowing.begin(leaves):
        assert make is not residual  # all of its pre-activations are exact, or cost nothing
        return
    leaves = narrowing.clip(narrowing.widened(leaves), float(leaves.value.max()) + 0.1).leaves
    theirs, ours = leaves.select(leaves.rows()), leaves.select(leaves.rows())
    evaluator.improve(theirs, Ascent(3, 0.1, 0.8))
    lanes.improve(ours, Ascent(3, 0.1, 0.8))
    assert size or torch.allclose(ours.value, theirs.value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lanes.prove(theirs), evaluator.prove(theirs), rtol=0, atol=1e-5 if size else 1e-11)


# --- against the truth -----------------------------------------------------------------------------------------------


def modelled(seed: int) -> tuple[Case, Evaluator, Lanes] | None:
    """The case of a seed, if the kernels model it."""
    drawn = draw(seed)
    if not isinstance(drawn.region, Box):
        return None
    instance = Instance.of(drawn.network, drawn.region, torch.float32)
    bounds = paired(instance) if seed % 2 else bounds_of(instance)

    def bounding(queries: Queries) -> tuple[Evaluator, Lanes | None]:
        pair = [outputs(n, *(t.to(n.dtype) for t in (queries.rows, queries.offsets))) for n in
                (instance.network, instance.fast_network)]  # fmt: skip
        evaluator = Evaluator(instance, bounds, *pair)
        return evaluator, lanes_of(instance, bounds, pair[0], evaluator)

    if bounding(drawn.queries)[1] is None:  # before the truth is looked for, which takes longest
        return None
    case = known(drawn)
    evaluator, lanes = bounding(case.queries)
    return None if lanes is None else (case, evaluator, lanes)


def paired(instance: Instance) -> LayerBounds:
    """CROWN's bounds, with pairs of undecided neurons where they can be paired."""
    bounds = bounds_of(instance)
    for i, relaxation in bounds.relaxations.items():
        if relaxation.reduces:
            continue
        score = relaxation.unstable()[0].flatten().double()
        chosen = choose(instance, bounds, i, score, Grouping(2, neurons=6, overlap=2), Ascent(1))
        if chosen is not None:
            bounds.groups[i] = (chosen,)
    return bounds


def violations(seed: int) -> tuple[int, int]:
    """How many leaves of the case of a seed prove anything, and how many prove too much."""
    found = modelled(seed)
    if found is None:
        return 0, 0
    case, evaluator, lanes = found
    undecided = torch.cat([s.relaxation.unstable().flatten() for _, s in evaluator.sites.kinked()]).nonzero()[:, 0]
    queries = torch.arange(16) % len(case.limits)
    leaves = random_leaves(evaluator, queries, undecided, min(2, len(undecided)), seed)
    if seed % 2:
        lanes.improve(leaves, Ascent(seed % 3, 0.3, 0.8))
    proven, wrong = lanes.prove(leaves).tolist(), 0
    for row, value in enumerate(proven):
        if value > -torch.inf:
            wrong += any(Fraction(value) > limit for limit in limits_of(case, evaluator, leaves, row))
    return sum(v > -torch.inf for v in proven), wrong


def limits_of(case: Case, evaluator: Evaluator, leaves: Leaves, row: int) -> list[Fraction]:
    """Numbers that the bound of a leaf must not be above: the exact minimum if it has no splits, and else what margins
    are at inputs that are in it."""
    query, splits = int(leaves.query[row]), leaves.neuron[row] >= 0
    if not splits.any():
        return [case.limits[query]]
    sides = list(zip(leaves.neuron[row][splits].tolist(), leaves.side[row][splits].tolist(), strict=True))
    weights, offset = case.queries.rows[0, query].tolist(), Fraction(float(case.queries.offsets[0, query]))
    found = []
    for nodes in case.seen:
        pre = [e for i in evaluator.nodes for e in nodes[evaluator.instance.network.nodes[i].inputs[0]]]
        if all((pre[n][0] if side > 0 else -pre[n][1]) >= 0 for n, side in sides):
            found.append(sum((Fraction(w) * y[0] for w, y in zip(weights, nodes[-1], strict=True)), offset))
    return found


@pytest.mark.parametrize("part", at_night_after(1, range(6)))
def test_no_proof_is_above_the_truth(part: int) -> None:
    """Random tiny networks of all operators, with numbers from subnormal to the largest."""
    found = [violations(seed) for seed in range(300 * part, 300 * (part + 1))]
    assert sum(wrong for _, wrong in found) == 0
    assert sum(count > 0 for count, _ in found) > 10
    assert sum(count > 0 for count, _ in found[1::2]) > 5  # with pairs, if there are any


def test_pairs_that_overflow_prove_nothing() -> None:
    """Shares of what is nearly too large; other leaves of the block do not notice."""
    evaluator, lanes, leaves = both(dense, 0, size=2)
    before = lanes.prove(leaves)
    shares = next(rows[1] for _, _, rows in evaluator.sites.rows(leaves) if len(rows) > 1)
    shares[3] = torch.inf
    shares[5] = torch.nan
    after = lanes.prove(leaves)
    assert (after[[3, 5]] == -torch.inf).all()
    others = torch.ones(len(leaves), dtype=torch.bool).index_fill(0, torch.tensor([3, 5]), False)
    assert torch.equal(after[others], before[others])


def test_without_charges_proofs_are_above_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that cannot fail shows nothing."""
    monkeypatch.setattr(lane_tables, "gamma", lambda terms, dtype: 0.0)
    nothing = torch.zeros(1, 1).double()
    monkeypatch.setattr(lane_tables, "rounding_of", lambda network, bounds, node, coeff, terms: nothing)
    assert any(violations(seed)[1] for seed in range(150, 350))


def test_constants_that_are_known_up_to_an_error_are_charged_for_it() -> None:
    """Two weights and a factor that is folded, each off by so much; the worst of the networks that this allows."""
    error, rng = 1e-4, np.random.default_rng(3)

    def network(*signs: torch.Tensor, errors: float | None) -> Network:
        weights = [
            torch.from_numpy(np.random.default_rng(k).normal(size=n)) for k, n in enumerate(((5, 3), (5,), (2, 5)))
        ]
        first, factor, last = (w + error * s for w, s in zip(weights, signs, strict=True))
        off = [None if errors is None else torch.full_like(w, errors) for w in weights]
        builder = Builder((3,))
        node = builder.add(Scale(factor, None, off[1]), builder.add(Dense(first, None, off[0]), 0))
        return builder.build(builder.add(Dense(last, None, off[2]), builder.add(LeakyReLU(0.2), node)))

    zero = [torch.zeros(n) for n in ((5, 3), (5,), (2, 5))]
    region = ball(torch.zeros(1, 3).double(), 0.5, clip=None)
    proofs = []
    for given in (network(*zero, errors=error), network(*zero, errors=None)):
        instance = Instance.of(given, region, torch.float32)
        bounds, (exact, fast) = bounds_of(instance), margin_forms(instance, torch.eye(2).double())
        evaluator = Evaluator(instance, bounds, exact, fast)
        lanes = lanes_of(instance, bounds, exact, evaluator)
        assert lanes is not None
        proofs.append(lanes.prove(evaluator.roots(torch.arange(2), 1)))
    x = torch.from_numpy(rng.choice([-0.5, 0.5], size=(50, 3)))
    signs = [[torch.from_numpy(rng.choice([-1.0, 1.0], size=t.shape)) for t in zero] for _ in range(100)]
    least = torch.stack([network(*s, errors=None)(x) for s in signs]).amin((0, 1))
    assert (proofs[0] <= least).all()
    assert (proofs[0] < proofs[1] - error).all()


def test_what_overflows_proves_nothing() -> None:
    weight = torch.full((1, 1), 1e308, dtype=torch.float64)
    builder = Builder((1,))
    node = builder.add(LeakyReLU(0.5), builder.add(Dense(weight, None), 0))
    network = builder.build(builder.add(Dense(weight, None), node))
    instance = Instance.of(network, Box(-torch.ones(1, 1).double(), torch.ones(1, 1).double()), torch.float32)
    exact, fast = margin_forms(instance, torch.ones(1, 1).double())
    bounds = bounds_of(instance)
    evaluator = Evaluator(instance, bounds, exact, fast)
    lanes = lanes_of(instance, bounds, exact, evaluator)
    if lanes is not None:
        assert lanes.prove(evaluator.roots(torch.zeros(3, dtype=torch.long), 2)).tolist() == [-torch.inf] * 3


def test_multipliers_below_zero_prove_nothing() -> None:
    """And those that are no numbers; other leaves of the block do not notice."""
    evaluator, lanes, leaves = both(dense, 0)
    evaluator.improve(leaves, Ascent(2, 0.3, 0.8))
    before = lanes.prove(leaves)
    split = (leaves.neuron[:, 0] >= 0).nonzero()[:2, 0]
    leaves.multiplier[split, 0] = torch.tensor([-1.0, torch.nan])
    after = lanes.prove(leaves)
    assert (after[split] == -torch.inf).all()
    others = torch.ones(len(leaves), dtype=torch.bool).index_fill(0, split, False)
    assert torch.equal(after[others], before[others])


# --- matrices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_products_are_those_of_the_matrix(kind: type) -> None:
    """Rows that share columns and rows that do not, empty ones, and two terms in one place."""
    rng = np.random.default_rng(0)
    dense_part = rng.normal(size=(11, 7)) * (rng.random((11, 1)) < 0.8)
    dense_part[:5] *= rng.random(7) < 0.5
    row, col = dense_part.nonzero()
    weight = dense_part[row, col]
    twice = Block(*(np.concatenate([t, t[:3]]) for t in (row, col, weight, weight)))
    matrix = dense_part.copy()
    matrix[row[:3], col[:3]] *= 2
    found = grouped([Matrix(0, 11, [twice])], 18)
    x: Any = np.zeros((19, LANES), kind)
    x[11:18] = rng.normal(size=(7, LANES))
    pattern = found.pattern._replace(col=found.pattern.col + np.int32(11))
    out = x.ravel().copy()
    multiply(pattern.first, pattern.start, pattern.col, pattern.place, found.values([Matrix(0, 11, [twice])], kind is
             np.float32), 0, out, out)  # fmt: skip
    np.testing.assert_allclose(out.reshape(19, LANES)[:11], matrix @ x[11:18], rtol=1e-5, atol=1e-5)


# --- when kernels are used -------------------------------------------------------------------------------------------


class Compiling:
    """A compiler that ends when it is told to."""

    ended: int | None = None

    def poll(self) -> int | None:
        return self.ended


def test_nobody_waits_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not on disk is compiled elsewhere, once, for searches that take long; then it is loaded."""
    compiler, begun, loaded = Compiling(), [], []
    monkeypatch.setattr(ready, "_is_compiled", lambda: compiler.ended == 0)
    monkeypatch.setattr(ready, "_begin", lambda: begun.append(1) or compiler)
    monkeypatch.setattr(ready, "compile_now", lambda: loaded.append(1))
    kernels = ready.Kernels(None)
    assert not any(kernels.ready(passes) for passes in (1, ready._LOAD, ready._COMPILE - 1))
    assert not begun
    assert not any(kernels.ready(passes) for passes in (ready._COMPILE, 10 * ready._COMPILE))
    assert (len(begun), len(loaded)) == (1, 0)
    compiler.ended = 0
    assert not kernels.ready(ready._LOAD - 1)
    assert kernels.ready(ready._LOAD)
    assert kernels.ready(1)
    assert len(loaded) == 1


def test_a_compiler_that_fails_is_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, begun = Compiling(), []
    monkeypatch.setattr(ready, "_is_compiled", lambda: False)
    monkeypatch.setattr(ready, "_begin", lambda: begun.append(1) or compiler)
    kernels = ready.Kernels(None)
    kernels.ready(ready._COMPILE)
    compiler.ended = 1
    assert not any(kernels.ready(ready._COMPILE) for _ in range(3))
    assert len(begun) == 1


def test_kernels_can_be_switched_off() -> None:
    assert not ready.Kernels("0").ready(10**9)


@pytest.mark.slow
def test_another_process_compiles() -> None:
    assert ready._begin().wait(120) == 0
    assert ready._is_compiled()
