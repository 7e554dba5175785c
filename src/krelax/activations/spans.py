"""Intervals of float64 numbers, and of numbers with their derivatives: what is true of a function over many boxes.

Every operation is rounded outward, so the results contain every value that the function of real numbers takes (Moore
1966). A `Jet` is an interval with intervals of its derivatives by a few parameters: automatic differentiation, forward.
The functions need not be smooth. They must be continuous and smooth in pieces: derivatives are those of all pieces that
a box may touch, and then the mean value theorem holds with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

# Values of the C library are trusted to so many units of rounding, relative to one or to the value.
_LIBRARY = 8 * torch.finfo(torch.float64).eps
# More than what values lose that underflow.
_TINY = 2.0**-1000


@dataclass(frozen=True, eq=False)
class Span:
    """Intervals `lower <= x <= upper` of real numbers, float64 tensors of one shape."""

    lower: Tensor
    upper: Tensor

    @classmethod
    def of(cls, number: float | Tensor) -> Span:
        """A number of float64, exactly."""
        exact = torch.as_tensor(number, dtype=torch.float64)
        return cls(exact, exact)

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    def __neg__(self) -> Span:
        return Span(-self.upper, -self.lower)

    def __add__(self, other: Span) -> Span:
        return outward(self.lower + other.lower, self.upper + other.upper)

    def __sub__(self, other: Span) -> Span:
        return self + -other

    def __mul__(self, other: Span) -> Span:
        if other.lower is other.upper:
            ends = [_times(self.lower, other.lower), _times(self.upper, other.lower)]
        elif self.lower is self.upper:
            ends = [_times(other.lower, self.lower), _times(other.upper, self.lower)]
        else:
            ends = [_times(a, b) for a in (self.lower, self.upper) for b in (other.lower, other.upper)]
        low, high = ends[0], ends[0]
        for end in ends[1:]:
            low, high = torch.minimum(low, end), torch.maximum(high, end)
        return outward(low, high)

    def hull(self, other: Span) -> Span:
        """The smallest interval around both."""
        return Span(torch.minimum(self.lower, other.lower), torch.maximum(self.upper, other.upper))

    def meet(self, other: Span) -> Span:
        """What is in both; both contain the same number."""
        return Span(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))

    def clamp(self, low: float, high: float) -> Span:
        """The numbers moved into a range."""
        return Span(self.lower.clamp(low, high), self.upper.clamp(low, high))

    def where(self, mask: Tensor, other: Span) -> Span:
        """These where the mask is set, and others elsewhere."""
        return Span(torch.where(mask, self.lower, other.lower), torch.where(mask, self.upper, other.upper))

    def reciprocal(self) -> Span:
        """One over it, of positive numbers; all numbers where they are not known to be positive."""
        known = self.lower > 0
        found = outward(1 / self.upper, 1 / self.lower)
        return found.where(known, Span(*(torch.full_like(self.lower, sign * torch.inf) for sign in (-1, 1))))

    def rising(self, function: Callable[[Tensor], Tensor]) -> Span:
        """A function of the C library that does not fall."""
        low, high = function(self.lower), function(self.upper)
        slack = [torch.where(t.isfinite(), _LIBRARY * t.abs() + _TINY, 0.0) for t in (low, high)]
        return Span(low - slack[0], high + slack[1])

    def cos(self) -> Span:
        """The cosine."""
        low, high = self.lower.cos(), self.upper.cos()
        found = Span(torch.minimum(low, high) - _LIBRARY, torch.maximum(low, high) + _LIBRARY)
        slack = _LIBRARY * (1 + self.magnitude)
        top, bottom = (_reaches(self, start, slack) for start in (0.0, pi))
        one = torch.ones_like(low)
        return Span(torch.where(bottom, -one, found.lower), torch.where(top, one, found.upper)).clamp(-1, 1)

    def sin(self) -> Span:
        """The sine."""
        low, high = self.lower.sin(), self.upper.sin()
        found = Span(torch.minimum(low, high) - _LIBRARY, torch.maximum(low, high) + _LIBRARY)
        slack = _LIBRARY * (1 + self.magnitude)
        top, bottom = (_reaches(self, start, slack) for start in (pi / 2, -pi / 2))
        one = torch.ones_like(low)
        return Span(torch.where(bottom, -one, found.lower), torch.where(top, one, found.upper)).clamp(-1, 1)


def outward(lower: Tensor, upper: Tensor) -> Span:
    """The interval between two numbers that were rounded to the nearest."""
    down, up = lower.new_tensor(-torch.inf), upper.new_tensor(torch.inf)
    return Span(torch.nextafter(lower, down), torch.nextafter(upper, up))


def _times(a: Tensor, b: Tensor) -> Tensor:
    """The product, zero where either is, whatever the other is."""
    product = a * b
    return torch.where(product.isnan(), 0.0, product)


def _reaches(span: Span, start: float, slack: Tensor) -> Tensor:
    """Whether `start`, or a point whole turns away, may lie in the interval."""
    turns = ((span.lower - slack - start) / (2 * pi)).ceil()
    return start + 2 * pi * turns <= span.upper + slack


@dataclass(frozen=True, eq=False)
class Jet:
    """Functions of a few parameters over boxes of these: intervals of the values, and of the derivative by each
    parameter, None where that is zero."""

    value: Span
    slopes: tuple[Span | None, ...]

    @classmethod
    def constant(cls, number: float | Tensor, count: int) -> Jet:
        """Numbers that depend on none of so many parameters."""
        return cls(Span.of(number), (None,) * count)

    @classmethod
    def parameter(cls, lower: Tensor, upper: Tensor, number: int, count: int) -> Jet:
        """One of so many parameters."""
        one = Span.of(1.0)
        return cls(Span(lower, upper), tuple(one if i == number else None for i in range(count)))

    def __neg__(self) -> Jet:
        return Jet(-self.value, tuple(None if s is None else -s for s in self.slopes))

    def __add__(self, other: Jet | Tensor | float) -> Jet:
        if not isinstance(other, Jet):
            return Jet(self.value + Span.of(other), self.slopes)
        pairs = zip(self.slopes, other.slopes, strict=True)
        return Jet(self.value + other.value, tuple(_sum(a, b) for a, b in pairs))

    __radd__ = __add__

    def __sub__(self, other: Jet | Tensor | float) -> Jet:
        return self + -other

    def __rsub__(self, other: Tensor | float) -> Jet:
        return -self + other

    def __mul__(self, other: Jet | Tensor | float) -> Jet:
        if not isinstance(other, Jet):
            factor = Span.of(other)
            return Jet(self.value * factor, tuple(None if s is None else s * factor for s in self.slopes))
        parts = [
            _sum(None if a is None else a * other.value, None if b is None else b * self.value)
            for a, b in zip(self.slopes, other.slopes, strict=True)
        ]
        return Jet(self.value * other.value, tuple(parts))

    __rmul__ = __mul__

    def chain(self, value: Span, derivative: Span) -> Jet:
        """A function of it, with such values and derivatives."""
        return Jet(value, tuple(None if s is None else s * derivative for s in self.slopes))

    def times(self, factor: Span) -> Jet:
        """A multiple, by a number that is known up to its rounding."""
        return self.chain(self.value * factor, factor)

    def cos(self) -> Jet:
        return self.chain(self.value.cos(), -self.value.sin())

    def sin(self) -> Jet:
        return self.chain(self.value.sin(), self.value.cos())

    def reciprocal(self) -> Jet:
        """One over it, of what is positive."""
        inverse = self.value.reciprocal()
        return self.chain(inverse, -(inverse * inverse))

    def clamp(self, low: float, high: float) -> Jet:
        """Moved into a range: beyond it nothing changes."""
        zero = Span.of(0.0)
        out = (self.value.upper <= low) | (self.value.lower >= high)
        inside = (self.value.lower >= low) & (self.value.upper <= high)

        def slope(s: Span) -> Span:
            return zero.where(out, s.where(inside, s.hull(zero)))

        return Jet(self.value.clamp(low, high), tuple(None if s is None else slope(s) for s in self.slopes))

    def moved(self, move: Callable[[Tensor], Tensor]) -> Jet:
        """With its entries moved or repeated as a function of tensors says; only where all have one shape."""

        def both(s: Span) -> Span:
            shape = self.value.lower.shape
            return Span(*(move(t.expand(shape)) for t in (s.lower, s.upper)))

        return Jet(both(self.value), tuple(None if s is None else both(s) for s in self.slopes))


def _sum(a: Span | None, b: Span | None) -> Span | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
