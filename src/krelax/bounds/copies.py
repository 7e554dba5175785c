"""Entries of a node that are copies of one number.

All products of two matrices take every number of theirs many times. Bounds are found for one of the copies, and are
those of all.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from krelax.network.copies import moves, numbers
from krelax.network.graph import Network

# Nodes whose copies are remembered, which are asked for with every bound.
_REMEMBERED = 64


@lru_cache(_REMEMBERED)
def copies(network: Network, node: int) -> Tensor | None:
    """For every entry of a node the first entry that is the same number, `(n,)`; None if no number is there twice."""
    if not moves(network.nodes[node]):
        return None
    flat = numbers(network.nodes, node, {}).flatten()
    _, inverse = flat.unique(return_inverse=True)
    count = int(inverse.max()) + 1
    if count == len(flat):
        return None
    places = torch.arange(len(flat))
    first = torch.full((count,), len(flat)).scatter_reduce_(0, inverse, places, "amin")
    return first[inverse]


@lru_cache(_REMEMBERED)
def sources(network: Network, node: int) -> dict[int, Tensor] | None:
    """For a node that only copies, the nodes that do not and whose entries it has: for each of its entries which one of
    theirs it is, `(n,)`, -1 for those of others and for zeros. None for any other node."""
    if not moves(network.nodes[node]):
        return None
    flat, found, begin = numbers(network.nodes, node, {}).flatten(), {}, 1
    for i, source in enumerate(network.nodes[:node]):
        places = flat - begin
        inside = (places >= 0) & (places < prod(source.shape))
        if bool(inside.any()):
            found[i] = torch.where(inside, places, -1)
        begin += prod(source.shape)
    return found


def shared(network: Network, node: int, values: Tensor) -> Tensor:
    """Values of a node's entries, `(batch, *shape)`, those of first copies for all copies."""
    places = copies(network, node)
    return values if places is None else values.flatten(1)[:, places.to(values.device)].view_as(values)
