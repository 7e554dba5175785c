"""Softmax, normalisations by statistics of the input, norms: composed as krelax composes them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from krelax.certificate.kernel.activations import Power, ReLU, Rule, Square
from krelax.certificate.kernel.activations.exponential import Log, Share
from krelax.certificate.kernel.activations.hyperbolic import Asin
from krelax.certificate.kernel.activations.log_sum_exp import LogSumExp
from krelax.certificate.kernel.activations.power import Sqrt
from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.onnx import recognise
from krelax.certificate.onnx.activations import absolute, activation
from krelax.certificate.onnx.affine import OF_ATTRIBUTES, OF_OPERANDS, ROUNDED, add, reduced, scaled, summed
from krelax.certificate.onnx.operator import (
    Attribute,
    Context,
    Hidden,
    Tensor,
    Value,
    broadcast,
    form,
    integer,
    normal_axes,
    numbers,
    only,
    reads,
    real,
)
from krelax.certificate.onnx.products import products, reciprocal
from krelax.certificate.onnx.shapes import joined
from krelax.certificate.onnx.tensors import Shape
from krelax.errors import InputError, UnsupportedError


@reads("Softmax", "LogSoftmax", forms=[form(7, 1, axis=integer(1)), form(13, 1, axis=integer(-1))])
def _softmax(c: Context) -> Tensor:
    """Before version 13 along all axes from one on, as if they were one."""
    given, logarithm = c.whole(0), c.call.op == "LogSoftmax"
    if isinstance(given, Hidden):
        return _of_kept(c, given)
    x = c.value()
    (axis,) = normal_axes([c.get("axis")], len(x.shape), c.version >= 11)
    if c.version >= 13:
        return _along(c, x, axis, logarithm)
    flat = Value(x.node, (prod(x.shape[:axis]), prod(x.shape[axis:])), x.dtype)
    return Value(_along(c, flat, 1, logarithm).node, x.shape, x.dtype)


def _of_kept(c: Context, x: Hidden) -> Value:
    """Softmax over those entries alone that are kept; others become zero. Rows with equally many of them have their
    sums together."""
    value, rank = x.value, len(x.shape)
    (axis,) = normal_axes([c.get("axis")], rank, c.version >= 11)
    if (c.version < 13 and axis != rank - 1) or c.call.op == "LogSoftmax":
        raise UnsupportedError("minus infinity in a softmax of several axes, or in its logarithm")
    index, kept = np.moveaxis(numbers(x.shape), axis, -1), np.moveaxis(x.kept, axis, -1)
    n, rows = kept.shape[-1], kept.reshape(-1, kept.shape[-1])
    if not rows.any(1).all():
        raise UnsupportedError("a softmax of nothing but minus infinity")
    last, counts = c.moved(index, value), rows.sum(1)
    parts, place, begin = [], np.empty(len(rows), np.int64), 0
    for count in np.unique(counts):
        (chosen,) = np.nonzero(counts == count)
        members = c.moved(chosen[:, None] * n + np.nonzero(rows[chosen])[1].reshape(-1, count), last)
        single = Value(members.node, (len(chosen),), members.dtype)
        parts.append(single if count == 1 else activation(c, members, LogSumExp(int(count)), (len(chosen),)))
        place[chosen] = begin + np.arange(len(chosen))
        begin += len(chosen)
    totals = c.moved(np.broadcast_to(place.reshape(*kept.shape[:-1], 1), kept.shape), joined(c, parts, 0))
    result = scaled(c, _act(c, add(c, last, totals, -1), Share()), kept.astype(np.float64))
    return c.moved(np.moveaxis(numbers(result.shape), -1, axis), result)


def _along(c: Context, x: Value, axis: int, logarithm: bool) -> Value:
    """`exp(min(u, 0))`, or u, which is x less the logarithm of the sum of exponentials."""
    index = np.moveaxis(numbers(x.shape), axis, -1)
    if x.shape[axis] == 1:
        return scaled(c, x, 0.0, np.full((), 0.0 if logarithm else 1.0))
    last = c.moved(index, x)
    total = activation(c, last, LogSumExp(x.shape[axis]), index.shape[:-1])
    repeated = c.moved(np.broadcast_to(numbers(total.shape)[..., None], index.shape), total)
    result = add(c, last, repeated, -1)
    if not logarithm:
        result = _act(c, result, Share())
        if axis == len(x.shape) - 1:
            c.builder.shares.add((result.node, x.shape[axis]))
    return c.moved(np.moveaxis(numbers(result.shape), -1, axis), result)


def softmax(c: Context, x: Value) -> Value:
    """Along the last axis."""
    return _along(c, x, len(x.shape) - 1, False)


def _act(c: Context, x: Value, rule: Rule) -> Value:
    return activation(c, x, rule, x.shape)


def _normalised(c: Context, x: Value, axes: Sequence[int], epsilon: float) -> Value:
    """`(x - mean) / sqrt(mean((x - mean)^2) + epsilon)` over some axes."""
    if epsilon < 0:
        raise InputError("a negative epsilon")
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    centred = add(c, x, summed(c, x, list(axes), kept, True), -1)
    square = summed(c, _act(c, centred, Square()), list(axes), kept, True)
    inverse = _act(c, scaled(c, square, 1.0, epsilon), Power(-0.5))
    return products(c, centred, inverse)


@reads("LayerNormalization", forms=[form(17, 2, 3, axis=integer(-1), epsilon=real(1e-5), stash_type=only(1))])
def _layer_norm(c: Context) -> Tensor:
    x, weight, bias = c.value(), c.weight(1), c.weight(2, optional=True)
    (axis,) = normal_axes([c.get("axis")], len(x.shape), True)
    for given in (weight, bias):
        if given is not None and broadcast(given.shape, x.shape) != x.shape:
            raise InputError(f"a scale or shift of shape {list(given.shape)}")
    y = _normalised(c, x, range(axis, len(x.shape)), float(c.get("epsilon")))
    return scaled(c, y, weight, bias)


@reads("InstanceNormalization", forms=[form(7, 3, epsilon=real(1e-5))])
def _instance_norm(c: Context) -> Tensor:
    return _grouped(c, c.shape(0)[1:2], 1)


@reads("GroupNormalization", forms=[
    form(18, 3, epsilon=real(1e-5), num_groups=integer(0)),
    form(21, 3, epsilon=real(1e-5), num_groups=integer(0), stash_type=only(1)),
])  # fmt: skip
def _group_norm(c: Context) -> Tensor:
    groups, channels = c.get("num_groups"), c.shape(0)[1:2]
    if groups < 1 or not channels or channels[0] % groups:
        raise InputError(f"{groups} groups of channels of a tensor of shape {list(c.shape(0))}")
    return _grouped(c, (groups,), channels[0] // groups if c.version < 21 else 1)


def _grouped(c: Context, groups: Shape, repeats: int) -> Value:
    """Normalised over groups of channels; scales and shifts count for so many channels each."""
    x, weight, bias = c.value(), c.weight(1), c.weight(2)
    if len(x.shape) < 2:
        raise InputError(f"a normalisation of a tensor of shape {list(x.shape)}")
    flat = Value(x.node, (x.shape[0], *groups, prod(x.shape[1:]) // groups[0]), x.dtype)
    y = _normalised(c, flat, (2,), float(c.get("epsilon")))
    return scaled(c, Value(y.node, x.shape, y.dtype), *(_of_channels(p, x.shape, repeats) for p in (weight, bias)))


def _of_channels(parameter: Floats, shape: Shape, repeats: int) -> Floats:
    if parameter.shape != (shape[1] // repeats,):
        raise InputError(f"a scale or shift of shape {list(parameter.shape)} for {shape[1]} channels")
    return np.repeat(parameter, repeats).reshape(-1, *[1] * (len(shape) - 2))


@reads("LpNormalization", forms=[form(7, 1, axis=integer(-1), p=Attribute("int", 2, frozenset({1, 2})))])
def _lp_normalised(c: Context) -> Tensor:
    x = c.value()
    (axis,) = normal_axes([c.get("axis")], len(x.shape), True)
    shape = tuple(1 if i == axis else n for i, n in enumerate(x.shape))
    terms = absolute(c, x) if c.get("p") == 1 else _act(c, x, Square())
    total = summed(c, terms, [axis], shape)
    total = total if c.get("p") == 1 else _act(c, total, Sqrt())
    return products(c, x, reciprocal(c, total))


@reads("ReduceLogSum", forms=[form(7, 1, **OF_ATTRIBUTES), form(18, 1, 2, **OF_OPERANDS)])
def _log_sum(c: Context) -> Tensor:
    axes, shape = reduced(c)
    total = summed(c, c.value(), axes, shape)
    known = recognise.logarithm(c, total)
    return _act(c, total, Log()) if known is None else known


@reads("ReduceSumSquare", "ReduceL2", "ReduceLogSumExp", forms=[
    form(7, 1, **OF_ATTRIBUTES), form(18, 1, 2, **OF_OPERANDS),
])  # fmt: skip
def _reduced(c: Context) -> Tensor:
    axes, shape = reduced(c)
    if not isinstance(c.operand(0), Value):
        raise UnsupportedError("a reduction of constants; fold it when exporting")
    x, rank = c.value(), len(c.shape(0))
    if c.call.op == "ReduceLogSumExp":
        windows = np.moveaxis(numbers(x.shape), axes, range(rank - len(axes), rank)).reshape(*shape, -1)
        return activation(c, c.moved(windows, x), LogSumExp(windows.shape[-1]), shape)
    total = summed(c, _act(c, x, Square()), axes, shape)
    return _act(c, total, Sqrt()) if c.call.op == "ReduceL2" else total


@reads("Reciprocal", forms=[form(7, 1)])
def _reciprocal(c: Context) -> Tensor:
    return reciprocal(c, c.value())


@reads("Log", forms=[form(7, 1)])
def _logarithm(c: Context) -> Tensor:
    x = c.value()
    known = recognise.logarithm(c, x)
    return _act(c, x, Log()) if known is None else known


@reads("Asinh", forms=[form(9, 1)])
def _inverse_hyperbolic_sine(c: Context) -> Tensor:
    """`f(relu(x)) - f(relu(-x))` with `f(t) = log(t + sqrt(t^2 + 1))`."""
    x = c.value()
    c.builder.only_real()
    up, down = (_half(c, _act(c, t, ReLU())) for t in (x, scaled(c, x, -1.0)))
    return add(c, up, down, -1)


def _half(c: Context, t: Value) -> Value:
    root = _act(c, scaled(c, _act(c, t, Square()), 1.0, np.array(1.0)), Sqrt())
    return _act(c, add(c, t, root, 1), Log())


@reads("Acos", forms=[form(7, 1)])
def _arc_cosine(c: Context) -> Tensor:
    """`pi / 2 - asin(x)`; pi / 2 is off by less than its rounding."""
    x = c.value()
    c.builder.only_real()
    return scaled(c, _act(c, x, Asin()), -1.0, np.array(np.pi / 2), fuzz=ROUNDED)
