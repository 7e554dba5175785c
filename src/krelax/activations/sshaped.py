"""Sigmoid and tanh: increasing, convex below zero, concave above.

The support function is exact for the graph: with `s = sigmoid(z)`, `slope * z - coeff * s` is stationary where
`s (1 - s) = slope / coeff`, at most two points. Any slope is therefore usable, and the usual tangent tables
(Zhang et al. 2018, Singh et al. 2019) only have to propose slopes, never to be right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from krelax.activations.base import Activation, Relaxation, Rule, Support

# Steps of bisection that find tangents, and those that find how much they lose.
_CLOSELY, _ROUGHLY = 24, 8


class SShaped(Relaxation):
    """`scale * sigmoid(gain * z) + offset`: sigmoid is (1, 1, 0), tanh is (2, 2, -1)."""

    optimised = (True, True)
    derived = Rule.PARALLEL
    step = None

    def __init__(self, op: Activation, lower: Tensor, upper: Tensor, scale: float, gain: float, offset: float) -> None:
        super().__init__(op, lower, upper)
        self.scale, self.gain, self.offset = scale, gain, offset

    def _act(self, z: Tensor) -> Tensor:
        return z.tanh() if self.offset else z.sigmoid()

    def _derivative(self, z: Tensor) -> Tensor:
        s = (self.gain * z).sigmoid()
        return self.scale * self.gain * s * (1 - s)

    def _of_slope(self, slope: Tensor) -> Tensor:
        """Where the curve has a slope, or nearly so, below zero; above zero it is as far away."""
        ratio = torch.nan_to_num(slope / (self.scale * self.gain))  # s (1 - s) there
        ratio = ratio.clamp(torch.finfo(slope.dtype).tiny, 0.25)
        small = 2 * ratio / (1 + (1 - 4 * ratio).sqrt())  # the root without cancellation
        return (torch.log(small) - torch.log1p(-small)) / self.gain

    def interval(self) -> tuple[Tensor, Tensor]:
        slack = 16 * torch.finfo(self.lower.dtype).eps
        low, high = self._act(self.lower), self._act(self.upper)
        floor, ceiling = self.offset, self.offset + self.scale
        return (low - slack).clamp(min=floor), (high + slack).clamp(max=ceiling)

    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        lower, upper = self.lower.unsqueeze(1), self.upper.unsqueeze(1)
        point = self._of_slope(slope / coeff)  # where it is stationary
        candidates = (lower, upper, point.clamp(lower, upper), (-point).clamp(lower, upper))
        z = torch.stack(torch.broadcast_tensors(*candidates))
        a = self._act(z)
        value, arg = (slope * z - coeff * a).max(0)
        return Support(value, z.gather(0, arg[None])[0], a.gather(0, arg[None])[0])

    def _candidates(self) -> list[Tensor]:
        """Where the curvature changes, so that both parts are convex or concave."""
        return [torch.zeros_like(self.lower)]

    def losses(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Lines through an end that are chords, or touch the curve beyond the inflection: so they are the farthest from
        it where it has their slope on this side."""
        low, high = self._adaptive(_ROUGHLY)
        first, second = (-self._of_slope(low)).clamp(self.lower, self.upper), self._of_slope(high)
        second = second.clamp(self.lower, self.upper)
        below = self._act(first) - self._act(self.upper) + low * (self.upper - first)
        above = self._act(self.lower) + high * (second - self.lower) - self._act(second)
        below, above = self._noticed(below, low), self._noticed(above, high)
        return (torch.where(self.upper <= 0, 0.0, below), torch.where(self.lower >= 0, 0.0, above)), (first, second)

    def slope_range(self) -> tuple[Tensor, Tensor]:
        """Those of the curve: the best lines touch it, or are chords."""
        flattest = torch.minimum(self._derivative(self.lower), self._derivative(self.upper))
        return flattest, self._derivative(torch.zeros_like(self.lower).clamp(self.lower, self.upper))

    def _chord(self) -> Tensor:
        width = self.upper - self.lower
        rise = self._act(self.upper) - self._act(self.lower)
        middle = self._derivative((self.lower + self.upper) / 2)
        return torch.where(width > 1e-6, rise / width.clamp(min=1e-6), middle)

    def _tangent(self, anchor: Tensor, near: Tensor, steps: int) -> Tensor:
        """Slope of the line through the curve at `anchor` that touches it between `near` and zero.

        Bisection on the touching point; only a proposal, so its accuracy does not matter.
        """
        value = self._act(anchor)
        inner, outer = torch.zeros_like(near), near
        for _ in range(steps):
            middle = (inner + outer) / 2
            gap = anchor - middle
            chord = (value - self._act(middle)) / torch.where(gap == 0, torch.ones_like(gap), gap)
            beyond = self._derivative(middle) > chord
            inner, outer = torch.where(beyond, middle, inner), torch.where(beyond, outer, middle)
        return self._derivative((inner + outer) / 2)

    def slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        """Rounded to float32, in which proofs are written down; lines pay for what that changes."""
        lower, upper = self._slopes(rule)
        return lower.float().to(lower), upper.float().to(upper)

    def _slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        zero = torch.zeros_like(self.lower)
        at_ends = torch.minimum(self._derivative(self.lower), self._derivative(self.upper))
        match rule:
            case Rule.ZERO:
                return zero, zero
            case Rule.PARALLEL | Rule.FIXED_0:
                return at_ends, at_ends
            case Rule.FIXED_1:
                return self._chord(), self._chord()
            case Rule.ADAPTIVE:
                return self._adaptive(_CLOSELY)

    def _adaptive(self, steps: int) -> tuple[Tensor, Tensor]:
        """CROWN's lines: chord on the side of the curvature, tangent on the other."""
        chord, middle = self._chord(), self._derivative((self.lower + self.upper) / 2)
        # chord below the curve when the curve is concave at the lower end's tangent, and so on
        chord_is_lower = self._derivative(self.lower) >= chord
        chord_is_upper = self._derivative(self.upper) >= chord
        lower = torch.where(self.upper <= 0, middle, self._tangent(self.upper, self.lower.clamp(max=0), steps))
        upper = torch.where(self.lower >= 0, middle, self._tangent(self.lower, self.upper.clamp(min=0), steps))
        return torch.where(chord_is_lower, chord, lower), torch.where(chord_is_upper, chord, upper)
