"""Results as JSON Lines: a header that says which run this is, then one record for each finished result.

Every record is on disk before the next is worked on, so a killed run loses nothing it had finished, and the same
command with `resume` goes on from there. The schema is in docs/jsonl.md.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from krelax._version import __version__
from krelax.errors import InputError

SCHEMA = 1


def digest(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises InputError if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def read_journal(path: Path, fields: Sequence[str] = ()) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and results of a journal, finished or not; results have all `fields`. Raises InputError if it is none, or
    has no result yet."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the --jsonl file of a run")
    records = _records(_content(path), path, fields)
    header = next(records, None)
    if header is None:
        raise InputError(f"{path}: holds no results yet")
    if header.get("kind") != "run" or header.get("schema") != SCHEMA:
        raise InputError(f"{path}: does not begin with the header of a run in format {SCHEMA}; give another file")
    return header, [r for r in records if r.get("kind") == "result"]


def _records(content: bytes, path: Path, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What whole lines hold; one that a kill cut short is left out."""
    lines = content[: content.rfind(b"\n") + 1].decode("utf-8", errors="replace").split("\n")[:-1]
    for number, line in enumerate(lines, start=1):
        yield _parse(line, path, number, fields)


class Journal:
    """The results of one run; `done` holds the records found on opening, by their index."""

    def __init__(self, file: BinaryIO | None, header: Mapping[str, Any], done: Mapping[int, Mapping[str, Any]]) -> None:
        self._file, self._header = file, header
        self.done = dict(done)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record, the first after the header, and hand it to the operating system."""
        if self._file is None:
            return
        records = [{"kind": "result", **record}]
        try:
            if self._file.tell() == 0:
                records.insert(0, dict(self._header))
            text = "".join(json.dumps(r, allow_nan=False) + "\n" for r in records).encode()
            while text:
                text = text[self._file.write(text) :]
        except OSError as error:
            raise _unwritable(self._file.name, error) from error


@contextmanager
def open_journal(
    path: Path | None, settings: Mapping[str, Any], resume: bool, fields: Sequence[str] = ()
) -> Iterator[Journal]:
    """The journal of the run that `settings` describe; without a path it remembers nothing.

    Raises InputError if the file exists and is not to be resumed, belongs to a run with other settings, has results
    without one of `fields`, or cannot be written. A file that is not a journal of this run is left as it is.
    """
    header = {"kind": "run", "schema": SCHEMA, "krelax": __version__, **settings}
    if path is None:
        yield Journal(None, header, {})
        return
    done = _recover(path, header, settings, resume, fields)
    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        yield Journal(file, header, done)
        os.fsync(file.fileno())


def _unwritable(path: str | Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror}); give another --jsonl file")


def _recover(
    path: Path, header: Mapping[str, Any], settings: Mapping[str, Any], resume: bool, fields: Sequence[str]
) -> dict[int, Mapping[str, Any]]:
    """Finished records of an earlier run; a last line cut short by a kill is removed from the file."""
    content = _content(path)
    if not content:
        return {}
    if not resume:
        raise InputError(f"{path}: already exists; add --resume to continue it, or give another file")
    end = content.rfind(b"\n") + 1
    if not end and not json.dumps(header).encode().startswith(content):
        raise InputError(f"{path}: is not the results of this run; give another file")
    records = []
    for record in _records(content, path, fields):
        records.append(record)
        if len(records) == 1:
            _check_header(record, header, settings, path)
    if end < len(content):
        try:
            os.truncate(path, end)
        except OSError as error:
            raise _unwritable(path, error) from error
    return {r["index"]: r for r in records if r.get("kind") == "result"}


def _content(path: Path) -> bytes:
    """What the file holds, nothing if there is none."""
    if not path.exists():
        return b""
    if not path.is_file():
        raise InputError(f"{path}: is not a regular file; give another --jsonl file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _check_header(found: Mapping[str, Any], header: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> None:
    """Another version of krelax may go on; everything else has to be the same."""
    changed = [key for key in ("kind", "schema", *settings) if found.get(key) != header[key]]
    if changed:
        what = "header" if changed[0] == "kind" else changed[0]
        raise InputError(f"{path}: is of another run ({what} differs); give another file")


def _parse(line: str, path: Path, number: int, fields: Sequence[str]) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    whole = isinstance(record, dict)
    if whole and record.get("kind") == "result":
        whole = type(record.get("index")) is int and all(field in record for field in fields)
    if not whole:
        raise InputError(f"{path}: line {number} is not a record of a run; give another file")
    return dict(record)
