"""The logarithm of the sum of exponentials of a window: a convex function, relaxed as a whole.

Lower lines are tangent planes: `log sum exp(z_j) >= sum w_j (z_j - log w_j)` for all weights that add up to one (Gibbs'
inequality). Upper ones put the chord of every exponential, and then a tangent, into the logarithm. Softmax relaxed
through it is tighter than through reciprocals (Wei et al., Convex Bounds on the Softmax Function, 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from krelax.activations.base import Activation, Relaxation, Rule, Support
from krelax.op import Shape

# Units of rounding, relatively, that values are trusted to: for functions, and for every member that is added up.
_ULPS, _EACH = 32, 8
# The tangent of the logarithm touches it above this number; sums of exponentials are relative to the largest.
_LEAST = 2.0**-60
# No sensible line is steeper: weights, which always add up to one, are not made of larger slopes.
_STEEPEST = 2.0**20


@dataclass(frozen=True, eq=False)
class LogSumExp(Activation):
    """`log(sum(exp(z)))` along the last axis, which disappears."""

    name = "log-sum-exp"
    rising = True

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0][:-1]

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].logsumexp(-1)

    def relax(self, lower: Tensor, upper: Tensor) -> LogSumExpPlanes:
        return LogSumExpPlanes(self, lower, upper)


class LogSumExpPlanes(Relaxation):
    """Tangent planes below, and above what chords of exponentials give. Nothing is known of a window with an interval
    that is not bounded: lines are infinitely far away."""

    reduces = True
    optimised = (True, True)
    step = None

    def __init__(self, op: Activation, lower: Tensor, upper: Tensor) -> None:
        super().__init__(op, lower, upper)
        self._known = (self.upper - self.lower).isfinite().all(-1)
        shown = self._known.unsqueeze(-1)
        low, high = (torch.where(shown, t, 0.0) for t in (self.lower, self.upper))
        self._low, self._high = low, high
        # exponentials are relative to the largest one
        self._top = high.amax(-1)
        self._ends = tuple((t - self._top.unsqueeze(-1)).exp() for t in (low, high))
        self._sums = tuple(t.sum(-1) for t in self._ends)
        self._width = high - low
        rise = (self._ends[1] - self._ends[0]) / torch.where(self._width > 0, self._width, 1.0)
        self._chord = torch.where(self._width > 0, rise, self._ends[1])
        size = torch.maximum(low.abs(), high.abs()).amax(-1)
        noise = (_ULPS + _EACH * low.shape[-1]) * torch.finfo(low.dtype).eps
        self._noise = noise * (1 + log(low.shape[-1]) + size)

    def interval(self) -> tuple[Tensor, Tensor]:
        low, high = self._low.logsumexp(-1), self._high.logsumexp(-1)
        low, high = low - self._noise, high + self._noise
        return torch.where(self._known, low, -torch.inf), torch.where(self._known, high, torch.inf)

    def unstable(self) -> Tensor:
        """All members, unless all are known."""
        return (self.upper > self.lower).any(-1, keepdim=True).expand(self.lower.shape)

    def splits(self) -> None:
        return None

    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        below, z0 = self._concave(slope, coeff)
        above, z1 = self._convex(slope, coeff)
        positive = coeff > 0
        value = torch.where(positive, below, above) + coeff.abs() * self._noise.unsqueeze(1)
        z = torch.where(positive.unsqueeze(-1), z0, z1)
        if not bool(self._known.all()):
            asked = (slope != 0).any(-1) | (coeff != 0)
            value = torch.where(self._known.unsqueeze(1), value, torch.where(asked, torch.inf, 0.0))
        return Support(value, z, z.logsumexp(-1))

    def _concave(self, slope: Tensor, coeff: Tensor) -> tuple[Tensor, Tensor]:
        """For `coeff > 0`: weights that are nearly what is asked for, and the rest is paid for over the box; or those
        of the lower ends, which are best where nothing is asked for."""
        low, high = self._low.unsqueeze(1), self._high.unsqueeze(1)
        asked = (slope / coeff.unsqueeze(-1)).nan_to_num(0.0, 0.0, 0.0).clamp(0, _STEEPEST)
        total = asked.sum(-1, keepdim=True)
        least = low.softmax(-1)
        weights = torch.where(total > 0.5, asked / total.clamp(min=0.5), least)
        entropy = -torch.xlogy(weights, weights)
        rest = slope - coeff.unsqueeze(-1) * weights
        value = (torch.maximum(rest * low, rest * high) - coeff.unsqueeze(-1) * entropy).sum(-1)
        point = weights.clamp(min=torch.finfo(weights.dtype).tiny).log()
        shift = ((low + high) / 2 - point).mean(-1, keepdim=True)
        return value, point + shift

    def _convex(self, slope: Tensor, coeff: Tensor) -> tuple[Tensor, Tensor]:
        """For `coeff <= 0`: the logarithm of a sum of chords lies below a tangent, the one that fits the slopes."""
        low, high = self._low.unsqueeze(1), self._high.unsqueeze(1)
        size = -coeff.clamp(max=0)
        width = self._width.unsqueeze(1)
        given = (-slope * width).sum(-1)
        wanted = size * (self._chord * self._width).sum(-1).unsqueeze(1)
        first, last = (t.unsqueeze(1) for t in self._sums)
        at = torch.where(given * last > wanted, wanted / given, last).maximum(first.clamp(min=_LEAST))
        share = (size / at).unsqueeze(-1)
        below, above = (slope * z + share * e.unsqueeze(1) for z, e in ((low, self._ends[0]), (high, self._ends[1])))
        value = size * (at.log() - 1 + self._top.unsqueeze(1)) + torch.maximum(below, above).sum(-1)
        # where the sum of the chords is what the tangent touches at
        reached = ((at - first) / (last - first).clamp(min=_LEAST)).clamp(0, 1)
        return value, torch.lerp(low, high, reached.unsqueeze(-1))

    def slope_range(self) -> tuple[Tensor, Tensor]:
        """The derivative is largest where a member is largest, and all others smallest."""
        first, last = (t.unsqueeze(-1) for t in self._sums)
        low, high = self._ends
        return (low / (low + (last - high))).nan_to_num(0.0), (high / (high + (first - low).clamp(min=0))).nan_to_num(
            0.0
        )

    def nearest(self, slope: Tensor, lower: bool) -> Tensor:
        """Weights that add up to one below, and above a multiple of the chords' slopes."""
        if lower:
            total = slope.sum(-1, keepdim=True)
            return torch.where(total > 0.5, slope / total.clamp(min=0.5), self._low.unsqueeze(1).softmax(-1))
        width, chord = self._width.unsqueeze(1), self._chord.unsqueeze(1)
        times = (slope * width).sum(-1, keepdim=True) / (chord * width).sum(-1, keepdim=True)
        return torch.where(times.isfinite(), times * chord, slope)

    def along(self, gradient: Tensor, slope: Tensor, lower: bool) -> Tensor:
        """From weights to others that add up to one, too, and from a multiple of the chords' slopes to another."""
        mean = (gradient * slope).sum(-1, keepdim=True)
        return gradient - mean if lower else mean + torch.zeros_like(gradient)

    def slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        """Rounded to float32, in which proofs are written down; lines pay for what that changes."""
        lower, upper = self._slopes(rule)
        return self.rounded(lower), self.rounded(upper)

    def _slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        if rule is Rule.ZERO:
            return torch.zeros_like(self.lower), torch.zeros_like(self.lower)
        first, last = self._sums
        middle = (first / 2 + last / 2).unsqueeze(-1)
        chord = self._chord / middle
        if rule is Rule.PARALLEL:
            return chord, chord
        share = {Rule.FIXED_0: 0.125, Rule.FIXED_1: 0.875, Rule.ADAPTIVE: 0.5}[rule]
        return torch.lerp(self._low, self._high, share).softmax(-1), chord
