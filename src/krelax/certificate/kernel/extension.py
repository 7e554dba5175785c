"""Networks that go on behind their outputs: by the largest margins of clauses, so that a leaf may rest on several
together, or by a margin that is assumed to be small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from krelax.certificate.format.schema import Refutation
from krelax.certificate.kernel.activations import ReLU
from krelax.certificate.kernel.arithmetic import Arithmetic, Floats
from krelax.certificate.kernel.linear import Dense, Index, Pick, Scale
from krelax.certificate.kernel.network import Activation, Affine, Network


def with_margins(network: Network, rows: Floats, offsets: Floats, ar: Arithmetic) -> Network:
    """The network continued by margins."""
    dense = Dense(ar.number(rows[None, None]))
    margins = Affine((len(network.nodes) - 1,), (dense,), len(rows), ar.number(offsets), abs(offsets))
    return replace(network, nodes=(*network.nodes, margins))


def with_maxima(network: Network, rows: Floats, offsets: Floats, owner: Index, ar: Arithmetic) -> Network:
    """The network continued by margins and by the largest margin of every owner, `(margins,)` in increasing order;
    the output is what it was, and behind it the maxima."""
    last, outputs = len(network.nodes) - 1, network.size(len(network.nodes) - 1)
    nodes = [*with_margins(network, rows, offsets, ar).nodes]
    while (owner[1:] == owner[:-1]).any():
        # neighbours with the same owner meet; who is left alone goes on
        rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
        last_one = np.append(owner[1:] != owner[:-1], True)
        first = np.flatnonzero(rank % 2 == 0)
        pair = ~last_one[first]
        second, width, at = first + pair, len(owner), len(nodes)
        negative = Affine((at - 1,), (Scale(ar.number(-np.ones(1))),), width)
        loses = Affine((at - 1, at), (Pick(first[pair], width), Pick(second[pair], width)), int(pair.sum()))
        more = Pick(np.where(pair, pair.cumsum() - 1, -1), loses.size)
        larger = Affine((at - 1, at + 2), (Pick(second, width), more), len(first))
        nodes += [negative, loses, Activation((at + 1,), ReLU(), loses.size), larger]
        owner = owner[first]
    places = np.arange(outputs + len(owner))
    both = np.where(places < outputs, places, -1), np.where(places < outputs, -1, places - outputs)
    maps = Pick(both[0], outputs), Pick(both[1], len(owner))
    return replace(network, nodes=(*nodes, Affine((last, len(nodes) - 1), maps, len(places))))


def with_assumed(network: Network, rows: Floats, offsets: Floats, case: Refutation, ar: Arithmetic) -> Network:
    """The network continued by a ReLU of what is not positive where the margin of a case is at most its level."""
    dense = Dense(ar.number(rows[None, None, case.margin : case.margin + 1]))
    bias = np.array([np.nextafter(float(offsets[case.margin]) - case.level, -np.inf)], np.float64)
    last = len(network.nodes) - 1
    added = (Affine((last,), (dense,), 1, ar.number(bias), abs(bias)), Activation((last + 1,), ReLU(), 1))
    return replace(network, nodes=(*network.nodes, *added))
