"""Whole lists of instances: `onnx,vnnlib,timeout_s,expected`, one line each."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from krelax.errors import InputError, failed, internal, shows_tracebacks
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.problem.vnnlib import read_vnnlib
from krelax.run.certificates import Certificates, Semantics, Written
from krelax.run.certify import counterexample_lists
from krelax.run.verify import VerifyOptions, check_options, remaining, verify
from krelax.search.processes import cpu_seconds
from krelax.search.verdict import Outcome, Verdict

ANSWERS = {Verdict.HOLDS: "unsat", Verdict.VIOLATED: "sat", Verdict.UNKNOWN: "unknown"}


@dataclass(frozen=True)
class Instance:
    """A line of the list; `expected` is sat, unsat, or anything else for no trusted answer."""

    index: int
    onnx: Path
    vnnlib: Path
    timeout: float
    expected: str


@dataclass(frozen=True, eq=False)
class Result:
    """What came of an instance: `answer` is sat, unsat, unknown, timed-out or error; `seconds` of wall and CPU time."""

    instance: Instance
    answer: str
    reason: str
    seconds: float
    outcome: Outcome | None = None
    cpu: float = 0.0
    certificate: Written | None = None

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
            "onnx": self.instance.onnx.name,
            "vnnlib": self.instance.vnnlib.name,
            "expected": self.instance.expected,
            "answer": self.answer,
            "reason": self.reason,
            "seconds": round(self.seconds, 4),
            "cpu": round(self.cpu, 4),
        }
        if self.outcome is not None and self.outcome.counterexample is not None:
            record["counterexample"] = counterexample_lists(self.outcome.counterexample)
        if self.certificate is not None:
            record["certificate"] = self.certificate.record()
        return record


def read_instances(path: Path, timeout: float | None = None) -> list[Instance]:
    """The instances of a list; paths are relative to it, `timeout` replaces each line's own.

    Raises InputError for a list that cannot be used.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a list of instances (onnx,vnnlib,timeout_s,expected)")
    try:
        lines = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a text file with comma-separated values") from error
    if not lines:
        raise InputError(f"{path}: the list is empty; it needs the columns onnx,vnnlib,timeout_s,expected")
    return [_instance(path, i, line, timeout) for i, line in enumerate(lines)]


def _instance(path: Path, index: int, line: dict[str, str | None], timeout: float | None) -> Instance:
    values = [line.get(name) for name in ("onnx", "vnnlib", "timeout_s")]
    if not all(values):
        raise InputError(f"{path}: line {index + 2} lacks one of the columns onnx, vnnlib, timeout_s")
    onnx, vnnlib, limit = (str(v) for v in values)
    try:
        seconds = float(limit)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"{path}: line {index + 2}: timeout_s is not a positive number: {limit!r}")
    expected = str(line.get("expected") or "open").strip().lower()
    return Instance(index, path.parent / onnx, path.parent / vnnlib, timeout or seconds, expected)


def bench(
    instances: list[Instance],
    options: VerifyOptions,
    certificates: Path | None = None,
    check: bool = False,
    semantics: Semantics = "real",
) -> Iterator[Result]:
    """Verify instance after instance. An instance that cannot be read, or on which something unforeseen fails, is an
    `error`, and the next one follows. Reading counts as part of its time.

    What holds gets a certificate in the folder `certificates`, and with `check` counts only if that is accepted.
    Raises InputError for options that no instance could be verified with.
    """
    check_options(options)
    loaded: tuple[Path, Network] | None = None
    for instance in instances:
        keeper = None if certificates is None else Certificates(certificates, instance.onnx, check, semantics)
        cpu, began, written = cpu_seconds(), time.perf_counter(), None
        try:
            if loaded is None or loaded[0] != instance.onnx:
                loaded = instance.onnx, load_onnx(instance.onnx)
            specification = read_vnnlib(instance.vnnlib)
            limited = replace(options, timeout=remaining(instance.timeout, began))
            outcome = verify(loaded[1], specification, limited, keeper)
            spent = cpu_seconds() - cpu
            if keeper is not None:
                outcome, written = keeper.write(f"instance-{instance.index}.zip", outcome)
        except Exception as error:  # whatever it is, the next instance may do
            if shows_tracebacks() and not isinstance(error, InputError):
                raise
            reason = str(error) if isinstance(error, InputError) else internal(error)
            yield Result(instance, "error", reason, 0.0)
            continue
        yield Result(instance, answer(outcome), outcome.reason, outcome.seconds, outcome, spent, written)


def answer(outcome: Outcome) -> str:
    """The verdict in the words of VNN-LIB."""
    if failed(outcome.reason):
        return "error"
    if outcome.verdict is Verdict.UNKNOWN and outcome.reason == "timeout":
        return "timed-out"
    return ANSWERS[outcome.verdict]
