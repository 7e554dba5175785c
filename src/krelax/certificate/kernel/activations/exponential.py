"""Curves made of exponentials and logarithms."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from krelax.certificate.kernel.activations.curve import Curve
from krelax.certificate.kernel.arithmetic import Floats


class Exp(Curve):
    """`exp(z)`."""

    name, range = "exp", (0.0, inf)

    def act(self, z: Floats) -> Floats:
        return np.exp(z)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return np.exp(z)

    def stationary(self, slope: Floats, piece: int) -> Floats:
        return np.log(np.maximum(slope, 0.0))


class Share(Curve):
    """`exp(min(z, 0))`."""

    name, range, turns = "share", (0.0, 1.0), (0.0,)

    def act(self, z: Floats) -> Floats:
        return np.exp(np.minimum(z, 0.0))

    def derivative(self, z: Floats, piece: int) -> Floats:
        return np.zeros(np.shape(z)) if piece else np.exp(np.minimum(z, 0.0))

    def stationary(self, slope: Floats, piece: int) -> Floats:
        return np.zeros(np.shape(slope)) if piece else np.log(np.clip(slope, 0.0, 1.0))


class Log(Curve):
    """`log(z)`, for positive numbers."""

    name, domain = "log", (0.0, inf)

    def act(self, z: Floats) -> Floats:
        return np.log(z)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return 1 / z

    def stationary(self, slope: Floats, piece: int) -> Floats:
        return np.where(slope > 0, 1 / slope, inf)


class Softplus(Curve):
    """`log(1 + exp(z))`."""

    name, range = "softplus", (0.0, inf)

    def act(self, z: Floats) -> Floats:
        return np.logaddexp(z, 0.0)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return np.exp(-np.logaddexp(-z, 0.0))

    def stationary(self, slope: Floats, piece: int) -> Floats:
        share = np.clip(slope, 0.0, 1.0)
        return np.log(share) - np.log1p(-share)


@dataclass(frozen=True)
class ELU(Curve):
    """`scale * z` above zero, else `scale * alpha * (exp(z / stretch) - 1)`; of positive numbers."""

    name, turns = "ELU", (0.0,)
    alpha: float
    scale: float = 1.0
    stretch: float = 1.0

    def act(self, z: Floats) -> Floats:
        return np.where(z > 0, self.scale * z, self.scale * self.alpha * np.expm1(np.minimum(z, 0.0) / self.stretch))

    def derivative(self, z: Floats, piece: int) -> Floats:
        if piece:
            return np.full(np.shape(z), self.scale)
        return self.scale * self.alpha / self.stretch * np.exp(np.minimum(z, 0.0) / self.stretch)

    def stationary(self, slope: Floats, piece: int) -> Floats:
        return self.stretch * np.log(np.maximum(slope * (self.stretch / (self.scale * self.alpha)), 0.0))
