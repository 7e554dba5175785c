"""Neurons split anywhere in the leaves of a branch and bound: the same activation over what is left of its interval.

Where a pre-activation is taken to be at least, or at most, p, the row `p - z <= 0`, or `z - p <= 0`, joins the form
with a multiplier beta >= 0, so that slopes are `t A - side * beta` (beta-CROWN, Wang et al. 2021). Their price is the
support of the activation over the rest of its interval, whatever they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor

from krelax.activations import Relaxation, Splits
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import written
from krelax.bounds.steps import MULTIPLIER_STEP, Parameter, Relaxed, Step
from krelax.proof.choices import Choices

# Slopes of lines that touch a curve are worth much less a little beside the best ones: they move in smaller steps.
_SLOPE_STEP = 0.4


@dataclass(frozen=True, eq=False)
class Pieces:
    """Splits of neurons of some leaves: for each its `place` in a tensor `(leaves, *shape)`, flattened, the `point` and
    the side of it that the neuron is on (1 above, -1 below); `(splits,)` each. A neuron may be split again."""

    place: Tensor
    point: Tensor
    side: Tensor

    def over(self, relaxation: Relaxation, leaves: int) -> Relaxation:
        """The relaxation of every leaf, `(leaves, *shape)`, of one that all share, `(1, *shape)`, or that itself."""
        if not len(self.place):
            return relaxation
        ends = []
        for side, shared, reduce in ((1, relaxation.lower, "amax"), (-1, relaxation.upper, "amin")):
            mine = (self.side == side).nonzero()[:, 0]
            every = shared.flatten(1).repeat(leaves, 1).flatten()
            every.scatter_reduce_(0, self.place[mine], self.point[mine].to(every), reduce)
            ends.append(every.view(leaves, *shared.shape[1:]))
        return relaxation.over(*ends)

    def ends(self, own: Relaxation) -> Tensor:
        """Which splits no other one of their neurons makes superfluous, `(splits,)`: 1 or 0."""
        lower, upper = (t.flatten()[self.place] for t in (own.lower, own.upper))
        return (self.point == torch.where(self.side > 0, lower, upper)).to(self.side)

    def worth(self, own: Relaxation) -> Splits:
        """What it is worth to split the split neurons of the leaves again, `(splits,)` each."""
        return worth_at(own, self.place)


class _Tape(NamedTuple):
    """Which coefficients are positive, the slopes of the lines they chose, and where the support is attained."""

    positive: Tensor
    line: Tensor
    z: Tensor
    a: Tensor


class Curved(Step):
    """Neurons, some of them split in `pieces`: slopes of lower and upper lines, `(1, leaves, *shape)`, and a multiplier
    for each split. Sound for every leaf whatever these numbers are: slopes are priced as they are, over the pieces."""

    def __init__(
        self, relaxation: Relaxation, lower: Tensor, upper: Tensor, pieces: Pieces, multiplier: Tensor
    ) -> None:
        self.relaxation, self.pieces = relaxation, pieces
        self.wants_a_visit = bool(len(pieces.place))
        self._again: Splits | None = None
        self._own = pieces.over(relaxation, max(lower.shape[1], upper.shape[1]))
        # leaves lie along the axis of queries, or of the batch, where they have intervals of their own
        self._turned = len(pieces.place) > 0
        low, high = (self._turn(t.unsqueeze(1)) for t in self._own.slope_range())
        free = (Parameter.slope(t, low, high, relaxation.step, _SLOPE_STEP) for t in (lower, upper))
        self.lower, self.upper = free
        self.lower.nearest, self.upper.nearest = partial(self._nearest, lower=True), partial(self._nearest, lower=False)
        zero = multiplier.new_zeros(())
        self.multiplier = Parameter(multiplier, zero, zero + torch.inf, MULTIPLIER_STEP)

    def _turn(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1) if self._turned else x

    def _nearest(self, slope: Tensor, lower: bool) -> Tensor:
        return self._turn(self._own.nearest(self._turn(slope), lower))

    def parameters(self) -> list[Parameter]:
        lines = zip((self.lower, self.upper), self.relaxation.optimised, strict=True)
        return [*(p for p, optimised in lines if optimised), *([self.multiplier] if self.wants_a_visit else [])]

    def over(self, bounds: LayerBounds, node: int) -> Self:
        relaxation = bounds.relaxations[node]
        dtype = relaxation.lower.dtype
        lower, upper = relaxation.rounded(self.lower.value.to(dtype)), written(self.upper.value.to(dtype))
        pieces = replace(self.pieces, side=self.pieces.side.to(dtype))
        return type(self)(relaxation, lower, upper, pieces, written(self.multiplier.value.to(dtype)))

    def choices(self, region: int, tape: _Tape | None) -> Choices:
        both = torch.stack(torch.broadcast_tensors(*(p.value[region].flatten(1) for p in (self.lower, self.upper))), -1)
        return Choices(lines=both.float().cpu().numpy())

    def backward(self, coeff: Tensor) -> Relaxed:
        positive = torch.gt(coeff, 0, out=torch.empty_like(coeff))
        line = torch.lerp(self.upper.value, self.lower.value, self.relaxation.behind(positive))
        slopes = self.relaxation.behind(coeff) * line
        if len(self.pieces.place):
            slopes.view(-1).index_add_(0, self.pieces.place, -self.pieces.side * self.multiplier.value)
        found = self._own.support(self._turn(slopes), self._turn(coeff))
        value, z, a = (self._turn(t) for t in (found.value, found.z, found.a))
        return Relaxed(slopes, value.flatten(2).sum(-1), tape=_Tape(positive, line, z, a))

    def forward(self, coeff: Tensor, before: Tensor, tape: _Tape) -> Tensor:
        moved, behind = before - tape.z, self.relaxation.behind(coeff)
        for line, share, below in ((self.lower, behind.clamp(min=0), True), (self.upper, behind.clamp(max=0), False)):
            gradient, slope = self._turn(share * moved), self._turn(line.value)
            line.gradient = self._turn(self._own.along(gradient, slope, below))
        if len(self.pieces.place):
            along = -self.pieces.side * moved.reshape(-1)[self.pieces.place]
            self.multiplier.gradient = along * self.pieces.ends(self._own)
        if self.relaxation.reduces:
            return tape.a + (tape.line * moved).sum(-1)
        return torch.addcmul(tape.a, tape.line, moved)

    def prices(self, coeff: Tensor) -> Tensor:
        """What splitting each neuron is expected to be worth, `(leaves, neurons)`: what its line loses, less what the
        line of the worse piece will lose."""
        found = self._worth(coeff.shape[1])
        coeff = self._entrywise(coeff)
        return torch.maximum(coeff * found.lower, -coeff * found.upper)

    def points(self, coeff: Tensor, neuron: Tensor) -> Tensor:
        """Where to split a neuron of each leaf, `(leaves,)`, for the sake of the line that its coefficient takes."""
        found, neuron = self._worth(coeff.shape[1]), neuron[:, None]
        parts = (self._entrywise(coeff), found.at_lower, found.at_upper)
        coeff, lower, upper = (t.gather(1, neuron)[:, 0] for t in parts)
        return torch.where(coeff > 0, lower, upper)

    def _entrywise(self, coeff: Tensor) -> Tensor:
        """For every neuron of every leaf the coefficient behind the activation, `(leaves, neurons)`."""
        behind = self.relaxation.behind(coeff[0])
        return behind.expand(len(behind), *self.relaxation.lower.shape[1:]).flatten(1)

    def _worth(self, leaves: int) -> Splits:
        """What splits are worth, `(leaves, neurons)` each."""
        shared = (t.flatten(1).expand(leaves, -1) for t in worth_splitting(self.relaxation))
        if not len(self.pieces.place):
            return Splits(*shared)
        if self._again is None:
            self._again = self.pieces.worth(self._own)
        both = zip(shared, self._again, strict=True)
        return Splits(*(t.flatten().index_copy(0, self.pieces.place, new).view_as(t) for t, new in both))


def worth_splitting(relaxation: Relaxation) -> Splits:
    """Where to split neurons, in float32, in which that is written down, and what that is worth: nothing where no such
    number lies inside of the interval."""
    found = relaxation.splits()
    assert found is not None
    at_lower, at_upper = (t.float().to(t) for t in (found.at_lower, found.at_upper))
    inside = [(relaxation.lower < t) & (t < relaxation.upper) for t in (at_lower, at_upper)]
    low, high = (torch.where(i, t, 0.0) for i, t in zip(inside, (found.lower, found.upper), strict=True))
    return Splits(at_lower, low, at_upper, high)


def worth_at(relaxation: Relaxation, place: Tensor) -> Splits:
    """The same of some neurons, by their places in a tensor `(leaves, *shape)`, flattened; `(neurons,)` each. Of an
    activation of several numbers all of them count."""
    width = relaxation.lower.shape[-1] if relaxation.reduces else 1
    windows = (t.reshape(-1, width)[place // width] for t in (relaxation.lower, relaxation.upper))
    lower, upper = (t if relaxation.reduces else t[:, 0] for t in windows)
    found = worth_splitting(relaxation.over(lower[None], upper[None]))
    member = (place % width)[:, None]
    return Splits(*(t[0].reshape(-1, width).gather(1, member)[:, 0] for t in found))
