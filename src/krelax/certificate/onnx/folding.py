"""Operators on constants that are written for values: read as if the first constant were the input of a network, and
enclosed by that network's bounds at one point. So whatever is read of values is read of constants, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.errors import Rejected
from krelax.certificate.kernel.arithmetic import Float64
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.region import Region
from krelax.certificate.onnx.builder import Builder
from krelax.certificate.onnx.operator import Context, Endless, Everything, Hidden, Operator, Value, Wide
from krelax.errors import InputError, UnsupportedError

_FLOATS = np.dtype(np.float32), np.dtype(np.float64)
_MOST_NUMBERS = 10**6


def by_reading(operator: Operator, c: Context) -> Everything | Sequence[Everything | None]:
    """What a call gives: as its reader says, or if that does not take constants alone, what they are enclosed by."""
    try:
        return operator.read(c)
    except InputError as error:
        place = _place(c)
        if place is None:
            raise
        try:
            return _enclosed(operator, c, place)
        except InputError:
            raise error from None


def _place(c: Context) -> int | None:
    """The first operand of floating-point numbers of a call whose operands are all constant; None for others."""
    if any(isinstance(x, Value | Endless | Hidden) for x in c.operands):
        return None
    floats = [i for i, x in enumerate(c.operands) if x is not None and x.dtype in _FLOATS]
    if not floats or not 0 < prod(c.shape(floats[0])) <= _MOST_NUMBERS:
        return None
    return floats[0]


def _enclosed(operator: Operator, c: Context, place: int) -> list[Everything | None]:
    given = c.given(place)
    assert not isinstance(given, Value)
    name, size = c.call.inputs[place], prod(given.shape)
    builder = Builder(size)
    point = Value(0, given.shape, given.dtype)
    operands = [point if own == name else x for own, x in zip(c.call.inputs, c.operands, strict=True)]
    found = operator.read(replace(c, builder=builder, operands=operands))
    several = list(found) if isinstance(found, Sequence) else [found]
    c.builder.only_real()
    near = (given.numbers if isinstance(given, Wide) else given).astype(np.float64).reshape(1, size)
    error = given.error.reshape(1, size) if isinstance(given, Wide) and given.error is not None else np.zeros((1, size))
    lower, upper = (np.where(error > 0, np.nextafter(near + s * error, s * np.inf), near) for s in (-1, 1))
    return [_value(builder, x, Region(lower, upper)) for x in several]


def _value(builder: Builder, x: Everything | None, region: Region) -> Everything | None:
    """A value at the point, as a constant of its type if that is what it is."""
    if not isinstance(x, Value):
        return x
    if x.dtype not in _FLOATS:
        raise UnsupportedError(f"a result of constants of type {x.dtype}; fold it when exporting")
    network = builder.build(x.node, False)
    try:
        with np.errstate(all="ignore"):
            bounds = LayerBounds.of(network, region, Float64(), False)
            while len(bounds.lower) < len(network.nodes):
                bounds = bounds.advanced()
    except Rejected as error:
        raise UnsupportedError(
            f"a result of constants that is not bounded ({error}); fold it when exporting"
        ) from error
    lower, upper = bounds.lower[-1].reshape(x.shape), bounds.upper[-1].reshape(x.shape)
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        raise UnsupportedError("a result of constants that is not bounded; fold it when exporting")
    stored: NDArray[Any] = lower.astype(x.dtype)
    if (lower == upper).all() and (stored == lower).all():
        return stored
    middle = (lower + upper) / 2
    return Wide(middle, x.dtype, np.nextafter(np.maximum(upper - middle, middle - lower), np.inf))
