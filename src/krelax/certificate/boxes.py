"""Boxes that a region is cut into, as a certificate says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from krelax.certificate.arithmetic import Floats
from krelax.certificate.format import Boxes, Malformed
from krelax.certificate.region import Region

# Lower and upper faces, `(inputs,)`.
Box = tuple[Floats, Floats]


def halves(box: Box, region: Region) -> tuple[Box, Box]:
    """A box cut across the input that is widest there, compared with the region."""
    lower, upper = box
    widths = (region.upper[0] - region.lower[0]).clip(2.0**-1000)
    i = int(((upper - lower) / widths).argmax())
    at = np.arange(len(lower)) == i
    middle = lower[i] / 2 + upper[i] / 2
    return (lower, np.where(at, middle, upper)), (np.where(at, middle, lower), upper)


def leaves_of(boxes: Boxes, region: Region) -> Iterator[Box]:
    """The leaves of a tree of boxes, one after the other."""
    lower, upper = region.lower[0].copy(), region.upper[0].copy()
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


def _other_side(path: list[tuple[int, float, float, bool]], lower: Floats, upper: Floats) -> bool:
    """Go on to the second side of the last cut that has not been there; False if there is none."""
    while path:
        i, low, high, first = path.pop()
        if first:
            lower[i], upper[i] = upper[i], high
            path.append((i, low, high, False))
            return True
        lower[i] = low
    return False
