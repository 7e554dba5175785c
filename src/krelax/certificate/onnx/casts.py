"""Casts, of constants and of values."""

from __future__ import annotations

from typing import Any

import numpy as np

from krelax.certificate.kernel.activations import RULES, ReLU, Step
from krelax.certificate.kernel.linear import Scale
from krelax.certificate.onnx.activations import activation
from krelax.certificate.onnx.affine import add, scaled
from krelax.certificate.onnx.operator import (
    INT,
    Context,
    Endless,
    Everything,
    Hidden,
    Value,
    Wide,
    form,
    only,
    reads,
)
from krelax.certificate.onnx.shapes import converted
from krelax.certificate.onnx.tensors import element_type
from krelax.errors import UnsupportedError

_SINGLE, _DOUBLE, _BOOL = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.bool_)
# Numbers that a cast to a type of whole numbers keeps.
_KEPT = {np.dtype(np.int32): 2.0**31 - 1, np.dtype(np.int64): 2.0**62}


@reads("Cast", forms=[form(7, 1, to=INT), form(19, 1, to=INT, saturate=only(1)),
                      form(24, 1, to=INT, saturate=only(1))])  # fmt: skip
def _cast(c: Context) -> Everything:
    return _made(c, element_type(c.get("to") or 0))


@reads("CastLike", forms=[form(15, 2), form(19, 2, saturate=only(1))])
def _cast_like(c: Context) -> Everything:
    return _made(c, c.whole(1).dtype)


def _made(c: Context, to: np.dtype[Any]) -> Everything:
    x = c.whole(0)
    if isinstance(x, Wide | Endless | Hidden):
        if to not in {x.dtype, _DOUBLE} or x.dtype not in {_SINGLE, _DOUBLE}:
            raise UnsupportedError(f"a cast of a computed constant, or of minus infinity, to {to}")
        if isinstance(x, Hidden):
            return Hidden(Value(x.value.node, x.shape, to), x.kept)
        return Wide(x.numbers, to, x.error) if isinstance(x, Wide) else Endless(x.numbers, to)
    return _of_value(c, x, to) if isinstance(x, Value) else converted(x, to)


def _of_value(c: Context, x: Value, to: np.dtype[Any]) -> Value:
    """Whole numbers stay as they are in wide types; others lose their fraction, or become truths."""
    if to in {_SINGLE, _DOUBLE}:
        if x.dtype == _DOUBLE and to == _SINGLE:
            raise UnsupportedError("a cast of float64 to float32, which rounds")
        return Value(x.node, x.shape, to)
    if x.dtype.kind in "iub":
        if to not in _KEPT and to != x.dtype:
            raise UnsupportedError(f"a cast of whole numbers that depend on the input to {to}")
        if to in _KEPT and to.itemsize < x.dtype.itemsize:  # others wrap around
            x = c.affine([x], [Scale(np.ones(1))], x.shape, within=_KEPT[to])
        return Value(x.node, x.shape, to)
    c.builder.only_real()
    if to == _BOOL:
        above, below = (activation(c, t, Step(0.0), x.shape) for t in (x, scaled(c, x, -1.0)))
        return Value(add(c, above, below, 1).node, x.shape, to)
    if to not in _KEPT:
        raise UnsupportedError(f"a cast of what depends on the input to {to}; int32 and int64 are supported")
    kept = c.affine([x], [Scale(np.ones(1))], x.shape, within=_KEPT[to])
    return Value(truncated(c, kept).node, x.shape, to)


def truncated(c: Context, x: Value) -> Value:
    """Towards zero: `floor(relu(z)) - floor(relu(-z))`."""
    floor = RULES["Floor"]
    halves = []
    for side in (x, scaled(c, x, -1.0)):
        positive = activation(c, side, ReLU(), x.shape)
        halves.append(activation(c, positive, floor(), x.shape))
    return add(c, halves[0], halves[1], -1)
