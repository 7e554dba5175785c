"""Arithmetic of constants: exact where their element type holds the result, and else enclosed.

The operators are written once, for arrays of fractions and for enclosures, which have the same operators.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial, reduce
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.onnx.affine import held, reduced
from krelax.certificate.onnx.operator import Context, Value, Wide, broadcast, check_size
from krelax.errors import InputError, UnsupportedError

_UNIT, _TINY, _UP = 2.0**-53, 2.0**-1000, 1 + 2.0**-40
_FLOATS = np.dtype(np.float32), np.dtype(np.float64)
# Products of fractions that are worth an exact result.
_MOST_FRACTIONS = 10**5


@dataclass(frozen=True, eq=False)
class Enclosure:
    """Real numbers within `error` of `near`, entry by entry."""

    near: Floats
    error: Floats

    __array_ufunc__ = None

    def _made(self, near: Any, *errors: Any, size: Any = None) -> Enclosure:
        """A result, computed with one rounding, or with those that a relative error of its `size` covers."""
        near = np.asarray(near, np.float64)
        rounded = _UNIT * np.abs(near) if size is None else size
        return Enclosure(near, np.asarray(_UP * (sum(errors) + rounded) + _TINY, np.float64))

    def __add__(self, other: Enclosure) -> Enclosure:
        return self._made(self.near + other.near, self.error, other.error)

    def __sub__(self, other: Enclosure) -> Enclosure:
        return self + -other

    def __neg__(self) -> Enclosure:
        return Enclosure(-self.near, self.error)

    def __abs__(self) -> Enclosure:
        return Enclosure(abs(self.near), self.error)

    def __mul__(self, other: Enclosure) -> Enclosure:
        a, b = self, other
        return self._made(a.near * b.near, abs(a.near) * b.error, (abs(b.near) + b.error) * a.error)

    def __truediv__(self, other: Enclosure) -> Enclosure:
        least = (abs(other.near) - other.error) * (1 - 2.0**-50)
        if not (least > 0).all():
            raise InputError("division by what may be zero")
        near = self.near / other.near
        return self._made(near, self.error / least, (abs(near) * _UP + _TINY) * (other.error / least))

    def __matmul__(self, other: Enclosure) -> Enclosure:
        a, b = self, other
        terms = a.near.shape[-1]
        rounded, long = 2 * (terms + 2) * (_UNIT * (abs(a.near) @ abs(b.near)) + _TINY), 1 + 4 * terms * _UNIT
        errors = abs(a.near) @ b.error, a.error @ (abs(b.near) + b.error)
        return self._made(a.near @ b.near, *(long * error for error in errors), size=rounded)

    def sum(self, axis: tuple[int, ...]) -> Enclosure:
        terms = prod(self.near.shape[a] for a in axis)
        return self._made(
            self.near.sum(axis),
            (1 + 4 * terms * _UNIT) * self.error.sum(axis),
            size=2 * (terms + 1) * _UNIT * abs(self.near).sum(axis),
        )

    def maximum(self, other: Enclosure) -> Enclosure:
        return Enclosure(np.maximum(self.near, other.near), np.maximum(self.error, other.error) + 0 * other.near)

    def root(self) -> Enclosure:
        if not (self.near > self.error).all():
            raise UnsupportedError("a square root of what may not be positive; fold it when exporting")
        near = np.sqrt(self.near)
        return self._made(near, _UP * self.error / near)


# Fractions, or enclosures.
_Numbers = Any
_Function = Callable[[Context, Sequence[_Numbers]], _Numbers]


def _maximum(a: _Numbers, b: _Numbers) -> _Numbers:
    return a.maximum(b) if isinstance(a, Enclosure) else np.maximum(a, b)


def _sum(c: Context, x: Sequence[_Numbers]) -> _Numbers:
    axes, shape = reduced(c)
    total = x[0].sum(tuple(axes)) if axes else x[0]
    near = total.near if isinstance(total, Enclosure) else np.asarray(total)
    if isinstance(total, Enclosure):
        return Enclosure(near.reshape(shape), np.asarray(total.error).reshape(shape))
    return near.reshape(shape)


def _mean(c: Context, x: Sequence[_Numbers]) -> _Numbers:
    axes, _ = reduced(c)
    return _sum(c, x) / _number(x[0], prod(c.shape(0)[a] for a in axes))


def _number(like: _Numbers, value: int) -> _Numbers:
    if isinstance(like, Enclosure):
        return Enclosure(np.array(float(value)), np.zeros(()))
    return np.array(Fraction(value), object)


_FOLDS: dict[str, _Function] = {
    "Add": lambda c, x: x[0] + x[1],
    "Sub": lambda c, x: x[0] - x[1],
    "Mul": lambda c, x: x[0] * x[1],
    "Div": lambda c, x: x[0] / x[1],
    "Neg": lambda c, x: -x[0],
    "Abs": lambda c, x: abs(x[0]),
    "Relu": lambda c, x: _maximum(x[0], _number(x[0], 0)),
    "Reciprocal": lambda c, x: _number(x[0], 1) / x[0],
    "Max": lambda c, x: reduce(_maximum, x),
    "Min": lambda c, x: -reduce(_maximum, [-y for y in x]),
    "Sum": lambda c, x: reduce(operator.add, x),
    "Mean": lambda c, x: reduce(operator.add, x) / _number(x[0], len(x)),
    "MatMul": lambda c, x: x[0] @ x[1],
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "Sqrt": lambda c, x: x[0].root(),
}
# Of two operands that are not subnormal these are right in every execution where their type holds the result.
_ROUND_ONCE = {"Add", "Sub", "Mul", "Neg", "Abs", "Relu", "Max", "Min", "Sum"}
_NORMAL = 2.0**-126
_ELEMENTWISE = _FOLDS.keys() - {"MatMul", "ReduceSum", "ReduceMean"}


def folds(c: Context) -> bool:
    """Whether a call is arithmetic of floating-point constants, dequantised and computed ones among them."""
    first = c.operands[0] if c.operands else None
    return (
        c.call.op in _FOLDS
        and first is not None
        and first.dtype in _FLOATS
        and not any(isinstance(x, Value) for x in c.operands)
    )


def folded(c: Context) -> NDArray[Any] | Wide:
    """What the call computes: a constant of the operands' type if that holds the result, and else an enclosure."""
    operands = [c.given(i) for i in range(1 if c.call.op in {"ReduceSum", "ReduceMean"} else len(c.operands))]
    kind = operands[0].dtype
    if any(x.dtype != kind for x in operands):
        raise InputError(f"operands of types {', '.join(sorted({str(x.dtype) for x in operands}))}")
    work = _work(c, [x.shape for x in operands]) if c.call.op != "Sqrt" else _MOST_FRACTIONS + 1
    return fold(c, partial(_FOLDS[c.call.op], c), operands, work)


def fold(c: Context, function: Callable[[list[_Numbers]], _Numbers], operands: Sequence[Any], work: int) -> Any:
    """A function of constants of one type: a constant of that type if that holds the result, and else an enclosure."""
    kind = operands[0].dtype
    if not any(isinstance(x, Wide) for x in operands) and work <= _MOST_FRACTIONS:
        try:
            numbers = [np.vectorize(Fraction, [object])(x) if np.size(x) else x.astype(object) for x in operands]
            exact = held(np.asarray(function(numbers), object), kind)
            tiny = any(((x != 0) & (np.abs(x) < _NORMAL)).any() for x in operands)
            if c.call.op not in _ROUND_ONCE or len(operands) > 2 or tiny:
                c.builder.only_real()  # an execution may round, or flush, on the way to what its type holds
            return exact
        except ZeroDivisionError as error:
            raise InputError("division by zero") from error
        except UnsupportedError:  # the type does not hold the result
            pass
    with np.errstate(all="ignore"):
        made = function([_enclosed(x) for x in operands])
    if not (np.isfinite(made.near).all() and np.isfinite(made.error).all()):
        raise UnsupportedError("constants whose result is too large, or not known; fold it when exporting")
    c.builder.only_real()
    return Wide(made.near, kind, made.error)


def _work(c: Context, shapes: Sequence[tuple[int, ...]]) -> int:
    """How many products of two numbers a call takes; its operands fit together."""
    if c.call.op in _ELEMENTWISE:
        return prod(broadcast(*shapes)) * len(shapes)
    if c.call.op != "MatMul":
        return prod(shapes[0])
    a, b = shapes
    if not a or not b or a[-1] != b[-2:][0]:
        raise InputError(f"a product of shapes {list(a)} and {list(b)}")
    shape = (*broadcast((1, *a[:-2]), (1, *b[:-2])), *a[-2:-1], *b[-1:])
    check_size(shape)
    return prod(shape) * a[-1]


def _enclosed(x: Any) -> Enclosure:
    if isinstance(x, Wide):
        return Enclosure(x.numbers, np.zeros_like(x.numbers) if x.error is None else x.error)
    near = x.astype(np.float64)
    return Enclosure(near, np.zeros_like(near))
