"""Formulas of VNN-LIB files in disjunctive normal form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, product

from krelax.errors import InputError, UnsupportedError
from krelax.problem._boxes import Bound
from krelax.problem._declarations import Declarations
from krelax.problem._forms import Fault, Form, head, is_word, quote
from krelax.problem._terms import Polynomial, Terms, check_range, is_number, total
from krelax.problem.exact import Limit
from krelax.problem.query import Halfspace, Monomial

_MAX_CASES = 5_000_000
_MAX_LITERALS = 50_000_000

# A literal names an inequality: k >= 0 the k-th input bound, k < 0 the half-space number -1 - k. Conjunctions are
# lists of literals, formulas in disjunctive normal form are lists of conjunctions: the empty list is false, and a list
# with an empty conjunction is true.
Conjunction = list[int]
Disjunction = list[Conjunction]

# What a comparison requires, as alternatives, each a conjunction of (sign, strict): sign * (left - right) is at most
# zero, or less than that.
_AT_MOST, _LESS, _AT_LEAST, _GREATER = (1, False), (1, True), (-1, False), (-1, True)
_EQUAL, _DISTINCT = ((_AT_MOST, _AT_LEAST),), ((_LESS,), (_GREATER,))
_COMPARISONS = {
    "<=": ((_AT_MOST,),),
    "<": ((_LESS,),),
    ">=": ((_AT_LEAST,),),
    ">": ((_GREATER,),),
    "=": _EQUAL,
    "==": _EQUAL,
    "distinct": _DISTINCT,
    "!=": _DISTINCT,
}
_OPPOSITES = {"<=": ">", "<": ">=", ">=": "<", ">": "<=", "=": "!=", "==": "!=", "distinct": "=", "!=": "="}
_CONSTANTS = {"true": True, "false": False}
_REFUSED = {"=>", "xor", "ite", "let", "!"}


class Formulas:
    """The inequalities of a file, by number, and its formulas in terms of them."""

    def __init__(self, declarations: Declarations, check: Callable[[], None]) -> None:
        self.bounds: list[Bound] = []
        # Of a half-space, j >= 0 stands for value number j, and -1 - k for the k-th of ``others``.
        self.halfspaces: list[Halfspace] = []
        self.others: dict[Monomial, int] = {}
        self._declarations = declarations
        self._check = check
        self._terms = Terms(declarations.place, check)
        # The innermost comparisons by their text, which large files repeat, and whether they are negated.
        self._known: tuple[dict[Form, Disjunction], dict[Form, Disjunction]] = ({}, {})
        self._count = 0

    def normal_form(self, form: Form, where: Form) -> Disjunction:
        """The disjunctive normal form of a formula, however deeply it is nested; ``where`` is the list around it.

        Raises Fault.
        """
        open_ = [_Open("and", [form], where, False, [])]
        while True:
            innermost = open_[-1]
            if innermost.waiting:
                operand = innermost.waiting.pop()
                deeper = self._open(operand, innermost)
                if deeper is not None:
                    open_.append(deeper)
                continue
            value = innermost.value()
            open_.pop()
            if not open_:
                return value
            open_[-1].parts.append(value)

    def _open(self, form: Form, around: _Open) -> _Open | None:
        """The formula as one whose operands wait; None if it is an innermost one, which is evaluated at once."""
        negated = around.negated
        self._count += 1
        if not self._count & 0xFFF:
            self._check()
        if is_word(form):
            around.parts.append(self._word(form, around.form, negated))
            return None
        known = self._known[negated].get(form)
        if known is not None:
            around.parts.append(known)
            return None
        keyword, operands = head(form)
        if keyword in ("and", "or"):
            keyword = {"and": "or", "or": "and"}[keyword] if negated else keyword
            return _Open(keyword, list(reversed(operands)), form, negated, [])
        if keyword == "not":
            if len(operands) != 1:
                raise Fault(f"not takes one formula, not {len(operands)}", form)
            return _Open("and", list(operands), form, not negated, [])
        value = self._compare(form, keyword, operands, negated)
        if isinstance(form, str):
            self._known[negated][form] = value
        around.parts.append(value)
        return None

    def _word(self, word: str, where: Form, negated: bool) -> Disjunction:
        if word not in _CONSTANTS:
            raise Fault(f"found {quote(word)} where a comparison, 'and', 'or' or 'not' was expected", where)
        return [[]] if _CONSTANTS[word] is not negated else []

    def _compare(self, form: Form, operator: str, operands: Sequence[Form], negated: bool) -> Disjunction:
        if operator not in _COMPARISONS or len(operands) != 2:
            message = (
                f"{quote(form)} is not a comparison of two terms; write (<= TERM TERM) or with >=, <, >, =, distinct"
            )
            raise Fault(message, form, UnsupportedError if operator in _REFUSED else InputError)
        alternatives = _COMPARISONS[_OPPOSITES[operator] if negated else operator]
        left, right = operands
        plain = self._plain_bound(left, right, form)
        if plain is not None:
            index, limit = plain
            return [[self._bound(index, sign > 0, limit, strict) for sign, strict in all_] for all_ in alternatives]
        difference = total([self._terms.value(left, form), self._terms.value(right, form).negated()])
        if difference.is_constant():
            check_range((difference.constant,), form)
            return [[]] if any(_all_true(difference.constant, required) for required in alternatives) else []
        return [
            [self._literal(difference if sign > 0 else difference.negated(), strict, form) for sign, strict in all_]
            for all_ in alternatives
        ]

    def _plain_bound(self, left: Form, right: Form, where: Form) -> tuple[int, Limit] | None:
        """Index and limit if an input is compared with a number, which most comparisons do."""
        if not (is_word(left) and is_word(right)):
            return None
        place = self._declarations.place(left, where)
        if place is None or place.is_output or not is_number(right, where):
            return None
        return place.element, Limit.of(right)

    def _bound(self, variable: int, is_upper: bool, limit: Limit, strict: bool) -> int:
        self.bounds.append(Bound(variable, is_upper, limit, strict))
        return len(self.bounds) - 1

    def _literal(self, polynomial: Polynomial, strict: bool, where: Form) -> int:
        """The literal that says that ``polynomial`` is at most zero, or less if ``strict``."""
        check_range(polynomial.terms.values(), where)
        variables = [monomial for monomial in polynomial.terms if monomial]
        if len(variables) == 1 and len(variables[0]) == 1 and variables[0][0] % 2 == 0:
            factor = polynomial.terms[variables[0]]
            limit = -polynomial.constant / factor
            check_range((limit,), where)
            return self._bound(variables[0][0] // 2, factor > 0, Limit.of(limit), strict)
        factors = {self._term(monomial): polynomial.terms[monomial] for monomial in variables}
        self.halfspaces.append(Halfspace(factors, polynomial.constant, strict))
        return -len(self.halfspaces)

    def _term(self, monomial: Monomial) -> int:
        """The number by which half-spaces call a monomial."""
        if len(monomial) == 1 and monomial[0] % 2:
            return monomial[0] // 2
        return -1 - self.others.setdefault(monomial, len(self.others))


def _all_true(difference: Fraction, required: Sequence[tuple[int, bool]]) -> bool:
    return all(sign * difference < 0 if strict else sign * difference <= 0 for sign, strict in required)


@dataclass(slots=True)
class _Open:
    """A conjunction or a disjunction, some of whose operands still wait, the first one last; they are ``negated``."""

    keyword: str
    waiting: list[Form]
    form: Form
    negated: bool
    parts: list[Disjunction]

    def value(self) -> Disjunction:
        """Its normal form, when none waits."""
        if len(self.parts) == 1:
            return self.parts[0]
        return conjoin(self.parts, self.form) if self.keyword == "and" else list(chain.from_iterable(self.parts))


def conjoin(disjunctions: Sequence[Disjunction], where: Form | None = None) -> Disjunction:
    """The disjunctive normal form of a conjunction."""
    if all(len(part) == 1 for part in disjunctions):
        return [list(chain.from_iterable(part[0] for part in disjunctions))]
    if not all(disjunctions):
        return []
    size = math.prod(map(len, disjunctions))
    literals = sum(size // len(part) * sum(map(len, part)) for part in disjunctions)
    if size > _MAX_CASES or literals > _MAX_LITERALS:
        message = f"the disjunctive normal form has {size} cases with {literals} comparisons in all; at most"
        limits = f"{_MAX_CASES} with {_MAX_LITERALS} are supported; split the specification"
        raise Fault(f"{message} {limits}", where, UnsupportedError)
    return [list(chain.from_iterable(choice)) for choice in product(*disjunctions)]
