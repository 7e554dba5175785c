"""The contract every relaxation keeps: it encloses the graph of its activation, whatever the slopes.

Checked against 60-digit arithmetic with exactly the tolerance that `Relaxation.support` documents (which is what the
backward pass charges for), over degenerate, tiny, huge and lopsided intervals and slopes of every sign and size.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from functools import cache
from inspect import isabstract

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.activations.kit import ELEMENTWISE, WINDOWED, Elementwise, Number, Windowed, mpf
from tests.marks import at_night_after
from torch import Tensor

from krelax.activations import ACTIVATIONS, Activation, LeakyReLU, Lines, LogSumExp, Max, Relaxation, ReLU, Rule
from krelax.activations.swish import GELU, Mish, SiLU, TanhGELU
from krelax.activations.transformed import Transformed
from krelax.activations.wave import Cos, Sin

Interval = tuple[float, float]
DTYPES = [torch.float64, torch.float32]

# like ReLU, like another slope, and like another constant
TWINS = {"leaky-0", "leaky-0.3", "gelu-tanh-0.797885"}
ENTRIES = [pytest.param(e, marks=[pytest.mark.slow] * (e.name in TWINS), id=e.name) for e in ELEMENTWISE]

slow = pytest.mark.slow
elementwise = pytest.mark.parametrize("entry", ENTRIES)
# a maximum of as many numbers as others have less one or more
windowed = pytest.mark.parametrize(
    "entry", [pytest.param(e, marks=[slow] * (e.name == "max-4"), id=e.name) for e in WINDOWED]
)
# In float32, which only proposes, one of each file is always tried, and others at night.
_FIRST = {type(e.op).__module__: e.name for e in reversed(ELEMENTWISE)}.values()
elementwise_in_both = pytest.mark.parametrize(
    ("dtype", "entry"),
    [
        pytest.param(d, e, id=f"{str(d)[6:]}-{e.name}", marks=[slow] * (e.name not in always))
        for d, always in zip(DTYPES, ({e.name for e in ELEMENTWISE} - TWINS, _FIRST), strict=True)
        for e in ELEMENTWISE
    ],
)
# As above, one of each kind.
_PROPOSED = {"max-3", "difference-0.3", "log-sum-exp-2", "product"}
windowed_in_both = pytest.mark.parametrize(
    ("dtype", "entry"),
    [
        pytest.param(d, e, id=f"{str(d)[6:]}-{e.name}", marks=[slow] * (e.name not in always))
        for d, always in zip(DTYPES, ({e.name for e in WINDOWED} - {"max-4"}, _PROPOSED), strict=True)
        for e in WINDOWED
    ],
)
every_rule = pytest.mark.parametrize("rule", list(Rule))
# Every fourth or eighth interval always, not the same ones of each activation; all at night.
in_steps = pytest.mark.parametrize("step", at_night_after(1, [4, 1]), ids=["some", "all"])
in_long_steps = pytest.mark.parametrize("step", at_night_after(1, [8, 1]), ids=["few", "all"])

INTERVALS: list[Interval] = [
    *((v, v) for v in (-1e30, -1e6, -1.0, -1e-300, 0.0, 1e-12, 0.3, 50.0, 1e30)),  # a point
    *((0.0, v) for v in (1e-300, 1e-12, 0.5, 3.0, 1e6, 1e30)),
    *((-v, 0.0) for v in (1e-300, 1e-12, 0.5, 3.0, 1e6, 1e30)),
    *((-v, v) for v in (1e-300, 1e-12, 1e-3, 1.0, 30.0, 1e6, 1e30)),
    *((-v, 1e-12) for v in (1e-300, 1e-3, 1e6, 1e30)),
    *((-1e-12, v) for v in (1e-300, 1e-3, 1e6, 1e30)),
    (1.0, math.nextafter(1.0, 2.0)),
    (-1.0, math.nextafter(-1.0, 0.0)),
    (1.0, 1.0 + 1e-12),
    (-5.0, -4.999999),
    (-1000.0, -700.0),
    (-90.0, -30.0),
    (10.0, 40.0),
    (700.0, 1e6),
    (-2.0, 0.75),
    (-0.6, 0.75),
    (-0.1, 7.0),
    (0.2, 2.5),
    (-3.0, -0.4),
    (1e6, 1e30),
    (-1e30, -1e6),
]
SLOPES = (0.0, 0.3, -0.3, 1.0, -1.0, 1e-12, 1e30, -1e30)
COEFFS = (0.0, 1.0, -1.0, -2.5, 1e-9, 1e6)
PAIRS = [
    *itertools.product(SLOPES, COEFFS),
    *((share * coeff, coeff) for share in (0.25, 0.2499999, 1e-6, 0.99999999) for coeff in (1.0, -7e5)),
]


# Of numbers of one sign, for what is not defined for all.
ONE_SIDED = [
    *((a, b) for a, b in INTERVALS if a * b > 0),
    *((v, 4 * v) for v in (1e-300, 1e-30, 1e-12, 1e-3, 0.5, 1e6)),
    *((1e-300, v) for v in (1e-12, 1.0, 1e30)),
    (1e-3, 1e3),
    (0.999, 1.001),
    (1.0, 4.0),
    (1.5, 1e4),
    (-4.0, -0.25),
    (-1e6, -1e-12),
]


def representable(entry: Elementwise, dtype: torch.dtype) -> list[Interval]:
    """The intervals as the type holds them, each once, that the activation takes."""
    every = [*INTERVALS, *ONE_SIDED, *((-b, -a) for a, b in ONE_SIDED)]
    found = dict.fromkeys((float(a), float(b)) for a, b in torch.tensor(every, dtype=dtype).tolist())
    return [i for i in found if entry.takes(*i, dtype)]


def some_of(entry: Elementwise, dtype: torch.dtype, step: int) -> list[Interval]:
    """One in so many of them, beginning somewhere."""
    return representable(entry, dtype)[len(entry.name) % step :: step]


def ordinary(entry: Elementwise) -> list[Interval]:
    """A few intervals, neither small nor large."""
    if not entry.total:
        some = [(0.5, 3.0), (0.25, 1.0), (2.0, 2.5), (-0.5, 0.75), (0.125, 0.875), (1.25, 3.0), (1.0, 7.0)]
        return [i for i in some if entry.takes(*i, torch.float64)][:3]
    return [(-2.0, 3.0), (-1.0, 0.5), (0.25, 1.0), (-4.0, -0.5)]


def graph_points(interval: Interval) -> list[Number]:
    """Ends, kink, evenly spaced points, and points at every scale towards zero."""
    l, u = (mpf(v) for v in interval)
    spread = [l + (u - l) * k / 5 for k in range(6)]
    shrunk = [end * mpf(10) ** -k for end in (l, u) for k in (1, 3, 9)]
    return sorted({z for z in (l, u, mpf(0), *spread, *shrunk) if l <= z <= u})


@cache
def value(entry: Elementwise, z: Number) -> Number:
    """Its exact value, which many tests ask for."""
    return entry.act(z)


@cache
def graph_of(entry: Elementwise, interval: Interval) -> list[tuple[Number, Number]]:
    """Points of its graph over an interval."""
    return [(z, value(entry, z)) for z in graph_points(interval)]


def stationary_in(entry: Elementwise, interval: Interval, slope: float, coeff: float) -> list[tuple[Number, Number]]:
    """Points of its graph at which a form in z and the value may be largest inside an interval."""
    inside = (p for p in entry.stationary(slope, coeff) if interval[0] <= p <= interval[1])
    return [(p, value(entry, p)) for p in inside]


def size(interval: Interval) -> float:
    return max(abs(interval[0]), abs(interval[1]))


def tolerance(dtype: torch.dtype, slope: float, coeff: float, z: float | Number, a: float | Number) -> Number:
    """What `Relaxation.support` allows itself: 8 ulps; and what no relative bound covers, products that underflow."""
    info = torch.finfo(dtype)
    return 8 * info.eps * (abs(mpf(slope)) * z + abs(mpf(coeff)) * a) + info.tiny * (1 + abs(coeff))


def supports(
    entry: Elementwise, intervals: Sequence[Interval], pairs: Sequence[tuple[float, float]], dtype: torch.dtype
) -> Iterator[tuple[Interval, float, float, float, float, float]]:
    """Every interval with every (slope, coeff) whose products do not overflow: interval, slope, coeff, value, z, a."""
    slope, coeff = torch.tensor(pairs, dtype=dtype).unsqueeze(-1).unbind(1)
    found = entry.relax(intervals, dtype).support(slope[None], coeff[None])
    assert found.value.shape == found.z.shape == found.a.shape == (len(intervals), len(pairs), 1)
    assert found.value.dtype == found.z.dtype == found.a.dtype == dtype
    largest = torch.finfo(dtype).max / 4
    table = torch.stack([found.value, found.z, found.a], -1)[:, :, 0].tolist()
    columns = list(zip(slope[:, 0].tolist(), coeff[:, 0].tolist(), strict=True))
    for interval, row in zip(intervals, table, strict=True):
        for (s, c), (value, z, a) in zip(columns, row, strict=True):
            if abs(s) * size(interval) + abs(c) * max(size(interval), entry.height(*interval)) < largest:
                yield interval, s, c, value, z, a


def check_supports(
    entry: Elementwise, intervals: Sequence[Interval], pairs: Sequence[tuple[float, float]], dtype: torch.dtype
) -> None:
    """No point of the graph lies beyond the support; the point returned is on the graph and attains the value."""
    for interval, slope, coeff, most, z, a in supports(entry, intervals, pairs, dtype):
        case = (interval, slope, coeff, most, z, a)
        assert math.isfinite(most), case
        tol = tolerance(dtype, slope, coeff, size(interval), entry.height(*interval))
        s, c = mpf(slope), mpf(coeff)
        inner = stationary_in(entry, interval, slope, coeff)
        beyond = max(s * p - c * b for p, b in (*graph_of(entry, interval), *inner))
        assert most >= beyond - tol, (case, float(beyond - most), float(tol))
        assert interval[0] <= z <= interval[1], case
        at = mpf(z)
        blur = entry.blur(at) * torch.finfo(dtype).eps * abs(a)
        off = min(abs(a - b) for b in (value(entry, at), *entry.limits(at)))
        # float32 only proposes
        near = 16 if dtype == torch.float32 else 1
        assert off <= near * tolerance(dtype, 0.0, 1.0, 0.0, abs(a)) + blur, case
        attained = s * at - c * mpf(a)
        assert abs(most - attained) <= tol + 2 * abs(coeff) * blur + added(entry, slope, coeff, interval), case


def added(entry: Elementwise, slope: float, coeff: float, interval: Interval) -> float:
    """How much may be added for points that are not known better: gates and waves say so. This is about how tight the
    support is, not whether it is right."""
    if not isinstance(entry.op, SiLU | GELU | TanhGELU | Mish | Sin | Cos):
        return 0.0
    return 1e-6 * (abs(slope) * size(interval) + abs(coeff) * (1 + float(entry.height(*interval))))


def check_lines(entry: Elementwise, intervals: Sequence[Interval], lines: Lines, dtype: torch.dtype) -> None:
    """Every line stays on its side of the graph, over `(batch, queries, 1)` lines."""
    like = torch.broadcast_tensors(*(t for t in (lines.lower, lines.upper, lines.above, lines.below) if t is not None))
    shape = like[0].shape
    assert shape[0] == len(intervals)
    below = torch.zeros(shape, dtype=dtype) if lines.below is None else lines.below
    columns = [t.expand(shape)[..., 0].tolist() for t in (lines.lower, below, lines.upper, lines.above)]
    largest = torch.finfo(dtype).max / 4
    for interval, *rows in zip(intervals, *columns, strict=True):
        graph = graph_of(entry, interval)
        z_max, a_max = size(interval), entry.height(*interval)
        for low, pay, high, gain in zip(*rows, strict=True):
            case = (interval, low, pay, high, gain)
            if max(abs(low), abs(high)) * z_max >= largest:
                continue
            assert all(math.isfinite(v) for v in case[1:]), case
            under = mpf(low), mpf(pay) + tolerance(dtype, low, 1.0, z_max, a_max)
            over = mpf(high), mpf(gain) + tolerance(dtype, high, 1.0, z_max, a_max)
            extra = [point for s in {low, high} for point in stationary_in(entry, interval, s, 1.0)]
            for z, a in (*graph, *extra):
                assert under[0] * z - under[1] <= a <= over[0] * z + over[1], (case, float(z))


# --- one number ------------------------------------------------------------------------------------------------------


@elementwise_in_both
@in_steps
def test_support_encloses_the_graph_and_is_attained_on_it(entry: Elementwise, dtype: torch.dtype, step: int) -> None:
    """Attained on the graph itself: for one neuron the support of the graph is that of its convex hull."""
    pairs = PAIRS if step == 1 else PAIRS[len(entry.name) % 3 :: 3]
    check_supports(entry, some_of(entry, dtype, step), pairs, dtype)


finite = st.floats(-1e6, 1e6) | st.floats(-3, 3) | st.sampled_from([0.0, 1e-12, -1e-12, 1e-300, -1e-300])


any_interval = given(ends=st.tuples(finite, finite), pairs=st.lists(st.tuples(finite, finite), min_size=1, max_size=6))


@elementwise
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@any_interval
def test_support_encloses_the_graph_of_any_interval(
    entry: Elementwise, ends: Interval, pairs: list[tuple[float, float]]
) -> None:
    interval = min(ends), max(ends)
    assume(entry.takes(*interval, torch.float64))
    check_supports(entry, [interval], pairs, torch.float64)


@slow
@elementwise
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@any_interval
def test_support_of_many_intervals(entry: Elementwise, ends: Interval, pairs: list[tuple[float, float]]) -> None:
    interval = min(ends), max(ends)
    assume(entry.takes(*interval, torch.float64))
    check_supports(entry, [interval], pairs, torch.float64)


@elementwise_in_both
@in_steps
def test_interval_contains_every_value(entry: Elementwise, dtype: torch.dtype, step: int) -> None:
    """Without tolerance: nothing is charged later for these bounds."""
    intervals = some_of(entry, dtype, step)
    low, high = (t[:, 0].tolist() for t in entry.relax(intervals, dtype).interval())
    for interval, a, b in zip(intervals, low, high, strict=True):
        for z, exact in graph_of(entry, interval):
            assert a <= exact <= b, (interval, float(z), a, b)


@elementwise_in_both
@every_rule
@in_steps
def test_lines_of_every_rule_enclose_the_graph(entry: Elementwise, dtype: torch.dtype, rule: Rule, step: int) -> None:
    intervals = some_of(entry, dtype, step)
    check_lines(entry, intervals, entry.relax(intervals, dtype).lines_by(rule), dtype)


@elementwise_in_both
@in_long_steps
def test_lines_with_slopes_inside_the_range_enclose_the_graph(
    entry: Elementwise, dtype: torch.dtype, step: int
) -> None:
    intervals = some_of(entry, dtype, step)
    relaxation = entry.relax(intervals, dtype)
    low, high = (t.unsqueeze(1) for t in relaxation.slope_range())
    share = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0], dtype=dtype).reshape(1, -1, 1)
    inside = torch.lerp(low.expand(-1, 5, -1), high.expand(-1, 5, -1), share)
    check_lines(entry, intervals, relaxation.lines(inside, inside.flip(1)), dtype)


@elementwise_in_both
@in_steps
def test_lines_with_any_slopes_enclose_the_graph(entry: Elementwise, dtype: torch.dtype, step: int) -> None:
    intervals = some_of(entry, dtype, step)
    lower = torch.tensor([-1e6, -1.0, -1e-9, 0.0, 0.1, 0.7, 1.0 + 1e-6, 2.0, 1e6], dtype=dtype).reshape(1, -1, 1)
    lower = lower.repeat(len(intervals), 1, 1)
    check_lines(entry, intervals, entry.relax(intervals, dtype).lines(lower, lower.roll(4, 1)), dtype)


@elementwise
def test_one_query_outside_the_range_does_not_spoil_the_others(entry: Elementwise) -> None:
    """Lower lines through the origin are a shortcut for slopes in the range only."""
    intervals = ordinary(entry)[:2]
    lower = torch.tensor([0.5, 1.5, -0.5], dtype=torch.float64).reshape(1, 3, 1).repeat(2, 1, 1)
    check_lines(entry, intervals, entry.relax(intervals, torch.float64).lines(lower, lower), torch.float64)


@elementwise
def test_a_line_touches_the_graph_where_it_says(entry: Elementwise) -> None:
    """`lower_at` and `upper_at` carry the gradient of the bound: there the lines meet the graph."""
    if entry.jumps:
        pytest.skip("the closure of its graph has more points")
    intervals = ordinary(entry)
    relaxation = entry.relax(intervals, torch.float64)
    for rule in Rule:
        lines = relaxation.lines_by(rule)
        for slope, shift, at in (
            (lines.lower, None if lines.below is None else -lines.below, lines.lower_at),
            (lines.upper, lines.above, lines.upper_at),
        ):
            z = torch.zeros(len(intervals), 1, 1, dtype=torch.float64) if at is None else at
            value = slope * z + (0.0 if shift is None else shift)
            inside = (z[:, 0] >= relaxation.lower) & (z[:, 0] <= relaxation.upper)
            assert torch.allclose(value[:, 0][inside], entry.op.forward(z)[:, 0][inside], rtol=1e-14, atol=1e-14)


@elementwise_in_both
@in_long_steps
def test_pieces_of_split_neurons_cover_the_graph(entry: Elementwise, dtype: torch.dtype, step: int) -> None:
    """Whatever is left of an interval is relaxed like any other; together the pieces have every point."""
    intervals = some_of(entry, dtype, step)
    relaxation = entry.relax(intervals, dtype)
    splits = relaxation.splits()
    assert splits is not None
    for point in (splits.at_lower, splits.at_upper):
        pieces, (low, high) = [], (relaxation.lower, relaxation.upper)
        for lower, upper in ((low, high.minimum(point)), (low.maximum(point), high)):
            pieces.append(list(zip(lower[:, 0].tolist(), upper[:, 0].tolist(), strict=True)))
            some = [i for i, (l, u) in enumerate(pieces[-1]) if l <= u]
            part = relaxation.over(lower[some], upper[some])
            check_lines(entry, [pieces[-1][i] for i in some], part.lines_by(Rule.ADAPTIVE), dtype)
            if relaxation.triangle() is not None:  # linear on both sides
                assert not part.unstable().any()
        for interval, *parts in zip(intervals, *pieces, strict=True):
            assert all(any(l <= z <= u for l, u in parts) for z in graph_points(interval)), interval
            assert all(interval[0] <= v <= interval[1] for l, u in parts for v in (l, u) if l <= u), interval


@elementwise_in_both
def test_neurons_are_split_inside_their_intervals(entry: Elementwise, dtype: torch.dtype) -> None:
    """Where a split is worth anything, which it is where intervals are wide but not too wide for lines."""
    relaxation = entry.relax(representable(entry, dtype), dtype)
    splits = relaxation.splits()
    assert splits is not None
    worth = splits.lower + splits.upper > 0
    for point, gain in ((splits.at_lower, splits.lower), (splits.at_upper, splits.upper)):
        assert ((relaxation.lower < point) & (point < relaxation.upper))[gain > 0].all()
    low, high = relaxation.lower, relaxation.upper
    around = (low < -0.1) & (high > 0.1) & (high - low < 20)
    if not entry.total:
        around = (low > 0.1) & (low + 1 < high) & (high < 9)
        if not around.any():  # a short domain
            around = (low < -0.1) & (high > 0.1)
    assert around.any()
    if not entry.jumps:  # one of whose pieces may have the whole jump
        assert worth[around].all() == (entry.op.leak != 1)  # which is linear everywhere
    far = torch.tensor([[-torch.inf, torch.inf], [-torch.inf, 1.0], [0.0, torch.inf]], dtype=torch.float64)
    found = entry.op.relax(far[:, :1], far[:, 1:]).splits()
    assert found is not None
    assert not any(t.isnan().any() for t in (found.at_lower, found.at_upper))


@elementwise_in_both
@in_long_steps
def test_a_batch_is_its_members_one_by_one(entry: Elementwise, dtype: torch.dtype, step: int) -> None:
    intervals = representable(entry, dtype)
    slope, coeff = torch.tensor(PAIRS[::7], dtype=dtype).unsqueeze(-1).unbind(1)
    together = entry.relax(intervals, dtype)
    found = together.support(slope[None], coeff[None])
    lines = {rule: together.lines_by(rule) for rule in Rule}
    for i, interval in list(enumerate(intervals))[len(entry.name) % step :: 4 * step]:
        alone = entry.relax([interval], dtype)
        same(alone.support(slope[None], coeff[None]).value[0], found.value[i])
        for rule, theirs in lines.items():
            ours = alone.lines_by(rule)
            same(ours.lower[0], theirs.lower[i])
            same(ours.upper[0], theirs.upper[i])
            same(ours.above[0], theirs.above[i])
    for q in range(0, len(slope), 3):
        same(together.support(slope[None, q : q + 1], coeff[None, q : q + 1]).value[:, 0], found.value[:, q])


@elementwise
def test_any_shape_of_neurons(entry: Elementwise) -> None:
    """`(batch, *shape)` bounds and `(batch, queries, *shape)` slopes, entry by entry."""
    generator = torch.Generator().manual_seed(3)
    lower = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    lower = lower if entry.total else lower.abs()
    upper = lower + torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)
    slope, coeff = torch.randn(2, 2, 5, 3, 4, generator=generator, dtype=torch.float64)
    value = entry.op.relax(lower, upper).support(slope, coeff).value
    assert value.shape == (2, 5, 3, 4)
    flat = entry.op.relax(lower.flatten(1), upper.flatten(1)).support(slope.flatten(2), coeff.flatten(2)).value
    same(value.flatten(2), flat)
    assert all(t.shape == (2, 3, 4) for t in entry.op.relax(lower, upper).interval())


def same(ours: Tensor, theirs: Tensor) -> None:
    """Equal up to the last bits, which vectorised exponentials give differently for different lengths."""
    scale = 16 * torch.finfo(ours.dtype).eps
    assert torch.allclose(ours, theirs, rtol=scale, atol=scale, equal_nan=True)


@pytest.mark.parametrize("op", [ReLU(), LeakyReLU(0.01), LeakyReLU(0.3), LeakyReLU(1.0)], ids=str)
@pytest.mark.parametrize("rule", [Rule.PARALLEL, Rule.ADAPTIVE, Rule.FIXED_0, Rule.FIXED_1])
def test_a_stable_neuron_is_exact(op: Activation, rule: Rule) -> None:
    """Where the sign of z is known both lines are the activation itself: no precision is lost, not even an ulp."""
    stable = [(-2.0, -1.0), (-3.0, 0.0), (0.0, 0.0), (0.0, 4.0), (1e-300, 5.0), (-1e-12, -1e-300), (2.0, 2.0)]
    lower, upper = torch.tensor(stable, dtype=torch.float64).unsqueeze(-1).unbind(1)
    relaxation = op.relax(lower, upper)
    assert not relaxation.unstable().any()
    lines = relaxation.lines_by(rule)
    assert torch.equal(lines.lower, lines.upper)
    assert lines.below is None
    assert not lines.above.any()


# --- several numbers -------------------------------------------------------------------------------------------------


def boxes(n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Windows of every kind: points, ties, one clear winner, no overlap, tiny and huge, of both signs."""
    values = (-1e30, -1e6, -2.0, -1.0, -1e-12, 0.0, 1e-300, 0.5, 1.0, 3.0, 1e6, 1e30)
    draw = random.Random(n)
    rows = [
        [(0.0, 0.0)] * n,
        [(-1.0, 1.0)] * n,
        [(float(i), i + 0.5) for i in range(n)],
        [(float(-i), 10.0) for i in range(n)],
        [(2.0, 2.0)] * (n - 1) + [(-5.0, 2.0)],
        [(2.0, 2.0)] * (n - 1) + [(1.0, 2.0 + 1e-12)],
    ]
    for _ in range(14):
        pairs = (sorted(draw.choices(values, k=2)) for _ in range(n))
        rows.append([(low, high) for low, high in pairs])
    rows += [[(c := draw.gauss(0, 1), c + draw.random()) for _ in range(n)] for _ in range(8)]
    both = torch.tensor(rows, dtype=dtype)
    return both[..., 0], both[..., 1]


def forms(n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Slopes `(queries, n)` and coefficients `(queries,)` of every sign, zero and of mixed size."""
    draw = random.Random(100 + n)
    sizes = (0.0, 0.0, 1.0, -1.0, 0.3, -0.3, 1e-9, 1e5, -1e5)
    rows = [[draw.choice(sizes) for _ in range(n + 1)] for _ in range(20)]
    for i in range(n):
        rows += [[sign * float(j == i) for j in range(n)] + [sign] for sign in (1.0, -1.0)]
    rows += [[1.0 / n] * n + [1.0], [1.0 / n] * n + [-1.0], [0.0] * n + [1.0], [0.0] * n + [-1.0]]
    table = torch.tensor(rows, dtype=dtype)
    return table[:, :n], table[:, n]


def box_points(lower: list[float], upper: list[float]) -> list[list[Number]]:
    """Corners, and points whose entries tie with one another's ends: where a maximum changes hands."""
    draw = random.Random(5)
    ends = [mpf(v) for v in (*lower, *upper)]
    grid = [sorted({v for v in ends if l <= v <= u}) for l, u in zip(lower, upper, strict=True)]
    corners = [list(c) for c in itertools.product(*zip(map(mpf, lower), map(mpf, upper), strict=True))]
    return draw.sample(corners, min(8, len(corners))) + [[draw.choice(column) for column in grid] for _ in range(8)]


def window_tolerance(
    entry: Windowed, dtype: torch.dtype, slope: list[float], coeff: float, lower: list[float], upper: list[float]
) -> Number:
    total = sum(abs(mpf(s)) * z for s, z in zip(slope, sizes(lower, upper), strict=True))
    return tolerance(dtype, 1.0, coeff, total, entry.height(sizes(lower, upper)))


def sizes(lower: list[float], upper: list[float]) -> list[Number]:
    return [mpf(max(abs(l), abs(u))) for l, u in zip(lower, upper, strict=True)]


def dot(slope: Sequence[Number], z: Sequence[Number]) -> Number:
    return sum((s * v for s, v in zip(slope, z, strict=True)), mpf(0))


def on_range(
    entry: Windowed, slope: list[float], coeff: float, dtype: torch.dtype, lower: list[float], upper: list[float]
) -> bool:
    """Whether no product overflows."""
    reach = sizes(lower, upper)
    total = sum(map(abs, slope)) * max(reach) + max(1, abs(coeff)) * max(*reach, entry.height(reach))
    return bool(total < torch.finfo(dtype).max / 4)


@windowed_in_both
def test_support_of_a_window_is_attained_on_the_graph(entry: Windowed, dtype: torch.dtype) -> None:
    """No point of the graph lies beyond the support, and the graph over the z returned attains it, if that is tight."""
    lower, upper = boxes(entry.size, dtype)
    slope, coeff = forms(entry.size, dtype)
    found = entry.relax(lower, upper).support(slope[None], coeff[None])
    assert found.value.shape == found.a.shape == (len(lower), len(slope))
    assert found.z.shape == (len(lower), len(slope), entry.size)
    values, places = found.value.tolist(), found.z.tolist()
    queries = [(s, c, [mpf(v) for v in s], mpf(c)) for s, c in zip(slope.tolist(), coeff.tolist(), strict=True)]
    for i, (l, u) in enumerate(zip(lower.tolist(), upper.tolist(), strict=True)):
        graph = [(z, entry.act(z)) for z in box_points(l, u)]
        for q, (s, c, row, factor) in enumerate(queries):
            if not on_range(entry, s, c, dtype, l, u):
                continue
            value, z, case = values[i][q], places[i][q], (l, u, s, c, values[i][q])
            assert math.isfinite(value), case
            tol = window_tolerance(entry, dtype, s, c, l, u)
            assert value >= max(dot(row, p) - factor * a for p, a in graph) - tol, case
            if entry.tight or c <= 0:
                assert all(a <= p <= b for a, p, b in zip(l, z, u, strict=True)), case
            if entry.tight:
                at = [mpf(v) for v in z]
                assert value <= dot(row, at) - factor * entry.act(at) + tol, case


def check_window_lines(entry: Windowed, lower: Tensor, upper: Tensor, lines: Lines) -> None:
    dtype = lower.dtype
    shape = lines.above.shape
    below = torch.zeros(shape, dtype=dtype) if lines.below is None else lines.below.expand(shape)
    low, high = (t.expand(*shape, entry.size).tolist() for t in (lines.lower, lines.upper))
    for i, (l, u) in enumerate(zip(lower.tolist(), upper.tolist(), strict=True)):
        graph = [(z, entry.act(z)) for z in box_points(l, u)]
        for q in range(shape[1]):
            pay, gain = float(below[i, q]), float(lines.above[i, q])
            if not all(on_range(entry, s[i][q], 1.0, dtype, l, u) for s in (low, high)):
                continue
            case = (l, u, low[i][q], pay, high[i][q], gain)
            assert math.isfinite(pay), case
            assert math.isfinite(gain), case
            lift, drop = (window_tolerance(entry, dtype, s[i][q], 1.0, l, u) for s in (low, high))
            under, over = ([mpf(v) for v in s[i][q]] for s in (low, high))
            least, most = lift + pay, drop + gain
            for z, a in graph:
                assert dot(under, z) <= a + least, case
                assert a <= dot(over, z) + most, case


@windowed_in_both
@every_rule
def test_lines_of_every_rule_enclose_the_graph_of_a_window(entry: Windowed, dtype: torch.dtype, rule: Rule) -> None:
    lower, upper = boxes(entry.size, dtype)
    check_window_lines(entry, lower, upper, entry.relax(lower, upper).lines_by(rule))


@windowed_in_both
def test_lines_with_any_slopes_enclose_the_graph_of_a_window(entry: Windowed, dtype: torch.dtype) -> None:
    lower, upper = boxes(entry.size, dtype)
    slope = forms(entry.size, dtype)[0][::5].repeat(len(lower), 1, 1)
    check_window_lines(entry, lower, upper, entry.relax(lower, upper).lines(slope, slope.flip(1)))


@windowed_in_both
def test_interval_of_a_window_contains_every_value(entry: Windowed, dtype: torch.dtype) -> None:
    lower, upper = boxes(entry.size, dtype)
    low, high = (t.tolist() for t in entry.relax(lower, upper).interval())
    for l, u, a, b in zip(lower.tolist(), upper.tolist(), low, high, strict=True):
        assert all(a <= entry.act(z) <= b for z in box_points(l, u)), (l, u, a, b)


@windowed
def test_a_batch_of_windows_is_its_members_one_by_one(entry: Windowed) -> None:
    lower, upper = boxes(entry.size, torch.float64)
    slope, coeff = forms(entry.size, torch.float64)
    together = entry.relax(lower, upper)
    found = together.support(slope[None], coeff[None]).value
    for i in range(len(lower)):
        alone = entry.relax(lower[i : i + 1], upper[i : i + 1])
        assert torch.equal(alone.support(slope[None], coeff[None]).value[0], found[i])
        for rule in Rule:
            ours, theirs = alone.lines_by(rule), together.lines_by(rule)
            assert torch.equal(ours.lower[0], theirs.lower[i])
            assert torch.equal(ours.upper[0], theirs.upper[i])
            assert torch.equal(ours.above[0], theirs.above[i])


@windowed
def test_windows_are_split_inside_the_intervals_of_members(entry: Windowed) -> None:
    """Those that can be; a piece is the same activation over what is left of one interval."""
    lower, upper = boxes(entry.size, torch.float64)
    relaxation = entry.relax(lower, upper)
    splits = relaxation.splits()
    if splits is None:
        assert isinstance(entry.op, Max | LogSumExp)
        return
    for point, gain in ((splits.at_lower, splits.lower), (splits.at_upper, splits.upper)):
        assert point.shape == gain.shape == lower.shape
        assert ((lower < point) & (point < upper))[gain > 0].all()
        assert (gain >= 0).all()
        for member in range(entry.size):
            below, above = upper.clone(), lower.clone()
            below[:, member] = above[:, member] = point[:, member]
            check_window_lines(entry, lower, below, entry.relax(lower, below).lines_by(Rule.ADAPTIVE))
            check_window_lines(entry, above, upper, entry.relax(above, upper).lines_by(Rule.ADAPTIVE))
    wide = relaxation.unstable().any(-1) & ((upper - lower).amin(-1) > 0.1) & (upper - lower < 1e6).all(-1)
    assert (splits.lower + splits.upper)[wide].sum(-1).gt(0).all()


def test_lines_of_a_product_are_its_facets() -> None:
    """Every facet meets the graph at three corners of the box, and all four are needed."""
    lower, upper = torch.tensor([[-1.0, 2.0]]).double(), torch.tensor([[3.0, 5.0]]).double()
    relaxation, slope = WINDOWED[-1].relax(lower, upper), torch.zeros(1, 0, 2).double()
    corners = torch.tensor(list(itertools.product((-1.0, 3.0), (2.0, 5.0)))).double()
    for is_lower, facet in relaxation.facets():
        lines = relaxation.lines(facet.unsqueeze(1), facet.unsqueeze(1))
        height = -lines.below if is_lower and lines.below is not None else lines.above
        met = (corners @ facet[0] + height[0, 0] - corners.prod(1)).abs() < 1e-12
        assert met.sum() == 3
        slope = torch.cat([slope, facet.unsqueeze(1)], 1)
    assert len(slope[0].unique(dim=0)) == 4


def test_a_product_with_nothing_known_of_an_operand() -> None:
    """Nothing is proven, and nothing is not a number; but where the form does not ask for it, it costs nothing."""
    lower = torch.tensor([[-torch.inf, 1.0], [0.0, -torch.inf], [0.0, -torch.inf]]).double()
    upper = torch.tensor([[torch.inf, 2.0], [0.0, torch.inf], [1.0, torch.inf]]).double()
    relaxation = WINDOWED[-1].relax(lower, upper)
    low, high = relaxation.interval()
    assert low.tolist() == [-torch.inf, 0.0, -torch.inf]
    assert high.tolist() == [torch.inf, 0.0, torch.inf]
    found = relaxation.support(torch.zeros(1, 2, 2).double(), torch.tensor([[0.0, 1.0]]).double())
    assert found.value[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert found.value[:, 1].tolist() == [torch.inf, 0.0, torch.inf]
    assert all(bool(t.isfinite().all()) for rule in Rule for t in relaxation.slopes(rule))
    assert not any(bool(t.isnan().any()) for t in relaxation.splits() or ())


def test_a_window_with_a_sure_winner_is_exact() -> None:
    """A member whose lower bound exceeds every other's upper bound is the maximum."""
    lower = torch.tensor([[0.0, 3.0, -1.0]], dtype=torch.float64)
    upper = torch.tensor([[2.5, 4.0, 3.0]], dtype=torch.float64)
    lines = WINDOWED[0].relax(lower, upper).lines_by(Rule.ADAPTIVE)
    assert torch.equal(lines.lower, lines.upper)
    assert lines.below is None or not lines.below.any()
    assert not lines.above.any()


# --- the table -------------------------------------------------------------------------------------------------------


def subclasses(cls: type[Activation]) -> Iterator[type[Activation]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def test_every_activation_has_a_relaxation_and_a_place_in_this_kit() -> None:
    """Adding an activation without a relaxation, or a relaxation without tests, fails here."""
    every: list[type] = list(subclasses(Activation))  # type: ignore[type-abstract]
    known = {cls for cls in every if cls.__module__.startswith("krelax.") and not isabstract(cls)}
    known.discard(Transformed)  # which no file can hold; it has tests of its own
    assert known == set(ACTIVATIONS.values())
    assert known == {type(op) for op in (*(e.op for e in ELEMENTWISE), *(w.op for w in WINDOWED))}


def test_every_relaxation_says_whether_it_reduces() -> None:
    one = torch.ones(1, 2)
    every: list[Elementwise | Windowed] = [*ELEMENTWISE, *WINDOWED]
    for entry in every:
        relaxation: Relaxation = entry.op.relax(-one, one)
        assert relaxation.reduces is isinstance(entry, Windowed)


@pytest.mark.parametrize("entry", [e for e in ELEMENTWISE if e.name in {"sigmoid", "tanh"}], ids=lambda e: e.name)
def test_library_functions_are_more_accurate_than_bounds_need(entry: Elementwise) -> None:
    """Nobody promises it. Bounds charge 64 units of rounding for values, and 32 for the ends of intervals."""
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(size=1500) * 10.0 ** rng.uniform(-20, 2.87, size=1500), np.linspace(-745, 745, 400)])
    computed = entry.op.forward(torch.from_numpy(z)).tolist()
    for at, value in zip(z.tolist(), computed, strict=True):
        exact = entry.act(mpf(at))
        assert abs(mpf(value) - exact) <= 4 * 2.0**-53 * abs(exact) + 2.0**-1022, (at, value)
