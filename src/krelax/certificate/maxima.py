"""Networks continued by margins: by the largest of every clause, so that a leaf may rest on several together, or by one
that is assumed to be small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from krelax.certificate.arithmetic import Arithmetic
from krelax.certificate.format import Case, Question
from krelax.certificate.network import Activation, Affine, Dense, Network, Pick


def with_maxima(network: Network, question: Question, ar: Arithmetic) -> tuple[Network, Question]:
    """The network continued by the margins, their windows (short clauses repeat a member), and a maximum; and the
    question whether all its outputs are positive."""
    members = [np.flatnonzero(question.clause == n) for n in range(int(question.clause.max()) + 1)]
    longest, count = max(map(len, members)), len(members)
    windows = np.array([[*m, *m[:1].repeat(longest - len(m))] for m in members])
    last, margins = len(network.nodes) - 1, len(question.rows)
    dense = Dense(ar.number(question.rows[None, None]))
    added = (
        Affine((last,), (dense,), margins, ar.number(question.offsets), abs(question.offsets)),
        Affine((last + 1,), (Pick(windows.reshape(-1), margins),), windows.size),
        Activation((last + 2,), "max", count, window=longest),
    )
    single = np.arange(count, dtype=np.int32)
    asked = replace(question, rows=np.eye(count), offsets=np.zeros(count), clause=single)
    return replace(network, nodes=(*network.nodes, *added)), asked


def with_assumed(network: Network, question: Question, case: Case, ar: Arithmetic) -> Network:
    """The network continued by a ReLU of what is not positive where the margin of a case is at most its level."""
    dense = Dense(ar.number(question.rows[None, None, case.margin : case.margin + 1]))
    offset = float(question.offsets[case.margin])
    bias = np.array([np.nextafter(offset - case.level, -np.inf)], np.float64)
    last = len(network.nodes) - 1
    added = (Affine((last,), (dense,), 1, ar.number(bias), abs(bias)), Activation((last + 1,), "relu", 1))
    return replace(network, nodes=(*network.nodes, *added))
