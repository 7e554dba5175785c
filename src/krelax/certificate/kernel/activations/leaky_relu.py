"""Leaky ReLU: `max(z, 0) + negative_slope * min(z, 0)`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations.relu import ReLU
from krelax.certificate.kernel.activations.rule import Ends
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats

# The least positive float32 number that is not subnormal.
_LEAST_NORMAL = 2.0**-126


@dataclass(frozen=True)
class LeakyReLU(ReLU):
    """The larger of two lines, of slopes 1 and `negative_slope` in (0, 1]. The product with the slope rounds."""

    name = "leaky ReLU"
    negative_slope: float

    @property
    def pieces(self) -> tuple[float, float]:
        return self.negative_slope, 1.0

    @property
    def obstacle(self) -> str | None:
        return "leaky ReLU whose slope is subnormal" if self.negative_slope < _LEAST_NORMAL else None

    def interval(self, ends: Ends, float32: bool) -> Ends:
        relative, least = (2.0**-22, 2.0**-120) if float32 else (2.0**-50, 2.0**-1000)
        low, high = (self.negative_slope * np.minimum(z, 0) for z in ends)
        low, high = low - relative * abs(low) - least, high + relative * abs(high) + least
        return np.maximum(ends[0], 0) + low, np.maximum(ends[1], 0) + high

    def linear(self, ends: Ends) -> NDArray[np.bool_]:
        return ends[0] >= 0

    def executed(self, ends: Ends) -> Floats:
        return 2.0**-23 * self.negative_slope * np.maximum(-ends[0], 0) + 2.0**-120

    def reach(self, ends: Ends) -> Floats:
        """With something for products with the slope that underflow."""
        return super().reach(ends) + 2.0**-900

    def _value(self, ar: Arithmetic, z: Floats) -> Array:
        negative = ar.number(np.asarray(self.negative_slope)) * ar.number(np.minimum(z, 0.0))
        return ar.number(np.maximum(z, 0.0)) + negative
