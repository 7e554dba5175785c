"""Resizing an axis: which entries an entry of the result is made of, and with what weights, in exact numbers.

Positions are those of the ONNX operators Resize and Upsample and of PyTorch's `interpolate`. They are fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.errors import UnsupportedError
from krelax.network.constants import UNIT, Constant

HALF = Fraction(1, 2)
# How near to the border between two entries a position may be that is not on it. Runtimes compute positions in float32.
_NEAR = Fraction(1, 1 << 12)
Positions = list[Fraction]


@dataclass(frozen=True)
class Axis:
    """An axis of `before` entries that becomes one of `after` entries, which are `scale` times as dense."""

    before: int
    after: int
    scale: Fraction


def half_pixel(axis: Axis) -> Positions:
    """The centres of pixels are at one half."""
    return [(i + HALF) / axis.scale - HALF for i in range(axis.after)]


def asymmetric(axis: Axis) -> Positions:
    """The first entries lie on one another."""
    return [i / axis.scale for i in range(axis.after)]


def align_corners(axis: Axis) -> Positions:
    """The first entries lie on one another, and so do the last ones."""
    return [Fraction(i * (axis.before - 1), max(axis.after - 1, 1)) for i in range(axis.after)]


def pytorch_half_pixel(axis: Axis) -> Positions:
    """As `half_pixel`, but a single entry is the first one."""
    return half_pixel(axis) if axis.after > 1 else [Fraction(0)]


def half_pixel_symmetric(axis: Axis) -> Positions:
    """As `half_pixel`, with the middle of both axes on one another."""
    adjusted = axis.after / (axis.scale * axis.before)
    return [p + Fraction(axis.before, 2) * (1 - adjusted) for p in half_pixel(axis)]


def tf_half_pixel_for_nn(axis: Axis) -> Positions:
    """The centres of new pixels, in units of old ones."""
    return [(i + HALF) / axis.scale for i in range(axis.after)]


POSITIONS: dict[str, Callable[[Axis], Positions]] = {
    f.__name__: f
    for f in (half_pixel, asymmetric, align_corners, pytorch_half_pixel, half_pixel_symmetric, tf_half_pixel_for_nn)
}
# How positions between two entries are rounded, and what part of the way between them the border is.
_ROUNDED: dict[str, tuple[Callable[[Fraction], int], Fraction]] = {
    "floor": (floor, Fraction(0)),
    "ceil": (ceil, Fraction(0)),
    "round_prefer_floor": (lambda p: ceil(p - HALF), HALF),
    "round_prefer_ceil": (lambda p: floor(p + HALF), HALF),
}
ROUNDINGS = frozenset(_ROUNDED)


def nearest(axis: Axis, positions: Positions, rounding: str) -> NDArray[np.int64]:
    """The entry nearest to each position. Raises UnsupportedError where rounding in float32 decides which that is."""
    choose, border = _ROUNDED[rounding]
    plain = Fraction(float(np.float32(float(axis.scale)))) == axis.scale
    for p in positions:
        away = abs((p - border) - round(p - border))
        if away < _NEAR and (away or not plain) and -1 < p < axis.before:
            raise UnsupportedError(
                f"resizing {axis.before} entries to {axis.after}, where rounding decides which is nearest; "
                "export it with scales that are powers of two, or with mode linear"
            )
    return np.array([min(max(choose(p), 0), axis.before - 1) for p in positions], np.int64)


def linear(axis: Axis, positions: Positions) -> Constant:
    """The matrix `(after, before)` of linear interpolation; beyond the ends it is constant."""
    return _matrix(axis, [[(floor(p), 1 - (p - floor(p))), (floor(p) + 1, p - floor(p))] for p in positions])


def cubic(axis: Axis, positions: Positions, a: Fraction, inside_only: bool = False) -> Constant:
    """The matrix of interpolation by cubic convolution with the parameter `a`; beyond the ends entries are repeated,
    or, with `inside_only`, left out."""

    def weight(distance: Fraction) -> Fraction:
        d = abs(distance)
        if d <= 1:
            return ((a + 2) * d - (a + 3)) * d * d + 1
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    rows = []
    for p in positions:
        row = [(k, weight(p - k)) for k in range(floor(p) - 1, floor(p) + 3)]
        if inside_only:
            row = [(k, w) for k, w in row if 0 <= k < axis.before]
            total = sum(w for _, w in row)
            if not total:
                raise UnsupportedError("a cubic interpolation whose weights cancel")
            row = [(k, w / total) for k, w in row]
        rows.append(row)
    return _matrix(axis, rows)


def _matrix(axis: Axis, rows: Sequence[Sequence[tuple[int, Fraction]]]) -> Constant:
    """A matrix of sums of weights, whose places beyond the ends are those at the ends."""
    value, error = np.zeros((2, len(rows), axis.before))
    for i, row in enumerate(rows):
        exact: dict[int, Fraction] = {}
        for place, w in row:
            inside = min(max(place, 0), axis.before - 1)
            exact[inside] = exact.get(inside, Fraction(0)) + w
        for place, w in exact.items():
            value[i, place] = float(w)
            error[i, place] = 0.0 if Fraction(value[i, place]) == w else abs(value[i, place]) * 2 * UNIT
    return Constant(torch.from_numpy(value), torch.from_numpy(error) if error.any() else None)
