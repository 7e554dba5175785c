"""Regions of inputs, and the minimum of linear forms over them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from krelax.certificate.format import schema as stored
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats, Rows, gamma

# The least positive float32 number that is not subnormal.
LEAST_NORMAL = 2.0**-126


@dataclass(frozen=True, eq=False)
class Region:
    """Boxes `(regions, inputs)`, or one ball `||x - centre||_p <= eps` cut by a box; `kind` is "box", "l2" or "l1"."""

    lower: Floats
    upper: Floats
    kind: str = "box"
    centre: Floats | None = None
    eps: float = 0.0

    @classmethod
    def of(cls, region: stored.Region) -> Region:
        """A region as stored, which must have been checked."""
        centre = None if region.centre is None else region.centre[None]
        return cls(region.lower[None], region.upper[None], region.kind, centre, region.eps or 0.0)

    def largest(self) -> Floats:
        """Largest absolute value of each input."""
        return np.maximum(abs(self.lower), abs(self.upper))

    def flushed(self) -> Region:
        """The region, and where its points lie when float32 numbers that are subnormal are taken for zero."""
        lower = np.where((self.lower > 0) & (self.lower < LEAST_NORMAL), 0.0, self.lower)
        upper = np.where((self.upper < 0) & (self.upper > -LEAST_NORMAL), 0.0, self.upper)
        eps = float(np.nextafter(self.eps + self.lower.size * LEAST_NORMAL, np.inf))
        return replace(self, lower=lower, upper=upper, eps=eps)

    def minimise(self, ar: Arithmetic, c: Array, which: Rows) -> Array:
        """Lower bounds of `<c, x>`, `(rows, inputs) -> (rows,)`, each over one of the boxes, or over the ball."""
        terms = 2 * c.shape[1] + 64
        lower, upper = ar.number(self.lower[which]), ar.number(self.upper[which])
        below = ar.maximum(-c, ar.number(np.zeros(())))
        value = ar.dot(c + below, lower) - ar.dot(below, upper)
        best = value - self._charge(ar, c, self.largest()[which], terms)
        if self.centre is not None:
            best = ar.maximum(best, self._over_ball(ar, c, self.centre, terms))
        return best

    def _over_ball(self, ar: Arithmetic, c: Array, centre: Floats, terms: int) -> Array:
        norm = ar.root((c * c).sum(1)) if self.kind == "l2" else ar.largest(abs(c))
        norm = norm * ar.number(np.asarray(1 + gamma(terms, ar.unit)))
        value = ar.dot(c, ar.number(centre)) - norm * ar.number(np.asarray(self.eps))
        return value - self._charge(ar, c, abs(centre) + self.eps, terms)

    def _charge(self, ar: Arithmetic, c: Array, largest: Floats, terms: int) -> Array:
        """What rounding can have changed."""
        if not ar.unit:
            return ar.number(np.zeros(()))
        return gamma(terms, ar.unit) * ar.dot(abs(c), largest) + terms * ar.tiny * (1 + largest.sum(1))
