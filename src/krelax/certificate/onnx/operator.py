"""How operators are read: the forms that each has had, its operands, and the nodes that its value is made of.

A tensor is a constant array of its element type, or a value that depends on the input: a node of the network, a shape,
and an element type. The functions that read operators are collected in `OPERATORS`, by the operators' names, each with
the forms that the operator has had: what is not listed there is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.linear import Index, Map
from krelax.certificate.kernel.network import Affine
from krelax.certificate.onnx.builder import Builder, full
from krelax.certificate.onnx.graph import Call
from krelax.certificate.onnx.tensors import MOST_AXES, MOST_NUMBERS, Shape
from krelax.errors import InputError, UnsupportedError

# No limit to the number of operands or outputs.
MANY = 1 << 30
_INT64 = np.dtype(np.int64)


@dataclass
class Value:
    """A tensor that depends on the input: a node, its shape, and its element type."""

    node: int
    shape: Shape
    dtype: np.dtype[Any]


@dataclass
class Wide:
    """A constant that its element type need not hold: dequantised weights, and what is computed of constants. It is
    within `error` of the numbers, in float64, or they are exact. It may be moved about, computed with, and be the
    constant factor or summand of something, and nothing else."""

    numbers: NDArray[np.float64]
    dtype: np.dtype[Any]
    error: NDArray[np.float64] | None = None

    @property
    def shape(self) -> Shape:
        return self.numbers.shape


@dataclass
class Endless:
    """A constant with minus infinities in it: a mask, which may be moved about, and be added to something or chosen
    right before a softmax."""

    numbers: NDArray[np.float64]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> Shape:
        return self.numbers.shape


@dataclass
class Hidden:
    """A value where `kept`, and minus infinity elsewhere: for a softmax alone."""

    value: Value
    kept: NDArray[np.bool_]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.value.dtype

    @property
    def shape(self) -> Shape:
        return self.value.shape


Tensor = Value | NDArray[Any]
Everything = Tensor | Wide | Endless | Hidden


@dataclass(frozen=True)
class Attribute:
    """An attribute: the name of its type, what it is if it is left out, and the values that are read, None for all."""

    kind: str
    default: Any = None
    allowed: frozenset[Any] | None = None


INT, INTS, FLOAT, FLOATS = Attribute("int"), Attribute("ints"), Attribute("float"), Attribute("floats")
TENSOR, STRINGS = Attribute("tensor"), Attribute("strings")
FLAG = Attribute("int", 0, frozenset({0, 1}))
ON = Attribute("int", 1, frozenset({0, 1}))


def integer(default: int) -> Attribute:
    return Attribute("int", default)


def real(default: float) -> Attribute:
    """A number of type float32, and so is its default."""
    return Attribute("float", np.float32(default))


def only(value: int) -> Attribute:
    return Attribute("int", value, frozenset({value}))


def text(*allowed: str) -> Attribute:
    """Text; the first one is the default."""
    return Attribute("string", allowed[0], frozenset(allowed))


@dataclass(frozen=True)
class Form:
    """What an operator looks like from version `since` of the operator set on: how many operands and outputs it has,
    and its attributes."""

    since: int
    operands: tuple[int, int]
    attributes: dict[str, Attribute]
    outputs: tuple[int, int] = (1, 1)


def form(since: int, least: int, most: int | None = None, outputs: int = 1, /, **attributes: Attribute) -> Form:
    """A form with `least` to `most` operands and up to so many outputs."""
    return Form(since, (least, least if most is None else most), attributes, (1, outputs))


@dataclass(frozen=True)
class Operator:
    """How an operator is read, and its forms, the oldest first."""

    read: Callable[[Context], Everything | Sequence[Everything | None]]
    forms: tuple[Form, ...]

    def form(self, call: Call, version: int) -> Form:
        """The form of a call, which must be one that is listed."""
        forms = [f for f in self.forms if f.since <= version]
        if not forms:
            raise UnsupportedError(f"not in version {version} of the operator set")
        found = forms[-1]
        for what, count, (least, most) in (
            ("operands", len(call.inputs), found.operands),
            ("outputs", len(call.outputs), found.outputs),
        ):
            if not least <= count <= most:
                raise UnsupportedError(f"{count} {what} in version {version} of the operator set")
        for name, (kind, value) in call.attributes.items():
            known = found.attributes.get(name)
            if known is None or known.kind != kind:
                raise UnsupportedError(f"attribute {name!r} of type {kind} in version {version} of the operator set")
            if known.allowed is not None and value not in known.allowed:
                raise UnsupportedError(f"attribute {name} = {value!r}")
        return found


OPERATORS: dict[str, Operator] = {}


def reads(*names: str, forms: Sequence[Form]) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        OPERATORS.update(dict.fromkeys(names, Operator(function, tuple(forms))))
        return function

    return register


@dataclass
class Context:
    """A call with its operands, and the form that it has."""

    builder: Builder
    call: Call
    operands: list[Everything | None]
    version: int
    form: Form

    def get(self, name: str) -> Any:
        """An attribute, or its default; None where this version has no such attribute."""
        if name in self.call.attributes:
            return self.call.attributes[name][1]
        return self.form.attributes[name].default if name in self.form.attributes else None

    def operand(self, place: int) -> Tensor:
        """An operand that must be there."""
        x = self.given(place)
        if isinstance(x, Wide):
            raise UnsupportedError(f"operand {place}, a constant beyond its type where it is no factor and no summand")
        return x

    def given(self, place: int) -> Tensor | Wide:
        """An operand that must be there, dequantised or not."""
        x = self.whole(place)
        if isinstance(x, Endless | Hidden):
            raise UnsupportedError("minus infinity, which only a softmax that follows at once takes away")
        return x

    def whole(self, place: int) -> Everything:
        """The same, perhaps with minus infinities."""
        x = self.operands[place] if place < len(self.operands) else None
        if x is None:
            raise InputError(f"operand {place} is missing")
        return x

    def shape(self, place: int) -> Shape:
        return self.whole(place).shape

    def value(self, place: int = 0) -> Value:
        """An operand that depends on the input."""
        x = self.operand(place)
        if not isinstance(x, Value):
            raise UnsupportedError(f"operand {place} is constant where an activation is expected")
        return x

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type of the operands that depend on the input, which must be one."""
        kinds = {x.dtype for x in self.operands if isinstance(x, Value)}
        if len(kinds) != 1:
            raise InputError(f"operands of types {', '.join(sorted(map(str, kinds)))}")
        return kinds.pop()

    def constant(self, place: int, *types: np.dtype[Any]) -> NDArray[Any] | None:
        """A constant operand of one of some element types, None if there is none."""
        x = self.operands[place] if place < len(self.operands) else None
        if isinstance(x, Value | Wide | Endless | Hidden):
            raise UnsupportedError(f"operand {place} is not a constant of numbers of the file")
        if x is not None and x.dtype not in types:
            raise InputError(f"operand {place} of type {x.dtype}, not {' or '.join(map(str, types))}")
        return x

    def factor(self, place: int, optional: bool = False) -> Any:
        """A constant operand of the type of the others, in float64, or an enclosure; None only if it may be missing,
        and is."""
        wide = self.operands[place] if place < len(self.operands) else None
        if not isinstance(wide, Wide) or wide.error is None:
            return self.weight(place, optional)
        if wide.dtype != self.dtype:
            raise InputError(f"operand {place} of type {wide.dtype}, not {self.dtype}")
        return wide

    def weight(self, place: int, optional: bool = False) -> Any:
        """A constant operand of the type of the others, in float64; None only if it may be missing, and is."""
        wide = self.operands[place] if place < len(self.operands) else None
        if isinstance(wide, Wide):
            if wide.dtype != self.dtype:
                raise InputError(f"operand {place} of type {wide.dtype}, not {self.dtype}")
            if wide.error is not None:
                raise UnsupportedError(f"operand {place}, a computed constant that is rounded; fold it when exporting")
            return wide.numbers
        x = self.constant(place, self.dtype)
        if x is None and not optional:
            raise InputError(f"operand {place} is missing")
        return None if x is None else x.astype(np.float64)

    def scalar(self, place: int) -> float | None:
        """A constant operand of one number, of the type of the others."""
        x = self.weight(place, optional=True)
        if x is not None and x.shape not in {(), (1,)}:
            raise UnsupportedError(f"operand {place} of shape {list(x.shape)}, not one number")
        return None if x is None else float(x.item())

    def integers(self, name: str, place: int, *types: np.dtype[Any]) -> list[int] | None:
        """Integers given as an attribute, or (in later versions) as an operand of one axis."""
        if name in self.form.attributes:
            given: list[int] | None = self.get(name)
            return given
        x = self.constant(place, *(types or (_INT64,)))
        if x is not None and x.ndim != 1:
            raise UnsupportedError(f"operand {place} of shape {list(x.shape)}, not of one axis")
        return None if x is None else [int(i) for i in x]

    def affine(self, x: Sequence[Value], maps: Sequence[Map], shape: Shape, bias: Any = None, **more: Any) -> Value:
        """The sum of maps of some values, and a bias that is broadcast to the shape."""
        check_size(shape)
        size = more.pop("bias_size", bias)
        flat, largest = (None if b is None else full(b, shape) for b in (bias, size))
        largest = None if largest is None else np.abs(largest)
        node = Affine(tuple(v.node for v in x), tuple(maps), prod(shape), flat, largest, **more)
        return Value(self.builder.add(node), shape, x[0].dtype)

    def moved(self, index: Index, x: Value) -> Value:
        """Entries of a value, at an array of their numbers."""
        check_size(index.shape)
        return Value(self.builder.pick(x.node, index), tuple(index.shape), x.dtype)


def check_size(shape: Shape) -> None:
    """Raises UnsupportedError for a shape without numbers, or of too many, or of too many axes."""
    if not 0 < prod(shape) <= MOST_NUMBERS or len(shape) > MOST_AXES:
        raise UnsupportedError(f"a tensor of shape {list(shape)}")


def numbers(shape: Shape) -> Index:
    """The numbers of a tensor's entries, in its shape."""
    return np.arange(prod(shape)).reshape(shape)


def broadcast(*shapes: Shape) -> Shape:
    """The shape that shapes are broadcast to."""
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise InputError(f"shapes {', '.join(str(list(s)) for s in shapes)}, which do not fit") from error
    check_size(shape)
    return shape


def normal_axes(axes: Sequence[int], rank: int, negative: bool) -> list[int]:
    """Axes from 0 on, all different; negative ones count from the end, where a version has them."""
    if any(not (-rank if negative else 0) <= a < rank for a in axes):
        raise InputError(f"axes {list(axes)} of {rank}")
    normal = [a % rank for a in axes]
    if len(set(normal)) != len(normal):
        raise UnsupportedError(f"axes {list(axes)}, which are not all different")
    return normal
