"""ReLU: `max(z, 0)`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations.rule import ASIDE, Ends, Rule
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats


class ReLU(Rule):
    """`max(z, 0)`, the larger of two lines: supports are attained at an end or at zero."""

    name, float32 = "ReLU", True

    @property
    def pieces(self) -> tuple[float, float]:
        return 0.0, 1.0

    def interval(self, ends: Ends, float32: bool) -> Ends:
        return np.maximum(ends[0], 0), np.maximum(ends[1], 0)

    def undecided(self, ends: Ends) -> NDArray[np.bool_]:
        return (ends[0] < 0) & (ends[1] > 0)

    def linear(self, ends: Ends) -> NDArray[np.bool_]:
        return (ends[0] >= 0) | (ends[1] <= 0)

    def lines(self, ends: Ends, parallel: bool) -> Ends:
        (lower, upper), (slope, one) = ends, self.pieces
        chord = (np.maximum(upper, 0) - slope * np.minimum(lower, 0)) / np.where(upper > lower, upper - lower, 1.0)
        low = chord if parallel else np.where(upper > -lower * (1 + ASIDE), one, slope)
        undecided, own = self.undecided(ends), np.where(lower >= 0, one, slope)
        return np.where(undecided, low, own), np.where(undecided, chord, own)

    def chosen(self, lines: Ends, ends: Ends, fraction: Floats, upper: Floats | None) -> Ends:
        """Inside a sum, lines can be better than the neuron's own: with the slope of an upper line the fraction counts
        even where the neuron is decided."""
        slope = self.pieces[0]
        fixed = ~self.undecided(ends)
        if upper is not None:
            fixed = fixed & np.isnan(upper)
            lines = lines[0], np.where(np.isnan(upper), lines[1], upper)
        return np.where(fixed | np.isnan(fraction), lines[0], slope + (1 - slope) * fraction), lines[1]

    def price(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        best = ar.maximum(*(slope * ar.number(z) - coeff * self._value(ar, z) for z in ends))
        return ar.where(self.undecided(ends), ar.maximum(best, ar.number(np.zeros(()))), best)

    def _value(self, ar: Arithmetic, z: Floats) -> Array:
        return ar.number(np.maximum(z, 0.0))
