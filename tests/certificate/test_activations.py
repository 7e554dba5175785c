"""Prices of neurons against a search of their interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.certificate.values import ACTIVATIONS

from krelax.certificate.kernel.activations import LeakyReLU, Maximum, ReLU, Rule, Sigmoid, Tanh
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
