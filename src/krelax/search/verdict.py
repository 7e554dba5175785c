"""Verdicts: three of them, unknown by default, and none without its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from numpy.typing import NDArray

from krelax.certificate.format.schema import Question, System


class Verdict(StrEnum):
    """HOLDS is proven, VIOLATED comes with a replayed counterexample, everything else is UNKNOWN."""

    HOLDS = "holds"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Counterexample:
    """An input inside the region as it is written, in the type of the original model, and what that answered to it.

    Where the region holds no number of that type, `exact` has the entries, flattened, as text, and `x` the numbers next
    to them. Where images are transformed, `parameters` says how.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    exact: Mapping[int, str] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """What one stage did for a region: its name, the region's share of its wall time in seconds, and the margin that it
    proved (None where it bounds nothing)."""

    name: str
    seconds: float
    margin: float | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """The answer for one region: verdict, the method or reason behind it, the best proven margin, seconds spent.

    `margin` is a lower bound of the property's margin over the region (None if nothing was bounded); `seconds` is
    this region's equal share of the wall time of every batch it was worked on in, and `stages` say what it was spent
    on. `proofs` are what a certificate says of the region, if one was asked for. `worst` is the margin of the worst
    part of the region that a search gave up, as proposed (-inf where nothing is known): it says how much is missing.
    Proofs are about a `system` of networks if there is one.
    """

    verdict: Verdict
    reason: str
    margin: float | None = None
    seconds: float = 0.0
    counterexample: Counterexample | None = None
    proofs: tuple[Question, ...] = ()
    stages: tuple[Stage, ...] = ()
    worst: float = -math.inf
    system: System | None = None


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
