"""Activations that are not defined, or not bounded, all over their intervals: no bounds, and never anything else."""

from __future__ import annotations

import pytest
import torch
from tests.bounds.problems import METHODS
from tests.marks import ALIKE, at_night_after

from krelax.activations import Activation, Exp, Log, Power, Reciprocal, ReciprocalSqrt, ReLU, Sqrt
from krelax.bounds.instance import Instance
from krelax.bounds.methods import bound
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict

# With a shift, for which the pre-activations are in the domain for inputs up to 1, but not up to 100.
PARTIAL = [(Log(), 4.0), (Sqrt(), 4.0), (Reciprocal(), 4.0), (ReciprocalSqrt(), 4.0), (Power(1.5), 4.0), (Exp(), 0.0)]
# every method with every second activation always
CROSSED = [(*p, m) for j in range(2) for i, m in enumerate(METHODS) for k, p in enumerate(PARTIAL) if (i + k) % 2 == j]
FIRST = [c for c in CROSSED[: len(CROSSED) // 2] if c[2] not in ALIKE]
crossed = pytest.mark.parametrize(
    ("op", "shift", "method"),
    at_night_after(len(FIRST), [*FIRST, *(c for c in CROSSED if c not in FIRST)]),
    ids=lambda x: getattr(x, "name", str(x)),
)


def network(op: Activation, shift: float) -> Network:
    """Two layers with ReLUs around; the second output does not depend on the activation."""
    draw = torch.Generator().manual_seed(4)
    builder = Builder((2,))
    first = builder.add(Dense(torch.randn(3, 2, generator=draw).double(), torch.full((3,), shift).double()), 0)
    partial = builder.add(op, first)
    other = builder.add(ReLU(), builder.add(Dense(torch.randn(3, 3, generator=draw).double(), None), partial))
    weight = torch.tensor([[1.0, -0.5, 0.2], [0.0, 0.0, 0.0]]).double()
    return builder.build(builder.add(Dense(weight, torch.tensor([0.5, 1.0]).double()), other))


def box(radius: float) -> Box:
    end = torch.full((1, 2), radius).double()
    return Box(-end, end)


QUERIES = Queries(torch.eye(2).double()[None], torch.zeros(1, 2).double(), torch.zeros(1, 2, dtype=torch.long), 1)
FAR = {"exp": 1e4}


@crossed
def test_there_is_no_bound_where_nothing_is_known(op: Activation, shift: float, method: str) -> None:
    """Minus infinity, which is a bound; not a number that is none."""
    net = network(op, shift)
    found = bound(Instance.of(net, box(FAR.get(op.name, 100.0))), QUERIES, METHODS[method]).value[0]
    assert found[0] == -torch.inf
    assert not bool(found.isnan().any())


@crossed
def test_there_are_bounds_inside(op: Activation, shift: float, method: str) -> None:
    net, region = network(op, shift), box(0.5)
    found = bound(Instance.of(net, region), QUERIES, METHODS[method]).value[0]
    grid = torch.cartesian_prod(*[torch.linspace(-0.5, 0.5, 21).double()] * 2)
    lowest = net(grid).amin(0)
    assert found.isfinite().all()
    assert bool((found <= lowest + 1e-12).all())


@pytest.mark.parametrize("plan", ["auto", "alpha", "lp"])
@pytest.mark.parametrize("op", [Log(), Reciprocal()], ids=lambda x: x.name)
def test_questions_about_them_are_left_open(op: Activation, plan: str) -> None:
    net, outcomes = network(op, 4.0), list[Outcome]()
    one = Queries(QUERIES.rows[:, :1], QUERIES.offsets[:, :1], QUERIES.clause[:, :1], 1)
    asked = Questions(box(100.0), one, lambda i, x, y: False)
    decide(net, asked, Plan.of(plan), lambda _, o: outcomes.append(o), 1.0, "cpu", 0.4, True)
    assert [o.verdict for o in outcomes] == [Verdict.UNKNOWN]
