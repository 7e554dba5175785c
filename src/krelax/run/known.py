"""What is known of the radius of one image, while it is sought."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from krelax.errors import one_line
from krelax.run.attacked import Refuted
from krelax.run.certify import counterexample_record
from krelax.search.verdict import Outcome


@dataclass(frozen=True)
class Open:
    """A radius that was given up after so many seconds (infinite where more are no help), and the margin that was
    missing there, as proposed: of the worst part that was left; -inf where nothing is known of it."""

    radius: Fraction
    seconds: float
    margin: float = -math.inf


@dataclass
class State:
    """What is known of one image: radii that are certified, refuted, and were given up, and the time it took. `clean`
    is the margin of the image itself, and `cost` the seconds in which the largest radius was certified."""

    index: int
    label: int
    predicted: int
    certified: Fraction | None = None
    refuted: Refuted | None = None
    open: list[Open] = field(default_factory=list)
    clean: float = 0.0
    cost: float = 0.0
    reason: str = ""
    seconds: float = 0.0
    certificate: dict[str, object] | None = None
    tries: list[dict[str, Any]] = field(default_factory=list)

    def tried(self, radius: Fraction, outcome: Outcome, seconds: float) -> None:
        """Write down what came of a radius that was to be certified."""
        found = {"radius": float(radius), "verdict": outcome.verdict.value, "reason": outcome.reason}
        self.tries.append({**found, "seconds": round(seconds, 4)})

    def certify(self, radius: Fraction, seconds: float) -> None:
        """It is certified at a radius, which took so long."""
        self.certified, self.cost = radius, seconds
        self.open = [o for o in self.open if o.radius > radius]

    def refute(self, found: Refuted) -> None:
        """It is refuted at a radius."""
        self.refuted = found
        self.open = [o for o in self.open if o.radius < found.radius]

    def give_up(self, radius: Fraction, seconds: float, margin: float = -math.inf) -> None:
        """It was given up at a radius, after so long."""
        self.open = [o for o in self.open if o.radius != radius] + [Open(radius, seconds, margin)]

    @property
    def lowest(self) -> Open | None:
        """The smallest radius that was given up."""
        return min(self.open, key=lambda o: o.radius, default=None)

    def record(self) -> dict[str, Any]:
        """For a journal."""
        found: dict[str, Any] = {
            "index": self.index,
            "label": self.label,
            "predicted": self.predicted,
            "certified": None if self.certified is None else float(self.certified),
            "refuted": None if self.refuted is None else float(self.refuted.radius),
            "reason": one_line(self.reason),
            "seconds": round(self.seconds, 4),
            "tries": self.tries,
        }
        if self.refuted is not None:
            found["counterexample"] = counterexample_record(self.refuted.found)
        return found | ({} if self.certificate is None else {"certificate": self.certificate})
