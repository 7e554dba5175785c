"""Questions read against the network: whatever does not fit it is Malformed, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.errors import Malformed
from krelax.certificate.format.lemmas import Slot
from krelax.certificate.format.schema import Boxes, GroupSet, Question, Refutation, Region

# Members of a group, and its rows; a basis names rows by numbers below 255.
_MOST_MEMBERS, _MOST_ROWS, _MOST_BOUNDS = 6, 255, 1 << 22
_MOST_LEVELS = 100
# What weights of a clause add up to.
UNIT = 1 << 14

# Lower and upper faces, `(inputs,)`.
Box = tuple[NDArray[np.float64], NDArray[np.float64]]


def check_asked(question: Question, inputs: int, outputs: int) -> None:
    """What is asked: a region of so many inputs, and margins of so many outputs in clauses."""
    _check_region(question.region, inputs)
    if question.rows.shape[1] != outputs or not len(question.rows):
        raise Malformed("margins that do not fit the outputs")
    clauses = np.unique(question.clause)
    if not np.array_equal(clauses, np.arange(len(clauses))):
        raise Malformed("clauses that are not numbered from 0")
    joint = question.joint
    if joint is not None and not (len(joint) and (np.diff(joint) > 0).all() and np.isin(joint, clauses).all()):
        raise Malformed("joint clauses that do not exist, or are not in increasing order")


def _check_region(region: Region, inputs: int) -> None:
    if region.lower.shape != (inputs,) or not (region.lower <= region.upper).all():
        raise Malformed(f"the region is empty, or not one of {inputs} inputs")
    if region.kind == "box":
        if region.centre is not None or region.eps is not None:
            raise Malformed("a box with a centre or a radius")
    elif region.centre is None or region.eps is None or region.eps < 0:
        raise Malformed("a ball without a centre, or without a radius >= 0")
    elif not ((region.lower <= region.centre) & (region.centre <= region.upper)).all():
        raise Malformed("a ball whose centre is outside its box")


def check_proof(question: Question, margins: int, slots: Sequence[Slot]) -> None:
    """How the proof is made up: of boxes, or of a layer for each activation and a lemma about so many margins."""
    lemma = question.margins
    if question.boxes is not None:
        other = question.layers or lemma is not None or question.joint is not None or question.cases
        if other or question.region.kind != "box":
            raise Malformed("boxes with another proof, or of a region that is no box")
        _check_weights(question.boxes, question.clause)
        return
    if lemma is None or lemma.forms is not None or len(question.layers) != len(slots):
        raise Malformed("a layer for each activation, and a lemma about margins without forms, are needed")
    for layer, slot in zip(question.layers, slots, strict=True):
        for groups in layer.groups:
            _check_groups(groups, slot)
    for case in question.cases or ():
        _check_refutation(case, margins, len(slots))


def _check_weights(boxes: Boxes, clause: NDArray[np.int32]) -> None:
    weights = boxes.weights
    if weights is None:
        return
    if weights.shape != (np.count_nonzero(boxes.cut < 0), len(clause)) or (weights < 0).any():
        raise Malformed("weights that are negative, or not one for each margin in each leaf of a tree of boxes")
    total = np.zeros((len(weights), int(clause.max()) + 1), np.int64)
    np.add.at(total.T, clause, weights.T)
    if (total != UNIT).any():
        raise Malformed(f"weights of a clause that do not add up to {UNIT}")


def _check_groups(stored: GroupSet, slot: Slot) -> None:
    members, rows = stored.members.astype(np.int64), stored.rows.astype(np.int64)
    if slot.paired:
        _check_operands(stored)
    elif not slot.elementwise or (not slot.pieces and members.shape[1] != 2) or stored.exponents is not None:
        raise Malformed(
            "groups of an activation that has none, or other than pairs of one that is no two linear pieces"
        )
    if not 2 <= members.shape[1] <= _MOST_MEMBERS or (abs(rows) > 1).any() or len(rows) + members.shape[1] > _MOST_ROWS:
        raise Malformed("groups of an unsupported size, or rows other than of -1, 0 and 1")
    if len(members) * len(rows) > _MOST_BOUNDS:
        raise Malformed(f"a set of more than {_MOST_BOUNDS} rows of groups")
    if ((members < 0) | (members >= slot.size)).any() or (np.diff(np.sort(members, 1), axis=1) == 0).any():
        raise Malformed("members that are no neurons, or are twice in a group")


def _check_operands(stored: GroupSet) -> None:
    members, exponents = stored.members.astype(np.int64), stored.exponents
    beside = members.shape[1] == 2 and (members[:, 0] % 2 == 0).all() and (members[:, 1] == members[:, 0] + 1).all()
    if not beside or exponents is None or exponents.shape != (len(members),):
        raise Malformed("groups of products of other numbers than their operands, or without exponents")
    if (abs(exponents.astype(np.int64)) > _MOST_LEVELS).any():
        raise Malformed(f"exponents beyond {_MOST_LEVELS}")


def _check_refutation(case: Refutation, margins: int, activations: int) -> None:
    if not 0 <= case.margin < margins:
        raise Malformed("a case of a margin that does not exist")
    if not case.level > 0 or any(not 0 <= s.activation < activations for s in (*case.steps, *(case.lines or ()))):
        raise Malformed("a case at a level that is not positive, or about an activation that does not exist")


def leaves_of_boxes(boxes: Boxes, root: Box) -> Iterator[Box]:
    """The leaves of a tree of boxes, one after the other."""
    lower, upper = (end.copy() for end in root)
    path: list[tuple[int, float, float, bool]] = []  # input, its ends before it was cut, and whether on the first side
    complete = False
    for cut, at in zip(map(int, boxes.cut), map(float, boxes.at), strict=True):
        if complete or not -1 <= cut < len(lower) or (cut >= 0 and not lower[cut] <= at <= upper[cut]):
            raise Malformed("a tree of boxes with too many nodes, or a cut outside its box")
        if cut >= 0:
            path.append((cut, float(lower[cut]), float(upper[cut]), True))
            upper[cut] = at
            continue
        yield lower.copy(), upper.copy()
        complete = not _other_side(path, lower, upper)
    if not complete:
        raise Malformed("a tree of boxes that is not complete")


def _other_side(path: list[tuple[int, float, float, bool]], *box: NDArray[np.float64]) -> bool:
    """Go on to the second side of the last cut that has not been there; False if there is none."""
    lower, upper = box
    while path:
        i, low, high, first = path.pop()
        if first:
            lower[i], upper[i] = upper[i], high
            path.append((i, low, high, False))
            return True
        lower[i] = low
    return False
