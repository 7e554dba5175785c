"""What a VNN-LIB file declares: numbered scalars (1.0), or one network with an input and an output (2.0)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from krelax.errors import UnsupportedError
from krelax.problem._forms import Fault, Form, head, is_word, items, quote
from krelax.problem._terms import Place
from krelax.problem.query import Shape

_MAX_ELEMENTS = 10_000_000

_SCALAR = re.compile(r"([XYxy])_(0|[1-9][0-9]{0,8})")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SUBSCRIPTED = re.compile(r"([A-Za-z][A-Za-z0-9_]*)[ \t\n]*\[([^\]]*)\]")
_NATURAL = re.compile(r"[0-9]{1,9}")
# Types, and the one type of a network's input that they fit; None where they fit every floating-point type.
_SCALAR_TYPES = {"Real": None, "Float": None, "Float32": "float32", "Float64": "float64"}
_TENSOR_TYPES = {
    "Real": None,
    "real": None,
    "float": None,
    "float32": "float32",
    "double": "float64",
    "float64": "float64",
}


class Tensor(NamedTuple):
    """A declared input or output.

    ``shape`` is None for numbered scalars, ``element`` is the only type of a network that fits (None: any), and
    ``label`` is what the network's file calls it, where the declaration says so.
    """

    name: str
    shape: Shape | None
    size: int
    element: str | None = None
    label: str | None = None


def _naturals(text: str, where: Form) -> Shape:
    """The comma-separated natural numbers of a shape or subscript."""
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    if not all(_NATURAL.fullmatch(word) for word in words):
        raise Fault(f"{quote(f'[{text}]')} is not a list of natural numbers with commas between", where)
    return tuple(int(word) for word in words)


def _place(tensor: Tensor, is_output: bool, indices: Shape, where: Form) -> Place:
    """The place of the element at ``indices``; raises Fault outside the shape."""
    shape = tensor.shape or ()
    inside = len(indices) == len(shape) and all(map(int.__lt__, indices, shape))
    if not inside:
        raise Fault(f"index {list(indices)} is outside {tensor.name} of shape {list(shape)}", where)
    flat = 0
    for index, size in zip(indices, shape, strict=True):
        flat = flat * size + index
    return Place(is_output, flat)


@dataclass(slots=True)
class Declarations:
    """What is declared so far."""

    scalars: dict[str, Place] = field(default_factory=dict)
    letters: dict[bool, str] = field(default_factory=dict)  # of scalars, by is_output
    elements: dict[bool, str | None] = field(default_factory=dict)  # types of scalars, by is_output
    tensors: dict[bool, Tensor] = field(default_factory=dict)  # by is_output
    network: str | None = None

    def declare_scalar(self, keyword: str, operands: Sequence[Form], where: Form) -> None:
        """Process the operands of ``(declare-const X_0 Real)`` or ``(declare-fun X_0 () Real)``."""
        plain = [o for o in operands if is_word(o)]
        is_function = keyword == "declare-fun"
        right = len(plain) == 2 and len(operands) == 2 + is_function
        if is_function and right:
            right = not is_word(operands[1]) and not items(operands[1])
        if not right or plain[1] not in _SCALAR_TYPES:
            example = "declare-fun X_0 ()" if is_function else "declare-const X_0"
            raise Fault(f"a variable must be declared as ({example} Real)", where)
        name, kind = plain
        match = _SCALAR.fullmatch(name)
        if match is None:
            message = f"variable {quote(name)}: call inputs X_0, X_1, ... and outputs Y_0, Y_1, ..."
            raise Fault(message, where, UnsupportedError)
        if name in self.scalars:
            raise Fault(f"{name} is declared twice; remove one of the declarations", where)
        is_output = match[1] in "Yy"
        if self.letters.setdefault(is_output, match[1]) != match[1]:
            raise Fault(f"{name} among variables called {self.letters[is_output]}_...; use one spelling", where)
        if self.elements.setdefault(is_output, _SCALAR_TYPES[kind]) != _SCALAR_TYPES[kind]:
            raise Fault(f"{name} has another type than those before it; use one", where, UnsupportedError)
        self.scalars[name] = Place(is_output, int(match[2]))

    def declare_network(self, operands: Sequence[Form], where: Form) -> None:
        """Process the operands of ``(declare-network NAME (declare-input ...) (declare-output ...))``."""
        if self.network is not None:
            raise Fault("several networks are not supported; declare one", where, UnsupportedError)
        if not operands or not is_word(operands[0]) or not _NAME.fullmatch(operands[0]):
            raise Fault("the network has no name; write (declare-network NAME ...)", where)
        self.network = operands[0]
        for statement in operands[1:]:
            self._declare_tensor(statement, where if is_word(statement) else statement)

    def _declare_tensor(self, statement: Form, where: Form) -> None:
        keyword, operands = head(statement)
        if keyword not in ("declare-input", "declare-output"):
            message = f"{quote(statement)} in a network declaration is not supported; remove it"
            raise Fault(message, where, UnsupportedError)
        words = [operand if is_word(operand) else "" for operand in operands]
        match = _SUBSCRIPTED.fullmatch(words[1]) if len(words) in (2, 3) else None
        named = words[2:]
        if match is None or not _NAME.fullmatch(words[0]) or not all(len(w) > 1 and w[0] == '"' for w in named):
            raise Fault(f"a tensor must be declared as ({keyword} NAME float32 [SHAPE])", where)
        if match[1] not in _TENSOR_TYPES:
            raise Fault(f"element type {match[1]} is not supported; use float32", where, UnsupportedError)
        shape, own = _naturals(match[2], where), named[0][1:-1] if named else None
        tensor = Tensor(words[0], shape, math.prod(shape), _TENSOR_TYPES[match[1]], own)
        self._add(tensor, keyword == "declare-output", where)

    def _add(self, tensor: Tensor, is_output: bool, where: Form) -> None:
        if any(tensor.name == other.name for other in self.tensors.values()):
            raise Fault(f"{tensor.name} is declared twice; rename one of the two", where)
        if is_output in self.tensors:
            kind = "outputs" if is_output else "inputs"
            raise Fault(f"several {kind} are not supported; declare one", where, UnsupportedError)
        if not 1 <= tensor.size <= _MAX_ELEMENTS:
            raise Fault(f"{tensor.name} has {tensor.size} elements; use 1 to {_MAX_ELEMENTS}", where)
        self.tensors[is_output] = tensor

    def place(self, word: str, where: Form) -> Place | None:
        """The variable that ``word`` denotes, None if it denotes none."""
        if word in self.scalars:
            return self.scalars[word]
        match = _SUBSCRIPTED.fullmatch(word)
        name, subscript = (match[1], match[2]) if match else (word, "")
        for is_output, tensor in self.tensors.items():
            if tensor.name == name:
                return _place(tensor, is_output, _naturals(subscript, where), where)
        return None

    def side(self, is_output: bool) -> Tensor:
        """The input or the output; raises Fault if it is not declared whole."""
        if is_output in self.tensors:
            return self.tensors[is_output]
        name, what = ("Y", "output") if is_output else ("X", "input")
        name = self.letters.get(is_output, name)
        size = sum(place.is_output is is_output for place in self.scalars.values())
        if not size:
            raise Fault(f"declares no {what}; declare the variables that the assertions constrain")
        missing = next((i for i in range(size) if f"{name}_{i}" not in self.scalars), None)
        if missing is not None:
            raise Fault(f"{name}_{missing} is not declared; number the {what}s from 0 without gaps")
        return Tensor(name, None, size, self.elements[is_output])
