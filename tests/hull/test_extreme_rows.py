"""For tests/hull/test_support.py."""

import numpy as np
from tests.hull.oracles import exact

from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Polytope
from krelax.hull.support import support


def test_a_basis_that_overflows_loses_no_piece():
    """Rows so unequal in size that a multiplier is infinite: it proves nothing, and its piece still counts."""
    rows = np.concatenate([np.eye(3), -np.eye(3), [[-2e125, 0.0, -1e125], [2e26, -1e26, -2e26]]])
    bounds = np.array([0.55, 0.28, 0.21, 0.25, 0.77, 0.58, 4.6e124, 6.6e25])
    slope, coeff, pieces = np.array([0.43, 0.76, -1.34]), np.array([0.34, -0.6, 1.06]), Pieces.relu(3)
    found = support(Polytope(rows, bounds[None]), pieces, slope[None, None], coeff[None, None]).value[0, 0]
    assert found >= exact.support(rows, bounds, pieces.rows, pieces.maps, slope, coeff)
