"""Networks that go on behind their outputs: by the largest margin of every clause, so that a leaf may rest on several
together, or by a margin that is assumed to be small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.format.schema import Refutation
from krelax.certificate.kernel.activations import Maximum, ReLU
from krelax.certificate.kernel.arithmetic import Arithmetic, Floats
from krelax.certificate.kernel.linear import Dense, Pick
from krelax.certificate.kernel.network import Activation, Affine, Network


def with_maxima(network: Network, rows: Floats, offsets: Floats, clause: NDArray[np.int32], ar: Arithmetic) -> Network:
    """The network continued by the margins, their windows (short clauses repeat a member), and a maximum."""
    members = [np.flatnonzero(clause == n) for n in range(int(clause.max()) + 1)]
    longest = max(map(len, members))
    windows = np.array([[*m, *m[:1].repeat(longest - len(m))] for m in members])
    last, margins = len(network.nodes) - 1, len(rows)
    added = (
        Affine((last,), (Dense(ar.number(rows[None, None])),), margins, ar.number(offsets), abs(offsets)),
        Affine((last + 1,), (Pick(windows.reshape(-1), margins),), windows.size),
        Activation((last + 2,), Maximum(longest), len(members)),
    )
    return replace(network, nodes=(*network.nodes, *added))


def with_assumed(network: Network, rows: Floats, offsets: Floats, case: Refutation, ar: Arithmetic) -> Network:
    """The network continued by a ReLU of what is not positive where the margin of a case is at most its level."""
    dense = Dense(ar.number(rows[None, None, case.margin : case.margin + 1]))
    bias = np.array([np.nextafter(float(offsets[case.margin]) - case.level, -np.inf)], np.float64)
    last = len(network.nodes) - 1
    added = (Affine((last,), (dense,), 1, ar.number(bias), abs(bias)), Activation((last + 1,), ReLU(), 1))
    return replace(network, nodes=(*network.nodes, *added))
