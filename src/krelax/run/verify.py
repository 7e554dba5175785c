"""One specification, one network, one verdict."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from krelax.network.graph import Network
from krelax.problem.query import Specification
from krelax.run.certificates import Certificates
from krelax.run.certify import check_device
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import about_specification
from krelax.search.verdict import Outcome, Verdict

# Seconds that a question has even where reading took all of the time.
_GLANCE = 1.0


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

    Where `certificates` are to be written, an outcome that holds has the proofs that they need.
    Raises InputError if the specification does not fit the network.
    """
    plan = check_options(options)
    began = time.perf_counter()
    outcomes: list[Outcome] = []

    def report(index: int, outcome: Outcome) -> None:
        outcomes.append(outcome)
        if outcome.verdict is Verdict.VIOLATED:
            raise _Enough

    questions = about_specification(network, specification)
    room = None if certificates is None else certificates.room(questions)
    proofs = options.proofs or certificates is not None
    with suppress(_Enough):
        decide(network, questions, plan, report, options.timeout, options.device, proofs=proofs, room=room)
    return combine(outcomes, time.perf_counter() - began)


def remaining(limit: float | None, began: float) -> float | None:
    """What is left of a limit in seconds that counts from `began`, after the files have been read.

    Something always is, so that what can be decided at a glance is decided.
    """
    return None if limit is None else max(limit - (time.perf_counter() - began), min(limit / 2, _GLANCE))


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
