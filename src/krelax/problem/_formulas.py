"""Formulas of VNN-LIB files, in terms of the inequalities in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from krelax.errors import InputError, UnsupportedError
from krelax.problem._boxes import Bound
from krelax.problem._declarations import Declarations
from krelax.problem._forms import Fault, Form, head, is_word, quote
from krelax.problem._normal import Conjunction, Disjunction, Formula, all_of, any_of, cases_of
from krelax.problem._terms import Place, Polynomial, Terms, check_range, exact, is_number, total
from krelax.problem.exact import Limit
from krelax.problem.query import Halfspace, Monomial

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
# Conjunctions of no more comparisons are left as they are.
_FEW = 16
_SIGNS = {1: Fraction(1), -1: Fraction(-1)}
_ZERO = Fraction(0)
Direction = tuple[tuple[int, Fraction], ...]
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
        self._values: tuple[dict[Form, Disjunction | None], dict[Form, Disjunction | None]] = ({}, {})
        # Those that are known to be true, or false, where a formula is read.
        self._known: dict[Form, bool] = {}
        self._count = 0

    def formula(self, form: Form, where: Form) -> Formula:
        """A formula in terms of literals, however deeply it is nested; ``where`` is the list around it. Raises Fault.

        What a comparison beside a part says is known inside that part, so one that is repeated there is gone: `a and f`
        says of `f` only what it says where `a` is true, and `a or f` where `a` is false.
        """
        open_ = [_Open(True, form, [(form, False, where)])]
        while True:
            innermost = open_[-1]
            deeper = self._next(innermost)
            if deeper is not None:
                open_.append(deeper)
                continue
            for known in innermost.known:
                del self._known[known]
            if innermost.is_and:
                value = all_of(innermost.parts, self._strongest, innermost.form)
            else:
                value = any_of(innermost.parts, self._weakest, innermost.form)
            open_.pop()
            if not open_:
                return value
            open_[-1].parts[innermost.place] = value

    def cases(self, asserted: Sequence[Formula]) -> tuple[Conjunction, Disjunction]:
        """What holds in all cases of formulas that are all true, and the cases, each with what else holds in it.

        Raises Fault.
        """
        return cases_of(all_of(asserted, self._strongest), self._check)

    def _next(self, around: _Open) -> _Open | None:
        """Evaluate the comparisons that wait, and after them open one of the parts; None if there is none."""
        while around.waiting:
            self._count += 1
            if not self._count & 0xFFF:
                self._check()
            form, negated, outside = around.waiting.pop()
            if is_word(form):
                around.parts.append(self._word(form, outside, negated))
            elif form in self._known:
                around.parts.append([[]] if self._known[form] is not negated else [])
            else:
                self._take(form, negated, around)
        if not around.deeper:
            return None
        form, negated, place = around.deeper.popleft()
        waiting = [(operand, negated, form) for operand in reversed(head(form)[1])]
        return _Open(not around.is_and, form, waiting, place)

    def _take(self, form: Form, negated: bool, around: _Open) -> None:
        """Evaluate a list: what is of the same kind as the one around is a part of that."""
        value = self._values[negated].get(form)
        if value is None and isinstance(form, str):
            value = self._values[negated][form] = self._usual(form, negated)
        if value is None:
            keyword, operands = head(form)
            if keyword == "not":
                if len(operands) != 1:
                    raise Fault(f"not takes one formula, not {len(operands)}", form)
                around.waiting.append((operands[0], not negated, form))
                return
            if keyword in ("and", "or"):
                if ((keyword == "and") is not negated) is around.is_and:
                    around.waiting += [(operand, negated, form) for operand in reversed(operands)]
                else:
                    around.deeper.append((form, negated, len(around.parts)))
                    around.parts.append([])
                return
            value = self._compare(form, keyword, operands, negated)
            if isinstance(form, str):
                self._values[negated][form] = value
        around.parts.append(value)
        if isinstance(form, str):
            around.known.append(form)
            self._known[form] = around.is_and is not negated

    def _usual(self, form: str, negated: bool) -> Disjunction | None:
        """The value of a comparison as nearly all of a large file are written: of a variable that is known with a
        number, or of two values of networks, with single spaces between; None for others.

        No such part has a character by which lists are taken apart, so these are its words.
        """
        operator, _, sides = form[1:-1].partition(" ")
        left, _, right = sides.partition(" ")
        place, other = self._declarations.known.get(left), self._declarations.known.get(right)
        if place is None or operator not in _COMPARISONS:
            return None
        alternatives = _COMPARISONS[_OPPOSITES[operator] if negated else operator]
        if other is None:
            if not is_number(right, form):
                return None
            return [[self._limited(place, right, sign, strict) for sign, strict in all_] for all_ in alternatives]
        if not (place.is_output and other.is_output) or place == other:
            return None
        return [[self._compared(place, other, sign, strict) for sign, strict in all_] for all_ in alternatives]

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
        plain = self._plain(left, right, form)
        if plain is not None:
            return [[self._limited(*plain, sign, strict) for sign, strict in all_] for all_ in alternatives]
        difference = total([self._terms.value(left, form), self._terms.value(right, form).negated()])
        if difference.is_constant():
            check_range((difference.constant,), form)
            return [[]] if any(_all_true(difference.constant, required) for required in alternatives) else []
        return [
            [self._literal(difference if sign > 0 else difference.negated(), strict, form) for sign, strict in all_]
            for all_ in alternatives
        ]

    def _plain(self, left: Form, right: Form, where: Form) -> tuple[Place, str] | None:
        """The variable and the number if one is compared with the other, which most comparisons do."""
        if not (is_word(left) and is_word(right)):
            return None
        place = self._declarations.place(left, where)
        return (place, right) if place is not None and is_number(right, where) else None

    def _limited(self, place: Place, limit: str, sign: int, strict: bool) -> int:
        """The literal that says that ``sign`` times a variable is at most that of the limit, or less if ``strict``."""
        if not place.is_output:
            return self._bound(place.element, sign > 0, Limit.of(limit), strict)
        value = exact(limit)
        self.halfspaces.append(Halfspace({place.element: _SIGNS[sign]}, -value if sign > 0 else value, strict))
        return -len(self.halfspaces)

    def _compared(self, place: Place, other: Place, sign: int, strict: bool) -> int:
        """The literal that says that ``sign`` times a value of a network is at most that of another one, or less."""
        factors = {place.element: _SIGNS[sign], other.element: _SIGNS[-sign]}
        self.halfspaces.append(Halfspace(factors, _ZERO, strict))
        return -len(self.halfspaces)

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

    def _strongest(self, conjunction: Conjunction) -> Conjunction:
        """The literals of a long conjunction without half-spaces that contain another one of it."""
        return self._extreme(conjunction, 1)

    def _weakest(self, alternatives: Conjunction) -> Conjunction:
        """The literals of a long disjunction without half-spaces that another one of it contains."""
        return self._extreme(alternatives, -1)

    def _extreme(self, literals: Conjunction, sign: int) -> Conjunction:
        if len(literals) <= _FEW:
            return literals
        kept: dict[Direction, tuple[tuple[Fraction, bool], int]] = {}
        for literal in literals:
            if literal < 0:
                direction, constant, strict = self._direction(literal)
                rank = sign * constant, strict is (sign > 0)
                if direction not in kept or rank > kept[direction][0]:
                    kept[direction] = rank, literal
        extreme = {literal for _, literal in kept.values()}
        return [literal for literal in dict.fromkeys(literals) if literal >= 0 or literal in extreme]

    def _direction(self, literal: int) -> tuple[Direction, Fraction, bool]:
        """The factors of a half-space up to a positive one, its constant by the same scale, whether it is strict."""
        halfspace = self.halfspaces[-1 - literal]
        factors = sorted(halfspace.coefficients.items())
        scale = abs(factors[0][1])
        if scale == 1:
            return tuple(factors), halfspace.constant, halfspace.strict
        return tuple((i, factor / scale) for i, factor in factors), halfspace.constant / scale, halfspace.strict

    def _term(self, monomial: Monomial) -> int:
        """The number by which half-spaces call a monomial."""
        if len(monomial) == 1 and monomial[0] % 2:
            return monomial[0] // 2
        return -1 - self.others.setdefault(monomial, len(self.others))


def _all_true(difference: Fraction, required: Sequence[tuple[int, bool]]) -> bool:
    return all(sign * difference < 0 if strict else sign * difference <= 0 for sign, strict in required)


@dataclass(slots=True)
class _Open:
    """A conjunction or a disjunction, some of whose operands still wait, the last one first.

    Operands come with whether they are negated and with the list around them. ``deeper`` are parts of the other kind,
    with their place among the parts, which wait until all comparisons are known.
    """

    is_and: bool
    form: Form
    waiting: list[tuple[Form, bool, Form]]
    place: int = 0
    parts: list[Formula] = field(default_factory=list)
    deeper: deque[tuple[Form, bool, int]] = field(default_factory=deque)
    known: list[Form] = field(default_factory=list)
