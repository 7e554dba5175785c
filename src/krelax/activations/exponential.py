"""Curves made of exponentials and logarithms: exp, log, softplus."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from krelax.activations.curve import Curve, Profile


@dataclass(frozen=True, eq=False)
class Exp(Curve):
    """`exp(z)`."""

    name = "exp"
    profile = Profile("+", range=(0.0, inf))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].exp()

    def derivative(self, z: Tensor) -> Tensor:
        return z.exp()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return (slope.log(),)


@dataclass(frozen=True, eq=False)
class Log(Curve):
    """`log(z)`, for positive numbers."""

    name = "log"
    profile = Profile("-", domain=(0.0, inf))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].log()

    def derivative(self, z: Tensor) -> Tensor:
        return 1 / z

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return (1 / slope,)


@dataclass(frozen=True, eq=False)
class Softplus(Curve):
    """`log(1 + exp(z))`."""

    name = "softplus"
    profile = Profile("+", range=(0.0, inf))

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.logaddexp(inputs[0], torch.zeros_like(inputs[0]))

    def derivative(self, z: Tensor) -> Tensor:
        return z.sigmoid()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return (logit(slope),)


def logit(share: Tensor) -> Tensor:
    """Where the logistic function is `share`."""
    share = share.clamp(torch.finfo(share.dtype).tiny, 1)
    return torch.log(share) - torch.log1p(-share)
