"""Bounds of a network that other networks are part of, layer by layer: branching tightens the layers of these.

In a network of differences, what a neuron is apart by goes through its activation or does not, where the neuron may be
on either side of zero. So most is lost by bounds of the networks that are compared. Their layers are tightened by
themselves, where leaves cost little, until a neuron is farther from zero than it is apart: less does not decide both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from krelax.bounds.branching import Effort
from krelax.bounds.copies import sources
from krelax.bounds.instance import Instance, OutOfTime
from krelax.bounds.intermediate import tighten_by_ascent
from krelax.bounds.layers import LayerBounds, advance, renew, start
from krelax.bounds.optimise import Ascent
from krelax.bounds.tightening import tighten_layer
from krelax.network.graph import Network


@dataclass(frozen=True, eq=False)
class Part:
    """A network over the same region, and where its nodes are in the whole one, which has them in the same order."""

    instance: Instance
    where: Mapping[int, int]

    @cached_property
    def kinked(self) -> dict[int, int]:
        """Its pre-activations that are read by activations with a kink at zero alone, by their places."""
        network = self.instance.network
        readers: dict[int, list[bool]] = {}
        for i in network.activations():
            readers.setdefault(network.nodes[i].inputs[0], []).append(network.activation(i).leak is not None)
        return {self.where[n]: n for n, kinks in readers.items() if n in self.where and all(kinks)}


def tighten_parts(
    instance: Instance, found: LayerBounds, parts: Sequence[Part], effort: Effort, inner: Ascent
) -> LayerBounds:
    """Bounds of every node of one region, never looser than `found`, without proofs; every activation gets its share of
    the time until the deadline, and what there is no time for is left out."""
    network, bounds = instance.network, start(instance.region)
    activations, own = network.activations(), [start(part.instance.region) for part in parts]
    # what is known of other operands of an activation says how far beyond zero is enough
    last = {place: i for i in activations for place in _origins(network, i)}
    every = {place for part in parts for place in part.kinked if place in last}
    for i, node in enumerate(network.nodes[1:], start=1):
        if i in activations:
            share = instance.share(len([j for j in activations if j >= i]))
            if node.inputs[0] not in every:
                with suppress(OutOfTime):
                    tighten_by_ascent(share, bounds, node.inputs[0], inner)
            for place in sorted(p for p in every if last[p] == i):
                for part, mine in zip(parts, own, strict=True):
                    if place in part.kinked:
                        alone = Part(replace(part.instance, deadline=share.deadline), part.where)
                        _tighten(network, bounds, alone, mine, place, effort, inner)
                for j in range(place + 1, i):
                    renew(network, bounds, j)
        advance(network, bounds)
        bounds.meet(found, i)
    return bounds


def _origins(network: Network, activation: int) -> dict[int, Tensor]:
    """The nodes whose entries are operands of an activation, and which of theirs they are, -1 for others."""
    operand = network.nodes[activation].inputs[0]
    return sources(network, operand) or {operand: torch.arange(prod(network.nodes[operand].shape))}


def _tighten(
    network: Network, bounds: LayerBounds, part: Part, own: LayerBounds, place: int, effort: Effort, inner: Ascent
) -> None:
    """Tighten the pre-activation of a part that is at this place, and its `own` bounds, which grow until there."""
    source = part.kinked[place]
    while len(own.lower) <= source:
        advance(part.instance.network, own)
        node = len(own.lower) - 1
        if node in part.where:
            own.meet(bounds, node, part.where[node])
    beyond = _beyond(network, bounds, place)
    with suppress(OutOfTime):
        tighten_by_ascent(part.instance, own, source, inner)
        tighten_layer(part.instance, own, source, effort, beyond=beyond)
    bounds.meet(own, place, source)


def _beyond(network: Network, bounds: LayerBounds, place: int) -> Tensor:
    """How far beyond zero the entries of a node decide the activations that read them, `(n,)`."""
    found = torch.zeros_like(bounds.lower[place][0].flatten())
    for i in network.activations():
        operand, entries = network.nodes[i].inputs[0], _origins(network, i).get(place)
        if entries is not None and operand < len(bounds.lower):
            far = network.activation(i).relax(bounds.lower[operand], bounds.upper[operand]).beyond()[0].flatten()
            kept = (entries >= 0).to(far.device)
            found.scatter_reduce_(0, entries.to(far.device)[kept], far[kept], "amax")
    return found
