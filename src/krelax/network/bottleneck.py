"""A narrow place before the first activation: everything that comes behind depends on a few numbers alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from math import prod

from krelax.elements import FLOAT64
from krelax.network.graph import Network, Node
from krelax.network.ops import Linear, Source


def bottleneck(network: Network, most: int) -> int | None:
    """The node of fewest entries, the last one of several and fewer than `most`, that everything goes through on its
    way from the input to the first activation; None if there is none."""
    reads = [min(node.inputs, default=0) for node in network.nodes]
    affine = takewhile(lambda i: isinstance(network.nodes[i].op, Linear), range(1, len(network.nodes) - 1))
    narrow = [i for i in affine if min(reads[i + 1 :]) >= i and prod(network.nodes[i].shape) < most]
    return min(reversed(narrow), key=lambda i: prod(network.nodes[i].shape), default=None)


def behind(network: Network, node: int) -> Network:
    """What becomes of the value of a node, which everything goes through: the network whose input that is."""
    first = Node(Source(), (), network.nodes[node].shape, "input")
    rest = (replace(n, inputs=tuple(i - node for i in n.inputs)) for n in network.nodes[node + 1 :])
    return replace(network, nodes=(first, *rest), replay=None, elements=FLOAT64)
