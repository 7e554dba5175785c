"""What a VNN-LIB file declares: numbered scalars (1.0), or networks with inputs, hidden nodes and outputs (2.0)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from krelax.errors import UnsupportedError
from krelax.problem._forms import Fault, Form, head, is_word, items, quote
from krelax.problem._terms import Place
from krelax.problem.interface import Declared, Kind, Shape, Variable, numbered

_MAX_ELEMENTS = 10_000_000
_MAX_NETWORKS = 200

_SCALAR = re.compile(r"([XYxy])_(0|[1-9][0-9]{0,8})")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SUBSCRIPTED = re.compile(r"([A-Za-z][A-Za-z0-9_]*)[ \t\n]*\[([^\]]*)\]")
_NATURAL = re.compile(r"[0-9]{1,9}")
# Types, and the one type of a network's tensor that they fit; None where they fit every floating-point type.
_SCALAR_TYPES = {"Real": None, "Float": None, "Float32": "float32", "Float64": "float64"}
_TENSOR_TYPES = {
    "Real": None,
    "real": None,
    "float": None,
    "float32": "float32",
    "double": "float64",
    "float64": "float64",
    **{name: name for name in ("float16", "bfloat16", "bool")},
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_KINDS = {"declare-input": Kind.INPUT, "declare-hidden": Kind.HIDDEN, "declare-output": Kind.OUTPUT}
_RELATIONS = ("equal-to", "isomorphic-to")


def _naturals(text: str, where: Form) -> Shape:
    """The comma-separated natural numbers of a shape or subscript."""
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    if not all(_NATURAL.fullmatch(word) for word in words):
        raise Fault(f"{quote(f'[{text}]')} is not a list of natural numbers with commas between", where)
    return tuple(int(word) for word in words)


def _place(variable: Variable, indices: Shape, where: Form) -> Place:
    """The place of the element at ``indices``; raises Fault outside the shape."""
    shape = variable.shape or ()
    inside = len(indices) == len(shape) and all(map(int.__lt__, indices, shape))
    if not inside:
        raise Fault(f"index {list(indices)} is outside {variable.name} of shape {list(shape)}", where)
    flat = 0
    for index, size in zip(indices, shape, strict=True):
        flat = flat * size + index
    return Place(variable.kind is not Kind.INPUT, variable.start + flat)


@dataclass(slots=True)
class Declarations:
    """What is declared so far."""

    scalars: dict[str, Place] = field(default_factory=dict)
    letters: dict[bool, str] = field(default_factory=dict)  # of scalars, by is_output
    elements: dict[bool, str | None] = field(default_factory=dict)  # types of scalars, by is_output
    networks: list[Declared] = field(default_factory=list)
    variables: dict[str, Variable] = field(default_factory=dict)
    # Places that were asked for, by the words; names are declared once, so they stay what they are.
    known: dict[str, Place] = field(default_factory=dict)

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
        """Process the operands of ``(declare-network NAME [RELATION] (declare-input ...) ... (declare-output ...))``.

        Raises Fault for what is not one input or more, hidden nodes, and one output or more, in this order.
        """
        if not operands or not is_word(operands[0]) or not _NAME.fullmatch(operands[0]):
            raise Fault("the network has no name; write (declare-network NAME ...)", where)
        if len(self.networks) >= _MAX_NETWORKS:
            raise Fault(f"more than {_MAX_NETWORKS} networks; split the specification", where, UnsupportedError)
        name = operands[0]
        if name in self.variables or any(name == network.name for network in self.networks):
            raise Fault(f"{name} is declared twice; rename one of the two", where)
        relation: str | None = None
        other: str | None = None
        variables: list[Variable] = []
        for statement in operands[1:]:
            keyword = head(statement)[0]
            if keyword in _RELATIONS:
                if relation or variables:
                    message = f"{keyword} must come first in the declaration of a network, and only once"
                    raise Fault(f"{message}; move or remove it", statement)
                relation, other = keyword, self._related(statement, where)
                continue
            variable = _variable(statement, where if is_word(statement) else statement)
            if variables and list(Kind).index(variables[-1].kind) > list(Kind).index(variable.kind):
                message = (
                    f"{variable.name} comes after {variables[-1].name}; declare inputs, then hidden nodes, outputs"
                )
                raise Fault(message, where if is_word(statement) else statement)
            if variable.name in {v.name for v in (*self.variables.values(), *variables)} | {name}:
                raise Fault(f"{variable.name} is declared twice; rename one of the two", statement)
            variables.append(variable)
        network = Declared(name, tuple(variables), relation, other)
        _check_declared(network, next((n for n in self.networks if n.name == other), None), where)
        self.networks = list(numbered([*self.networks, network]))
        self.variables.update({v.name: v for v in self.networks[-1].variables})

    def _related(self, statement: Form, where: Form) -> str:
        keyword, names = head(statement)
        if len(names) != 1 or not is_word(names[0]):
            raise Fault(f"write ({keyword} NAME) with the name of a network declared before", statement)
        found = next((n for n in self.networks if n.name == names[0]), None)
        if found is None:
            raise Fault(f"{quote(names[0])} in ({keyword} {names[0]}) is no network declared before", statement)
        if found.relation:
            message = f"{names[0]} is itself {found.relation} {found.other}, and such statements do not chain"
            raise Fault(f"{message}; name {found.other} instead", statement)
        return names[0]

    def place(self, word: str, where: Form) -> Place | None:
        """The variable that ``word`` denotes, None if it denotes none."""
        if word in self.known:
            return self.known[word]
        if word in self.scalars:
            found = self.scalars[word]
        else:
            match = _SUBSCRIPTED.fullmatch(word)
            name, subscript = (match[1], match[2]) if match else (word, "")
            variable = self.variables.get(name)
            if variable is None:
                return None
            found = _place(variable, _naturals(subscript, where), where)
        self.known[word] = found
        return found

    def declared(self) -> tuple[Declared, ...]:
        """The networks; raises Fault if there is none, or scalars are not declared whole."""
        if self.networks:
            return tuple(self.networks)
        return numbered([Declared(None, (self._side(Kind.INPUT), self._side(Kind.OUTPUT)))])

    def _side(self, kind: Kind) -> Variable:
        is_output = kind is Kind.OUTPUT
        name = self.letters.get(is_output, "Y" if is_output else "X")
        size = sum(place.is_output is is_output for place in self.scalars.values())
        if not size:
            raise Fault(f"declares no {kind}; declare the variables that the assertions constrain")
        missing = next((i for i in range(size) if f"{name}_{i}" not in self.scalars), None)
        if missing is not None:
            raise Fault(f"{name}_{missing} is not declared; number the {kind}s from 0 without gaps")
        return Variable(name, kind, None, size, self.elements[is_output])


def _variable(statement: Form, where: Form) -> Variable:
    """The variable that a statement in a network's declaration declares; raises Fault if it is no such statement."""
    keyword, operands = head(statement)
    if keyword not in _KINDS:
        message = f"{quote(statement)} in a network declaration is not supported; remove it"
        raise Fault(message, where, UnsupportedError)
    kind = _KINDS[keyword]
    words = [operand if is_word(operand) else "" for operand in operands]
    match = _SUBSCRIPTED.fullmatch(words[1]) if len(words) in (2, 3) else None
    named = words[2:]
    if named == ["initialized"] and kind is Kind.INPUT:
        message = "an input that keeps the value in the network's file (initialized) is not supported"
        raise Fault(f"{message}; leave it out of the declaration", where, UnsupportedError)
    is_hidden = kind is Kind.HIDDEN
    if (
        match is None
        or not _NAME.fullmatch(words[0])
        or len(named) < is_hidden
        or not all(len(w) > 2 and w[0] == w[-1] == '"' for w in named)
    ):
        ending = ' "NODE"' if is_hidden else ""
        raise Fault(f"a tensor must be declared as ({keyword} NAME float32 [SHAPE]{ending})", where)
    if match[1] not in _TENSOR_TYPES:
        known = ", ".join(_TENSOR_TYPES)
        raise Fault(f"element type {match[1]} is not supported; use one of {known}", where, UnsupportedError)
    shape, label = _naturals(match[2], where), _unescaped(named[0][1:-1]) if named else None
    size = math.prod(shape)
    if not 1 <= size <= _MAX_ELEMENTS:
        raise Fault(f"{words[0]} has {size} elements; use 1 to {_MAX_ELEMENTS}", where)
    return Variable(words[0], kind, shape, size, _TENSOR_TYPES[match[1]], label)


def _unescaped(name: str) -> str:
    """A name without the backslashes that stand for others."""
    return re.sub(r'\\(["\\nt])', lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), name)


def _check_declared(network: Declared, other: Declared | None, where: Form) -> None:
    """Raises Fault for a network without an input or an output, some of which only have names in the file, or that is
    not declared like the one that it is related to."""
    for kind in (Kind.INPUT, Kind.OUTPUT):
        if not network.of(kind):
            raise Fault(f"network {network.name} declares no {kind}; declare its inputs and outputs", where)
    ends = network.of(Kind.INPUT, Kind.OUTPUT)
    if len({v.label is None for v in ends}) > 1 and len(ends) > 2:
        message = f"only some inputs and outputs of {network.name} have the name of a node in the file"
        raise Fault(f"{message}; name all of them, or none", where)
    if other is None:
        return
    for one, two in zip(ends, others := other.of(Kind.INPUT, Kind.OUTPUT), strict=False):
        if (one.kind, one.shape, one.element) != (two.kind, two.shape, two.element):
            message = f"{one.name} is not declared like {two.name} of {other.name}, to which {network.name} is related"
            raise Fault(f"{message}; give both the same kind, type and shape", where)
    if len(ends) != len(others):
        message = f"{network.name} has {len(ends)} inputs and outputs, {other.name}, to which it is related, has"
        raise Fault(f"{message} {len(others)}; declare the same", where)
