"""Clauses of several margins as one margin each: their largest, by one more activation at the end of the network.

At every input one positive member settles a clause, but not the same one everywhere. The relaxation of a maximum lets
its members share, and its linear program mixes them in every leaf as it needs them, so that a leaf with nothing left
to split is decided exactly.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from krelax.activations import Max
from krelax.bounds.instance import Instance
from krelax.bounds.intervals import Intervals, advance
from krelax.bounds.methods import Bounded
from krelax.network.compose import reshape
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.network.ops import Take
from krelax.problem.queries import Queries


def mixed(queries: Queries, found: Bounded) -> bool:
    """Whether a clause that is open has several members."""
    members = queries.clause[0].bincount(minlength=queries.clauses)
    return bool((members[queries.clause_values(found.value)[0] <= 0] > 1).any())


def largest(instance: Instance, queries: Queries, found: Bounded) -> tuple[Instance, Queries, Bounded]:
    """The same question about one region with one margin for each clause, and what is known of it, which settles no
    clause: what is noted of it is to be about the new margins. Nodes keep their numbers."""
    network, margins = extended(instance.network, queries)
    members, value = _members(queries), found.value
    for ledger in instance.ledgers:
        ledger.begin_maxima(margins + 1, members.flatten().tolist())
        noted = ledger.proven(margins + 1, members.numel()).to(value)
        value = value.minimum(_of_margins(noted, members.flatten(), value.shape[1]))
    old = found.known
    known = Intervals(list(old.lower), list(old.upper), list(old.magnitude), dict(old.relaxations), dict(old.groups))
    for i in range(len(known.lower), len(network.nodes)):
        advance(network, known)
        if i == margins:
            known.tighten(i, value, known.upper[i])
    fast = network.to(instance.fast_network.dtype, queries.rows.device)
    value = queries.clause_values(found.value).clamp(max=0)
    return replace(instance, network=network, fast_network=fast), _single(value), Bounded(value, known)


def _of_margins(bounds: Tensor, margin: Tensor, count: int) -> Tensor:
    """The best of the bounds, `(entries,)`, of entries that are the same margin, `(1, count)`."""
    none = bounds.new_full((count,), -torch.inf)
    return none.scatter_reduce(0, margin.to(bounds.device), bounds, "amax")[None]


def extended(network: Network, queries: Queries) -> tuple[Network, int]:
    """The network with the largest member of every clause as output, and the node of the margins, which is followed by
    that of the members of every clause and that of their maxima."""
    builder = Builder(network.input_shape)
    for node in network.nodes[1:]:
        builder.add(node.op, *node.inputs, name=node.name)
    flat = reshape(builder, len(network.nodes) - 1, (queries.rows.shape[-1],))
    margins = builder.add(Dense(queries.rows[0], queries.offsets[0]), flat)
    largest = builder.add(Max(), builder.add(Take(_members(queries)), margins))
    return builder.build(largest), margins


def _members(queries: Queries) -> Tensor:
    """The members of every clause, `(clauses, m)`; short ones repeat their first."""
    members = [(queries.clause[0] == c).nonzero()[:, 0] for c in range(queries.clauses)]
    longest = max(len(m) for m in members)
    return torch.stack([torch.cat([m, m[:1].expand(longest - len(m))]) for m in members])


def _single(value: Tensor) -> Queries:
    """A clause for each entry of an output."""
    count = value.shape[1]
    rows = torch.eye(count, dtype=value.dtype, device=value.device)[None]
    return Queries(rows, torch.zeros_like(value), torch.arange(count, device=value.device)[None], count)
