"""Disjunctive normal forms: small ones are multiplied out at once, others when all of the file is known.

A literal names an inequality by a number. A conjunction is a list of literals, a formula in disjunctive normal form a
list of conjunctions: the empty list is false, and a list with an empty conjunction is true.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from krelax.errors import UnsupportedError
from krelax.problem._forms import Fault, Form

_MAX_CASES = 5_000_000
_MAX_LITERALS = 50_000_000

Conjunction = list[int]
Disjunction = list[Conjunction]


@dataclass(slots=True, eq=False)
class Junction:
    """A conjunction or a disjunction that is not multiplied out: ``cases`` with ``literals`` in all it will have."""

    is_and: bool
    parts: list[Formula]
    cases: int
    literals: int


Formula = Disjunction | Junction
# Lists that share their ends: the last item, and those before.
_Linked = tuple[Conjunction, "_Linked | None"]
_Agenda = tuple[Formula, "_Agenda | None"]
# Drops the literals of a conjunction, or of a disjunction of single ones, that others make superfluous.
Reduced = Callable[[Conjunction], Conjunction]


def all_of(parts: Sequence[Formula], reduced: Reduced, where: Form | None = None) -> Formula:
    """The conjunction of the parts. Raises Fault, at ``where``, if its normal form would be too large."""
    if any(part == [] for part in parts):
        return []
    common: Conjunction = []
    several: list[Formula] = []
    for part in parts:
        if isinstance(part, list) and len(part) == 1:
            common += part[0]
        else:
            several.append(part)
    common = reduced(common)
    if not several:
        return [common]
    if len(several) == 1 and not common:
        return several[0]
    own: list[Formula] = [[common]] if common else []
    return _sized(True, [*own, *several], where)


def any_of(parts: Sequence[Formula], reduced: Reduced, where: Form | None = None) -> Formula:
    """The disjunction of the parts; as `all_of`."""
    if len(parts) == 1:
        return parts[0]
    if any(part == [[]] for part in parts):
        return [[]]
    joined: list[Formula] = []
    for part in parts:
        if isinstance(part, list) and joined and isinstance(joined[-1], list):
            joined[-1] += part
        else:
            joined.append(list(part) if isinstance(part, list) else part)
    joined = [_weakest(part, reduced) if isinstance(part, list) else part for part in joined]
    if len(joined) == 1:
        return joined[0]
    return _sized(False, [part for part in joined if part != []], where) if joined else []


def _weakest(alternatives: Disjunction, reduced: Reduced) -> Disjunction:
    singles = [own[0] for own in alternatives if len(own) == 1]
    kept = set(reduced(singles))
    return alternatives if len(kept) == len(singles) else [a for a in alternatives if len(a) != 1 or a[0] in kept]


def _sized(is_and: bool, parts: list[Formula], where: Form | None) -> Junction:
    sizes = [_size(part) for part in parts]
    if is_and:
        cases = math.prod(count for count, _ in sizes)
        literals = sum(cases // count * literals for count, literals in sizes)
        shared = (cases - 1) * sizes[0][1] if sizes[0][0] == 1 else 0
    else:
        cases, literals = (sum(numbers) for numbers in zip(*sizes, strict=True))
        shared = 0
    if cases > _MAX_CASES or literals - shared > _MAX_LITERALS:
        message = f"the disjunctive normal form has {cases} cases with {literals - shared} comparisons in all; at most"
        limits = f"{_MAX_CASES} with {_MAX_LITERALS} are supported; split the specification"
        raise Fault(f"{message} {limits}", where, UnsupportedError)
    return Junction(is_and, parts, cases, literals)


def _size(formula: Formula) -> tuple[int, int]:
    if isinstance(formula, Junction):
        return formula.cases, formula.literals
    return len(formula), sum(map(len, formula))


def cases_of(formula: Formula, check: Callable[[], None]) -> tuple[Conjunction, Disjunction]:
    """What holds in all cases of a formula, and the cases, each with what holds in it besides."""
    common: Conjunction = []
    parts = formula.parts if isinstance(formula, Junction) and formula.is_and else [formula]
    if isinstance(parts[0], list) and len(parts[0]) == 1:
        common, parts = parts[0][0], parts[1:]
    return common, _multiplied(parts, check)


def _multiplied(parts: Sequence[Formula], check: Callable[[], None]) -> Disjunction:
    """The normal form of the conjunction of the parts, in the order in which they are written."""
    if len(parts) == 1 and isinstance(parts[0], list):
        return parts[0]
    found: Disjunction = []
    states: list[tuple[_Linked | None, _Agenda | None]] = [(None, _before(parts, None))]
    while states:
        if not len(found) & 0x3FF:
            check()
        chosen, agenda = states.pop()
        while agenda is not None:
            formula, agenda = agenda
            if isinstance(formula, list):
                states.extend(((own, chosen), agenda) for own in formula[:0:-1])
                chosen = (formula[0], chosen)
            elif formula.is_and:
                agenda = _before(formula.parts, agenda)
            else:
                states.extend((chosen, (part, agenda)) for part in formula.parts[:0:-1])
                agenda = (formula.parts[0], agenda)
        found.append(_flat(chosen))
    return found


def _before(parts: Sequence[Formula], agenda: _Agenda | None) -> _Agenda | None:
    for part in reversed(parts):
        agenda = (part, agenda)
    return agenda


def _flat(chosen: _Linked | None) -> Conjunction:
    pieces: Disjunction = []
    while chosen is not None:
        piece, chosen = chosen
        pieces.append(piece)
    return list(chain.from_iterable(reversed(pieces)))
