"""Curves that are z times a gate from 0 to 1: SiLU, GELU in both forms, mish, hard swish.

They are concave, convex between two turns, and concave again. Where the derivative has a given value has no closed
form, but for hard swish: a table proposes a point, and Newton's method closes in on it. How far it may still be from
there is charged, so that nothing rests on convergence.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from math import inf, pi, sqrt

import torch
from torch import Tensor

from krelax.activations.curve import Curve, Profile

_NODES, _NEWTON = 1024, 4
# Behind these the derivative is that of 0, or of z, up to what no number is left of, or to the last digit.
_LEFT, _RIGHT = -700.0, 40.0
_ROOT_2, _ROOT_2_PI = sqrt(2.0), sqrt(2 * pi)
# Far behind where a gate is 0 or 1.
_SATURATED = 1e6
_TANH_GAIN, _TANH_CUBE, _NEAR = sqrt(2 / pi), 0.044715, 2.0**-7
_HALVINGS = 60


class Gated(Curve):
    """A curve with a table of its derivative on each of its pieces."""

    @property
    def parameters_of(self) -> tuple[float, ...]:
        """What it is made from."""
        return ()

    @abstractmethod
    def derivatives(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The first derivative and the second one."""

    def derivative(self, z: Tensor) -> Tensor:
        return self.derivatives(z)[0]

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return tuple(z for z, _ in self.found(slope))

    def found(self, slope: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        return [
            self._solved(slope, *piece) for piece in _tables(type(self), self.parameters_of, slope.dtype, slope.device)
        ]

    def _solved(self, target: Tensor, steep: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        place = torch.searchsorted(steep, target.contiguous()).clamp(1, len(z) - 1)
        low, high, ends = steep[place - 1], steep[place], (z[place - 1], z[place])
        left, right = torch.minimum(*ends), torch.maximum(*ends)
        share = ((target - low) / (high - low)).nan_to_num(0.5, 0.5, 0.5).clamp(0, 1)
        point = torch.lerp(*ends, share)
        for _ in range(_NEWTON):
            value, bend = self.derivatives(point)
            point = (point - ((value - target) / bend).nan_to_num(0.0, 0.0, 0.0)).clamp(left, right)
        missed = (self.derivative(point) - target).abs() * (right - left)
        return point, torch.where((target >= low) & (target <= high), missed, 0.0)


@cache
def _tables(
    kind: type[Gated], made_of: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Derivatives in rising order and where they are, for each piece; points lie the closer, the nearer to a turn."""
    curve = kind(*made_of)
    first, last = curve.profile.turns
    share = torch.linspace(0, 1, _NODES, dtype=torch.float64)
    nodes = [
        first - (first - _LEFT) * share.square(),
        first + (last - first) * (1 - (pi * share).cos()) / 2,
        last + (_RIGHT - last) * share.square(),
    ]
    tables = []
    for z in (t.to(dtype=dtype, device=device) for t in nodes):
        steep = curve.derivative(z)
        if bool(steep[-1] > steep[0]):
            tables.append((steep.cummax(0).values, z))
        else:
            tables.append((steep.flip(0).cummax(0).values, z.flip(0)))
    return tables


@dataclass(frozen=True, eq=False)
class SiLU(Gated):
    """`z * sigmoid(z)`."""

    name = "silu"
    profile = Profile(
        "-0+0-", (-2.3993572805154677, 2.3993572805154677), (-1.2784645427610738,), range=(-0.278465, inf)
    )

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * inputs[0].sigmoid()

    def derivatives(self, z: Tensor) -> tuple[Tensor, Tensor]:
        s = z.sigmoid()
        bend = s * (1 - s)
        return s + z * bend, bend * (2 + z * (1 - 2 * s))


@dataclass(frozen=True, eq=False)
class GELU(Gated):
    """`z * Phi(z)`, with the distribution function of the normal distribution."""

    name = "gelu"
    profile = Profile(
        "-0+0-", (-1.4142135623730951, 1.4142135623730951), (-0.7517915246935645,), range=(-0.169972, inf)
    )

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * torch.erfc(inputs[0] / -_ROOT_2) / 2

    def derivatives(self, z: Tensor) -> tuple[Tensor, Tensor]:
        density = (-z.square() / 2).exp() / _ROOT_2_PI
        return torch.erfc(z / -_ROOT_2) / 2 + z * density, density * (2 - z.square())

    def blur(self, z: Tensor) -> Tensor:
        """The rounding of `z / sqrt(2)`, as the tail of the distribution magnifies it."""
        return z.clamp(-40.0, 0.0).square()


@dataclass(frozen=True, eq=False)
class TanhGELU(Gated):
    """GELU as `tanh` approximates it: `z * sigmoid(g)` with `g = 2 gain (z + cube z^3)`; gains and cubes are near those
    of the published form."""

    gain: float = _TANH_GAIN
    cube: float = _TANH_CUBE

    name = "gelu-tanh"

    @classmethod
    def near(cls, gain: float, cube: float) -> TanhGELU | None:
        """The form with these constants, None if they are no such form."""
        both = ((gain, _TANH_GAIN), (cube, _TANH_CUBE))
        return cls(gain, cube) if all(abs(x - y) <= _NEAR * y for x, y in both) else None

    @property
    def parameters_of(self) -> tuple[float, ...]:
        return self.gain, self.cube

    @property
    def profile(self) -> Profile:  # type: ignore[override]
        turns, least, value = _shape_of(self.gain, self.cube)
        return Profile("-0+0-", turns, (least,), range=(value - 2.0**-20, inf))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * self._inner(inputs[0]).sigmoid()

    def derivatives(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.clamp(-_SATURATED, _SATURATED)  # where infinity times zero is not yet near
        gate = self._inner(z).sigmoid()
        inner, curve = 2 * self.gain * (1 + 3 * self.cube * z.square()), 6 * (2 * self.gain) * self.cube * z
        bend = gate * (1 - gate)
        first, second = bend * inner, bend * (curve + inner.square() * (1 - 2 * gate))
        return gate + z * first, 2 * first + z * second

    def blur(self, z: Tensor) -> Tensor:
        """The rounding of the inner number, as the tail of the exponential magnifies it."""
        return -4 * self._inner(z.clamp(-40.0, 0.0))

    def _inner(self, z: Tensor) -> Tensor:
        return 2 * self.gain * z * (1 + self.cube * z.square())


@cache
def _shape_of(gain: float, cube: float) -> tuple[tuple[float, float], float, float]:
    """Where the tanh form with such constants turns and where it is least, by bisection, and its value there."""
    if (gain, cube) == (_TANH_GAIN, _TANH_CUBE):
        return (-1.4185040087908284, 1.4185040087908284), -0.7524614220710163, -0.17004075
    curve = TanhGELU(gain, cube)

    def zero(order: int, low: float, high: float) -> float:
        sign = curve.derivatives(torch.tensor(high, dtype=torch.float64))[order] > 0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            same = (curve.derivatives(torch.tensor(middle, dtype=torch.float64))[order] > 0) == sign
            low, high = (low, middle) if same else (middle, high)
        return low

    turn, least = zero(1, 1.0, 2.0), zero(0, -1.0, -0.5)
    return (-turn, turn), least, float(curve.forward(torch.tensor(least, dtype=torch.float64)))


@dataclass(frozen=True, eq=False)
class Mish(Gated):
    """`z * tanh(softplus(z))`."""

    name = "mish"
    profile = Profile("-0+0-", (-2.256376396360793, 1.4905711794854284), (-1.1924312145154952,), range=(-0.308844, inf))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * self._gate(inputs[0])

    def derivatives(self, z: Tensor) -> tuple[Tensor, Tensor]:
        gate, s = self._gate(z), z.sigmoid()
        bend = (1 - gate) * (1 + gate) * s
        return gate + z * bend, bend * (2 + z * (1 - s - 2 * gate * s))

    def _gate(self, z: Tensor) -> Tensor:
        return torch.logaddexp(z, torch.zeros_like(z)).tanh()


@dataclass(frozen=True, eq=False)
class HardSwish(Curve):
    """`z * min(max(z + 3, 0), 6) / 6`: a parabola between -3 and 3."""

    name = "hard-swish"
    profile = Profile("0-+-0", (-3.0, 3.0), (-1.5,), range=(-0.375, inf))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * ((inputs[0] + 3).clamp(0, 6) / 6)

    def derivative(self, z: Tensor) -> Tensor:
        return torch.where(z.abs() < 3, z / 3 + 0.5, (z > 0).to(z))

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return (3 * slope - 1.5,)
