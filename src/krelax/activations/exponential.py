"""Curves made of exponentials and logarithms: exp, log, softplus, ELU and its kin."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from krelax.activations.curve import Curve, Profile
from krelax.errors import UnsupportedError


@dataclass(frozen=True, eq=False)
class Exp(Curve):
    """`exp(z)`."""

    name = "exp"
    rising = True
    profile = Profile("+", range=(0.0, inf))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].exp()

    def derivative(self, z: Tensor) -> Tensor:
        return z.exp()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return (slope.log(),)


@dataclass(frozen=True, eq=False)
class Share(Curve):
    """`exp(min(z, 0))`: what is a share of a whole if z is its logarithm, which is never positive. Bounds of z may not
    know that."""

    name = "share"
    rising = True
    profile = Profile("+-0", (0.0,), range=(0.0, 1.0))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].clamp(max=0).exp()

    def derivative(self, z: Tensor) -> Tensor:
        return torch.where(z <= 0, z.clamp(max=0).exp(), 0.0)

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return (slope.log().clamp(max=0),)


@dataclass(frozen=True, eq=False)
class Log(Curve):
    """`log(z)`, for positive numbers."""

    name = "log"
    rising = True
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
    rising = True
    profile = Profile("+", range=(0.0, inf))

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.logaddexp(inputs[0], torch.zeros_like(inputs[0]))

    def derivative(self, z: Tensor) -> Tensor:
        return z.sigmoid()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return (logit(slope),)


@dataclass(frozen=True, eq=False)
class ELU(Curve):
    """`scale * z` where z is not negative, else `scale * alpha * (exp(z / stretch) - 1)`; UnsupportedError unless all
    three are positive. ELU has `alpha` alone, SELU a `scale`, too, and of CELU alpha is the `stretch`."""

    alpha: float
    scale: float = 1.0
    stretch: float = 1.0

    name = "elu"
    rising = True

    def __post_init__(self) -> None:
        if not all(0 < number < inf for number in (self.alpha, self.scale, self.stretch)):
            raise UnsupportedError("an ELU whose parameters are not positive")

    @property
    def profile(self) -> Profile:  # type: ignore[override]
        bend = "0" if self.alpha == self.stretch else "+" if self.alpha < self.stretch else "-"
        return Profile(f"+{bend}0", (0.0,))

    def forward(self, *inputs: Tensor) -> Tensor:
        negative = self.scale * (self.alpha * (inputs[0].clamp(max=0) / self.stretch).expm1())
        return self.scale * inputs[0].clamp(min=0) + negative

    def derivative(self, z: Tensor) -> Tensor:
        below = (self.scale * self.alpha / self.stretch) * (z / self.stretch).clamp(max=0).exp()
        return torch.where(z < 0, below, self.scale)

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return (self.stretch * (slope * (self.stretch / (self.scale * self.alpha))).log(),)


def logit(share: Tensor) -> Tensor:
    """Where the logistic function is `share`."""
    share = share.clamp(torch.finfo(share.dtype).tiny, 1)
    return torch.log(share) - torch.log1p(-share)
