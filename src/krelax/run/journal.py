"""Results as JSON Lines: a header that says which run this is, then one record for each finished result.

Every record is on disk before the next is worked on, so a killed run loses nothing it had finished, and the same
command with `resume` goes on from there. A record belongs to one run: it carries a digest of the header, and no two
runs write to one file. The schema is in docs/jsonl.md.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Protocol

from krelax._version import __version__
from krelax.certificate.onnx.model import model_hash
from krelax.errors import InputError, no_file

SCHEMA = 2
# Formats of which results can be read, but not continued: before 2, records did not say to which run they belong.
READABLE = (1, SCHEMA)
# Bytes of a file that is read, and of a line of it, which has room for half a million inputs; and how deep values may
# lie in one another, where those of results lie four deep.
_LARGEST, _LONGEST, _DEEPEST = 4 << 30, 16 << 20, 32

Record = Mapping[str, Any]
# Text that every result has, by name, and what it may be; None for anything.
Fields = Mapping[str, Collection[str] | None]

_log = logging.getLogger(__name__)


def digest(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises InputError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # a name with a zero byte, as files about files may have
        raise InputError(f"{path}: cannot be read ({error})") from error


def digest_of_network(path: str | Path) -> str:
    """A digest of a network with all files that hold its constants. That of the file alone if there are no others.

    Raises InputError if a file cannot be read.
    """
    try:
        return model_hash(path)
    except InputError:  # the checker does not read it, but krelax may
        from krelax.network.onnx_file import files_beside  # which imports onnx

        return hashlib.sha256("\n".join([digest(path), *map(digest, files_beside(Path(path)))]).encode()).hexdigest()


def digest_of_data(path: Path, others: Iterable[Path] = ()) -> str:
    """A digest of labelled images: of their file, or of all files of a folder with their names; and of other files that
    are about them, if there are any. Raises InputError if a file cannot be read."""
    own = digest(path) if not path.is_dir() else _of_folder(path)
    more = [digest(other) for other in others if other.is_file()]
    return hashlib.sha256("\n".join([own, *more]).encode()).hexdigest() if more else own


def _of_folder(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder).as_posix()} {digest(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def digest_of_all(networks: Iterable[Path], others: Iterable[Path]) -> str:
    """One digest of many networks and other files, in order. What cannot be read has one, too: it may appear later."""
    lines = [_of_each(networks, digest_of_network), _of_each(others, digest)]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def _of_each(paths: Iterable[Path], of: Callable[[Path], str]) -> list[str]:
    """The digest of each, computed once where a file occurs several times."""
    found: dict[Path, str] = {}
    wanted = list(paths)
    for path in set(wanted):
        try:
            found[path] = of(path)
        except InputError:
            found[path] = "unreadable"
    return [found[path] for path in wanted]


def tag(header: Record) -> str:
    """The digest of a header that the records of its run carry."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:16]


def read_journal(path: Path, fields: Fields = MappingProxyType({})) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and results of a journal, finished or not; results have all `fields`. Raises InputError if it is none, or
    has no result yet."""
    if not path.is_file():
        raise no_file(path, "the --jsonl file of a run")
    try:
        with path.open("rb") as file:
            content = _content(file, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    header, results = _parse(content, path, fields, _readable) if b"\n" in content else ({}, {})
    if not results:
        raise InputError(f"{path}: holds no results yet")
    return header, list(results.values())


class Journal:
    """The results of one run; `done` holds the records found on opening, by their index."""

    def __init__(self, file: BinaryIO | None, header: Record, done: Mapping[int, Record]) -> None:
        self._file, self._header, self._tag = file, header, tag(header)
        self._size = 0 if file is None else os.fstat(file.fileno()).st_size
        self._empty = not done
        self.done = dict(done)

    def begin(self) -> None:
        """Write the header, unless it is there."""
        if not self._size:
            self._append(self._header)

    def write(self, record: Record) -> None:
        """Append a record and hand it to the operating system. Raises InputError where that fails, or another process
        has changed the file."""
        self._append({"kind": "result", "run": self._tag, **record})
        self._empty = False

    def withdraw(self) -> None:
        """Empty the file if it has no results: there is nothing to go on with."""
        if self._file is not None and self._empty:
            with suppress(OSError, InputError):
                self._check()
                self._file.truncate(0)

    def _append(self, record: Record) -> None:
        """Append a line."""
        if self._file is None:
            return
        text = (json.dumps(record, allow_nan=False) + "\n").encode()
        self._check()
        try:
            left = text
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            with suppress(OSError):  # half a line is of no use
                os.ftruncate(self._file.fileno(), self._size)
            raise _unwritable(self._file.name, error) from error
        self._size += len(text)

    def _check(self) -> None:
        """Nobody else writes to the file. Locks should see to that, but not every file system has them."""
        assert self._file is not None
        found = os.fstat(self._file.fileno())
        if found.st_size != self._size or not found.st_nlink:
            what = "something else has written to it" if found.st_nlink else "it was removed"
            raise InputError(f"{self._file.name}: {what} during the run; run again with another --jsonl file")


@contextmanager
def open_journal(
    path: Path | None,
    settings: Mapping[str, Any],
    resume: bool,
    fields: Fields = MappingProxyType({}),
    overwrite: bool = False,
) -> Iterator[Journal]:
    """The journal of the run that `settings` describe; without a path it remembers nothing.

    With `overwrite` the results of an earlier run, whatever its settings, are deleted first.

    Raises InputError if another run is writing to the file, if it has results and is neither to be resumed nor to be
    overwritten, belongs to a run with other settings or another version of krelax, has results without what `fields`
    say, or cannot be written. A file that is not a journal of this run, or with `overwrite` of any, is left as it is.
    The file is locked until the run ends, however it ends.
    """
    header = {"kind": "run", "schema": SCHEMA, "krelax": __version__, **json.loads(json.dumps(settings))}
    if path is None:
        yield Journal(None, header, {})
        return
    with _opened(path) as file:
        done = _cleared(file, path) if overwrite else _recover(file, path, header, resume, fields)
        journal = Journal(file, header, done)
        journal.begin()
        try:
            yield journal
        except BaseException:
            journal.withdraw()
            raise
        os.fsync(file.fileno())


class Known(Protocol):
    """What is known of one item of a run."""

    @property
    def index(self) -> int: ...

    def record(self) -> dict[str, Any]:
        """For a journal."""


# Results by index, the indices that have none yet, and what keeps the result of one.
Results = tuple[dict[int, dict[str, Any]], list[int], Callable[[Known], None]]


@contextmanager
def open_results(
    path: Path | None,
    settings: Mapping[str, Any],
    indices: Collection[int],
    resume: bool,
    overwrite: bool,
    seen: Callable[[dict[str, Any]], None],
) -> Iterator[Results]:
    """The results of a run: a journal has some, and gets each new one before it is `seen`. As `open_journal`."""
    with open_journal(path, settings, resume, {"reason": None}, overwrite) as book:
        results = {i: dict(book.done[i]) for i in indices if i in book.done}

        def keep(known: Known) -> None:
            record = known.record()
            book.write(record)
            results[known.index] = record
            seen(record)

        yield results, [i for i in indices if i not in book.done], keep


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, for reading and appending, locked."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a regular file; give another --jsonl file")
    try:
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        _lock(file, path)
        yield file


def _lock(file: BinaryIO, path: Path) -> None:
    """Lock a file for this process. The system releases the lock when the process ends, however it ends."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{path}: another run is writing to it; wait for its end, or give another file") from None
    except (ImportError, OSError):  # the system, or the file system, has no locks
        _log.warning("krelax: %s: cannot be locked here; see to it that no other run writes to it", path)


def _unwritable(path: str | Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror}); give another --jsonl file")


def _recover(file: BinaryIO, path: Path, header: Record, resume: bool, fields: Fields) -> dict[int, Record]:
    """Finished records of an earlier run. A last line cut short by a kill is removed from the file, at the end of which
    writing goes on."""
    try:
        content = _content(file, path)
        whole = content[: content.rfind(b"\n") + 1]
        first = (json.dumps(header) + "\n").encode()
        begun = whole == first or (not whole and first.startswith(content))
        if not resume and not begun:
            raise InputError(f"{path}: already exists; add --resume to continue it or --overwrite to delete it")
        if not whole and not begun:
            raise InputError(f"{path}: is not the results of this run; give another file")
        done: dict[int, Record] = {}
        if whole:
            done.update(_parse(whole, path, fields, partial(_check_header, header))[1])
        if len(whole) < len(content):
            file.truncate(len(whole))
        file.seek(0, os.SEEK_END)
    except OSError as error:
        raise _unwritable(path, error) from error
    return done


def _cleared(file: BinaryIO, path: Path) -> dict[int, Record]:
    """No records: those of an earlier run are deleted. A file that does not begin as one is no such run's."""
    try:
        file.seek(0)
        first = file.read(_LONGEST + 1).partition(b"\n")[0]
        if first and _record(first, path, 1, {}).get("kind") != "run":
            raise InputError(f"{path}: does not begin with the header of a run; give another file")
        file.truncate(0)
    except OSError as error:
        raise _unwritable(path, error) from error
    return {}


def _content(file: BinaryIO, path: Path) -> bytes:
    """All of a file. Raises InputError if it is too large to be read."""
    if os.fstat(file.fileno()).st_size > _LARGEST:
        raise InputError(
            f"{path}: is larger than {_LARGEST >> 30} GiB, which no journal is that is read; give another file"
        )
    file.seek(0)
    return file.read()


def _check_header(header: Record, found: Record, path: Path) -> None:
    """A run goes on with the settings it began with, files and version included."""
    changed = [key for key in {**header, **found} if not (key in found and key in header and found[key] == header[key])]
    if changed:
        what = "; ".join(_difference(key, found, header) for key in changed)
        raise InputError(f"{path}: is of another run ({what}); give another file")


def _difference(key: str, found: Record, header: Record) -> str:
    """What a setting is in a file, and what it is now."""
    there, here = (json.dumps(r[key]) if key in r else "not given" for r in (found, header))
    return f"{key} differs" if max(len(there), len(here)) > 40 else f"{key} differs: {there} there, {here} here"


def _readable(header: Record, path: Path) -> None:
    """The formats that are read."""
    if header.get("schema") not in READABLE:
        wanted = " or ".join(map(str, READABLE))
        raise InputError(f"{path}: is in format {header.get('schema')}, and not in {wanted}; give another file")


def _parse(
    content: bytes, path: Path, fields: Fields, check: Callable[[Record, Path], None]
) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """The header, which is checked, and, by index, the results in the whole lines of a journal; a line that a kill cut
    short is left out. Raises InputError for lines that are no records, and for results of several runs."""
    lines = (line[:-1] for line in BytesIO(content) if line.endswith(b"\n"))
    header = _record(next(lines, b""), path, 1, fields)
    if header.get("kind") != "run":
        raise InputError(f"{path}: does not begin with the header of a run; give another file")
    check(header, path)
    mine = {"run": tag(header)} if header["schema"] > 1 else {}
    results: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=2):
        record, where = _record(line, path, number, fields), f"{path}: line {number}"
        if record.get("kind") == "run":
            raise InputError(f"{where} begins another run: two runs wrote to this file, so give another one")
        if record.get("kind") == "result":
            if not mine.items() <= record.items():
                raise InputError(f"{where} is a result of another run; give another file")
            if record["index"] in results:
                raise InputError(f"{where} is a second result of index {record['index']}; give another file")
            results[record["index"]] = record
    return header, results


def _record(line: bytes, path: Path, number: int, fields: Fields) -> dict[str, Any]:
    """What a line holds."""
    if len(line) > _LONGEST:
        raise InputError(f"{path}: line {number} is longer than {_LONGEST >> 20} MiB; give another file")
    try:
        record = json.loads(line.decode(), parse_constant=_refuse)
        json.dumps(record, ensure_ascii=False).encode()  # JSON can hold halves of characters, which are no text
    except (ValueError, RecursionError):
        record = None
    whole = isinstance(record, dict) and not _is_deep(record)
    if whole and record.get("kind") == "result":
        whole = type(record.get("index")) is int and all(
            _is_one(record.get(name), allowed) for name, allowed in fields.items()
        )
    if not whole:
        raise InputError(f"{path}: line {number} is not a record of a run; give another file")
    return dict(record)


def _is_deep(value: Any) -> bool:
    """Whether values lie in one another deeper than any result says."""
    level = [value]
    for _ in range(_DEEPEST):
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [v for values in inner for v in values]
    return bool(level)


def _is_one(value: Any, allowed: Collection[str] | None) -> bool:
    """Whether a value is a text that is allowed."""
    return isinstance(value, str) and (allowed is None or value in allowed)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
