"""Bounds of every node, and their propagation forward: interval arithmetic (Gowal et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from krelax.activations import Relaxation
from krelax.bounds.groups import Groups
from krelax.bounds.rounding import bounding, gamma
from krelax.network.graph import Network, Node
from krelax.network.ops import Linear
from krelax.problem.region import Region
from krelax.problem.region import middle as halfway


@dataclass
class Intervals:
    """What is known of a network over a batch of regions; filled in evaluation order, tightened as it grows.

    `lower[i] <= node i <= upper[i]`, `(batch, *shape)`. `magnitude[i]` bounds the sum of the absolute values of the
    terms that make up node i, with what the errors of its constants count for (`Linear.sizes`). `relaxations[i]`, for a
    non-linear node, is its relaxation over those bounds, and `groups[i]` are joint relaxations of its neurons, if there
    are any.
    """

    lower: list[Tensor] = field(default_factory=list)
    upper: list[Tensor] = field(default_factory=list)
    magnitude: list[Tensor] = field(default_factory=list)
    relaxations: dict[int, Relaxation] = field(default_factory=dict)
    groups: dict[int, tuple[Groups, ...]] = field(default_factory=dict)

    def append(self, lower: Tensor, upper: Tensor, magnitude: Tensor) -> None:
        """Bounds of the next node."""
        self.lower.append(lower)
        self.upper.append(upper)
        self.magnitude.append(magnitude)

    def tighten(self, node: int, lower: Tensor, upper: Tensor) -> None:
        """Intersect the bounds of a node with others that are valid too."""
        self.lower[node] = torch.fmax(self.lower[node], lower)  # which ignores what is not a number
        # two valid intervals intersect; rounding may let tight ones miss each other by less than their error
        self.upper[node] = torch.maximum(torch.fmin(self.upper[node], upper), self.lower[node])

    def replace(self, node: int, lower: Tensor, upper: Tensor) -> None:
        """Put other valid bounds in the place of a node's."""
        self.lower[node], self.upper[node] = lower, torch.maximum(upper, lower)

    def to(self, dtype: torch.dtype, network: Network) -> Intervals:
        """The same bounds in another type, for proposing witnesses (not rounded outward)."""
        lower, upper, magnitude = ([t.to(dtype) for t in ts] for ts in (self.lower, self.upper, self.magnitude))
        cast = self._related(Intervals(lower, upper, magnitude), network)
        cast.groups = {i: tuple(g.to(dtype) for g in groups) for i, groups in self.groups.items()}
        return cast

    def select(self, index: Tensor, network: Network) -> Intervals:
        """The bounds of some of the regions, without groups."""
        lower, upper, magnitude = ([t[index] for t in ts] for ts in (self.lower, self.upper, self.magnitude))
        return self._related(Intervals(lower, upper, magnitude), network)

    @classmethod
    def join(cls, parts: Sequence[Intervals], network: Network) -> Intervals:
        """The bounds of one batch after the other's; without groups, which differ."""
        sides = ((p.lower, p.upper, p.magnitude) for p in parts)
        lower, upper, magnitude = (
            [torch.cat(ts) for ts in zip(*side, strict=True)] for side in zip(*sides, strict=True)
        )
        return parts[0]._related(cls(lower, upper, magnitude), network)

    def _related(self, other: Intervals, network: Network) -> Intervals:
        """Other bounds of the same nodes, with their relaxations."""
        for i in self.relaxations:
            other.relax(network, i)
        return other

    def relax(self, network: Network, node: int) -> Relaxation:
        """Relaxation of a non-linear node over the bounds of its operand."""
        operand = network.nodes[node].inputs[0]
        self.relaxations[node] = network.activation(node).relax(self.lower[operand], self.upper[operand])
        return self.relaxations[node]


def start(region: Region) -> Intervals:
    """Bounds of the input alone."""
    result = Intervals()
    result.append(region.lower, region.upper, region.magnitude)
    return result


def advance(network: Network, known: Intervals) -> None:
    """Append the interval of the next node, computed from its inputs' bounds; sound in floating point."""
    known.append(*_interval(network, known, len(known.lower)))


def renew(network: Network, known: Intervals, node: int) -> None:
    """Tighten the interval of a node that has one by what its inputs' bounds are now."""
    lower, upper, _ = _interval(network, known, node)
    known.tighten(node, lower, upper)


def _interval(network: Network, known: Intervals, i: int) -> tuple[Tensor, Tensor, Tensor]:
    node = network.nodes[i]
    if isinstance(node.op, Linear):
        return _linear(node, node.op, known)
    lower, upper = known.relax(network, i).interval()
    return lower, upper, torch.maximum(lower.abs(), upper.abs())


def _linear(node: Node, op: Linear, known: Intervals) -> tuple[Tensor, Tensor, Tensor]:
    lower, upper = ([side[j] for j in node.inputs] for side in (known.lower, known.upper))
    largest = [torch.maximum(a.abs(), b.abs()) for a, b in zip(lower, upper, strict=True)]
    if op.moves_only:
        return op.linear(*lower), op.linear(*upper), op.linear(*largest)
    absolute = op.absolute()
    centre = [halfway(a, b) for a, b in zip(lower, upper, strict=True)]
    radius = [torch.maximum(b - c, c - a) for a, b, c in zip(lower, upper, centre, strict=True)]
    sizes = absolute if op.is_exact else op.sizes()
    magnitude = sizes.forward(*largest).expand(len(largest[0]), *node.shape)
    error = gamma(op.terms, magnitude.dtype) * magnitude + op.terms * torch.finfo(magnitude.dtype).tiny
    middle, spread = op.forward(*centre), absolute.linear(*radius) + error
    return bounding(middle - spread), -bounding(-(middle + spread)), magnitude
