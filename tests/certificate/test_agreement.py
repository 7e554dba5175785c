"""Both arithmetics of the checker come to the same: no choice is left to numbers that round."""

from __future__ import annotations

import numpy as np
from tests.certificate.proofs import certificate, model
from tests.exact import Layer as Dense

from krelax.certificate.check import check
from krelax.certificate.format import Claim, Crossing, Layer, Question, Region

# y = relu(z) - relu(z) for z = 0.1 relu(x0) + 0.2 relu(x1), whose lower bound is 0, or hardly below it
TWICE = [
    Dense([[1, 0], [0, 1]], [0, 0]),
    Dense([[0.1, 0.2], [0.1, 0.2]], [0, 0]),
    Dense([[-1, 1]], [0], None),
]


def twice() -> Question:
    """y > -0.1, by a split of the first z: on its inactive side the second one is bounded by zero."""
    lines = np.array([[[1, 1]], [[0, 0]]], np.float32)  # of the second z, in either leaf
    crossing = Crossing(1, np.array([0, 1], np.int32), np.array([1], np.int32), lines=lines)
    claim = Claim(np.array([2, -1, -1], np.int32), np.zeros(2, np.float32), [crossing])
    region = Region("box", np.full(2, -1.0), np.full(2, 1.0))
    layers = [Layer("interval"), Layer("interval")]
    return Question(region, np.ones((1, 1)), np.array([0.1]), np.zeros(1, np.int32), layers, claim)


def test_sides_of_splits_decide_slopes_where_an_interval_touches_zero() -> None:
    data = model(TWICE)
    made = certificate(data, twice())
    margins = [check(made, data, exact)[0] for exact in (False, True)]
    np.testing.assert_allclose(margins, 0.1, rtol=1e-12)
    assert margins[0] <= margins[1]
