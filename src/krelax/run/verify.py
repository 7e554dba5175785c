"""One specification, one network, one verdict."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from krelax.bounds.instance import OutOfTime
from krelax.network.graph import Network
from krelax.problem.query import Specification
from krelax.run.certificates import Certificates
from krelax.run.certify import check_device
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import about_specification, check_fit
from krelax.search.verdict import Outcome, Verdict

# The reason of what holds because no input satisfies what is assumed.
EMPTY = "no input can be unsafe"


@dataclass(frozen=True)
class VerifyOptions:
    """Effort of a verification; `timeout` is in seconds of wall time. With `proofs`, an outcome that holds has them."""

    method: str = "auto"
    timeout: float | None = None
    device: str = "cpu"
    proofs: bool = False


def check_options(options: VerifyOptions) -> Plan:
    """The plan behind the options. Raises InputError for an unknown method and a device that is not there."""
    check_device(options.device)
    return Plan.of(options.method)


def verify(
    network: Network, specification: Specification, options: VerifyOptions, certificates: Certificates | None = None
) -> Outcome:
    """Does the property hold? HOLDS if every case is impossible, VIOLATED with the first counterexample found.

    Without any case it holds, whatever the network is, and there is nothing to prove. Where `certificates` are to be
    written, an outcome that holds has the proofs that they need. The time limit counts what prepares the search, too.
    Raises InputError if the specification does not fit the network.
    """
    plan, clock = check_options(options), Clock(options.timeout)
    check_fit(network, specification)
    if not specification.cases:
        return Outcome(Verdict.HOLDS, EMPTY, seconds=clock.seconds)
    outcomes: list[Outcome] = []

    def report(index: int, outcome: Outcome) -> None:
        outcomes.append(outcome)
        if outcome.verdict is Verdict.VIOLATED:
            raise _Enough

    try:
        questions = about_specification(network, specification, clock.check)
    except OutOfTime:
        return clock.timeout()
    room = None if certificates is None else certificates.room(questions)
    proofs = options.proofs or certificates is not None
    with suppress(_Enough):
        decide(network, questions, plan, report, clock.left(), options.device, proofs=proofs, room=room)
    return combine(outcomes, clock.seconds)


class Clock:
    """A limit in seconds (None: no limit) that counts from now on."""

    def __init__(self, limit: float | None) -> None:
        self._limit, self._began = limit, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._began

    def check(self) -> None:
        """Raise OutOfTime if the time is up."""
        if self._limit is not None and self.seconds > self._limit:
            raise OutOfTime

    def left(self) -> float | None:
        """What is left of the limit: never less than nothing."""
        return None if self._limit is None else max(0.0, self._limit - self.seconds)

    def timeout(self) -> Outcome:
        """The answer where no time was left to find one."""
        return Outcome(Verdict.UNKNOWN, "timeout", seconds=self.seconds)


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
