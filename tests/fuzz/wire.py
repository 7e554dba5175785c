"""Changes of a file's bytes, field by field or anywhere: what becomes of an ONNX file that is damaged, or forged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from krelax.certificate.onnx.schema import MESSAGES

Random = np.random.Generator


@dataclass
class Entry:
    """A field as it is written: its key, and its content, or the fields of a message."""

    number: int
    wire: int
    content: bytes
    inner: list[Entry] | None = None

    def encode(self) -> bytes:
        content = self.content if self.inner is None else b"".join(e.encode() for e in self.inner)
        size = varint(len(content)) if self.wire == 2 else b""
        return varint(self.number << 3 | self.wire) + size + content


def varint(value: int, longer: int = 0) -> bytes:
    """A number as it is written, perhaps with bytes that it does not need."""
    result = b""
    while value > 127 or longer > 0:
        longer -= value <= 127
        result, value = result + bytes([value & 127 | 128]), value >> 7
    return result + bytes([value])


def read(kind: str, data: bytes) -> list[Entry]:
    """The fields of a message that is valid."""
    place, found = 0, []
    while place < len(data):
        key, place = _number(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            end = _number(data, place)[1]
        elif wire == 2:
            size, place = _number(data, place)
            end = place + size
        else:
            end = place + (8 if wire == 1 else 4)
        content, place = data[place:end], end
        inner = MESSAGES[kind][number].kind
        found.append(Entry(number, wire, content, read(inner, content) if inner in MESSAGES else None))
    return found


def _number(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while data[place] > 127:
        value, shift, place = value | (data[place] & 127) << shift, shift + 7, place + 1
    return value | data[place] << shift, place + 1


def mutated(rng: Random, data: bytes) -> bytes:
    """A file with one or two changes."""
    for _ in range(rng.integers(1, 3)):
        if rng.random() < 0.3:
            data = _anywhere(rng, data)
        else:
            try:
                data = _somewhere(rng, data)
            except (IndexError, KeyError):  # no longer valid
                data = _anywhere(rng, data)
    return data


def _anywhere(rng: Random, data: bytes) -> bytes:
    """A byte changed, left out or inserted."""
    changed, place = bytearray(data), int(rng.integers(len(data)))
    match int(rng.integers(4)):
        case 0:
            changed[place] ^= 1 << int(rng.integers(8))
        case 1:
            changed[place] = int(rng.integers(256))
        case 2:
            del changed[place]
        case _:
            changed.insert(place, int(rng.integers(256)))
    return bytes(changed)


def _somewhere(rng: Random, data: bytes) -> bytes:
    """A field changed, twice, left out, moved, or written in another way."""
    fields = read("Model", data)
    where = fields
    while (deeper := [e.inner for e in where if e.inner]) and rng.random() < 0.85:
        where = deeper[rng.integers(len(deeper))]
    place = int(rng.integers(len(where)))
    entry = where[place]
    match int(rng.integers(8)):
        case 0:
            where.insert(int(rng.integers(len(where) + 1)), entry)
        case 1:
            del where[place]
        case 2:
            where.append(where.pop(place))
        case 3:
            entry.wire = int(rng.choice([0, 1, 2, 5]))
        case 4:
            entry.number = int(rng.integers(1, 30))
        case 5 if entry.wire == 0:
            entry.content = varint(_number(entry.content, 0)[0], int(rng.integers(1, 3)))
        case 6 if entry.wire == 0:
            entry.content = varint(int(rng.choice([0, 1, 2, 3, 6, 7, 10, 11, 2**31, 2**32 - 1, 2**63, 2**64 - 1])))
        case _:
            if entry.inner is None and entry.content:
                entry.content = _anywhere(rng, entry.content)
    return b"".join(e.encode() for e in fields)
