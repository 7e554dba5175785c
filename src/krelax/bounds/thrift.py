"""How many neurons of every layer a network affords to group: what groups of all layers cost, before there are any.

Counted is what ascents meet, in entries of coefficients: the groups' combinations and the pre-activations of a layer
are queries, each of which goes through all that lies below and pays the groups of all layers before, in every step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from math import prod

from krelax.activations.banded import most_members
from krelax.bounds.optimise import WORK, Ascent
from krelax.hull.grouping import Grouping
from krelax.network.graph import Network

# What ascents with groups may meet, against those without.
_TIMES = 10.0
# Of that, what the pre-activations may meet between the groups.
_PART = 0.4
# What a support value costs, in entries: of an exact hull, of bands.
_EXACT, _BANDS = 50, 600
# Fewer neurons are not worth a pass.
_FEWEST = 8


def grouping_within(
    network: Network, candidates: Mapping[int, int], grouping: Grouping, inner: Ascent | None, combinations: Ascent
) -> Grouping:
    """The grouping with as many neurons as the network affords; `candidates` says how many there are at each node."""
    while grouping.neurons > _FEWEST and _work(network, candidates, grouping, inner, combinations) > _TIMES * WORK:
        grouping = replace(grouping, neurons=max(_FEWEST, int(0.8 * grouping.neurons)))
    return grouping


def inner_within(network: Network, inner: Ascent) -> Ascent:
    """The ascent of pre-activations between groups, shortened to what the network affords."""
    return inner.affordable(network, _PART * _TIMES)


def _work(
    network: Network, candidates: Mapping[int, int], grouping: Grouping, inner: Ascent | None, combinations: Ascent
) -> float:
    """Entries that the ascents of all layers meet because of groups."""
    below = list(accumulate((prod(node.shape) for node in network.nodes), initial=0))
    steps = 0 if inner is None else inner_within(network, inner).steps
    total = paid = 0.0
    for i in network.activations():
        source, most = network.nodes[i].inputs[0], most_members(network.activation(i))
        members = min(grouping.size, most or grouping.size)
        paired, count = network.activation(i).paired, candidates.get(i, 0)
        groups = _groups(min(grouping.neurons, count), members, grouping.overlap)
        groups = min(grouping.neurons * grouping.overlap, count) if paired else groups
        entries = 2 * prod(network.nodes[source].shape) if paid else 0
        sums = groups * (3**members - 1 - 2 * members)
        total += entries * steps * paid + sums * combinations.steps * (below[source] + paid)
        paid += groups * (_EXACT if most is None or paired else _BANDS)
    return total


def _groups(neurons: int, members: int, overlap: int) -> float:
    """At most how many groups there are of so many neurons."""
    return min(neurons * overlap, math.comb(neurons, members))
