"""Numbers and polynomials over declared variables, in exact arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import NamedTuple

from krelax.errors import UnsupportedError
from krelax.problem._forms import Fault, Form, head, is_word, quote
from krelax.problem.query import Monomial

_MAX_WORD = 1000
_MAX_EXPONENT = 400
_MAX_FRACTION_BITS = 20_000
_MAX_FLOAT = 2.0**1023
_MAX_MONOMIALS = 200_000
_MAX_DEGREE = 32

_ZERO, _ONE = Fraction(0), Fraction(1)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?")


@dataclass(slots=True)
class Polynomial:
    """A sum of products of variables, exact: a factor for each monomial, none of them zero. Sums are made in place.

    A monomial is the codes of its variables (`Place.code`) in increasing order; the empty one is the constant.
    """

    terms: dict[Monomial, Fraction]

    @property
    def constant(self) -> Fraction:
        """The part without a variable."""
        return self.terms.get((), _ZERO)

    def negated(self) -> Polynomial:
        """The same with the other sign."""
        return Polynomial({monomial: -value for monomial, value in self.terms.items()})

    def is_constant(self) -> bool:
        """Whether no variable is left in it."""
        return not self.terms or (len(self.terms) == 1 and () in self.terms)

    def add(self, term: Polynomial) -> None:
        """Add another one to this one; monomials that cancel are gone."""
        sums = self.terms
        for monomial, value in term.terms.items():
            result = sums[monomial] + value if monomial in sums else value
            if result:
                sums[monomial] = result
            else:
                sums.pop(monomial, None)


def total(terms: Sequence[Polynomial]) -> Polynomial:
    """The sum of the terms, which becomes the largest one of them."""
    largest = max(range(len(terms)), key=lambda i: len(terms[i].terms))
    for i, term in enumerate(terms):
        if i != largest:
            terms[largest].add(term)
    return terms[largest]


def check_range(values: Iterable[Fraction], where: Form) -> None:
    """Raise Fault unless all values are below 2**1023 and have a manageable exact form."""
    for value in values:
        above, below = value.numerator.bit_length(), value.denominator.bit_length()
        if above - below >= 1023 or max(above, below) > _MAX_FRACTION_BITS:
            raise Fault("a number beyond the float64 range; rescale the constraint", where)


def is_number(word: str, where: Form) -> bool:
    """Whether a word is a decimal number; raises Fault for one that is out of range."""
    if len(word) > _MAX_WORD:
        raise Fault(f"a word of {len(word)} characters; shorten it to at most {_MAX_WORD}", where)
    match = _NUMBER.fullmatch(word)
    if match is None:
        return False
    if match[1] and abs(int(match[1])) > _MAX_EXPONENT:
        raise Fault(f"{quote(word)} has an exponent beyond {_MAX_EXPONENT}; use a smaller one", where)
    if abs(float(word)) >= _MAX_FLOAT:
        raise Fault("a number beyond the float64 range; rescale the constraint", where)
    return True


def number(word: str, where: Form) -> Fraction | None:
    """The exact value of a decimal number, None if ``word`` is not one; raises Fault out of range."""
    return exact(word) if is_number(word, where) else None


def exact(word: str) -> Fraction:
    """The value of a decimal number."""
    return Fraction(*Decimal(word).as_integer_ratio())


class Place(NamedTuple):
    """A scalar: whether it is a value that a network computes, rather than an input, and its number among those."""

    is_output: bool
    element: int

    @property
    def code(self) -> int:
        """The number of the variable in a monomial."""
        return 2 * self.element + self.is_output


class Terms:
    """Evaluates terms over the variables that ``place`` knows; `check` ends what takes too long."""

    def __init__(self, place: Callable[[str, Form], Place | None], check: Callable[[], None]) -> None:
        self._place = place
        self._check = check

    def value(self, form: Form, where: Form) -> Polynomial:
        """The value of a term, however deeply it is nested; ``where`` is the list around it. Raises Fault."""
        if is_word(form):
            return self._atom(form, where)
        open_ = [_Open.of(form)]
        while True:
            innermost = open_[-1]
            if innermost.waiting:
                operand = innermost.waiting.pop()
                if is_word(operand):
                    innermost.values.append(self._atom(operand, innermost.form))
                else:
                    open_.append(_Open.of(operand))
                continue
            self._check()
            value = innermost.value()
            open_.pop()
            if not open_:
                return value
            open_[-1].values.append(value)

    def _atom(self, word: str, where: Form) -> Polynomial:
        place = self._place(word, where)
        if place is not None:
            return Polynomial({(place.code,): _ONE})
        value = number(word, where)
        if value is None:
            message = f"{quote(word)} is neither a declared variable nor a finite decimal number"
            raise Fault(f"{message}; declare or correct it", where)
        return Polynomial({(): value} if value else {})


@dataclass(slots=True)
class _Open:
    """A sum, difference or product, some of whose operands still wait to be evaluated, the first one last."""

    form: Form
    operator: str
    waiting: list[Form]
    values: list[Polynomial]

    @classmethod
    def of(cls, form: Form) -> _Open:
        operator, operands = head(form)
        if operator not in ("+", "-", "*") or not operands:
            raise Fault(f"{quote(form)} is not a term; use numbers, variables, +, - and *", form)
        return cls(form, operator, list(reversed(operands)), [])

    def value(self) -> Polynomial:
        first, *rest = self.values
        if self.operator == "+":
            return total(self.values)
        if self.operator == "-":
            return total([first, *(term.negated() for term in rest)]) if rest else first.negated()
        for factor in rest:
            first = _multiplied(first, factor, self.form)
        return first


def _multiplied(left: Polynomial, right: Polynomial, where: Form) -> Polynomial:
    if len(left.terms) * len(right.terms) > _MAX_MONOMIALS:
        message = f"a product of {len(left.terms)} by {len(right.terms)} terms; at most {_MAX_MONOMIALS} terms in all"
        raise Fault(f"{message} are supported, so state its factors by themselves", where, UnsupportedError)
    result: dict[Monomial, Fraction] = {}
    for (one, a), (other, b) in product(left.terms.items(), right.terms.items()):
        monomial = tuple(sorted(one + other)) if one and other else one or other
        result[monomial] = result.get(monomial, _ZERO) + a * b
    if max(map(len, result), default=0) > _MAX_DEGREE:
        message = f"a polynomial of degree {max(map(len, result))}; at most {_MAX_DEGREE} is supported"
        raise Fault(f"{message}, so use a lower one", where, UnsupportedError)
    check_range(result.values(), where)
    return Polynomial({monomial: value for monomial, value in result.items() if value})
