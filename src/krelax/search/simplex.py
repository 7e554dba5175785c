"""Systems of linear inequalities in exact numbers, some of them strict: is there a solution, and which?

Bounded rows are basic variables of a tableau, and pivoting by the smallest number repairs one bound at a time, so it
ends. Strict bounds are bounds moved by an infinitely small step, the second part of every number.

Reference: Dutertre, de Moura, A fast linear-arithmetic solver for DPLL(T), CAV 2006.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

# A number and how many infinitely small steps it is above that.
Stepped = tuple[Fraction, Fraction]
Row = dict[int, Fraction]

_ZERO, _ONE = Fraction(0), Fraction(1)


class Spent(Exception):
    """Nothing is left of the work that was granted."""


class Purse:
    """Work that may still be done, by everyone who shares it: products of numbers of a word's size, about."""

    def __init__(self, work: int) -> None:
        self.left = work

    def take(self, work: int) -> None:
        """Raises Spent if nothing is left."""
        self.left -= work
        if self.left < 0:
            raise Spent


class System:
    """Inequalities over `count` real numbers, which are added one by one, and a solution of those so far."""

    def __init__(self, count: int, purse: Purse) -> None:
        self._count, self._size, self._purse = count, count, purse
        self._rows: dict[int, Row] = {}
        self._values: dict[int, Stepped] = dict.fromkeys(range(count), (_ZERO, _ZERO))
        self._least: dict[int, Stepped] = {}
        self._most: dict[int, Stepped] = {}

    def copy(self) -> System:
        """The same system, to be continued in another way."""
        self._purse.take(1 + sum(map(len, self._rows.values())) // 8)
        other = type(self)(0, self._purse)
        other._count, other._size = self._count, self._size
        other._rows = {basic: dict(row) for basic, row in self._rows.items()}
        other._values, other._least, other._most = dict(self._values), dict(self._least), dict(self._most)
        return other

    def require(self, factors: Mapping[int, Fraction], constant: Fraction, strict: bool) -> bool:
        """Add `sum factors[i] x[i] + constant <= 0`, or `< 0`. Returns whether there is a solution still."""
        factors = {i: factor for i, factor in factors.items() if factor}
        if not factors:
            return constant < 0 or (constant == 0 and not strict)
        if len(factors) == 1:
            ((variable, factor),) = factors.items()
        else:
            variable, factor = self._row(factors), _ONE
        limit = -constant / factor
        step = _ZERO if not strict else -_ONE if factor > 0 else _ONE
        ends = self._most if factor > 0 else self._least
        tighter = min if factor > 0 else max
        ends[variable] = tighter(ends.get(variable, (limit, step)), (limit, step))
        low, high = self._least.get(variable), self._most.get(variable)
        if low is not None and high is not None and low > high:
            return False
        if variable not in self._rows and self._off(variable) is not None:
            self._move(variable, ends[variable])
        return self._repair()

    def solution(self) -> list[Fraction]:
        """A solution, if the last inequality left one."""
        step = _ONE
        for ends, sign in ((self._least, 1), (self._most, -1)):
            for variable, (limit, by) in ends.items():
                value, small = self._values[variable]
                gap, slope = sign * (value - limit), sign * (small - by)
                if slope < 0:
                    step = min(step, gap / -slope)
        return [value + small * step for value, small in (self._values[i] for i in range(self._count))]

    def _row(self, factors: Mapping[int, Fraction]) -> int:
        """A new variable that is a sum of others."""
        row: Row = {}
        self._purse.take(sum(len(self._rows.get(i, ())) + 1 for i in factors))
        for i, factor in factors.items():
            for j, part in self._rows.get(i, {i: _ONE}).items():
                row[j] = row.get(j, _ZERO) + factor * part
        new, self._size = self._size, self._size + 1
        self._rows[new] = {j: part for j, part in row.items() if part}
        self._values[new] = self._value(self._rows[new])
        return new

    def _value(self, row: Row) -> Stepped:
        return (
            sum((part * self._values[j][0] for j, part in row.items()), _ZERO),
            sum((part * self._values[j][1] for j, part in row.items()), _ZERO),
        )

    def _off(self, variable: int) -> bool | None:
        """Whether a variable is above its bounds or below; None if it is within."""
        value = self._values[variable]
        if variable in self._most and value > self._most[variable]:
            return True
        return False if variable in self._least and value < self._least[variable] else None

    def _move(self, variable: int, to: Stepped) -> None:
        """Give a variable that is not basic another value."""
        value = self._values[variable]
        by = (to[0] - value[0], to[1] - value[1])
        self._values[variable] = to
        for basic, row in self._rows.items():
            if part := row.get(variable):
                old = self._values[basic]
                self._values[basic] = (old[0] + part * by[0], old[1] + part * by[1])

    def _repair(self) -> bool:
        """Pivot until every basic variable is within its bounds; False if one cannot be."""
        while True:
            wrong = next((b for b in sorted(self._rows) if self._off(b) is not None), None)
            if wrong is None:
                return True
            above = bool(self._off(wrong))
            row = self._rows[wrong]
            entering = next((j for j in sorted(row) if self._free(j, (row[j] > 0) is not above)), None)
            if entering is None:
                return False
            limit = (self._most if above else self._least)[wrong]
            self._pivot(wrong, entering)
            self._move(wrong, limit)

    def _free(self, variable: int, up: bool) -> bool:
        """Whether a variable that is not basic can grow, or shrink."""
        ends = self._most if up else self._least
        return variable not in ends or self._values[variable] != ends[variable]

    def _pivot(self, leaving: int, entering: int) -> None:
        row = self._rows.pop(leaving)
        part = row.pop(entering)
        words = 1 + (part.numerator.bit_length() + part.denominator.bit_length()) // 64
        self._purse.take(1 + len(self._rows) * (1 + len(row)) * words)
        new = {j: -value / part for j, value in row.items()}
        new[leaving] = _ONE / part
        for other in self._rows.values():
            if factor := other.pop(entering, None):
                for j, value in new.items():
                    total = other.get(j, _ZERO) + factor * value
                    if total:
                        other[j] = total
                    else:
                        other.pop(j, None)
        self._rows[entering] = new
