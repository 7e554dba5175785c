"""Neurons split in the leaves of a branch and bound: triangles, some of them cut at zero.

Where a pre-activation is taken to be at least, or at most, zero, the relaxation is the activation itself over the
interval cut at zero, a segment `a = t z`, and slopes `t A - side * beta` cost nothing for any multiplier beta >= 0:
their support `max -side * beta * z` over the cut interval is attained at z = 0 (beta-CROWN, Wang et al. 2021). So a
leaf is bounded by the same backward pass as any query; only its steps know of splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from krelax.activations.triangle import Triangle
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import written
from krelax.bounds.steps import MULTIPLIER_STEP, Parameter, Relaxed, SingleNeuron, columns, slope_choices
from krelax.problem.region import dot
from krelax.proof.choices import Choices

# Share of a lower line's price that counts when a split is chosen.
_LOWER_LINE = 0.02


@dataclass(frozen=True, eq=False)
class Narrowed:
    """Intervals that are the leaves' own: of some neurons, `entries`, `(leaves, entries)` each."""

    entries: Tensor
    lower: Tensor
    upper: Tensor

    def over(self, relaxation: Triangle) -> Triangle:
        """The relaxation of every leaf, `(leaves, *shape)`, in the type of the one that all share."""
        lower = self._spread(relaxation.lower, self.lower)
        return relaxation.over(lower, self._spread(relaxation.upper, self.upper))

    def alone(self, relaxation: Triangle) -> Triangle:
        """The same for these neurons alone, `(leaves, entries)`."""
        lower, upper = (t.to(relaxation.lower.dtype) for t in (self.lower, self.upper))
        return relaxation.over(lower, upper)

    def _spread(self, shared: Tensor, own: Tensor) -> Tensor:
        every = shared.flatten(1).repeat(len(own), 1)
        every.index_copy_(1, self.entries, own.to(every.dtype))
        return every.reshape(len(own), *shared.shape[1:])


class Split(SingleNeuron):
    """Triangles, some of them cut at zero: slopes of lower lines `(1, leaves, *shape)`, and for every split its place
    in that tensor, flattened, its side (+1 active, -1 inactive) and its multiplier, `(splits,)` each. With `narrowed`,
    leaves have intervals of their own.

    Upper lines are chords. Sound for every leaf whatever slopes and multipliers are, if slopes lie inside
    `Triangle.slope_range` and multipliers are not negative.
    """

    relaxation: Triangle

    def __init__(
        self,
        relaxation: Triangle,
        slope: Tensor,
        place: Tensor,
        side: Tensor,
        multiplier: Tensor,
        narrowed: Narrowed | None = None,
    ) -> None:
        own, self._narrowed = relaxation if narrowed is None else narrowed.over(relaxation), narrowed
        low, high, self._chord, self._above = (
            t.unsqueeze(1) if narrowed is None else t.unsqueeze(0)
            for t in (*own.slope_range(), own.chord(), own.height())
        )
        self.relaxation = relaxation
        self.place, self.side = place, side
        self.wants_a_visit = bool(len(place))
        slope = slope if narrowed is None else slope.clamp(low, high)
        # a = own * z at splits, in full precision: a `where` of two Python numbers would be single
        self._own = torch.full_like(side, relaxation.negative_slope).masked_fill_(side > 0, 1.0)
        self.slope = Parameter.slope(slope, low, high, relaxation.step)
        zero = multiplier.new_zeros(())
        self.multiplier = Parameter(multiplier, zero, zero + torch.inf, MULTIPLIER_STEP)

    def parameters(self) -> list[Parameter]:
        return [self.slope, self.multiplier] if len(self.place) else [self.slope]

    def over(self, bounds: LayerBounds, node: int) -> Self:
        relaxation = bounds.relaxations[node].triangle()
        assert relaxation is not None
        dtype = relaxation.lower.dtype
        low, high = (t.unsqueeze(1) for t in relaxation.slope_range())
        slope = relaxation.rounded(self.slope.value.to(dtype)).clamp(low, high)
        side, multiplier = self.side.to(dtype), written(self.multiplier.value.to(dtype))
        return type(self)(relaxation, slope, self.place, side, multiplier, self._narrowed)

    def choices(self, region: int, tape: None) -> Choices:
        slopes, chord = self.slope.value[region].flatten(1), self.relaxation.chord()[region].flatten()
        entries = self.relaxation.unstable()[region].flatten().nonzero()[:, 0]
        return slope_choices(self.relaxation, entries, slopes[:, entries], chord[entries])

    def backward(self, coeff: Tensor) -> Relaxed:
        positive = coeff.clamp(min=0)
        negative = coeff - positive
        slopes = torch.mul(positive, self.slope.value, out=positive)
        if len(self.place):
            negative.view(-1).scatter_(0, self.place, 0.0)
        price = -dot(negative, self._above)
        slopes.addcmul_(negative, self._chord)
        if len(self.place):
            at = coeff.view(-1).index_select(0, self.place)
            own = (self._own * at).addcmul_(self.side, self.multiplier.value, value=-1)
            slopes.view(-1).scatter_(0, self.place, own)
        return Relaxed(slopes, price)

    def forward(self, coeff: Tensor, before: Tensor, tape: None) -> Tensor:
        self.slope.gradient = coeff.clamp(min=0).mul_(before)
        positive = torch.gt(coeff, 0, out=torch.empty_like(coeff))
        line = torch.lerp(self._chord, self.slope.value, positive).mul_(before)
        positive.sub_(1)
        result = line.addcmul_(positive, self._above, value=-1)
        if len(self.place):
            at = before.view(-1).index_select(0, self.place)
            self.multiplier.gradient = -self.side * at
            result.view(-1).scatter_(0, self.place, self._own * at)
        return result

    def sides_at(self, places: Tensor) -> Tensor:
        sides = torch.zeros_like(self.slope.value, dtype=torch.int8)
        sides.view(-1)[self.place] = self.side.to(torch.int8)
        return columns(sides, places)

    def slopes_at(self, places: Tensor, coeff: Tensor) -> Tensor:
        upper, lower = columns(self._chord, places), columns(self.slope.value, places)
        line = torch.where(coeff > 0, lower, upper)
        sides = self.sides_at(places)
        line.masked_fill_(sides == 1, 1.0)
        return line.masked_fill_(sides == -1, self.relaxation.negative_slope)

    def add_gradient(self, places: Tensor, coeff: Tensor, along: Tensor) -> None:
        assert self.slope.gradient is not None
        self.slope.gradient.flatten(2).index_add_(2, places, (along * (coeff > 0)).transpose(1, 2))

    def points(self, coeff: Tensor, neuron: Tensor) -> Tensor:
        """Where to split a neuron of each leaf, `(leaves,)`: at its kink."""
        return coeff.new_zeros(len(neuron))

    def prices(self, coeff: Tensor) -> Tensor:
        """What splitting each neuron is expected to be worth, `(leaves, neurons)`: not positive where it is worth
        nothing.

        The price of the upper line, which the split saves on both sides. What the lower line may lose is hardly
        counted: BaBSR (Bunel et al. 2020) gives it a larger share, which measures worse.
        """
        # lines above the neurons that are decided are not
        score = torch.maximum(-coeff, _LOWER_LINE * coeff).mul_(self._above)
        score.view(-1).scatter_(0, self.place, -1.0)
        return score[0].flatten(1)
