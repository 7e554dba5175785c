"""Prices of neurons against a search of their interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.certificate.values import ACTIVATIONS

from krelax.certificate.activations import KINDS
from krelax.certificate.arithmetic import Exact, Float64
from krelax.certificate.network import Activation

NODES = {
    "relu": Activation((0,), "relu", 1),
    "leaky": Activation((0,), "relu", 1, 0.125),
    "sigmoid": Activation((0,), "sigmoid", 1),
    "tanh": Activation((0,), "tanh", 1),
}


def ends(rng: Any, count: int) -> tuple[Any, Any]:
    middle, radius = rng.normal(0, 3, (count, 1)), rng.exponential(2, (count, 1)) * (rng.random((count, 1)) < 0.95)
    return middle - radius, middle + radius


@pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())
@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_the_price_is_the_support_function(node: Activation, ar: Any) -> None:
    rng = np.random.default_rng(1)
    lower, upper = ends(rng, 500)
    coeff, slope = rng.normal(0, 1, (500, 1)), rng.normal(0, 0.3, (500, 1))
    price = ar.floats(KINDS[node.kind].price(ar, node, ar.number(coeff), ar.number(slope), (lower, upper)))
    z = lower + (upper - lower) * np.append(np.linspace(0, 1, 4000), 0)
    z[:, -1:] = np.clip(0, lower, upper)
    searched = (slope * z - coeff * ACTIVATIONS[node.kind](node, z)).max(1)
    assert (price[:, 0] >= searched - 1e-12).all()
    assert np.allclose(price[:, 0], searched, atol=1e-5)


@pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())
def test_adaptive_slopes_do_not_cost_more_than_none(node: Activation) -> None:
    rng = np.random.default_rng(2)
    lower, upper = ends(rng, 500)
    coeff, kind = rng.normal(0, 1, (500, 1)), KINDS[node.kind]
    slope = kind.slopes(node, coeff, (lower, upper), "adaptive", None, None, slice(None))
    low, high = kind.interval(node, (lower, upper), False)
    price = kind.price(Float64(), node, coeff, slope, (lower, upper))
    # the bound in the middle of the interval
    assert ((slope * (lower + upper) / 2 - price) >= np.minimum(coeff * low, coeff * high) - 1e-9).all()


def window(rng: np.random.Generator) -> tuple[Any, Any]:
    """Intervals of three members, `(1, 3)`."""
    lower = rng.normal(0, 1, (1, 3))
    return lower, lower + rng.exponential(1, (1, 3))


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_the_price_of_a_window_is_no_less_than_what_is_found(ar: Any) -> None:
    rng = np.random.default_rng(3)
    node, kind = Activation((0,), "max", 1, window=3), KINDS["max"]
    for _ in range(100):
        lower, upper = window(rng)
        coeff = rng.normal(0, 1, (1, 1))
        behind = kind.behind(ar, node, ar.number(coeff))
        for slope in (
            rng.normal(0, 1, (1, 3)),
            kind.slopes(node, ar.floats(behind), (lower, upper), "adaptive", None, None, slice(None)),
        ):
            price = ar.floats(kind.price(ar, node, behind, ar.number(slope), (lower, upper))).sum()
            z = lower + (upper - lower) * np.round(rng.random((500, 3)) * 4) / 4
            assert price >= (z @ slope[0] - coeff[0, 0] * z.max(1)).max() - 1e-12


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_a_mixture_of_members_costs_nothing(ar: Any) -> None:
    """The maximum is at least any mixture of its members, wherever they are; and no less than what is found."""
    rng = np.random.default_rng(4)
    node, kind = Activation((0,), "max", 1, window=3), KINDS["max"]
    for _ in range(100):
        lower, upper = window(rng)
        coeff = rng.exponential(1, (1, 1))
        slope = coeff * rng.dirichlet(np.ones(3))[None]
        behind = kind.behind(ar, node, ar.number(coeff))
        price = ar.floats(kind.price(ar, node, behind, ar.number(slope), (lower, upper))).sum()
        z = lower + (upper - lower) * np.round(rng.random((500, 3)) * 4) / 4
        assert (z @ slope[0] - coeff[0, 0] * z.max(1)).max() - 1e-12 <= price <= 1e-12
