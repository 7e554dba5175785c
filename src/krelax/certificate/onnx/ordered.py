"""What sorts, chooses the largest, or multiplies along an axis, by comparisons and products as krelax makes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations import ReLU, Step
from krelax.certificate.kernel.linear import Index
from krelax.certificate.onnx.activations import activation
from krelax.certificate.onnx.affine import OF_ATTRIBUTES, OF_OPERANDS, add, held, matrix, reduced, scaled, summed
from krelax.certificate.onnx.operator import (
    FLAG,
    INT,
    ON,
    Context,
    Tensor,
    Value,
    check_size,
    form,
    integer,
    normal_axes,
    numbers,
    reads,
)
from krelax.certificate.onnx.products import products
from krelax.certificate.onnx.shapes import joined
from krelax.errors import UnsupportedError

_INT64 = np.dtype(np.int64)


def _along(c: Context, x: Value, axis: int, places: Sequence[int] | Index) -> Value:
    return c.moved(numbers(x.shape).take(np.asarray(places, np.int64), axis), x)


@reads("TopK", forms=[
    form(7, 1, 1, 2, axis=integer(-1), k=INT),
    form(10, 2, 2, 2, axis=integer(-1)),
    form(11, 2, 2, 2, axis=integer(-1), largest=ON, sorted=ON),
])  # fmt: skip
def _largest(c: Context) -> list[Tensor | None]:
    """Entries along an axis in order; where they were is not known."""
    x = c.value()
    (axis,) = normal_axes([c.get("axis")], len(x.shape), True)
    count = c.get("k") if c.version < 10 else (c.integers("", 1) or [0])[0]
    if count is None or not 1 <= count <= x.shape[axis] or c.get("sorted") == 0:
        raise UnsupportedError(f"{count} of {x.shape[axis]} entries, or entries in no order")
    n, falling = x.shape[axis], c.get("largest") in {None, 1}
    for pairs in _rounds(n):
        x = _compared(c, x, axis, pairs, falling)
    return [_along(c, x, axis, range(count)), None]


def _rounds(n: int) -> Iterator[list[tuple[int, int]]]:
    """The comparisons of Batcher's merging of odd and even places, those of a round all at once."""
    block = 1
    while block < n:
        step = block
        while step:
            first = step % block
            yield [
                (j + i, j + i + step)
                for j in range(first, n - step, 2 * step)
                for i in range(min(step, n - j - step))
                if (i + j) // (2 * block) == (i + j + step) // (2 * block)
            ]
            step //= 2
        block *= 2


def _compared(c: Context, x: Value, axis: int, pairs: list[tuple[int, int]], falling: bool) -> Value:
    """Each pair in order: `b + relu(a - b)` and `a - relu(a - b)`."""
    firsts, seconds = [i for i, _ in pairs], [j for _, j in pairs]
    others = sorted(set(range(x.shape[axis])) - set(firsts) - set(seconds))
    a, b = _along(c, x, axis, firsts), _along(c, x, axis, seconds)
    more = activation(c, add(c, a, b, -1), ReLU(), a.shape)
    large, small = add(c, b, more, 1), add(c, a, more, -1)
    parts = [large, small] if falling else [small, large]
    parts += [_along(c, x, axis, others)] if others else []
    return _along(c, joined(c, parts, axis), axis, np.argsort([*firsts, *seconds, *others]))


@reads("ArgMax", "ArgMin", forms=[
    form(7, 1, axis=integer(0), keepdims=ON),
    form(12, 1, axis=integer(0), keepdims=ON, select_last_index=FLAG),
])  # fmt: skip
def _place(c: Context) -> Tensor:
    given = c.operand(0)
    if not isinstance(given, Value):
        return _of_constant(c, given)
    x = given
    (axis,) = normal_axes([c.get("axis")], len(x.shape), True)
    index = np.moveaxis(numbers(x.shape), axis, -1)
    won = _winners(c, c.moved(index, x), c.call.op == "ArgMin", c.get("select_last_index") == 1)
    n = x.shape[axis]
    shape = tuple(1 if a == axis else m for a, m in enumerate(x.shape) if c.get("keepdims") or a != axis)
    found = summed(c, scaled(c, won, np.arange(float(n))), [len(x.shape) - 1], won.shape[:-1])
    c.builder.only_real()
    return Value(found.node, shape, _INT64)


def _of_constant(c: Context, x: NDArray[Any]) -> Tensor:
    (axis,) = normal_axes([c.get("axis")], x.ndim, True)
    pick, last = np.argmin if c.call.op == "ArgMin" else np.argmax, c.get("select_last_index") == 1
    found = pick(np.flip(x, axis) if last else x, axis, keepdims=c.get("keepdims") == 1)
    return np.asarray(x.shape[axis] - 1 - found if last else found, np.int64)


@reads("Hardmax", forms=[form(7, 1, axis=integer(1)), form(13, 1, axis=integer(-1))])
def _hard_maximum(c: Context) -> Tensor:
    x = c.value()
    (axis,) = normal_axes([c.get("axis")], len(x.shape), c.version >= 11)
    c.builder.only_real()
    if c.version < 13:
        flat = Value(x.node, (prod(x.shape[:axis]), prod(x.shape[axis:])), x.dtype)
        return Value(_winners(c, flat, False, False).node, x.shape, x.dtype)
    won = _winners(c, c.moved(np.moveaxis(numbers(x.shape), axis, -1), x), False, False)
    return c.moved(np.moveaxis(numbers(won.shape), -1, axis), won)


def _winners(c: Context, x: Value, smallest: bool, last: bool) -> Value:
    """One where an entry wins against all others along the last axis: `relu(wins - (n - 2))`. Against those that come
    first where both are equal it must be beyond."""
    n = x.shape[-1]
    if n == 1:
        return scaled(c, x, 0.0, np.ones(()))
    check_size((*x.shape, n))
    counts = []
    for strictly in (True, False):
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j and (j < i) == (strictly != last)]
        mine, theirs = (_along(c, x, len(x.shape) - 1, [pair[k] for pair in pairs]) for k in (0, 1))
        away = add(c, theirs, mine, -1) if smallest else add(c, mine, theirs, -1)
        truths = activation(c, away, Step(0.0 if strictly else 1.0), away.shape)
        counting = np.zeros((len(pairs), n))
        counting[range(len(pairs)), [i for i, _ in pairs]] = 1
        counts.append(matrix(c, truths, counting))
    total = scaled(c, add(c, counts[0], counts[1], 1), 1.0, np.array(2.0 - n))
    return activation(c, total, ReLU(), total.shape)


@reads("ReduceProd", forms=[form(7, 1, **OF_ATTRIBUTES), form(18, 1, 2, **OF_OPERANDS)])
def _product(c: Context) -> Tensor:
    """Products of halves of what is left, again and again, axis by axis."""
    if not isinstance(c.operand(0), Value) and c.operand(0).dtype.kind in "iu":
        return _of_integers(c)
    x, (axes, shape) = c.value(), reduced(c)
    for axis in axes:
        while (n := x.shape[axis]) > 1:
            half = n // 2
            y = products(c, *(_along(c, x, axis, range(i * half, (i + 1) * half)) for i in (0, 1)))
            x = joined(c, [y, _along(c, x, axis, [n - 1])], axis) if n % 2 else y
    return Value(x.node, shape, x.dtype)


def _of_integers(c: Context) -> Tensor:
    x, (axes, shape) = c.operand(0), reduced(c)
    if isinstance(x, Value) or x.dtype not in {_INT64, np.dtype(np.int32)}:
        raise UnsupportedError("a product of other integers than int32 and int64; fold it when exporting")
    return held(np.asarray(np.prod(x.astype(object), tuple(axes)), object).reshape(shape), x.dtype)
