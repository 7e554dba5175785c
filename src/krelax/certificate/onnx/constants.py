"""Operators on constants alone: shapes and masks that exporters compute, and weights that are stored as integers."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations import RULES
from krelax.certificate.onnx.activations import activation
from krelax.certificate.onnx.affine import ROUNDED, add, computed, scaled, whole
from krelax.certificate.onnx.casts import truncated
from krelax.certificate.onnx.operator import (
    FLAG,
    TENSOR,
    Context,
    Tensor,
    Value,
    Wide,
    broadcast,
    check_size,
    form,
    normal_axes,
    reads,
)
from krelax.errors import InputError, UnsupportedError

_BOOL, _INT64, _INT32 = np.dtype(np.bool_), np.dtype(np.int64), np.dtype(np.int32)
_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
_STORED = np.dtype(np.int8), np.dtype(np.uint8), _INT32


def _plain(c: Context, place: int) -> NDArray[Any]:
    """A constant operand, of whatever type."""
    x = c.operand(place)
    if isinstance(x, Value):
        raise UnsupportedError(f"operand {place} depends on the input")
    return x


def dequantised_constant(c: Context) -> Wide:
    """Of a constant: `(x - zero) * scale`: integers of 33 bits times float32 numbers are float64 numbers."""
    stored, scale = _plain(c, 0), c.constant(1, _SINGLE)
    zero = c.constant(2, stored.dtype)
    if scale is None or stored.dtype not in _STORED or (zero is not None and zero.shape != scale.shape):
        raise UnsupportedError(f"weights stored as {stored.dtype}, or zero points of another shape than scales")
    shape: list[int] = []
    if scale.size != 1 or scale.ndim > 1:
        (axis,) = normal_axes([1 if c.get("axis") is None else c.get("axis")], stored.ndim, True)
        shape = [-1 if i == axis else 1 for i in range(stored.ndim)]
        if scale.shape != (stored.shape[axis],):
            raise InputError(f"scales of shape {list(scale.shape)} for weights of shape {list(stored.shape)}")
    whole_part = stored.astype(np.int64) - (0 if zero is None else zero.astype(np.int64).reshape(shape))
    numbers = whole_part * scale.astype(np.float64).reshape(shape)
    if (np.abs(whole_part) >= 1 << 29).any():
        raise UnsupportedError("stored weights beyond 2**29, whose products with scales round")
    c.builder.only_real()
    return Wide(numbers, _SINGLE)


@reads("ConstantOfShape", forms=[form(9, 1, value=TENSOR)])
def _constant_of_shape(c: Context) -> Tensor:
    shape, value = c.integers("", 0), c.get("value")
    value = np.zeros(1, np.float32) if value is None else value
    if shape is None or value.size != 1 or min(shape, default=1) < 0:
        raise InputError(f"a constant of shape {shape}")
    if prod(shape):
        check_size(tuple(shape))
    return np.broadcast_to(value.reshape(()), shape).copy()


@reads("Size", forms=[form(7, 1)])
def _size(c: Context) -> Tensor:
    return np.array(prod(c.shape(0)), np.int64)


@reads("Range", forms=[form(11, 3)])
def _range(c: Context) -> Tensor:
    ends = [c.constant(i, _INT64, _INT32) for i in range(3)]
    if any(e is None or e.size != 1 for e in ends) or len({e.dtype for e in ends if e is not None}) != 1:
        raise InputError("a range without ends")
    start, limit, step = (int(e.item()) for e in ends if e is not None)
    if not step or abs((limit - start) // step) > 10**6:
        raise UnsupportedError(f"a range from {start} to {limit} in steps of {step}")
    assert ends[0] is not None
    return np.array(range(start, limit, step), ends[0].dtype)


def _remainder(c: Context) -> Value:
    x, modulus = c.value(), c.weight(1)
    if not c.get("fmod") or not modulus.all():
        raise InputError("a remainder of floating-point numbers without fmod, or of a division by zero")
    c.builder.only_real()
    quotient = scaled(c, x, computed(1 / modulus), fuzz=ROUNDED, made_of=float(np.max(np.abs(modulus))))
    return add(c, x, scaled(c, truncated(c, quotient), modulus), -1)


_COMPARED: dict[str, Callable[..., Any]] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal,
}
_LOGIC: dict[str, Callable[..., Any]] = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}


@reads("Equal", forms=[form(7, 2)])
def compared(c: Context) -> Tensor:
    """Constants, compared."""
    a, b = _plain(c, 0), _plain(c, 1)
    if a.dtype != b.dtype:
        raise InputError(f"operands of types {a.dtype} and {b.dtype}")
    broadcast(a.shape, b.shape)
    return np.asarray(_COMPARED[c.call.op](a, b), np.bool_)


@reads("Xor", forms=[form(7, 2)])
def logic(c: Context) -> Tensor:
    """Truths, joined."""
    a, b = (c.constant(i, _BOOL) for i in range(2))
    if a is None or b is None:
        raise InputError("an operand is missing")
    broadcast(a.shape, b.shape)
    return np.asarray(_LOGIC[c.call.op](a, b), np.bool_)


def negated(c: Context) -> Tensor:
    """The opposite of truths."""
    x = c.constant(0, _BOOL)
    assert x is not None  # as who calls this has seen
    return np.asarray(~x)


@reads("Floor", "Ceil", forms=[form(7, 1)])
def _rounded(c: Context) -> Tensor:
    if isinstance(c.operand(0), Value):
        return activation(c, c.value(), RULES[c.call.op](), c.value().shape)
    x = _plain(c, 0)
    if x.dtype not in {_SINGLE, _DOUBLE}:
        raise InputError(f"operand of type {x.dtype}")
    return np.asarray(np.floor(x) if c.call.op == "Floor" else np.ceil(x), x.dtype)


@reads("Mod", forms=[form(10, 2, fmod=FLAG)])
def _mod(c: Context) -> Tensor:
    """Of integers with the sign of the divisor, or with fmod of values, with their own sign: `x - m trunc(x / m)`."""
    if isinstance(c.operand(0), Value):
        return _remainder(c)
    a, b = _plain(c, 0), _plain(c, 1)
    if c.get("fmod"):
        raise UnsupportedError("a remainder with fmod of constants; fold it when exporting")
    if not b.all() or a.dtype.kind == "f":
        raise UnsupportedError("a remainder of floats, or of a division by zero")
    return whole(np.frompyfunc(lambda x, y: x % y, 2, 1), a, b)
