"""Activations, and what is made of them: absolute values, clips, and maxima and minima of two.

They are made of ReLUs as krelax makes them, so that a certificate's activations have the same numbers.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from krelax.certificate.kernel.activations import RULES, Maximum, ReLU, Rule
from krelax.certificate.kernel.linear import Scale
from krelax.certificate.kernel.network import Activation
from krelax.certificate.onnx.affine import add, scaled, whole
from krelax.certificate.onnx.operator import FLOAT, MANY, Context, Tensor, Value, Wide, form, reads
from krelax.certificate.onnx.tensors import Shape
from krelax.errors import UnsupportedError

# What a clip's bounds are in older versions where there are none, and what exporters write for none. No number in
# float32 is beyond them.
_UNBOUNDED = float(np.finfo(np.float32).max)


def activation(c: Context, x: Value, rule: Rule, shape: Shape) -> Value:
    """An activation of all entries of a value."""
    return Value(c.builder.add(Activation((x.node,), rule, prod(shape))), shape, x.dtype)


@reads(*(op for op, rule in RULES.items() if not is_dataclass(rule)), forms=[form(7, 1)])
def _plain(c: Context) -> Tensor:
    """An activation without attributes."""
    return activation(c, c.value(), RULES[c.call.op](), c.value().shape)


@reads("GlobalMaxPool", forms=[form(7, 1)])
def _global_max_pool(c: Context) -> Tensor:
    x = c.value()
    if len(x.shape) < 3:
        raise UnsupportedError(f"a tensor of shape {list(x.shape)}")
    shape = (*x.shape[:2], *[1] * (len(x.shape) - 2))
    return activation(c, x, Maximum(prod(x.shape[2:])), shape)


def maximum(c: Context, a: Tensor | Wide, b: Tensor | Wide) -> Value:
    """`b + relu(a - b)`; a constant is b."""
    if not isinstance(a, Value):
        a, b = b, a
    return add(c, _positive(c, add(c, a, b, -1)), b, 1)


def minimum(c: Context, a: Tensor | Wide, b: Tensor | Wide) -> Value:
    """`a - relu(a - b)`; a constant is b."""
    if not isinstance(a, Value):
        a, b = b, a
    return add(c, a, _positive(c, add(c, a, b, -1)), -1)


def _positive(c: Context, x: Value) -> Value:
    return activation(c, x, ReLU(), x.shape)


@reads("Max", "Min", forms=[form(7, 1, MANY)])
def _extremum(c: Context) -> Tensor:
    pick, operands = maximum if c.call.op == "Max" else minimum, [c.operand(i) for i in range(len(c.operands))]
    if c.version < 8 and len({x.shape for x in operands}) != 1:
        raise UnsupportedError("operands of different shapes before version 8 of the operator set")
    if not any(isinstance(x, Value) for x in operands):
        best = np.frompyfunc(max if c.call.op == "Max" else min, 2, 1)
        return reduce(lambda a, b: whole(best, a, b), [x for x in operands if not isinstance(x, Value)])
    present: list[Tensor] = [x if isinstance(x, Value) else c.weight(i) for i, x in enumerate(operands)]
    if not any(isinstance(x, Value) for x in present[:2]):
        raise UnsupportedError("operands that are all constant; fold them when exporting")
    return reduce(lambda a, b: pick(c, a, b), present)


@reads("Abs", forms=[form(7, 1)])
def _abs(c: Context) -> Tensor:
    x = c.operand(0)
    return absolute(c, x) if isinstance(x, Value) else whole(abs, x)


def absolute(c: Context, x: Value) -> Value:
    """`relu(x) + relu(-x)`."""
    return add(c, _positive(c, x), _positive(c, scaled(c, x, -1.0)), 1)


@reads("Clip", forms=[form(7, 1, min=FLOAT, max=FLOAT), form(11, 1, 3)])
def _clip(c: Context) -> Tensor:
    """`high - relu(high - max(x, low))`. Bounds that no number in float32 is beyond are none, for values within them:
    that they are is for the proof to show."""
    if c.version >= 11 and any(not _is_number(c, place) for place in (1, 2)):
        return _between(c)
    low, high = (_bound(c, name, place) for name, place in (("min", 1), ("max", 2)))
    if low is not None and high is not None and low > high:
        raise UnsupportedError(f"a clip to [{low:g}, {high:g}], which readers take differently")
    if (low or 0.0) >= _UNBOUNDED or (high or 0.0) <= -_UNBOUNDED:
        raise UnsupportedError("a clip to the largest numbers alone")
    x = c.value()
    limits = [b for b in (-low if low is not None else 0.0, high or 0.0) if b >= _UNBOUNDED]
    if limits:
        x = c.affine([c.value()], [Scale(np.ones(1))], c.value().shape, within=min(limits))
    return clipped(c, x, low, high)


def _is_number(c: Context, place: int) -> bool:
    x = c.operands[place] if place < len(c.operands) else None
    return x is None or isinstance(x, np.ndarray) or (isinstance(x, Wide) and x.error is None)


def _between(c: Context) -> Value:
    """Limits that are computed, of constants or of the input."""
    x = c.value()
    for place, pick in ((1, maximum), (2, minimum)):
        if place < len(c.operands) and c.operands[place] is not None:
            limit = c.given(place) if isinstance(c.given(place), Value) else c.factor(place)
            if prod(limit.shape) != 1:
                raise UnsupportedError(f"a limit of shape {list(limit.shape)}, not one number")
            one = Value(limit.node, (), limit.dtype) if isinstance(limit, Value) else _single(limit)
            x = pick(c, x, one)
    return x


def _single(limit: Any) -> Any:
    if isinstance(limit, Wide):
        return Wide(limit.numbers.reshape(()), limit.dtype, None if limit.error is None else limit.error.reshape(()))
    return limit.reshape(())


def clipped(c: Context, x: Value, low: float | None, high: float | None) -> Value:
    """`high - relu(high - max(x, low))`; bounds beyond the largest float32 are none."""
    if low is not None and low > -_UNBOUNDED:
        x = maximum(c, x, np.array(low))
    if high is not None and high < _UNBOUNDED:
        x = add(c, np.array(high), _positive(c, add(c, np.array(high), x, -1)), -1)
    return x


def _bound(c: Context, name: str, place: int) -> float | None:
    """A bound of a clip, None if there is none."""
    if c.version >= 11:
        return c.scalar(place)
    given = {"min": -_UNBOUNDED, "max": _UNBOUNDED}[name] if name not in c.call.attributes else c.get(name)
    return float(given)
