"""One specification, one network, one verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from krelax.bounds.instance import OutOfTime
from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.network.onnx_file import read_model
from krelax.problem.query import Specification
from krelax.problem.vnnlib import read_vnnlib
from krelax.run.certificates import Certificates
from krelax.run.certify import check_device
from krelax.search.excluded import without_excluded
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import about_specification, check_fit
from krelax.search.verdict import Outcome, Verdict
from krelax.watch import watched

# The reason of what holds because no input satisfies what is assumed.
EMPTY = "no input can be unsafe"

# Seconds that a question has even where reading took all of the time.
_GLANCE = 1.0


@dataclass(frozen=True)
class VerifyOptions:
    """Effort of a verification; `timeout` is in seconds of wall time, or of work where it is `deterministic`: nothing
    but the search counts then. With `proofs`, an outcome that holds has them."""

    method: str = "auto"
    timeout: float | None = None
    device: str = "cpu"
    proofs: bool = False
    deterministic: bool = False

    @property
    def seconds(self) -> float | None:
        """The limit of wall time."""
        return None if self.deterministic else self.timeout


def check_options(options: VerifyOptions) -> Plan:
    """The plan behind the options. Raises InputError for an unknown method and a device that is not there."""
    check_device(options.device)
    return Plan.of(options.method)


class Clock:
    """A limit in seconds (None: no limit) that counts from now on, or from when `time.perf_counter()` read `began`."""

    def __init__(self, limit: float | None, began: float | None = None) -> None:
        self._limit, self._began = limit, time.perf_counter() if began is None else began

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._began

    def over(self, since: float = 0.0) -> bool:
        """Whether the time has been up for so many seconds."""
        return self._limit is not None and self.seconds > self._limit + since

    def check(self) -> None:
        """Raise OutOfTime if the time is up."""
        if self.over():
            raise OutOfTime

    def left(self) -> float | None:
        """What is left of the limit. Something always is, so that what can be decided at a glance is decided."""
        return None if self._limit is None else max(self._limit - self.seconds, min(self._limit / 2, _GLANCE))

    def timeout(self) -> Outcome:
        """The answer where no time was left to find one."""
        return Outcome(Verdict.UNKNOWN, "timeout", seconds=self.seconds)


def verify(
    network: Network, specification: Specification, options: VerifyOptions, certificates: Certificates | None = None
) -> Outcome:
    """Does a property hold?

    Args:
        network: The network.
        specification: The property: cases that would be unsafe, each a region of inputs and conditions on outputs.
            Without any case it holds, whatever the network is, and there is nothing to prove.
        options: With what effort. The time limit counts what prepares the search, too.
        certificates: Where proofs are written, if an outcome that holds is to have them.

    Returns:
        HOLDS if every case is impossible, VIOLATED with the first counterexample found, and else UNKNOWN with the
        reason.

    Raises:
        InputError: The specification does not fit the network, or the options are none.

    Sound: yes. What holds is proven, a counterexample was replayed in the original model.
    Complete: with method `auto` and enough time, for ReLUs and leaky ReLUs, and wherever few inputs vary, but for
        margins of exactly zero.
    """
    plan, clock = check_options(options), Clock(options.seconds)
    check_fit(network, specification)
    if not specification.cases:
        return Outcome(Verdict.HOLDS, EMPTY, seconds=clock.seconds)
    proofs = options.proofs or certificates is not None
    outcomes: list[Outcome] = []

    def report(index: int, outcome: Outcome) -> None:
        outcomes.append(outcome)
        if outcome.verdict is Verdict.VIOLATED:
            raise _Enough

    try:
        if not proofs:  # certificates are about closures
            specification = without_excluded(network, specification, clock.check)
            if not specification.cases:
                return Outcome(Verdict.HOLDS, "interval", seconds=clock.seconds)
        questions = about_specification(network, specification, clock.check)
    except OutOfTime:
        return clock.timeout()
    required = None
    if certificates is not None:
        required, plan = certificates.required_margins(questions), certificates.provable(plan)
    with suppress(_Enough):
        left = options.timeout if options.deterministic else clock.left()
        decide(network, questions, plan, report, left, options.device, None, proofs, required, options.deterministic)
    return combine(outcomes, clock.seconds)


def verify_file(
    query: Path,
    model: Path,
    load: Callable[[bool], Network],
    options: VerifyOptions,
    certificates: Certificates | None = None,
    name: str | None = None,
) -> tuple[Specification | None, Outcome]:
    """As `verify`, for the property in a file and the network that `load` reads from the file `model`, called `name`.
    `load` is told whether the property only compares outputs: then the scores before a head will do.

    Reading counts against the limit of time; if it took all of that, there is no specification. Raises InputError for
    what cannot be read, and for declarations that the network does not match.
    """
    check_options(options)
    clock = Clock(options.seconds)
    try:
        specification = read_vnnlib(query, clock.check)
    except OutOfTime:
        return None, clock.timeout()
    if None not in (name, specification.network) and name != specification.network:
        raise InputError(f"{query}: is about the network {specification.network}, not {name}; correct one of the names")
    try:
        with watched(lambda: clock.over(_GLANCE)):
            network = load(specification.compares)
    except OutOfTime:
        return specification, clock.timeout()
    _check_labels(query, model, specification, network)
    left = options.timeout if options.deterministic else clock.left()
    return specification, verify(network, specification, replace(options, timeout=left), certificates)


def _check_labels(query: Path, model: Path, specification: Specification, network: Network) -> None:
    """Raises InputError if the network's input and output have other names than a specification says."""
    if specification.labels == (None, None):
        return
    graph = read_model(model)[0].graph
    constants = {constant.name for constant in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    outputs = [network.output] if network.output else [value.name for value in graph.output]
    for declared, own in zip(specification.labels, (inputs, outputs), strict=True):
        if declared is not None and [declared] != own:
            raise InputError(f"{query}: declares {declared!r}, but the network calls it {own[0]!r}; correct the name")


class _Enough(Exception):
    """One counterexample answers the whole specification."""


def combine(outcomes: list[Outcome], seconds: float) -> Outcome:
    """The answer to a union of unsafe cases from the answers to each."""
    for verdict in (Verdict.VIOLATED, Verdict.UNKNOWN):
        for outcome in outcomes:
            if outcome.verdict is verdict:
                return Outcome(verdict, outcome.reason, _worst(outcomes), seconds, outcome.counterexample)
    reasons = sorted({outcome.reason for outcome in outcomes})
    proofs = tuple(p for outcome in outcomes for p in outcome.proofs)
    return Outcome(Verdict.HOLDS, " + ".join(reasons), _worst(outcomes), seconds, proofs=proofs)


def _worst(outcomes: list[Outcome]) -> float | None:
    return min((o.margin for o in outcomes if o.margin is not None), default=None)
