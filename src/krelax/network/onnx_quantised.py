"""Quantised operators of ONNX: they join `READERS` and `FOLDS`.

Whole numbers that depend on the input are nodes like others, whose values are whole numbers. Only operators that keep
them exactly take them: those here, and those that move entries. Sums of products in int32 do not overflow, because they
are refused where they could.
"""

from __future__ import annotations

from math import prod

import torch

from krelax.activations import Quantise, Round
from krelax.errors import InputError, UnsupportedError
from krelax.network import compose, products
from krelax.network import onnx_geometry as geometry
from krelax.network.compose import Operand
from krelax.network.composites import reciprocal
from krelax.network.constants import Constant
from krelax.network.contractions import reduce_max
from krelax.network.onnx_constants import folds
from krelax.network.onnx_moves import MOVES
from krelax.network.onnx_operators import reads
from krelax.network.onnx_reader import Kind, Literal, Reader
from krelax.network.onnx_schema import kind_name
from krelax.network.products import multiply
from krelax.network.quantised import dequantise, on_grid, quantise

LIMITS: dict[int, tuple[int, int]] = {
    Kind.INT8: (-(2**7), 2**7 - 1),
    Kind.UINT8: (0, 2**8 - 1),
    Kind.INT16: (-(2**15), 2**15 - 1),
    Kind.UINT16: (0, 2**16 - 1),
    Kind.INT32: (-(2**31), 2**31 - 1),
}
# Operators that keep whole numbers as they are.
KEEPING = {
    *MOVES, "Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze",
    "Transpose", "Unsqueeze", "Cast", "CastLike", "ArgMax", "ArgMin", "TopK",
}  # fmt: skip
QUANTISED = {"DynamicQuantizeLinear", "QuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}


# Element types of whole numbers that depend on the input.
WHOLE = {*LIMITS, Kind.INT64, Kind.UINT32, Kind.UINT64}


def said_kind(r: Reader) -> int:
    """Element type of a result that none of the operands gives."""
    default = {"QuantizeLinear": Kind.UINT8, "DequantizeLinear": Kind.FLOAT}.get(r.node.op_type, Kind.UNDEFINED)
    return int(r.attribute("to") or r.attribute("output_dtype") or default)


def _limits(kind: int) -> tuple[int, int]:
    if kind not in LIMITS or kind == Kind.INT32:
        raise UnsupportedError(f"quantisation to {kind_name(kind)}; use int8, uint8, int16 or uint16")
    return LIMITS[kind]


def _zero_of(r: Reader, position: int) -> tuple[Constant, int | None]:
    """A zero point, 0 if it is left out, and its type."""
    literal = r.literal(position)
    if literal is None:
        return Constant.of(0.0), None
    return whole_numbers(literal), literal.kind


def whole_numbers(literal: Literal) -> Constant:
    """Integers as a constant of real arithmetic. Raises InputError for those beyond 2**53."""
    numbers = literal.integers
    if literal.kind == Kind.UINT64 and numbers.size and int(numbers.max()) > 2**53:
        raise InputError("a constant holds an integer that float64 does not")
    return Constant.of(torch.from_numpy(numbers.astype("int64")))


def _along(r: Reader, parameter: Constant, shape: tuple[int, ...], axis: int | None) -> Constant:
    """A parameter for each entry of an axis, or one for all, as it broadcasts."""
    if parameter.shape in {(), (1,)}:
        return parameter.reshape()
    place = r.axis(1 if axis is None else axis, len(shape))
    if parameter.shape != (shape[place],):
        raise InputError(f"scales of shape {list(parameter.shape)} for an axis of {shape[place]} entries")
    return parameter.reshape(*(-1 if i == place else 1 for i in range(len(shape))))


def _grid(r: Reader, kind_of_none: int) -> tuple[Constant, Constant, tuple[int, int]]:
    """The scale, zero point and limits of a QuantizeLinear."""
    if r.attribute("block_size"):
        raise UnsupportedError("scales for blocks of an axis; export with one scale for a channel")
    zero, kind = _zero_of(r, 2)
    given = r.attribute("output_dtype") or kind_of_none
    limits = _limits(given if kind is None else kind)
    shape, axis = r.shape(), r.attribute("axis")
    return _along(r, r.weight(1), shape, axis), _along(r, zero, shape, axis), limits


@reads("QuantizeLinear")
def _quantise(r: Reader) -> int:
    return quantise(r.builder, r.value(), *_grid(r, Kind.UINT8))


@folds("QuantizeLinear")
def _quantised(r: Reader) -> Literal:
    scale, zero, limits = _grid(r, Kind.UINT8)
    numbers = on_grid(r.weight(0), scale, zero, limits).value.numpy()
    kind = r.given(2).kind if r.has(2) else r.attribute("output_dtype") or Kind.UINT8
    return Literal.whole(numbers.astype("int64"), kind)


@reads("DequantizeLinear")
def _dequantise(r: Reader) -> int:
    if r.attribute("block_size"):
        raise UnsupportedError("scales for blocks of an axis; export with one scale for a channel")
    shape, axis = r.shape(), r.attribute("axis")
    zero, _ = _zero_of(r, 2)
    return dequantise(r.builder, r.value(), _along(r, r.weight(1), shape, axis), _along(r, zero, shape, axis))


@reads("DynamicQuantizeLinear")
def _quantise_to_range(r: Reader) -> list[int | None]:
    """On the grid of uint8 from the least entry to the largest, and zero: numbers, scale and zero point."""
    build, x = r.builder, r.value()
    axes, zero = range(len(r.shape())), Constant.of(0.0)
    low = compose.minimum(build, reduce_max(build, x, axes, False, -1), zero)
    high = compose.maximum(build, reduce_max(build, x, axes, False), zero)
    scale = compose.scale_shift(build, compose.add(build, high, low, -1), Constant.of(255.0).reciprocal(), None)
    steps = reciprocal(build, scale)
    point = build.add(Quantise(0.0, 255.0), compose.negate(build, multiply(build, low, steps)))
    whole = compose.add(build, build.add(Round(), multiply(build, x, steps)), point)
    return [compose.clip(build, whole, 0.0, 255.0), scale, point]


def _less(r: Reader, position: int, zero: int, columns: bool = False, kernel: bool = False) -> Operand:
    """A quantised operand less its zero point: of the second factor of a product one for each column, too,
    or for each channel of a kernel."""
    if r.has(zero) and not r.is_constant(zero):
        return compose.add(r.builder, _whole_of(r, position), r.value(zero), -1)
    point, _ = _zero_of(r, zero)
    if point.shape not in {(), (1,)} and not (columns or kernel):
        raise UnsupportedError("zero points for the rows of an operand; use one for all")
    point = point.reshape() if point.shape == (1,) else point
    if r.is_constant(position):
        numbers = whole_numbers(r.given(position))
        return numbers - (point.reshape(-1, *[1] * (numbers.dim() - 1)) if kernel and point.dim() else point)
    x = r.value(position)
    return compose.scale_shift(r.builder, x, None, -point) if bool((point.value != 0).any()) else x


def _whole_of(r: Reader, position: int) -> Operand:
    return whole_numbers(r.given(position)) if r.is_constant(position) else r.value(position)


def _room(terms: int, besides: float = 0.0) -> None:
    """Raises UnsupportedError for sums of products of two bytes, and of a number besides, that int32 might not hold."""
    if terms * 2**16 + besides >= 2**31:
        raise UnsupportedError(f"sums of {terms} products in int32, which may overflow")


def _convolved(r: Reader, weight: int, zeros: tuple[int, int], bias: Constant | None) -> int:
    """Products of windows and a kernel, whole numbers less their zero points. Padding is the zero point."""
    x, kernel = _less(r, 0, zeros[0]), _less(r, weight, zeros[1], kernel=True)
    if not isinstance(kernel, Constant) or not isinstance(x, int):
        raise UnsupportedError("a kernel that depends on the input, or an input that does not")
    groups, shape = r.attribute("group"), r.shape(weight)
    if groups < 1 or r.shape()[1] != shape[1] * groups or shape[0] % groups:
        raise InputError(f"{r.shape()[1]} channels in {groups} groups for a kernel of shape {list(shape)}")
    _room(prod(shape[1:]), 0.0 if bias is None else float(bias.value.abs().max()))
    w = geometry.window(r, shape[2:])
    layout = {"stride": w.stride, "before": w.before, "after": w.after, "dilation": w.dilation}
    return compose.convolution(r.builder, x, kernel, bias, groups=groups, **layout)


@reads("ConvInteger")
def _conv_integer(r: Reader) -> int:
    return _convolved(r, 1, (2, 3), None)


@reads("MatMulInteger")
def _matmul_integer(r: Reader) -> int:
    a, b = _less(r, 0, 2), _less(r, 1, 3, True)
    _room(r.shape()[-1])
    return products.matmul(r.builder, a, b)


def _rescaled(r: Reader, total: int, scale: Constant, place: int, last: bool) -> int:
    """Sums in int32 times the scales of both factors, on the grid of the result: its scale is operand `place`."""
    zero, kind = _zero_of(r, place + 1)
    if kind is None:
        raise InputError("a result without a zero point")
    factor = r.weight(place).reshape() / scale
    if factor.dim() and not last:
        factor = factor.reshape(-1, *[1] * (len(r.builder.shape(total)) - 2))
    return quantise(r.builder, total, factor, zero.reshape(), _limits(kind))


@reads("QLinearConv")
def _qlinear_conv(r: Reader) -> int:
    bias = whole_numbers(r.given(8)) if r.has(8) else None
    total = _convolved(r, 3, (2, 5), bias)
    scale = r.weight(4)
    scale = r.weight(1).reshape() * (scale.reshape() if scale.shape == (1,) else scale)
    return _rescaled(r, total, scale, 6, False)


@reads("QLinearMatMul")
def _qlinear_matmul(r: Reader) -> int:
    a, b = _less(r, 0, 2), _less(r, 3, 5, True)
    _room(r.shape()[-1])
    scale = r.weight(4)
    scale = r.weight(1).reshape() * (scale.reshape() if scale.shape == (1,) else scale)
    return _rescaled(r, products.matmul(r.builder, a, b), scale, 6, True)
