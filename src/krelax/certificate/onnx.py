"""Reads an ONNX file, the protocol buffer, with the standard library: as much of it as networks are made of.

Fields are found by their numbers in the file onnx.proto, which are written next to their names below.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError, UnsupportedError

_TYPES = {1: "<f4", 6: "<i4", 7: "<i8", 9: "|b1", 11: "<f8"}  # TensorProto.DataType
_TYPED_DATA = {1: 4, 6: 5, 7: 7, 9: 5, 11: 10}  # float_data, int32_data, int64_data, int32_data, double_data
_MOST_NUMBERS = 10**8


class Message:
    """Fields of a message: for each number its values, integers or bytes."""

    def __init__(self, data: memoryview) -> None:
        self._fields: dict[int, list[Any]] = {}
        place = 0
        while place < len(data):
            key, place = _varint(data, place)
            value, place = _value(data, place, key & 7)
            self._fields.setdefault(key >> 3, []).append(value)

    def all(self, number: int) -> list[Any]:
        """Values of a repeated field."""
        return self._fields.get(number, [])

    def one(self, number: int, default: Any = None) -> Any:
        """Value of a field that may occur once."""
        values = self.all(number)
        if len(values) > 1:
            raise InputError(f"field {number} occurs more than once")
        return values[0] if values else default

    def text(self, number: int) -> str:
        return bytes(self.one(number, b"")).decode()

    def texts(self, number: int) -> list[str]:
        return [bytes(v).decode() for v in self.all(number)]

    def messages(self, number: int) -> list[Message]:
        return [Message(v) for v in self.all(number)]

    def integers(self, number: int) -> list[int]:
        """A repeated field of signed integers, packed or not."""
        result = []
        for value in self.all(number):
            if isinstance(value, int):
                result.append(value)
                continue
            place = 0
            while place < len(value):
                item, place = _varint(value, place)
                result.append(item)
        return [v - (1 << 64) if v >> 63 else v for v in result]

    def floats(self, number: int, kind: str) -> NDArray[Any]:
        """A repeated field of fixed-width numbers, packed or not."""
        return np.frombuffer(b"".join(bytes(v) for v in self.all(number)), kind)


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & ((1 << 64) - 1), place
    raise InputError("a number that does not end")


def _value(data: memoryview, place: int, wire: int) -> tuple[Any, int]:
    if wire == 0:
        return _varint(data, place)
    if wire == 2:
        size, place = _varint(data, place)
    elif wire in {1, 5}:
        size = 8 if wire == 1 else 4
    else:
        raise InputError(f"wire type {wire}")
    if place + size > len(data):
        raise InputError("a field that is cut short")
    return data[place : place + size], place + size


@dataclass
class Call:
    """A node of the file: `outputs = op(inputs)`, tensors by name."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


@dataclass
class Model:
    """A graph of one input, with its shape (unknown axes count as one), and one output."""

    version: int
    calls: list[Call]
    constants: dict[str, NDArray[Any]]
    input: str
    shape: tuple[int, ...]
    output: str


def parse(data: bytes) -> Model:
    """The model in an ONNX file. InputError for what is no such file, UnsupportedError for what is not read."""
    try:
        return _model(Message(memoryview(data)))
    except (IndexError, ValueError, TypeError, AttributeError, KeyError, struct.error, OverflowError) as error:
        raise InputError(f"not an ONNX file ({error})") from error


def _model(model: Message) -> Model:
    graph = Message(model.one(7))
    if model.all(25) or graph.all(15):
        raise UnsupportedError("functions and sparse constants")
    versions = {s.text(1): s.one(2, 1) for s in model.messages(8)}
    constants = {t.text(8): tensor(t) for t in graph.messages(5)}
    inputs = [i for i in graph.messages(11) if i.text(1) not in constants]
    if len(inputs) != 1 or len(graph.all(12)) != 1:
        raise UnsupportedError(f"{len(inputs)} inputs and {len(graph.all(12))} outputs; only one of each is supported")
    calls = [_call(node) for node in graph.messages(1)]
    output = graph.messages(12)[0].text(1)
    return Model(
        versions.get("", versions.get("ai.onnx", 1)), calls, constants, inputs[0].text(1), _shape(inputs[0]), output
    )


def _shape(info: Message) -> tuple[int, ...]:
    """ValueInfoProto.type.tensor_type.shape.dim.dim_value"""
    kind = Message(Message(info.one(2)).one(1))
    if kind.one(1) not in {1, 11}:
        raise UnsupportedError("an input that is not float32 or float64")
    return tuple(d.one(1, 0) or 1 for d in Message(kind.one(2)).messages(1))


def _call(node: Message) -> Call:
    if node.text(7) not in {"", "ai.onnx"}:
        raise UnsupportedError(f"operator {node.text(4)} of domain {node.text(7)}")
    attributes = {a.text(1): _attribute(a) for a in node.messages(5)}
    return Call(node.text(4), node.texts(1), node.texts(2), attributes)


def _attribute(item: Message) -> Any:
    """Value of an AttributeProto, of the type it states."""
    match item.one(20):
        case 1:
            return struct.unpack("<f", item.one(2, bytes(4)))[0]
        case 2:
            return item.integers(3)[0] if item.all(3) else 0
        case 3:
            return item.text(4)
        case 4:
            return tensor(Message(item.one(5)))
        case 6:
            return item.floats(7, "<f4").tolist()
        case 7:
            return item.integers(8)
        case kind:
            raise UnsupportedError(f"attribute {item.text(1)!r} of type {kind}")


def tensor(item: Message) -> NDArray[Any]:
    """A TensorProto as an array: floats as float64, whole numbers as int64."""
    kind, dims = item.one(2, 0), item.integers(1)
    if kind not in _TYPES or item.all(13) or item.one(14, 0):
        raise UnsupportedError(f"constant {item.text(8)!r} of type {kind}, or in another file")
    raw = item.one(9)
    if raw is not None:
        array = np.frombuffer(raw, _TYPES[kind])
    elif kind in {1, 11}:
        array = item.floats(_TYPED_DATA[kind], _TYPES[kind])
    else:
        array = np.array(item.integers(_TYPED_DATA[kind]), np.int64)
    if array.size > _MOST_NUMBERS or not np.isfinite(array).all():
        raise InputError(f"constant {item.text(8)!r} is too large, or holds NaN or infinity")
    return array.astype(np.float64 if kind in {1, 11} else np.int64).reshape(dims)
