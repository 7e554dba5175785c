"""What is composed of products and functions of one number: quotients, softmax, normalisations, attention.

Built as in `krelax.network.compose`, so that every part is relaxed by itself. Softmax has no product in it: an output
is `exp(x_i - log sum exp(x_j))`, the exponential of what is never positive, and so at most one whatever is known of the
inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, prod

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.activations import (
    Asin,
    Exp,
    Floor,
    Log,
    LogSumExp,
    Reciprocal,
    ReciprocalSqrt,
    ReLU,
    Share,
    Sqrt,
    Square,
)
from krelax.errors import InputError, UnsupportedError
from krelax.network import recognise
from krelax.network.compose import (
    Operand,
    add,
    broadcast,
    concat,
    joint_shape,
    negate,
    reduce_mean,
    reduce_sum,
    reshape,
    scale_shift,
    swap_last,
)
from krelax.network.constants import Constant
from krelax.network.contractions import take, transpose
from krelax.network.graph import Builder
from krelax.network.linear import Sum
from krelax.network.ops import normal_axes
from krelax.network.products import matmul, multiply
from krelax.network.recognise import plain
from krelax.network.spatial import power_of

_MOST_EXPONENTS = 16


def divide(builder: Builder, a: Operand, b: Operand) -> int:
    """`a / b`, elementwise; at least one operand is a node."""
    if isinstance(b, Constant):
        if isinstance(a, Constant):
            raise UnsupportedError("both operands are constants; fold them before importing")
        return scale_shift(builder, a, b.reciprocal(), None)
    if isinstance(a, int) and (known := recognise.quotient(builder, a, b)) is not None:
        return known
    result = multiply(builder, a, reciprocal(builder, b))
    if not isinstance(a, Constant) and _adds_up(builder, a, b):
        builder.shares.add(result)
    return result


def reciprocal(builder: Builder, b: int) -> int:
    """`1 / b`. Of a square root, or of one and an exponential, it is one activation."""
    if (known := recognise.reciprocal(builder, b)) is not None:
        return known
    root = builder.node(plain(builder, b))
    if isinstance(root.op, Sqrt):
        return reshape(builder, builder.add(ReciprocalSqrt(), *root.inputs), builder.shape(b))
    return builder.add(Reciprocal(), b)


def logarithm(builder: Builder, x: int) -> int:
    """`log(x)`, which of some functions is another one."""
    known = recognise.logarithm(builder, x)
    return builder.add(Log(), x) if known is None else known


def arc_cosine(builder: Builder, x: int) -> int:
    """`acos(x) = pi / 2 - asin(x)`."""
    quarter = Constant(torch.tensor(pi / 2, dtype=torch.float64), torch.tensor(2.0**-53, dtype=torch.float64))
    return scale_shift(builder, builder.add(Asin(), x), Constant.of(-1.0), quarter)


def inverse_hyperbolic_sine(builder: Builder, x: int) -> int:
    """`asinh(x) = f(relu(x)) - f(relu(-x))` where `f(t) = log(t + sqrt(t^2 + 1))`."""

    def half(t: int) -> int:
        root = builder.add(Sqrt(), scale_shift(builder, builder.add(Square(), t), None, Constant.of(1.0)))
        return builder.add(Log(), add(builder, t, root))

    up, down = (half(builder.add(ReLU(), t)) for t in (x, negate(builder, x)))
    return add(builder, up, down, -1)


def truncate(builder: Builder, x: int) -> int:
    """Towards zero: `floor(relu(z)) - floor(relu(-z))`."""
    up, down = (builder.add(Floor(), builder.add(ReLU(), t)) for t in (x, negate(builder, x)))
    return add(builder, up, down, -1)


def rounded_down(builder: Builder, x: int, divisor: Constant) -> int:
    """The quotient of whole numbers by positive ones, rounded down: that of `x + 1/2`, which is not near to a jump."""
    factor = divisor.reciprocal()
    return builder.add(Floor(), scale_shift(builder, x, factor, factor * Constant.of(0.5)))


def remainder(builder: Builder, x: int, modulus: Constant, truncated: bool) -> int:
    """`x - m floor(x / m)`, or with the quotient rounded towards zero."""
    quotient = scale_shift(builder, x, modulus.reciprocal(), None)
    whole = truncate(builder, quotient) if truncated else builder.add(Floor(), quotient)
    return add(builder, x, scale_shift(builder, whole, modulus, None), -1)


def power(builder: Builder, base: Operand, exponent: Operand) -> int:
    """`base ** exponent` of two operands: by each of a few constant exponents, or as `exp(exponent log(base))` of a
    base that must be positive."""
    if isinstance(base, int) and isinstance(exponent, Constant):
        return _powers(builder, base, exponent)
    if isinstance(base, Constant):
        assert isinstance(exponent, int)
        if not bool((base.value > base.errors()).all()):
            raise UnsupportedError("a power of a constant that is not positive")
        return builder.add(Exp(), scale_shift(builder, exponent, base.function("log"), None))
    return builder.add(Exp(), multiply(builder, logarithm(builder, base), exponent))


def _powers(builder: Builder, base: int, exponent: Constant) -> int:
    if exponent.error is not None:
        raise UnsupportedError("a power whose exponent is no number of the file")
    different = exponent.value.unique().tolist()
    if len(different) > _MOST_EXPONENTS:
        raise UnsupportedError(f"powers of {len(different)} exponents in one operator")
    shape = joint_shape(builder.shape(base), exponent.shape)
    base = broadcast(builder, base, shape)
    if len(different) == 1:
        return power_of(builder, base, different[0])
    which = np.broadcast_to(exponent.value.numpy(), shape)
    # each exponent is taken of those entries alone that have it: others may not be in its domain
    parts, where, begin = [], np.empty(prod(shape), np.int64), 0
    for number in different:
        (chosen,) = np.nonzero(which.reshape(-1) == number)
        parts.append(power_of(builder, take(builder, base, chosen), number))
        where[chosen] = begin + np.arange(len(chosen))
        begin += len(chosen)
    return take(builder, concat(builder, parts, 0), where.reshape(shape))


def _adds_up(builder: Builder, a: int, b: int) -> bool:
    """Whether `b` is the sum of `a` along the last axis."""
    shape, total = builder.shape(a), builder.node(plain(builder, b))
    if not isinstance(total.op, Sum) or total.op.axes != (len(shape) - 1,):
        return False
    (summed,) = total.inputs
    alike = builder.shape(summed) == shape and builder.shape(b) == (*shape[:-1], 1)
    return alike and plain(builder, summed) == plain(builder, a)


def softmax(builder: Builder, x: int, axis: int, logarithm: bool = False, mask: NDArray[np.bool_] | None = None) -> int:
    """Softmax along an axis, or its logarithm. With a mask, of the shape of `x`, only entries where it is true take
    part, and others become zero; so do minus infinities, of which no row may consist."""
    x, finite = builder.shown(x)
    shape = builder.shape(x)
    if finite is not None and (logarithm or not np.broadcast_to(finite, shape).any(axis).all()):
        raise UnsupportedError("minus infinity in the logarithm of a softmax, or in a softmax of nothing else")
    mask = finite if mask is None else mask if finite is None else finite & mask
    if shape[axis] == 1 and mask is None:
        return scale_shift(builder, x, Constant.of(0.0), Constant.of(0.0 if logarithm else 1.0))
    order = [*(a for a in range(len(shape)) if a != axis), axis]
    last = transpose(builder, x, order)
    kept = None if mask is None else np.broadcast_to(mask, shape).transpose(order)
    total = builder.add(LogSumExp(), last) if kept is None else _total_of(builder, last, kept)
    result = add(builder, last, reshape(builder, total, (*builder.shape(last)[:-1], 1)), -1)
    if not logarithm:
        result = builder.add(Share(), result)
    if kept is not None:
        result = scale_shift(builder, result, Constant.of(torch.from_numpy(kept * 1.0)), None)
    if axis == len(shape) - 1 and kept is None and not logarithm:
        builder.shares.add(result)
    return transpose(builder, result, [order.index(a) for a in range(len(shape))])


def _total_of(builder: Builder, x: int, kept: NDArray[np.bool_]) -> int:
    """The logarithm of the sum of exponentials of those entries of every row that are kept, or of all if none is:
    rows with equally many of them together."""
    n = kept.shape[-1]
    rows = kept.reshape(-1, n)
    rows = rows | ~rows.any(1, keepdims=True)
    counts, parts, place = rows.sum(1), [], np.empty(len(rows), np.int64)
    begin = 0
    for count in np.unique(counts):
        (chosen,) = np.nonzero(counts == count)
        members = take(builder, x, chosen[:, None] * n + np.nonzero(rows[chosen])[1].reshape(-1, count))
        parts.append(reshape(builder, members, (len(chosen),)) if count == 1 else builder.add(LogSumExp(), members))
        place[chosen] = begin + np.arange(len(chosen))
        begin += len(chosen)
    return take(builder, concat(builder, parts, 0) if len(parts) > 1 else parts[0], place)


def log_sum_exp(builder: Builder, x: int, axes: Sequence[int], keepdims: bool) -> int:
    """The logarithm of the sum of exponentials over some axes."""
    shape = builder.shape(x)
    reduced = normal_axes(axes, len(shape))
    rest = [a for a in range(len(shape)) if a not in reduced]
    last = transpose(builder, x, [*rest, *reduced])
    last = reshape(builder, last, (*(shape[a] for a in rest), prod(shape[a] for a in reduced)))
    kept = [1 if a in reduced else n for a, n in enumerate(shape)] if keepdims else [shape[a] for a in rest]
    return reshape(builder, builder.add(LogSumExp(), last), kept)


def variance(builder: Builder, x: int, axes: Sequence[int], keepdims: bool, correction: float = 0.0) -> int:
    """The mean square of the distance from the mean over some axes; the count is less by the correction."""
    centred = add(builder, x, reduce_mean(builder, x, axes, True), -1)
    count = prod(builder.shape(x)[a] for a in normal_axes(axes, len(builder.shape(x)))) - correction
    if count <= 0:
        raise InputError("a variance of too few numbers")
    total = reduce_sum(builder, builder.add(Square(), centred), axes, keepdims)
    return scale_shift(builder, total, Constant.of(float(count)).reciprocal(), None)


def norm(builder: Builder, x: int, axes: Sequence[int], keepdims: bool) -> int:
    """The root of the sum of squares over some axes."""
    return builder.add(Sqrt(), reduce_sum(builder, builder.add(Square(), x), axes, keepdims))


def normalise(
    builder: Builder,
    x: int,
    axes: Sequence[int],
    eps: float,
    weight: Constant | None,
    bias: Constant | None,
    centred: bool = True,
) -> int:
    """`x` less its mean over some axes, unless it is not to be `centred`, divided by its root mean square; then scaled
    and shifted by constants that broadcast with it."""
    if eps < 0:
        raise InputError("a normalisation with a negative epsilon")
    if centred:
        x = add(builder, x, reduce_mean(builder, x, axes, True), -1)
    square = reduce_mean(builder, builder.add(Square(), x), axes, True)
    inverse = builder.add(ReciprocalSqrt(), scale_shift(builder, square, None, Constant.of(eps)))
    return scale_shift(builder, multiply(builder, x, inverse), weight, bias)


def layer_norm(builder: Builder, x: int, axis: int, eps: float, weight: Constant | None, bias: Constant | None) -> int:
    """Normalisation over the axes from one on."""
    return normalise(builder, x, range(axis, len(builder.shape(x))), eps, weight, bias)


def group_norm(
    builder: Builder, x: int, groups: int, eps: float, weight: Constant | None, bias: Constant | None
) -> int:
    """Normalisation over groups of channels, with as many groups as channels for instances. Weight and bias are
    `(channels,)`, or `(groups,)`."""
    shape = builder.shape(x)
    if len(shape) < 2 or groups < 1 or shape[1] % groups:
        raise InputError(f"{groups} groups of channels of a tensor of shape {list(shape)}")
    flat = reshape(builder, x, (shape[0], groups, prod(shape[1:]) // groups))
    y = reshape(builder, normalise(builder, flat, (2,), eps, None, None), shape)
    return scale_shift(builder, y, *(_of_channels(c, shape[1], groups, len(shape)) for c in (weight, bias)))


def _of_channels(constant: Constant | None, channels: int, groups: int, rank: int) -> Constant | None:
    if constant is None:
        return None
    if constant.shape not in {(channels,), (groups,)}:
        raise InputError(f"a scale or shift of shape {list(constant.shape)} for {channels} channels")
    repeats = channels // constant.shape[0]
    return constant.moved(lambda t: t.repeat_interleave(repeats)).reshape(-1, *[1] * (rank - 2))


def attention(
    builder: Builder,
    query: Operand,
    key: Operand,
    value: Operand,
    scale: Constant,
    mask: Constant | NDArray[np.bool_] | None,
) -> int:
    """`softmax(scale * query @ key.T + mask) @ value`; where a mask of booleans is false, nothing is attended to."""
    if isinstance(query, Constant) and isinstance(key, Constant):
        raise UnsupportedError("attention with constant queries and keys")
    turned = key.mT if isinstance(key, Constant) else swap_last(builder, key)
    scores = scale_shift(builder, matmul(builder, query, turned), scale, None)
    if isinstance(mask, Constant):
        scores = scale_shift(builder, scores, None, mask)
    axis = len(builder.shape(scores)) - 1
    weights = softmax(builder, scores, axis, mask=None if isinstance(mask, Constant) else mask)
    return matmul(builder, weights, value)
