"""Sigmoid: `1 / (1 + exp(-z))`."""

from __future__ import annotations

from krelax.certificate.kernel.activations.sshaped import SShaped


class Sigmoid(SShaped):
    name = "sigmoid"
    scale, gain, offset = 1.0, 1.0, 0.0
