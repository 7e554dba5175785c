"""From the bytes of an ONNX file to its protobuf model, with what is wrong with the file said in one line."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from krelax.errors import InputError, UnsupportedError, no_file, one_line

# What protobuf can hold.
_MOST_BYTES = (1 << 31) - 1
# Entries that a file may have. Each takes about 200 bytes once it is parsed, and in the file as few as two.
_MOST_ENTRIES = 2_000_000
# Protobuf's kinds of fields: numbers of variable length, data with a length, numbers of fixed length in bytes.
_VARINT, _LENGTH, _FIXED = 0, 2, {1: 8, 5: 4}
_GZIP, _ZIP, _POINTER = b"\x1f\x8b", b"PK\x03\x04", b"version https://git-lfs"


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def read_model(path: Path) -> tuple[onnx.ModelProto, bytes | None]:
    """The model in a file, external data included; and for a compressed file its decompressed bytes.

    Raises InputError for a file that is no ONNX network, and says what it is instead.
    """
    model, content, packed = _parsed(path)
    _load_external(model, path, packed)
    return model, content if packed else None


def files_beside(path: Path) -> list[Path]:
    """The files that hold the external data of a network, by name; none if it cannot be read."""
    try:
        model, _, _ = _parsed(path)
    except InputError:
        return []
    names = {ExternalDataInfo(t).location for t in _tensors(model.graph) if uses_external_data(t)}
    return [path.parent / name for name in sorted(names)]


def _parsed(path: Path) -> tuple[onnx.ModelProto, bytes, bool]:
    """The model in a file without its external data, the decompressed bytes, and whether they were compressed."""
    content = _content(path)
    packed = content[:2] == _GZIP
    content = _unpacked(content, path) if packed else content
    if content.startswith(_POINTER):
        raise InputError(f"{path}: a git-lfs pointer, not the network itself; fetch it with 'git lfs pull'")
    if content.startswith(_ZIP):
        raise InputError(f"{path}: a zip archive (or a PyTorch file), not an ONNX file; export the network to ONNX")
    if not _entries_left(memoryview(content), onnx.ModelProto.DESCRIPTOR, _MOST_ENTRIES):
        raise InputError(
            f"{path}: more than {_MOST_ENTRIES:,} nodes, attributes and other entries; such a file would fill the "
            "memory. Store large constants as tensors"
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf raises its own unrelated types
        raise InputError(f"{path}: not an ONNX file ({first_line(error)}); export the network again") from error
    if not model.graph.node:
        raise InputError(f"{path}: the ONNX file has no operators; export the network again")
    return model, content, packed


def _entries_left(data: memoryview, message: Any, most: int) -> int:
    """How many more entries than those of a message and of the messages in it may follow, of `most`; 0 if none.

    An entry is a field as protobuf encodes it. A packed array is one entry. What is malformed is left to the parser.
    """
    place, size = 0, len(data)
    while place < size and most:
        most -= 1
        key, place = _number(data, place)
        kind = key & 7
        if kind == _LENGTH:
            length, place = _number(data, place)
            field = message.fields_by_number.get(key >> 3)
            if field is not None and field.message_type is not None:
                most = _entries_left(data[place : place + length], field.message_type, most)
            place += length
        elif kind in _FIXED:
            place += _FIXED[kind]
        elif kind == _VARINT:
            _, place = _number(data, place)
        else:
            break
    return most


def _number(data: memoryview, place: int) -> tuple[int, int]:
    """A variable-length number of protobuf, and the place behind it."""
    value = 0
    for i, byte in enumerate(data[place : place + 10]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, place + i + 1
    return 0, len(data)  # malformed: nothing follows


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise no_file(path, "the path of an ONNX network")
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: larger than 2 GiB, which ONNX cannot read; save its weights as external data")
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or first_line(error)}); check its permissions"
        ) from error


def _unpacked(content: bytes, path: Path) -> bytes:
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            result = stream.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip data ({first_line(error)}); download it again") from error
    if len(result) > _MOST_BYTES:
        raise InputError(f"{path}: larger than 2 GiB when decompressed, which ONNX cannot read")
    return result


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs among a node's attributes."""
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else [*a.graphs])]


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """The tensors of a graph, those of its nodes and of graphs in these included."""
    values = [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
    inner = [t for node in graph.node for other in subgraphs(node) for t in _tensors(other)]
    return [*graph.initializer, *values, *inner]


def _doubt(tensor: onnx.TensorProto) -> str:
    """What of a constant in another file readers may take differently; empty if nothing."""
    keys = [entry.key for entry in tensor.external_data]
    if len(set(keys)) < len(keys):
        return f"say twice what its {next(k for k in keys if keys.count(k) > 1)} is"
    if any(not entry.value.isprintable() for entry in tensor.external_data):
        return "are in a file with unprintable characters in its name"
    return ""


def _load_external(model: onnx.ModelProto, path: Path, packed: bool) -> None:
    """Load weights that are stored beside the file; files elsewhere are refused."""
    outside = []
    for tensor in _tensors(model.graph):
        if uses_external_data(tensor):
            outside.append(tensor.name)
            if doubt := _doubt(tensor):
                reason = f"the external data of constant {tensor.name!r} {doubt}; export the network again"
                raise InputError(f"{path}: {one_line(reason)}")
    if not outside:
        return
    if packed:
        raise UnsupportedError(f"{path}: a compressed network with external data; decompress it first")
    try:
        load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx raises types of its own
        reason = f"cannot load the external data of constant {outside[0]!r} ({first_line(error)})"
        raise InputError(f"{path}: {reason}; keep the file with the weights in the folder of the network") from error
