"""The checker's rule of the logarithm of a sum of exponentials, against dense sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.certificate.test_activations import shrunk

from krelax.certificate.kernel.activations.log_sum_exp import LogSumExp
from krelax.certificate.kernel.arithmetic import Exact, Fixed, Float64

ARITHMETICS = pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
WIDTHS = (0.0, 1e-6, 0.3, 3.0, 50.0, 2e6)


def boxes(rng: np.random.Generator, members: int) -> tuple[Any, Any]:
    """Boxes of every width, and of several in a window, `(60, members)`."""
    width = np.stack([rng.choice(WIDTHS, members) for _ in range(60)]) * rng.random((60, members))
    lower = rng.normal(0, 3, (60, members)) - width / 2
    return lower, lower + width


def values(z: Any) -> Any:
    return np.logaddexp.reduce(z, axis=-1)


def points(rng: np.random.Generator, lower: Any, upper: Any) -> Any:
    """Corners, and points near them and inside, `(300, rows, members)`."""
    share = np.round(rng.random((300, *lower.shape)) * 4) / 4
    share[150:] = share[150:].round()
    return (lower + share * (upper - lower)).clip(lower, upper)


@ARITHMETICS
@pytest.mark.parametrize("members", [1, 2, 5])
def test_the_price_is_no_less_than_what_is_found(ar: Any, members: int) -> None:
    rng = np.random.default_rng(members)
    rule, (lower, upper) = LogSumExp(members), boxes(rng, members)
    coeff = rng.normal(0, 1, (60, 1)) * (rng.random((60, 1)) < 0.9)
    behind, z = rule.behind(ar.number(coeff)), points(rng, lower, upper)
    chosen = [np.where(coeff > 0, *rule.lines((lower, upper), parallel)) * coeff for parallel in (False, True)]
    for slope in (rng.normal(0, 1, (60, members)), 0 * lower, 1e9 * rng.normal(0, 1, (60, members)), *chosen):
        with np.errstate(all="ignore"):  # as the checker does
            price = ar.floats(rule.price(ar, behind, ar.number(slope), (lower, upper)))[:, 0]
        searched = ((slope * z).sum(2) - coeff[:, 0] * values(z)).max(0)
        size = 1 + (abs(slope) * np.maximum(abs(lower), abs(upper))).sum(1)
        assert np.isfinite(price).all()
        assert (price >= searched - 1e-13 * size).all()


def test_the_price_of_coefficients_that_no_float_tells_from_zero() -> None:
    rng = np.random.default_rng(5)
    rule, (lower, upper) = LogSumExp(3), boxes(rng, 3)
    coeff, slope = rng.normal(0, 1, (60, 1)), rng.normal(0, 0.3, (60, 3))
    with np.errstate(all="ignore"):
        price = rule.price(Exact(), rule.behind(shrunk(coeff)), shrunk(slope), (lower, upper))
    z = points(rng, lower, upper)
    searched = ((slope * z).sum(2) - coeff[:, 0] * values(z)).max(0)
    found = Exact().floats(Fixed(price.ints, price.exponent + 1200))[:, 0]
    assert (found >= searched - 1e-12 * (1 + abs(searched))).all()


def test_tangent_planes_and_chords_are_close() -> None:
    """In the middle of a small box both lines lose about the square of its width."""
    rule, middle = LogSumExp(4), np.array([[0.3, -1.0, 2.0, 0.0]])
    ends = middle - 0.05, middle + 0.05
    for coeff, slope in zip((1.0, -1.0), rule.lines(ends, parallel=False), strict=True):
        behind = rule.behind(np.array([[coeff]]))
        price = rule.price(Float64(), behind, coeff * slope, ends)[0, 0]
        gap = price - ((coeff * slope * middle).sum() - coeff * values(middle)[0])
        assert 0 <= gap <= 0.1**2


@pytest.mark.parametrize("members", [1, 2, 5])
def test_the_interval_contains_every_value(members: int) -> None:
    rng = np.random.default_rng(9)
    rule, (lower, upper) = LogSumExp(members), boxes(rng, members)
    low, high = rule.interval((lower, upper), False)
    found = values(points(rng, lower, upper))
    assert (low[:, 0] <= found.min(0)).all()
    assert (high[:, 0] >= found.max(0)).all()


def test_nothing_is_known_of_a_window_without_bounds() -> None:
    rule, ends = LogSumExp(2), (np.array([[-np.inf, 0.0]]), np.array([[1.0, 1.0]]))
    assert [end.item() for end in rule.interval(ends, False)] == [-np.inf, np.inf]
    with np.errstate(all="ignore"):
        asked = rule.price(Float64(), np.array([[1.0, 1.0]]), np.zeros((1, 2)), ends)
        nothing = rule.price(Float64(), np.zeros((1, 2)), np.zeros((1, 2)), ends)
    assert (asked.item(), nothing.item()) == (np.inf, 0.0)
