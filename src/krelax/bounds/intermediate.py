"""Bounds of pre-activations, layer by layer: the dearest part of every backward method."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from krelax.activations import Activation, Rule
from krelax.bounds.backward import lower_bound, neurons, signed
from krelax.bounds.copies import copies, shared
from krelax.bounds.instance import Instance, side_by_side
from krelax.bounds.layers import LayerBounds, Lemmas
from krelax.bounds.optimise import Ascent, ascend
from krelax.bounds.recording import chosen, record_entries
from krelax.bounds.steps import Tapes, by_rule, over
from krelax.bounds.views import View, views
from krelax.network.graph import Network
from krelax.network.linear import Conv, ConvTranspose, Dense, Scale
from krelax.network.ops import Concat, Linear, Pad, Reshape, Transpose
from krelax.problem.region import Box, Region

# Tensors the size of the widest layer that a pass holds for every query, roughly.
RULE_COPIES = 6
ASCENT_COPIES = 24


def undecided(instance: Instance, bounds: LayerBounds, node: int, beyond: Tensor | None = None) -> Tensor:
    """Entries of the pre-activation `node` whose bounds matter to an activation that reads it, and to the questions; of
    copies of one number the first: `(batch, n)`. With `beyond`, `(n,)`, those, too, that may be so near to zero."""
    mask = _waiting(instance.network, bounds, node).flatten(1)
    if beyond is not None:
        lower, upper = (t[node].flatten(1) for t in (bounds.lower, bounds.upper))
        mask = mask | ((lower < beyond) & (upper > -beyond) & (lower < upper))
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


def loose(instance: Instance, bounds: LayerBounds, node: int) -> Tensor:
    """Entries of a node that passes may bound better than intervals do, `(batch, *shape)`.

    What moves the value of an activation of one number is not among them: lines around it do not reach beyond its range
    over an interval that a pass has found. But where the activation is decided no pass was made, and the interval may
    be wide.
    """
    network, here = instance.network, instance.network.nodes[node]
    if isinstance(here.op, Activation) and here.shape == network.nodes[here.inputs[0]].shape:
        return ~_waiting(network, bounds, here.inputs[0]) & (bounds.upper[node] > bounds.lower[node])
    if isinstance(here.op, Linear) and here.op.moves_only and here.inputs:
        parts = [loose(instance, bounds, j).to(bounds.lower[0]) for j in here.inputs]
        return here.op.absolute().linear(*parts).expand_as(bounds.lower[node]) > 0
    return torch.ones_like(bounds.lower[node], dtype=torch.bool)


def _waiting(network: Network, bounds: LayerBounds, node: int) -> Tensor:
    """Entries of a pre-activation that are undecided for an activation that reads it, `(batch, *shape)`."""
    readers = [n.op for n in network.nodes if node in n.inputs and isinstance(n.op, Activation)]
    return torch.stack([op.relax(bounds.lower[node], bounds.upper[node]).unstable() for op in readers]).any(0)


def bound_by_rule(instance: Instance, bounds: LayerBounds, node: int, rule: Rule) -> None:
    """Bound the undecided entries of a pre-activation by one backward pass with a closed-form rule.

    The bounds replace those of interval arithmetic, as the methods are published: closed-form slopes are chosen from
    the bounds, and tighter bounds can choose worse ones. Those of curves and products are intersected: outside of its
    domain nothing is known of a curve, and products gain more from narrow operands. Where windows of the node see a
    small part of the network, passes go through their cones.
    """
    readers = [n.op for n in instance.network.nodes if node in n.inputs and isinstance(n.op, Activation)]
    published = all(op.published for op in readers)
    passes = _views(instance, bounds, node, RULE_COPIES)

    def prove(view: View) -> Tensor:
        instance.check()
        with instance.watch():
            inner, known = view.inner()
            form = signed(neurons(inner.network, view.node, view.index))
            return view.joined(lower_bound(inner.network, inner.region, form, by_rule(known, rule), known))

    leaves = chosen(instance, by_rule(bounds, rule), 1) if passes else []
    for view, value in zip(passes, side_by_side(prove, passes, bounds.lower[0].device), strict=True):
        lemmas = record_entries(instance, node, *view.portion, value, leaves)
        put = bounds.replace if published else bounds.tighten
        put(node, *_with(instance.network, bounds, node, *view.portion, value, lemmas))


def tighten_by_ascent(instance: Instance, bounds: LayerBounds, node: int, ascent: Ascent) -> None:
    """Tighten the undecided entries of a pre-activation with slopes optimised for each of them.

    Where there are no groups, the ascent is shortened to what the network affords, and goes through cones. With groups
    it is dearer, and the caller says how long (`krelax.bounds.thrift`).
    """
    if not bounds.relaxations:
        return
    ascent = ascent if bounds.groups else ascent.affordable(instance.network)
    fast = bounds.to(instance.fast_network.dtype, instance.network)

    def prove(view: View) -> tuple[Tensor, Tensor | None]:
        instance.check()
        with instance.watch():
            inner, known = view.inner()
            form = signed(neurons(inner.fast_network, view.node, view.index))
            witness = over(ascend(inner, form, view.known(fast), ascent), known)
            form = signed(neurons(inner.network, view.node, view.index))
            tapes: Tapes = {}
            value = view.joined(lower_bound(inner.network, inner.region, form, witness, known, tapes))
        leaves = chosen(instance, view.spread(witness) if instance.logs else {}, value.shape[1], tapes)
        return value, record_entries(instance, node, *view.portion, value, leaves)

    passes = _views(instance, bounds, node, ASCENT_COPIES)
    for view, proven in zip(passes, side_by_side(prove, passes, bounds.lower[0].device), strict=True):
        bounds.tighten(node, *_with(instance.network, bounds, node, *view.portion, *proven))


def _views(instance: Instance, bounds: LayerBounds, node: int, copies: int) -> list[View]:
    """Passes for the undecided entries of a pre-activation, unless intervals say all that passes can."""
    if interval_is_exact(instance.network, instance.region, node):
        return []
    mask = undecided(instance, bounds, node) & loose(instance, bounds, node).flatten(1)
    return views(instance, bounds, node, mask, copies) if bool(mask.any()) else []


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
