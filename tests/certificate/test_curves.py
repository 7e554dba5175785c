"""The checker's rules of functions of one number: prices are support functions, ranges contain every value."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from tests.activations.kit import ELEMENTWISE, Elementwise, mpf
from tests.certificate.test_activations import shrunk

from krelax.certificate.errors import TooLarge
from krelax.certificate.kernel.activations import (
    ELU,
    GELU,
    RULES,
    Power,
    Quantise,
    Rule,
    Shrink,
    SiLU,
    Square,
    Step,
    TanhGELU,
    Threshold,
)
from krelax.certificate.kernel.activations.curve import Curve
from krelax.certificate.kernel.activations.exponential import Exp, Share
from krelax.certificate.kernel.arithmetic import Exact, Fixed, Float64

KIT = {entry.name: entry for entry in ELEMENTWISE}
HYPERBOLIC = ("Sinh", "Cosh", "Tan", "Asin", "Acosh", "Atanh")
BOUNDED = {"asin", "acosh", "atanh"}  # domains without all of 0.5 to 1.5
PLAIN = ("Exp", "Log", "Softplus", "Sqrt", "Reciprocal", "Erf", "Atan", "Softsign", "Mish", "Sin", "Cos", *HYPERBOLIC)
# By the names of the kit.
OURS: dict[str, Rule] = {
    **{name.lower(): RULES[name]() for name in (*PLAIN, "Floor", "Ceil", "Round", "Sign")},
    **{f"power-{p:g}": Power(p) for p in (3.0, 4.0, -3.0, -2.0, 1.5, 0.3, -0.7)},
    "hard-swish": RULES["HardSwish"](),
    "square": Square(),
    "share": Share(),
    "silu": SiLU(),
    "gelu": GELU(),
    "gelu-tanh": TanhGELU(),
    "gelu-tanh-0.797885": TanhGELU(0.7978845834732056, 0.044714998453855515),
    "gelu-tanh-0.7925": TanhGELU(0.7925, 0.04503),
    "elu-2-1": ELU(2.0, 1.05, 1.0),
    "elu-0.5-1": ELU(0.5, 1.0, 1.0),
    "elu-1.5-1.5": ELU(1.5, 1.0, 1.5),
    "threshold": Threshold(0.25, 0.125),
    "quantise": Quantise(-2.0, 3.0),
    "step": Step(),
    "step-1": Step(1.0),
    "shrink-hard": Shrink(0.5),
    "shrink-soft": Shrink(0.5, 0.5),
}


def intervals(entry: Elementwise, rows: int) -> tuple[Any, Any]:
    """Random intervals of every width on which it is defined, points among them, and some that end at a jump."""
    rng = np.random.default_rng(2)
    lower = rng.normal(0, 3, 8 * rows)
    upper = lower + rng.exponential(2, 8 * rows) * rng.choice([0.0, 1e-9, 0.1, 1.0, 5.0], 8 * rows)
    lower[::7] = np.round(2 * lower[::7]) / 2
    upper = np.maximum(upper, lower)
    good = list(islice((i for i in range(len(lower)) if entry.takes(lower[i], upper[i], torch.float64)), rows))
    return lower[good, None], upper[good, None]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_prices_are_support_functions(name: str, ar: Any) -> None:
    """Never below what a search of the interval finds, but for rounding, and hardly above it."""
    entry, rule, rng = KIT[name], OURS[name], np.random.default_rng(1)
    lower, upper = intervals(entry, 100)
    coeff, slope = rng.normal(0, 1, lower.shape), rng.normal(0, 0.5, lower.shape)
    coeff[:10], slope[10:20] = 0.0, 0.0
    slope[20:40] = coeff[20:40]
    with np.errstate(all="ignore"):  # as checks do
        price = ar.floats(rule.price(ar, ar.number(coeff), ar.number(slope), (lower, upper)))
    share = (1 - np.cos(np.linspace(0, np.pi, 2001))) / 2
    z = np.clip(lower + (upper - lower) * share, lower, upper)
    with np.errstate(all="ignore"):
        act = entry.op.forward(torch.from_numpy(z)).numpy()
    values = slope * z - coeff * act
    size = np.abs(slope * z).max(1) + np.abs(coeff * act).max(1)
    assert (price[:, 0] >= values.max(1) - 1e-15 * size).all()
    step = np.abs(np.diff(values, axis=1)).max(1)
    assert (price[:, 0] <= values.max(1) + step + 1e-12 * (1 + size)).all() or entry.jumps


@pytest.mark.parametrize("name", OURS)
def test_ranges_contain_every_value(name: str) -> None:
    """To 60 digits, without tolerance; and coefficients are not multiplied with more than they reach."""
    entry, rule = KIT[name], OURS[name]
    ends = intervals(entry, 60)
    with np.errstate(all="ignore"):
        low, high = rule.interval(ends, False)
        reach = rule.reach(ends)
    for l, u, a, b, most in zip(*(t[:, 0].tolist() for t in (*ends, low, high, reach)), strict=True):
        inner = [z for z in entry.stationary(0.0, 1.0) if l <= z <= u]
        for z in (mpf(l), mpf(u), (mpf(l) + mpf(u)) / 2, *inner):
            assert a <= entry.act(z) <= b, (l, u, float(z))
            assert abs(entry.act(z)) <= most


@pytest.mark.parametrize(
    "name", [n for n in OURS if (not KIT[n].total or n in {"exp", "sin", "floor", "gelu"}) and n not in BOUNDED]
)
def test_there_is_no_price_where_nothing_is_known(name: str) -> None:
    """Of intervals that are not bounded, or not in the domain: unless nothing is asked of them."""
    rule = OURS[name]
    ends = np.array([[-1.0, -math.inf, 0.5]]), np.array([[2.0, 1.0, 1.5]])
    coeff, slope = np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]), np.array([[0.1, 0.1, 0.1], [0.0, 0.0, 0.1]])
    with np.errstate(all="ignore"):
        low, high = rule.interval(ends, False)
        price = rule.price(Float64(), coeff, slope, ends)
        assert not np.isnan(low).any()
        assert not np.isnan(high).any()
        assert price[0, 1] == np.inf
        assert np.isfinite(price[0, 2])
        assert (price[1, :2] == 0).all() or KIT[name].total
        if not KIT[name].total:
            assert (low[0, 0], high[0, 0], price[0, 0]) == (-np.inf, np.inf, np.inf)
        with pytest.raises(TooLarge):
            rule.price(Exact(), Exact().number(coeff), Exact().number(slope), ends)


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_values_that_no_float_tells_from_zero_are_charged(ar: Any) -> None:
    """The exponential of the upper end is rounded to zero, and no margin may come of that."""
    lower, upper = np.array([[-760.0]]), np.array([[-745.2]])
    assert np.exp(upper) == 0
    with np.errstate(all="ignore"):  # as checks do
        price = RULES["Exp"]().price(ar, ar.number(-np.ones((1, 1))), ar.number(np.zeros((1, 1))), (lower, upper))
    assert mpf(float(ar.floats(price).item())) >= mpmath.exp(mpf(upper.item()))


@pytest.mark.parametrize("name", OURS)
def test_prices_of_coefficients_that_no_float_tells_from_zero(name: str) -> None:
    entry, rule, rng = KIT[name], OURS[name], np.random.default_rng(6)
    lower, upper = intervals(entry, 80)
    coeff, slope = rng.normal(0, 1, lower.shape), rng.normal(0, 0.4, lower.shape)
    with np.errstate(all="ignore"):  # as checks do
        price = rule.price(Exact(), shrunk(coeff), shrunk(slope), (lower, upper))
    z = lower + (upper - lower) * np.linspace(0, 1, 400)
    z = np.clip(z, lower, upper)
    with np.errstate(all="ignore"):
        values = slope * z - coeff * entry.op.forward(torch.from_numpy(z)).numpy()
    size = np.abs(slope * z).max(1) + np.abs(values).max(1)
    found = Exact().floats(Fixed(price.ints, price.exponent + 1200))
    assert (found[:, 0] >= values.max(1) - 1e-12 * (1 + size)).all()


def test_curves_that_do_not_know_where_they_have_a_slope_are_searched() -> None:
    """The price is what it is where that is known, and never less than what is found."""

    class Searched(Exp):
        def stationary(self, slope: Any, piece: int) -> Any:
            return Curve.stationary(self, slope, piece)

    ends, slope, coeff = (np.array([[-1.0, -3.0]]), np.array([[2.0, 0.5]])), np.array([[2.5, 0.25]]), np.ones((1, 2))
    found, known = (rule.price(Float64(), coeff, slope, ends) for rule in (Searched(), Exp()))
    np.testing.assert_allclose(found, known, rtol=1e-12)
    z = np.linspace(*ends, 1001)
    assert (found >= (slope * z - np.exp(z)).max(0)).all()
