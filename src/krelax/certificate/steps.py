"""How one activation is crossed backwards: `<coeff, a> >= <slopes, z> - price`, neuron by neuron.

Slopes are chosen from a certificate's tables or by rule, and any will do: the price is the support function of the
graph, the maximum of `slope z - coeff act(z)` over the interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from krelax.certificate.arithmetic import Arithmetic, Array, Floats
from krelax.certificate.network import Activation


@dataclass
class Tables:
    """Slopes chosen for the rows of a batch: fractions `t`, `(rows, neurons)` or broadcast to it, of lower lines of
    ReLUs; `lines`, slopes of a neuron's lower and upper line, and `absolute` ones, both NaN where there are none."""

    t: Floats
    lines: tuple[Floats, Floats] | None = None
    absolute: Floats | None = None


def act(ar: Arithmetic, node: Activation, z: Floats) -> Array:
    """A (leaky) ReLU at floats."""
    positive = ar.number(np.maximum(z, 0.0))
    if node.negative_slope == 0:
        return positive
    return positive + ar.number(np.asarray(node.negative_slope)) * ar.number(np.minimum(z, 0.0))


def chord(node: Activation, lower: Floats, upper: Floats) -> Floats:
    """Slope of the upper line of a ReLU with `lower < 0 < upper`; anything elsewhere."""
    width = np.where(upper > lower, upper - lower, 1.0)
    return (np.maximum(upper, 0) - node.negative_slope * np.minimum(lower, 0)) / width


def adaptive(node: Activation, lower: Floats, upper: Floats) -> Floats:
    """The lower line of smaller area."""
    return np.where(upper > -lower, 1.0, node.negative_slope)


def slopes(node: Activation, coeff: Floats, lower: Floats, upper: Floats, tables: Tables) -> Floats:
    """Slopes on the pre-activation, `(rows, neurons)`, for the coefficients behind it."""
    fixed = (lower >= 0) | (upper <= 0)
    own = np.where(lower >= 0, 1.0, node.negative_slope)
    low = np.where(fixed, own, tables.t)
    high = np.where(fixed, own, chord(node, lower, upper))
    result = np.where(coeff > 0, low, high) * coeff
    if tables.lines is not None:
        line = np.where(coeff > 0, *tables.lines)
        result = np.where(np.isnan(line), result, line * coeff)
    if tables.absolute is not None:
        result = np.where(np.isnan(tables.absolute), result, tables.absolute)
    return result


def price(ar: Arithmetic, node: Activation, coeff: Array, slope: Array, lower: Floats, upper: Floats) -> Array:
    """`max slope z - coeff act(z)` over the intervals, `(rows, neurons)`: at an end, or at zero."""
    ends = [slope * ar.number(z) - coeff * act(ar, node, z) for z in (lower, upper)]
    best = ar.maximum(*ends)
    crossing = (lower < 0) & (upper > 0)
    return ar.where(crossing, ar.maximum(best, ar.number(np.zeros(()))), best)
