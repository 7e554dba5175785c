"""The face of an upper envelope that lies above a point: the best affine bound of a height there."""

from __future__ import annotations

import numpy as np

from krelax.hull._gauge import cheapest
from krelax.hull.polytope import Array

_PIVOTS = 1000


def upper_envelope(z: Array, height: Array, at: Array) -> tuple[Array, float]:
    """The plane `slope . z + offset` over points `z`, `(n, k)`, of the given heights, `(n,)`, that is lowest at `at`.

    A proposal: rounding may leave it a little below some point. `at`, `(k,)`, lies in the hull of z; where it does on
    the edge of several faces, one of them is returned.
    """
    centre, size = z.mean(0), np.ptp(z, axis=0)
    size = np.where(size > 0, size, 1.0)
    top, spread = height.max(), np.ptp(height) or 1.0
    columns = np.ascontiguousarray(np.vstack([((z - centre) / size).T, np.ones(len(z))]))
    w = np.zeros(len(columns))
    cheapest(columns, (top - height) / spread, np.append((at - centre) / size, 1.0), _PIVOTS, w)
    slope: Array = -spread * w[:-1] / size
    return slope, float(top - spread * w[-1] - slope @ centre)
