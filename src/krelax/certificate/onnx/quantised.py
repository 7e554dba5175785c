"""Quantised operators: rounding to a grid that saturates, and sums of products of whole numbers.

Whole numbers that depend on the input are values like others, of an element type of integers. What is proven of them is
about real arithmetic: float32 executions may round quotients to the other side of a jump.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from krelax.certificate.kernel.activations import RULES, Maximum, Quantise
from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.onnx.activations import activation, clipped, maximum, minimum
from krelax.certificate.onnx.affine import ROUNDED, add, computed, matrix, scaled
from krelax.certificate.onnx.constants import dequantised_constant
from krelax.certificate.onnx.convolution import CONVOLUTION, convolve, geometry
from krelax.certificate.onnx.operator import (
    Context,
    Tensor,
    Value,
    Wide,
    form,
    integer,
    normal_axes,
    numbers,
    only,
    reads,
)
from krelax.certificate.onnx.products import of_matrices, products, reciprocal
from krelax.certificate.onnx.tensors import Shape
from krelax.errors import InputError, UnsupportedError

_SINGLE, _BYTE = np.dtype(np.float32), np.dtype(np.uint8)
_KINDS = {np.dtype(k) for k in (np.int8, np.uint8, np.int16, np.uint16)}
_INT32 = np.dtype(np.int32)


def _parameter(c: Context, place: int, shape: Shape, *kinds: np.dtype[Any]) -> Floats | None:
    """A scale or a zero point as it broadcasts: one, or one for each entry of an axis."""
    given = c.constant(place, *kinds)
    if given is None:
        return None
    number = given.astype(np.float64)
    if given.size == 1 and given.ndim < 2:
        return number.reshape(())
    (axis,) = normal_axes([1 if c.get("axis") is None else c.get("axis")], len(shape), True)
    if given.shape != (shape[axis],):
        raise InputError(f"scales of shape {list(given.shape)} for a tensor of shape {list(shape)}")
    return number.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def _positive(scale: Floats | None) -> Floats:
    if scale is None or not (scale > 0).all():
        raise InputError("a grid whose scale is missing, or not positive")
    return scale


@reads("QuantizeLinear", forms=[
    form(10, 2, 3),
    form(13, 2, 3, axis=integer(1)),
    form(19, 2, 3, axis=integer(1), saturate=only(1)),
    form(21, 2, 3, axis=integer(1), saturate=only(1), block_size=only(0), output_dtype=only(0)),
    form(23, 2, 3, axis=integer(1), saturate=only(1), block_size=only(0), output_dtype=only(0), precision=only(0)),
])  # fmt: skip
def _quantised(c: Context) -> Tensor:
    x, point = c.operand(0), c.operands[2] if len(c.operands) > 2 else None
    kind = np.dtype(np.uint8) if point is None else c.operand(2).dtype
    if kind not in _KINDS or x.dtype != _SINGLE:
        raise UnsupportedError(f"numbers of type {x.dtype} on a grid of type {kind}")
    scale, zero = _positive(_parameter(c, 1, x.shape, _SINGLE)), _parameter(c, 2, x.shape, kind)
    zero = np.zeros(()) if zero is None else zero
    if not isinstance(x, Value):
        return _on_grid(x.astype(np.float64), scale, zero, kind)
    return _rounded(c, x, scale, zero, kind)


def _on_grid(x: Floats, scale: Floats, zero: Floats, kind: np.dtype[Any]) -> Tensor:
    """Constants on a grid, none of them as near to two of its numbers as a quotient rounds."""
    quotient = x / scale
    if (np.rint(quotient * (1 - 2.0**-50)) != np.rint(quotient * (1 + 2.0**-50))).any():
        raise UnsupportedError("a constant halfway between two numbers of its grid; round it when exporting")
    limits = np.iinfo(kind)
    return np.clip(np.rint(quotient) + zero, limits.min, limits.max).astype(kind)


def _rounded(c: Context, x: Value, scale: Floats, zero: Floats, kind: np.dtype[Any], fuzz: float = ROUNDED) -> Value:
    """`min(max(round(x / scale) + zero, low), high)`: all but the first of the zeros is added before, which must leave
    odd numbers odd."""
    first = float(zero.reshape(-1)[0])
    if ((zero - first) % 2).any():
        raise UnsupportedError("zero points that differ by odd numbers")
    shift = zero - first if (zero != first).any() else None
    limits = np.iinfo(kind)
    largest = float(np.max(np.abs(scale)))
    z = scaled(c, x, computed(1 / scale), shift, fuzz=fuzz, made_of=largest)
    y = activation(c, z, Quantise(float(limits.min) - first, float(limits.max) - first), z.shape)
    y = scaled(c, y, 1.0, first) if first else y
    c.builder.only_real()
    return Value(y.node, y.shape, kind)


@reads("DequantizeLinear", forms=[
    form(10, 2, 3),
    form(13, 2, 3, axis=integer(1)),
    form(21, 2, 3, axis=integer(1), block_size=only(0)),
    form(23, 2, 3, axis=integer(1), block_size=only(0), output_dtype=only(0)),
])  # fmt: skip
def _dequantised(c: Context) -> Tensor | Wide:
    x = c.operand(0)
    if not isinstance(x, Value):
        return dequantised_constant(c)
    if x.dtype not in _KINDS | {_INT32}:
        raise UnsupportedError(f"whole numbers of type {x.dtype}")
    scale, zero = _positive(_parameter(c, 1, x.shape, _SINGLE)), _parameter(c, 2, x.shape, x.dtype)
    whole = scaled(c, x, 1.0, -zero) if zero is not None and zero.any() else x
    y = scaled(c, whole, scale)
    return Value(y.node, y.shape, _SINGLE)


@reads("DynamicQuantizeLinear", forms=[form(11, 1, 1, 3)])
def _on_own_grid(c: Context) -> list[Tensor]:
    """On the grid of uint8 from the least entry to the largest, and zero: numbers, scale and zero point."""
    x = c.value()
    flat = c.moved(numbers(x.shape).reshape(-1), x)
    count, zero = prod(x.shape), np.zeros(())
    low = scaled(c, activation(c, scaled(c, flat, -1.0), Maximum(count), ()), -1.0) if count > 1 else flat
    low = minimum(c, Value(low.node, (), x.dtype), zero)
    high = activation(c, flat, Maximum(count), ()) if count > 1 else flat
    high = maximum(c, Value(high.node, (), x.dtype), zero)
    c.builder.only_real()
    scale = scaled(c, add(c, high, low, -1), computed(1 / 255), fuzz=ROUNDED, made_of=255.0)
    steps = reciprocal(c, scale)
    start = scaled(c, products(c, low, steps), -1.0)
    point = activation(c, start, Quantise(0.0, 255.0), ())
    steps_of = products(c, x, steps)
    whole = add(c, activation(c, steps_of, RULES["Round"](), x.shape), point, 1)
    found = clipped(c, whole, 0.0, 255.0)
    return [Value(found.node, x.shape, _BYTE), scale, Value(point.node, (), _BYTE)]


def _less(c: Context, place: int, zero: int, each: str = "") -> Value | Floats:
    """Whole numbers less their zero point: one, or one for each of the last axis ("columns") or the first ("rows")."""
    x = c.operand(place)
    if x.dtype not in _KINDS:
        raise UnsupportedError(f"whole numbers of type {x.dtype}")
    if zero < len(c.operands) and isinstance(c.operands[zero], Value):
        point_of = c.value(zero)
        mine = Value(x.node, x.shape, point_of.dtype) if isinstance(x, Value) else x.astype(np.float64)
        return add(c, mine, point_of, -1)
    given = c.constant(zero, x.dtype)
    point = np.zeros(()) if given is None else given.astype(np.float64)
    point = point.reshape(()) if point.shape == (1,) else point
    if point.ndim and (point.ndim > 1 or not each or point.size != x.shape[-1 if each == "columns" else 0]):
        raise UnsupportedError(f"zero points of shape {list(point.shape)} for a tensor of shape {list(x.shape)}")
    if each == "rows" and point.ndim:
        point = point.reshape(-1, *[1] * (len(x.shape) - 1))
    if isinstance(x, Value):
        return scaled(c, x, 1.0, -point) if point.any() else x
    return x.astype(np.float64) - point


def _check_room(terms: int, besides: float = 0.0) -> None:
    if (terms << 16) + besides >= 1 << 31:
        raise UnsupportedError(f"sums of {terms} products, which int32 may not hold")


def _convolved(c: Context, place: int, zeros: tuple[int, int], bias: Any) -> Value:
    x, weight, groups = _less(c, 0, zeros[0]), _less(c, place, zeros[1], "rows"), c.get("group")
    if not isinstance(x, Value) or isinstance(weight, Value) or weight.ndim < 3 or len(x.shape) != weight.ndim:
        raise UnsupportedError("a convolution of other than an image and a constant kernel")
    if c.get("kernel_shape") not in (None, list(weight.shape[2:])) or groups < 1 or weight.shape[0] % groups:
        raise InputError(f"{groups} groups and kernel_shape {c.get('kernel_shape')} for {list(weight.shape)}")
    _check_room(prod(weight.shape[1:]), 0.0 if bias is None else float(abs(bias).max(initial=0.0)))
    kernel = weight.reshape(groups, -1, *weight.shape[1:])
    windows = [table for table, _, _ in geometry(c, kernel.shape[3:], x.shape)]
    return convolve(c, x, windows, kernel, bias)


@reads("ConvInteger", forms=[form(10, 2, 4, **CONVOLUTION)])
def _conv_integer(c: Context) -> Tensor:
    y = _convolved(c, 1, (2, 3), None)
    return Value(y.node, y.shape, _INT32)


def _multiplied(c: Context, a: Value | Floats, b: Value | Floats) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        _check_room(a.shape[-1])
        same = Value(b.node, b.shape, a.dtype)
        return of_matrices(c, a, same)
    if not isinstance(a, Value) or isinstance(b, Value) or b.ndim != 2:
        raise UnsupportedError("a product of other than a value and a constant matrix")
    _check_room(b.shape[0])
    return matrix(c, a, b)


@reads("MatMulInteger", forms=[form(10, 2, 4)])
def _matmul_integer(c: Context) -> Tensor:
    y = _multiplied(c, _less(c, 0, 2), _less(c, 1, 3, "columns"))
    return Value(y.node, y.shape, _INT32)


def _scales(c: Context, *places: int) -> list[Floats]:
    found = [c.constant(place, _SINGLE) for place in places]
    if any(s is None or s.ndim > 1 or not (s > 0).all() for s in found):
        raise InputError("scales that are missing, or not positive")
    return [s.astype(np.float64).reshape(() if s.size == 1 else -1) for s in found if s is not None]


def _rescaled(c: Context, total: Value, scales: list[Floats], zero: int, first: bool) -> Tensor:
    """Sums times the scales of both factors, on the grid of the result. Scales belong to the channels, which are the
    `first` axis behind that of images, or the last."""
    a, b, y = scales
    if a.ndim or y.ndim:
        raise UnsupportedError("scales for each channel of an activation")
    step = y / (a * b)
    step = step.reshape(-1, *[1] * (len(total.shape) - 2)) if first and step.ndim else step
    kind = c.operand(zero).dtype
    point = c.constant(zero, kind)
    if kind not in _KINDS or point is None or point.size != 1:
        raise UnsupportedError(f"a result on a grid of type {kind}")
    return _rounded(c, total, step, point.astype(np.float64).reshape(()), kind, 4 * ROUNDED)


@reads("QLinearConv", forms=[form(10, 8, 9, **CONVOLUTION)])
def _qlinear_conv(c: Context) -> Tensor:
    bias = c.constant(8, _INT32)
    total = _convolved(c, 3, (2, 5), None if bias is None else bias.astype(np.float64))
    return _rescaled(c, total, _scales(c, 1, 4, 6), 7, True)


@reads("QLinearMatMul", forms=[form(10, 8), form(21, 8)])
def _qlinear_matmul(c: Context) -> Tensor:
    total = _multiplied(c, _less(c, 0, 2), _less(c, 3, 5, "columns"))
    return _rescaled(c, total, _scales(c, 1, 4, 6), 7, False)
