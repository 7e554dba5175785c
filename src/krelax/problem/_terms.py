"""Declared variables and linear terms over them, in exact arithmetic."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from krelax.errors import UnsupportedError
from krelax.problem._forms import Fault, Form, head, is_word, quote
from krelax.problem.query import Shape

_MAX_ELEMENTS = 10_000_000
_MAX_WORD = 1000
_MAX_EXPONENT = 400
_MAX_FRACTION_BITS = 20_000

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?")
_SCALAR = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SUBSCRIPTED = re.compile(r"([A-Za-z][A-Za-z0-9_]*)\s*\[([^\]]*)\]")
_NATURAL = re.compile(r"[0-9]{1,9}")
_FLOATING_TYPES = frozenset({"Real", "real", "float", "float32", "double", "float64"})


@dataclass(slots=True)
class Linear:
    """``sum_i inputs[i] * x_i + sum_j outputs[j] * y_j + constant``; never changed once shared."""

    inputs: dict[int, Fraction]
    outputs: dict[int, Fraction]
    constant: Fraction

    def scaled(self, factor: Fraction | int) -> Linear:
        inputs = {i: factor * value for i, value in self.inputs.items()}
        outputs = {j: factor * value for j, value in self.outputs.items()}
        return Linear(inputs, outputs, factor * self.constant)

    def is_constant(self) -> bool:
        return not (self.inputs or self.outputs)


def total(terms: Iterable[Linear]) -> Linear:
    """The sum of the terms, without the variables that cancel."""
    result = Linear({}, {}, Fraction(0))
    for term in terms:
        result.constant += term.constant
        for sums, addends in ((result.inputs, term.inputs), (result.outputs, term.outputs)):
            for index, value in addends.items():
                sums[index] = sums[index] + value if index in sums else value
    for sums in (result.inputs, result.outputs):
        for index in [index for index, value in sums.items() if not value]:
            del sums[index]
    return result


def _multiplied(left: Linear, right: Linear, where: Form) -> Linear:
    if left.is_constant():
        left, right = right, left
    if not right.is_constant():
        raise Fault("a product of two variables; only linear terms are supported", where, UnsupportedError)
    result = left.scaled(right.constant)
    check_range((*result.inputs.values(), *result.outputs.values(), result.constant), where)
    return result


def check_range(values: Iterable[Fraction], where: Form) -> None:
    """Raise Fault unless all values are below 2**1023 and have a manageable exact form."""
    for value in values:
        above, below = value.numerator.bit_length(), value.denominator.bit_length()
        if above - below >= 1023 or max(above, below) > _MAX_FRACTION_BITS:
            raise Fault("a number beyond the float64 range; rescale the constraint", where)


def number(word: str, where: Form) -> Fraction | None:
    """The exact value of a decimal number, None if ``word`` is not one; raises Fault out of range."""
    if len(word) > _MAX_WORD:
        raise Fault(f"a word of {len(word)} characters; shorten it to at most {_MAX_WORD}", where)
    match = _NUMBER.fullmatch(word)
    if match is None:
        return None
    if match[1] and abs(int(match[1])) > _MAX_EXPONENT:
        raise Fault(f"{quote(word)} has an exponent beyond {_MAX_EXPONENT}; use a smaller one", where)
    value = Fraction(Decimal(word))
    check_range((value,), where)
    return value


class Place(NamedTuple):
    """A scalar input or output: which of the two, and its number in row-major order."""

    is_output: bool
    element: int


def _naturals(text: str, where: Form) -> Shape:
    """The comma-separated natural numbers of a shape or subscript."""
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    if not all(_NATURAL.fullmatch(word) for word in words):
        raise Fault(f"{quote(f'[{text}]')} is not a list of natural numbers with commas between", where)
    return tuple(int(word) for word in words)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A declared tensor of a 2.0 file."""

    name: str
    is_output: bool
    shape: Shape

    def place(self, indices: Shape, where: Form) -> Place:
        """The place of the element at ``indices``; raises Fault outside the shape."""
        inside = len(indices) == len(self.shape) and all(map(int.__lt__, indices, self.shape))
        if not inside:
            raise Fault(f"index {list(indices)} is outside {self.name} of shape {list(self.shape)}", where)
        flat = 0
        for index, size in zip(indices, self.shape, strict=True):
            flat = flat * size + index
        return Place(self.is_output, flat)


@dataclass(slots=True)
class Declarations:
    """What is declared so far: numbered scalars (1.0), or one network with two tensors (2.0)."""

    scalars: dict[str, Place] = field(default_factory=dict)
    tensors: dict[bool, _Tensor] = field(default_factory=dict)  # by is_output
    network: str | None = None

    def declare_scalar(self, operands: Sequence[Form], where: Form) -> None:
        """Process the operands of ``(declare-const X_0 Real)``."""
        if len(operands) != 2 or operands[1] != "Real":
            raise Fault("a variable must be declared as (declare-const X_0 Real)", where)
        name = str(operands[0])
        match = _SCALAR.fullmatch(name)
        if match is None:
            message = f"variable {quote(name)}: call inputs X_0, X_1, ... and outputs Y_0, Y_1, ..."
            raise Fault(message, where, UnsupportedError)
        if name in self.scalars:
            raise Fault(f"{name} is declared twice; remove one of the declarations", where)
        self.scalars[name] = Place(match[1] == "Y", int(match[2]))

    def declare_network(self, operands: Sequence[Form], where: Form) -> None:
        """Process the operands of ``(declare-network NAME (declare-input ...) (declare-output ...))``."""
        if self.network is not None:
            raise Fault("several networks are not supported; declare one", where, UnsupportedError)
        if not operands or not is_word(operands[0]):
            raise Fault("the network has no name; write (declare-network NAME ...)", where)
        self.network = operands[0]
        for statement in operands[1:]:
            self._declare_tensor(statement, where if is_word(statement) else statement)

    def _declare_tensor(self, statement: Form, where: Form) -> None:
        keyword, operands = head(statement)
        if keyword not in ("declare-input", "declare-output"):
            message = f"{quote(statement)} in a network declaration is not supported; remove it"
            raise Fault(message, where, UnsupportedError)
        words = [str(operand) for operand in operands]
        match = _SUBSCRIPTED.fullmatch(words[1]) if len(words) in (2, 3) else None
        if match is None or not _NAME.fullmatch(words[0]) or not all(w.startswith('"') for w in words[2:]):
            raise Fault(f"a tensor must be declared as ({keyword} NAME float32 [SHAPE])", where)
        if match[1] not in _FLOATING_TYPES:
            raise Fault(f"element type {match[1]} is not supported; use float32", where, UnsupportedError)
        self._add(_Tensor(words[0], keyword == "declare-output", _naturals(match[2], where)), where)

    def _add(self, tensor: _Tensor, where: Form) -> None:
        size = math.prod(tensor.shape)
        if any(tensor.name == other.name for other in self.tensors.values()):
            raise Fault(f"{tensor.name} is declared twice; rename one of the two", where)
        if tensor.is_output in self.tensors:
            kind = "outputs" if tensor.is_output else "inputs"
            raise Fault(f"several {kind} are not supported; declare one", where, UnsupportedError)
        if not 1 <= size <= _MAX_ELEMENTS:
            raise Fault(f"{tensor.name} has {size} elements; use 1 to {_MAX_ELEMENTS}", where)
        self.tensors[tensor.is_output] = tensor

    def place(self, word: str, where: Form) -> Place | None:
        """The variable that ``word`` denotes, None if it denotes none."""
        if word in self.scalars:
            return self.scalars[word]
        match = _SUBSCRIPTED.fullmatch(word)
        name, subscript = (match[1], match[2]) if match else (word, "")
        for tensor in self.tensors.values():
            if tensor.name == name:
                return tensor.place(_naturals(subscript, where), where)
        return None

    def term(self, form: Form, where: Form) -> Linear:
        """The value of an arithmetic term; ``where`` is the list around it. Raises Fault."""
        if is_word(form):
            return self._atom(form, where)
        operator, operands = head(form)
        if operator not in ("+", "-", "*") or not operands:
            raise Fault(f"{quote(form)} is not a term; use numbers, variables, +, - and *", form)
        first, *rest = [self.term(operand, form) for operand in operands]
        if operator == "+":
            return total((first, *rest))
        if operator == "-":
            return total((first, *(term.scaled(-1) for term in rest))) if rest else first.scaled(-1)
        for factor in rest:
            first = _multiplied(first, factor, form)
        return first

    def _atom(self, word: str, where: Form) -> Linear:
        value = number(word, where)
        if value is not None:
            return Linear({}, {}, value)
        place = self.place(word, where)
        if place is None:
            message = f"{quote(word)} is neither a declared variable nor a finite decimal number"
            raise Fault(f"{message}; declare or correct it", where)
        one = {place.element: Fraction(1)}
        return Linear({}, one, Fraction(0)) if place.is_output else Linear(one, {}, Fraction(0))

    def side(self, is_output: bool) -> tuple[str, Shape | None, int]:
        """Name, shape and number of elements of the input or the output."""
        if is_output in self.tensors:
            tensor = self.tensors[is_output]
            return tensor.name, tensor.shape, math.prod(tensor.shape)
        name, what = ("Y", "output") if is_output else ("X", "input")
        size = sum(scalar.startswith(name) for scalar in self.scalars)
        if not size:
            raise Fault(f"declares no {what}; declare the variables that the assertions constrain")
        missing = next((i for i in range(size) if f"{name}_{i}" not in self.scalars), None)
        if missing is not None:
            raise Fault(f"{name}_{missing} is not declared; number the {what}s from 0 without gaps")
        return name, None, size
