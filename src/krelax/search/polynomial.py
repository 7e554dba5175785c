"""Polynomial conditions on small networks, decided in exact numbers: what bounds leave at exactly zero.

In a cell, where every activation is one piece, values are linear in the inputs, so that conditions are polynomials in
these. Over a box a polynomial lies between the smallest and the largest of its coefficients in Bernstein's basis, those
of corners being its values there. So a largest value that is taken at a corner is known exactly. Boxes are cut through
zero, or else in the middle. A convex quadratic form is nowhere less than where its gradient is zero.

Reference: Garloff, The Bernstein Algorithm, Interval Computations 1993.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from math import comb, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.network.graph import Network
from krelax.problem.query import Case, Inequality, Specification
from krelax.search.affine import Forms, TooLarge
from krelax.search.exactly import Cells, Exact
from krelax.search.simplex import Purse, Spent, System

_ZERO, _ONE = Fraction(0), Fraction(1)
# A box has two corners for every input.
_MOST_INPUTS = 6
_MOST_COEFFICIENTS = 2000
# What a step with a fraction counts for, in the units of a purse.
_STEP = 4

# Coefficients by the exponents of the inputs.
Polynomial = dict[tuple[int, ...], Fraction]
Point = list[Fraction]
# A polynomial that is at most zero, or less.
Condition = tuple[Polynomial, bool]


@dataclass(frozen=True, eq=False)
class Factors:
    """The variables that conditions multiply, by their codes, as outputs of a network of the same inputs."""

    network: Network
    codes: tuple[int, ...]


class Polynomials:
    """Decides cases one by one. What is in the purse is for all of them. `check` is called now and then, and may raise.
    Raises TooLarge for networks that have too many inputs, or are none that `Cells` takes."""

    def __init__(self, factors: Factors, purse: Purse, check: Callable[[], None]) -> None:
        self._count = prod(factors.network.input_shape)
        if self._count > _MOST_INPUTS:
            raise TooLarge
        self._cells = Cells(factors.network, purse, check)
        self._number = {code: i for i, code in enumerate(factors.codes)}
        self._purse, self._check = purse, check

    def decide(self, specification: Specification, case: Case) -> Exact | None:
        """Whether inputs satisfy a case, the network being a function of real numbers: None if that is not found out.

        Sound: yes, in exact arithmetic. Complete: no. What is zero along a curve may stay open.
        """
        saved = self._purse.left // 2  # for cases that are easier
        self._purse.left -= saved
        try:
            for forms, cell in self._cells.cells(specification, case, _Recorded(self._count, self._purse)):
                point = self._point(specification, case, forms, cell)
                if point is not None:
                    return Exact([point])
        except (TooLarge, Spent):
            return None
        finally:
            self._purse.left = max(self._purse.left, 0) + saved
        return Exact([])

    def _point(self, specification: Specification, case: Case, forms: Forms, cell: System) -> Point | None:
        """A point of a cell in which the case is satisfied; None if there is none."""
        assert isinstance(cell, _Recorded)
        conditions = self._curved(specification, case, forms, cell)
        seen = None if conditions is None else self._without_lowest(conditions, cell)
        if seen is None:
            return None
        conditions, places = seen
        conditions += [(self._row(factors, constant), strict) for factors, constant, strict in cell.rows]
        for point in places:
            if all(_holds(_value(condition, point), strict) for condition, strict in conditions):
                return point
        box = cell.box()
        if box is None:
            raise TooLarge
        return self._searched(conditions, *box)

    def _curved(
        self, specification: Specification, case: Case, forms: Forms, cell: _Recorded
    ) -> list[Condition] | None:
        """The conditions that are not linear in a cell, of which those that are become part; None if one is not met."""
        assert specification.terms is not None
        result = list[Condition]()
        for halfspace in case.whole.halfspaces:
            terms = {specification.terms[i]: factor for i, factor in halfspace.coefficients.items()}
            condition = self._substituted(terms, halfspace.constant, forms)
            if all(sum(exponents) <= 1 for exponents in condition):
                if not cell.require(*_linear(condition), halfspace.strict):
                    return None
            elif self._excludes(terms, halfspace.constant, forms, cell, halfspace.strict):
                return None
            else:
                result.append((condition, halfspace.strict))
        return result

    def _without_lowest(
        self, conditions: Sequence[Condition], cell: _Recorded
    ) -> tuple[list[Condition], list[Point]] | None:
        """The conditions but those that are met only where a gradient is zero, which becomes part of the cell, and
        points that may be in it; None if one is not met."""
        left, places = list[Condition](), [cell.solution()]
        for condition, strict in conditions:
            least, where = _lowest(condition, self._count) or (None, [])
            if least is None or least < 0:
                left.append((condition, strict))
            elif not _holds(least, strict) or not all(
                cell.require(*_linear(slope), False) for slope in _gradients(condition, self._count)
            ):
                return None
            places += [where] if where else []
        return left, [cell.solution(), *places]

    def _excludes(
        self, terms: Mapping[tuple[int, ...], Fraction], constant: Fraction, forms: Forms, cell: _Recorded, strict: bool
    ) -> bool:
        """Whether what is known of each variable by itself excludes a condition. So a product of two that are positive
        in the cell is positive, also where the edges of the cell are oblique."""
        box, used = cell.box(), sorted({code for codes in terms for code in codes})
        if box is None:
            return False
        lower, upper = list[Fraction](), list[Fraction]()
        for code in used:
            factors, shift = forms.row(self._number[code])
            ends = [sorted((factor * box[0][i], factor * box[1][i])) for i, factor in factors.items()]
            low, high = (sum((end[side] for end in ends), shift) for side in (0, 1))
            if low < 0 and not cell.copy().require(factors, shift, True):
                low = _ZERO
            if high > 0 and not cell.copy().require({i: -f for i, f in factors.items()}, -shift, True):
                high = _ZERO
            lower.append(low)
            upper.append(high)
        condition = {tuple(codes.count(code) for code in used): factor for codes, factor in terms.items()}
        condition[(0,) * len(used)] = constant
        coefficients = _in_bernsteins_basis(condition, lower, upper)
        self._purse.take(_STEP * coefficients.size)
        return not _holds(coefficients.min(), strict)

    def _row(self, factors: Mapping[int, Fraction], constant: Fraction) -> Polynomial:
        """A linear form as a polynomial."""
        result = {tuple(int(i == j) for j in range(self._count)): factor for i, factor in factors.items() if factor}
        return result | ({(0,) * self._count: constant} if constant else {})

    def _substituted(self, terms: Mapping[tuple[int, ...], Fraction], constant: Fraction, forms: Forms) -> Polynomial:
        """A sum of products of variables as a polynomial in the inputs, where the variables are linear in these."""
        total = self._row({}, constant)
        for codes, factor in terms.items():
            value = self._row({}, factor)
            for code in codes:
                value = self._times(value, self._row(*forms.row(self._number[code])))
            for exponents, part in value.items():
                total[exponents] = total.get(exponents, _ZERO) + part
        return {exponents: part for exponents, part in total.items() if part}

    def _times(self, one: Polynomial, other: Polynomial) -> Polynomial:
        self._purse.take(_STEP * len(one) * len(other))
        result: Polynomial = {}
        for (a, x), (b, y) in product(one.items(), other.items()):
            exponents = tuple(i + j for i, j in zip(a, b, strict=True))
            result[exponents] = result.get(exponents, _ZERO) + x * y
        return result

    def _searched(self, conditions: Sequence[Condition], lower: Point, upper: Point) -> Point | None:
        """A point of a box in which all conditions hold; None if there is none. Breadth first, so that points of few
        digits come first."""
        given = [(_in_bernsteins_basis(condition, lower, upper), strict) for condition, strict in conditions]
        boxes = deque([(lower, upper, given)])
        widths = [high - low or _ONE for low, high in zip(lower, upper, strict=True)]
        while boxes:
            self._check()
            low, high, known = boxes.popleft()
            self._purse.take(_STEP * sum(c.size for c, _ in known) + _STEP)
            if any(not _holds(c.min(), strict) for c, strict in known):
                continue
            left = [(c, strict) for c, strict in known if not _holds(c.max(), strict)]
            for corner in product((0, -1), repeat=len(low)):
                if all(_holds(c[corner], strict) for c, strict in left):
                    return [low[i] if end == 0 else high[i] for i, end in enumerate(corner)]
            axes = [i for i in range(len(low)) if high[i] > low[i] and any(c.shape[i] > 1 for c, _ in left)]
            axis = max(axes, key=lambda i: (high[i] - low[i]) / widths[i])
            at = _ZERO if low[axis] < 0 < high[axis] else (low[axis] + high[axis]) / 2
            share = (at - low[axis]) / (high[axis] - low[axis])
            halves = [(_cut(c, axis, share), strict) for c, strict in left]
            boxes.append((low, _with(high, axis, at), [(c[0], strict) for c, strict in halves]))
            boxes.append((_with(low, axis, at), high, [(c[1], strict) for c, strict in halves]))
        return None


class _Recorded(System):
    """A system that keeps what was required of it."""

    def __init__(self, count: int, purse: Purse) -> None:
        super().__init__(count, purse)
        self.rows: list[Inequality] = []

    def copy(self) -> _Recorded:
        other = super().copy()
        assert isinstance(other, _Recorded)
        other.rows = list(self.rows)
        return other

    def require(self, factors: Mapping[int, Fraction], constant: Fraction, strict: bool) -> bool:
        self.rows.append((dict(factors), constant, strict))
        return super().require(factors, constant, strict)

    def box(self) -> tuple[Point, Point] | None:
        """What is required of single variables; None if one has no bound."""
        lower, upper = dict[int, Fraction](), dict[int, Fraction]()
        for factors, constant, _ in self.rows:
            given = {i: factor for i, factor in factors.items() if factor}
            if len(given) == 1:
                ((i, factor),) = given.items()
                end = -constant / factor
                if factor > 0:
                    upper[i] = min(upper.get(i, end), end)
                else:
                    lower[i] = max(lower.get(i, end), end)
        if len(lower) < self._count or len(upper) < self._count:
            return None
        return [lower[i] for i in range(self._count)], [upper[i] for i in range(self._count)]


def _holds(value: Fraction, strict: bool) -> bool:
    return value < 0 or (value == 0 and not strict)


def _value(polynomial: Polynomial, point: Point) -> Fraction:
    powers = ((part, zip(point, exponents, strict=True)) for exponents, part in polynomial.items())
    return sum((part * prod((x**e for x, e in pairs), start=_ONE) for part, pairs in powers), _ZERO)


def _linear(polynomial: Polynomial) -> tuple[dict[int, Fraction], Fraction]:
    """The factors and the constant of a polynomial of degree one."""
    factors = {exponents.index(1): part for exponents, part in polynomial.items() if any(exponents)}
    return factors, sum((part for exponents, part in polynomial.items() if not any(exponents)), _ZERO)


def _lowest(polynomial: Polynomial, count: int) -> tuple[Fraction, Point] | None:
    """The least value of a quadratic form and where it is; None if it has none, or the degree is another.

    One variable after the other is where the form is least in it, which leaves a form of the others.
    """
    if max(map(sum, polynomial), default=0) != 2:
        return None
    square = [[_ZERO] * count for _ in range(count)]
    slope, least = [_ZERO] * count, polynomial.get((0,) * count, _ZERO)
    for exponents, part in polynomial.items():
        used = [i for i, e in enumerate(exponents) for _ in range(e)]
        if len(used) == 1:
            slope[used[0]] = part
        elif len(used) == 2:
            square[used[0]][used[1]] += part
            square[used[1]][used[0]] += part
    for i in range(count):
        pivot, rest = square[i][i], range(i + 1, count)
        if pivot < 0 or (pivot == 0 and (slope[i] or any(square[i][j] for j in rest))):
            return None
        if pivot:
            least -= slope[i] ** 2 / (2 * pivot)
            for j in rest:
                slope[j] -= square[i][j] * slope[i] / pivot
                for k in rest:
                    square[j][k] -= square[i][j] * square[i][k] / pivot
    point = [_ZERO] * count
    for i in reversed(range(count)):
        if square[i][i]:
            inner = sum((square[i][j] * point[j] for j in range(i + 1, count)), slope[i])
            point[i] = -inner / square[i][i]
    return least, point


def _gradients(polynomial: Polynomial, count: int) -> Iterator[Polynomial]:
    """The derivatives by each variable of a quadratic form, and the same with the other sign."""
    for i in range(count):
        slope: Polynomial = {}
        for exponents, part in polynomial.items():
            if exponents[i]:
                lower = tuple(e - (j == i) for j, e in enumerate(exponents))
                slope[lower] = exponents[i] * part
        yield slope
        yield {exponents: -part for exponents, part in slope.items()}


def _in_bernsteins_basis(polynomial: Polynomial, lower: Point, upper: Point) -> NDArray[Any]:
    """The coefficients over a box, an axis for each variable. Raises TooLarge for too many."""
    degrees = [max((exponents[i] for exponents in polynomial), default=0) for i in range(len(lower))]
    if prod(d + 1 for d in degrees) > _MOST_COEFFICIENTS:
        raise TooLarge
    result = np.full([d + 1 for d in degrees], _ZERO, dtype=object)
    for exponents, part in polynomial.items():
        result[exponents] = part
    for axis, degree in enumerate(degrees):
        change = _change(degree, lower[axis], upper[axis] - lower[axis])
        result = np.moveaxis(np.tensordot(change, result, axes=(1, axis)), 0, axis)
    return result


def _change(degree: int, low: Fraction, width: Fraction) -> NDArray[Any]:
    """From powers of a variable to Bernstein's basis over an interval."""
    rows = [
        [
            sum(
                (comb(k, m) * low ** (k - m) * width**m * Fraction(comb(j, m), comb(degree, m)))
                for m in range(min(j, k) + 1)
            )
            for k in range(degree + 1)
        ]
        for j in range(degree + 1)
    ]
    return np.array(rows, dtype=object)


def _cut(coefficients: NDArray[Any], axis: int, share: Fraction) -> tuple[NDArray[Any], NDArray[Any]]:
    """The coefficients over both parts of a box that is cut: de Casteljau's scheme."""
    now = list(np.moveaxis(coefficients, axis, 0))
    left, right = [now[0]], [now[-1]]
    while len(now) > 1:
        now = [a + share * (b - a) for a, b in pairwise(now)]
        left.append(now[0])
        right.append(now[-1])
    return np.moveaxis(np.array(left), 0, axis), np.moveaxis(np.array(right[::-1]), 0, axis)


def _with(point: Point, axis: int, value: Fraction) -> Point:
    return [*point[:axis], value, *point[axis + 1 :]]
