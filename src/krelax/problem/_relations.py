"""Constraints that relate inputs, and what they say of single ones: which are equal, and how far unbounded ones go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from krelax.problem._formulas import Formulas
from krelax.problem.exact import Floats, Limit, enclosure
from krelax.problem.quadrics import Quadric
from krelax.problem.query import Case, Halfspace, Monomial

# A linear form of inputs that is at most zero: factors by the number of the input, and the constant.
Row = tuple[dict[int, Fraction], Fraction]
# Rounds in which bounds that are missing are derived from others.
_ROUNDS = 20
_LARGEST = 2**1000


class Relations:
    """The half-spaces of a file over its ``terms``, and what those about inputs alone say.

    Where half-spaces are about values of networks only, ``terms`` is empty if these are simply the outputs of one
    network (``plain``), and the half-spaces are as they were.
    """

    def __init__(self, formulas: Formulas, plain: bool, check: Callable[[], None]) -> None:
        self._others: list[Monomial] = list(formulas.others)
        self._check = check
        self.halfspaces: Sequence[Halfspace] = formulas.halfspaces
        self._rows = self._input_rows()
        self._quadrics = self._input_quadrics()
        self.terms: tuple[Monomial, ...] = ()
        if self._others or not plain:
            self._renumber()

    def _input_rows(self) -> dict[int, Row]:
        """The half-spaces that are linear in inputs alone, by number."""
        rows: dict[int, Row] = {}
        linear = {-1 - k: m[0] // 2 for k, m in enumerate(self._others) if len(m) == 1}
        if not linear:
            return rows
        for number, halfspace in enumerate(self.halfspaces):
            if not number & 0xFFF:
                self._check()
            if halfspace.coefficients and all(term in linear for term in halfspace.coefficients):
                factors = {linear[term]: factor for term, factor in halfspace.coefficients.items()}
                rows[number] = (factors, halfspace.constant)
        return rows

    def _input_quadrics(self) -> dict[int, Quadric]:
        """The half-spaces that say how far inputs may be from a point, by number."""
        if not any(len(m) == 2 for m in self._others):
            return {}
        found: dict[int, Quadric] = {}
        for number, halfspace in enumerate(self.halfspaces):
            if not number & 0xFF:
                self._check()
            quadric = Quadric.of(halfspace, lambda term: self._others[-1 - term] if term < 0 else None)
            if quadric is not None:
                found[number] = quadric
        return found

    def _renumber(self) -> None:
        """Number the terms that half-spaces have from zero on."""
        used = sorted({term for halfspace in self.halfspaces for term in halfspace.coefficients}) or [0]
        place = {term: number for number, term in enumerate(used)}
        self.terms = tuple(self._others[-1 - term] if term < 0 else (2 * term + 1,) for term in used)
        self.halfspaces = [
            replace(h, coefficients={place[term]: factor for term, factor in h.coefficients.items()})
            for h in self.halfspaces
        ]

    def applied(self, cases: Iterable[tuple[Case, Sequence[int], Sequence[int]]], inputs: int) -> Iterable[Case]:
        """Cases, each with the numbers of its half-spaces, those of all cases first, with inputs that are equal, and
        boxes with what they say of inputs without bounds. Cases whose inputs contradict each other are left out."""
        known: dict[tuple[object, ...], Case | None] = {}
        for case, common, own in cases:
            every = (*common, *own) if self._rows or self._quadrics else ()
            about = [n for n in every if n in self._rows or n in self._quadrics]
            if not about:
                yield case
                continue
            key = (id(case.lower), id(case.upper), *about)
            if key not in known:
                rows = [(self._rows[n], self.halfspaces[n].strict) for n in about if n in self._rows]
                known[key] = self._related(
                    case, rows, [self._quadrics[n] for n in about if n in self._quadrics], inputs
                )
            found = known[key]
            if found is not None:
                yield replace(case, lower=found.lower, upper=found.upper, equal=found.equal)

    def _related(
        self, case: Case, rows: Sequence[tuple[Row, bool]], quadrics: Sequence[Quadric], inputs: int
    ) -> Case | None:
        equal = _equalities([row for row, strict in rows if not strict], inputs)
        box: tuple[Floats, Floats] | None = case.lower, case.upper
        for quadric in quadrics:
            box = None if box is None else _within(*box, quadric)
        if box is not None and quadrics:  # where no float64 lies, the box encloses the number that stands for all
            some = case.least <= case.most
            box = np.where(some, box[0], case.lower), np.where(some, box[1], case.upper)
        box = None if box is None else _derived(*box, [row for row, _ in rows])
        return None if box is None else replace(case, lower=box[0], upper=box[1], equal=equal)


def _equalities(rows: Sequence[Row], inputs: int) -> tuple[int, ...] | None:
    """For every input the first one that it equals; None if none does."""
    at_most = set()
    for factors, constant in rows:
        if len(factors) == 2 and not constant and not sum(factors.values()):
            low = next(i for i, factor in factors.items() if factor > 0)
            at_most.add((low, next(i for i in factors if i != low)))
    first = list(range(inputs))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    for low, high in at_most:
        if (high, low) in at_most:
            one, other = sorted((root(low), root(high)))
            first[other] = one
    roots = tuple(root(i) for i in range(inputs))
    return None if roots == tuple(range(inputs)) else roots


def _derived(lower: Floats, upper: Floats, rows: Sequence[Row]) -> tuple[Floats, Floats] | None:
    """The box with bounds that rows say of inputs without one; None if rows contradict it."""
    if bool(np.isfinite(lower).all() and np.isfinite(upper).all()):
        return lower, upper
    lower, upper = lower.copy(), upper.copy()
    for _ in range(_ROUNDS):
        changed = [
            _tighten(lower, upper, i, factors, constant)
            for factors, constant in rows
            for i, factor in factors.items()
            if np.isinf((upper if factor > 0 else lower)[i])
        ]
        if not any(changed):
            break
    return None if bool((lower > upper).any()) else (lower, upper)


def _within(lower: Floats, upper: Floats, quadric: Quadric) -> tuple[Floats, Floats] | None:
    """The part of a box, rounded outward, that a condition on the distance from a point leaves; None if it is empty."""
    if quadric.empty:
        return None
    lower, upper = lower.copy(), upper.copy()
    for i, centre in quadric.centre.items():
        ends = centre - quadric.reach(i), centre + quadric.reach(i)
        if max(map(abs, ends)) < _LARGEST:
            found = enclosure([Limit.of(end) for end in ends])
            lower[i], upper[i] = max(lower[i], found.down[0]), min(upper[i], found.up[1])
    return None if bool((lower > upper).any()) else (lower, upper)


def _tighten(lower: Floats, upper: Floats, i: int, factors: dict[int, Fraction], constant: Fraction) -> bool:
    """Bound input `i`, rounded outward, by a row that is at most zero; whether that was possible."""
    ends = {j: float((lower if factor > 0 else upper)[j]) for j, factor in factors.items() if j != i}
    if not np.isfinite(list(ends.values())).all():
        return False
    rest = sum((factors[j] * Fraction(end) for j, end in ends.items()), constant)
    limit = -rest / factors[i]
    if abs(limit) >= _LARGEST:
        return False
    found = enclosure([Limit.of(limit)])
    if factors[i] > 0:
        upper[i] = found.up[0]
    else:
        lower[i] = found.down[0]
    return True
