"""Bounds of pre-activations, layer by layer: the dearest part of every backward method."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from krelax.bounds.backward import by_rule, lower_bound, neurons, signed
from krelax.bounds.instance import Instance, chunk_rows
from krelax.bounds.intervals import Intervals
from krelax.bounds.optimise import Ascent, ascend, lines_of
from krelax.network.activations import Max
from krelax.network.graph import Network
from krelax.network.linear import Conv, ConvTranspose, Dense, Scale
from krelax.network.ops import Pad, Reshape, Transpose
from krelax.problem.region import Box, Region
from krelax.relaxations import Rule

# Tensors the size of the widest layer that a pass holds for every query, roughly.
RULE_COPIES = 6
ASCENT_COPIES = 24


def unstable_index(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the True entries of `(batch, n)`, padded to the longest row: index and validity, `(batch, m)`."""
    count = int(mask.sum(1).max())
    order = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
    return order, mask.gather(1, order)


def undecided(instance: Instance, known: Intervals, node: int) -> Tensor:
    """Entries of the pre-activation `node` whose bounds matter: `(batch, n)`."""
    consumers = [n.op for n in instance.network.nodes if node in n.inputs]
    lower, upper = known.lower[node], known.upper[node]
    if any(isinstance(op, Max) for op in consumers):
        rivals = upper > lower.amax(-1, keepdim=True)
        return (rivals & (rivals.sum(-1, keepdim=True) > 1)).flatten(1)
    return ((lower < 0) & (upper > 0)).flatten(1)


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


def tighten_by_rule(instance: Instance, known: Intervals, node: int, rule: Rule) -> None:
    """Bound the undecided entries of a pre-activation by one backward pass with a closed-form rule."""
    lines = by_rule(known, rule)

    def prove(index: Tensor) -> Tensor:
        form = signed(neurons(instance.network, node, index))
        return lower_bound(instance.network, instance.region, form, lines, known)

    _tighten(instance, known, node, prove, RULE_COPIES)


def tighten_by_ascent(instance: Instance, known: Intervals, node: int, ascent: Ascent) -> None:
    """Bound the undecided entries of a pre-activation with slopes optimised for each of them."""
    fast = instance.fast_network.dtype
    fast_known = known.to(fast, instance.network)

    def prove(index: Tensor) -> Tensor:
        form = signed(neurons(instance.fast_network, node, index))
        witness = ascend(instance, form, fast_known, ascent)
        exact = {i: s.to(known.lower[0].dtype) for i, s in witness.items()}
        form = signed(neurons(instance.network, node, index))
        return lower_bound(instance.network, instance.region, form, lines_of(known, exact), known)

    _tighten(instance, known, node, prove, ASCENT_COPIES)


def _tighten(instance: Instance, known: Intervals, node: int, prove: Callable[[Tensor], Tensor], copies: int) -> None:
    if interval_is_exact(instance.network, instance.region, node):
        return
    mask = undecided(instance, known, node)
    if not bool(mask.any()):
        return
    index, valid = unstable_index(mask)
    widest = max(torch.Size(n.shape).numel() for n in instance.network.nodes[: node + 1])
    row = 2 * len(mask) * widest * known.lower[0].element_size() * copies
    size = max(chunk_rows(row, mask.device), 64)
    for part, good in zip(index.split(size, 1), valid.split(size, 1), strict=True):
        instance.check()
        _store(known, node, part, good, prove(part))


def _store(known: Intervals, node: int, index: Tensor, valid: Tensor, value: Tensor) -> None:
    """Write lower bounds of entries and of their negatives, `(batch, 2 m)`, into the node's interval."""
    below, above = value.chunk(2, dim=1)
    shape = known.lower[node].shape
    lower, upper = (t[node].flatten(1) for t in (known.lower, known.upper))
    below = torch.where(valid, below, lower.gather(1, index))
    above = torch.where(valid, -above, upper.gather(1, index))
    known.tighten(
        node,
        lower.scatter(1, index, below).reshape(shape),
        upper.scatter(1, index, above).reshape(shape),
    )
