"""Batches of small polytopes in the space of k pre-activations, all with the same rows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def octahedral_rows(k: int) -> Array:
    """All a in {-1, 0, 1}^k except 0, in lexicographic order: `(3**k - 1, k)`.

    The rows of k-ReLU (Singh et al., Beyond the Single Neuron Convex Barrier, 2019, section 4).
    """
    rows = [row for row in itertools.product((-1.0, 0.0, 1.0), repeat=k) if any(row)]
    return np.array(rows).reshape(-1, k)


def pair_rows(k: int) -> Array:
    """The octahedral rows with one or two nonzeros: `(2 * k * k, k)`, in the same order."""
    rows = octahedral_rows(k)
    return rows[np.count_nonzero(rows, axis=1) <= 2]


@dataclass(frozen=True, eq=False)
class Polytope:
    """The polytopes {z : rows @ z <= bounds[g]} of G groups of k neurons.

    `rows` is `(m, k)`, shared by all groups, and contains the 2k unit rows e_i and -e_i, so every polytope lies in a
    box; `bounds` is `(G, m)`. Both are float64 and C-contiguous, converted if need be. A polytope may be empty, flat
    or a point. Rows other than the unit rows may have infinite bounds.

    Raises ValueError where shapes disagree, a row is not finite, or a unit row is missing.
    """

    rows: Array
    bounds: Array

    def __post_init__(self) -> None:
        """Bring both arrays to contiguous float64, and check what the class promises."""
        object.__setattr__(self, "rows", np.ascontiguousarray(self.rows, dtype=np.float64))
        object.__setattr__(self, "bounds", np.ascontiguousarray(self.bounds, dtype=np.float64))
        if self.rows.ndim != 2 or self.bounds.ndim != 2 or self.bounds.shape[1] != len(self.rows):
            shapes = f"{self.rows.shape} and {self.bounds.shape}"
            raise ValueError(f"rows and bounds of a polytope are (m, k) and (G, m), not {shapes}")
        if not np.isfinite(self.rows).all():
            raise ValueError("the rows of a polytope must be finite")
        self.units  # noqa: B018  (a missing unit row is an error here, not at its first use)

    @property
    def k(self) -> int:
        """Number of neurons in a group."""
        return self.rows.shape[1]

    @property
    def groups(self) -> int:
        """Number of groups G."""
        return len(self.bounds)

    @cached_property
    def units(self) -> Indices:
        """Where the unit rows are: `(2, k)`, the index of -e_i in `[0, i]` and of e_i in `[1, i]`."""
        where = {tuple(row): j for j, row in reversed(list(enumerate(self.rows.tolist())))}
        signed = np.stack([-np.eye(self.k), np.eye(self.k)])
        try:
            found = [[where[tuple(row)] for row in side] for side in signed.tolist()]
        except KeyError as missing:
            raise ValueError(f"the rows of a polytope must contain every unit row; {missing} is missing") from None
        return np.array(found, dtype=np.int64).reshape(2, self.k)

    @property
    def lower(self) -> Array:
        """Lower bounds of every pre-activation, from the unit rows: `(G, k)`."""
        lower: Array = -self.bounds[:, self.units[0]]
        return lower

    @property
    def upper(self) -> Array:
        """Upper bounds of every pre-activation, from the unit rows: `(G, k)`."""
        upper: Array = self.bounds[:, self.units[1]]
        return upper

    def select(self, index: NDArray[np.bool_] | Indices | slice) -> Polytope:
        """Some of the groups: `index` is anything that indexes the first axis of `bounds` and keeps it."""
        return Polytope(self.rows, self.bounds[index])
