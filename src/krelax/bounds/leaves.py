"""Leaves of a branch and bound over activations, many at a time, each belonging to one of many queries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from krelax.bounds.tree import Subproblems

# Columns for splits that a table has at first, and gets more when they are full.
COLUMNS = 16


@dataclass
class Leaves(Subproblems):
    """Leaves and what was found for them so far.

    `neuron`, `point`, `side`, `multiplier`, `(leaves, depth)`: its splits; neurons are numbered through all splittable
    activations, and free columns hold -1. `value`: its bound as proposed. `proof`: the number under which the proof of
    the floor is kept, if it is that of a leaf that this one came from, else -1. `clip`: the number of the last of the
    leaves it came from, or itself, at which intervals were narrowed, -1 if none were. `branch`: the neuron to be split
    next, -1 for none, and `at` the point. `slopes`: what is optimised besides, one row for each leaf, inherited by its
    children.
    """

    neuron: Tensor
    point: Tensor
    side: Tensor
    multiplier: Tensor
    value: Tensor
    proof: Tensor
    clip: Tensor
    branch: Tensor
    at: Tensor
    slopes: list[Tensor]

    def depth(self) -> Tensor:
        """Number of splits of every leaf."""
        return (self.neuron >= 0).sum(1)

    def wide(self, columns: int) -> Self:
        """The same leaves with room for at least so many splits."""
        more = columns - self.neuron.shape[1]
        if more <= 0:
            return self
        neuron, point, side, multiplier = (
            torch.cat([t, t.new_full((len(t), more), free)], 1)
            for t, free in ((self.neuron, -1), (self.point, 0), (self.side, 0), (self.multiplier, 0))
        )
        return replace(self, neuron=neuron, point=point, side=side, multiplier=multiplier)

    def as_wide_as(self, other: Self) -> Self:
        return self.wide(other.neuron.shape[1])

    def children(self) -> Self:
        """Both sides of every leaf's next split, the active ones, or those above, first: `2 * len(self)` leaves."""
        both = self.join(self)
        place = both.depth().unsqueeze(1)
        if len(both) and int(place.max()) == both.neuron.shape[1]:
            both = both.wide(both.neuron.shape[1] + COLUMNS)
        side = torch.cat([both.side.new_ones(len(self), 1), -both.side.new_ones(len(self), 1)])
        # a row that says less than a new one of the same neuron hands its multiplier on
        weaker = (both.neuron == both.branch.unsqueeze(1)) & (both.side == side)
        multiplier = (both.multiplier * weaker).sum(1, keepdim=True)
        both.multiplier.masked_fill_(weaker, 0.0)
        both.neuron.scatter_(1, place, both.branch.unsqueeze(1))
        both.point.scatter_(1, place, both.at.unsqueeze(1))
        both.floor.fill_(-torch.inf)
        both.proof.fill_(-1)
        both.side.scatter_(1, place, side)
        both.multiplier.scatter_(1, place, multiplier)
        return both
