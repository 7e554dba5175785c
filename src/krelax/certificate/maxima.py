"""The largest margin of every clause as one more activation, so that a leaf may rest on several margins together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from krelax.certificate.arithmetic import Arithmetic
from krelax.certificate.format import Question
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
