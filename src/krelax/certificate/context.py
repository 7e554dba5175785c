"""What reading an operator needs: its operands, and the nodes that its value is made of.

A tensor is a constant array, or a value that depends on the input: a node of the network, and a shape. The functions
that read operators are collected in `OPERATORS`, by the operators' names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.network import Affine, Builder, Index, Map, full
from krelax.certificate.onnx import Call
from krelax.errors import InputError, UnsupportedError

Shape = tuple[int, ...]


@dataclass
class Value:
    """A tensor that depends on the input: a node, and its shape."""

    node: int
    shape: Shape


Tensor = Value | NDArray[Any]


@dataclass
class Context:
    """A call with its operands."""

    builder: Builder
    call: Call
    operands: list[Tensor | None]
    version: int

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.call.attributes.get(name, default)

    def value(self, place: int = 0) -> Value:
        """An operand that depends on the input."""
        x = self.operands[place] if place < len(self.operands) else None
        if not isinstance(x, Value):
            raise UnsupportedError(f"operand {place} is constant or missing where an activation is expected")
        return x

    def constant(self, place: int) -> NDArray[Any] | None:
        """A constant operand, None if there is none."""
        x = self.operands[place] if place < len(self.operands) else None
        if isinstance(x, Value):
            raise UnsupportedError(f"operand {place} is not constant")
        return x

    def weight(self, place: int) -> NDArray[Any]:
        """A constant operand that must be there."""
        x = self.constant(place)
        if x is None:
            raise InputError(f"operand {place} is missing")
        return x

    def integers(self, name: str, place: int) -> list[int] | None:
        """Integers given as an attribute, or (in later versions) as an operand."""
        given = self.get(name)
        if given is None:
            given = self.constant(place)
        return None if given is None else [int(i) for i in np.atleast_1d(given)]

    def affine(self, x: Sequence[Value], maps: Sequence[Map], shape: Shape, bias: Any = None, **more: Any) -> Value:
        """The sum of maps of some values, and a bias that is broadcast to the shape."""
        size = more.pop("bias_size", bias)
        flat, largest = (None if b is None else full(b, shape) for b in (bias, size))
        largest = None if largest is None else np.abs(largest)
        node = Affine(tuple(v.node for v in x), tuple(maps), prod(shape), flat, largest, **more)
        return Value(self.builder.add(node), shape)

    def moved(self, index: Index, x: Value) -> Value:
        """Entries of a value, at an array of their numbers."""
        return Value(self.builder.pick(x.node, index), tuple(index.shape))


OPERATORS: dict[str, Callable[[Context], Tensor | list[Tensor]]] = {}


def reads(*names: str) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def numbers(shape: Shape) -> Index:
    """The numbers of a tensor's entries, in its shape."""
    return np.arange(prod(shape)).reshape(shape)
