"""Bounds of pre-activations, layer by layer: the dearest part of every backward method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from krelax.activations import Activation, Rule
from krelax.bounds.backward import lower_bound, neurons, signed
from krelax.bounds.cones import Cone, cones, entries
from krelax.bounds.copies import copies, shared
from krelax.bounds.instance import Instance, chunk_queries, side_by_side
from krelax.bounds.layers import LayerBounds, Lemmas
from krelax.bounds.optimise import Ascent, ascend
from krelax.bounds.recording import chosen, record_entries
from krelax.bounds.steps import Tapes, by_rule, over
from krelax.network.graph import Network, Node
from krelax.network.linear import Conv, ConvTranspose, Dense, Scale
from krelax.network.ops import Concat, Pad, Reshape, Transpose
from krelax.problem.region import Box, Region

# Tensors the size of the widest layer that a pass holds for every query, roughly.
RULE_COPIES = 6
ASCENT_COPIES = 24
# The fixed cost of a pass does not matter for so many neurons.
_FEW = 64


def unstable_index(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the True entries of `(batch, n)`, padded to the longest row: index and validity, `(batch, m)`."""
    count = int(mask.sum(1).max()) if mask.numel() else 0
    order = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
    return order, mask.gather(1, order)


def undecided(instance: Instance, bounds: LayerBounds, node: int) -> Tensor:
    """Entries of the pre-activation `node` whose bounds matter to an activation that reads it, and to the questions; of
    copies of one number the first: `(batch, n)`."""
    readers = [n.op for n in instance.network.nodes if node in n.inputs and isinstance(n.op, Activation)]
    masks = [op.relax(bounds.lower[node], bounds.upper[node]).unstable() for op in readers]
    mask = torch.stack(masks).any(0).flatten(1)
    mask = mask & instance.seen[node] if node in instance.seen else mask
    places = copies(instance.network, node)
    if places is None:
        return mask
    places = places.to(mask.device)
    # a copy that matters makes the first one matter
    found = torch.zeros_like(mask, dtype=torch.uint8)
    return found.scatter_reduce_(1, places.expand(len(mask), -1), mask.to(torch.uint8), "amax").bool()


_RESHAPING = (Reshape, Transpose, Pad, Scale)
_MIXING = (Dense, Conv, ConvTranspose)


def interval_is_exact(network: Network, region: Region, node: int) -> bool:
    """Whether interval arithmetic gives the exact bounds of a node already: one matrix applied to a box."""
    return isinstance(region, Box) and _matrices(network, node) <= 1


def _matrices(network: Network, node: int) -> float:
    """Between a node and the input, the most matrices that are applied one after the other; infinity where something
    else is."""
    op, inputs = network.nodes[node].op, network.nodes[node].inputs
    if node == 0:
        return 0
    if not isinstance(op, _RESHAPING + _MIXING + (Concat,)):
        return math.inf
    return isinstance(op, _MIXING) + max(_matrices(network, j) for j in inputs)


def bound_by_rule(instance: Instance, bounds: LayerBounds, node: int, rule: Rule) -> None:
    """Bound the undecided entries of a pre-activation by one backward pass with a closed-form rule.

    The bounds replace those of interval arithmetic, as the methods are published: closed-form slopes are chosen from
    the bounds, and tighter bounds can choose worse ones. Those of curves and products are intersected: outside of its
    domain nothing is known of a curve, and products gain more from narrow operands. Where windows of the node see a
    small part of the network, passes go through their cones.
    """
    if interval_is_exact(instance.network, instance.region, node):
        return
    mask = undecided(instance, bounds, node)
    readers = [n.op for n in instance.network.nodes if node in n.inputs and isinstance(n.op, Activation)]
    published = all(op.published for op in readers)
    views = _views(instance, bounds, node, rule, mask)

    def prove(view: View) -> Tensor:
        instance.check()
        with instance.watch():
            return view.prove()

    leaves = chosen(instance, by_rule(bounds, rule), 1) if views else []
    for view, value in zip(views, side_by_side(prove, views, mask.device), strict=True):
        index, valid = view.portion
        lemmas = record_entries(instance, node, index, valid, value, leaves)
        put = bounds.replace if published else bounds.tighten
        put(node, *_with(instance.network, bounds, node, index, valid, value, lemmas))


@dataclass(frozen=True, eq=False)
class View:
    """What one pass bounds, the entries `portion` of a pre-activation: in the whole network over the bounds of all its
    nodes, or in some places of a cone, whose entries they are by `index`, `(places * batch, m)`."""

    instance: Instance
    bounds: LayerBounds
    rule: Rule
    portion: Portion
    node: int
    index: Tensor
    cone: Cone | None = None

    def prove(self) -> Tensor:
        """Lower bounds of the entries and of their negatives, `(batch, 2 m)`."""
        network, region, bounds, cone, places = self.instance.network, self.instance.region, self.bounds, self.cone, 1
        if cone is not None:
            region = cone.region(region, network.nodes[cone.origin[0]].shape)
            network, bounds, places = cone.network, cone.bounds(bounds), len(cone.places)
        form = signed(neurons(network, self.node, self.index))
        value = lower_bound(network, region, form, by_rule(bounds, self.rule), bounds)
        return value.unflatten(0, (places, -1)).unflatten(2, (2, -1)).permute(1, 2, 0, 3).flatten(1)


def _views(instance: Instance, bounds: LayerBounds, node: int, rule: Rule, mask: Tensor) -> list[View]:
    """Passes for the entries of a pre-activation that a mask picks, `(batch, n)`."""
    network = instance.network
    found = cones(network, node) if int(mask.sum(1).max()) > _FEW else []
    if not found:
        portions = _split(mask, network.nodes[: node + 1], RULE_COPIES)
        return [View(instance, bounds, rule, portion, node, portion[0]) for portion in portions]
    views = []
    for cone in found:
        numbers = torch.stack(list(entries(network.nodes[node].shape, [p[node] for p in cone.places]))).to(mask.device)
        for places, rows in _some_places(mask[:, numbers], cone):
            index, valid = unstable_index(mask[:, numbers[places]].transpose(0, 1).flatten(0, 1))
            for part in range(0, index.shape[1], rows):
                views.append(_in_cone(instance, bounds, rule, cone.at(places), numbers[places],
                                      (index[:, part : part + rows], valid[:, part : part + rows])))  # fmt: skip
    return views


def _some_places(mask: Tensor, cone: Cone) -> Iterator[tuple[slice, int]]:
    """The places of a cone in parts that fit memory, and how many entries of each to bound at a time; `mask` picks
    entries, `(batch, places, n)`."""
    most = int(mask.sum(2).max())
    rows = chunk_queries(2 * len(mask) * _widest(cone.network.nodes), RULE_COPIES, mask.device)
    at_a_time = max(1, rows // max(1, most))
    for begin in range(0, mask.shape[1], at_a_time):
        if bool(mask[:, begin : begin + at_a_time].any()):
            yield slice(begin, begin + at_a_time), max(_FEW, rows)


def _in_cone(instance: Instance, bounds: LayerBounds, rule: Rule, cone: Cone, numbers: Tensor, chosen: Portion) -> View:
    """The pass for entries `(places * batch, m)` of a cone, whose entries have these `numbers`, `(places, n)`, in the
    network."""
    index, valid = (t.unflatten(0, (len(cone.places), -1)).transpose(0, 1) for t in chosen)  # batch, places, m
    own = numbers.unsqueeze(0).expand(len(index), -1, -1).gather(2, index)
    node = len(cone.network.nodes) - 1
    return View(instance, bounds, rule, (own.flatten(1), valid.flatten(1)), node, chosen[0], cone)


def tighten_by_ascent(instance: Instance, bounds: LayerBounds, node: int, ascent: Ascent) -> None:
    """Tighten the undecided entries of a pre-activation with slopes optimised for each of them.

    Where there are no groups, the ascent is shortened to what the network affords.
    """
    if not bounds.relaxations:
        return
    ascent = ascent if bounds.groups else ascent.affordable(instance.network)
    fast_bounds = bounds.to(instance.fast_network.dtype, instance.network)

    def prove(portion: Portion) -> tuple[Tensor, Tensor | None]:
        instance.check()
        index, valid = portion
        with instance.watch():
            form = signed(neurons(instance.fast_network, node, index))
            witness = over(ascend(instance, form, fast_bounds, ascent), bounds)
            form = signed(neurons(instance.network, node, index))
            tapes: Tapes = {}
            value = lower_bound(instance.network, instance.region, form, witness, bounds, tapes)
        leaves = chosen(instance, witness, value.shape[1], tapes)
        return value, record_entries(instance, node, index, valid, value, leaves)

    portions = _portions(instance, bounds, node, ASCENT_COPIES)
    for portion, proven in zip(portions, side_by_side(prove, portions, bounds.lower[0].device), strict=True):
        bounds.tighten(node, *_with(instance.network, bounds, node, *portion, *proven))


# Entries of a pre-activation, and which of them are no padding, `(batch, m)` each.
Portion = tuple[Tensor, Tensor]


def _portions(instance: Instance, bounds: LayerBounds, node: int, copies: int) -> list[Portion]:
    """The undecided entries of a pre-activation in portions that fit memory, one for each core where they are many."""
    if interval_is_exact(instance.network, instance.region, node):
        return []
    return _split(undecided(instance, bounds, node), instance.network.nodes[: node + 1], copies)


def _split(mask: Tensor, nodes: Sequence[Node], copies: int) -> list[Portion]:
    index, valid = unstable_index(mask)
    size = max(_FEW, chunk_queries(2 * len(mask) * _widest(nodes), copies, mask.device))
    return [(index[:, i : i + size], valid[:, i : i + size]) for i in range(0, index.shape[1], size)]


def _widest(nodes: Sequence[Node]) -> int:
    """Bytes of the coefficients of one query at the widest of some nodes."""
    return 8 * max(prod(n.shape) for n in nodes)


def _with(
    network: Network, bounds: LayerBounds, node: int, index: Tensor, valid: Tensor, value: Tensor, lemmas: Tensor | None
) -> tuple[Tensor, Tensor, Lemmas | None]:
    """A node's bounds with those of some entries exchanged, and their lemmas: `value` holds lower bounds of the entries
    and of their negatives, `(batch, 2 m)`, and `lemmas` what proves them."""
    below, above = value.chunk(2, dim=1)

    def exchanged(old: Tensor, new: Tensor) -> Tensor:
        flat = old.flatten(1)
        changed = flat.scatter(1, index, torch.where(valid, new, flat.gather(1, index))).reshape(old.shape)
        return shared(network, node, changed)

    lower, upper = exchanged(bounds.lower[node], below), exchanged(bounds.upper[node], -above)
    if lemmas is None:
        return lower, upper, None
    pairs = zip(bounds.lemmas_of(node), lemmas.chunk(2, dim=1), strict=True)
    proven = [exchanged(old, new) for old, new in pairs]
    return lower, upper, (proven[0], proven[1])
