"""Certificates of what holds: written as answers come, and checked by a program that shares no code with the search."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from torch import Tensor

from krelax._version import __version__
from krelax.certificate.check import check, joint_of
from krelax.certificate.errors import Malformed, Rejected, TooClose
from krelax.certificate.format.archive import is_certificate, read, write
from krelax.certificate.format.families import packed
from krelax.certificate.format.schema import Certificate, System
from krelax.certificate.format.semantics import units_of
from krelax.certificate.kernel.arithmetic import Exact
from krelax.certificate.kernel.bounds import check_executable
from krelax.certificate.kernel.network import Network
from krelax.certificate.onnx.model import Model, read_model
from krelax.certificate.onnx.reader import read_file
from krelax.errors import InputError, KrelaxError, internal, shows_tracebacks
from krelax.run.files import replacing
from krelax.run.required import required_for_float32, required_for_real
from krelax.run.systems import hash_of
from krelax.search.pipeline import Plan
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict


@dataclass(frozen=True)
class Written:
    """A certificate's file and its size in bytes. If it was checked: how many seconds that took, and the smallest
    margin that it proves."""

    path: Path
    size: int
    seconds: float | None = None
    margin: float | None = None

    def record(self) -> dict[str, object]:
        """For a journal."""
        facts = {"file": self.path.name, "bytes": self.size, "checked": self.margin, "check_seconds": self.seconds}
        return {name: value for name, value in facts.items() if value is not None}


def check_target(path: Path) -> None:
    """Raises InputError where a certificate would replace something that is none."""
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give a file for the certificate")
        if path.is_file() and path.stat().st_size and not is_certificate(path):
            raise InputError(f"{path}: exists and is not a certificate; give another file for it")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


@dataclass(frozen=True)
class Certificates:
    """Where certificates about the network in file `model` are written, about its output called `output`, or the only
    one of numbers, and whether to check them at once. Certificates may be about `others`, files of networks, too.

    Certificates with `semantics` "float32" are about every execution of the network in float32, in any order of
    summation; with "float32:N" of those that compute functions to within N units in the last place. Proofs are found
    for the function of real numbers, with margins that leave something for rounding, and only the checker can judge
    whether they hold for those, too: such certificates are always checked. Raises InputError where the model cannot be
    read, the folder cannot be made, or nothing has these semantics.
    """

    folder: Path
    model: Path
    check: bool = False
    semantics: str = "real"
    output: str | None = None
    others: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        units_of(self.semantics)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot be a folder for certificates ({error.strerror})"
            raise InputError(f"{self.folder}: {what}; give another path") from error

    @property
    def checks(self) -> bool:
        """Whether certificates are checked as they are written."""
        return self.check or self.executed

    @property
    def executed(self) -> bool:
        """Whether certificates are about executions."""
        return self.semantics != "real"

    def obstacle(self, scores: bool = True) -> str | None:
        """Why no certificate about this network can be accepted, or about its `scores`, which questions only compare;
        None if nothing is known to be in the way, and where none is checked."""
        if not self.checks:
            return None
        try:
            network, exact = self._read(scores), Exact()
            if self.executed:
                check_executable(network.over(exact), exact)
        except KrelaxError as error:
            return str(error)
        return None

    def provable(self, plan: Plan, system: System | None = None) -> Plan:
        """The plan without what no certificate of these semantics can say: executions in float32 need not compute what
        goes through a bottleneck, and what is one of a system need not be one for the checker."""
        return plan.without("bottleneck") if self.executed or system is not None else plan

    def required_margins(self, questions: Questions, system: System | None = None) -> Tensor | None:
        """What bounds of margins should be above, `(questions,)`, so that the checker, which charges for rounding, will
        find them positive. None for a network, or `system`, that the checker does not read."""
        try:
            required = required_for_float32 if self.executed else required_for_real
            read = self._read(questions.compares) if system is None else joint_of(system, self._models)[0]
            return required(read, questions)
        except KrelaxError:
            return None

    @property
    def _models(self) -> list[Model]:
        return [read_model(path) for path in (self.model, *self.others)]

    def _read(self, scores: bool) -> Network:
        """The network as the checker reads it for questions that only compare outputs, or for others."""
        network, units = read_file(read_model(self.model), self.output, scores)[0], units_of(self.semantics)
        return network if units is None else network.executing(units)

    @cached_property
    def _hash(self) -> str:
        return hash_of(self.model)

    def _certificate(self, outcome: Outcome) -> Certificate:
        tool, proofs, units = f"krelax {__version__}", list(outcome.proofs), units_of(self.semantics)
        if outcome.system is not None:
            return packed(Certificate(None, "real", tool, proofs, system=outcome.system))
        kind: Literal["real", "float32"] = "float32" if self.executed else "real"
        return packed(Certificate(self._hash, kind, tool, proofs, self.output, units=units))

    def write(self, name: str, outcome: Outcome) -> tuple[Outcome, Written | None]:
        """Write the certificate of an outcome that holds in file `name`. The outcome becomes UNKNOWN if it is to be
        checked and is not accepted, or the checker does not read the network."""
        if outcome.verdict is not Verdict.HOLDS:
            return outcome, None
        try:
            return self._written(self.folder / name, outcome)
        except Exception as error:  # a proof that cannot be written down is none
            if isinstance(error, KrelaxError) or shows_tracebacks():
                raise
            return replace(outcome, verdict=Verdict.UNKNOWN, reason=internal(error), proofs=()), None

    def keep(self, name: str, content: bytes) -> Path:
        """Write a certificate that was made, and checked if that was wanted, on another machine. The path of its file.
        Raises InputError where that fails."""
        path = self.folder / name
        check_target(path)
        try:
            with replacing(path) as file:
                file.write(content)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
        return path

    def _written(self, path: Path, outcome: Outcome) -> tuple[Outcome, Written]:
        check_target(path)
        try:
            write(path, self._certificate(outcome))
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
        written = Written(path, path.stat().st_size)
        if not self.checks:
            return outcome, written
        began = time.perf_counter()
        try:
            margin = min(check(read(path), self._models))
        except KrelaxError as error:
            reason = f"{self._refusal(error)}: {error}"
            return replace(outcome, verdict=Verdict.UNKNOWN, reason=reason, proofs=()), written
        return outcome, replace(written, seconds=round(time.perf_counter() - began, 4), margin=margin)

    def _refusal(self, error: KrelaxError) -> str:
        """What became of a certificate that is not accepted, in a few words."""
        if isinstance(error, TooClose):
            return "the bound is within rounding of zero"
        if isinstance(error, Rejected | Malformed):
            return "not shown for float32" if self.executed else "certificate not accepted"
        return "certificate not checked"
