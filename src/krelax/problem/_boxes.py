"""Bounds of inputs, exact as written, and what they come to as floating-point boxes.

A bound cuts the line of numbers just below or just above its value: ``x >= v`` and ``x < v`` below, ``x > v`` and
``x <= v`` above. Cuts are ordered exactly, and a box is empty if a lower cut is not below its upper cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from krelax.problem.exact import End, Ends, Floats, Limit, enclosure


class Bound(NamedTuple):
    """``x[variable] <= limit`` if ``is_upper``, otherwise ``x[variable] >= limit``; if ``strict`` without equality."""

    variable: int
    is_upper: bool
    limit: Limit
    strict: bool = False


class Conflict(NamedTuple):
    """The bounds on ``x[variable]`` exclude each other."""

    variable: int
    lower: Bound
    upper: Bound


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes, each array of shape (n_boxes, n_in), and what is wrong with some.

    The exact box lies in ``lower <= x <= upper``, the smallest such box of float64 numbers, and the float64 numbers in
    it are those of ``least <= x <= most``. An infinite entry means that the variable has no bound on that side. The
    rows of boxes that are keys of ``conflicts`` enclose the empty set, so they are sound but meaningless. ``between``
    has for other boxes an exact number of each entry that no float64 number lies in, as it is written if it is there.
    """

    lower: Floats
    upper: Floats
    least: Floats
    most: Floats
    conflicts: Mapping[int, Conflict]
    between: Mapping[int, Mapping[int, Fraction | str]]
    cuts: tuple[NDArray[np.int32], NDArray[np.int32]]
    limits: Sequence[Limit]

    def ends(self, box: int) -> Ends:
        """The bounds of a box as they are written."""
        lower, upper = (cuts[box] for cuts in self.cuts)

        def ends(entry: int) -> tuple[End | None, End | None]:
            low, high = int(lower[entry]), int(upper[entry])
            least = None if low < 0 else (self.limits[low // 2].value, low % 2 == 1)
            most = None if high == 2 * len(self.limits) else (self.limits[high // 2].value, high % 2 == 0)
            return least, most

        return ends


def intersect_bounds(
    bounds: Sequence[Bound], box_of: NDArray[np.int64], bound_of: NDArray[np.int64], shape: tuple[int, int]
) -> Boxes:
    """The boxes, ``shape`` = (n_boxes, n_in), where box ``box_of[k]`` satisfies ``bounds[bound_of[k]]``.

    All boxes satisfy the bounds of box 0 as well. Bounds are compared exactly, by the ranks of their cuts, and only the
    tightest ones are rounded.
    """
    ranks, limits = _ranked([bound.limit for bound in bounds])
    variables = np.array([bound.variable for bound in bounds], dtype=np.int64)
    is_upper = np.array([bound.is_upper for bound in bounds], dtype=bool)
    strict = np.array([bound.strict for bound in bounds], dtype=bool)
    cuts = 2 * ranks + (strict != is_upper)  # below a value, or above it
    lower, upper = np.full(shape, -1, dtype=np.int32), np.full(shape, 2 * len(limits), dtype=np.int32)
    for tightest, keep, tighten in ((lower, ~is_upper, np.maximum), (upper, is_upper, np.minimum)):
        boxes, kept = box_of[keep[bound_of]], bound_of[keep[bound_of]]
        tighten.at(tightest.reshape(-1), boxes * shape[1] + variables[kept], cuts[kept])
        tighten(tightest, tightest[0], out=tightest)
    found = enclosure(limits)
    # What each cut says of lower bounds and of upper ones. No lower bound is the last entry, by its number -1; no upper
    # bound is, too.
    outer = _by_cut(found.down, found.down, -np.inf), _by_cut(found.up, found.up, np.inf)
    inner = _by_cut(found.up, found.above, -np.inf), _by_cut(found.below, found.down, np.inf)
    least, most = inner[0][lower], inner[1][upper]
    conflicts, between = _conflicts(lower, upper, limits), {}
    missing = least > most
    for box in np.flatnonzero(missing.any(axis=1)).tolist():
        if box not in conflicts:
            between[box] = {
                entry: _inside(int(lower[box, entry]), int(upper[box, entry]), limits)
                for entry in np.flatnonzero(missing[box]).tolist()
            }
    return Boxes(outer[0][lower], outer[1][upper], least, most, conflicts, between, (lower, upper), limits)


def _conflicts(lower: NDArray[np.int32], upper: NDArray[np.int32], limits: Sequence[Limit]) -> dict[int, Conflict]:
    """What is wrong with boxes of these cuts, which have no number between the lower and the upper one of an entry."""
    conflicting = lower >= upper
    conflicts: dict[int, Conflict] = {}
    for box in np.flatnonzero(conflicting.any(axis=1)).tolist():
        column = int(conflicting[box].argmax())
        low, high = int(lower[box, column]), int(upper[box, column])
        least = Bound(column, False, limits[low // 2], low % 2 == 1)
        most = Bound(column, True, limits[high // 2], high % 2 == 0)
        conflicts[box] = Conflict(column, least, most)
    return conflicts


def _inside(lower: int, upper: int, limits: Sequence[Limit]) -> Fraction | str:
    """A number between two cuts: one of the ends if it is inside, else their middle."""
    low, high = limits[lower // 2], limits[upper // 2]
    if lower % 2 == 0:
        return low.exact
    return high.exact if upper % 2 == 1 else (low.value + high.value) / 2


def _by_cut(below: Floats, above: Floats, none: float) -> Floats:
    """For cuts below and above each value, in turn, and for none."""
    return np.append(np.stack([below, above], axis=1).reshape(-1), none)


def _ranked(limits: Sequence[Limit]) -> tuple[NDArray[np.int32], list[Limit]]:
    """The rank of each limit among the distinct ones, and the distinct ones in increasing order.

    The nearest floats, and on which side of them limits lie, nearly always decide; slow fractions do for the rest.
    """
    near = np.array([limit.near for limit in limits], dtype=np.float64)
    side = np.array([limit.side for limit in limits], dtype=np.int8)
    order = np.lexsort((side, near))
    begins = np.ones(len(limits), dtype=bool)
    begins[1:] = (near[order[1:]] != near[order[:-1]]) | (side[order[1:]] != side[order[:-1]])
    firsts = np.flatnonzero(begins)
    lengths = np.diff(firsts, append=len(limits))
    unclear = (lengths > 1) & (side[order[firsts]] != 0)
    for first, length in zip(firsts[unclear].tolist(), lengths[unclear].tolist(), strict=True):
        same = order[first : first + length].tolist()
        values = {limits[i].exact: limits[i].value for i in same}
        if len(values) > 1:
            same.sort(key=lambda i: values[limits[i].exact])
            order[first : first + length] = same
            ordered = [values[limits[i].exact] for i in same]
            begins[first + 1 : first + length] = [a != b for a, b in pairwise(ordered)]
    ranks = np.empty(len(limits), dtype=np.int32)
    ranks[order] = np.cumsum(begins) - 1
    return ranks, [limits[i] for i in order[begins].tolist()]
