"""Bounds of pre-activations that hold where a margin is small, for the leaves of a search.

Who looks for a counterexample need not look where the margin is positive. Any affine bound of the margin, `g x + h`,
says where that is: all inputs at which the margin is at most `level` lie in the half-space `g x + h <= level`. Over
what that leaves of a box, pre-activations have narrower intervals, and the nearer a leaf is to being closed, the less
is left. With an affine bound `A x + b` of a pre-activation, `A x + b + m (g x + h - level)` is one over the half-space
for every multiplier m >= 0 (weak duality), of which the minimum over the box counts (domain clipping, Zhou et al.
2025).

What is linear in the input is found once for a search (`Lines`), so that a leaf costs one pass for its margin, which it
may need anyway, and sums of absolute values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.bounds.rounding import gamma, underflow
from krelax.hull.jit import COMPILED, kernel_in_any_order
from krelax.problem.region import Region, middle

Single = NDArray[np.float32]
Double = NDArray[np.float64]

# Without a compiler sums take longer than anything they could save.
AVAILABLE = COMPILED

# Multipliers that can be written down: `(1 + v % 8 / 8) * 2**(v // 8 - 16)` for v > 0, and 0.
_STEPS, _SHIFT, _MOST = 8, 16, 255
_CODES = np.arange(_MOST + 1)
MULTIPLIERS = np.where(_CODES > 0, np.ldexp(1 + _CODES % _STEPS / _STEPS, _CODES // _STEPS - _SHIFT), 0.0)
# Tries for a multiplier, and by how much, relatively, it should at least raise a bound.
_TRIES, _WORTH = 5, 0.02


@kernel_in_any_order
def _propose(
    coeff: Single,
    centre: Single,
    start: Single,
    rise: Single,
    g: Single,
    q: Single,
    low: Single,
    high: Single,
    least: Single,
    wanted: NDArray[np.bool_],
    worth: np.float32,
    tries: int,
    best: Single,
) -> None:
    """For each leaf and line the multiplier that raises the bound most, 0 if it is not worth it, into `best`, `(leaves,
    lines)`.

    The bound is a concave function of the multiplier, `centre + m q - sum |coeff + m g|`, in units of the radii of the
    box, below its tangents at zero, where it is `start` and rises by `rise`, and at infinity, where it falls by `low`
    and would be `high` at zero. Where tangents meet is tried next (cutting planes), unless even that is too low.
    """
    for leaf in range(best.shape[0]):
        for line in range(best.shape[1]):
            best[leaf, line] = 0
            if not wanted[leaf, line]:
                continue
            floor = least[leaf, line] + worth * abs(least[leaf, line])
            near, value, slope = np.float32(0), start[line], rise[leaf, line]
            far, fall = high[leaf, line], low[leaf]
            for _ in range(tries):
                if not slope > 0:
                    break
                m = (far - value + slope * near) / (slope - fall)
                if not far + fall * m > floor:
                    break
                total, along = np.float32(0), np.float32(0)
                for i in range(coeff.shape[1]):
                    x = coeff[line, i] + m * g[leaf, i]
                    total += abs(x)
                    along += g[leaf, i] if x > 0 else -g[leaf, i]
                reached, rising = centre[line] + m * q[leaf] - total, q[leaf] - along
                if reached > floor:
                    floor, best[leaf, line] = reached, m
                if rising > 0:
                    near, value, slope = m, reached, rising
                else:
                    far, fall = reached - rising * m, rising


@kernel_in_any_order
def _sizes(coeff: Double, g: Double, multiplier: Double, result: Double) -> None:
    """`sum |coeff + m g|` for each leaf and line with a multiplier m > 0."""
    for leaf in range(result.shape[0]):
        for line in range(result.shape[1]):
            m = multiplier[leaf, line]
            result[leaf, line] = 0
            if m > 0:
                total = 0.0
                for i in range(coeff.shape[1]):
                    total += abs(coeff[line, i] + m * g[leaf, i])
                result[leaf, line] = total


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Affine forms over a box, in units of its radii: coefficients, values at the centre, and what those and the
    constants are made of at most, for the rounding error."""

    coeff: Double
    centre: Double
    size: Double


class Lines:
    """Affine lower bounds of pre-activations, `coeff @ x + constant`, `(lines, inputs)` and `(lines,)`, over the box of
    one region."""

    def __init__(self, region: Region, coeff: Tensor, constant: Tensor) -> None:
        self._centre = middle(region.lower[0], region.upper[0]).flatten()
        radius = torch.maximum(region.upper[0].flatten() - self._centre, self._centre - region.lower[0].flatten())
        self._radius = torch.nextafter(radius, radius.new_tensor(torch.inf))
        self._reach = self._centre.abs() + self._radius
        terms = 2 * len(self._radius)
        self._gamma, self._tiny = gamma(terms, coeff.dtype), float(underflow(terms, self._reach[None]))
        self._exact = self._scaled(coeff, constant)
        self._fast = np.ascontiguousarray(self._exact.coeff.astype(np.float32))
        self._sign = np.sign(self._fast)
        self._start = (self._exact.centre - abs(self._exact.coeff).sum(1)).astype(np.float32)

    def _scaled(self, coeff: Tensor, constant: Tensor) -> _Scaled:
        tensors = coeff * self._radius, coeff @ self._centre + constant, coeff.abs() @ self._reach + constant.abs()
        return _Scaled(*(t.contiguous().cpu().numpy() for t in tensors))

    def propose(self, coeff: Tensor, constant: Tensor, least: Tensor, wanted: Tensor) -> NDArray[np.uint8]:
        """Multipliers, as codes, `(leaves, lines)`, for margins bounded by `coeff @ x + constant <= 0` in each leaf, of
        the lines `wanted`, that raise the bounds `least`."""
        margin = self._scaled(coeff, constant)
        g, q = margin.coeff.astype(np.float32), margin.centre.astype(np.float32)
        low = np.minimum(q - abs(g).sum(1), -np.float32(1e-30))
        high = (self._exact.centre - np.sign(g) @ self._fast.T).astype(np.float32)
        best = np.zeros(least.shape, np.float32)
        known, asked = (t.contiguous().cpu().numpy() for t in (least.float(), wanted))
        centre, rise, worth = self._exact.centre.astype(np.float32), q[:, None] - g @ self._sign.T, np.float32(_WORTH)
        _propose(self._fast, centre, self._start, rise, g, q, low, high, known, asked, worth, _TRIES, best)
        steps = np.floor(np.log2(np.maximum(best, 1e-30)))
        part = np.rint((best / np.exp2(steps) - 1) * _STEPS)
        code = (steps + _SHIFT) * _STEPS + part
        return np.where(best > 0, np.clip(code, 1, _MOST), 0).astype(np.uint8)

    def bounds(self, coeff: Tensor, constant: Tensor, codes: NDArray[np.uint8]) -> Tensor:
        """What the lines prove with such multipliers, `(leaves, lines)`; minus infinity without one. Rigorous."""
        margin, m = self._scaled(coeff, constant), MULTIPLIERS[codes]
        total = np.empty(codes.shape)
        _sizes(self._exact.coeff, margin.coeff, m, total)
        with np.errstate(all="ignore"):
            value = self._exact.centre + m * margin.centre[:, None] - total
            error = self._gamma * (self._exact.size + m * margin.size[:, None]) + self._tiny * (1 + m)
            # twice: sizes round, too
            value = np.where((codes > 0) & np.isfinite(value), value - 2 * error, -np.inf)
        return torch.from_numpy(np.nan_to_num(value, nan=-np.inf, posinf=-np.inf, neginf=-np.inf)).to(coeff.device)
