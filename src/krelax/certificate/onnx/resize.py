"""Resize and Upsample: an entry of the result is one entry, or a weighted sum of some, along each axis.

Positions and weights are exact. An execution in float32 computes them otherwise, so nothing is said of it.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor, prod
from typing import Any

import numpy as np

from krelax.certificate.kernel.linear import Dense
from krelax.certificate.onnx.affine import ROUNDED, computed
from krelax.certificate.onnx.operator import (
    FLAG,
    FLOATS,
    INTS,
    Context,
    Tensor,
    Value,
    check_size,
    form,
    normal_axes,
    numbers,
    only,
    reads,
    real,
    text,
)
from krelax.errors import InputError, UnsupportedError

_HALF = Fraction(1, 2)
# A position so near to where another entry is nearest is refused: float32 may be on the other side.
_NEAR = Fraction(1, 4096)
_PLACES = text("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "tf_half_pixel_for_nn")
_MORE_PLACES = text("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
_ROUND = text("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_MODE, _OLD_MODE = text("nearest", "linear", "cubic"), text("nearest", "linear")
_SHAPE = {"mode": _MODE, "nearest_mode": _ROUND, "cubic_coeff_a": real(-0.75), "exclude_outside": FLAG,
          "extrapolation_value": real(0)}  # fmt: skip
_AXES = {"axes": INTS, "antialias": only(0), "keep_aspect_ratio_policy": text("stretch")}


@reads("Upsample", forms=[form(7, 1, mode=_OLD_MODE, scales=FLOATS), form(9, 2, mode=_OLD_MODE)])
def _upsample(c: Context) -> Tensor:
    given = c.get("scales")
    scales = _scales(c, 1) if c.version >= 9 else None if given is None else [Fraction(float(s)) for s in given]
    return _resized(c, scales, None)


@reads("Resize", forms=[
    form(10, 2, mode=_OLD_MODE),
    form(11, 3, 4, **_SHAPE, coordinate_transformation_mode=_PLACES),
    form(13, 1, 4, **_SHAPE, coordinate_transformation_mode=_PLACES),
    form(18, 1, 4, **_SHAPE, **_AXES, coordinate_transformation_mode=_PLACES),
    form(19, 1, 4, **_SHAPE, **_AXES, coordinate_transformation_mode=_MORE_PLACES),
])  # fmt: skip
def _resize(c: Context) -> Tensor:
    if c.version < 11:
        return _resized(c, _scales(c, 1), None)
    sizes = c.integers("", 3)
    return _resized(c, _scales(c, 2), sizes or None)


def _scales(c: Context, place: int) -> list[Fraction] | None:
    given = c.constant(place, np.dtype(np.float32))
    if given is not None and given.ndim != 1:
        raise InputError(f"scales of shape {list(given.shape)}")
    return None if given is None or not given.size else [Fraction(float(s)) for s in given]


def _resized(c: Context, scales: list[Fraction] | None, sizes: list[int] | None) -> Value:
    x = c.value()
    rank, given = len(x.shape), c.get("axes")
    axes = list(range(rank)) if given is None else normal_axes(given, rank, True)
    if (scales is None) == (sizes is None) or len(scales or sizes or []) != len(axes):
        raise InputError(f"scales and sizes that do not fit {len(axes)} axes")
    for i, axis in enumerate(axes):
        n = x.shape[axis]
        scale = scales[i] if scales is not None else Fraction((sizes or [])[i], n)
        size = floor(n * scale) if scales is not None else (sizes or [])[i]
        if scale <= 0 or size < 1:
            raise InputError(f"an axis of {n} entries times {float(scale):g}")
        check_size((*x.shape[:axis], size, *x.shape[axis + 1 :]))
        if n != size or scale != 1:
            x = _axis(c, x, axis, size, scale)
    return x


def _axis(c: Context, x: Value, axis: int, size: int, scale: Fraction) -> Value:
    """One axis in another size."""
    n, mode = x.shape[axis], c.get("mode")
    places = [_place(c, i, n, size, scale) for i in range(size)]
    if mode == "nearest":
        return c.moved(numbers(x.shape).take([_nearest(c, p, n, size, scale) for p in places], axis), x)
    check_size((n, size))
    weight = np.zeros((size, n))
    for i, p in enumerate(places):
        exact: dict[int, Fraction] = {}
        for k, w in _linear(p) if mode == "linear" else _cubic(c, p, n):
            inside = min(max(k, 0), n - 1)
            exact[inside] = exact.get(inside, Fraction(0)) + w
        for k, w in exact.items():
            weight[i, k] = float(w)
    c.builder.only_real()
    return _times(c, x, axis, computed(weight, weight == 0))


def _times(c: Context, x: Value, axis: int, weight: Any) -> Value:
    """Products with a matrix along an axis."""
    lines = c.moved(np.moveaxis(numbers(x.shape), axis, -1), x)
    dense = Dense(np.ascontiguousarray(weight)[None, None], prod(lines.shape[:-1]))
    y = c.affine([lines], [dense], (*lines.shape[:-1], len(weight)), fuzz=ROUNDED)
    return c.moved(np.moveaxis(numbers(y.shape), -1, axis), y)


def _place(c: Context, i: int, n: int, size: int, scale: Fraction) -> Fraction:
    """Where entry i of the result lies among n entries."""
    mode = c.get("coordinate_transformation_mode") or "asymmetric"
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        return Fraction(i * (n - 1), size - 1) if size > 1 else Fraction(0)
    if mode == "tf_half_pixel_for_nn":
        return (i + _HALF) / scale
    if mode == "pytorch_half_pixel" and size == 1:
        return Fraction(0)
    centre = (i + _HALF) / scale - _HALF
    if mode == "half_pixel_symmetric":
        centre += (n - size / scale) / 2
    return centre


def _nearest(c: Context, p: Fraction, n: int, size: int, scale: Fraction) -> int:
    """The entry nearest to a position. What rounding of the position decides is refused."""
    mode = c.get("nearest_mode")
    if mode is None and size < n and p != floor(p):
        raise UnsupportedError("a smaller image before version 11 of the operator set, which readers take differently")
    half = (mode or "floor").startswith("round")
    twice = 2 * p if half else p
    border = floor(twice + _HALF)
    is_border = abs(twice - border) < (2 if half else 1) * _NEAR and (not half or border % 2 == 1)
    plain = Fraction(np.float32(scale).item()) == scale
    if is_border and (twice != border or not plain) and -1 < p < n:
        raise UnsupportedError(f"resizing {n} entries to {size}, where rounding decides which is nearest")
    low = floor(p)
    rest = p - low
    up = {"floor": False, "ceil": rest > 0, "round_prefer_floor": rest > _HALF, "round_prefer_ceil": rest >= _HALF}
    return min(max(low + up[mode or "floor"], 0), n - 1)


def _linear(p: Fraction) -> list[tuple[int, Fraction]]:
    low = floor(p)
    return [(low, 1 + low - p), (low + 1, p - low)]


def _cubic(c: Context, p: Fraction, n: int) -> list[tuple[int, Fraction]]:
    a, low = Fraction(float(c.get("cubic_coeff_a"))), floor(p)
    t = p - low
    weights = [
        a * t * (1 - t * (2 - t)),
        t * t * ((a + 2) * t - (a + 3)) + 1,
        t * (-a + t * (2 * a + 3 - (a + 2) * t)),
        a * t * t * (1 - t),
    ]
    taps = list(zip(range(low - 1, low + 3), weights, strict=True))
    if not c.get("exclude_outside"):
        return taps
    taps = [(k, w) for k, w in taps if 0 <= k < n]
    total = sum(w for _, w in taps)
    if not total:
        raise UnsupportedError("a cubic interpolation whose weights cancel")
    return [(k, w / total) for k, w in taps]
