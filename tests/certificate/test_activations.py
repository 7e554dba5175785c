"""Prices of neurons against a search of their interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.certificate.values import ACTIVATIONS

from krelax.certificate.errors import Rejected
from krelax.certificate.kernel.activations import LeakyReLU, Maximum, Product, ReLU, Rule, Sigmoid, Tanh
from krelax.certificate.kernel.activations.steps import Floor, Jumping, Shrink, Sign, Step, Threshold
from krelax.certificate.kernel.arithmetic import Exact, Fixed, Float64

RULES_TRIED = {"relu": ReLU(), "leaky": LeakyReLU(0.125), "sigmoid": Sigmoid(), "tanh": Tanh()}


def ends(rng: Any, count: int) -> tuple[Any, Any]:
    middle, radius = rng.normal(0, 3, (count, 1)), rng.exponential(2, (count, 1)) * (rng.random((count, 1)) < 0.95)
    return middle - radius, middle + radius


@pytest.mark.parametrize("rule", RULES_TRIED.values(), ids=RULES_TRIED.keys())
@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_the_price_is_the_support_function(rule: Rule, ar: Any) -> None:
    rng = np.random.default_rng(1)
    lower, upper = ends(rng, 500)
    coeff, slope = rng.normal(0, 1, (500, 1)), rng.normal(0, 0.3, (500, 1))
    price = ar.floats(rule.price(ar, ar.number(coeff), ar.number(slope), (lower, upper)))
    z = lower + (upper - lower) * np.append(np.linspace(0, 1, 4000), 0)
    z[:, -1:] = np.clip(0, lower, upper)
    searched = (slope * z - coeff * ACTIVATIONS[type(rule)](rule, z)).max(1)
    assert (price[:, 0] >= searched - 1e-12).all()
    assert np.allclose(price[:, 0], searched, atol=1e-5)


def shrunk(x: Any) -> Fixed:
    """Numbers so small that the floats near them are zero."""
    exact = Fixed.of(x)
    return Fixed(exact.ints, exact.exponent - 1200)


@pytest.mark.parametrize("rule", RULES_TRIED.values(), ids=RULES_TRIED.keys())
def test_the_price_of_coefficients_that_no_float_tells_from_zero(rule: Rule) -> None:
    rng = np.random.default_rng(5)
    lower, upper = ends(rng, 500)
    coeff, slope = rng.normal(0, 1, (500, 1)), rng.normal(0, 0.3, (500, 1))
    with np.errstate(all="ignore"):  # as the checker does
        price = rule.price(Exact(), shrunk(coeff), shrunk(slope), (lower, upper))
    z = lower + (upper - lower) * np.linspace(0, 1, 400)
    searched = (slope * z - coeff * ACTIVATIONS[type(rule)](rule, z)).max(1)
    assert (Exact().floats(Fixed(price.ints, price.exponent + 1200))[:, 0] >= searched - 1e-12).all()


@pytest.mark.parametrize("rule", RULES_TRIED.values(), ids=RULES_TRIED.keys())
def test_adaptive_slopes_do_not_cost_more_than_none(rule: Rule) -> None:
    rng = np.random.default_rng(2)
    lower, upper = ends(rng, 500)
    coeff = rng.normal(0, 1, (500, 1))
    below, above = rule.lines((lower, upper), parallel=False)
    slope = np.where(coeff > 0, below, above) * coeff
    low, high = rule.interval((lower, upper), False)
    price = rule.price(Float64(), coeff, slope, (lower, upper))
    # the bound in the middle of the interval
    assert ((slope * (lower + upper) / 2 - price) >= np.minimum(coeff * low, coeff * high) - 1e-9).all()


def window(rng: np.random.Generator) -> tuple[Any, Any]:
    """Intervals of three members, `(1, 3)`."""
    lower = rng.normal(0, 1, (1, 3))
    return lower, lower + rng.exponential(1, (1, 3))


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_the_price_of_a_window_is_no_less_than_what_is_found(ar: Any) -> None:
    rng = np.random.default_rng(3)
    rule = Maximum(3)
    for _ in range(100):
        lower, upper = window(rng)
        coeff = rng.normal(0, 1, (1, 1))
        behind = rule.behind(ar.number(coeff))
        below, above = rule.lines((lower, upper), parallel=False)
        chosen = np.where(coeff > 0, below, above) * ar.floats(behind)
        for slope in (rng.normal(0, 1, (1, 3)), chosen):
            price = ar.floats(rule.price(ar, behind, ar.number(slope), (lower, upper))).sum()
            z = lower + (upper - lower) * np.round(rng.random((500, 3)) * 4) / 4
            assert price >= (z @ slope[0] - coeff[0, 0] * z.max(1)).max() - 1e-12


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_a_mixture_of_members_costs_nothing(ar: Any) -> None:
    """The maximum is at least any mixture of its members, wherever they are; and no less than what is found."""
    rng = np.random.default_rng(4)
    rule = Maximum(3)
    for _ in range(100):
        lower, upper = window(rng)
        coeff = rng.exponential(1, (1, 1))
        slope = coeff * rng.dirichlet(np.ones(3))[None]
        behind = rule.behind(ar.number(coeff))
        price = ar.floats(rule.price(ar, behind, ar.number(slope), (lower, upper))).sum()
        z = lower + (upper - lower) * np.round(rng.random((500, 3)) * 4) / 4
        assert (z @ slope[0] - coeff[0, 0] * z.max(1)).max() - 1e-12 <= price <= 1e-12


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_the_price_of_a_product_is_attained_at_a_corner(ar: Any) -> None:
    rng = np.random.default_rng(5)
    lower, upper = (end.reshape(-1, 4) for end in ends(rng, 400))  # two products in a row
    coeff, rule = rng.normal(0, 1, (100, 2)), Product()
    behind = rule.behind(ar.number(coeff))
    lines = [rule.lines((lower, upper), parallel) for parallel in (False, True)]
    chosen = [np.where(ar.floats(behind) > 0, *both) * ar.floats(behind) for both in lines]
    share = rng.integers(0, 5, (200, 1, 4)) / 4
    share[:4] = np.array([[a, b, a, b] for a in (0, 1) for b in (0, 1)])[:, None]
    z = (lower + share * (upper - lower)).clip(lower, upper)
    for slope in (rng.normal(0, 1, (100, 4)), *chosen):
        price = ar.floats(rule.price(ar, behind, ar.number(slope), (lower, upper)))
        searched = (slope * z).reshape(200, 100, 2, 2).sum(3) - coeff * z[..., 0::2] * z[..., 1::2]
        assert (price >= searched.max(0) - 1e-12 * (1 + abs(price))).all()
        assert np.allclose(price, searched.max(0))
    low, high = rule.interval((lower, upper), False)
    values = z[..., 0::2] * z[..., 1::2]
    assert (low <= values).all()
    assert (values <= high).all()
    for below, above in lines:  # neither kind of lines is worse than what intervals say
        middle = (lower + upper) / 2
        for slope, sign in ((below, 1.0), (above, -1.0)):
            one = np.full((100, 4), sign)
            bound = (slope * sign * middle).reshape(100, 2, 2).sum(2) - rule.price(
                Float64(), one, sign * slope, (lower, upper)
            )
            assert (bound >= np.where(sign > 0, low, -high) - 1e-9).all()


def test_a_product_that_float32_may_not_hold_is_rejected() -> None:
    ends = np.array([[1.0, 1.0]]), np.array([[2.0**80, 2.0**60]])
    assert Product().interval(ends, False)[1][0, 0] >= 2.0**140
    with pytest.raises(Rejected, match="may overflow"):
        Product().interval(ends, True)


def test_the_sign_of_a_product_is_known_however_small_it_is() -> None:
    tiny = np.array([[1e-300, 1e-300]]), np.array([[2e-300, 3e-300]])
    assert (Product().interval(tiny, False)[0] >= 0).all()
    none = np.array([[0.0, -np.inf]]), np.array([[1.0, np.inf]])
    with np.errstate(all="ignore"):
        assert [end.item() for end in Product().interval(none, False)] == [-np.inf, np.inf]


def test_products_with_a_slope_that_underflow_are_charged() -> None:
    """What coefficients are multiplied with is at least so large that a unit of rounding of it is more than is lost."""
    rule, z = LeakyReLU(0.3), np.array([[-5 * 2.0**-1074]])
    coeff, ends = np.array([[-(2.0**300)]]), (z, z)
    price = Float64().floats(rule.price(Float64(), coeff, np.zeros((1, 1)), ends))
    exact = Exact()
    true = exact.floats(rule.price(exact, exact.number(coeff), exact.number(np.zeros((1, 1))), ends))
    assert price.item() != true.item()
    assert abs(price - true).item() <= 2.0**-53 * (abs(coeff) * rule.reach(ends)).item()


@pytest.mark.parametrize(
    "rule", [Floor(), Sign(), Step(), Threshold(0.5, -1.0), Shrink(0.5, 0.25)], ids=lambda r: r.name
)
@pytest.mark.parametrize("parallel", [False, True])
def test_lines_of_what_jumps_are_parallel_to_its_chord(rule: Jumping, parallel: bool) -> None:
    """Where it is not known, and over a point, they are level."""
    ends = np.array([[-2.25, 0.0, -1.0, -np.inf]]), np.array([[1.75, 0.75, -1.0, 3.0]])
    lower, upper = rule.lines(ends, parallel)
    rise = [sum(rule.act(np.array(end))) for end in ((1.75, 0.75), (-2.25, 0.0))]
    chords = (rise[0] - rise[1]) / np.array([4.0, 0.75])
    np.testing.assert_allclose(lower, [[chords[0], chords[1], 0.0, 0.0]], rtol=1e-12)
    assert (lower == upper).all()
    z = np.linspace(-2.25, 1.75, 101)[:, None]
    one = np.ones((1, 1))
    price = rule.price(Float64(), one, lower[:, :1], (ends[0][:, :1], ends[1][:, :1])).item()
    assert price >= (lower[0, 0] * z - sum(rule.act(z))).max()
