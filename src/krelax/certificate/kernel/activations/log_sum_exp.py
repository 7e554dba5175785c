"""The logarithm of the sum of exponentials over windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations.rule import Ends, Rule, unless_lost
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats

# What the C library is trusted to, relatively, and what is lost of numbers that are subnormal.
_ERROR, _TINY = 2.0**-46, 2.0**-900
# The tangent of the logarithm touches it above this number.
_LEAST = 2.0**-60
# Weights, which are to add up to one, are not made of larger slopes.
_STEEPEST = 2.0**20


@dataclass(frozen=True)
class LogSumExp(Rule):
    """`log sum exp(z_j)` of `window` members; entries of the pre-activation come window by window.

    It is at least `sum w_j z_j + H(w)` for weights that add up to one and their entropy H. It is at most
    `top + r s - 1 - log r` for every r > 0, where s is the sum of the chords of `exp(z_j - top)`. Both are linear.
    """

    name = "log-sum-exp"
    window: int

    def _members(self, x: Array) -> Array:
        """`(rows, entries)` as `(rows, windows, members)`."""
        return x.reshape(len(x), x.shape[1] // self.window, self.window)

    def _known(self, ends: Ends) -> tuple[NDArray[np.bool_], Ends]:
        """Windows whose intervals are bounded, and the ends, which are zeros elsewhere."""
        lower, upper = (self._members(z) for z in ends)
        known = np.isfinite(upper - lower).all(2)
        return known, (np.where(known[..., None], lower, 0.0), np.where(known[..., None], upper, 0.0))

    def _error(self, ends: Ends) -> Floats:
        """How far what is computed from numbers between these ends may be off, in terms of one."""
        size = np.maximum(abs(ends[0]), abs(ends[1])).max(2)
        return np.asarray((4 + self.window) * _ERROR * (1 + np.log(self.window) + 2 * size))

    def interval(self, ends: Ends, float32: bool) -> Ends:
        known, ends = self._known(ends)
        (low, high), error = (np.logaddexp.reduce(z, axis=2) for z in ends), self._error(ends)
        return np.where(known, low - error, -np.inf), np.where(known, high + error, np.inf)

    def undecided(self, ends: Ends) -> NDArray[np.bool_]:
        return np.repeat(self._members(ends[1] > ends[0]).any(2), self.window, axis=1)

    def behind(self, coeff: Array) -> Array:
        return coeff[:, np.repeat(np.arange(coeff.shape[1]), self.window)]

    def lines(self, ends: Ends, parallel: bool) -> Ends:
        """The derivative in the middle below; above, and by "parallel" for both, the chords of exponentials, divided by
        the sum in its middle."""
        _, (lower, upper) = self._known(ends)
        top = upper.max(2, keepdims=True)
        first, last = np.exp(lower - top), np.exp(upper - top)
        width = upper - lower
        chord = np.where(width > 0, (last - first) / np.where(width > 0, width, 1.0), last)
        chord = chord / ((first + last).sum(2, keepdims=True) / 2)
        shares = np.exp((lower + upper) / 2 - top)
        shares = chord if parallel else shares / np.maximum(shares.sum(2, keepdims=True), _TINY)
        return shares.reshape(len(shares), -1), chord.reshape(len(chord), -1)

    def price(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        known, box = self._known(ends)
        whole, slope = self._members(coeff), self._members(slope)
        positive = self._members(ar.positive(coeff))[:, :, 0]
        found = ar.where(positive, self._below(ar, whole, slope, box), self._above(ar, whole, slope, box))
        return unless_lost(ar, found, whole[:, :, 0], abs(slope).sum(2), known)

    def _below(self, ar: Arithmetic, whole: Array, slope: Array, ends: Ends) -> Array:
        """The weights are the slopes per coefficient; or the shares at the lower ends, if there is hardly a slope."""
        lower, upper = ends
        with np.errstate(all="ignore"):
            asked = np.clip(np.nan_to_num(ar.floats(slope) / ar.floats(whole), nan=0.0), 0.0, _STEEPEST)
        total = asked.sum(2, keepdims=True)
        shares = np.exp(lower - lower.max(2, keepdims=True))
        weights = np.where(total > 0.5, asked / np.maximum(total, 0.5), shares / shares.sum(2, keepdims=True))
        entropy = -(weights * np.log(np.where(weights > 0, weights, 1.0))).sum(2)
        rest = slope - whole * ar.number(weights)
        error = ar.number(self._error(ends) + (4 + self.window) * _ERROR * entropy)
        found = ar.maximum(rest * ar.number(lower), rest * ar.number(upper)).sum(2)
        return found + whole[:, :, 0] * ar.number(-entropy) + abs(whole[:, :, 0]) * error

    def _above(self, ar: Arithmetic, whole: Array, slope: Array, ends: Ends) -> Array:
        """`log s <= r s - 1 - log r`, with r for which the slopes are most nearly those of the chords."""
        lower, upper = ends
        top = upper.max(2, keepdims=True)
        first, last = np.exp(lower - top), np.exp(upper - top)
        size = abs(whole)
        with np.errstate(all="ignore"):
            given = (ar.floats(slope) * (lower - upper)).sum(2)
            inverse = np.nan_to_num(given / (ar.floats(size)[:, :, 0] * (last - first).sum(2)), nan=0.0, posinf=0.0)
        inverse = np.clip(inverse, 1 / last.sum(2), 1 / np.maximum(first.sum(2), _LEAST))
        share = size * ar.number(np.broadcast_to(inverse[..., None], size.shape))
        at = [slope * ar.number(z) + share * ar.number(e) for z, e in ((lower, first), (upper, last))]
        extent = 1 + abs(np.log(inverse)) + inverse * ((first + last) * (1 + upper - lower)).sum(2) + abs(top[:, :, 0])
        error = self._error(ends) + (4 + self.window) * _ERROR * extent + _TINY
        constant = ar.number(top[:, :, 0] - 1 - np.log(inverse)) + ar.number(error)
        return ar.maximum(*at).sum(2) + size[:, :, 0] * constant

    def reach(self, ends: Ends) -> Floats:
        lower, upper = self.interval(ends, False)
        return np.maximum(abs(lower), abs(upper))
