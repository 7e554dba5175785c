"""The maximum over windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations.rule import ASIDE, Ends, Rule
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats


@dataclass(frozen=True)
class Maximum(Rule):
    """The largest of `window` members; entries of the pre-activation come window by window. Those that are `out`,
    `(rows, entries)`, are no larger than one of the others: they are free in their intervals, and not counted."""

    name, float32, elementwise = "maximum", True, False
    window: int
    out: NDArray[np.bool_] | None = None

    @property
    def members(self) -> int:
        return self.window

    def without(self, out: NDArray[np.bool_]) -> Maximum:
        return replace(self, out=out)

    def _counted(self, x: Floats) -> Floats:
        """Members that are out as minus infinity."""
        return x if self.out is None else np.where(self._members(self.out), -np.inf, x)

    def _members(self, x: Array) -> Array:
        """`(rows, entries)` as `(rows, windows, members)`."""
        return x.reshape(len(x), x.shape[1] // self.window, self.window)

    def interval(self, ends: Ends, float32: bool) -> Ends:
        lower, upper = (self._members(z).max(2) for z in ends)
        return lower, upper

    def undecided(self, ends: Ends) -> NDArray[np.bool_]:
        """Members that may be the maximum without having to be."""
        lower, upper = (self._members(z) for z in ends)
        possible = upper > lower.max(2, keepdims=True)
        return (possible & (possible.sum(2, keepdims=True) > 1)).reshape(len(possible), -1)

    def behind(self, coeff: Array) -> Array:
        return coeff[:, np.repeat(np.arange(coeff.shape[1]), self.window)]

    def lines(self, ends: Ends, parallel: bool) -> Ends:
        """The first member whose lower bound is largest, or nearly so. For upper lines, and by "parallel" for both,
        only where it is the maximum, or nearly so."""
        lower, upper = (self._members(z) for z in ends)
        score, highest, least = (self._counted(z) for z in (lower + ASIDE * (upper - lower), upper, lower))
        best = score.max(2, keepdims=True)
        close = score >= best - ASIDE / 2 * (highest.max(2, keepdims=True) - least.max(2, keepdims=True)).clip(0)
        leader = np.arange(self.window) == close.argmax(2)[..., None]
        low, high = (np.where(leader, z, 0.0).sum(2, keepdims=True) for z in (lower, upper))
        rest = np.where(leader, -np.inf, highest).max(2, keepdims=True)
        settled = leader & (rest - low <= ASIDE * (high - low))
        first, second = (x.reshape(len(x), -1) * 1.0 for x in (settled if parallel else leader, settled))
        return first, second

    def price(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        """For `coeff <= 0` the maximum over members that may be the largest. For `coeff > 0` a concave function of the
        maximum t, piecewise linear: members rise with t up to their upper ends, and t need not be more than one of
        those, nor less than the largest lower end. Members that are out do neither."""
        lower, upper = (self._members(z) for z in ends)
        slope, whole, out = self._members(slope), self._members(coeff), self._out(len(coeff))
        least = self._counted(lower).max(2, keepdims=True)
        ends_of = np.where(out, least, np.maximum(upper, least))
        below = [
            self._summed(ar, slope, lower, np.where(out, upper, np.minimum(upper, t)))
            - whole[:, :, 0] * ar.number(t[:, :, 0])
            for t in (least, *(ends_of[:, :, i : i + 1] for i in range(self.window)))
        ]
        member, zero, first = np.arange(self.window), ar.number(np.zeros(())), (~out).argmax(2)
        leaders = [np.where(out[:, :, i], first, i)[:, :, None] for i in member]
        above = [self._summed(ar, slope - ar.where(member == i, whole, zero), lower, upper) for i in leaders]
        positive = self._members(ar.positive(coeff))[:, :, 0]
        return ar.where(positive, reduce(ar.maximum, below), reduce(ar.maximum, above))

    def _out(self, rows: int) -> NDArray[np.bool_]:
        """Members that are out."""
        none = np.zeros((1, 1, self.window), bool)
        return none if self.out is None else np.asarray(self._members(self.out))

    @staticmethod
    def _summed(ar: Arithmetic, slope: Array, lower: Floats, upper: Floats) -> Array:
        """The maximum of a linear form over the members' intervals."""
        return ar.maximum(*(slope * ar.number(z) for z in (lower, upper))).sum(2)

    def reach(self, ends: Ends) -> Floats:
        return np.asarray(self._members(super().reach(ends)).max(2))
