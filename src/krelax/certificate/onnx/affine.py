"""Affine operators: sums, products with constants, and means."""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.kernel.linear import Dense, Scale
from krelax.certificate.onnx.builder import full
from krelax.certificate.onnx.operator import (
    FLAG,
    INTS,
    ON,
    Context,
    Endless,
    Hidden,
    Tensor,
    Value,
    Wide,
    broadcast,
    form,
    normal_axes,
    numbers,
    only,
    reads,
    real,
)
from krelax.certificate.onnx.products import of_matrices, products, reciprocal
from krelax.certificate.onnx.recognise import quotient
from krelax.certificate.onnx.tensors import Shape
from krelax.errors import InputError, UnsupportedError

# Relative error of a coefficient computed in float64 by a few operations.
ROUNDED = 2.0**-48
# Numbers that are computed lie in this range, or are zero: then their error is relative.
_LEAST, _LARGEST = 2.0**-900, 2.0**900
# Smaller numbers added to variances may vanish in float32.
_LEAST_EPSILON = 2.0**-40
_WHOLE, _FLOATS = (np.dtype(np.int64), np.dtype(np.int32)), (np.dtype(np.float32), np.dtype(np.float64))


def computed(x: Any, zero: Any = False) -> Floats:
    """Numbers that were computed with a relative error, those at which something is `zero` exactly."""
    x = np.asarray(x, np.float64)
    size = np.abs(x)
    if not (((size >= _LEAST) & (size <= _LARGEST)) | ((size == 0) & zero)).all():
        raise UnsupportedError("constants whose product or quotient is too small or too large")
    return x


def counted(constant: Any) -> tuple[Floats, Floats | None]:
    """A constant's numbers; if it is an enclosure also numbers of which `ROUNDED` is the error at least, and that are
    no smaller."""
    if not isinstance(constant, Wide):
        return np.asarray(constant, np.float64), None
    sizes = None if constant.error is None else np.abs(constant.numbers) + constant.error * (1 / ROUNDED)
    return constant.numbers, sizes


def scaled(c: Context, x: Value, scale: Any, bias: Any = None, **more: Any) -> Value:
    """Every entry scaled and shifted by constants, which are broadcast, and so is the value."""
    (scale, sizes), (shift, most) = counted(scale), counted(0.0 if bias is None else bias)
    shape = broadcast(x.shape, scale.shape, shift.shape)
    x = c.moved(np.broadcast_to(numbers(x.shape), shape), x)
    maps = [Scale(full(t, shape) if t.size > 1 else t.reshape(1)) for t in (scale, sizes) if t is not None]
    if sizes is not None or most is not None:
        more |= {"sizes": tuple(maps[1:]), "fuzz": ROUNDED, "bias_size": shift if most is None else most}
    return c.affine([x], maps[:1], shape, None if bias is None else shift, **more)


@reads("Add", "Sub", forms=[form(7, 2)])
def _add(c: Context) -> Tensor | Hidden:
    if any(isinstance(x, Endless) for x in c.operands) and c.call.op == "Add":
        return _masked(c)
    a, b = c.given(0), c.given(1)
    if not isinstance(a, Value) and not isinstance(b, Value):
        return whole(operator.add if c.call.op == "Add" else operator.sub, a, b)
    first, second = (x if isinstance(x, Value) else c.factor(i) for i, x in enumerate((a, b)))
    return add(c, first, second, 1 if c.call.op == "Add" else -1)


def _masked(c: Context) -> Hidden:
    """A value and a mask: the sum where that is finite, and minus infinity elsewhere."""
    one, two = c.whole(0), c.whole(1)
    x, mask = (one, two) if isinstance(one, Value) else (two, one)
    if not isinstance(x, Value) or not isinstance(mask, Endless) or x.dtype != mask.dtype:
        raise UnsupportedError("minus infinity in arithmetic other than a mask")
    kept = np.isfinite(mask.numbers)
    y = add(c, x, np.where(kept, mask.numbers, 0.0), 1)
    return Hidden(y, np.broadcast_to(kept, y.shape))


def whole(function: Any, *operands: Any) -> NDArray[Any]:
    """Arithmetic of integers of one type, exactly."""
    kinds = {x.dtype for x in operands}
    broadcast(*(x.shape for x in operands))
    kind = kinds.pop()
    if kinds or kind not in _WHOLE:
        raise UnsupportedError(f"arithmetic of constants of type {kind}; fold it when exporting")
    return held(np.asarray(function(*(x.astype(object) for x in operands)), object), kind)


def held(result: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """Exact numbers in a type, which must hold them."""
    if kind in _FLOATS:
        try:
            with np.errstate(over="ignore"):
                stored = result.astype(np.float64).astype(kind)
        except OverflowError:  # of a fraction beyond float64
            stored = np.full(result.shape, np.inf)
        same = (
            np.isfinite(stored).all()
            and [Fraction(float(v)) for v in stored.reshape(-1)] == result.reshape(-1).tolist()
        )
    else:
        info = np.iinfo(kind)
        same = all(info.min <= v <= info.max for v in result.reshape(-1))
        stored = result.astype(kind) if same else result
    if not same:
        raise UnsupportedError(f"arithmetic of constants whose result {kind} does not hold; fold it when exporting")
    return stored


def add(c: Context, a: Tensor | Wide, b: Tensor | Wide, sign: int) -> Value:
    """`a + sign * b`, broadcast; one of them depends on the input."""
    if isinstance(a, Value) and isinstance(b, Value):
        if a.dtype != b.dtype:
            raise InputError(f"operands of types {a.dtype} and {b.dtype}")
        shape = broadcast(a.shape, b.shape)
        operands = [c.moved(np.broadcast_to(numbers(x.shape), shape), x) for x in (a, b)]
        return c.affine(operands, [Scale(np.ones(1)), Scale(np.full(1, float(sign)))], shape)
    if isinstance(a, Value):
        shift = Wide(sign * b.numbers, b.dtype, b.error) if isinstance(b, Wide) else sign * np.asarray(b)
        return scaled(c, a, 1.0, shift)
    assert isinstance(b, Value)
    return scaled(c, b, float(sign), a)


@reads("Mul", forms=[form(7, 2)])
def _mul(c: Context) -> Tensor:
    a, b = c.given(0), c.given(1)
    if isinstance(a, Value):
        return products(c, a, b) if isinstance(b, Value) else scaled(c, a, c.factor(1))
    return scaled(c, b, c.factor(0)) if isinstance(b, Value) else whole(operator.mul, a, b)


@reads("Div", forms=[form(7, 2)])
def _div(c: Context) -> Tensor:
    a, b = c.given(0), c.given(1)
    if isinstance(b, Value):
        if isinstance(a, Value) and (known := quotient(c, a, b)) is not None:
            return known
        inverse = reciprocal(c, b)
        if not isinstance(a, Value):
            return scaled(c, inverse, c.factor(0))
        result = products(c, a, inverse)
        if a.shape and b.shape == (*a.shape[:-1], 1) and c.builder.sums.get(b.node) == (a.node, a.shape):
            c.builder.shares.add((result.node, a.shape[-1]))
        return result
    if isinstance(a, Value):
        divisor = c.factor(1)
        if isinstance(divisor, Wide):
            return scaled(c, a, _inverse(divisor))
        if not divisor.all():
            raise InputError("division by zero")
        with np.errstate(over="ignore"):
            factor = computed(1 / divisor)
        return scaled(c, a, factor, fuzz=ROUNDED, made_of=float(np.max(np.abs(divisor))))
    if isinstance(b, Wide) or not b.all():
        raise InputError("division by zero")
    return whole(np.frompyfunc(_quotient, 2, 1), a, b)


def _inverse(divisor: Wide) -> Wide:
    """One divided by an enclosed constant: with `|1 / d - 1 / n| <= e / (|n| (|n| - e))` for d within e of n."""
    error = np.zeros(divisor.shape) if divisor.error is None else divisor.error
    least = np.abs(divisor.numbers) - error
    if not (least > np.abs(divisor.numbers) / 2).all():
        raise UnsupportedError("division by a computed constant that may be zero; fold it when exporting")
    near = computed(1 / divisor.numbers)
    return Wide(near, divisor.dtype, (1 + 2.0**-40) * np.abs(near) * (error / least + 2.0**-52))


def _quotient(a: Any, b: Any) -> Any:
    """A quotient of integers, rounded. Readers round negative ones in different ways."""
    if a % b and (a < 0) != (b < 0):
        raise UnsupportedError("a quotient of constants that is negative and no whole number")
    return a // b


@reads("Neg", forms=[form(7, 1)])
def _neg(c: Context) -> Tensor:
    x = c.operand(0)
    return scaled(c, x, -1.0) if isinstance(x, Value) else whole(operator.neg, x)


_EPSILON, _MOMENTUM = real(1e-5), real(0.9)


@reads("BatchNormalization", forms=[
    form(7, 5, epsilon=_EPSILON, momentum=_MOMENTUM, spatial=only(1)),
    form(9, 5, epsilon=_EPSILON, momentum=_MOMENTUM),
    form(14, 5, epsilon=_EPSILON, momentum=_MOMENTUM, training_mode=only(0)),
])  # fmt: skip
def _batch_norm(c: Context) -> Tensor:
    x, epsilon = c.value(), float(c.get("epsilon"))
    parameters = [c.weight(i) for i in range(1, 5)]
    if len(x.shape) < 2 or any(p.shape != (x.shape[1],) for p in parameters):
        raise InputError(f"parameters that do not fit a tensor of shape {list(x.shape)}")
    scale, shift, mean, variance = (p.reshape(-1, *[1] * (len(x.shape) - 2)) for p in parameters)
    if (variance < 0).any() or epsilon < _LEAST_EPSILON:
        raise UnsupportedError("a batch normalisation that may divide by zero")
    factor = computed(scale / np.sqrt(variance + epsilon), scale == 0)
    moved = computed(mean * factor, (mean == 0) | (factor == 0))
    size = np.abs(shift) + np.abs(moved)
    largest = max(np.max(np.abs(p)) for p in (scale, shift, mean, 1 / np.sqrt(variance + epsilon)))
    return scaled(c, x, factor, shift - moved, bias_size=size, fuzz=ROUNDED, made_of=float(largest))


_GEMM = {"alpha": real(1), "beta": real(1), "transA": FLAG, "transB": FLAG}


@reads("Gemm", forms=[form(7, 3, **_GEMM), form(11, 2, 3, **_GEMM)])
def _gemm(c: Context) -> Tensor:
    """`alpha * (a @ b) + beta * bias`: products with alpha come afterwards, so that none of them rounds."""
    bias, alpha, beta = c.factor(2, optional=True), c.get("alpha"), c.get("beta")
    if isinstance(c.given(0), Value) and isinstance(c.given(1), Value):
        return _gemm_of_two(c, bias, float(alpha), float(beta))
    x, weight, turned = _factors(c)
    shape = (weight.shape[1], x.shape[0]) if turned else (x.shape[0], weight.shape[1])
    if bias is not None and broadcast(bias.shape, shape) != shape:
        raise InputError(f"a bias of shape {list(bias.shape)}")
    if alpha == 1 and (beta == 1 or bias is None) and not turned and not isinstance(bias, Wide):
        return matrix(c, x, weight, bias)
    y, fuzz = matrix(c, x, weight), 0.0
    if turned:
        y = c.moved(numbers(y.shape).T, y)
    if isinstance(bias, Wide):
        if beta != 1:
            raise UnsupportedError("a bias that is computed of constants, with beta; fold it when exporting")
        return scaled(c, y, float(alpha), bias)
    if bias is not None and beta != 1:
        double = c.dtype == np.float64  # products of float32 numbers are float64 numbers
        bias, fuzz = computed(bias * float(beta), (bias == 0) | (beta == 0)), ROUNDED * double
    return scaled(c, y, float(alpha), bias, fuzz=fuzz)


def _gemm_of_two(c: Context, bias: Any, alpha: float, beta: float) -> Tensor:
    """The same of two matrices that depend on the input."""
    turned = [c.value(i) if not c.get(name) else _turned(c, c.value(i)) for i, name in enumerate(("transA", "transB"))]
    if any(len(x.shape) != 2 for x in turned):
        raise InputError(f"operands of shapes {', '.join(str(list(x.shape)) for x in turned)}, not two matrices")
    y = of_matrices(c, *turned)
    if bias is not None and broadcast(bias.shape, y.shape) != y.shape:
        raise InputError(f"a bias of shape {list(bias.shape)}")
    if bias is not None and beta != 1:
        raise UnsupportedError("a product of two matrices that depend on the input, with beta")
    return y if alpha == 1 and bias is None else scaled(c, y, alpha, bias)


def _turned(c: Context, x: Value) -> Value:
    return c.moved(numbers(x.shape).swapaxes(-1, -2), x) if len(x.shape) > 1 else x


def _factors(c: Context) -> tuple[Value, Any, bool]:
    """The factors of a product of two matrices, each perhaps transposed, of which one is constant: that comes last. If
    it is the first one, the factors are those of the transposed product."""
    turned = not isinstance(c.given(0), Value)
    x, weight = c.value(int(turned)), c.factor(int(not turned))
    if len(x.shape) != 2 or len(weight.shape) != 2:
        raise InputError(f"operands of shapes {list(x.shape)} and {list(weight.shape)}, not two matrices")
    own, other = ("transB", "transA") if turned else ("transA", "transB")
    if c.get(own) != turned:
        x = c.moved(numbers(x.shape).T, x)
    return x, moved(weight, lambda w: w.T) if c.get(other) != turned else weight, turned


def moved(weight: Any, move: Callable[[Floats], Floats]) -> Any:
    """A constant with its entries moved, an enclosure or not."""
    if not isinstance(weight, Wide):
        return move(weight)
    return Wide(move(weight.numbers), weight.dtype, None if weight.error is None else move(weight.error))


def matrix(c: Context, x: Value, weight: Any, bias: Any = None) -> Value:
    """`x @ weight + bias` for a matrix of constants. Entries that add up to one count by how much their weights differ
    from most of the mean, which is a constant then."""
    if (x.node, np.shape(counted(weight)[0])[0]) in c.builder.shares and x.shape:
        return _of_shares(c, x, weight, bias)
    return _product(c, x, weight, bias)


def _of_shares(c: Context, x: Value, weight: Any, bias: Any) -> Value:
    """The same where entries of x add up to one along the last axis; in real numbers."""
    c.builder.only_real()
    numbers_of, given = counted(weight)
    with np.errstate(over="ignore"):
        near = (numbers_of.mean(0) * (1 - 2.0**-10)).astype(np.float32).astype(np.float64)
    mean = np.where(np.isfinite(near), near, 0.0)
    rest = numbers_of - mean
    back = rest - numbers_of  # the error of a difference, exactly
    lost = abs((numbers_of - (rest - back)) - (mean + back))
    lost = lost if given is None else (lost + weight.error) * (1 + 2.0**-40)
    y = _product(c, x, Wide(rest, x.dtype, lost) if lost.any() else rest, mean)
    return y if bias is None else scaled(c, y, 1.0, bias)


def _product(c: Context, x: Value, weight: Any, bias: Any) -> Value:
    weight, sizes = counted(weight)
    if weight.ndim != 2 or not x.shape or x.shape[-1] != weight.shape[0]:
        raise UnsupportedError(f"a product of shapes {list(x.shape)} and {list(weight.shape)}")
    maps = [
        Dense(np.ascontiguousarray(w.T, np.float64)[None, None], prod(x.shape[:-1]))
        for w in (weight, sizes)
        if w is not None
    ]
    more = {} if sizes is None else {"sizes": tuple(maps[1:]), "fuzz": ROUNDED}
    return c.affine([x], maps[:1], (*x.shape[:-1], weight.shape[1]), bias, **more)


OF_ATTRIBUTES, OF_OPERANDS = {"axes": INTS, "keepdims": ON}, {"keepdims": ON, "noop_with_empty_axes": FLAG}


@reads("ReduceMean", forms=[form(7, 1, **OF_ATTRIBUTES), form(18, 1, 2, **OF_OPERANDS)])
def _reduce_mean(c: Context) -> Tensor:
    axes, shape = reduced(c)
    return summed(c, c.value(), axes, shape, True)


@reads("ReduceSum", forms=[form(7, 1, **OF_ATTRIBUTES), form(13, 1, 2, **OF_OPERANDS)])
def _reduce_sum(c: Context) -> Tensor:
    axes, shape = reduced(c)
    x = c.operand(0)
    if isinstance(x, Value):
        return summed(c, x, axes, shape)
    if x.dtype not in _WHOLE:
        raise UnsupportedError("a sum of constants; fold it when exporting")
    return held(np.asarray(np.sum(x.astype(object), tuple(axes)), object).reshape(shape), x.dtype)


def reduced(c: Context) -> tuple[list[int], Shape]:
    """The axes that a reduction is over, and the shape of its result."""
    shape, axes = c.shape(0), c.integers("axes", 1)
    if axes is not None and not axes:
        raise UnsupportedError("an empty list of axes, which readers take differently")
    if axes is None:
        axes = [] if c.get("noop_with_empty_axes") else list(range(len(shape)))
    axes = sorted(normal_axes(axes, len(shape), True))
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    return axes, kept if c.get("keepdims") else tuple(n for i, n in enumerate(shape) if i not in axes)


@reads("GlobalAveragePool", forms=[form(7, 1)])
def _global_average_pool(c: Context) -> Tensor:
    x = c.value()
    if len(x.shape) < 3:
        raise UnsupportedError(f"a tensor of shape {list(x.shape)}")
    return summed(c, x, list(range(2, len(x.shape))), (*x.shape[:2], *[1] * (len(x.shape) - 2)), True)


def summed(c: Context, x: Value, axes: list[int], shape: Shape, mean: bool = False) -> Value:
    """Sums or means over some axes."""
    rank = len(x.shape)
    index = np.moveaxis(numbers(x.shape), axes, range(rank - len(axes), rank)).reshape(*shape, -1)
    total = c.affine([c.moved(index, x)], [Dense(np.ones((1, 1, 1, index.shape[-1])), prod(shape))], shape)
    if not mean and axes == [rank - 1]:
        c.builder.sums[total.node] = x.node, x.shape
    return scaled(c, total, 1 / index.shape[-1], fuzz=ROUNDED) if mean else total
