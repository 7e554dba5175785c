"""The checker's linear maps are matrices, in both arithmetics."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from krelax.certificate.kernel.arithmetic import Arithmetic, Exact, Float64
from krelax.certificate.kernel.linear import Dense, Map, Pick

PICKS = {
    "all, in order": [0, 1, 2, 3],
    "each twice": [0, 0, 1, 1, 2, 2, 3, 3],
    "each three times, in turns": [0, 1, 2, 3, 0, 1, 2, 3, 3, 2, 1, 0],
    "another order": [2, 0, 3, 1],
    "not all, and some more often": [2, 0, 2, 2, 3],
    "zeros in between": [0, -1, 1, 2, -1, 3],
    "zeros, and not all": [-1, 3, 3, -1],
    "zeros alone": [-1, -1],
}


def same(m: Map, matrix: NDArray[np.float64], ar: Arithmetic) -> None:
    """A map says what its matrix says, leaves what it is given as it was, and so does its adjoint."""
    rng = np.random.default_rng(0)
    for function, by in ((m.forward, matrix.T), (m.adjoint, matrix)):
        x = rng.integers(-9, 9, (3, len(by))).astype(np.float64)
        given = ar.number(x.copy())
        result = function(ar, given)
        np.testing.assert_array_equal(ar.floats(result), x @ by)
        np.testing.assert_array_equal(ar.floats(given), x)


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("index", PICKS.values(), ids=list(PICKS))
def test_picks(index: list[int], ar: Arithmetic) -> None:
    matrix = (np.array(index)[:, None] == np.arange(4)).astype(np.float64)
    same(Pick(np.array(index), 4), matrix, ar)


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("images", [1, 3])
def test_matrices_for_several_images(images: int, ar: Arithmetic) -> None:
    weight = np.random.default_rng(1).integers(-9, 9, (2, 5)).astype(np.float64)
    same(Dense(ar.number(weight[None, None]), images), np.kron(np.eye(images), weight), ar)
