"""Reads protocol buffers strictly: nothing that two readers could take differently is read.

A field is one of those that `krelax.certificate.onnx.schema` lists, of the wire type of its type (repeated numbers may
be packed), and occurs once unless it is repeated; only members of `oneof` exclude each other, which is for the caller
to see. Numbers are written as shortly as possible, and within the range of their type; text is UTF-8. Whatever a field
may be without is told from what is there. Everything else is an UnsupportedError, or an InputError where the bytes are
no protocol buffer at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from krelax.certificate.onnx.schema import MESSAGES, Field
from krelax.errors import InputError, UnsupportedError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE = {"int32": _VARINT, "int64": _VARINT, "uint64": _VARINT, "enum": _VARINT, "float": _FIXED32, "double": _FIXED64}
_DTYPES: dict[str, np.dtype[Any]] = {"float": np.dtype("<f4"), "double": np.dtype("<f8")}
# Messages within messages.
_MOST_NESTED = 32
# What the fields of a file may cost, as a few bytes of it can become objects of hundreds: fields, and packed numbers.
_MOST_COST, _FIELD, _PACKED = 1 << 25, 8, 1


class Message:
    """A message: its present fields by name, lists (or arrays of numbers) where they are repeated."""

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        self.kind, self._fields = kind, fields

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def present(self) -> set[str]:
        """Names of the fields that are there."""
        return set(self._fields)

    def get(self, name: str, default: Any = None) -> Any:
        """A field's value. Repeated fields that are missing are empty."""
        return self._fields.get(name, default)

    def all(self, name: str) -> Any:
        """The values of a repeated field."""
        return self._fields.get(name, [])


class _Room:
    """What the fields that are still to be read may cost."""

    def __init__(self) -> None:
        self._left = _MOST_COST

    def take(self, count: int, cost: int) -> None:
        """Raises UnsupportedError where there is no room left."""
        self._left -= count * cost
        if self._left < 0:
            raise UnsupportedError(f"more than {_MOST_COST // _FIELD} fields, or {_MOST_COST // _PACKED} numbers")


def decode(kind: str, data: bytes) -> Message:
    """The bytes as a message of a kind of the schema, after work and within memory that are bounded."""
    return _message(kind, memoryview(data), 0, _Room())


def _message(kind: str, data: memoryview, depth: int, room: _Room) -> Message:
    if depth > _MOST_NESTED:
        raise UnsupportedError(f"messages nested more than {_MOST_NESTED} deep")
    fields: dict[str, Any] = {}
    repeated: dict[str, str] = {}
    place, schema = 0, MESSAGES[kind]
    while place < len(data):
        room.take(1, _FIELD)
        key, place = _varint(data, place)
        field, wire = schema.get(key >> 3), key & 7
        if field is None:
            raise UnsupportedError(f"field {key >> 3} of {kind}, which ONNX does not have")
        value, place = _value(f"{kind}.{field.name}", field, wire, data, place, depth, room)
        if field.repeated:
            fields.setdefault(field.name, []).append(value)
            repeated[field.name] = field.kind
        elif field.name in fields:
            raise UnsupportedError(f"{kind}.{field.name} more than once")
        else:
            fields[field.name] = value
    for name, scalar in repeated.items():
        fields[name] = _joined(scalar, fields[name])
    return Message(kind, fields)


def _value(
    where: str, field: Field, wire: int, data: memoryview, place: int, depth: int, room: _Room
) -> tuple[Any, int]:
    """The value of one field, and where it ends."""
    scalar = field.kind.partition(":")[0]
    expected = _WIRE.get(scalar, _BYTES)
    packed = field.repeated and wire == _BYTES and expected != _BYTES
    if wire != expected and not packed:
        raise UnsupportedError(f"{where} with wire type {wire}")
    if expected == _VARINT and not packed:
        number, place = _varint(data, place)
        return _number(where, field.kind, number), place
    if expected == _BYTES or packed:
        size, place = _varint(data, place)
    else:
        size = _DTYPES[scalar].itemsize
    if size > len(data) - place:
        raise InputError(f"{where} is cut short")
    piece, place = data[place : place + size], place + size
    if scalar in _DTYPES:
        return _floats(where, scalar, piece, field.repeated), place
    if packed:
        return _packed(where, field.kind, piece, room), place
    if scalar in {"string", "bytes"}:
        return (bytes(piece) if scalar == "bytes" else _text(where, piece)), place
    return _message(field.kind, piece, depth + 1, room), place


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise InputError("a number that is cut short")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if (byte == 0 and shift) or value >> 64:
                raise UnsupportedError("a number that is not written as shortly as possible, or too large")
            return value, place
    raise InputError("a number that does not end")


def _number(where: str, kind: str, value: int) -> int:
    """An integer of the field's type; negative ones are written with 64 bits."""
    scalar, _, largest = kind.partition(":")
    signed = value - (1 << 64) if value >> 63 and scalar != "uint64" else value
    if (scalar == "int32" and not -(1 << 31) <= signed < 1 << 31) or (largest and not 0 <= signed <= int(largest)):
        raise UnsupportedError(f"{where} = {signed}, which is no known {scalar}")
    return signed


def _packed(where: str, kind: str, piece: memoryview, room: _Room) -> list[int]:
    room.take(int(np.count_nonzero(np.frombuffer(piece, np.uint8) < 128)), _PACKED)  # each ends with such a byte
    result: list[int] = []
    place = 0
    while place < len(piece):
        value, place = _varint(piece, place)
        result.append(_number(where, kind, value))
    return result


def _floats(where: str, kind: str, piece: memoryview, repeated: bool) -> Any:
    dtype = _DTYPES[kind]
    if len(piece) % dtype.itemsize:
        raise InputError(f"{where} is cut short")
    array: Any = np.frombuffer(bytes(piece), dtype)
    return array if repeated else array[0]


def _text(where: str, piece: memoryview) -> str:
    try:
        return bytes(piece).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnsupportedError(f"{where}, which is not UTF-8") from error


def _joined(kind: str, parts: list[Any]) -> Any:
    """The values of a repeated field; numbers come one by one, or several at a time."""
    if kind in _DTYPES:
        return np.concatenate(parts)
    if kind.partition(":")[0] in _WIRE:
        return [number for part in parts for number in (part if isinstance(part, list) else [part])]
    return parts


def walk(message: Message, kind: str) -> list[Message]:
    """All messages of a kind within a message."""
    found = [message] if message.kind == kind else []
    for name in message.present():
        value = message.get(name)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Message):
                found += walk(part, kind)
    return found
