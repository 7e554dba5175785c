"""Bounds of pre-activations, layer by layer: the dearest part of every backward method."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from krelax.bounds.backward import lower_bound, neurons, signed
from krelax.bounds.instance import Instance, chunk_queries
from krelax.bounds.intervals import Intervals
from krelax.bounds.ledger import Noted, keys_of_entries
from krelax.bounds.optimise import Ascent, ascend
from krelax.bounds.steps import by_rule, choices, over
from krelax.network.activations import Activation
from krelax.network.graph import Network
from krelax.network.linear import Conv, ConvTranspose, Dense, Scale
from krelax.network.ops import Pad, Reshape, Transpose
from krelax.problem.region import Box, Region
from krelax.relaxations import Rule, relax

# Tensors the size of the widest layer that a pass holds for every query, roughly.
RULE_COPIES = 6
ASCENT_COPIES = 24


def unstable_index(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the True entries of `(batch, n)`, padded to the longest row: index and validity, `(batch, m)`."""
    count = int(mask.sum(1).max()) if mask.numel() else 0
    order = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
    return order, mask.gather(1, order)


def undecided(instance: Instance, known: Intervals, node: int) -> Tensor:
    """Entries of the pre-activation `node` whose bounds matter to an activation that reads it: `(batch, n)`."""
    readers = [n.op for n in instance.network.nodes if node in n.inputs and isinstance(n.op, Activation)]
    masks = [relax(op, known.lower[node], known.upper[node]).unstable() for op in readers]
    return torch.stack(masks).any(0).flatten(1)


_RESHAPING = (Reshape, Transpose, Pad, Scale)
_MIXING = (Dense, Conv, ConvTranspose)


def interval_is_exact(network: Network, region: Region, node: int) -> bool:
    """Whether interval arithmetic gives the exact bounds of a node already: one matrix applied to a box."""
    mixed = 0
    while node > 0:
        op = network.nodes[node].op
        mixed += isinstance(op, _MIXING)
        if mixed > 1 or not isinstance(op, _RESHAPING + _MIXING):
            return False
        node = network.nodes[node].inputs[0]
    return isinstance(region, Box)


def bound_by_rule(instance: Instance, known: Intervals, node: int, rule: Rule) -> None:
    """Bound the undecided entries of a pre-activation by one backward pass with a closed-form rule.

    The bounds replace those of interval arithmetic, as the methods are published: closed-form slopes are chosen from
    the bounds, and tighter bounds can choose worse ones.
    """
    witness = by_rule(known, rule)

    def prove(index: Tensor) -> Tensor:
        form = signed(neurons(instance.network, node, index))
        return lower_bound(instance.network, instance.region, form, witness, known)

    for index, valid in _portions(instance, known, node, RULE_COPIES):
        known.replace(node, *_with(known, node, index, valid, prove(index)))


def tighten_by_ascent(instance: Instance, known: Intervals, node: int, ascent: Ascent) -> None:
    """Tighten the undecided entries of a pre-activation with slopes optimised for each of them.

    Where there are no groups, the ascent is shortened to what the network affords.
    """
    if not known.relaxations:
        return
    ascent = ascent if known.groups else ascent.affordable(instance.network)
    fast_known = known.to(instance.fast_network.dtype, instance.network)

    def prove(index: Tensor, valid: Tensor) -> Tensor:
        form = signed(neurons(instance.fast_network, node, index))
        witness = over(ascend(instance, form, fast_known, ascent), known)
        form = signed(neurons(instance.network, node, index))
        value = lower_bound(instance.network, instance.region, form, witness, known)
        for region, ledger in enumerate(instance.ledgers):
            keys = keys_of_entries(index[region].tolist(), valid[region].tolist())
            ledger.note(node, keys, value[region], Noted.unsplit(choices(witness, region), len(keys)))
        return value

    for index, valid in _portions(instance, known, node, ASCENT_COPIES):
        known.tighten(node, *_with(known, node, index, valid, prove(index, valid)))


def _portions(instance: Instance, known: Intervals, node: int, copies: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The undecided entries of a pre-activation in portions that fit memory: index and validity, `(batch, m)`."""
    if interval_is_exact(instance.network, instance.region, node):
        return
    mask = undecided(instance, known, node)
    index, valid = unstable_index(mask)
    widest = max(prod(n.shape) for n in instance.network.nodes[: node + 1])
    # at least so many neurons that the fixed cost of a pass does not matter
    size = max(64, chunk_queries(2 * len(mask) * widest * known.lower[0].element_size(), copies, mask.device))
    for first in range(0, index.shape[1], size):
        instance.check()
        yield index[:, first : first + size], valid[:, first : first + size]


def _with(known: Intervals, node: int, index: Tensor, valid: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """A node's bounds with those of some entries exchanged: `value` holds lower bounds of the entries and of their
    negatives, `(batch, 2 m)`."""
    below, above = value.chunk(2, dim=1)
    shape = known.lower[node].shape
    lower, upper = (t[node].flatten(1) for t in (known.lower, known.upper))
    below = torch.where(valid, below, lower.gather(1, index))
    above = torch.where(valid, -above, upper.gather(1, index))
    return lower.scatter(1, index, below).reshape(shape), upper.scatter(1, index, above).reshape(shape)
