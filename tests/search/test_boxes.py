"""Splitting inputs decides questions with a known answer, and never says more than it has proven."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from math import prod
from typing import Any

import pytest
import torch
from tests.exact_cells import least_margin
from tests.marks import at_night_after
from torch import Tensor

from krelax.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from krelax.bounds import boxed, forms
from krelax.bounds.boxed import Bounder, varied
from krelax.bounds.instance import Instance
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Conv, Dense
from krelax.network.ops import Reshape
from krelax.network.pooling import Window, max_pool
from krelax.op import Op
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.boxes import BoxResult, InputSplitting, Splitting
from krelax.search.cutting import Boxes, cut

GRID = 2.0**-6


def numbers(generator: torch.Generator, *shape: int) -> Tensor:
    """Numbers of a plausible size on a grid, which keeps exact arithmetic short."""
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) / GRID).round() * GRID


def dense(generator: torch.Generator, before: int, after: int) -> Dense:
    return Dense((numbers(generator, after, before) / before**0.5 / GRID).round() * GRID, numbers(generator, after) / 2)


def chain(seed: int, act: Op, inputs: int = 2, width: int = 5, outputs: int = 3) -> Network:
    """Two hidden layers."""
    generator = torch.Generator().manual_seed(seed)
    builder = Builder((inputs,))
    x = builder.add(act, builder.add(dense(generator, inputs, width), 0))
    x = builder.add(act, builder.add(dense(generator, width, width), x))
    return builder.build(builder.add(dense(generator, width, outputs), x))


def residual(seed: int, act: Op) -> Network:
    """Two branches with activations of their own, and the input itself, joined with different signs."""
    generator = torch.Generator().manual_seed(seed)
    builder = Builder((2,))
    a, b = (builder.add(act, builder.add(dense(generator, 2, 3), 0)) for _ in range(2))
    x = builder.add(Add((1, -1, -1)), a, b, builder.add(dense(generator, 2, 3), 0))
    return builder.build(builder.add(dense(generator, 3, 3), builder.add(act, x)))


def convolutional(seed: int, act: Op) -> Network:
    generator = torch.Generator().manual_seed(seed)
    builder = Builder((1, 1, 4, 4))
    x = builder.add(Conv(numbers(generator, 2, 1, 3, 3) / 2, numbers(generator, 2), (1, 1), (1, 1), (1, 1)), 0)
    x = max_pool(builder, builder.add(act, x), Window((2, 2), (2, 2), (0, 0), (0, 0), (1, 1)))
    return builder.build(builder.add(dense(generator, 8, 3), builder.add(Reshape((8,)), x)))


def asked(rows: Any, offsets: Any, clause: Any) -> Queries:
    number = torch.tensor(clause)[None]
    rows, offsets = (torch.as_tensor(t, dtype=torch.float64)[None] for t in (rows, offsets))
    return Queries(rows, offsets, number, int(number.max()) + 1)


def box(lower: Any, upper: Any) -> Box:
    return Box(*(torch.as_tensor(t, dtype=torch.float64)[None] for t in (lower, upper)))


def exact(network: Network, region: Box, queries: Queries) -> Fraction:
    """The property's margin in rational arithmetic."""
    clauses = [
        (queries.rows[0, mine].numpy(), queries.offsets[0, mine].numpy())
        for mine in (queries.clause[0] == c for c in range(queries.clauses))
    ]
    return least_margin(network, region.lower[0].numpy(), region.upper[0].numpy(), clauses).value


def lowered(queries: Queries, by: float) -> Queries:
    return Queries(queries.rows, queries.offsets - by, queries.clause, queries.clauses)


def decide(network: Network, region: Box, queries: Queries, effort: Splitting | None = None, **more: Any) -> BoxResult:
    """The answer when a counterexample is what the network itself, in float64, does not hold at."""

    def confirm(points: Tensor) -> bool:
        assert points.shape[1:] == network.input_shape
        assert bool(((points >= region.lower) & (points <= region.upper)).all())
        return bool((queries.margin(queries.values(network(points)[None])) <= 0).any())

    return InputSplitting(Instance.of(network, region, **more), queries, effort or Splitting(), confirm).run()


LINEAR: dict[str, Callable[[int], Network]] = {
    "relu": lambda seed: chain(seed, ReLU()),
    "leaky": lambda seed: chain(seed, LeakyReLU(0.25)),
    "residual": lambda seed: residual(seed, ReLU()),
}
TWO_CLAUSES = asked([[1, -1, 0], [0, 1, -1], [1, 0, 1], [0, -1, 0]], [0.5, 0.25, 0, 0], [0, 0, 1, 1])
ONE_MARGIN = asked([[1, -1, 0.5]], [0.0], [0])


@pytest.mark.parametrize("queries", [ONE_MARGIN, TWO_CLAUSES], ids=["one margin", "two clauses"])
@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("seed", at_night_after(1, range(3)))
def test_decides_as_exact_enumeration(kind: str, seed: int, queries: Queries) -> None:
    network, region = LINEAR[kind](seed), box([-1.0, -0.5], [0.75, 1.0])
    worst = float(exact(network, region, queries))
    holds, broken = lowered(queries, worst - 0.01), lowered(queries, worst + 0.01)
    found = decide(network, region, holds)
    assert found.holds
    assert not found.violated
    assert found.boxes >= 1
    assert 0 < Fraction(found.margin) <= exact(network, region, holds)
    found = decide(network, region, broken)
    assert found.violated
    assert not found.holds
    assert found.margin <= exact(network, region, broken)


@pytest.mark.parametrize("width", [1.0, 1e-6, 1e-14], ids=["wide", "narrow", "a few numbers wide"])
@pytest.mark.parametrize("kind", LINEAR)
def test_bounds_of_boxes_are_below_exact_margins(kind: str, width: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in range(4):
        network, region = LINEAR[kind](seed), box([-1.0, -1.0], [1.0, 1.0])
        ends = torch.rand(2, 6, 2, generator=generator, dtype=torch.float64) * 2 - 1
        lower, upper = ends.amin(0), ends.amin(0) + width * (ends.amax(0) - ends.amin(0))
        value = Bounder(Instance.of(network, region), ONE_MARGIN).bound(lower, upper).value
        for low, up, bound in zip(lower, upper, value[:, 0].tolist(), strict=True):
            assert Fraction(bound) <= exact(network, box(low, up), ONE_MARGIN)


def test_symbols_of_parallel_branches_are_different() -> None:
    """`relu(x) - x / 2 - relu(y)` is -1 at (0, 1): noise shared by both branches would cancel."""
    builder = Builder((2,))
    a = builder.add(ReLU(), builder.add(Dense(torch.tensor([[1.0, 0.0]], dtype=torch.float64)), 0))
    b = builder.add(ReLU(), builder.add(Dense(torch.tensor([[0.0, 1.0]], dtype=torch.float64)), 0))
    c = builder.add(Dense(torch.tensor([[0.5, 0.0]], dtype=torch.float64)), 0)
    network, region = builder.build(builder.add(Add((1, -1, -1)), a, b, c)), box([-1.0, -1.0], [1.0, 1.0])
    found = Bounder(Instance.of(network, region), asked([[1.0]], [0.0], [0])).bound(region.lower, region.upper)
    assert float(found.value) <= -1


@pytest.mark.parametrize("kind", LINEAR)
def test_portions_of_symbols_say_what_all_of_them_say(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, region = LINEAR[kind](1), box([-1.0, -0.5], [0.75, 1.0])
    whole, portions = (Bounder(Instance.of(network, region), ONE_MARGIN) for _ in range(2))
    lower, upper = region.lower.flatten(1), region.upper.flatten(1)
    expected = whole.bound(lower, upper)
    monkeypatch.setattr(forms, "_AT_ONCE", 1)
    found = portions.bound(lower, upper)
    for name in ("value", "slopes", "blame"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-12)


def test_passes_are_those_of_neurons_that_a_box_leaves_undecided() -> None:
    network, region = chain(1, ReLU()), box([-1.0, -0.5], [0.75, 1.0])
    bounder = Bounder(Instance.of(network, region), ONE_MARGIN)
    assert bounder.passes == 0
    point = region.lower.flatten(1)
    bounder.bound(point, point)
    assert bounder.passes == 0
    bounder.bound(region.lower.flatten(1), region.upper.flatten(1))
    assert bounder.passes > 0


@pytest.mark.parametrize("most", [1, 200], ids=["no room", "little room"])
def test_symbols_without_room_become_error(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxed, "_MOST_BYTES", most)
    network, region = chain(1, ReLU()), box([-1.0, -0.5], [0.75, 1.0])
    queries = lowered(ONE_MARGIN, float(exact(network, region, ONE_MARGIN)) - 0.01)
    found = decide(network, region, queries)
    assert found.holds
    assert Fraction(found.margin) <= exact(network, region, queries)


@pytest.mark.parametrize("times", [1, 3])
def test_pieces_cover_their_box(times: int) -> None:
    """Their volumes add up, exactly, also where the middle between two faces is no floating-point number."""
    generator = torch.Generator().manual_seed(0)
    ends = torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)
    lower, upper = ends.amin(0), ends.amax(0)
    upper[:5, 0] = torch.nextafter(lower[:5, 0], upper[:5, 0])
    none = torch.zeros(20, dtype=torch.long)
    boxes = Boxes(none, torch.zeros(20), lower, upper, none)
    pieces, stuck = cut(boxes, torch.rand(20, 3, generator=generator), times)
    assert not stuck
    groups = zip(pieces.lower.split(2**times), pieces.upper.split(2**times), strict=True)
    for low, up, (lows, ups) in zip(lower, upper, groups, strict=True):
        assert bool(((lows >= low) & (ups <= up)).all())
        assert sum(volume(*piece) for piece in zip(lows, ups, strict=True)) == volume(low, up)


def volume(lower: Tensor, upper: Tensor) -> Fraction:
    sides = (Fraction(u) - Fraction(l) for l, u in zip(lower.tolist(), upper.tolist(), strict=True))
    return prod(sides, start=Fraction(1))


def test_inputs_without_width_are_not_cut() -> None:
    network = chain(0, ReLU(), inputs=4)
    region = box([-1.0, 0.25, 0.5, -0.5], [0.5, 0.25, 1.0, -0.5])
    worst = float(exact(network, region, ONE_MARGIN))
    assert decide(network, region, lowered(ONE_MARGIN, worst - 0.01)).holds
    assert decide(network, region, lowered(ONE_MARGIN, worst + 0.01)).violated


def test_inputs_between_two_numbers_are_charged_and_not_cut() -> None:
    """A decimal is enclosed by the two numbers next to it, which times 2**56 are 8 apart."""
    steep = torch.tensor([[2.0**56, 1.0], [0.0, 1.0]], dtype=torch.float64)
    builder = Builder((2,))
    network = builder.build(builder.add(ReLU(), builder.add(Dense(steep), 0)))
    region = box([0.5, -1.0], [0.5 + 2.0**-53, 1.0])
    assert varied(region).tolist() == [1]
    for queries, least in ((asked([[1.0, 1.0]], [-(2.0**55)], [0]), -1), (asked([[-1.0, 0.0]], [2.0**55], [0]), -9)):
        assert exact(network, region, queries) == least
        found = Bounder(Instance.of(network, region), queries).bound(region.lower[:, 1:], region.upper[:, 1:])
        assert float(found.value) <= least
        assert decide(network, region, lowered(queries, -5000.0)).holds  # far beyond what rounding may change


def test_members_that_are_loose_are_cut_where_another_one_has_all_weight() -> None:
    """One member is a constant below zero, but for a trifle. The other is above zero, as a few cuts show."""
    first = torch.tensor([[0.0, 2.0], [0.0, 1.0], [1e-9, 0.0]], dtype=torch.float64)
    last = torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    builder = Builder((2,))
    hidden = builder.add(ReLU(), builder.add(Dense(first), 0))
    network = builder.build(builder.add(Dense(last), hidden))
    queries = asked([[1.0, 0.0], [0.0, 1.0]], [0.125, -0.25], [0, 0])
    found = decide(network, box([-1.0, -4.0], [1.0, 4.0]), queries, deadline=time.perf_counter() + 60)
    assert found.holds
    assert found.boxes < 200


def test_a_point_is_decided_at_once() -> None:
    network, region = chain(0, ReLU()), box([0.5, 0.25], [0.5, 0.25])
    value = float(exact(network, region, ONE_MARGIN))
    assert decide(network, region, lowered(ONE_MARGIN, value - 0.01)).holds
    assert decide(network, region, lowered(ONE_MARGIN, value + 0.01)).violated


@pytest.mark.parametrize("region", [box([-1.0, -1.0], [1.0, 1.0]), box([0.5, 0.5], [0.5, 0.5])], ids=["box", "point"])
def test_a_margin_of_zero_ends_without_an_answer(region: Box) -> None:
    """`relu(x) + relu(-x)` is positive but at x = 0, where it is zero: no box around that is ever closed."""
    builder = Builder((2,))
    split = builder.add(Dense(torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)), 0)
    network = builder.build(builder.add(ReLU(), split))
    queries = asked([[1.0, 1.0]], [0.0], [0])
    instance = Instance.of(network, region)
    found = InputSplitting(instance, queries, Splitting(), lambda points: False).run()
    assert not found.holds
    assert not found.violated
    assert found.reason == "a box cannot be split further"
    assert found.margin <= 0


def test_nothing_closes_on_numbers_that_overflow() -> None:
    network = chain(0, ReLU())
    region = box([-1e308, -1e308], [1e308, 1e308])
    instance = Instance.of(network, region, deadline=time.perf_counter() + 0.25)
    found = InputSplitting(instance, ONE_MARGIN, Splitting(), lambda points: False).run()
    assert not found.holds
    assert not found.violated


def test_goes_on_where_it_stopped() -> None:
    network, region = chain(0, ReLU()), box([-1.0, -0.5], [0.75, 1.0])
    worst = float(exact(network, region, ONE_MARGIN))
    instance, queries = Instance.of(network, region), lowered(ONE_MARGIN, worst - 0.01)
    whole, search = (InputSplitting(instance, queries, Splitting(batch=8), lambda points: False) for _ in range(2))
    found, expected = search.run(-1.0), whole.run()
    assert (found.reason, found.boxes) == ("timeout", 0)
    while not found.holds:
        before, found = found, search.run(1e-4)
        assert found.margin >= before.margin
    assert (found.margin, found.boxes) == (expected.margin, expected.boxes)


def test_ends_at_the_deadline_with_what_is_proven() -> None:
    network, region = chain(3, ReLU(), inputs=6, width=40), box([-3.0] * 6, [3.0] * 6)
    points = region.lower + 6 * torch.rand(4000, 6, dtype=torch.float64)
    least = float(ONE_MARGIN.values(network(points)[None]).min())
    began, spent = time.perf_counter(), time.process_time()
    instance = Instance.of(network, region, deadline=began + 0.5)
    found = InputSplitting(instance, lowered(ONE_MARGIN, least - 1e-9), Splitting(), lambda points: False).run()
    assert time.process_time() - spent < 2
    assert found.reason == "timeout"
    assert not found.holds
    assert not found.violated
    assert -torch.inf < found.margin <= 0
    before = InputSplitting(
        Instance.of(network, region, deadline=began), ONE_MARGIN, Splitting(), lambda points: False
    ).run()
    assert before.reason == "timeout"
    assert before.margin == -torch.inf
    assert before.boxes == 0


def test_ends_when_too_many_boxes_wait() -> None:
    network, region = chain(3, ReLU(), inputs=6, width=40), box([-3.0] * 6, [3.0] * 6)
    instance = Instance.of(network, region)
    found = InputSplitting(instance, lowered(ONE_MARGIN, 5.0), Splitting(memory=1e-9), lambda points: False).run()
    assert found.reason == "memory"
    assert not found.holds


def test_a_candidate_counts_only_if_confirmed() -> None:
    network, region = chain(0, ReLU()), box([-1.0, -1.0], [1.0, 1.0])
    queries = lowered(ONE_MARGIN, float(exact(network, region, ONE_MARGIN)) + 0.5)
    asked_for: list[int] = []

    def refuse(points: Tensor) -> bool:
        asked_for.append(len(points))
        return False

    instance = Instance.of(network, region, deadline=time.perf_counter() + 0.5)
    found = InputSplitting(instance, queries, Splitting(), refuse).run()
    assert not found.violated
    assert not found.holds
    assert 0 < sum(asked_for) < 2000


@pytest.mark.parametrize(
    "network",
    [chain(0, Sigmoid()), chain(1, Tanh()), residual(2, Sigmoid())],
    ids=["sigmoid", "tanh", "residual sigmoid"],
)
def test_smooth_activations(network: Network) -> None:
    region = box([-2.0, -1.0], [2.0, 1.5])
    share = torch.rand(20000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = network(region.lower + share * (region.upper - region.lower))
    least = float(TWO_CLAUSES.margin(TWO_CLAUSES.values(values[None])).min())
    found = decide(network, region, lowered(TWO_CLAUSES, least - 0.02))
    assert found.holds
    assert 0 < found.margin <= 0.02
    assert decide(network, region, lowered(TWO_CLAUSES, least + 0.001)).violated


@pytest.mark.parametrize("act", [ReLU(), Sigmoid()], ids=["relu", "sigmoid"])
def test_convolutions_and_pools_with_few_inputs_that_vary(act: Op) -> None:
    network = convolutional(0, act)
    lower = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(1, 1, 1, 4, 4)
    upper = lower.clone()
    upper[0, 0, 0, 1, 1:3] += 1.5
    share = torch.rand(5000, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    least = float(ONE_MARGIN.values(network(lower + share * (upper - lower))[None]).min())
    found = decide(network, Box(lower, upper), lowered(ONE_MARGIN, least - 0.05))
    assert found.holds
    assert 0 < found.margin <= 0.05
    assert decide(network, Box(lower, upper), lowered(ONE_MARGIN, least + 0.001)).violated


def test_threads_change_nothing() -> None:
    network, region = chain(5, ReLU(), inputs=4, width=16), box([-1.0] * 4, [1.0] * 4)
    share = torch.rand(20000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    least = float(ONE_MARGIN.values(network(2 * share - 1)[None]).min())
    queries = lowered(ONE_MARGIN, least - 0.05)
    alone = decide(network, region, queries)
    torch.set_num_threads(2)
    try:
        together = decide(network, region, queries)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert alone.holds
    assert together.holds
    assert alone.boxes == together.boxes
