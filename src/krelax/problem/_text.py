"""VNN-LIB files from bytes to text: decompressed, decoded, lines ended by line feeds only, without comments."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from krelax.errors import InputError, UnsupportedError, no_file

# Called between pieces of work; what it raises ends the reading.
Check = Callable[[], None]

_MAX_BYTES = 1 << 30
_PIECE = 1 << 22

# The name of a node, in which a backslash takes a quotation mark, or itself, for a character.
STRING = r'"(?:[^"\\\n]|\\[^\n])*+"'
_COMMENT = re.compile(rf"({STRING})|;[^\n]*")
# Characters that end a line for some programs, and not for others: they would decide how far a comment goes.
_BREAKS = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
# What bytes that are not UTF-8 are decoded to.
_ESCAPED = re.compile("[\udc80-\udcff]")


def read_text(path: Path, check: Check) -> str:
    """The text of a file without its comments; lines keep their numbers.

    A line ends with LF, CR LF or CR. The text is UTF-8, or UTF-16 with a byte order mark; comments may hold any bytes
    that are not control characters. Raises InputError for everything else that is no such file.
    """
    try:
        if not path.is_file():
            raise no_file(path, "the path of a VNN-LIB file")
        content = _read_bytes(path, check)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip data ({error}); fetch the file again") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r}: cannot be read ({error}); check its permissions") from None
    text = _decoded(content, path).replace("\r\n", "\n").replace("\r", "\n")
    doubtful = _BREAKS.search(text)
    if doubtful:
        what = f"holds the character U+{ord(doubtful[0]):04X}, which may or may not end a line; remove it"
        raise InputError(f"{_place(path, text, doubtful.start())}: {what}")
    check()
    text = _COMMENT.sub(lambda match: match[1] or "", text) if ";" in text else text
    foreign = _ESCAPED.search(text)
    if foreign:
        what = "is not text in UTF-8 outside of comments; save the file in UTF-8"
        raise InputError(f"{_place(path, text, foreign.start())}: {what}")
    check()
    return text


def _place(path: Path, text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    return f"{path}:{line}"


def _read_bytes(path: Path, check: Check) -> bytes:
    with path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        if not compressed:
            return _pieces(stream, path, check)
        with gzip.GzipFile(fileobj=stream) as unpacked:
            return _pieces(unpacked, path, check)


def _pieces(stream: BinaryIO | gzip.GzipFile, path: Path, check: Check) -> bytes:
    content = bytearray()
    while piece := stream.read(_PIECE):
        content += piece
        if len(content) > _MAX_BYTES:
            raise UnsupportedError(f"{path}: is larger than {_MAX_BYTES} bytes; split the specification")
        check()
    return bytes(content)


def _decoded(content: bytes, path: Path) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            message = f"{path}: is not text in UTF-16, as which it begins ({error.reason}); save the file in UTF-8"
            raise InputError(message) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if _CONTROLS.search(content):
            raise InputError(f"{path}: is not text in UTF-8 ({error.reason}); give a VNN-LIB file") from None
        return content.decode("utf-8-sig", "surrogateescape")
