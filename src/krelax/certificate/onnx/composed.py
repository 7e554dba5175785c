"""More affine operators, and what is made of ReLUs and maxima, as krelax makes it: so activations have its numbers."""

from __future__ import annotations

import operator
from functools import reduce
from math import prod

import numpy as np

from krelax.certificate.kernel.activations import LeakyReLU, Maximum, ReLU
from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.kernel.linear import Scale
from krelax.certificate.onnx.activations import absolute, activation, clipped
from krelax.certificate.onnx.affine import (
    OF_ATTRIBUTES,
    OF_OPERANDS,
    ROUNDED,
    add,
    computed,
    reduced,
    scaled,
    summed,
)
from krelax.certificate.onnx.builder import full
from krelax.certificate.onnx.enclosures import fold
from krelax.certificate.onnx.operator import (
    MANY,
    Context,
    Tensor,
    Value,
    broadcast,
    form,
    numbers,
    reads,
    real,
)
from krelax.errors import InputError, UnsupportedError


@reads("Sum", "Mean", forms=[form(7, 1, MANY)])
def _sum(c: Context) -> Tensor:
    """Values first; constants are added up by themselves."""
    operands = [c.given(i) for i in range(len(c.operands))]
    if c.version < 8 and len({x.shape for x in operands}) != 1:
        raise UnsupportedError("operands of different shapes before version 8 of the operator set")
    shape = broadcast(*(x.shape for x in operands))
    values = [x for x in operands if isinstance(x, Value)]
    if not values:
        raise UnsupportedError("operands that are all constant; fold them when exporting")
    constants = [c.factor(i) for i, x in enumerate(operands) if not isinstance(x, Value)]
    moved = [c.moved(np.broadcast_to(numbers(x.shape), shape), x) for x in values]
    if len({x.dtype for x in values}) != 1:
        raise InputError("operands of several types")
    total = c.affine(moved, [Scale(np.ones(1))] * len(moved), shape)
    if len(constants) > 1:
        c.builder.only_real()  # an execution adds up values between them
    if constants:
        total = add(c, total, fold(c, lambda x: reduce(operator.add, x), constants, prod(shape) * len(constants)), 1)
    return scaled(c, total, 1 / len(operands), fuzz=ROUNDED) if c.call.op == "Mean" else total


@reads("PRelu", forms=[form(7, 2)])
def _prelu(c: Context) -> Tensor:
    slope, x = c.weight(1), c.value()
    if broadcast(slope.shape, x.shape) != x.shape:
        raise InputError(f"slopes of shape {list(slope.shape)} for a tensor of shape {list(x.shape)}")
    return _bent(c, x, slope)


@reads("LeakyRelu", forms=[form(7, 1, alpha=real(0.01))])
def _leaky_relu(c: Context) -> Tensor:
    return _bent(c, c.value(), np.full((), float(c.get("alpha"))))


def _bent(c: Context, x: Value, slope: Floats) -> Value:
    """`slope * x + (1 - slope) * relu(x)`, and one activation for one slope in [0, 1]."""
    first = float(slope.reshape(-1)[0])
    if (slope == first).all() and 0 <= first <= 1:
        return activation(c, x, LeakyReLU(first) if first else ReLU(), x.shape)
    slope = full(slope, x.shape)
    rest = computed(1 - slope, slope == 1)
    positive = activation(c, x, ReLU(), x.shape)
    largest = float(np.max(np.abs(slope)))
    return c.affine([x, positive], [Scale(slope), Scale(rest)], x.shape, fuzz=ROUNDED, made_of=1 + largest)


@reads("HardSigmoid", forms=[form(7, 1, alpha=real(0.2), beta=real(0.5))])
def _hard_sigmoid(c: Context) -> Tensor:
    """`1 - relu(1 - max(alpha * x + beta, 0))`."""
    x = scaled(c, c.value(), float(c.get("alpha")), float(c.get("beta")))
    return clipped(c, x, 0.0, 1.0)


_PICKS = {"ReduceMax": np.max, "ReduceMin": np.min}
_NAMES = {"ReduceMax": 1.0, "ReduceMin": -1.0}


@reads("ReduceMax", "ReduceMin", forms=[form(7, 1, **OF_ATTRIBUTES), form(18, 1, 2, **OF_OPERANDS)])
def _reduce_max(c: Context) -> Tensor:
    axes, shape = reduced(c)
    given = c.operand(0)
    if not isinstance(given, Value):
        return np.asarray(_PICKS[c.call.op](given, tuple(axes)), given.dtype).reshape(shape)
    x, rank, sign = c.value(), len(c.shape(0)), _NAMES[c.call.op]
    count = prod(x.shape[a] for a in axes)
    x = c.moved(np.moveaxis(numbers(x.shape), axes, range(rank - len(axes), rank)).reshape(*shape, -1), x)
    if count == 1:
        return c.moved(numbers(shape), x)
    x = x if sign > 0 else scaled(c, x, sign)
    largest = activation(c, x, Maximum(count), shape)
    return largest if sign > 0 else scaled(c, largest, sign)


@reads("ReduceL1", forms=[form(7, 1, **OF_ATTRIBUTES), form(18, 1, 2, **OF_OPERANDS)])
def _reduce_l1(c: Context) -> Tensor:
    axes, shape = reduced(c)
    return summed(c, absolute(c, c.value()), axes, shape)
