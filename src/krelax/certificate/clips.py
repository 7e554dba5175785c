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

# Multipliers are `(1 + v % 8 / 8) * 2**(v // 8 - 16)` for v > 0.
_STEPS, _SHIFT = 8, 16


@dataclass
class Lines:
    """Affine bounds `coeff @ x + constant` of `sign * z[entry]` over a box, `(lines, inputs)` and `(lines,)`."""

    entry: Numbers
    sign: Floats
    coeff: Array
    constant: Array

    def least(
        self, ar: Arithmetic, region: Region, multipliers: NDArray[np.uint8], g: Array, h: Array
    ) -> tuple[Numbers, Floats]:
        """The lines that have multipliers, and what they say where `g x + h <= 0`; g is `(inputs,)`."""
        used = np.flatnonzero(multipliers)
        steps = multipliers[used].astype(np.int64)
        m = ar.number(np.ldexp(1 + steps % _STEPS / _STEPS, steps // _STEPS - _SHIFT))
        coeff, constant = self.coeff[used], self.constant[used] + m * h
        total = coeff + m.reshape(-1, 1) * g
        centre = (region.lower + region.upper) / 2
        radius = np.nextafter(np.maximum(region.upper - centre, centre - region.lower), np.inf)
        value = ar.dot(total, ar.number(centre)) - ar.dot(abs(total), ar.number(radius)) + constant
        if ar.unit:
            reach = abs(centre) + radius
            terms = 2 * reach.shape[1] + 64
            size = ar.dot(abs(coeff), reach) + m * ar.dot(abs(g)[None], reach) + abs(self.constant[used]) + m * abs(h)
            value = value - gamma(terms, ar.unit) * size - terms * ar.tiny * (1 + m) * (1 + reach.sum())
        return used, ar.down(value)


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
        for row, leaf in enumerate(batch.tolist()):
            clip, behind = self._number[leaf], self._leaves.behind[leaf]
            if clip < 0:
                continue
            if behind >= 0:
                self._empty[clip] = self._empty[self._number[behind]]
            rest = h[row] - ar.number(np.asarray(self._level))
            for j, lines in self._lines.items():
                if behind >= 0:
                    for side in (self._lower[j], self._upper[j]):
                        side[clip] = side[self._number[behind]]
                if g is not None:
                    used, value = lines.least(ar, region, self._multipliers[j][clip], g[row], rest)
                    self._empty[clip] |= self._narrow(j, clip, lines.entry[used], lines.sign[used], value)

    def _narrow(self, j: int, clip: int, entry: Numbers, sign: Floats, value: Floats) -> bool:
        """Intersect with bounds of some entries, and say whether nothing is left."""
        lower, upper = self._lower[j][clip], self._upper[j][clip]
        place, below = np.searchsorted(self._entries[j], entry), sign > 0
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
