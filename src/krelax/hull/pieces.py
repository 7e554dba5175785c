"""Piecewise-linear activations of a group of k neurons, as the cones on which they are linear."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from krelax.hull.polytope import Array


@dataclass(frozen=True, eq=False)
class Pieces:
    """A continuous function a(z) from R^k to R^m that is linear on each of p cones.

    On piece i = {z : rows[i] @ z <= 0} it is a = maps[i] @ z. `rows` is `(p, c, k)`, padded with zero rows, `maps` is
    `(p, m, k)`. The pieces cover R^k. Raises ValueError where shapes disagree or a number is not finite.
    """

    rows: Array
    maps: Array

    def __post_init__(self) -> None:
        """Bring both arrays to contiguous float64, and check their shapes."""
        object.__setattr__(self, "rows", np.ascontiguousarray(self.rows, dtype=np.float64))
        object.__setattr__(self, "maps", np.ascontiguousarray(self.maps, dtype=np.float64))
        rows, maps = self.rows.shape, self.maps.shape
        if len(rows) != 3 or len(maps) != 3 or rows[0] != maps[0] or rows[2] != maps[2] or rows[0] == 0:
            raise ValueError(f"rows and maps of pieces are (p, c, k) and (p, m, k), not {rows} and {maps}")
        if not (np.isfinite(self.rows).all() and np.isfinite(self.maps).all()):
            raise ValueError("the rows and maps of pieces must be finite")

    @property
    def count(self) -> int:
        """Number of pieces p."""
        return len(self.maps)

    @property
    def k(self) -> int:
        """Number of pre-activations."""
        return self.maps.shape[2]

    @property
    def outputs(self) -> int:
        """Number of post-activations m."""
        return self.maps.shape[1]

    def evaluate(self, z: Array) -> Array:
        """a(z) at points `(..., k)`: `(..., m)`. A point that rounding puts in no piece takes the nearest."""
        outside = np.einsum("pck,...k->...pc", self.rows, z).max(-1, initial=0.0)
        maps = self.maps[outside.argmin(-1)]
        a: Array = np.einsum("...mk,...k->...m", maps, z)
        return a

    @staticmethod
    def relu(k: int) -> Pieces:
        """a_i = max(z_i, 0): the 2^k orthants, all inactive first, all active last."""
        return Pieces.coordinatewise([0.0] * k, [1.0] * k)

    @staticmethod
    def coordinatewise(negative_slopes: Sequence[float], positive_slopes: Sequence[float]) -> Pieces:
        """a_i = negative_slopes[i] z_i for z_i <= 0, positive_slopes[i] z_i for z_i >= 0.

        ReLU is (0, 1), leaky ReLU (s, 1), the absolute value (-1, 1). A coordinate with equal slopes, such as a
        pass-through (1, 1), adds no split: there are 2^(number of kinked coordinates) pieces.
        """
        slopes = np.stack([np.asarray(negative_slopes, float), np.asarray(positive_slopes, float)])
        kinked = np.flatnonzero(slopes[0] != slopes[1])
        k = slopes.shape[1]
        sides = np.array(list(itertools.product((0, 1), repeat=len(kinked))), dtype=np.int64).reshape(-1, len(kinked))
        chosen = np.zeros((len(sides), k), dtype=np.int64)
        chosen[:, kinked] = sides
        signs = 1.0 - 2.0 * sides  # z_i <= 0 on side 0, -z_i <= 0 on side 1
        return Pieces(signs[:, :, None] * np.eye(k)[kinked], slopes[chosen, np.arange(k)][:, :, None] * np.eye(k))

    @staticmethod
    def maximum(k: int) -> Pieces:
        """a = max_i z_i, a pool over k neurons with one output: piece i is where z_i is the largest."""
        unit = np.eye(k)
        rows = [np.delete(unit, i, axis=0) - unit[i] for i in range(k)]
        return Pieces(np.stack(rows), unit[:, None, :])
