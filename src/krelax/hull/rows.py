"""Linear inequalities over the pre- and post-activations of groups of neurons, for linear programs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from krelax.hull.polytope import Array


@dataclass(frozen=True, eq=False)
class Rows:
    """Inequalities z.x + a.y <= offset over pre-activations x and post-activations y, r for each group.

    `z` is `(G, r, k)`, `a` `(G, r, m)`, `offset` `(G, r)`, and `valid` `(G, r)` says which of them are there: the rest
    is padding and must be ignored.
    """

    z: Array
    a: Array
    offset: Array
    valid: NDArray[np.bool_]


def violation(rows: Rows, z: Array, a: Array) -> Array:
    """z.x + a.y - offset at the points x `(G, k)` and y `(G, m)`: `(G, r)`, -inf for padding."""
    excess = np.einsum("grk,gk->gr", rows.z, z) + np.einsum("grm,gm->gr", rows.a, a) - rows.offset
    return np.where(rows.valid, excess, -np.inf)
