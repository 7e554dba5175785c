"""`krelax.verify`: a property of a network in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from krelax.api.tables import Rows, as_html, as_text
from krelax.api.taking import Model, as_network, limit
from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.problem.query import Specification
from krelax.problem.vnnlib import read_vnnlib
from krelax.run.certificates import Certificates, check_target
from krelax.run.verify import VerifyOptions
from krelax.run.verify import verify as run
from krelax.search.verdict import Counterexample, Outcome, Verdict

_ANSWERS = {Verdict.HOLDS: "unsat", Verdict.VIOLATED: "sat", Verdict.UNKNOWN: "unknown"}


@dataclass(frozen=True, repr=False, eq=False)
class Verified:
    """The answer to a property: `krelax.verify` returns it."""

    outcome: Outcome

    @property
    def verdict(self) -> Verdict:
        """`HOLDS` if no input is unsafe, `VIOLATED` if one was found, else `UNKNOWN`."""
        return self.outcome.verdict

    @property
    def answer(self) -> str:
        """The same in the words of VNN-LIB: `unsat`, `sat` or `unknown`."""
        return _ANSWERS[self.verdict]

    @property
    def reason(self) -> str:
        """What gave the answer, or why there is none."""
        return self.outcome.reason

    @property
    def margin(self) -> float | None:
        """A lower bound of the margin, None where nothing was bounded."""
        return self.outcome.margin

    @property
    def counterexample(self) -> Counterexample | None:
        """The unsafe input, and the original model's answer to it."""
        return self.outcome.counterexample

    def _table(self) -> tuple[str, Sequence[str], Rows]:
        margin = "" if self.margin is None else f"{self.margin:.6g}"
        row = (str(self.verdict), self.answer, self.reason, margin, f"{self.outcome.seconds:.2f}")
        return "property", ("verdict", "answer", "reason", "margin", "seconds"), [row]

    def __repr__(self) -> str:
        return as_text(*self._table())

    def _repr_html_(self) -> str:
        return as_html(*self._table())


def verify(
    model: Model,
    specification: Specification | str | Path,
    options: VerifyOptions | None = None,
    *,
    method: str = "auto",
    timeout: float | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    deterministic: bool = False,
    certificate: str | Path | None = None,
) -> Verified:
    """Does a property of a network hold?

    Args:
        model: The path of an ONNX file, or a `krelax.Network`, such as `krelax.from_torch(module, example)`.
        specification: The path of a VNN-LIB file, or what `krelax.read_vnnlib` returns: what must not happen.
        options: The effort as an object, instead of the arguments behind it.
        method: `auto`, or one of `krelax.METHODS` and an attack.
        timeout: Seconds for the search; None for no limit.
        device: `cpu` or `cuda`.
        deterministic: Count work instead of time, so that answers are the same each time.
        certificate: A file for the proof if the property holds. The model must be the path of an ONNX file.

    Returns:
        The answer, which prints as a table.

    Raises:
        InputError: Something does not fit, in one line.

    Sound: yes. What holds is proven, a counterexample was replayed in the original model.
    Complete: with method `auto` and enough time, for ReLUs and leaky ReLUs, and wherever few inputs vary, but for
        margins of exactly zero.
    """
    if not isinstance(model, str | Path | Network):
        raise InputError("give the path of an ONNX file, or krelax.from_torch(module, example)")
    if not isinstance(specification, str | Path | Specification):
        raise InputError(f"the specification is a {type(specification).__name__}; give the path of a VNN-LIB file")
    if not isinstance(options, VerifyOptions | None):
        raise InputError(f"options are a {type(options).__name__}; give VerifyOptions, or the arguments behind them")
    network = as_network(model, ())
    asked = read_vnnlib(specification) if isinstance(specification, str | Path) else specification
    proofs = certificate is not None
    effort = VerifyOptions(method, limit(timeout), device, proofs, deterministic) if options is None else options
    if certificate is None:
        return Verified(run(network, asked, effort))
    if not isinstance(model, str | Path):
        raise InputError("certificates are about the file of a network; give the path of an ONNX file as the model")
    path = Path(certificate)
    check_target(path)
    keeper = Certificates(path.parent, Path(model))
    outcome, _ = keeper.write(path.name, run(network, asked, effort, keeper))
    return Verified(outcome)
