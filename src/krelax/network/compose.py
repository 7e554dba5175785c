"""Operators that models have and krelax builds from simpler ones; every importer writes them through here.

Each function appends nodes to a `Builder` and returns the index of the last. Constants are enclosures
(`krelax.network.constants`), shapes and axes are those of the nodes (without the evaluation batch), and broadcasting
follows NumPy. What cannot be built raises `UnsupportedError`; the importer, which knows the operator's name, adds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from krelax.activations import ReLU
from krelax.errors import InputError, UnsupportedError
from krelax.network.constants import Constant
from krelax.network.graph import Builder
from krelax.network.linear import Add, Conv, ConvTranspose, Dense, Scale, Sum, Within
from krelax.network.ops import Concat, Expand, Gather, Pad, Reshape, Transpose, normal_axes
from krelax.op import Shape

Operand = int | Constant
"""A node of the builder, or a constant."""

_UNBOUNDED = float(np.finfo(np.float32).max)
# The part of the mean of weights that is taken from each where they are those of entries that add up to one.
_NEARLY_ALL = 1 - 2.0**-10


def reshape(builder: Builder, x: int, shape: Sequence[int]) -> int:
    """`x` in another shape of the same size; no node if it has that shape already."""
    target = tuple(int(n) for n in shape)
    return x if builder.shape(x) == target else builder.add(Reshape(target), x)


def joint_shape(*shapes: Shape) -> Shape:
    """The shape that all `shapes` broadcast to. Raises InputError if there is none."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise InputError(f"shapes {', '.join(map(str, shapes))} do not broadcast to one another") from None


def broadcast(builder: Builder, x: int, shape: Sequence[int]) -> int:
    """`x` repeated to `shape`, to which it must broadcast; new axes come in front."""
    target = tuple(int(n) for n in shape)
    given = builder.shape(x)
    x = reshape(builder, x, (1,) * (len(target) - len(given)) + given)
    return x if builder.shape(x) == target else builder.add(Expand(target), x)


def take_slice(builder: Builder, x: int, axis: int, index: Sequence[int] | range | Tensor | NDArray[np.int64]) -> int:
    """Entries `index` along `axis`; both may count from the end. No node if that is all of them in order."""
    axis %= len(builder.shape(x))
    size = builder.shape(x)[axis]
    places = torch.as_tensor(index if isinstance(index, Tensor) else np.asarray(index), dtype=torch.int64) % size
    if torch.equal(places, torch.arange(size)):
        return x
    return builder.add(Gather(axis, places), x)


def concat(builder: Builder, operands: Sequence[Operand], axis: int) -> int:
    """Operands joined along `axis`, at least one of them a node."""
    nodes = [o for o in operands if not isinstance(o, Constant)]
    shapes = [o.shape if isinstance(o, Constant) else builder.shape(o) for o in operands]
    if len({(*s[:axis], *s[axis + 1 :], len(s)) for s in shapes}) > 1:
        raise InputError(f"shapes {', '.join(map(str, shapes))} cannot be joined along axis {axis}")
    if len(nodes) == len(operands):
        return builder.add(Concat(axis), *nodes)
    shape = Concat(axis).shape(*shapes)
    parts, shifts, start = [], [], 0
    for operand, size in zip(operands, shapes, strict=True):
        end = start + size[axis]
        if isinstance(operand, Constant):
            shifts.append(operand)
        else:
            before, after = ([n if a == axis else 0 for a in range(len(shape))] for n in (start, shape[axis] - end))
            parts.append(pad(builder, operand, before, after))
            shifts.append(Constant.of(0.0).expand(*size))
        start = end
    total = builder.add(Add((1,) * len(parts)), *parts) if len(parts) > 1 else parts[0]
    value = torch.cat([c.value for c in shifts], axis)
    error = None if all(c.error is None for c in shifts) else torch.cat([c.errors() for c in shifts], axis)
    return scale_shift(builder, total, None, Constant(value, error))


def scale_shift(builder: Builder, x: int, factor: Constant | None, shift: Constant | None) -> int:
    """`x * factor + shift`; `x` is repeated where a constant has a larger shape."""
    constants = [c for c in (factor, shift) if c is not None]
    if not constants:
        return x
    shape = joint_shape(builder.shape(x), *(c.shape for c in constants))
    if shift is not None and bool((shift.value == -inf).any()):
        kept, finite = masked(shift, shape)
        return builder.hide(scale_shift(builder, x, factor, finite), kept)
    return builder.add(
        Scale(_value(factor), _value(shift), _error(factor), _error(shift)), broadcast(builder, x, shape)
    )


def masked(shift: Constant, shape: Shape) -> tuple[NDArray[np.bool_], Constant]:
    """Where a constant in a shape is not minus infinity, and the constant with zeros there."""
    kept = shift.value != -inf
    finite = Constant(torch.where(kept, shift.value, 0.0), None if shift.error is None else shift.errors())
    return np.broadcast_to(kept.numpy(), shape), finite


def _value(constant: Constant | None) -> Tensor | None:
    return None if constant is None else constant.checked().value


def _error(constant: Constant | None) -> Tensor | None:
    return None if constant is None else constant.error


def negate(builder: Builder, x: int) -> int:
    """`-x`."""
    return scale_shift(builder, x, Constant.of(-1.0), None)


def dense(builder: Builder, x: int, weight: Constant, bias: Constant | None = None) -> int:
    """`x @ weight.T + bias` on the last axis; weight `(out, in)`.

    Entries that add up to one count by how much their weights differ from the mean: so it is a sum of small products,
    of whose relaxation little is lost. A small part of the mean stays, which tells where they are not defined.
    """
    if x in builder.shares:
        near = (weight.value.mean(1) * _NEARLY_ALL).float().double()
        mean = Constant(torch.where(near.isfinite(), near, 0.0))
        weight, bias = weight - mean.reshape(-1, 1), mean if bias is None else bias + mean
    op = Dense(weight.checked().value.contiguous(), _value(bias), weight.error, _error(bias))
    return builder.add(op, x)


def add(builder: Builder, a: Operand, b: Operand, sign: int = 1) -> int:
    """`a + sign * b` for `sign` +1 or -1; at least one operand is a node."""
    if isinstance(b, Constant):
        return scale_shift(builder, _node(a), None, b if sign > 0 else -b)
    if isinstance(a, Constant):
        return scale_shift(builder, b if sign > 0 else negate(builder, b), None, a)
    shape = joint_shape(builder.shape(a), builder.shape(b))
    branches = (broadcast(builder, a, shape), broadcast(builder, b, shape))
    return builder.add(Add((1, sign)), *branches)


def _node(operand: Operand) -> int:
    if isinstance(operand, Constant):
        raise UnsupportedError("both operands are constants; fold them before importing")
    return operand


def maximum(builder: Builder, a: Operand, b: Operand) -> int:
    """Larger of two operands, elementwise: `b + relu(a - b)`."""
    if isinstance(a, Constant):
        a, b = b, a
    return add(builder, builder.add(ReLU(), add(builder, a, b, -1)), b)


def minimum(builder: Builder, a: Operand, b: Operand) -> int:
    """Smaller of two operands, elementwise: `a - relu(a - b)`, or `b - relu(b - a)` for a constant `a`."""
    if isinstance(a, Constant):
        a, b = b, a
    return add(builder, a, builder.add(ReLU(), add(builder, a, b, -1)), -1)


def absolute(builder: Builder, x: int) -> int:
    """`|x| = relu(x) + relu(-x)`."""
    return builder.add(Add((1, 1)), builder.add(ReLU(), x), builder.add(ReLU(), negate(builder, x)))


def of_absolute(builder: Builder, x: int) -> int | None:
    """The node whose absolute value x is; None if it is none."""
    node = builder.node(x)
    if not (isinstance(node.op, Add) and node.op.signs == (1, 1)):
        return None
    sides = [builder.node(i) for i in node.inputs]
    if not all(isinstance(side.op, ReLU) for side in sides):
        return None
    (z,), (turned,) = (side.inputs for side in sides)
    other = builder.node(turned)
    if not isinstance(other.op, Scale) or other.op.shift is not None or other.op.factor is None:
        return None
    return z if other.inputs == (z,) and bool((other.op.factor == -1).all()) else None


def clip(builder: Builder, x: int, low: float | None, high: float | None) -> int:
    """`min(max(x, low), high)`; None or an infinity is no bound.

    Nor is the largest float32, which exporters write for none, and which would swamp x as an offset: up to there the
    clip is the identity, and nothing is proven of what goes beyond.

    The two ReLUs follow one another rather than being summed: the second then sees the bounds of what the first
    lets through, and every relaxation keeps `low <= clip(x) <= high`.
    """
    if high is not None and high < _UNBOUNDED and low is not None:
        low = min(low, high)  # the upper bound wins, as in ONNX and PyTorch
    unbounded = [b for b in (None if low is None else -low, high) if b is not None and _UNBOUNDED <= b < inf]
    if unbounded:
        x = builder.add(Within(min(unbounded)), x)
    if low is not None and low > -_UNBOUNDED:
        x = maximum(builder, x, Constant.of(low))
    if high is not None and high < _UNBOUNDED:
        bound = Constant.of(high)
        x = add(builder, bound, builder.add(ReLU(), add(builder, bound, x, -1)), -1)
    return x


def hard_sigmoid(builder: Builder, x: int) -> int:
    """`min(max(x / 6 + 1 / 2, 0), 1)`."""
    return clip(builder, scale_shift(builder, x, Constant.of(6.0).reciprocal(), Constant.of(0.5)), 0.0, 1.0)


def reduce_sum(builder: Builder, x: int, axes: Sequence[int], keepdims: bool) -> int:
    """Sum over `axes` (negative ones count from the end; none at all leaves `x`)."""
    shape = builder.shape(x)
    reduced = normal_axes(axes, len(shape)) if axes else ()
    if reduced:
        x = builder.add(Sum(reduced, prod(shape[a] for a in reduced)), x)
    kept = tuple(n for i, n in enumerate(builder.shape(x)) if keepdims or i not in reduced)
    return reshape(builder, x, kept)


def reduce_mean(builder: Builder, x: int, axes: Sequence[int], keepdims: bool) -> int:
    """Mean over `axes`."""
    total = reduce_sum(builder, x, axes, keepdims)
    count = prod(builder.shape(x)) // prod(builder.shape(total))
    return scale_shift(builder, total, Constant.of(float(count)).reciprocal(), None)


def batch_norm(
    builder: Builder,
    x: int,
    *,
    weight: Constant | None,
    bias: Constant | None,
    mean: Constant,
    var: Constant,
    eps: float,
) -> int:
    """Normalisation by fixed statistics, one per entry of axis 1; all constants are `(channels,)`."""
    shape = builder.shape(x)
    for name, given in (("scale", weight), ("shift", bias), ("mean", mean), ("variance", var)):
        if given is not None and given.shape != shape[1:2]:
            raise InputError(f"the {name} of a normalisation has shape {list(given.shape)}, not {list(shape[1:2])}")
    if bool((var.value < 0).any()) or eps < 0:
        raise InputError("a normalisation with a negative variance or epsilon")
    deviation = (var + Constant.of(eps)).sqrt()
    factor = (Constant.of(1.0) if weight is None else weight) / deviation
    shift = -(mean * factor) if bias is None else bias - mean * factor
    channel = (-1, *[1] * (len(shape) - 2))
    return scale_shift(builder, x, factor.reshape(*channel), shift.reshape(*channel))


def matmul(builder: Builder, a: Operand, b: Operand) -> int:
    """Matrix product of a node and a constant matrix or vector, in either order."""
    if isinstance(b, Constant):
        return _times(builder, _node(a), b)
    if not isinstance(a, Constant):
        raise UnsupportedError("a product of two branches where one of them must be constant")
    if len(builder.shape(b)) == 1:
        return _times(builder, b, a if a.dim() == 1 else a.mT)
    b = swap_last(builder, b)
    return _times(builder, b, a) if a.dim() == 1 else swap_last(builder, _times(builder, b, a.mT))


def swap_last(builder: Builder, x: int) -> int:
    """`x` with its last two axes exchanged."""
    rank = len(builder.shape(x))
    return builder.add(Transpose((*range(rank - 2), rank - 1, rank - 2)), x)


def _times(builder: Builder, x: int, constant: Constant) -> int:
    """`x @ constant` for a vector, a matrix, or a stack of matrices."""
    if not constant.shape or builder.shape(x)[-1:] != (constant.shape[-2:] or (1,))[:1]:
        raise InputError(f"product of shapes {builder.shape(x)} and {constant.shape}")
    if constant.dim() == 1:
        return reshape(builder, dense(builder, x, constant[None]), builder.shape(x)[:-1])
    if prod(constant.shape[:-2]) != 1:
        return _each_times(builder, x, constant)
    product = dense(builder, x, constant.reshape(*constant.shape[-2:]).mT)
    leading = max(0, constant.dim() - max(len(builder.shape(x)), 2))
    return reshape(builder, product, (1,) * leading + builder.shape(product))


def _each_times(builder: Builder, x: int, constant: Constant) -> int:
    """`x @ constant` for a stack of matrices; the leading axes of both are broadcast."""
    shape = builder.shape(x)
    matrix = (1,) * (2 - len(shape)) + shape
    lead = joint_shape(matrix[:-2], constant.shape[:-2])
    stacks, (rows, inner), outputs = prod(lead), matrix[-2:], constant.shape[-1]
    builder.require(stacks * inner * outputs)
    x = broadcast(builder, reshape(builder, x, matrix), (*lead, rows, inner))
    x = builder.add(Transpose((1, 0, 2)), reshape(builder, x, (stacks, rows, inner)))
    weight = constant.expand(*lead, inner, outputs).reshape(stacks, inner, outputs).mT
    y = builder.add(Transpose((1, 0, 2)), stacked(builder, x, weight))
    return reshape(builder, y, (*lead, *(shape[-2:-1] and (rows,)), outputs))


def stacked(builder: Builder, x: int, weight: Constant) -> int:
    """`(rows, stacks, inner)` times a matrix `(outputs, inner)` for each stack: `(rows, stacks, outputs)`."""
    stacks, outputs, inner = weight.shape
    rows = builder.shape(x)[0]
    if stacks == 1:
        return dense(builder, x, weight[0])
    images, kernel = reshape(builder, x, (rows, stacks * inner, 1)), weight.reshape(stacks * outputs, inner, 1)
    here = {"stride": (1,), "before": (0,), "after": (0,), "dilation": (1,)}
    return reshape(builder, convolution(builder, images, kernel, None, groups=stacks, **here), (rows, stacks, outputs))


def pad(builder: Builder, x: int, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> int:
    """`x` with `before` and `after` entries of `value` added on each axis; negative counts crop."""
    if not any(before) and not any(after):
        return x
    if min(n + min(b, 0) + min(a, 0) for n, b, a in zip(builder.shape(x), before, after, strict=True)) < 1:
        raise UnsupportedError("cropping that leaves nothing")
    frame = torch.zeros((), dtype=torch.float64).expand(builder.shape(x))
    x = builder.add(Pad(tuple(before), tuple(after)), x)
    if value == 0:
        return x
    pairs = [int(p) for pair in zip(reversed(before), reversed(after), strict=True) for p in pair]
    return scale_shift(builder, x, None, Constant.of(F.pad(frame, pairs, value=value)))


def pad_last(builder: Builder, x: int, before: Sequence[int], after: Sequence[int]) -> int:
    """Zero padding of the last axes, as many as `before` has."""
    lead = (0,) * (len(builder.shape(x)) - len(before))
    return pad(builder, x, (*lead, *before), (*lead, *after))


def convolution(
    builder: Builder,
    x: int,
    weight: Constant,
    bias: Constant | None,
    *,
    stride: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> int:
    """Convolution of `(images, channels, *spatial)`; zeros are put `before` and `after` each axis."""
    padding = tuple(before)
    if padding != tuple(after):
        x = pad_last(builder, x, before, after)
        padding = (0,) * len(padding)
    values, errors = (weight.checked().value, _value(bias)), (weight.error, _error(bias))
    return builder.add(Conv(*values, tuple(stride), padding, tuple(dilation), groups, *errors), x)


def transposed_convolution(
    builder: Builder,
    x: int,
    weight: Constant,
    bias: Constant | None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
    groups: int = 1,
) -> int:
    """Transposed convolution of `(images, channels, *spatial)`; weight `(in, out / groups, *kernel)`."""
    values, errors = (weight.checked().value, _value(bias)), (weight.error, _error(bias))
    geometry = tuple(stride), tuple(padding), tuple(dilation), tuple(output_padding)
    return builder.add(ConvTranspose(*values, *geometry, groups, *errors), x)
