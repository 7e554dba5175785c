"""Crossing layers in lanes: arrays are flat, rows of 16 numbers, one for each leaf.

Loops run over single numbers, so that compilers make vectors of them; numbers that leaves share are repeated in every
lane. The same code serves float32, which proposes, and float64, which proves; `zero` and `one` have the type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from krelax.hull.jit import kernel_that_proposes, kernel_with_fused_products
from krelax.lanes.plan import Layers, Own, Single, Whole
from krelax.lanes.products import LANES

Reals = Any  # an array of float32 or of float64
Real = Any


@kernel_with_fused_products
def cross_down(x: Reals, a: Reals, slope: Reals, chord: Reals, zero: Real) -> None:
    """Keep coefficients behind an activation in `a`, and put those before it in their place: positive ones take the
    lower line, negative ones the upper one."""
    for t in range(len(a)):
        v = x[t]
        p = max(v, zero)
        a[t] = v
        x[t] = p * slope[t] + (v - p) * chord[t]


@kernel_with_fused_products
def scale(x: Reals, factor: Real) -> None:
    """Multiply in place."""
    for t in range(len(x)):
        x[t] *= factor


@kernel_with_fused_products
def add(x: Reals, more: Reals) -> None:
    """Add in place."""
    for t in range(len(x)):
        x[t] += more[t]


@kernel_that_proposes
def climb_up(
    x: Single, a: Single, slope: Single, first: Single, second: Single, chord: Single, height: Single,
    least: Real, rate: Real,
) -> None:  # fmt: skip
    """From the primal point before an activation to the one behind it, on the line that the sign of the coefficient
    chose; and one step of Adam for the slopes of lower lines, whose derivative is `max(a, 0) x`."""
    for t in range(len(a)):
        v, c, line = x[t], a[t], slope[t]
        g = max(c, np.float32(0)) * v
        m = np.float32(0.5) * (first[t] + g)
        w = np.float32(0.9) * second[t] + np.float32(0.1) * g * g
        first[t] = m
        second[t] = w
        slope[t] = min(max(line + rate * m / np.sqrt(w), least), np.float32(1))
        x[t] = line * v if c > np.float32(0) else chord[t] * v + height[t]


@kernel_that_proposes
def corner(x: Single) -> None:
    """The minimiser of linear forms over the unit box."""
    for t in range(len(x)):
        x[t] = -np.float32(1) if x[t] >= np.float32(0) else np.float32(1)


@kernel_with_fused_products
def pay_lines(total: Reals, a: Reals, height: Reals, zero: Real) -> None:
    """Add what upper lines cost negative coefficients."""
    for j in range(len(a) // LANES):
        for b in range(LANES):
            v = a[j * LANES + b]
            total[b] += (v - max(v, zero)) * height[j * LANES + b]


@kernel_with_fused_products
def subtract_sizes(total: Reals, x: Reals, weight: Reals) -> None:
    """Subtract absolute values with weights, `(rows,)`, that leaves share."""
    for j in range(len(x) // LANES):
        w = weight[j]
        for b in range(LANES):
            total[b] -= abs(x[j * LANES + b]) * w


@kernel_with_fused_products
def add_values(total: Reals, x: Reals, weight: Reals) -> None:
    """Add values with weights, `(rows,)`, that leaves share."""
    for j in range(len(x) // LANES):
        w = weight[j]
        for b in range(LANES):
            total[b] += x[j * LANES + b] * w


@kernel_that_proposes
def find_splits(best: Single, chosen: Whole, a: Single, height: Single, slot: int) -> None:
    """The undecided slots whose splits promise most: what the upper line costs, and a little for the lower line."""
    for j in range(len(a) // LANES):
        for b in range(LANES):
            v = a[j * LANES + b]
            score = max(-v, np.float32(0.02) * v) * height[j * LANES + b]
            better = score > best[b]
            best[b] = score if better else best[b]
            chosen[b] = slot + j if better else chosen[b]


@kernel_with_fused_products
def sort_splits(layers: Layers, slot: Whole, leaf: Whole, start: Whole, lane: Whole, column: Whole) -> None:
    """The splits of 16 leaves by layer: those of layer l have numbers `start[l]` to `start[l + 1]`."""
    start[:] = 0
    for turn in range(2):
        fill = start.copy()
        for b in range(LANES):
            for k in range(slot.shape[1]):
                if slot[leaf[b], k] < 0:
                    break
                l = 0
                while slot[leaf[b], k] >= layers.slot[l + 1]:
                    l += 1
                if turn == 0:
                    start[l + 1] += 1
                else:
                    lane[fill[l]], column[fill[l]] = b, k
                    fill[l] += 1
        if turn == 0:
            for l in range(1, len(start)):
                start[l] += start[l - 1]


@kernel_with_fused_products
def gather_forms(start: Whole, slot: Whole, value: Any, query: Whole, leaf: Whole, base: Reals, first: int) -> None:
    """Coefficients of the leaves' queries at all slots from `first` on."""
    base[:] = 0
    for b in range(LANES):
        q = query[leaf[b]]
        for t in range(start[q], start[q + 1]):
            base[(slot[t] - first) * LANES + b] = value[t]


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
