"""Intervals of exact numbers, whose ends belong to them or not, and what half-spaces leave of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from krelax.problem.exact import End
from krelax.problem.query import Halfspace, Monomial

# How often half-spaces are asked to narrow what others have left.
_ROUNDS = 4
# More of them are only asked whether they exclude everything.
_MOST_ROWS = 64


class Edge(NamedTuple):
    """An end of an interval, a fraction or infinite, and whether the interval does not have it."""

    at: Fraction | float
    open: bool


@dataclass(frozen=True)
class Span:
    """All numbers between two edges."""

    low: Edge
    high: Edge

    @classmethod
    def of(cls, low: End | None, high: End | None) -> Span:
        """From the ends as they are written, None where there is none."""
        return cls(
            Edge(-math.inf, True) if low is None else Edge(*low), Edge(math.inf, True) if high is None else Edge(*high)
        )

    @classmethod
    def closed(cls, low: float, high: float) -> Span:
        """Between two floats, which may be infinite."""
        ends = [(Fraction(t), False) if math.isfinite(t) else None for t in (low, high)]
        return cls.of(*ends)

    @property
    def empty(self) -> bool:
        """Whether there is no number in it."""
        return self.low.at > self.high.at or (self.low.at == self.high.at and (self.low.open or self.high.open))

    def meet(self, other: Span) -> Span:
        """What both have."""
        low = max(self.low, other.low, key=lambda e: (e.at, e.open))
        high = min(self.high, other.high, key=lambda e: (e.at, not e.open))
        return Span(low, high)

    def times(self, other: Span) -> Span:
        """All products of a number of each, which do not depend on each other."""
        corners = [_product(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return Span(_least(corners), _most(corners))

    def power(self, exponent: int) -> Span:
        """All powers."""
        low, high = (_power(e, exponent) for e in (self.low, self.high))
        if exponent % 2 or self.low.at >= 0:
            return Span(low, high)
        if self.high.at <= 0:
            return Span(high, low)
        return Span(Edge(Fraction(0), False), _most([low, high]))

    def scaled(self, factor: Fraction) -> Span:
        """All multiples by a number that is not zero."""
        low, high = (_product(e, Edge(factor, False)) for e in (self.low, self.high))
        return Span(low, high) if factor > 0 else Span(high, low)


def _product(one: Edge, other: Edge) -> Edge:
    for a, b in ((one, other), (other, one)):
        if a.at == 0:  # times whatever the other one is, which is some number
            return Edge(Fraction(0), a.open and (b.open or b.at != 0))
    return Edge(one.at * other.at, one.open or other.open)


def _power(edge: Edge, exponent: int) -> Edge:
    if isinstance(edge.at, float):
        return Edge(math.inf if edge.at > 0 or exponent % 2 == 0 else -math.inf, True)
    return Edge(edge.at**exponent, edge.open)


def _least(edges: Iterable[Edge]) -> Edge:
    return min(edges, key=lambda e: (e.at, e.open))


def _most(edges: Iterable[Edge]) -> Edge:
    return max(edges, key=lambda e: (e.at, not e.open))


def impossible(
    halfspaces: Sequence[Halfspace], terms: Sequence[Monomial], known: Mapping[int, Span], products: Mapping[int, Span]
) -> bool:
    """Whether no numbers satisfy all half-spaces.

    Args:
        halfspaces: About values of `terms`, products of variables.
        terms: The codes of the variables of each.
        known: What is known of variables, by their codes.
        products: What is known of terms that half-spaces have.

    Sound: if it says so. Where it does not, there may be none all the same.
    """
    variables, spans = dict(known), dict(products)
    for i, span in spans.items():
        if len(terms[i]) == 1:
            variables[terms[i][0]] = span.meet(variables.get(terms[i][0], span))
    for _ in range(_ROUNDS if len(halfspaces) <= _MOST_ROWS else 1):
        before = dict(variables)
        spans = {i: span.meet(_value(terms[i], variables)) for i, span in spans.items()}
        if any(span.empty for span in spans.values()):
            return True
        for halfspace in halfspaces:
            if _narrow(halfspace, terms, spans, variables):
                return True
        if variables == before:
            return False
    return False


def _value(term: Monomial, variables: Mapping[int, Span]) -> Span:
    """What a product of variables may be."""
    result = Span.closed(1.0, 1.0)
    for code, exponent in Counter(term).items():
        result = result.times(variables.get(code, Span.of(None, None)).power(exponent))
    return result


def _narrow(
    halfspace: Halfspace, terms: Sequence[Monomial], spans: dict[int, Span], variables: dict[int, Span]
) -> bool:
    """Whether a half-space excludes everything; if not, it narrows what is known of its terms, and of variables."""
    least = {i: spans[i].scaled(factor).low for i, factor in halfspace.coefficients.items() if factor}
    infinite = [i for i, edge in least.items() if math.isinf(edge.at)]
    if not infinite:
        total = sum((edge.at for edge in least.values()), Fraction(halfspace.constant))
        if total > 0 or (total == 0 and (halfspace.strict or any(edge.open for edge in least.values()))):
            return True
    for i in least if not infinite else infinite if len(infinite) == 1 else ():
        others = [edge for j, edge in least.items() if j != i]
        most = -sum((edge.at for edge in others), Fraction(halfspace.constant))
        factor = halfspace.coefficients[i]
        end = Fraction(most) / factor, halfspace.strict or any(edge.open for edge in others)
        span = spans[i].meet(Span.of(None, end) if factor > 0 else Span.of(end, None))
        if span.empty:
            return True
        spans[i] = span
        if len(terms[i]) == 1:
            variables[terms[i][0]] = variables.get(terms[i][0], span).meet(span)
    return False
