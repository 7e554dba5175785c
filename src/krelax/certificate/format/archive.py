"""The certificate file: a zip of `certificate.json` and `.npy` arrays (see docs/certificates.md).

What is written is exactly what the dataclasses of `krelax.certificate.format.schema` declare. Nothing else is read,
after bounded work.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import zipfile
import zlib
from dataclasses import fields, is_dataclass
from functools import cache
from math import isfinite, prod
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.errors import Malformed
from krelax.certificate.format.families import unpacked
from krelax.certificate.format.schema import Certificate, Stored
from krelax.errors import InputError, no_file, one_line

FORMAT, VERSION = "krelax certificate", 1
# What a file may hold, stated or not: bytes of all members together, of the document, and number of members.
MOST_BYTES, _MOST_DOCUMENT, _MOST_MEMBERS = 1 << 31, 1 << 24, 1 << 17

_DOCUMENT = "certificate.json"
_SHAPE = rb"((?:[0-9]{1,10}, ?)*(?:[0-9]{1,10})?)"
_HEADER = re.compile(rb"\{'descr': '([<|][fiu][1248])', 'fortran_order': False, 'shape': \(" + _SHAPE + rb"\), \} *\n")


def write(path: str | Path, certificate: Certificate) -> None:
    """Write a certificate; the file appears at once and whole. TypeError or ValueError for a part that does not fit
    its declaration."""
    path = Path(path)
    arrays: list[NDArray[Any]] = []
    document = {"format": FORMAT, "version": VERSION} | _encode(Certificate, certificate, arrays, "certificate")
    if path.exists() and not path.is_file():  # a device or a pipe
        path.write_bytes(_packed(document, arrays))
        return
    target = Path(os.path.realpath(path))
    part = target.with_name(f".krelax-{secrets.token_hex(8)}.part")  # no other process has this name
    try:
        part.write_bytes(_packed(document, arrays))
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _packed(document: dict[str, Any], arrays: list[NDArray[Any]]) -> bytes:
    """The bytes of the zip file."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        _put(file, _DOCUMENT, json.dumps(document, indent=1).encode())
        for number, array in enumerate(arrays):
            _put(file, f"{number}.npy", _npy(array))
    return data.getvalue()


def _put(file: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name)  # of fixed date, so that equal certificates are equal files
    info.compress_type = zipfile.ZIP_DEFLATED
    file.writestr(info, data)


def _npy(array: NDArray[Any]) -> bytes:
    shape = "".join(f"{n}, " for n in array.shape)
    header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': ({shape}), }}"
    header = header.ljust(-(len(header) + 11) % 64 + len(header)) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + array.tobytes()


def _encode(hint: Any, value: Any, arrays: list[NDArray[Any]], where: str) -> Any:
    """A value as JSON; its arrays are appended to `arrays` and named."""
    hint = _bare(hint)
    if get_origin(hint) is Annotated:
        stored = hint.__metadata__[0]
        if not isinstance(value, np.ndarray) or value.dtype.str != stored.dtype:
            raise TypeError(f"{where}: not an array of type {stored.dtype}")
        if value.ndim != len(stored.axes.split()) or not _finite(value):
            raise ValueError(f"{where}: an array of shape {value.shape}, or not finite, for axes {stored.axes}")
        arrays.append(np.ascontiguousarray(value))
        return f"{len(arrays) - 1}.npy"
    if get_origin(hint) is list:
        return [_encode(get_args(hint)[0], v, arrays, f"{where}[{i}]") for i, v in enumerate(value)]
    if is_dataclass(hint):
        present = {name: h for name, h in _schema(hint).items() if getattr(value, name) is not None}
        result = {name: _encode(h, getattr(value, name), arrays, f"{where}.{name}") for name, h in present.items()}
        if problem := _mismatch(value):
            raise ValueError(f"{where}{problem}")
        return result
    return float(value).hex() if hint is float else value


def is_certificate(path: str | Path) -> bool:
    """Whether a file looks like a certificate, malformed or not."""
    try:
        with zipfile.ZipFile(path) as file:
            return _DOCUMENT in file.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def read(path: str | Path) -> Certificate:
    """Read a certificate; families become questions. Raises Malformed for anything but a file as `write` makes them,
    after bounded work."""
    if not Path(path).is_file():
        raise no_file(Path(path), "the path of a certificate")
    try:
        with _opened(path) as file:
            members = _Members(file)
            result: Certificate = _decode(Certificate, members.document(), members, "certificate")
            members.finish()
            return unpacked(result)
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a certificate") from None
    except Malformed as error:
        raise Malformed(f"{path}: {one_line(str(error))}") from None  # names in a file may hold anything


# What `zipfile` raises for files that are none, or damaged. Nothing else is inside of these clauses: whatever our own
# code might raise is a bug, and not the file's fault.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OverflowError)


def _opened(path: str | Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except PermissionError:
        raise
    except (*_UNREADABLE, OSError) as error:
        raise Malformed(f"not a readable zip file ({error})") from error


class _Members:
    """The members of the zip, each of which is to be used once; their stated sizes are enforced while reading."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        infos = file.infolist()
        self._file, self._left = file, {info.filename: info for info in infos}
        if len(self._left) != len(infos) or len(infos) > _MOST_MEMBERS:
            raise Malformed("members of the same name, or too many of them")
        if any(i.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} or i.flag_bits & 1 for i in infos):
            raise Malformed("members that are encrypted, or compressed by anything but deflate")
        if sum(info.file_size for info in infos) > MOST_BYTES:
            raise Malformed(f"more than {MOST_BYTES} bytes")

    def _read(self, name: str, most: int = MOST_BYTES) -> bytes:
        info = self._left.pop(name, None)
        if info is None or info.file_size > most:
            raise Malformed(f"{name}: missing, used twice, or too large")
        try:
            with self._file.open(info) as stream:
                data = stream.read(info.file_size + 1)
        except (*_UNREADABLE, OSError) as error:
            raise Malformed(f"not a readable zip file ({error})") from error
        if len(data) != info.file_size:
            raise Malformed(f"{name}: not of its stated size")
        return data

    def document(self) -> dict[str, Any]:
        """The document, less its name and version."""
        data = self._read(_DOCUMENT, _MOST_DOCUMENT)
        try:
            document = json.loads(data.decode(), object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"{_DOCUMENT}: not JSON ({error})") from error
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise Malformed(f"{_DOCUMENT}: not of the format {FORMAT!r}")
        if (version := document.pop("version", None)) != VERSION:
            raise Malformed(f"{_DOCUMENT}: version {version!r}; this checker reads version {VERSION}")
        return document

    def array(self, name: Any, stored: Stored, where: str) -> NDArray[Any]:
        """An array of the stated type and number of axes, with finite numbers."""
        data = self._read(name) if isinstance(name, str) else b""
        start = 10 + int.from_bytes(data[8:10], "little")
        header = _HEADER.fullmatch(data[10:start])
        if data[:8] != b"\x93NUMPY\x01\x00" or header is None or header[1].decode() != stored.dtype:
            raise Malformed(f"{where}: {name!r} is not an array of type {stored.dtype} in C order")
        shape = tuple(int(n) for n in header[2].replace(b",", b" ").split())
        if len(shape) != len(stored.axes.split()) or prod(shape) * np.dtype(stored.dtype).itemsize != len(data) - start:
            raise Malformed(f"{where}: {name} has shape {shape} and {len(data) - start} bytes for axes {stored.axes}")
        array = np.frombuffer(data, stored.dtype, offset=start).reshape(shape)
        if not _finite(array):
            raise Malformed(f"{where}: {name} holds NaN or infinity")
        return array

    def finish(self) -> None:
        """Nothing may be left over."""
        if self._left:
            raise Malformed(f"{next(iter(self._left))}: a member that nothing refers to")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose names must differ."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Malformed(f"{_DOCUMENT}: an object with a name that occurs twice")
    return result


def _finite(array: NDArray[Any]) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _mismatch(value: Any) -> str:
    """Which of an object's axes of one name have different lengths; empty if none have."""
    sizes: dict[str, int] = {}
    for name, hint in _schema(type(value)).items():
        array = getattr(value, name)
        if get_origin(_bare(hint)) is Annotated and array is not None:
            for axis, n in zip(_bare(hint).__metadata__[0].axes.split(), array.shape, strict=True):
                if sizes.setdefault(axis, n) != n:
                    return f".{name}: {n} {axis}, elsewhere {sizes[axis]}"
    return ""


def _schema(kind: Any) -> dict[str, Any]:
    """Type hints of a dataclass's fields."""
    return _hints(kind)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in fields(kind)}


def _bare(hint: Any) -> Any:
    """A hint without `| None`."""
    if get_origin(hint) is UnionType or NoneType in get_args(hint):
        return next(h for h in get_args(hint) if h is not NoneType)
    return hint


def _decode(hint: Any, value: Any, members: _Members, where: str) -> Any:
    """What `_encode` made of a value of the hinted type."""
    hint = _bare(hint)
    if get_origin(hint) is Annotated:
        return members.array(value, hint.__metadata__[0], where)
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise Malformed(f"{where}: not a list")
        return [_decode(get_args(hint)[0], v, members, f"{where}[{i}]") for i, v in enumerate(value)]
    if is_dataclass(hint):
        return _decode_object(hint, value, members, where)
    return _decode_scalar(hint, value, where)


def _decode_object(kind: Any, value: Any, members: _Members, where: str) -> Any:
    schema = _schema(kind)
    needed = {name for name, h in schema.items() if _bare(h) is h}
    if not isinstance(value, dict) or not needed <= value.keys() <= schema.keys():
        raise Malformed(f"{where}: fields must be {sorted(needed)}, and may be {sorted(schema)}")
    found = {name: _decode(schema[name], v, members, f"{where}.{name}") for name, v in value.items()}
    result = kind(**(dict.fromkeys(schema) | found))
    if problem := _mismatch(result):
        raise Malformed(f"{where}{problem}")
    return result


def _decode_scalar(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is Literal:
        if not isinstance(value, str) or value not in get_args(hint):
            raise Malformed(f"{where}: {value!r} is none of {get_args(hint)}")
        return value
    if hint is float:
        try:
            value = float.fromhex(value)
        except (TypeError, ValueError, OverflowError):
            value = float("nan")
        if not isfinite(value):
            raise Malformed(f"{where}: not a finite hexadecimal number")
        return value
    if type(value) is not hint:
        raise Malformed(f"{where}: not of type {hint.__name__}")
    return value
