"""Activations, and what is made of them: absolute values, clips, and maxima and minima of two.

They are made of ReLUs as krelax makes them, so that a certificate's activations have the same numbers.
"""

from __future__ import annotations

from functools import reduce
from math import prod
from typing import Any

import numpy as np

from krelax.certificate.affine import add, scaled
from krelax.certificate.context import Context, Shape, Tensor, Value, reads
from krelax.certificate.network import Activation
from krelax.errors import UnsupportedError

# Exporters write this for no bound.
_UNBOUNDED = float(np.finfo(np.float32).max)


def activation(c: Context, x: Value, kind: str, shape: Shape, **more: Any) -> Value:
    """An activation of all entries of a value."""
    return Value(c.builder.add(Activation((x.node,), kind, prod(shape), **more)), shape)


@reads("Relu", "LeakyRelu")
def _relu(c: Context) -> Tensor:
    slope = float(c.get("alpha", np.float32(0.01))) if c.call.op == "LeakyRelu" else 0.0
    if not 0 <= slope <= 1:
        raise UnsupportedError(f"a leaky ReLU with a negative slope of {slope:g}; it must lie in [0, 1]")
    return activation(c, c.value(), "relu", c.value().shape, negative_slope=slope)


@reads("Sigmoid", "Tanh")
def _smooth(c: Context) -> Tensor:
    return activation(c, c.value(), c.call.op.lower(), c.value().shape)


@reads("GlobalMaxPool")
def _global_max_pool(c: Context) -> Tensor:
    x = c.value()
    images, channels, *spatial = x.shape
    shape = (images, channels, *[1] * len(spatial))
    return activation(c, x, "max", shape, window=prod(spatial))


def _maximum(c: Context, a: Tensor, b: Tensor) -> Tensor:
    """`b + relu(a - b)`; a constant is b."""
    if not isinstance(a, Value):
        a, b = b, a
    return add(c, _positive(c, add(c, a, b, -1)), b, 1)


def _minimum(c: Context, a: Tensor, b: Tensor) -> Tensor:
    """`a - relu(a - b)`; a constant is b."""
    if not isinstance(a, Value):
        a, b = b, a
    return add(c, a, _positive(c, add(c, a, b, -1)), -1)


def _positive(c: Context, x: Tensor) -> Value:
    if not isinstance(x, Value):
        raise UnsupportedError("operands that are all constant; fold them when exporting")
    return activation(c, x, "relu", x.shape)


@reads("Max", "Min")
def _extremum(c: Context) -> Tensor:
    pick = _maximum if c.call.op == "Max" else _minimum
    present = [x for x in c.operands if x is not None]
    return reduce(lambda a, b: pick(c, a, b), present)


@reads("Abs")
def _absolute(c: Context) -> Tensor:
    """`relu(x) + relu(-x)`."""
    x = c.value()
    return add(c, _positive(c, x), _positive(c, scaled(c, x, -1.0)), 1)


@reads("Clip")
def _clip(c: Context) -> Tensor:
    """`high - relu(high - max(x, low))`; infinities and the largest float32 are no bounds. The upper one wins."""
    low, high = (_bound(c, name, place) for name, place in (("min", 1), ("max", 2)))
    x: Tensor = c.value()
    low = min(low, high)
    if low > -_UNBOUNDED:
        x = _maximum(c, x, np.array(low))
    if high < _UNBOUNDED:
        x = add(c, np.array(high), _positive(c, add(c, np.array(high), x, -1)), -1)
    return x


def _bound(c: Context, name: str, place: int) -> float:
    """A bound of a clip; infinite if it is missing."""
    given = c.get(name, c.constant(place))
    if given is None:
        return -np.inf if name == "min" else np.inf
    return float(np.asarray(given).item())
