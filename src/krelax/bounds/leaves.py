"""Leaves of a branch and bound over activations, many at a time, each belonging to one of many queries."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Columns for splits that a table has at first, and gets more when they are full.
COLUMNS = 16


@dataclass
class Leaves:
    """Leaves and what was found for them so far; every tensor has one row for each leaf.

    `query`: whose leaf it is. `neuron`, `side`, `multiplier`, `(leaves, depth)`: its splits; neurons are numbered
    through all splittable activations, and free columns hold -1. `value`: its bound as proposed. `floor`: a bound that
    has been proven, minus infinity if there is none. `proof`: the number under which the proof of the floor is kept,
    if it is that of a leaf that this one came from, else -1. `clip`: the number of the last of the leaves it came from,
    or itself, at which intervals were narrowed, -1 if none were. `branch`: the neuron to be split next, -1 for none.
    `slopes`: what is optimised besides, one row for each leaf, inherited by its children.
    """

    query: Tensor
    neuron: Tensor
    side: Tensor
    multiplier: Tensor
    value: Tensor
    floor: Tensor
    proof: Tensor
    clip: Tensor
    branch: Tensor
    slopes: list[Tensor]

    def __len__(self) -> int:
        return len(self.query)

    def rows(self) -> Tensor:
        """The number of every leaf."""
        return torch.arange(len(self), device=self.query.device)

    def tensors(self) -> list[Tensor]:
        """All of them in a fixed order."""
        splits = [self.neuron, self.side, self.multiplier]
        return [self.query, *splits, self.value, self.floor, self.proof, self.clip, self.branch, *self.slopes]

    @classmethod
    def of(cls, tensors: list[Tensor]) -> Leaves:
        """From what `tensors` gives."""
        query, neuron, side, multiplier, value, floor, proof, clip, branch, *slopes = tensors
        return cls(query, neuron, side, multiplier, value, floor, proof, clip, branch, slopes)

    def select(self, rows: Tensor) -> Leaves:
        """Copies of some leaves."""
        return self.of([t.index_select(0, rows) for t in self.tensors()])

    def write(self, rows: Tensor, leaves: Leaves) -> None:
        """Put leaves in the place of those in `rows`."""
        for mine, new in zip(self.tensors(), leaves.tensors(), strict=True):
            mine.index_copy_(0, rows, new)

    def room(self, count: int) -> Leaves:
        """The same leaves with space for `count` in all."""
        return self.of([torch.cat([t, t.new_empty(count - len(t), *t.shape[1:])]) for t in self.tensors()])

    def depth(self) -> Tensor:
        """Number of splits of every leaf."""
        return (self.neuron >= 0).sum(1)

    def wide(self, columns: int) -> Leaves:
        """The same leaves with room for at least so many splits."""
        more = columns - self.neuron.shape[1]
        if more <= 0:
            return self
        neuron, side, multiplier = (
            torch.cat([t, t.new_full((len(t), more), free)], 1)
            for t, free in ((self.neuron, -1), (self.side, 0), (self.multiplier, 0))
        )
        return replace(self, neuron=neuron, side=side, multiplier=multiplier)

    def children(self) -> Leaves:
        """Both sides of every leaf's next split, the active ones first: `2 * len(self)` leaves."""
        both = self.of([torch.cat([t, t]) for t in self.tensors()])
        place = both.depth().unsqueeze(1)
        if len(both) and int(place.max()) == both.neuron.shape[1]:
            both = both.wide(both.neuron.shape[1] + COLUMNS)
        both.neuron.scatter_(1, place, both.branch.unsqueeze(1))
        side = both.side.new_ones(len(self), 1)
        both.floor.fill_(-torch.inf)
        both.proof.fill_(-1)
        both.side.scatter_(1, place, torch.cat([side, -side]))
        both.multiplier.scatter_(1, place, 0.0)
        return both
