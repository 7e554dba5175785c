"""The hyperbolic tangent: `2 sigmoid(2 z) - 1`."""

from __future__ import annotations

from krelax.certificate.kernel.activations.sshaped import SShaped


class Tanh(SShaped):
    name = "tanh"
    scale, gain, offset = 2.0, 2.0, -1.0
