"""Whole lists of instances: `onnx,vnnlib,timeout_s,expected`, one line each.

Where a question is about several networks, `onnx` is `NAME=FILE;NAME=FILE`, or as competitions write it,
`[('NAME', 'FILE'), ('NAME', 'FILE')]`.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from krelax.errors import InputError, failed, internal, no_file, one_line, shows_tracebacks
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.run.certificates import Certificates, Written
from krelax.run.certify import counterexample_record
from krelax.run.verify import EMPTY, Load, VerifyOptions, check_options, verify_file
from krelax.search.processes import cpu_seconds, out_of_memory
from krelax.search.verdict import Outcome, Verdict

ANSWERS = {Verdict.HOLDS: "unsat", Verdict.VIOLATED: "sat", Verdict.UNKNOWN: "unknown"}
# What a journal's results have.
FIELDS = {
    "answer": frozenset([*ANSWERS.values(), "timed-out", "error"]),
    "expected": frozenset(["sat", "unsat", "open"]),
}


@dataclass(frozen=True)
class Instance:
    """A line of the list; `expected` is sat, unsat, or open where no answer is trusted. `named` are the files of the
    networks that a question about several of them has, by their names; `onnx` is the first of these then."""

    index: int
    onnx: Path
    vnnlib: Path
    timeout: float
    expected: str
    named: tuple[tuple[str, Path], ...] = ()

    @property
    def files(self) -> dict[str | None, Path]:
        """The files of its networks, by the names that its question has for them."""
        return dict(self.named) if self.named else {None: self.onnx}

    @property
    def shown(self) -> str:
        """What its networks are called in results."""
        return ";".join(f"{name}={path.name}" for name, path in self.named) or self.onnx.name


@dataclass(frozen=True, eq=False)
class Result:
    """What came of an instance: `answer` is sat, unsat, unknown, timed-out or error; `seconds` of wall and CPU time;
    `worker` is that of a cluster which found it."""

    instance: Instance
    answer: str
    reason: str
    seconds: float
    outcome: Outcome | None = None
    cpu: float = 0.0
    certificate: Written | None = None
    worker: str | None = None

    @property
    def disagrees(self) -> bool:
        """A definite answer that contradicts a trusted one."""
        return {self.answer, self.instance.expected} == {"sat", "unsat"}

    @property
    def solved(self) -> bool:
        return self.answer in {"sat", "unsat"}

    def record(self) -> dict[str, Any]:
        """The result as a record of a journal."""
        record: dict[str, Any] = {
            "index": self.instance.index,
            "onnx": self.instance.shown,
            "vnnlib": self.instance.vnnlib.name,
            "expected": self.instance.expected,
            "answer": self.answer,
            "reason": one_line(self.reason),
            "seconds": round(self.seconds, 4),
            "cpu": round(self.cpu, 4),
        }
        if self.outcome is not None and self.outcome.counterexample is not None:
            record["counterexample"] = counterexample_record(self.outcome.counterexample)
        if self.certificate is not None:
            record["certificate"] = self.certificate.record()
        return record if self.worker is None else record | {"worker": self.worker}


_COLUMNS = ("onnx", "vnnlib", "timeout_s", "expected")
# One network of several, as Python shows a pair of a name and a file, and all of them.
_PAIR = re.compile(r"""[(\[]\s*['"](\w+)['"]\s*,\s*['"]([^'"]+)['"]\s*[)\]]""")
_PAIRS = re.compile(rf"\[\s*{_PAIR.pattern}(?:\s*,\s*{_PAIR.pattern})*\s*(?:,\s*)?\]")
# What a list may call the answers, in lower case; nothing is expected of what is open.
_EXPECTED = {
    "sat": "sat",
    "violated": "sat",
    "unsat": "unsat",
    "holds": "unsat",
    **dict.fromkeys(["", "-", "open", "unknown", "timeout", "timed-out"], "open"),
}


def read_instances(path: Path, timeout: float | None = None) -> list[Instance]:
    """The instances of a list: with a line of column names, or without in the order onnx, vnnlib, timeout_s, expected,
    the last of which may be missing. Paths are relative to the list, `timeout` replaces each line's own.

    Raises InputError for a list that cannot be used.
    """
    if not path.is_file():
        raise no_file(path, "a list of instances (onnx,vnnlib,timeout_s,expected)")
    try:
        text = path.read_text(encoding="utf-8-sig")  # any end of line is a line feed now
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.split("\n"), strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a text file with comma-separated values") from error
    numbered = [(number, row) for number, row in enumerate(rows, 1) if any(row)]
    columns = _columns(path, numbered)
    lines = numbered[1:] if columns else numbered
    if not lines:
        raise InputError(f"{path}: the list is empty; it needs the columns onnx,vnnlib,timeout_s,expected")
    return [_instance(path, i, *line, columns or _COLUMNS, timeout) for i, line in enumerate(lines)]


def _columns(path: Path, rows: Sequence[tuple[int, list[str]]]) -> tuple[str, ...]:
    """The names of the columns, if the first row has them."""
    names = tuple(name.lower() for name in rows[0][1]) if rows else ()
    if not set(names) & set(_COLUMNS):
        return ()
    missing = [name for name in _COLUMNS[:3] if name not in names]
    twice = [name for name in _COLUMNS if names.count(name) > 1]
    if missing or twice:
        what = f"lacks the column {missing[0]}" if missing else f"has the column {twice[0]} twice"
        raise InputError(f"{path}: line {rows[0][0]} {what}; it needs the columns onnx,vnnlib,timeout_s,expected")
    return names


def _instance(
    path: Path, index: int, number: int, row: list[str], columns: Sequence[str], timeout: float | None
) -> Instance:
    line = dict(zip(columns, row, strict=False))
    onnx, vnnlib, limit = (line.get(name, "") for name in _COLUMNS[:3])
    if not (onnx and vnnlib and limit) or len(row) > len(columns) or "\0" in onnx + vnnlib:
        raise InputError(f"{path}: line {number} does not have one value for each of onnx,vnnlib,timeout_s,expected")
    try:
        seconds = float(limit)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"{path}: line {number}: timeout_s is not a positive number: {limit!r}")
    expected = _EXPECTED.get(line.get("expected", "").lower())
    if expected is None:
        raise InputError(
            f"{path}: line {number}: expected {line['expected']!r} is not sat, unsat, violated, holds or open"
        )
    named = _named(onnx, path.parent)
    if len({name for name, _ in named}) < len(named):
        raise InputError(f"{path}: line {number} has two networks of one name; write NAME=FILE;NAME=FILE")
    first = named[0][1] if named else _found(path.parent / onnx)
    return Instance(index, first, _found(path.parent / vnnlib), timeout or seconds, expected, named)


def _named(text: str, folder: Path) -> tuple[tuple[str, Path], ...]:
    """The networks in `NAME=FILE;NAME=FILE` or `[('NAME', 'FILE'), ...]`; none in what is the name of one file."""
    pairs = _PAIR.findall(text) if _PAIRS.fullmatch(text) else [_halves(part) for part in text.split(";")]
    if not all(name.isidentifier() and file for name, file in pairs) or _there(folder / text):
        return ()
    return tuple((name, _found(folder / file)) for name, file in pairs)


def _halves(text: str) -> tuple[str, str]:
    name, _, file = text.strip().partition("=")
    return name, file


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # names that the system does not take
        return False


def _found(path: Path) -> Path:
    """The file, or the same compressed, or unpacked: lists and folders do not always agree on that."""
    if not path.name:  # a folder, which is no file however it is called
        return path
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    try:
        return other if other.is_file() and not path.exists() else path
    except OSError:  # names that the system does not take are told where the file is read
        return path


def bench(
    instances: list[Instance],
    options: VerifyOptions,
    certificates: Path | None = None,
    check: bool = False,
    semantics: str = "real",
) -> Iterator[Result]:
    """Verify instance after instance. An instance that cannot be read, or on which something unforeseen fails, whatever
    it is, is an `error`, and the next one follows. Reading counts as part of its time.

    What holds gets a certificate in the folder `certificates`, and with `check` counts only if that is accepted.
    Raises InputError for options that no instance could be verified with.
    """
    check_options(options)
    loaded: dict[tuple[Path, bool], Network] = {}
    for instance in instances:

        def load(path: Path, scores: bool) -> Network:
            if (path, scores) not in loaded:
                loaded.clear()
                loaded[path, scores] = load_onnx(path, scores=scores)
            return loaded[path, scores]

        keeper, others = None, tuple(path for path in instance.files.values() if path != instance.onnx)
        if certificates is not None:
            keeper = Certificates(certificates, instance.onnx, check, semantics, others=others)
        result = verified(instance, load, options, keeper)
        if result.answer == "error":
            loaded.clear()  # what failed may have left something half done, or filled the memory
        yield result


def verified(instance: Instance, load: Load, options: VerifyOptions, keeper: Certificates | None) -> Result:
    """What comes of one instance."""
    cpu, written = cpu_seconds(), None
    try:
        limited = replace(options, timeout=instance.timeout)
        _, outcome = verify_file(instance.vnnlib, instance.files, load, limited, keeper)
        spent = cpu_seconds() - cpu
        if keeper is not None and outcome.reason != EMPTY:
            outcome, written = keeper.write(f"instance-{instance.index}.zip", outcome)
    except (KeyboardInterrupt, GeneratorExit):  # somebody ends the run
        raise
    except BaseException as error:  # extensions raise what is no Exception; the next instance may do
        if shows_tracebacks() and not isinstance(error, InputError):
            raise
        return Result(instance, "error", _why(error), 0.0)
    return Result(instance, answer(outcome), outcome.reason, outcome.seconds, outcome, spent, written)


def _why(error: BaseException) -> str:
    """What an instance failed on, in one line."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and out_of_memory(error)):
        return "not enough memory"
    return internal(error)


def answer(outcome: Outcome) -> str:
    """The verdict in the words of VNN-LIB."""
    if failed(outcome.reason):
        return "error"
    if outcome.verdict is Verdict.UNKNOWN and outcome.reason == "timeout":
        return "timed-out"
    return ANSWERS[outcome.verdict]
