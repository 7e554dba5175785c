"""Intervals narrowed where a margin is small.

Inputs at which a margin is at most `level` lie in the half-space `g x + h <= level`, whatever affine bound of it is
taken. There a pre-activation with the bound `sign * z >= A x + b` is at least `A x + b + m (g x + h - level)`, for any
multiplier `m >= 0`, of which the minimum over the box counts (domain clipping, Zhou et al. 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations import Ends
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats, gamma
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.linear import Index
from krelax.certificate.kernel.region import Region

# Lines that are worked on at a time.
_LINES = 32
# Multipliers are `(1 + v % 8 / 8) * 2**(v // 8 - 16)` for v > 0.
_STEPS, _SHIFT = 8, 16


@dataclass(frozen=True, eq=False)
class ScaledForms:
    """Affine forms over a box: coefficients in units of its radii, `(forms, inputs)`, values at its centre, and bounds
    of the sums of the absolute values of their terms, `(forms,)`."""

    coeff: Array
    centre: Array
    size: Array

    @classmethod
    def of(cls, ar: Arithmetic, region: Region, coeff: Array, constant: Array) -> ScaledForms:
        centre = (region.lower + region.upper) / 2
        radius = np.nextafter(np.maximum(region.upper - centre, centre - region.lower), np.inf)
        size = ar.dot(abs(coeff), ar.number(abs(centre) + radius)) + abs(constant)
        rows = (coeff * ar.number(radius)).reshape(-1).reshape(*coeff.shape)  # one after the other in memory
        return cls(rows, ar.dot(coeff, ar.number(centre)) + constant, size)


@dataclass(frozen=True, eq=False)
class Lines:
    """Affine bounds of `sign * z[entry]` over a box."""

    entry: Index
    sign: Floats
    bounds: ScaledForms

    @cached_property
    def neurons(self) -> Index:
        """The entries, each once."""
        return np.unique(self.entry)

    def least(
        self, ar: Arithmetic, region: Region, multipliers: NDArray[np.uint8], margin: ScaledForms, row: int
    ) -> Floats:
        """What the lines say where a margin, one of several forms, is not positive, `(lines,)`."""
        steps, lines, g = multipliers.astype(np.int64), self.bounds, margin.coeff[row]
        m = ar.number(np.where(steps > 0, np.ldexp(1 + steps % _STEPS / _STEPS, steps // _STEPS - _SHIFT), 0.0))
        # a few at a time, which stay in the caches
        parts = [slice(i, i + _LINES) for i in range(0, len(steps), _LINES)]
        sums = [abs(m[some].reshape(-1, 1) * g + lines.coeff[some]).sum(1) for some in parts]
        value = lines.centre + m * margin.centre[row] - ar.join(sums)
        if ar.unit:
            terms = 2 * region.lower.shape[1] + 64
            reach = 1 + abs(region.lower).sum() + abs(region.upper).sum()
            error = gamma(terms, ar.unit) * (lines.size + m * margin.size[row])
            value = value - error - 4 * terms * ar.tiny * (1 + m) * reach
        return ar.down(value)


@dataclass(frozen=True, eq=False)
class Narrowing:
    """What is left behind a clip, or before all: intervals of the neurons that lines are about, by activation, and
    whether they are `empty`."""

    ends: Mapping[int, Ends]
    empty: bool = False


@dataclass(frozen=True, eq=False)
class Clips:
    """The clips of a lemma: the level that the margin is taken to be at most, and for each activation of which clips
    narrow intervals its lines, and their multipliers, with a row for each clip."""

    level: float
    lines: Mapping[int, Lines]
    multipliers: Mapping[int, NDArray[np.uint8]]

    def start(self, ends: Mapping[int, Ends]) -> Narrowing:
        """The intervals before all clips, of those of all neurons."""
        return Narrowing({j: (ends[j][0][0, x.neurons], ends[j][1][0, x.neurons]) for j, x in self.lines.items()})

    def narrowed(
        self,
        bounds: LayerBounds,
        numbers: Sequence[int],
        before: Sequence[Narrowing],
        coeff: Array,
        rest: Array,
    ) -> Sequence[Narrowing]:
        """What is left behind clips with these numbers, `before` which this was left. Their margins are at least
        `coeff x + rest`, with a row for each clip."""
        ar, region, behind = bounds.ar, bounds.region, []
        margins = ScaledForms.of(ar, region, coeff, rest - ar.number(np.asarray(self.level)))
        for row, (number, parent) in enumerate(zip(numbers, before, strict=True)):
            values = {j: x.least(ar, region, self.multipliers[j][number], margins, row) for j, x in self.lines.items()}
            found = {j: _intersected(parent.ends[j], x, values[j]) for j, x in self.lines.items()}
            empty = parent.empty or any((lower > upper).any() for lower, upper in found.values())
            behind.append(Narrowing({j: (low, np.maximum(low, high)) for j, (low, high) in found.items()}, empty))
        return behind


def _intersected(ends: Ends, lines: Lines, value: Floats) -> Ends:
    """Intervals intersected with what lines say."""
    (lower, upper), below = (end.copy() for end in ends), lines.sign > 0
    place = np.searchsorted(lines.neurons, lines.entry)
    np.maximum.at(lower, place[below], value[below])
    np.minimum.at(upper, place[~below], -value[~below])
    return lower, upper
