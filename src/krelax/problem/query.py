"""The question put to the verifier: input boxes and the outputs that would be unsafe on them.

A specification lists the ways in which a network can go wrong. Each way is a :class:`Case`: an input
box together with a conjunction of linear inequalities over the outputs. The property holds if and only
if no input satisfies any case. Inequalities are kept as exact fractions, so that a counterexample can be
judged without rounding; the floating-point form of :meth:`Case.matrix` is for bound computations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Halfspace:
    """The outputs y with ``sum_i coefficients[i] * y[i] + constant <= 0``, in exact arithmetic."""

    coefficients: Mapping[int, Fraction]
    constant: Fraction

    def holds(self, y: Sequence[float] | NDArray[np.floating]) -> bool:
        """Whether ``y``, shape (n_out,), lies in the half-space, decided without rounding.

        A ``y`` with a NaN or an infinity anywhere is never inside: it is no evidence of anything.
        """
        values = np.asarray(y, dtype=np.float64)
        if not np.isfinite(values).all():
            return False
        terms = (factor * Fraction(float(values[i])) for i, factor in self.coefficients.items())
        return sum(terms, self.constant) <= 0


@dataclass(frozen=True, eq=False, slots=True)
class Case:
    """One disjunct of the unsafe set: ``lower <= x <= upper`` and every half-space holds for y.

    ``lower`` and ``upper`` are finite float64 arrays of shape (n_in,). Cases may share their arrays, so
    treat them as read-only. Without half-spaces every input of the box is unsafe.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    halfspaces: tuple[Halfspace, ...]

    def matrix(self, n_out: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rows (m, n_out) and offsets (m,) such that y is unsafe where ``rows @ y + offsets <= 0``.

        Every entry is the float64 nearest to the exact one, so a rigorous bound has to allow for a
        relative error of 2**-53 in each entry; :attr:`halfspaces` has the exact values.
        """
        rows = np.zeros((len(self.halfspaces), n_out))
        offsets = np.zeros(len(self.halfspaces))
        for row, halfspace in enumerate(self.halfspaces):
            offsets[row] = float(halfspace.constant)
            for column, factor in halfspace.coefficients.items():
                rows[row, column] = float(factor)
        return rows, offsets

    def contains(self, x: ArrayLike, y: Sequence[float] | NDArray[np.floating]) -> bool:
        """Whether input ``x`` (n_in,) lies in the box and its output ``y`` (n_out,) in every half-space."""
        point = np.asarray(x, dtype=np.float64)
        inside = bool(np.all((self.lower <= point) & (point <= self.upper)))
        return inside and all(halfspace.holds(y) for halfspace in self.halfspaces)


@dataclass(frozen=True, eq=False)
class Specification:
    """A property of a network with ``inputs`` inputs and ``outputs`` outputs, both flattened row-major.

    The property holds if and only if no case is satisfiable. The names and shapes are those that the
    specification declares; a shape is None where the format knows only numbered scalars.
    """

    inputs: int
    outputs: int
    cases: tuple[Case, ...]
    input_name: str = "X"
    output_name: str = "Y"
    input_shape: Shape | None = None
    output_shape: Shape | None = None
    network: str | None = None


def element_name(name: str, shape: Shape | None, index: int) -> str:
    """How a specification spells element ``index`` of a flattened tensor: ``X_7``, or ``X[0,7]``."""
    if shape is None:
        return f"{name}_{index}"
    subscript = ",".join(str(int(i)) for i in np.unravel_index(index, shape)) if shape else ""
    return f"{name}[{subscript}]" if shape else name


class Bound(NamedTuple):
    """``x[variable] <= value`` if ``is_upper``, otherwise ``x[variable] >= value``."""

    variable: int
    is_upper: bool
    value: Fraction


class Conflict(NamedTuple):
    """The bounds on ``x[variable]`` exclude each other: ``lower > upper``, exactly."""

    variable: int
    lower: Fraction
    upper: Fraction


@dataclass(frozen=True, eq=False)
class Boxes:
    """Float64 boxes, ``lower`` and ``upper`` of shape (n_boxes, n_in), and what is wrong with some.

    An infinite entry means that the variable has no bound on that side. The rows of boxes that are keys
    of ``conflicts`` enclose the empty set, so they are sound but meaningless.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    conflicts: Mapping[int, Conflict]


def intersect_bounds(
    bounds: Sequence[Bound], box_of: NDArray[np.int64], bound_of: NDArray[np.int64], shape: tuple[int, int]
) -> Boxes:
    """The boxes, ``shape`` = (n_boxes, n_in), where box ``box_of[k]`` satisfies ``bounds[bound_of[k]]``.

    All boxes satisfy the bounds of box 0 as well. Bounds are compared exactly, by their ranks, and only
    the tightest ones are rounded, outwards (see :func:`enclosing_floats`).
    """
    ranks, values = _ranked([bound.value for bound in bounds])
    variables = np.array([bound.variable for bound in bounds], dtype=np.int64)
    is_upper = np.array([bound.is_upper for bound in bounds], dtype=bool)
    lower, upper = np.full(shape, -1, dtype=np.int32), np.full(shape, len(values), dtype=np.int32)
    for tightest, keep, tighten in ((lower, ~is_upper, np.maximum), (upper, is_upper, np.minimum)):
        boxes, kept = box_of[keep[bound_of]], bound_of[keep[bound_of]]
        tighten.at(tightest.reshape(-1), boxes * shape[1] + variables[kept], ranks[kept])
        tighten(tightest, tightest[0], out=tightest)
    down, up = enclosing_floats(values)
    conflicting = lower > upper
    conflicts: dict[int, Conflict] = {}
    for box in np.flatnonzero(conflicting.any(axis=1)).tolist():
        column = int(conflicting[box].argmax())
        conflicts[box] = Conflict(column, values[lower[box, column]], values[upper[box, column]])
    # Rank -1, no lower bound, selects the entry appended last; rank len(values) does so by its number.
    return Boxes(np.append(down, -np.inf)[lower], np.append(up, np.inf)[upper], conflicts)


def _ranked(values: Sequence[Fraction]) -> tuple[NDArray[np.int32], list[Fraction]]:
    """The rank of each value among the distinct ones, and the distinct ones in increasing order."""
    # Comparing fractions is slow; nearly always their correctly rounded, hence monotone, floats decide.
    floats = [float(value) for value in values]
    ranks = np.zeros(len(values), dtype=np.int32)
    distinct: list[Fraction] = []
    previous = -1
    for k in sorted(range(len(values)), key=lambda k: (floats[k], values[k])):
        if previous < 0 or floats[k] != floats[previous] or values[k] != values[previous]:
            distinct.append(values[k])
        ranks[k] = len(distinct) - 1
        previous = k
    return ranks, distinct


def enclosing_floats(values: Sequence[Fraction]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Float64 (lower, upper), each (n,), around each value and around the float32 nearest to it.

    With down(v) the largest float64 <= v, the lower one is ``min(down(v), float32(down(v)))``: rounding
    is monotone, so float32(down(v)) <= float32(v). Beyond the float32 range there is nothing nearer
    than what lies inside anyway. Values must be less than the largest float64 in magnitude.
    """
    nearest = np.array([float(value) for value in values], dtype=np.float64)
    # The sign of nearest - value, in exact integer arithmetic.
    error = np.zeros(len(values), dtype=np.int8)
    for k, value in enumerate(values):
        numerator, denominator = float(nearest[k]).as_integer_ratio()
        left, right = numerator * value.denominator, value.numerator * denominator
        error[k] = (left > right) - (left < right)
    down = np.where(error > 0, np.nextafter(nearest, -np.inf), nearest)
    up = np.where(error < 0, np.nextafter(nearest, np.inf), nearest)
    return np.fmin(down, _through_float32(down)), np.fmax(up, _through_float32(up))


def _through_float32(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest float32 values, NaN where those would be infinite."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = values.astype(np.float32).astype(np.float64)
    return np.where(np.isfinite(narrow), narrow, np.nan)
