"""More affine ONNX operators, and maxima and ReLUs made of what there is: they join `READERS`."""

from __future__ import annotations

from math import isfinite, isnan

import numpy as np
import torch

from krelax.errors import InputError, UnsupportedError
from krelax.network import compose
from krelax.network import contractions as of
from krelax.network import onnx_geometry as geometry
from krelax.network.compose import Operand
from krelax.network.constants import Constant
from krelax.network.onnx_operators import reads, scalar
from krelax.network.onnx_reader import Reader
from krelax.network.onnx_resize import resized


@reads("Resize", "Upsample")
def _resize(r: Reader) -> int:
    return resized(r)


@reads("Sum", "Mean")
def _sum(r: Reader) -> int:
    total: Operand = r.operand(0)
    for i in range(1, len(r.node.input)):
        other = r.operand(i)
        if isinstance(total, Constant) and isinstance(other, Constant):
            total = total + other
        else:
            total = compose.add(r.builder, total, other)
    assert isinstance(total, int)
    if r.node.op_type == "Sum":
        return total
    return compose.scale_shift(r.builder, total, Constant.of(float(len(r.node.input))).reciprocal(), None)


@reads("PRelu")
def _prelu(r: Reader) -> int:
    slope, shape = r.weight(1), r.shape()
    if np.broadcast_shapes(slope.shape, shape) != shape:
        raise InputError(f"slopes of shape {list(slope.shape)} for a tensor of shape {list(shape)}")
    return of.prelu(r.builder, r.value(), slope)


@reads("LeakyRelu")
def _leaky_relu(r: Reader) -> int:
    """Of any slope; those in [0, 1] are an activation."""
    slope = r.attribute("alpha")
    if not isfinite(slope):
        raise InputError(f"a leaky ReLU with a slope of {slope}")
    return of.prelu(r.builder, r.value(), Constant.of(slope))


@reads("HardSigmoid")
def _hard_sigmoid(r: Reader) -> int:
    alpha, beta = Constant.of(r.attribute("alpha")), Constant.of(r.attribute("beta"))
    return compose.clip(r.builder, compose.scale_shift(r.builder, r.value(), alpha, beta), 0.0, 1.0)


@reads("ReduceMax", "ReduceMin")
def _reduce_max(r: Reader) -> int:
    sign = 1 if r.node.op_type == "ReduceMax" else -1
    return of.reduce_max(r.builder, r.value(), *geometry.reduced(r), sign)


@reads("ReduceL1")
def _reduce_l1(r: Reader) -> int:
    axes, keep = geometry.reduced(r)
    return compose.reduce_sum(r.builder, compose.absolute(r.builder, r.value()), axes, keep)


@reads("Trilu")
def _trilu(r: Reader) -> int:
    if len(r.shape()) < 2:
        raise InputError(f"a triangle of a tensor of shape {list(r.shape())}")
    return compose.scale_shift(r.builder, r.value(), Constant.of(torch.from_numpy(triangle(r) * 1.0)), None)


def triangle(r: Reader) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which entries of the last two axes a Trilu keeps."""
    given = r.integers("", 1)
    if given is not None and len(given) != 1:
        raise InputError(f"{len(given)} numbers of a diagonal")
    k, full = (0 if given is None else given[0]), np.ones(r.shape()[-2:], bool)
    return np.triu(full, k) if r.attribute("upper") else np.tril(full, k)


@reads("CumSum")
def _cumulative(r: Reader) -> int:
    (axis,) = r.axes(r.integers("", 1) or [], len(r.shape()))
    n = r.shape()[axis]
    r.builder.require(n * n)
    matrix = torch.ones(n, n, dtype=torch.float64).tril(-1 if r.attribute("exclusive") else 0)
    return of.along(r.builder, r.value(), axis, Constant(matrix.T if r.attribute("reverse") else matrix))


@reads("Einsum")
def _einsum(r: Reader) -> int:
    operands = [r.operand(i) for i in range(len(r.node.input))]
    return of.einsum(r.builder, str(r.attribute("equation")), operands)


@reads("Clip")
def _clip(r: Reader) -> int:
    if r.version < 11:
        low, high = r.attribute("min"), r.attribute("max")
    else:
        if any(r.has(i) and not _is_number(r, i) for i in (1, 2)):
            return _clip_between(r)
        low, high = scalar(r, 1), scalar(r, 2)
    if any(b is not None and isnan(b) for b in (low, high)):
        raise InputError("a limit that is not a number")
    return compose.clip(r.builder, r.value(), low, high)


def _is_number(r: Reader, position: int) -> bool:
    return r.is_constant(position) and r.weight(position).error is None


def _clip_between(r: Reader) -> int:
    """Limits that are computed, of constants or of the input."""
    x: Operand = r.value()
    for position, pick in ((1, compose.maximum), (2, compose.minimum)):
        if r.has(position):
            limit = r.operand(position)
            limit = limit.reshape() if isinstance(limit, Constant) else compose.reshape(r.builder, limit, ())
            x = pick(r.builder, x, limit)
    assert isinstance(x, int)
    return x


@reads("Max", "Min")
def _extremum(r: Reader) -> int:
    pick = compose.maximum if r.node.op_type == "Max" else compose.minimum
    operands = [r.operand(i) for i in range(len(r.node.input))]
    result = operands[0]
    for operand in operands[1:]:
        if isinstance(result, Constant) and isinstance(operand, Constant):
            result = result.maximum(operand) if r.node.op_type == "Max" else result.minimum(operand)
        else:
            result = pick(r.builder, result, operand)
    if not isinstance(result, int):
        raise UnsupportedError("no operand depends on the input")
    return result
