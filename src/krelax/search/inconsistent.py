"""Unsafe cases whose conditions contradict each other, whatever the network is.

As `Y_0 < Y_1` and `Y_1 < Y_0` do, or of a hidden node, `H < 0` and `relu(H) > 0`. Bounds of margins say so where
outputs are apart, and end at zero where they may be equal. Systems of linear inequalities do not: a case is impossible
if exact numbers cannot satisfy its half-spaces, what intervals say of each term, and what activations say of values
that are their operands and results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

import numpy as np

from krelax.network.graph import Network
from krelax.problem.query import Case, Floats, Halfspace, Inequality, Monomial, Specification
from krelax.search.excluded import output_intervals
from krelax.search.simplex import Purse, Spent, System

_ONE, _HALF = Fraction(1), Fraction(1, 2)
# A case with more half-spaces, or links, than these is not looked at.
_MOST_ROWS, _MOST_LINKS = 64, 12


class Link(NamedTuple):
    """Values of networks from number `result` on are an activation of those from `operand` on, `size` of each: of kind
    `leak`, which is `max(z, leak z)`, or of the kinds `sigmoid` and `tanh`."""

    operand: int
    result: int
    size: int
    kind: str
    leak: Fraction = Fraction(0)


def without_contradictions(
    network: Network, specification: Specification, links: Sequence[Link], work: int, check: Callable[[], None]
) -> Specification:
    """The specification without the cases whose conditions contradict each other, as far as the work granted lasts.

    Sound: no input satisfies a case that is left out. `check` is called between cases, and may raise.
    """
    terms = specification.terms or tuple((2 * i + 1,) for i in range(specification.outputs))
    purse, kept, box, outputs = Purse(work), list[Case](), None, None
    for number, case in enumerate(specification.cases):
        linked = list(_linked(case.halfspaces, terms, links))
        if not case.is_bounded or not (len(case.halfspaces) > 1 or linked) or len(case.halfspaces) > _MOST_ROWS:
            kept.append(case)
            continue
        check()
        if box is None or outputs is None or case.lower is not box[0] or case.upper is not box[1]:
            box, outputs = (case.lower, case.upper), output_intervals(network, case.lower, case.upper)
        try:
            if not _contradicts(case, linked, *outputs, purse):
                kept.append(case)
        except Spent:
            return replace(specification, cases=(*kept, *specification.cases[number:]))
    return replace(specification, cases=tuple(kept))


def _linked(
    halfspaces: Sequence[Halfspace], terms: Sequence[Monomial], links: Sequence[Link]
) -> Iterator[tuple[int, int, Link]]:
    """Operands and results among the terms of half-spaces, by their numbers."""
    values = {terms[i][0] // 2: i for h in halfspaces for i in h.coefficients if len(terms[i]) == 1 and terms[i][0] % 2}
    for link in links:
        for value in values.keys() & set(range(link.result, link.result + link.size)):
            operand = value - link.result + link.operand
            if operand in values:
                yield values[operand], values[value], link


def _contradicts(
    case: Case, linked: Sequence[tuple[int, int, Link]], lower: Floats, upper: Floats, purse: Purse
) -> bool:
    used = sorted({i for halfspace in case.halfspaces for i in halfspace.coefficients})
    number = {i: k for k, i in enumerate(used)}
    system = System(len(used), purse)
    for halfspace in case.halfspaces:
        factors = {number[i]: factor for i, factor in halfspace.coefficients.items()}
        if not system.require(factors, halfspace.constant, halfspace.strict):
            return True
    for i in used:
        for end, sign in ((lower[i], -_ONE), (upper[i], _ONE)):
            if np.isfinite(end) and not system.require({number[i]: sign}, -sign * Fraction(float(end)), False):
                return True
    if not linked or len(linked) > _MOST_LINKS:
        return False
    pairs = [(number[z], number[a], link) for z, a, link in linked]
    ways = [list(_pieces(z, a, link)) for z, a, link in pairs]
    twos = combinations(pairs, 2)
    ways += [list(_orders(*one[:2], *other[:2])) for one, other in twos if one[2].kind == other[2].kind != "leak"]
    return not _possible(system, ways)


def _pieces(z: int, a: int, link: Link) -> Iterator[list[Inequality]]:
    """What an operand z and a result a satisfy, one of several systems of inequalities."""
    if link.kind == "leak":
        yield [({z: -_ONE}, Fraction(0), False), *_equal({a: _ONE, z: -_ONE})]
        yield [({z: _ONE}, Fraction(0), False), *_equal({a: _ONE, z: -link.leak})]
        return
    middle = _HALF if link.kind == "sigmoid" else Fraction(0)
    for sign in (1, -1):
        yield [({z: Fraction(-sign)}, Fraction(0), True), ({a: Fraction(-sign)}, sign * middle, True),
               ({a: _ONE}, -_ONE, True), ({a: -_ONE}, 2 * middle - 1, True)]  # fmt: skip
    yield [*_equal({z: _ONE}), *_equal({a: _ONE}, -middle)]


def _orders(z: int, a: int, other_z: int, other_a: int) -> Iterator[list[Inequality]]:
    """A function that rises everywhere keeps the order of two operands."""
    for sign in (_ONE, -_ONE):
        yield [({z: sign, other_z: -sign}, Fraction(0), True), ({a: sign, other_a: -sign}, Fraction(0), True)]
    yield [*_equal({z: _ONE, other_z: -_ONE}), *_equal({a: _ONE, other_a: -_ONE})]


def _equal(factors: Mapping[int, Fraction], constant: Fraction = Fraction(0)) -> list[Inequality]:
    turned = {i: -factor for i, factor in factors.items()}
    return [(dict(factors), constant, False), (turned, -constant, False)]


def _possible(system: System, ways: Sequence[Sequence[Sequence[Inequality]]]) -> bool:
    """Whether numbers satisfy a system, and one of the systems of each of the `ways`."""
    if not ways:
        return True
    for rows in ways[0]:
        each = system.copy()
        if all(each.require(*row) for row in rows) and _possible(each, ways[1:]):
            return True
    return False
