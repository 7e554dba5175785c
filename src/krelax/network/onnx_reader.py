"""One node of an ONNX file, with its operands resolved: what the readers of operators are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from krelax.errors import InputError, UnsupportedError
from krelax.network.compose import Operand
from krelax.network.constants import Constant
from krelax.network.graph import Builder
from krelax.network.onnx_schema import kind_name
from krelax.op import Op, Shape

Kind = onnx.TensorProto
# Element types of activations.
FLOATS = frozenset({Kind.FLOAT, Kind.DOUBLE, Kind.FLOAT16, Kind.BFLOAT16})
_WHOLE: dict[int, Any] = {
    Kind.BOOL: np.bool_,
    Kind.INT8: np.int8,
    Kind.INT16: np.int16,
    Kind.INT32: np.int32,
    Kind.INT64: np.int64,
    Kind.UINT8: np.uint8,
    Kind.UINT16: np.uint16,
    Kind.UINT32: np.uint32,
    Kind.UINT64: np.uint64,
}
# Numbers that the constants of a file may expand to beyond so many times those it holds.
_ROOM, _TIMES = 10**7, 8


@dataclass(frozen=True, eq=False)
class Literal:
    """A constant of a file with its ONNX element type: integers as they are, floats as an enclosure."""

    kind: int
    data: NDArray[Any] | Constant

    @classmethod
    def of(cls, array: NDArray[Any], kind: int) -> Literal:
        """A decoded tensor, perhaps with minus infinities, which masks have. Raises InputError for NaN and infinity,
        UnsupportedError for other element types."""
        if kind in _WHOLE:
            return cls(kind, np.asarray(array, _WHOLE[kind]))
        if kind not in FLOATS:
            raise UnsupportedError(f"constants of type {kind_name(kind)}; export the network with float32 weights")
        value = torch.from_numpy(np.array(array, np.float64))  # which holds them all exactly
        if not bool((value.isfinite() | value.isneginf()).all()):
            raise InputError("the constant holds NaN or infinity; train or export the network again")
        return cls(kind, Constant(value))

    @classmethod
    def read(cls, proto: onnx.TensorProto) -> Literal:
        """A tensor of the file."""
        fields = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
        if sum(len(getattr(proto, name)) > 0 for name in fields) > 1 or proto.HasField("segment"):
            raise InputError("a constant with several encodings; export the network again")
        if proto.data_type not in {*_WHOLE, *FLOATS}:
            return cls.of(np.zeros(0), proto.data_type)  # which says so
        whole = proto.data_type in _WHOLE and len(proto.int32_data) > 0
        array = numpy_helper.to_array(proto)
        if whole and array.flatten().tolist() != list(proto.int32_data):
            raise InputError("a constant with numbers outside its type; export the network again")
        return cls.of(array, proto.data_type)

    @classmethod
    def whole(cls, numbers: Sequence[int] | NDArray[Any], kind: int = Kind.INT64) -> Literal:
        """Integers, given as Python integers or an array of them. InputError for those beyond the type."""
        array = np.asarray(numbers, dtype=object)
        if kind != Kind.BOOL and array.size:
            limits = np.iinfo(_WHOLE[kind])
            if array.min() < limits.min or array.max() > limits.max:
                raise InputError(f"integers that {kind_name(kind)} does not hold; fold this constant when exporting")
        return cls(kind, array.astype(_WHOLE[kind]))

    @property
    def shape(self) -> Shape:
        return tuple(int(n) for n in self.data.shape)

    @property
    def floats(self) -> Constant:
        """The data of a floating-point constant."""
        if not isinstance(self.data, Constant):
            raise UnsupportedError(f"a constant of type {kind_name(self.kind)} where floats are expected")
        return self.data

    @property
    def integers(self) -> NDArray[Any]:
        """The data of a constant of whole numbers or booleans."""
        if isinstance(self.data, Constant):
            raise UnsupportedError(f"a constant of type {kind_name(self.kind)} where integers are expected")
        return self.data

    def moved(self, move: Callable[[NDArray[Any]], NDArray[Any]]) -> Literal:
        """With its entries moved or repeated as a function of arrays says."""
        if isinstance(self.data, Constant):
            return Literal(self.kind, self.data.moved(lambda t: torch.from_numpy(np.array(move(t.numpy()), order="C"))))
        return Literal(self.kind, np.array(move(self.data), order="C"))


@dataclass
class Known:
    """What is known of a graph's tensors, by name: nodes built and their element types, constants, and the operators
    of results that are not read. `head` is what was left out, as functions of rows of scores."""

    values: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    constants: dict[str, Literal] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    room: int = _ROOM
    head: list[Callable[[torch.Tensor], torch.Tensor]] = field(default_factory=list)

    def define(self, name: str, literal: Literal) -> None:
        """Add a constant of the file, which makes room for others made of it."""
        self.constants[name] = literal
        self.room += _TIMES * prod(literal.shape)

    def call(self, name: str, other: str) -> None:
        """Give a tensor a second name. Raises InputError if nothing has the other one, or something this one."""
        if (
            name in self.values
            or name in self.constants
            or other not in {**self.values, **self.constants, **self.unread}
        ):
            raise InputError(f"{other!r} is not computed, or {name!r} is defined already; export the network again")
        if other in self.values:
            self.values[name], self.kinds[name] = self.values[other], self.kinds[other]
        elif other in self.constants:
            self.constants[name] = self.constants[other]
        else:
            self.unread[name] = self.unread[other]


@dataclass
class Reader:
    """One node of the file, its definition, and what is known so far."""

    builder: Builder
    node: onnx.NodeProto
    known: Known
    schema: onnx.defs.OpSchema

    @property
    def version(self) -> int:
        """The operator set that brought this definition of the operator."""
        return int(self.schema.since_version)

    def attribute(self, name: str) -> Any:
        """An attribute as a Python value; if it is left out, its default in ONNX (a float32, as all are), or None."""
        item = next((a for a in self.node.attribute if a.name == name), None)
        if item is None and name in self.schema.attributes:
            item = self.schema.attributes[name].default_value
        if item is None or item.type == onnx.AttributeProto.UNDEFINED:
            return None
        value = onnx.helper.get_attribute_value(item)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, position: int) -> bool:
        """Whether an operand is there."""
        return position < len(self.node.input) and bool(self.node.input[position])

    def value(self, position: int = 0) -> int:
        """Index of the node that computes an operand; a constant operand is refused."""
        if not self.has(position):
            raise InputError(f"operand {position} is missing")
        name = self.node.input[position]
        if name in self.known.constants:
            raise UnsupportedError(f"operand {position} is constant where an activation is expected")
        return self.known.values[name]

    def shape(self, position: int = 0) -> Shape:
        """Shape of an operand, constant or not."""
        if self.is_constant(position):
            return self.known.constants[self.node.input[position]].shape
        return self.builder.shape(self.value(position))

    def literal(self, position: int) -> Literal | None:
        """A constant operand, None if it is absent."""
        if not self.has(position):
            return None
        name = self.node.input[position]
        if name not in self.known.constants:
            raise UnsupportedError(f"operand {position} ({name!r}) is not constant")
        return self.known.constants[name]

    def given(self, position: int) -> Literal:
        """A constant operand that must be there."""
        literal = self.literal(position)
        if literal is None:
            raise InputError(f"operand {position} is missing")
        return literal

    def constant(self, position: int) -> Constant | None:
        """A floating-point constant operand, None if it is absent."""
        literal = self.literal(position)
        return None if literal is None else literal.floats

    def weight(self, position: int) -> Constant:
        """A floating-point constant operand that must be there."""
        return self.given(position).floats

    def operand(self, position: int) -> Operand:
        """A node, or a floating-point constant."""
        return self.weight(position) if self.is_constant(position) else self.value(position)

    def is_constant(self, position: int) -> bool:
        """Whether an operand is constant."""
        return self.has(position) and self.node.input[position] in self.known.constants

    def integers(self, attribute: str, position: int) -> list[int] | None:
        """Integers given as an attribute (older operator sets) or as a constant operand."""
        if attribute in self.schema.attributes:
            given = self.attribute(attribute)
            return None if given is None else [int(i) for i in given]
        literal = self.literal(position)
        if literal is None:
            return None
        if len(literal.shape) > 1:
            raise InputError(f"operand {position} has shape {list(literal.shape)} where a list of integers is expected")
        return [int(i) for i in literal.integers.flatten()]

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front. Raises InputError for one that is not there."""
        if not -rank <= axis < rank:
            raise InputError(f"axis {axis} of a tensor of rank {rank}")
        return axis % rank

    def axes(self, axes: Sequence[int], rank: int) -> list[int]:
        """Axes counted from the front, in the order given. Raises InputError for one that is given twice."""
        result = [self.axis(a, rank) for a in axes]
        if len(set(result)) < len(result):
            raise InputError(f"axes {list(axes)} of a tensor of rank {rank}, one of them twice")
        return result

    def require(self, shape: Sequence[int]) -> None:
        """Raises InputError if a constant of this shape is more than the constants of the file may expand to."""
        count = prod(int(n) for n in shape)
        if min(shape, default=0) < 0 or count > self.known.room:
            raise InputError(f"a constant of shape {list(shape)} is more than this file may expand to; fold it away")
        self.known.room -= count

    def add(self, op: Op, *inputs: int) -> int:
        return self.builder.add(op, *inputs, name=self.node.name or self.node.output[0])
