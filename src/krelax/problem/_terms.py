"""Numbers and linear terms over declared variables, in exact arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from krelax.errors import UnsupportedError
from krelax.problem._forms import Fault, Form, head, is_word, quote

_MAX_WORD = 1000
_MAX_EXPONENT = 400
_MAX_FRACTION_BITS = 20_000
_MAX_FLOAT = 2.0**1023

_ZERO, _ONE = Fraction(0), Fraction(1)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?")


@dataclass(slots=True)
class Linear:
    """``sum_i inputs[i] * x_i + sum_j outputs[j] * y_j + constant``; sums of terms are made in place."""

    inputs: dict[int, Fraction]
    outputs: dict[int, Fraction]
    constant: Fraction

    def negated(self) -> Linear:
        """The same with the other sign."""
        inputs = {i: -value for i, value in self.inputs.items()}
        return Linear(inputs, {j: -value for j, value in self.outputs.items()}, -self.constant)

    def scaled(self, factor: Fraction) -> Linear:
        """The product with a number."""
        inputs = {i: factor * value for i, value in self.inputs.items()}
        outputs = {j: factor * value for j, value in self.outputs.items()}
        return Linear(inputs, outputs, factor * self.constant)

    def is_constant(self) -> bool:
        """Whether no variable is left in it."""
        return not (self.inputs or self.outputs)

    def size(self) -> int:
        """How many variables it has."""
        return len(self.inputs) + len(self.outputs)

    def add(self, term: Linear) -> None:
        """Add another one to this one; variables that cancel are gone."""
        if term.constant:
            self.constant += term.constant
        for sums, addends in ((self.inputs, term.inputs), (self.outputs, term.outputs)):
            for index, value in addends.items():
                result = sums[index] + value if index in sums else value
                if result:
                    sums[index] = result
                else:
                    sums.pop(index, None)


def total(terms: Sequence[Linear]) -> Linear:
    """The sum of the terms, which becomes the largest one of them."""
    largest = max(range(len(terms)), key=lambda i: terms[i].size())
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
    return Fraction(*Decimal(word).as_integer_ratio()) if is_number(word, where) else None


class Place(NamedTuple):
    """A scalar input or output: which of the two, and its number in row-major order."""

    is_output: bool
    element: int


class Terms:
    """Evaluates terms over the variables that ``place`` knows; `check` ends what takes too long."""

    def __init__(self, place: Callable[[str, Form], Place | None], check: Callable[[], None]) -> None:
        self._place = place
        self._check = check

    def value(self, form: Form, where: Form) -> Linear:
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

    def _atom(self, word: str, where: Form) -> Linear:
        place = self._place(word, where)
        if place is not None:
            one = {place.element: _ONE}
            return Linear({}, one, _ZERO) if place.is_output else Linear(one, {}, _ZERO)
        value = number(word, where)
        if value is None:
            message = f"{quote(word)} is neither a declared variable nor a finite decimal number"
            raise Fault(f"{message}; declare or correct it", where)
        return Linear({}, {}, value)


@dataclass(slots=True)
class _Open:
    """A sum, difference or product, some of whose operands still wait to be evaluated, the first one last."""

    form: Form
    operator: str
    waiting: list[Form]
    values: list[Linear]

    @classmethod
    def of(cls, form: Form) -> _Open:
        operator, operands = head(form)
        if operator not in ("+", "-", "*") or not operands:
            raise Fault(f"{quote(form)} is not a term; use numbers, variables, +, - and *", form)
        return cls(form, operator, list(reversed(operands)), [])

    def value(self) -> Linear:
        first, *rest = self.values
        if self.operator == "+":
            return total(self.values)
        if self.operator == "-":
            return total([first, *(term.negated() for term in rest)]) if rest else first.negated()
        for factor in rest:
            first = _multiplied(first, factor, self.form)
        return first


def _multiplied(left: Linear, right: Linear, where: Form) -> Linear:
    if left.is_constant():
        left, right = right, left
    if not right.is_constant():
        message = "a product of two variables is not supported; only linear terms are"
        raise Fault(f"{message}, so bound the factors by constants instead", where, UnsupportedError)
    if not right.constant:
        return Linear({}, {}, _ZERO)
    result = left.scaled(right.constant)
    check_range((*result.inputs.values(), *result.outputs.values(), result.constant), where)
    return result
