"""Networks that go on behind their outputs, by what a question asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.activations import ReLU
from krelax.network.compose import reshape
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Dense
from krelax.network.ops import Concat, Pad, Take
from krelax.problem.queries import Queries


def with_maxima(network: Network, queries: Queries, joint: Sequence[int]) -> tuple[Network, Queries]:
    """A question about one region with one margin for each of the clauses `joint`: the largest of its members.

    Behind the outputs come the members, and then, as long as a clause has several, `max(a, b) = b + relu(a - b)` of two
    neighbours each. A lower slope of such a ReLU is what a form of both members gives to the first of them, and a split
    says which one is larger. Nodes keep their numbers. The new outputs are the old ones, and behind them the maxima;
    the new margins are those of other clauses, and behind them one for each maximum.
    """
    owner = queries.clause[0]
    chosen = torch.as_tensor(joint, dtype=owner.dtype, device=owner.device)
    mine = torch.isin(owner, chosen)
    outputs, rows, offsets = queries.rows.shape[-1], queries.rows[0], queries.offsets[0]
    builder, flat = _continued(network, outputs)
    order = mine.nonzero()[:, 0][owner[mine].argsort(stable=True)]
    values = builder.add(Dense(rows[order], offsets[order]), flat)
    largest = _tournament(builder, values, owner[order])
    both = builder.add(Concat(0), flat, largest)
    count = len(chosen)
    others = torch.nn.functional.pad(rows[~mine], (0, count))
    maxima = torch.nn.functional.pad(torch.eye(count, dtype=rows.dtype, device=rows.device), (outputs, 0))
    asked = Queries(
        torch.cat([others, maxima])[None],
        torch.nn.functional.pad(offsets[~mine], (0, count))[None],
        torch.cat([owner[~mine], chosen])[None],
        queries.clauses,
    )
    return builder.build(both), asked


def with_margins(network: Network, queries: Queries) -> Network:
    """The network with the margins of one question as its output. Nodes keep their numbers."""
    builder, flat = _continued(network, queries.rows.shape[-1])
    return builder.build(builder.add(Dense(queries.rows[0], queries.offsets[0]), flat))


def _tournament(builder: Builder, values: int, owner: Tensor) -> int:
    """The node of the largest value of every owner, in increasing order; `owner`, `(n,)`, is sorted."""
    while bool((owner[1:] == owner[:-1]).any()):
        first, second, pair = matches(owner)
        loses = builder.add(
            Add((1, -1)), builder.add(Take(first[pair]), values), builder.add(Take(second[pair]), values)
        )
        more = builder.add(ReLU(), loses)
        if not bool(pair.all()):  # nothing is added to what has no opponent
            place = torch.where(pair, pair.cumsum(0) - 1, int(pair.sum()))
            more = builder.add(Take(place), builder.add(Pad((0,), (1,)), more))
        values = builder.add(Add((1, 1)), builder.add(Take(second), values), more)
        owner = owner[second]
    return values


def matches(owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Who meets whom in one round: the first and the second of every pair of neighbours with the same owner, and
    whether it is one; who is left alone is both."""
    place = torch.arange(len(owner), device=owner.device)
    first = place[(place - torch.searchsorted(owner, owner)) % 2 == 0]
    second = torch.where(first + 1 < len(owner), first + 1, first)
    pair = (owner[second] == owner[first]) & (second > first)
    return first, torch.where(pair, second, first), pair


@dataclass(frozen=True, eq=False)
class Assumption:
    """That the margin `row @ y + offset`, `(outputs,)` and a number, is at most `level`, which is positive."""

    row: Tensor
    offset: Tensor
    level: float

    def extend(self, network: Network) -> Network:
        """The network with one more neuron, which is inactive where the assumption holds. Nodes keep their numbers."""
        builder, flat = _continued(network, len(self.row))
        bias = torch.nextafter(self.offset - self.level, self.offset.new_tensor(-torch.inf))
        return builder.build(builder.add(ReLU(), builder.add(Dense(self.row[None], bias[None]), flat)))


def _continued(network: Network, outputs: int) -> tuple[Builder, int]:
    """A network that is to go on, and the node of its outputs as a vector."""
    builder = Builder(network.input_shape)
    for node in network.nodes[1:]:
        builder.add(node.op, *node.inputs, name=node.name)
    return builder, reshape(builder, len(network.nodes) - 1, (outputs,))
