"""Many small questions of one kind: they are stored together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from krelax.certificate.errors import Malformed
from krelax.certificate.format.schema import Boxes, Certificate, Family, Question, Region


def kinds(questions: Sequence[Question]) -> list[list[int]]:
    """The numbers of questions that could be in a family, those of each kind together."""
    found: dict[tuple[object, ...], list[int]] = {}
    for number, q in enumerate(questions):
        plain = q.boxes is not None and q.boxes.weights is None and q.boxes.width is None and q.region.kind == "box"
        if plain and q.joint is None and q.margins is None and not q.layers and not q.cases:
            key = (q.rows.shape, len(q.region.lower), q.rows.tobytes(), q.clause.tobytes())
            found.setdefault(key, []).append(number)
    return list(found.values())


def packed(certificate: Certificate) -> Certificate:
    """The same certificate with families of questions where there are several of a kind."""
    questions, families = certificate.questions, list[Family]()
    several = [numbers for numbers in kinds(questions) if len(numbers) > 1]
    for numbers in several:
        families.append(_family([questions[n] for n in numbers]))
    gone = {n for numbers in several for n in numbers}
    rest = [q for n, q in enumerate(questions) if n not in gone]
    return replace(certificate, questions=rest, families=families) if families else certificate


def _family(questions: Sequence[Question]) -> Family:
    trees = [q.boxes for q in questions if q.boxes is not None]
    lower, upper = (np.stack([getattr(q.region, side) for q in questions]) for side in ("lower", "upper"))
    offsets = np.stack([q.offsets for q in questions])
    cut, at = (np.concatenate([getattr(t, name) for t in trees]) for name in ("cut", "at"))
    return Family(lower, upper, questions[0].rows, offsets, questions[0].clause, cut, at)


def unpacked(certificate: Certificate) -> Certificate:
    """The same certificate without families. Raises Malformed where a family has other than a tree for each question.

    Work and memory are in proportion to what is stored."""
    if certificate.families is None:
        return certificate
    questions = list(certificate.questions)
    for number, family in enumerate(certificate.families):
        questions += _questions(family, number)
    return replace(certificate, questions=questions, families=None)


def _questions(family: Family, number: int) -> Iterator[Question]:
    # in preorder a tree has one leaf more than it has cuts, and no part of it from the beginning has
    excess = np.cumsum(np.where(family.cut >= 0, 1, -1))
    least = np.minimum.accumulate(np.append(0, excess))
    ends = np.flatnonzero(np.diff(least)) + 1
    if len(ends) != len(family.lower) or (len(ends) and ends[-1] != len(family.cut)):
        raise Malformed(f"family {number} of questions: not a tree of boxes for each")
    first = 0
    for i, end in enumerate(ends.tolist()):
        region = Region("box", family.lower[i], family.upper[i])
        boxes = Boxes(family.cut[first:end], family.at[first:end])
        yield Question(region, family.rows, family.offsets[i], family.clause, boxes=boxes)
        first = end
