"""Of networks that are the same function, the one about which boxes are faster."""

from __future__ import annotations

import torch
from tests.search.test_boxes import chain, dense

from krelax.activations import ReLU
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.race import fastest
from krelax.watch import counted


def loosely(network: Network) -> Network:
    """The same function, and something that bounds do not see to be zero."""
    builder = Builder(network.input_shape)
    place = {0: 0}
    for i, node in enumerate(network.nodes[1:], start=1):
        place[i] = builder.add(node.op, *(place[j] for j in node.inputs))
    generator = torch.Generator().manual_seed(9)
    hidden, out = (dense(generator, *sizes) for sizes in ((network.input_shape[0], 30), (30, network.output_shape[0])))
    ends = [builder.add(out, builder.add(ReLU(), builder.add(hidden, 0))) for _ in range(2)]
    return builder.build(builder.add(Add((1, 1, -1)), place[len(network.nodes) - 1], *ends))


def test_the_tighter_network_wins_and_none_wins_what_is_violated() -> None:
    network = chain(1, ReLU())
    networks = [loosely(network), network]
    region = Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double())
    x = torch.rand(2000, 2, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(networks[0](x), network(x))
    most = float(network(x / 2)[:, 0].max())

    def won(threshold: float) -> Network | None:
        """Of the question whether the first output stays below a threshold."""
        rows, offsets = torch.tensor([[[-1.0, 0.0, 0.0]]]).double(), torch.tensor([[threshold]]).double()
        with counted(True):
            return fastest(networks, region, Queries(rows, offsets, torch.zeros(1, 1, dtype=torch.long), 1), 1.0)

    assert won(most + 0.01) is network
    assert won(float(network(region.lower / 2 + region.upper / 2)[0, 0]) - 0.1) is None
