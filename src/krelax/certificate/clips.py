"""Intervals narrowed where a margin is small.

Inputs at which a margin is at most `level` lie in the half-space `g x + h <= level`, whatever affine bound of it is
taken. There a pre-activation with the bound `sign * z >= A x + b` is at least `A x + b + m (g x + h - level)`, for any
multiplier `m >= 0`, of which the minimum over the box counts (domain clipping, Zhou et al. 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.activations import Ends
from krelax.certificate.arithmetic import Arithmetic, Array, Floats, gamma
from krelax.certificate.claims import Leaves
from krelax.certificate.region import Region

Numbers = NDArray[np.int64]

# Lines that are worked on at a time.
_LINES = 32
# Multipliers are `(1 + v % 8 / 8) * 2**(v // 8 - 16)` for v > 0.
_STEPS, _SHIFT = 8, 16


@dataclass
class Scaled:
    """Affine forms over a box: coefficients in units of its radii, `(forms, inputs)`, values at its centre, and bounds
    of the sums of the absolute values of their terms, `(forms,)`."""

    coeff: Array
    centre: Array
    size: Array

    @classmethod
    def of(cls, ar: Arithmetic, region: Region, coeff: Array, constant: Array) -> Scaled:
        centre = (region.lower + region.upper) / 2
        radius = np.nextafter(np.maximum(region.upper - centre, centre - region.lower), np.inf)
        size = ar.dot(abs(coeff), ar.number(abs(centre) + radius)) + abs(constant)
        rows = (coeff * ar.number(radius)).reshape(-1).reshape(*coeff.shape)  # one after the other in memory
        return cls(rows, ar.dot(coeff, ar.number(centre)) + constant, size)


@dataclass
class Lines:
    """Affine bounds of `sign * z[entry]` over a box."""

    entry: Numbers
    sign: Floats
    bounds: Scaled

    def least(self, ar: Arithmetic, region: Region, multipliers: NDArray[np.uint8], margin: Scaled, row: int) -> Floats:
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


class Narrowed:
    """Intervals of pre-activations behind each clip of a claim, of those whose layers have lines: `multipliers` has a
    row for each clip. `ends` are their intervals without clips."""

    def __init__(
        self,
        leaves: Leaves,
        level: float,
        ends: Mapping[int, Ends],
        lines: Mapping[int, Lines],
        multipliers: Mapping[int, NDArray[np.uint8]],
    ) -> None:
        self._leaves, self._level, self._lines, self._multipliers = leaves, level, lines, multipliers
        self._number = np.full(len(leaves), -1)
        self._number[leaves.clips] = np.arange(len(leaves.clips))
        self._entries = {j: np.unique(x.entry) for j, x in lines.items()}
        shapes = {j: (len(leaves.clips), 1) for j in lines}
        self._lower, self._upper = (
            {j: np.tile(ends[j][k][:, e], shapes[j]) for j, e in self._entries.items()} for k in (0, 1)
        )
        self._empty = np.zeros(len(leaves.clips), bool)

    def ends(self, j: int, ends: Ends, batch: Numbers) -> Ends:
        """The intervals of activation j's pre-activation in every leaf of a batch, `(leaves | 1, entries)`."""
        behind = self._leaves.behind[batch]
        if j not in self._lines or (behind < 0).all():
            return ends
        lower, upper = (np.tile(end, (len(batch), 1)) for end in ends)
        rows = np.flatnonzero(behind >= 0)
        clip, place = self._number[behind[rows]], np.ix_(rows, self._entries[j])
        lower[place], upper[place] = self._lower[j][clip], self._upper[j][clip]
        return lower, upper

    def clip(self, ar: Arithmetic, region: Region, batch: Numbers, g: Array | None, h: Array) -> None:
        """Narrow the intervals behind the clips of a batch, whose margins are at least `g x + h`."""
        rows = np.flatnonzero(self._number[batch] >= 0)
        level = ar.number(np.asarray(self._level))
        margin = None if g is None or not len(rows) else Scaled.of(ar, region, g[rows], h[rows] - level)
        for row, leaf in enumerate(batch[rows].tolist()):
            clip, behind = self._number[leaf], self._leaves.behind[leaf]
            if behind >= 0:
                self._empty[clip] = self._empty[self._number[behind]]
            for j, lines in self._lines.items():
                if behind >= 0:
                    for side in (self._lower[j], self._upper[j]):
                        side[clip] = side[self._number[behind]]
                if margin is not None:
                    codes = self._multipliers[j][clip]
                    value = lines.least(ar, region, codes, margin, row)
                    self._empty[clip] |= self._narrow(j, clip, lines, value)

    def _narrow(self, j: int, clip: int, lines: Lines, value: Floats) -> bool:
        """Intersect with what lines say, and say whether nothing is left."""
        lower, upper = self._lower[j][clip], self._upper[j][clip]
        place, below = np.searchsorted(self._entries[j], lines.entry), lines.sign > 0
        np.maximum.at(lower, place[below], value[below])
        np.minimum.at(upper, place[~below], -value[~below])
        empty = bool((lower > upper).any())
        np.maximum(upper, lower, out=upper)
        return empty

    def counted(self, values: Floats) -> Floats:
        """What leaves prove, of which those behind clips have the given bounds: clips by themselves prove nothing."""
        behind = self._leaves.behind
        values[(behind >= 0) & self._empty[self._number[behind]]] = np.inf
        values = np.where(behind >= 0, np.minimum(values, self._level), values)
        values[self._leaves.clips] = np.inf
        return values
