"""Affine operators: sums, products with constants, and means."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.arithmetic import Floats
from krelax.certificate.context import Context, Shape, Tensor, Value, numbers, reads
from krelax.certificate.network import Dense, Index, Scale, full
from krelax.errors import InputError, UnsupportedError

# Relative error of a coefficient computed in float64 by a few operations.
ROUNDED = 2.0**-48
# Smaller numbers added to variances may vanish in float32.
_LEAST_EPSILON = 2.0**-40


def scaled(c: Context, x: Value, scale: Any, bias: Any = None, **more: Any) -> Value:
    """Every entry scaled and shifted by constants, which are broadcast, and so is the value."""
    scale = np.asarray(scale, np.float64)
    shape = np.broadcast_shapes(x.shape, scale.shape, np.shape(0 if bias is None else bias))
    x = c.moved(np.broadcast_to(numbers(x.shape), shape), x)
    return c.affine([x], [Scale(full(scale, shape) if scale.size > 1 else scale.reshape(1))], shape, bias, **more)


def _integers_only(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        raise UnsupportedError("arithmetic of constants that are not whole numbers; fold them when exporting")


@reads("Add", "Sub")
def _add(c: Context) -> Tensor:
    a, b = c.operands
    assert a is not None
    assert b is not None
    return add(c, a, b, 1 if c.call.op == "Add" else -1)


def add(c: Context, a: Tensor, b: Tensor, sign: int) -> Tensor:
    """`a + sign * b`, broadcast."""
    if isinstance(a, Value) and isinstance(b, Value):
        shape = np.broadcast_shapes(a.shape, b.shape)
        operands = [c.moved(np.broadcast_to(numbers(x.shape), shape), x) for x in (a, b)]
        return c.affine(operands, [Scale(np.ones(1)), Scale(np.full(1, float(sign)))], shape)
    if isinstance(a, Value):
        return scaled(c, a, 1.0, sign * np.asarray(b))
    if isinstance(b, Value):
        return scaled(c, b, float(sign), a)
    _integers_only(a, b)
    return a + sign * b


@reads("Mul")
def _mul(c: Context) -> Tensor:
    a, b = c.operands[0], c.operands[1]
    if isinstance(a, Value) == isinstance(b, Value):
        x, y = c.weight(0), c.weight(1)
        _integers_only(x, y)
        return x * y
    return scaled(c, c.value(0), b) if isinstance(a, Value) else scaled(c, c.value(1), a)


@reads("Div")
def _div(c: Context) -> Tensor:
    divisor = c.weight(1)
    if not divisor.all():
        raise InputError("division by zero")
    if isinstance(c.operands[0], Value):
        return scaled(c, c.value(), 1 / divisor, fuzz=ROUNDED)
    x = c.weight(0)
    _integers_only(x, divisor)
    return (x / divisor).astype(np.int64)


@reads("Neg")
def _neg(c: Context) -> Tensor:
    return scaled(c, c.value(), -1.0)


@reads("BatchNormalization")
def _batch_norm(c: Context) -> Tensor:
    if c.get("training_mode", 0):
        raise UnsupportedError("batch normalisation in training")
    x = c.value()
    scale, shift, mean, variance = (c.weight(i).reshape(-1, *[1] * (len(x.shape) - 2)) for i in range(1, 5))
    if (variance < 0).any() or c.get("epsilon", 1e-5) < _LEAST_EPSILON:
        raise UnsupportedError("a batch normalisation that may divide by zero")
    factor = scale / np.sqrt(variance + c.get("epsilon", 1e-5))
    size = np.abs(shift) + np.abs(mean * factor)
    return scaled(c, x, factor, shift - mean * factor, bias_size=size, fuzz=ROUNDED)


@reads("Gemm")
def _gemm(c: Context) -> Tensor:
    x, weight, bias, alpha, beta = c.value(), c.weight(1), c.constant(2), c.get("alpha", 1.0), c.get("beta", 1.0)
    if c.get("transA", 0) or len(x.shape) != 2:
        raise UnsupportedError("a transposed left operand, or one that is no matrix")
    weight = weight.T if c.get("transB", 0) else weight
    return _matrix(c, x, alpha * weight, None if bias is None else beta * bias, ROUNDED * (alpha != 1 or beta != 1))


def _matrix(c: Context, x: Value, weight: Floats, bias: Any = None, fuzz: float = 0.0) -> Value:
    """`x @ weight + bias` for a matrix of constants."""
    if weight.ndim != 2 or x.shape[-1] != weight.shape[0]:
        raise InputError(f"a product of shapes {x.shape} and {weight.shape}")
    dense = Dense(np.ascontiguousarray(weight.T, np.float64)[None, None], prod(x.shape[:-1]))
    return c.affine([x], [dense], (*x.shape[:-1], weight.shape[1]), bias, fuzz=fuzz)


@reads("MatMul")
def _matmul(c: Context) -> Tensor:
    if isinstance(c.operands[0], Value):
        return _matrix(c, c.value(0), c.weight(1))
    x = c.value(1)
    turned = _matrix(c, c.moved(numbers(x.shape).swapaxes(-1, -2), x), c.weight(0).T)
    return c.moved(numbers(turned.shape).swapaxes(-1, -2), turned)


def means(c: Context, index: Index, factor: Any, shape: Shape) -> Value:
    """Sums over the last axis of an array of entries, times constants."""
    summed = c.affine([c.moved(index, c.value())], [Dense(np.ones((1, 1, 1, index.shape[-1])), prod(shape))], shape)
    return summed if factor is None else scaled(c, summed, factor, fuzz=ROUNDED)


@reads("ReduceMean", "ReduceSum", "GlobalAveragePool")
def _reduce(c: Context) -> Tensor:
    x = c.value()
    rank = len(x.shape)
    if c.call.op == "GlobalAveragePool":
        axes: list[int] = list(range(2, rank))
    else:
        axes = c.integers("axes", 1) or list(range(0 if c.get("noop_with_empty_axes", 0) else rank))
    axes = sorted({a % rank for a in axes})
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    shape = kept if c.get("keepdims", 1) else tuple(n for i, n in enumerate(x.shape) if i not in axes)
    index = np.moveaxis(numbers(x.shape), axes, range(rank - len(axes), rank)).reshape(*shape, -1)
    return means(c, index, None if c.call.op == "ReduceSum" else 1 / index.shape[-1], shape)
