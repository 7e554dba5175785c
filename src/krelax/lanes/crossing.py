"""Crossing layers in lanes: arrays are flat, rows of 16 numbers, one for each leaf.

Loops run over single numbers, so that compilers make vectors of them; numbers that leaves share are repeated in every
lane. The same code serves float32, which proposes, and float64, which proves; `zero` has the type. Parts of arrays are
given by where they begin, because slices take long to compile.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from krelax.hull.jit import kernel_that_proposes, kernel_with_fused_products
from krelax.lanes.plan import Forms, Layers, Own, Single, Splits, Table, Whole
from krelax.lanes.vectors import LANES

Reals = Any  # an array of float32 or of float64
Real = Any

# Indices without a sign: compilers need not ask whether they count from the end, which keeps loops from being vectors.
At = np.uint64


@kernel_with_fused_products
def into_lanes(rows: Single, leaf: Whole, lanes: Single) -> None:
    """Rows of 16 leaves of a table."""
    for b in range(LANES):
        i = At(leaf[b])
        for j in range(rows.shape[1]):
            lanes[At(j * LANES + b)] = rows[i, At(j)]


@kernel_with_fused_products
def out_of_lanes(lanes: Reals, count: int, rows: Reals, row: int) -> None:
    """The first `count` of 16 rows of a table, from `row` on."""
    for b in range(count):
        i = At(row + b)
        for j in range(rows.shape[1]):
            rows[i, At(j)] = lanes[At(j * LANES + b)]


@kernel_with_fused_products
def fill(x: Reals, value: Real) -> None:
    """Put one number everywhere."""
    for t in range(len(x)):
        x[t] = value


@kernel_with_fused_products
def cross_down(
    x: Reals, begin: int, a: Reals, slope: Reals, chord: Reals, first: int, count: int, zero: Real
) -> None:  # fmt: skip
    """Keep coefficients behind an activation in `a`, and put those before it in their place: positive ones take the
    lower line, negative ones the upper one."""
    for t in range(count):
        i, j = At(begin + t), At(first + t)
        v = x[i]
        p = max(v, zero)
        a[j] = v
        x[i] = p * slope[j] + (v - p) * chord[j]


@kernel_with_fused_products
def scale(x: Reals, begin: int, count: int, factor: Real) -> None:
    """Multiply in place."""
    for t in range(begin, begin + count):
        x[At(t)] *= factor


@kernel_with_fused_products
def add(x: Reals, begin: int, count: int, more: Reals, first: int) -> None:
    """Add in place numbers that begin at place `first`."""
    for t in range(begin, begin + count):
        x[At(t)] += more[At(t - first)]


@kernel_that_proposes
def climb_up(
    x: Single, begin: int, a: Single, slope: Single, mean: Single, square: Single, chord: Single, height: Single,
    first: int, count: int, least: Real, rate: Real,
) -> None:  # fmt: skip
    """From the primal point before an activation to the one behind it, on the line that the sign of the coefficient
    chose; and one step of Adam for the slopes of lower lines, whose derivative is `max(a, 0) x`."""
    for t in range(count):
        i, j = At(begin + t), At(first + t)
        v, c, line = x[i], a[j], slope[j]
        g = max(c, np.float32(0)) * v
        m = np.float32(0.5) * (mean[j] + g)
        w = np.float32(0.9) * square[j] + np.float32(0.1) * g * g
        mean[j] = m
        square[j] = w
        slope[j] = min(max(line + rate * m / np.sqrt(w), least), np.float32(1))
        x[i] = line * v if c > np.float32(0) else chord[j] * v + height[j]


@kernel_that_proposes
def corner(x: Single, count: int) -> None:
    """The minimiser of linear forms over the unit box."""
    for t in range(count):
        x[t] = -np.float32(1) if x[t] >= np.float32(0) else np.float32(1)


@kernel_with_fused_products
def pay_lines(total: Reals, a: Reals, height: Reals, first: int, count: int, zero: Real) -> None:
    """Add what upper lines cost negative coefficients."""
    for j in range(first, first + count, LANES):
        for b in range(LANES):
            i = At(j + b)
            v = a[i]
            total[b] += (v - max(v, zero)) * height[i]


@kernel_with_fused_products
def subtract_sizes(total: Reals, x: Reals, begin: int, rows: int, weight: Reals, first: int) -> None:
    """Subtract absolute values with weights that leaves share."""
    for j in range(rows):
        w = weight[first + j]
        for b in range(LANES):
            total[b] -= abs(x[At(begin + j * LANES + b)]) * w


@kernel_with_fused_products
def add_values(total: Reals, x: Reals, weight: Reals) -> None:
    """Add values of the first rows with weights that leaves share."""
    for j in range(len(weight)):
        w = weight[j]
        for b in range(LANES):
            total[b] += x[At(j * LANES + b)] * w


@kernel_that_proposes
def find_splits(best: Single, chosen: Whole, a: Single, height: Single, first: int, count: int, slot: int) -> None:
    """The undecided slots whose splits promise most: what the upper line costs, and a little for the lower line."""
    for j in range(count // LANES):
        for b in range(LANES):
            i = At(first + j * LANES + b)
            v = a[i]
            score = max(-v, np.float32(0.02) * v) * height[i]
            better = score > best[b]
            best[b] = score if better else best[b]
            chosen[b] = slot + j if better else chosen[b]


@kernel_with_fused_products
def sort_splits(layers: Layers, table: Table, leaf: Whole, splits: Splits) -> None:
    """Fill in the splits of 16 leaves, by layer."""
    start = splits.start
    for l in range(len(start)):
        start[l] = 0
    for turn in range(2):
        for b in range(LANES):
            i = leaf[b]
            for k in range(table.slot.shape[1]):
                slot = table.slot[i, k]
                if slot < 0:
                    break
                l = 0
                while slot >= layers.slot[l + 1]:
                    l += 1
                t = start[l]
                if turn == 0:
                    start[l + 1] += 1
                else:
                    splits.lane[t], splits.column[t], splits.place[t] = b, k, slot * LANES + b
                    splits.side[t], splits.multiplier[t] = table.side[i, k], table.multiplier[i, k]
                    start[l] += 1
        if turn == 0:
            for l in range(1, len(start)):
                start[l] += start[l - 1]
    for l in range(len(start) - 1, 0, -1):
        start[l] = start[l - 1]
    start[0] = 0


@kernel_with_fused_products
def cross(
    layers: Layers, l: int, x: Reals, coeff: Reals, slope: Reals, chord: Reals, splits: Splits, zero: Real, below: Real
) -> None:  # fmt: skip
    """Cross layer l downwards: undecided slots, flat ones, and those that leaves have split, whose coefficients `coeff`
    become zero if they are undecided. `below`: the slope of flat ones."""
    s, f, n = layers.slot[l] * LANES, layers.free[l] * LANES, (layers.free[l + 1] - layers.free[l]) * LANES
    for t in range(splits.start[l], splits.start[l + 1]):
        splits.at[t] = x[splits.place[t]]
    cross_down(x, s, coeff, slope, chord, f, n, zero)
    scale(x, s + n, layers.flat[l] * LANES, below)
    for t in range(splits.start[l], splits.start[l + 1]):
        place, side, v = splits.place[t], splits.side[t], splits.at[t]
        x[place] = (v if side > zero else below * v) - side * splits.multiplier[t]


@kernel_with_fused_products
def drop_splits(layers: Layers, l: int, coeff: Reals, splits: Splits, zero: Real) -> None:
    """Coefficients behind split neurons of layer l cost nothing."""
    s, f, n = layers.slot[l] * LANES, layers.free[l] * LANES, (layers.free[l + 1] - layers.free[l]) * LANES
    for t in range(splits.start[l], splits.start[l + 1]):
        place = splits.place[t] - s
        if place < n:
            coeff[f + place] = zero


@kernel_that_proposes
def climb_splits(
    layers: Layers, l: int, x: Single, splits: Splits, mean: Single, square: Single, below: Real, rate: Real
) -> None:
    """Cross split neurons of layer l upwards, from `splits.at`; and a step of Adam for their multipliers."""
    for t in range(splits.start[l], splits.start[l + 1]):
        v, side = splits.at[t], splits.side[t]
        x[splits.place[t]] = v if side > np.float32(0) else below * v
        g = -side * v
        mean[t] = np.float32(0.5) * (mean[t] + g)
        square[t] = np.float32(0.9) * square[t] + np.float32(0.1) * g * g
        splits.multiplier[t] = max(splits.multiplier[t] + rate * mean[t] / np.sqrt(square[t]), np.float32(0))


@kernel_with_fused_products
def gather_forms(forms: Forms, query: Whole, leaf: Whole, base: Reals, first: int) -> None:
    """Coefficients of the leaves' queries at all slots from `first` on."""
    for t in range(len(base)):
        base[t] = 0
    for b in range(LANES):
        q = query[leaf[b]]
        for t in range(forms.start[q], forms.start[q + 1]):
            base[(forms.slot[t] - first) * LANES + b] = forms.value[t]


@kernel_with_fused_products
def narrow(own: Own, leaf: Whole, low: Reals, high: Reals, slope: Reals, chord: Reals, height: Reals) -> None:
    """Put the lines of the leaves' own intervals in the place of those that all share, and keep the ranges of lower
    slopes for `keep_in_range`."""
    for k in range(len(own.free)):
        for b in range(LANES):
            t, i = own.free[k] * LANES + b, leaf[b]
            low[k * LANES + b], high[k * LANES + b] = own.low[i, k], own.high[i, k]
            slope[t] = min(max(slope[t], low[k * LANES + b]), high[k * LANES + b])
            chord[t] = own.chord[i, k]
            height[t] = own.height[i, k]


@kernel_with_fused_products
def keep_in_range(own: Own, layer: int, low: Reals, high: Reals, slope: Reals) -> None:
    """Keep lower slopes of one layer in the ranges of the leaves' own intervals."""
    for k in range(own.first[layer], own.first[layer + 1]):
        t = own.free[k] * LANES
        for b in range(LANES):
            slope[t + b] = min(max(slope[t + b], low[k * LANES + b]), high[k * LANES + b])
