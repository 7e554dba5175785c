"""Convex piecewise-linear activations with one kink at zero: ReLU and leaky ReLU.

With `l < 0 < u` the convex hull of the graph is a triangle with corners at l, 0 and u, so the support function is a
maximum over three points: exact, for every slope (Ehlers 2017; Salman et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, TypeVar

import torch
from torch import Tensor

from krelax.activations.base import ASIDE, Activation, Lines, Relaxation, Rule, Splits, Support

_STEPS, _TINY = 255.0, 1e-30

S = TypeVar("S")
R = TypeVar("R")


def _once(method: Callable[[S], R]) -> Callable[[S], R]:
    """A method that searches call a thousand times a second, computed once. Nobody may change tensors it returns."""
    name = f"_once_{method.__name__}"

    def kept(self: S) -> R:
        values: dict[str, Any] = vars(self)
        if name not in values:
            values[name] = method(self)
        result: R = values[name]
        return result

    update_wrapper(kept, method)
    return kept


class Triangle(Relaxation):
    """The triangle of `max(z, 0) + negative_slope * min(z, 0)`; a segment where the neuron is stable."""

    optimised = (True, False)

    def __init__(self, op: Activation, lower: Tensor, upper: Tensor, negative_slope: float) -> None:
        super().__init__(op, lower, upper)
        self.negative_slope = negative_slope

    def over(self, lower: Tensor, upper: Tensor) -> Triangle:
        return Triangle(self.op, lower, upper, self.negative_slope)

    def triangle(self) -> Triangle:
        return self

    def splits(self) -> Splits:
        """At the kink: what is left is linear, and lower lines may be facets anyway."""
        zero = torch.zeros_like(self.lower)
        return Splits(zero, zero, zero, self.height())

    def _act(self, z: Tensor) -> Tensor:
        return z.clamp(min=0) + self.negative_slope * z.clamp(max=0)

    def interval(self) -> tuple[Tensor, Tensor]:
        if self.negative_slope == 0:  # also of infinite bounds
            return self.lower.clamp(min=0), self.upper.clamp(min=0)
        if self.negative_slope == 1:
            return self.lower, self.upper
        # the product with the slope rounds
        limits = torch.finfo(self.lower.dtype)
        low, high = (self.negative_slope * t.clamp(max=0) for t in (self.lower, self.upper))
        low, high = (low - 4 * limits.eps * low.abs() - limits.tiny, high + 4 * limits.eps * high.abs() + limits.tiny)
        return self.lower.clamp(min=0) + low, self.upper.clamp(min=0) + high

    @_once
    def unstable(self) -> Tensor:
        return (self.lower < 0) & (self.upper > 0)

    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        lower, upper = self.lower.unsqueeze(1), self.upper.unsqueeze(1)
        kink = torch.zeros_like(lower).clamp(lower, upper)
        z = torch.stack(torch.broadcast_tensors(lower, kink, upper, slope)[:3])
        values = slope * z - coeff * self._act(z)
        value, arg = values.max(0)
        z = z.gather(0, arg[None])[0]
        return Support(value, z, self._act(z))

    @_once
    def chord(self) -> Tensor:
        """Slope of the upper line: the chord where unstable, the activation's own slope elsewhere.

        Rounded to float32, in which proofs are written down; lines pay for what that changes.
        """
        exact = self._exact_chord()
        return torch.where(self.unstable(), exact.float().to(exact), exact)

    def _exact_chord(self) -> Tensor:
        """The same for lines that nobody writes down."""
        width = self.upper - self.lower
        rise = self.upper.clamp(min=0) - self.negative_slope * self.lower.clamp(max=0)
        inner = rise / torch.where(width > 0, width, torch.ones_like(width))
        low, high = self.slope_range()
        return torch.where(self.unstable(), inner.clamp(max=1.0), torch.maximum(low, high))

    @_once
    def height(self) -> Tensor:
        """Intercept of the upper line, `(batch, *shape)`."""
        return self._height_of(self.chord())

    def _height_of(self, chord: Tensor) -> Tensor:
        """How far an upper line of such a slope is above the activation at the kink. A chord that was rounded down
        passes above the upper corner only if it is lifted further."""
        above = torch.maximum(-self.lower * (chord - self.negative_slope), self.upper * (1 - chord))
        return torch.where(self.unstable(), above, 0.0 * self.lower)

    @_once
    def slope_range(self) -> tuple[Tensor, Tensor]:
        flat = torch.full_like(self.lower, self.negative_slope)
        one = torch.ones_like(self.lower)
        inactive = (self.upper <= 0) & (self.lower < 0)
        return torch.where(self.lower >= 0, one, flat), torch.where(inactive, flat, one)

    def fractions(self, slope: Tensor) -> Tensor:
        """Where slopes of lower lines lie between the negative slope, 0, and 1, which is 255: whole numbers."""
        return ((slope - self.negative_slope) * (_STEPS / max(1 - self.negative_slope, _TINY))).round()

    def rounded(self, slope: Tensor) -> Tensor:
        """The nearest slopes that fractions stand for, both ends exactly. Bounds hardly notice, and can be written down
        in few bytes."""
        share = self.fractions(slope) / _STEPS
        return torch.where(share < 1, self.negative_slope + (1 - self.negative_slope) * share, 1.0)

    def writable(self, slope: Tensor) -> bool:
        """Whether slopes are what fractions stand for."""
        return bool((self.rounded(slope) == slope).all())

    def slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        chord = self.chord()
        low, high = self.slope_range()
        zero = torch.zeros_like(chord)
        match rule:
            case Rule.ZERO:
                return zero, zero
            case Rule.PARALLEL:
                return chord, chord
            case Rule.FIXED_0:
                return low, chord
            case Rule.FIXED_1:
                return high, chord
            case Rule.ADAPTIVE:
                return self._adaptive(), chord

    @_once
    def _adaptive(self) -> Tensor:
        low, high = self.slope_range()
        return torch.where(self.upper > self.lower * -(1 + ASIDE), high, low)

    def box_lines(self) -> tuple[Lines, Lines]:
        """The same in a few operations: both rules share the chord, and lower lines pass through the origin.

        The height of the triangle is the support value but for rounding, which every user of an intercept charges.
        """
        chord = self._exact_chord()
        above = self._height_of(chord).unsqueeze(1)
        # a `where` of two Python numbers would be single precision
        steep = torch.full_like(chord, self.negative_slope)
        steep.masked_fill_(self.upper > self.lower * -(1 + ASIDE), 1.0)
        lower, upper = torch.where(self.unstable(), steep, chord).unsqueeze(1), chord.unsqueeze(1)
        return Lines(lower, upper, None, above), Lines(upper, upper, None, above)

    def lines(self, lower: Tensor, upper: Tensor) -> Lines:
        """As the general ones; lower slopes inside `slope_range` pass through the origin, exactly."""
        low, high = (t.unsqueeze(1) for t in self.slope_range())
        if bool(((lower >= low) & (lower <= high)).all()):
            one = torch.ones_like(upper)
            above = self.support(-upper, -one)
            return Lines(lower, upper, None, above.value, None, above.z)
        return super().lines(lower, upper)
