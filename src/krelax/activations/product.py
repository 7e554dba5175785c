"""The product of two numbers that both depend on the input: a relaxation of both at once.

Over a box the hull of the graph has four facets, McCormick's planes (McCormick 1976), and its support function is
attained at a corner: with one operand fixed, `slope * z - coeff * z0 * z1` is linear in the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from krelax.activations.base import ASIDE, Activation, Relaxation, Rule, Splits, Support
from krelax.op import Shape


@dataclass(frozen=True, eq=False)
class Product(Activation):
    """`z0 * z1` along the last axis, which disappears."""

    name = "product"
    paired = True

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0][:-1]

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0][..., 0] * inputs[0][..., 1]

    def factors(self, slope: Tensor) -> tuple[Tensor, Tensor]:
        return slope[..., 1], slope[..., 0]

    def relax(self, lower: Tensor, upper: Tensor) -> Bilinear:
        return Bilinear(self, lower, upper)


class Bilinear(Relaxation):
    """The convex hull of `a = z0 * z1` over a box, the last axis of which has both operands."""

    reduces = True
    optimised = (True, True)
    step = None

    def __init__(self, op: Activation, lower: Tensor, upper: Tensor) -> None:
        super().__init__(op, lower, upper)
        self._bounded = bool(self.lower.isfinite().all()) and bool(self.upper.isfinite().all())

    def interval(self) -> tuple[Tensor, Tensor]:
        ends = [_times(z0, z1) for z0 in self._ends(0) for z1 in self._ends(1)]
        products = torch.stack([value for value, _ in ends])
        signs = torch.stack([sign for _, sign in ends])
        low, high = products.amin(0), products.amax(0)
        limits = torch.finfo(low.dtype)
        low, high = low.clamp(max=limits.max), high.clamp(min=-limits.max)
        low, high = low - limits.eps * low.abs() - limits.tiny, high + limits.eps * high.abs() + limits.tiny
        zero = torch.zeros_like(low)
        low = torch.where(signs.amin(0) >= 0, low.maximum(zero), low)
        return low, torch.where(signs.amax(0) <= 0, high.minimum(zero), high)

    def _ends(self, operand: int) -> tuple[Tensor, Tensor]:
        return self.lower[..., operand], self.upper[..., operand]

    def unstable(self) -> Tensor:
        """Both operands, unless one of them is known: then the product is linear."""
        return (self.upper > self.lower).all(-1, keepdim=True).expand(self.lower.shape)

    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        first, second = self._ends(0), self._ends(1)
        one = self._beside(slope, coeff, first[0].unsqueeze(1), second)
        two = self._beside(slope, coeff, first[1].unsqueeze(1), second)
        better = two[0] > one[0]
        value = torch.maximum(one[0], two[0])  # which keeps what is not a number
        z0 = torch.where(better, first[1].unsqueeze(1), first[0].unsqueeze(1))
        z1 = torch.where(better, two[1], one[1])
        if not self._bounded:
            value = torch.where(value.isnan(), torch.inf, value)
        return Support(value, torch.stack([z0, z1], -1), z0 * z1)

    def _beside(self, slope: Tensor, coeff: Tensor, z0: Tensor, second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The maximum with one operand fixed, and the other one there."""
        if self._bounded:
            rise = slope[..., 1] - coeff * z0
            z1 = torch.where(rise > 0, second[1].unsqueeze(1), second[0].unsqueeze(1))
            return torch.addcmul(slope[..., 0] * z0, rise, z1), z1
        rise = slope[..., 1] - _scaled(coeff, z0)
        z1 = torch.where(rise > 0, second[1].unsqueeze(1), second[0].unsqueeze(1))
        return _scaled(slope[..., 0], z0) + _scaled(rise, z1), z1

    @cached_property
    def _middle(self) -> tuple[Tensor, Tensor]:
        """Centre and radius of the box; zeros where it has no end."""
        known = (self.lower.isfinite() & self.upper.isfinite()).all(-1, keepdim=True)
        lower, upper = (torch.where(known, t, 0.0) for t in (self.lower, self.upper))
        return lower / 2 + upper / 2, upper / 2 - lower / 2

    def slope_range(self) -> tuple[Tensor, Tensor]:
        """The slopes of lower lines are those of one of two facets, or between; those of upper lines, too."""
        centre, radius = self._middle
        centre, radius = centre.flip(-1), radius.flip(-1)
        return centre - radius, centre + radius

    def along(self, gradient: Tensor, slope: Tensor, lower: bool) -> Tensor:
        """From one facet to the other: both slopes at once, in opposite directions for upper lines."""
        width, sign = self._middle[1].flip(-1).unsqueeze(1), 1 if lower else -1
        both = gradient[..., 0] * width[..., 0] + sign * gradient[..., 1] * width[..., 1]
        return torch.stack([both, sign * both], -1)

    def nearest(self, slope: Tensor, lower: bool) -> Tensor:
        """Between both facets."""
        (centre, width), sign = (t.flip(-1).unsqueeze(1) for t in self._middle), 1 if lower else -1
        first, second = ((slope - centre) / torch.where(width > 0, width, 1.0)).unbind(-1)
        place = (first + sign * second) / 2
        return torch.addcmul(centre, width, torch.stack([place, sign * place], -1))

    def slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        """Rounded to float32, in which proofs are written down; lines pay for what that changes."""
        lower, upper = self._slopes(rule)
        return lower.float().to(lower), upper.float().to(upper)

    def _slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        low, high = self.slope_range()
        match rule:
            case Rule.ZERO:
                return torch.zeros_like(low), torch.zeros_like(low)
            case Rule.PARALLEL:
                middle = low / 2 + high / 2
                return middle, middle
            case Rule.FIXED_0:
                return low, torch.stack([high[..., 0], low[..., 1]], -1)
            case Rule.FIXED_1:
                return high, torch.stack([low[..., 0], high[..., 1]], -1)
            case Rule.ADAPTIVE:
                return self._adaptive(low, high)

    def _adaptive(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """All facets are equally far from the graph on average, and each meets it at three corners. A lower line is to
        meet it where the product is smallest, an upper one where it is largest."""
        (x, y), (dx, dy) = (t.unbind(-1) for t in self._middle)
        one, two, aside = x * dy, y * dx, ASIDE * ((x.abs() + dx) * dy + (y.abs() + dy) * dx)
        first, second = one + two >= -aside, one - two >= -aside
        lower = torch.where(first.unsqueeze(-1), low, high)
        crossed = torch.stack([high[..., 0], low[..., 1]], -1), torch.stack([low[..., 0], high[..., 1]], -1)
        return lower, torch.where(second.unsqueeze(-1), *crossed)

    def facets(self) -> Iterator[tuple[bool, Tensor]]:
        for rule in (Rule.FIXED_0, Rule.FIXED_1):
            yield from zip((True, False), self.slopes(rule), strict=True)

    def losses(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """What the hull loses is largest in the middle, for both sides and operands."""
        centre, radius = self._middle
        loss = radius.prod(-1, keepdim=True).expand(radius.shape)
        noise = _NOISE * torch.finfo(loss.dtype).eps * self.magnitude.prod(-1, keepdim=True)
        loss = torch.where(loss > noise, loss, 0.0)
        return (loss, loss), (centre, centre)

    def splits(self) -> Splits:
        """Either operand in its middle: both pieces then lose half as much."""
        (loss, _), (centre, _) = self.losses()
        return Splits(centre, loss / 2, centre, loss / 2)


# What is lost is told from rounding if it is more than so many units of it.
_NOISE = 64


def _scaled(factor: Tensor, z: Tensor) -> Tensor:
    """The product, zero where the factor is, whatever the other is."""
    return torch.where(factor == 0, 0.0, factor * z)


def _times(z0: Tensor, z1: Tensor) -> tuple[Tensor, Tensor]:
    """A product, zero where either is, and its sign, which does not underflow."""
    zero = (z0 == 0) | (z1 == 0)
    return torch.where(zero, 0.0, z0 * z1), z0.sign() * z1.sign()
