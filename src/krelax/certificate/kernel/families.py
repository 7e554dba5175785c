"""Questions of one kind, their boxes bounded together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.errors import Malformed
from krelax.certificate.format.questions import check_asked, check_proof, leaves_of_boxes
from krelax.certificate.format.schema import Question
from krelax.certificate.kernel.arithmetic import Arithmetic, Floats
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.boxes import in_boxes, portion_of
from krelax.certificate.kernel.context import Context, slots_of
from krelax.certificate.kernel.linear import Index
from krelax.certificate.kernel.network import Network
from krelax.certificate.kernel.part import Part, part_of
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
    result = np.full(len(questions), np.inf)
    for free in np.unique(every := _free(questions), axis=0):
        alike = np.flatnonzero((every == free).all(1)).tolist()
        some = [questions[i] for i in alike]
        wrong = None if errors is None else np.array([errors[i] for i in alike])
        part = None if float32 else part_of(network, ar, np.flatnonzero(free), len(some))
        if part is None:
            context = Context(LayerBounds.of(network, Region.of(some[0].region), ar, float32), *_forms(some[0]))
            result[alike] = _weakest(context, some, wrong, None, None)
        else:
            result[alike] = _of_part(part, some, ar, wrong)
    return result


def _forms(question: Question) -> tuple[Floats, Floats]:
    return question.rows, question.offsets


def _free(questions: Sequence[Question]) -> NDArray[np.bool_]:
    """Which inputs of each question have a number between their ends, or are cut, `(questions, inputs)`."""
    lower, upper = (np.array([getattr(q.region, side) for q in questions]) for side in ("lower", "upper"))
    free = np.asarray(np.nextafter(lower, np.inf) < upper)
    for i, q in enumerate(questions):
        assert q.boxes is not None  # as of all of a family
        cut = q.boxes.cut[q.boxes.cut >= 0]
        if (cut >= lower.shape[1]).any():
            raise Malformed("a tree of boxes that cuts an input which does not exist")
        free[i, cut] = True
    return free


def _of_part(part: Part, questions: Sequence[Question], ar: Arithmetic, wrong: Floats | None) -> Floats:
    """What leaves prove of questions that vary in one part of the network."""
    network, first = part.network, questions[0]
    origin = np.zeros((1, network.size(0)))
    context = Context(LayerBounds.of(network, Region(origin, origin), ar, False), *_forms(first))
    whole = replace(context, bounds=LayerBounds.of(part.whole, Region.of(first.region), ar, False))
    sides = [np.array([getattr(q.region, side) for q in questions]) for side in ("lower", "upper")]
    given = [part.given(ar, *(side[batch] for side in sides)) for batch in whole.batches(len(questions))]
    below, above = (np.concatenate(side) for side in zip(*given, strict=True))
    return _weakest(context, questions, wrong, part.free, (below, above))


def _weakest(
    context: Context,
    questions: Sequence[Question],
    wrong: Floats | None,
    free: Index | None,
    given: tuple[Floats, Floats] | None,
) -> Floats:
    """What the leaves of each question prove of its weakest clause. With `given`, inputs are those that are `free`, and
    these of each question."""
    first, offsets = questions[0], np.array([q.offsets for q in questions])
    outputs, own = len(context.network.nodes) - 1, slice(None) if free is None else free
    leaves = (
        (i, lower[own], upper[own])
        for i, q in enumerate(questions)
        if q.boxes is not None
        for lower, upper in leaves_of_boxes(q.boxes, (q.region.lower, q.region.upper))
    )
    result, portion = np.full(len(questions), np.inf), portion_of(context)
    while part := list(islice(leaves, portion)):
        owner, lower, upper = (np.array(column) for column in zip(*part, strict=True))
        if given is not None:
            lower, upper = (np.append(side, more[owner], 1) for side, more in zip((lower, upper), given, strict=True))
        clause = first.clause.astype(np.int64)
        asked = Margins(first.rows, first.offsets, clause, None if wrong is None else wrong[owner])
        weakest = partial(weakest_of, asked, outputs)
        most = None if free is None else len(free)
        found, symbols = in_boxes(context, Region(lower, upper), offsets[owner], None, weakest, most)
        portion = min(_FASTER * portion, portion_of(context, symbols))
        np.minimum.at(result, owner, found)  # which NaN, that nothing is proven, passes
    return result
