"""Results as JSON Lines: a header that says which run this is, then one record for each finished result.

Every record is on disk before the next is worked on, so a killed run loses nothing it had finished, and the same
command with `resume` goes on from there. The schema is in docs/jsonl.md.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from krelax._version import __version__
from krelax.errors import InputError

SCHEMA = 1


def digest(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises InputError if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


class Journal:
    """The results of one run; `done` holds the records found on opening, by their index."""

    def __init__(self, file: IO[str] | None, done: Mapping[int, Mapping[str, Any]]) -> None:
        self._file = file
        self.done = dict(done)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record and hand it to the operating system."""
        if self._file is not None:
            self._file.write(json.dumps({"kind": "result", **record}, allow_nan=False) + "\n")
            self._file.flush()


@contextmanager
def open_journal(path: Path | None, settings: Mapping[str, Any], resume: bool) -> Iterator[Journal]:
    """The journal of the run that `settings` describe; without a path it remembers nothing.

    Raises InputError if the file exists and is not to be resumed, belongs to a run with other settings, or cannot be
    written.
    """
    if path is None:
        yield Journal(None, {})
        return
    header = {"kind": "run", "schema": SCHEMA, "krelax": __version__, **settings}
    done = _recover(path, settings, resume)
    try:
        with path.open("a", encoding="utf-8") as file:
            if file.tell() == 0:
                file.write(json.dumps(header) + "\n")
                file.flush()
            yield Journal(file, done)
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another --jsonl file") from error


def _recover(path: Path, settings: Mapping[str, Any], resume: bool) -> dict[int, Mapping[str, Any]]:
    """Finished records of an earlier run; a last line cut short by a kill is removed from the file."""
    if not path.exists():
        return {}
    if not resume:
        raise InputError(f"{path}: already exists; add --resume to continue it, or give another file")
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    whole = text[: text.rfind("\n") + 1]
    if len(whole) < len(text):
        with path.open("r+b") as file:
            file.truncate(len(whole.encode("utf-8", errors="replace")))
    records = [_parse(line, path, number) for number, line in enumerate(whole.splitlines(), start=1)]
    if not records:
        return {}
    given = {key: records[0].get(key) for key in settings}
    if records[0].get("kind") != "run" or given != dict(settings):
        changed = next((k for k in settings if given[k] != settings[k]), "header")
        raise InputError(f"{path}: is of another run ({changed} differs); give another file")
    return {int(r["index"]): r for r in records if r.get("kind") == "result"}


def _parse(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if isinstance(record, dict) and (record.get("kind") != "result" or isinstance(record.get("index"), int)):
            return record
    except ValueError:
        pass
    raise InputError(f"{path}: line {number} is not a record of a run; give another file")
