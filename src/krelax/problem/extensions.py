"""Networks that go on behind their outputs, by what a question asks of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.activations import Max, ReLU
from krelax.network.compose import reshape
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.network.ops import Take
from krelax.problem.queries import Queries


def with_maxima(network: Network, queries: Queries) -> tuple[Network, int]:
    """The network with the largest member of every clause as output, and the node of the margins, which is followed by
    that of the members of every clause and that of their maxima. Nodes keep their numbers."""
    builder, flat = _continued(network, queries.rows.shape[-1])
    margins = builder.add(Dense(queries.rows[0], queries.offsets[0]), flat)
    largest = builder.add(Max(), builder.add(Take(members(queries)), margins))
    return builder.build(largest), margins


def members(queries: Queries) -> Tensor:
    """The members of every clause, `(clauses, m)`; short ones repeat their first."""
    members = [(queries.clause[0] == c).nonzero()[:, 0] for c in range(queries.clauses)]
    longest = max(len(m) for m in members)
    return torch.stack([torch.cat([m, m[:1].expand(longest - len(m))]) for m in members])


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
