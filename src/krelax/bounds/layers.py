"""Bounds of every node, and their propagation forward: interval arithmetic (Gowal et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from krelax.proof.log import DERIVED, UNSTATED

# The numbers of the lemmas that prove lower and upper bounds of a node, `(batch, *shape)` each.
Lemmas = tuple[Tensor, Tensor]


@dataclass
class LayerBounds:
    """Bounds of every node over a batch of regions; filled in evaluation order, tightened as it grows.

    `lower[i] <= node i <= upper[i]`, `(batch, *shape)`. `magnitude[i]` bounds the sum of the absolute values of the
    terms that make up node i, with what the errors of its constants count for (`Linear.sizes`). `relaxations[i]`, for a
    non-linear node, is its relaxation over those bounds, and `groups[i]` are joint relaxations of its neurons, if there
    are any.

    `lemmas` are those that prove the bounds, by node, by their numbers in the proof log of each region; of nodes that
    are missing the checker derives all bounds. None where no proofs are recorded. Bounds change in three ways: what
    interval arithmetic says is appended (`advance`) or intersected (`renew`), `tighten` and `replace` take lemmas, and
    `meet` takes the bounds of others with theirs. So with proofs nothing becomes narrower that cannot say why.
    """

    lower: tuple[Tensor, ...] = ()
    upper: tuple[Tensor, ...] = ()
    magnitude: tuple[Tensor, ...] = ()
    relaxations: dict[int, Relaxation] = field(default_factory=dict)
    groups: dict[int, tuple[Groups, ...]] = field(default_factory=dict)
    lemmas: dict[int, Lemmas] | None = None

    def append(self, lower: Tensor, upper: Tensor, magnitude: Tensor) -> None:
        """Bounds of the next node, by interval arithmetic."""
        self.lower += (lower,)
        self.upper += (upper,)
        self.magnitude += (magnitude,)

    def tighten(self, node: int, lower: Tensor, upper: Tensor, lemmas: Lemmas | None) -> None:
        """Intersect the bounds of a node with others that are valid too, and their lemmas; what has none (`UNSTATED`)
        does not count. Raises ValueError without lemmas where proofs are recorded."""
        if self.lemmas is not None:
            below, above = _given(lemmas)
            lower = torch.where(below == UNSTATED, -torch.inf, lower)
            upper = torch.where(above == UNSTATED, torch.inf, upper)
            old_below, old_above = self.lemmas_of(node)
            below = torch.where(lower > self.lower[node], below, old_below)
            above = torch.where(upper < self.upper[node], above, old_above)
            self.lemmas[node] = below, above
        self._intersect(node, lower, upper)

    def replace(self, node: int, lower: Tensor, upper: Tensor, lemmas: Lemmas | None) -> None:
        """Put other valid bounds in the place of a node's, and their lemmas; bounds that have none stay as they are.
        Raises ValueError without lemmas where proofs are recorded."""
        if self.lemmas is not None:
            below, above = _given(lemmas)
            lower = torch.where(below == UNSTATED, self.lower[node], lower)
            upper = torch.where(above == UNSTATED, self.upper[node], upper)
            old_below, old_above = self.lemmas_of(node)
            below = torch.where(below == UNSTATED, old_below, below)
            above = torch.where(above == UNSTATED, old_above, above)
            self.lemmas[node] = below, above
        self._put(node, lower, torch.maximum(upper, lower))

    def meet(self, other: LayerBounds, node: int, there: int | None = None) -> None:
        """Intersect the bounds of a node with those of others; `there`, of another network, it has another number."""
        there = node if there is None else there
        lemmas = None if other.lemmas is None else other.lemmas_of(there)
        self.tighten(node, other.lower[there], other.upper[there], lemmas)

    def derive(self, node: int, lower: Tensor, upper: Tensor) -> None:
        """Intersect the bounds of a node with what the checker derives, too: interval arithmetic."""
        none = None if self.lemmas is None else torch.zeros_like(lower, dtype=torch.int64)
        self.tighten(node, lower, upper, none if none is None else (none, none))

    def _intersect(self, node: int, lower: Tensor, upper: Tensor) -> None:
        low = torch.fmax(self.lower[node], lower)  # which ignores what is not a number
        # two valid intervals intersect; rounding may let tight ones miss each other by less than their error
        self._put(node, low, torch.maximum(torch.fmin(self.upper[node], upper), low))

    def _put(self, node: int, lower: Tensor, upper: Tensor) -> None:
        self.lower = (*self.lower[:node], lower, *self.lower[node + 1 :])
        self.upper = (*self.upper[:node], upper, *self.upper[node + 1 :])

    def lemmas_of(self, node: int) -> Lemmas:
        """The lemmas that prove the bounds of a node; zeros where the checker derives them."""
        none = torch.zeros_like(self.lower[node], dtype=torch.int64)
        return (self.lemmas or {}).get(node, (none, none))

    def changed(self, before: LayerBounds, node: int) -> Tensor:
        """The lemmas, in order, that prove bounds of a node, and did not prove those that were there before."""
        pairs = zip(self.lemmas_of(node), before.lemmas_of(node), strict=True)
        return torch.cat([new[(new != old) & (new > DERIVED)] for new, old in pairs]).unique()

    def copy(self, nodes: int | None = None) -> LayerBounds:
        """The same bounds, of the first nodes or all, which change by themselves; without groups."""
        lower, upper, magnitude = (t[:nodes] for t in (self.lower, self.upper, self.magnitude))
        relaxations = {i: r for i, r in self.relaxations.items() if nodes is None or i < nodes}
        lemmas = None if self.lemmas is None else dict(self.lemmas)
        return LayerBounds(lower, upper, magnitude, relaxations, lemmas=lemmas)

    def to(self, dtype: torch.dtype, network: Network) -> LayerBounds:
        """The same bounds in another type, for proposing witnesses (not rounded outward)."""
        cast = self._each(lambda t: t.to(dtype), network)
        cast.groups = {i: tuple(g.to(dtype) for g in groups) for i, groups in self.groups.items()}
        return cast

    def select(self, index: Tensor, network: Network) -> LayerBounds:
        """The bounds of some of the regions, without groups."""
        chosen = self._each(lambda t: t[index], network)
        if self.lemmas is not None:
            chosen.lemmas = {i: (below[index], above[index]) for i, (below, above) in self.lemmas.items()}
        return chosen

    @classmethod
    def join(cls, parts: Sequence[LayerBounds], network: Network) -> LayerBounds:
        """The bounds of one batch after the other's; without groups, which differ."""
        sides = ((p.lower, p.upper, p.magnitude) for p in parts)
        lower, upper, magnitude = (
            tuple(torch.cat(ts) for ts in zip(*side, strict=True)) for side in zip(*sides, strict=True)
        )
        joined = cls(lower, upper, magnitude)
        if any(p.lemmas is not None for p in parts):
            nodes = {i for p in parts for i in p.lemmas or ()}
            each = {i: zip(*(p.lemmas_of(i) for p in parts), strict=True) for i in nodes}
            joined.lemmas = {i: (torch.cat(below), torch.cat(above)) for i, (below, above) in each.items()}
        return parts[0]._related(joined, network)

    def _each(self, change: Callable[[Tensor], Tensor], network: Network) -> LayerBounds:
        """Other bounds of the same nodes, each changed alike, without lemmas."""
        lower, upper, magnitude = (tuple(map(change, ts)) for ts in (self.lower, self.upper, self.magnitude))
        return self._related(LayerBounds(lower, upper, magnitude), network)

    def _related(self, other: LayerBounds, network: Network) -> LayerBounds:
        """Other bounds of the same nodes, with their relaxations."""
        for i in self.relaxations:
            other.relax(network, i)
        return other

    def relax(self, network: Network, node: int) -> Relaxation:
        """Relaxation of a non-linear node over the bounds of its operand."""
        operand = network.nodes[node].inputs[0]
        self.relaxations[node] = network.activation(node).relax(self.lower[operand], self.upper[operand])
        return self.relaxations[node]


def _given(lemmas: Lemmas | None) -> Lemmas:
    """The lemmas; ValueError without."""
    if lemmas is None:
        raise ValueError("bounds without the lemmas that prove them, where proofs are recorded")
    return lemmas


def start(region: Region, proofs: bool = False) -> LayerBounds:
    """Bounds of the input alone; with `proofs`, bounds that keep their lemmas."""
    result = LayerBounds(lemmas={} if proofs else None)
    result.append(region.lower, region.upper, region.magnitude)
    return result


def advance(network: Network, bounds: LayerBounds) -> None:
    """Append the interval of the next node, computed from its inputs' bounds; sound in floating point."""
    bounds.append(*_interval(network, bounds, len(bounds.lower)))


def renew(network: Network, bounds: LayerBounds, node: int) -> None:
    """Tighten the interval of a node that has one by what its inputs' bounds are now."""
    lower, upper, _ = _interval(network, bounds, node)
    bounds.derive(node, lower, upper)


def _interval(network: Network, bounds: LayerBounds, i: int) -> tuple[Tensor, Tensor, Tensor]:
    node = network.nodes[i]
    if isinstance(node.op, Linear):
        return _linear(node, node.op, bounds)
    lower, upper = bounds.relax(network, i).interval()
    return lower, upper, torch.maximum(lower.abs(), upper.abs())


def _linear(node: Node, op: Linear, bounds: LayerBounds) -> tuple[Tensor, Tensor, Tensor]:
    lower, upper = ([side[j] for j in node.inputs] for side in (bounds.lower, bounds.upper))
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
    low = bounding(middle - spread)
    if op.only_adds and op.is_exact and all(bool((a >= 0).all()) for a in lower):
        # of wide intervals the middle loses what is small beside it
        least = op.forward(*lower)
        low = torch.maximum(low, bounding(least - gamma(op.terms + 1, least.dtype) * least))
    return low, -bounding(-(middle + spread)), magnitude
