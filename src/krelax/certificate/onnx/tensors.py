"""The constants in an ONNX file, whose numbers may lie in others: every one keeps its element type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.onnx.model import EXTERNAL, external_entry
from krelax.certificate.onnx.protobuf import Message
from krelax.errors import InputError, UnsupportedError

Shape = tuple[int, ...]
# TensorProto.DataType: the element type, and the field that holds numbers one by one, as what.
_TYPES: dict[int, tuple[np.dtype[Any], str]] = {
    1: (np.dtype(np.float32), "float_data"),
    2: (np.dtype(np.uint8), "int32_data"),
    3: (np.dtype(np.int8), "int32_data"),
    4: (np.dtype(np.uint16), "int32_data"),
    5: (np.dtype(np.int16), "int32_data"),
    6: (np.dtype(np.int32), "int32_data"),
    7: (np.dtype(np.int64), "int64_data"),
    9: (np.dtype(np.bool_), "int32_data"),
    10: (np.dtype(np.float16), "int32_data"),
    11: (np.dtype(np.float64), "double_data"),
}
_FIELDS = {"raw_data", "float_data", "int32_data", "int64_data", "double_data", "string_data", "uint64_data"}
# Of one tensor. What lays out windows has twice as many axes, and NumPy no more than 64.
MOST_NUMBERS, MOST_AXES = 10**8, 16


def element_type(number: int) -> np.dtype[Any]:
    """The element type of a number of TensorProto.DataType."""
    if number not in _TYPES:
        raise UnsupportedError(f"elements of type {number}; export with float32 and int64")
    return _TYPES[number][0]


def without(message: Message, *fields: str) -> None:
    """Raises UnsupportedError if a message has one of these fields."""
    for field in fields:
        if field in message:
            raise UnsupportedError(f"{field} of a {message.kind}")


def tensor(item: Message, external: Mapping[str, bytes]) -> NDArray[Any]:
    """A TensorProto as an array of its element type, of finite numbers, and minus infinities for masks."""
    name = item.get("name", "")
    try:
        array = _array(item, external)
    except InputError as error:
        raise type(error)(f"constant {name!r}: {error}") from error
    if array.dtype.kind == "f" and not (np.isfinite(array) | np.isneginf(array)).all():
        raise InputError(f"constant {name!r} holds NaN or infinity; train or export the network again")
    return array


def _array(item: Message, external: Mapping[str, bytes]) -> NDArray[Any]:
    without(item, "segment")
    shape = tuple(item.all("dims"))
    dtype = element_type(item.get("data_type", 0))
    if min(shape, default=0) < 0 or prod(shape) > MOST_NUMBERS or len(shape) > MOST_AXES:
        raise UnsupportedError(f"shape {list(shape)}")
    fields = item.present() & _FIELDS
    if item.get("data_location", 0) == EXTERNAL:
        if fields:
            raise UnsupportedError(f"numbers in another file and in {', '.join(sorted(fields))}")
        return _raw(_external(item, prod(shape) * dtype.itemsize, external), dtype, shape)
    typed = _TYPES[item.get("data_type")][1]
    if len(fields) > 1 or not fields <= {"raw_data", typed} or "external_data" in item:
        raise UnsupportedError(f"numbers of type {dtype} in {', '.join(sorted(fields))}, or in another file, too")
    if "raw_data" in fields:
        return _raw(item.get("raw_data"), dtype, shape)
    return _typed(np.asarray(item.all(typed)), dtype, shape)


def _raw(data: bytes, dtype: np.dtype[Any], shape: Shape) -> NDArray[Any]:
    """Numbers as their bytes, little-endian; booleans are 0 or 1."""
    if len(data) != prod(shape) * dtype.itemsize:
        raise InputError(f"{len(data)} bytes for shape {list(shape)} of type {dtype}")
    if dtype == np.bool_ and data.translate(None, b"\0\1"):
        raise UnsupportedError("booleans other than 0 and 1")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _typed(values: NDArray[Any], dtype: np.dtype[Any], shape: Shape) -> NDArray[Any]:
    """Numbers one by one; float16 as integers of the same 16 bits."""
    if values.size != prod(shape):
        raise InputError(f"{values.size} numbers for shape {list(shape)}")
    stored = np.dtype(np.uint16) if dtype == np.float16 else dtype
    if stored.kind in "iub" and values.size:
        least, most = (0, 1) if stored.kind == "b" else (np.iinfo(stored).min, np.iinfo(stored).max)
        if values.min() < least or values.max() > most:
            raise UnsupportedError(f"numbers that {dtype} does not hold")
    return values.astype(stored).view(dtype).reshape(shape)


def _external(item: Message, size: int, external: Mapping[str, bytes]) -> bytes:
    """The bytes of a tensor in another file."""
    entry = external_entry(item)
    if entry["location"] not in external:
        raise InputError(f"its numbers lie in {entry['location']!r}, which is not there")
    data = external[entry["location"]]
    if any(not re.fullmatch(r"[0-9]{1,18}", entry.get(key, "0")) for key in ("offset", "length")):
        raise UnsupportedError(f"offset and length {entry.get('offset')!r} and {entry.get('length')!r}")
    offset = int(entry.get("offset", "0"))
    length = int(entry.get("length", len(data) - offset))
    if length != size or offset + length > len(data):
        raise InputError(f"{size} bytes are needed of {entry['location']}: {length} at {offset} of {len(data)}")
    return data[offset : offset + length]
