"""What is known of the radius of one image, while it is sought."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from krelax.errors import one_line
from krelax.run.attacked import Refuted
from krelax.run.certify import counterexample_record


@dataclass
class State:
    """What is known of one image: radii that are certified, refuted, and were given up, and the time it took. `clean`
    is the margin of the image itself, and `reached` the best one that was proven where it was given up."""

    index: int
    label: int
    predicted: int
    certified: Fraction | None = None
    refuted: Refuted | None = None
    open: Fraction | None = None
    clean: float = 0.0
    reached: float | None = None
    reason: str = ""
    seconds: float = 0.0
    certificate: dict[str, object] | None = None
    tries: list[dict[str, Any]] = field(default_factory=list)

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
