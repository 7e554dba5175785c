"""Questions of one kind, their boxes bounded together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice

import numpy as np

from krelax.certificate.format.questions import check_asked, check_proof, leaves_of_boxes
from krelax.certificate.format.schema import Question
from krelax.certificate.kernel.arithmetic import Arithmetic, Floats
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.boxes import in_boxes, portion_of
from krelax.certificate.kernel.context import Context, slots_of
from krelax.certificate.kernel.network import Network
from krelax.certificate.kernel.question import Margins, weakest_of
from krelax.certificate.kernel.region import Region

# Portions become so many times larger at most, as long as boxes turn out to have few symbols.
_FASTER = 4


def check_family(
    network: Network, questions: Sequence[Question], ar: Arithmetic, float32: bool, errors: Sequence[Floats] | None
) -> Floats:
    """What the leaves of each question prove of its weakest clause as they are, `(questions,)`. The questions are of
    one kind (`krelax.certificate.format.families`), and not positive for those that need more.

    Raises Malformed for a proof that does not fit. Sound: as `krelax.certificate.kernel.question.check_question`, of
    which this does the same for many regions at a time.
    """
    outputs, slots = len(network.nodes) - 1, slots_of(network, [()] * len(network.activations))
    for q in questions:
        check_asked(q, network.size(0), network.size(outputs))
        check_proof(q, len(q.rows), slots)
    first, offsets = questions[0], np.array([q.offsets for q in questions])
    wrong = None if errors is None else np.array(errors)
    context = Context(LayerBounds.of(network, Region.of(first.region), ar, float32), first.rows, first.offsets)
    leaves = (
        (i, *box)
        for i, q in enumerate(questions)
        if q.boxes is not None
        for box in leaves_of_boxes(q.boxes, (q.region.lower, q.region.upper))
    )
    result, portion = np.full(len(questions), np.inf), portion_of(context)
    while part := list(islice(leaves, portion)):
        owner, lower, upper = (np.array(column) for column in zip(*part, strict=True))
        asked = Margins(
            first.rows, first.offsets, first.clause.astype(np.int64), None if wrong is None else wrong[owner]
        )
        weakest = partial(weakest_of, asked, outputs)
        found, symbols = in_boxes(context, Region(lower, upper), offsets[owner], None, weakest)
        portion = min(_FASTER * portion, portion_of(context, symbols))
        np.minimum.at(result, owner, found)  # which NaN, that nothing is proven, passes
    return result
