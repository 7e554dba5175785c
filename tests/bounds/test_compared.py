"""Windows whose members are compared in the leaves of a search."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.bounds.test_curved import evaluator_of, pre_activations
from tests.exact_cells import least_margin
from tests.pooled import pooled

from krelax.activations import Max, Rule
from krelax.bounds.backward import outputs
from krelax.bounds.branching import Branching, Effort
from krelax.bounds.compared import Comparisons
from krelax.bounds.evaluator import Evaluator
from krelax.bounds.instance import Instance
from krelax.bounds.leaves import Leaves
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.optimise import Ascent
from krelax.bounds.sites import Windows
from krelax.network.graph import Network

SHAPES = [
    {"relu": False},
    {"kernel": 2, "stride": 2},
    {"stride": 2, "pad": 1, "relu": False},
    {"stride": 2, "pad": 1},
]


def grown(evaluator: Evaluator, splits: int) -> Leaves:
    """All leaves of a tree of so many splits, each the next one that there is, where there is any."""
    leaves = evaluator.roots(torch.zeros(1, dtype=torch.long), splits)
    for _ in range(splits):
        evaluator.improve(leaves, Ascent(2, 0.3, 0.9))
        evaluator.split_any(leaves)
        going = (leaves.branch >= 0).nonzero()[:, 0]
        done = (leaves.branch < 0).nonzero()[:, 0]
        leaves = leaves.select(done).join(leaves.select(going).children())
    return leaves


@pytest.mark.parametrize("steps", [0, 10])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_leaf_is_above_a_value_in_its_region(shape: dict[str, int], steps: int, tmp_path: Path) -> None:
    """Whatever multipliers are. Together the leaves have every input."""
    case = pooled(tmp_path / "model.onnx", 3, **shape)
    evaluator, x = evaluator_of(case), case.inputs(20000)
    z, margins = pre_activations(evaluator, x), case.margins(x)[:, 0]
    with torch.no_grad():
        leaves = grown(evaluator, 6)
        evaluator.improve(leaves, Ascent(steps, 0.3, 0.9))
        leaves.multiplier += (leaves.neuron >= 0) * torch.rand(leaves.multiplier.shape) * 0.1
        proven, covered = evaluator.prove(leaves), torch.zeros(len(x), dtype=torch.bool)
    sites, compared, met = [s for _, s in evaluator.sites.splittable() if isinstance(s, Windows)], 0, 0
    for row in range(len(leaves)):
        here = torch.ones(len(x), dtype=torch.bool)
        for n, p, side in zip(*(t[row].tolist() for t in (leaves.neuron, leaves.point, leaves.side)), strict=True):
            if n >= 0:
                window = [s for s in sites if s.first <= n < s.first + s.count]
                rival = z[:, n - (n - window[0].first) % window[0].size + int(p)] if window else p
                here &= side * (z[:, n] - rival) >= 0
                compared += bool(window)
        covered |= here
        if bool(here.any()):
            met += 1
            assert float(proven[row]) <= float(margins[here].min())
    assert compared > 10
    assert met > 4
    assert bool(covered.all())


@pytest.mark.parametrize("shape", SHAPES)
def test_after_all_comparisons_nothing_is_left(shape: dict[str, int], tmp_path: Path) -> None:
    """Every window is one of its members then, and its copies."""
    case = pooled(tmp_path / "model.onnx", 3, **shape)
    evaluator = evaluator_of(case)
    with torch.no_grad():
        leaves = evaluator.roots(torch.zeros(1, dtype=torch.long), 40)
        for _ in range(40):
            evaluator.split_any(leaves)
            if bool((leaves.branch < 0).any()):
                break
            leaves = leaves.children()
            leaves = leaves.select(torch.randint(len(leaves), (1,), generator=torch.Generator().manual_seed(7)))
        assert int(leaves.branch) == -1
        splits = evaluator.sites.splits(leaves)
        for i, site in evaluator.sites.splittable():
            if isinstance(site, Windows):
                left = site.cut(evaluator.bounds.relaxations[i], splits[i])
                lines = left.lines_by(Rule.ADAPTIVE)
                assert torch.equal(lines.lower, lines.upper)
                assert bool((lines.above.abs() < 1e-12).all())


def test_a_circle_leaves_its_largest() -> None:
    """Whoever loses to one that is out already stays."""
    t = torch.tensor
    circle = Comparisons(t([0, 0, 0]), t([0, 1, 2]), t([1, 2, 0]), t([0, 1, 2]), 3)
    assert circle.among.tolist() == [[True, False, True]]
    path = Comparisons(t([0, 0, 1]), t([0, 2, 5]), t([1, 0, 4]), t([0, 1, 0]), 3)
    assert path.windows.tolist() == [0, 1]
    assert path.among.tolist() == [[False, False, True], [True, False, True]]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_support_over_what_is_left_is_that_of_points(sign: float) -> None:
    draw = torch.Generator().manual_seed(3)
    share = torch.cartesian_prod(*[torch.linspace(0, 1, 6).double()] * 4)
    for _ in range(60):
        lower = torch.randn(1, 4, generator=draw).double()
        upper = lower + torch.rand(1, 4, generator=draw) * 2
        among = torch.rand(1, 4, generator=draw) < 0.6
        among[0, int(torch.randint(4, (1,), generator=draw))] = True
        slope, coeff = torch.randn(1, 1, 4, generator=draw).double(), sign * torch.rand(1, 1, generator=draw).double()
        found = Max().relax(lower, upper).among(among).support(slope, coeff)
        z = lower + share * (upper - lower)
        truth = z @ slope[0, 0] - coeff[0, 0] * z.masked_fill(~among, -torch.inf).amax(1)
        assert float(found.value) >= float(truth.max()) - 1e-12
        at = (found.z * slope).sum() - coeff * found.a
        assert abs(float(found.value - at)) < 1e-12
        if sign < 0:
            assert float(found.value) <= float(truth.max()) + 1e-12


@pytest.mark.parametrize("shape", SHAPES)
def test_a_search_closes_half_of_the_gap_to_the_exact_minimum_and_is_never_above(
    shape: dict[str, int], tmp_path: Path
) -> None:
    case = pooled(tmp_path / "model.onnx", 4, **shape)
    instance, queries = Instance.of(case.network, case.box), case.queries
    root = bound(instance, queries, METHODS["alpha"])
    forms = [outputs(n, queries.rows.to(n.dtype), queries.offsets.to(n.dtype)) for n in networks_of(instance)]
    effort = Effort(leaves=64, rounds=8, leaf=Ascent(6, 0.3, 0.9))
    proven = float(Branching(instance, root.bounds, (forms[0], forms[1]), effort, root.value[0]).run().value)
    ends, clause = (
        (t.flatten().numpy() for t in (case.box.lower, case.box.upper)),
        (queries.rows[0], queries.offsets[0]),
    )
    least = least_margin(case.network, *(t.reshape(1, 3) for t in ends), [clause]).value  # type: ignore[call-arg]
    assert proven <= least
    assert least - proven <= 0.5 * float(least - float(root.value))


def networks_of(instance: Instance) -> tuple[Network, Network]:
    return instance.network, instance.fast_network
