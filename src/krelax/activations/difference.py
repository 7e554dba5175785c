"""What a rectifier makes of the difference of two numbers: a relaxation of both at once.

Two copies of a network, or one network at two related inputs, have corresponding neurons of pre-activations g and
g + d, with a small d. Between the lines `g = 0` and `g + d = 0` the difference of their activations is linear. So the
convex hull over a box of g and d is spanned by the points where these lines and the box have corners. It is the
multi-neuron relaxation of both neurons (Singh et al. 2019), of which only the difference is asked. Paulsen et al. 2020
bound that by two lines in d.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from krelax.activations.base import Activation, Relaxation, Rule, Splits, Support
from krelax.errors import UnsupportedError
from krelax.op import Shape
from krelax.watch import tick

# Units of rounding for the ends of intervals.
_ULPS = 4
# Slopes that are good for one box are near to its edges: larger steps miss them.
_STEP = 0.05
# How far lines are from the hull is known up to so many units of rounding.
_NOISE = 64
# Finding where to split takes as long as crossing an activation so many times.
_SPLITTING = 4
_LEAST = 1 / 16
# Smooth steps of descents are so many times steeper than ramps: narrower ones are seen too late, wider ones mislead.
_SHARP = 8.0


@dataclass(frozen=True, eq=False)
class Difference(Activation):
    """`act(g + d) - act(g)` of pairs `(g, d)` along the last axis, which disappears.

    `act(z)` is `max(z, 0) + negative_slope * min(z, 0)`, with a slope in [0, 1]; UnsupportedError for any other.
    """

    negative_slope: float = 0.0

    name = "difference"
    steep = True

    def __post_init__(self) -> None:
        if not 0 <= self.negative_slope <= 1:
            slope = f"{self.negative_slope:g}"
            raise UnsupportedError(f"a leaky ReLU with a negative slope of {slope}; it must lie in [0, 1]")

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0][:-1]

    def forward(self, *inputs: Tensor) -> Tensor:
        g, d = inputs[0].unbind(-1)
        return _difference(g, d, self.negative_slope)

    def smeared(self, z: Tensor, width: Tensor) -> Tensor:
        """Beside the range of g a difference is small, and goes through or not: nearly a jump where g is zero."""
        (g, d), width = z.unbind(-1), width[..., 0]
        through = torch.sigmoid(_SHARP * g / width)
        return d * (self.negative_slope + (1 - self.negative_slope) * through)

    def relax(self, lower: Tensor, upper: Tensor) -> Coupled:
        return Coupled(self, lower, upper, self.negative_slope)


def _difference(g: Tensor, d: Tensor, leak: float) -> Tensor:
    """Accurate to a few units of rounding: numbers of one sign are not subtracted, and the sign of a sum is exact."""
    f = g + d
    rising, falling = f - leak * g, leak * f - g
    apart = torch.where(f > 0, rising, falling)
    return torch.where((f >= 0) & (g >= 0), d, torch.where((f <= 0) & (g <= 0), leak * d, apart))


class Coupled(Relaxation):
    """The convex hull of `a = act(g + d) - act(g)` over a box, the last axis of which has g and d."""

    reduces = True
    optimised = (True, True)
    step = _STEP
    derived = Rule.PARALLEL

    def __init__(self, op: Activation, lower: Tensor, upper: Tensor, leak: float) -> None:
        super().__init__(op, lower, upper)
        self.leak = leak

    @cached_property
    def _points(self) -> Tensor:
        """The points that span the hull, `(11, batch, *shape, 3)`, as g, d and a.

        The corners of the box, where the lines leave it, and where they meet. None is rounded. Where a line misses the
        box, another point of the box takes the place of one where it leaves it.
        """
        (gl, dl), (gu, du) = self.lower.unbind(-1), self.upper.unbind(-1)
        zero = torch.zeros_like(gl)
        kink = zero.clamp(gl, gu)
        ends = [(gl, dl), (gl, du), (gu, dl), (gu, du)]
        ends += [(kink, dl), (kink, du), ((-dl).clamp(gl, gu), dl), ((-du).clamp(gl, gu), du)]
        ends += [(gl, (-gl).clamp(dl, du)), (gu, (-gu).clamp(dl, du)), (kink, zero.clamp(dl, du))]
        g, d = (torch.stack(t) for t in zip(*ends, strict=True))
        return torch.stack([g, d, _difference(g, d, self.leak)], -1)

    @cached_property
    def _known(self) -> Tensor:
        """Where all points are numbers: the box has an end on every side, and nothing overflows."""
        return self._points.isfinite().all(-1).all(0)

    def interval(self) -> tuple[Tensor, Tensor]:
        limits, a = torch.finfo(self.lower.dtype), self._points[..., 2]
        low, high = a.amin(0), a.amax(0)
        low = low - _ULPS * limits.eps * low.abs() - limits.tiny
        high = high + _ULPS * limits.eps * high.abs() + limits.tiny
        # it has the sign of d, and is not larger
        low = torch.where(self.lower[..., 1] >= 0, low.clamp(min=0), low)
        high = torch.where(self.upper[..., 1] <= 0, high.clamp(max=0), high)
        return torch.where(self._known, low, -torch.inf), torch.where(self._known, high, torch.inf)

    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        from krelax.hull.scan import scan  # numba takes a while to import

        # NumPy's: torch's own imports sympy, which takes a second
        shape = np.broadcast_shapes(slope.shape[:-1], coeff.shape, self.lower[..., 0].unsqueeze(1).shape)
        form = torch.cat([slope.expand(*shape, 2), -coeff.expand(shape).unsqueeze(-1)], -1)
        points = self._points.reshape(len(self._points), len(self.lower), -1, 3).permute(1, 2, 0, 3)
        points = points.expand(shape[0], -1, -1, -1)
        value, index = scan(points, form.reshape(*shape[:2], -1, 3).permute(0, 2, 3, 1))
        at = points.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, 3))
        value, (g, d, a) = value.mT.reshape(shape), (t.mT.reshape(shape) for t in at.unbind(-1))
        value = torch.where(self._known.unsqueeze(1) & ~value.isnan(), value, torch.inf)
        return Support(value, torch.stack([g, d], -1), a)

    def _alike(self) -> tuple[Tensor, Tensor]:
        """Where both neurons are active, or inactive, for sure: there is `a = d`, or that times the leak."""
        low = self.lower[..., 0] + self.lower[..., 1].clamp(max=0)
        high = self.upper[..., 0] + self.upper[..., 1].clamp(min=0)
        return low >= 0, high <= 0

    def unstable(self) -> Tensor:
        """The d of neurons that may be on different sides of zero, or on either. Of g as much is known as its own
        activation has found out."""
        active, inactive = self._alike()
        apart = ~(active | inactive) & (self.upper[..., 1] > self.lower[..., 1])
        return torch.stack([torch.zeros_like(apart), apart & (self.leak < 1)], -1)

    def beyond(self) -> Tensor:
        """A neuron that is farther from zero than it is apart is on one side in both networks."""
        far = self.magnitude[..., 1]
        return torch.stack([far, torch.zeros_like(far)], -1)

    def slope_range(self) -> tuple[Tensor, Tensor]:
        """Slopes of g are those of the difference of two rectifiers, slopes of d those of one."""
        low, high = torch.ones_like(self.lower), torch.ones_like(self.lower)
        low[..., 0], low[..., 1], high[..., 0] = self.leak - 1, self.leak, 1 - self.leak
        return low, high

    def slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        """Rounded to float32, in which proofs are written down; lines pay for what that changes."""
        lower, upper = self._slopes(rule)
        return tuple(torch.stack([torch.zeros_like(t), t.float().to(t)], -1) for t in (lower, upper))  # type: ignore[return-value]

    def _slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        """Slopes of d; lines of a rule are flat in g."""
        zero = torch.zeros_like(self.lower[..., 1])
        match rule:
            case Rule.ZERO:
                return zero, zero
            case Rule.FIXED_0:
                return zero + self.leak, zero + self.leak
            case Rule.FIXED_1:
                return zero + 1, zero + 1
            case Rule.PARALLEL:
                return self._middle(), self._middle()
            case Rule.ADAPTIVE:
                return self._nearest()

    def _middle(self) -> Tensor:
        active, inactive = self._alike()
        middle = torch.full_like(self.lower[..., 1], (1 + self.leak) / 2)
        return torch.where(active, 1.0, torch.where(inactive, self.leak, middle))

    def _nearest(self) -> tuple[Tensor, Tensor]:
        """Of some slopes those whose lines are nearest to the points on average."""
        lower, upper = (tried.gather(0, loss.argmin(0, keepdim=True))[0] for tried, loss in self._tried)
        return lower, upper

    @cached_property
    def _tried(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Slopes of lower and of upper lines, and how far they are from the points on average, `(4, batch, *shape)`:
        both slopes of the activation, and the chords of what it is at least, and at most, by d alone."""
        dl, du = self.lower[..., 1], self.upper[..., 1]
        low, high = dl.clamp(max=0), du.clamp(min=0)
        width = torch.where(high > low, high - low, 1.0)
        chords = (self.leak * high - low) / width, (high - self.leak * low) / width
        slopes = (torch.full_like(dl, self.leak), torch.ones_like(dl), *(c.clamp(self.leak, 1) for c in chords))
        tried = torch.stack(slopes).nan_to_num(self.leak)
        _, d, a = self._points.unbind(-1)
        gap = a.unsqueeze(1) - tried * d.unsqueeze(1)
        mean = gap.mean(0)
        return (tried, (mean - gap.amin(0)).nan_to_num(0.0)), (tried, (gap.amax(0) - mean).nan_to_num(0.0))

    def losses(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """How far the best lines are from the points on average; where, is nowhere in particular."""
        noise = _NOISE * torch.finfo(self.lower.dtype).eps * self.magnitude.amax(-1)
        middle = torch.where(self._known.unsqueeze(-1), self.lower / 2 + self.upper / 2, 0.0)
        lower, upper = (loss.amin(0) for _, loss in self._tried)
        found = (torch.where(loss > noise, loss, 0.0).unsqueeze(-1).expand(self.lower.shape) for loss in (lower, upper))
        below, above = found
        return (below, above), (middle, middle)

    def facets(self) -> Iterator[tuple[bool, Tensor]]:
        for rule in (Rule.FIXED_0, Rule.FIXED_1, Rule.ADAPTIVE):
            yield from zip((True, False), self.slopes(rule), strict=True)

    def splits(self) -> Splits:
        """The first number where it, or the sum, changes its sign; the second one there, or in its middle. Whatever is
        best."""
        if self._splits is None:
            (dl, du), zero = (self.lower[..., 1], self.upper[..., 1]), torch.zeros_like(self.lower[..., 1])
            middle = self.losses()[1][0][..., 1]
            tried = [(0, zero), (0, -dl), (0, -du), (1, zero), (1, middle)]
            found = [self._gains(*each) for each in tried]
            parts = []
            for side in (0, 1):
                of_g, of_d = (
                    self._best(found[first:last], tried[first:last], side) for first, last in ((0, 3), (3, 5))
                )
                points, gains = (torch.stack(t, -1) for t in zip(of_g, of_d, strict=True))
                parts += [points.clamp(self.lower, self.upper), gains]
            self._splits = Splits(*parts)
        return self._splits

    def _gains(self, operand: int, point: Tensor) -> tuple[Tensor, Tensor]:
        """By how much lower and upper lines of both pieces are nearer, on average, zero where the point is not inside;
        a little at least for d, of which shorter intervals are better in the end."""
        tick(_SPLITTING * self.op.work * point.numel())
        inside = (self.lower[..., operand] < point) & (point < self.upper[..., operand])
        pieces = []
        for ends in (self.lower, self.upper):
            moved = ends.clone()
            moved[..., operand] = torch.where(inside, point, ends[..., operand])
            pieces.append(moved)
        below, above = self.over(self.lower, pieces[1]).losses()[0], self.over(pieces[0], self.upper).losses()[0]
        now = self.losses()[0]
        least = _LEAST * operand
        gains = (torch.maximum(now[k] - (below[k] + above[k]) / 2, least * now[k]) for k in (0, 1))
        low, high = (torch.where(inside, t[..., operand].clamp(min=0), 0.0) for t in gains)
        return low, high

    @staticmethod
    def _best(found: list[tuple[Tensor, Tensor]], tried: list[tuple[int, Tensor]], side: int) -> tuple[Tensor, Tensor]:
        """The best point for lower or for upper lines, and what it gains."""
        gain, which = torch.stack([f[side] for f in found]).max(0)
        points = torch.stack([p for _, p in tried])
        return points.gather(0, which[None])[0], gain
