"""Bounds of leaves, 16 at a time: ascent, value and next split in float32, and proofs in float64.

One call works on many leaves, never meets the interpreter and holds no lock. All that leaves share is read only, so
threads may work on parts of one table. Without numba these functions are not called.
"""

from __future__ import annotations

import numpy as np

from krelax.hull.jit import kernel_that_proposes, kernel_with_fused_products
from krelax.lanes.crossing import (
    add,
    add_values,
    climb_up,
    corner,
    cross_down,
    find_splits,
    gather_forms,
    keep_in_range,
    narrow,
    pay_lines,
    scale,
    sort_splits,
    subtract_sizes,
)
from krelax.lanes.plan import Climb, Double, Forms, Layers, Own, Pattern, Proposing, Proving, Single, Table, Whole
from krelax.lanes.products import LANES, multiply

_ZERO, _LEAST = np.float32(0), np.float32(1e-20)


@kernel_that_proposes
def improve(
    layers: Layers, down: Pattern, up: Pattern, numbers: Proposing, forms: Forms, own: Own, table: Table, climb: Climb,
    begin: int, end: int, value: Single, middle: Single, branch: Whole, points: Single,
) -> None:  # fmt: skip
    """Ascent of the leaves `begin` to `end` of a table, in place; then their values, what affine bounds of the forms are
    at the centre of the box, the slots of their next splits (-1: none), and where their bounds are attained, in units
    of the radii, `(leaves, inputs)`."""
    last, slots, free = len(layers.slot) - 2, layers.slot[-1], layers.free[-1]
    inputs, most = layers.slot[1] - 1, table.slot.shape[1]
    x = np.zeros((slots + 1) * LANES, np.float32)
    lowest = layers.slot[layers.lowest]
    base = np.empty((slots - lowest) * LANES, np.float32)
    slope, coeff = np.empty(free * LANES, np.float32), np.empty(free * LANES, np.float32)
    first, second = np.empty(free * LANES, np.float32), np.empty(free * LANES, np.float32)
    chord, height = numbers.chord.copy(), numbers.height.copy()
    low, high = np.empty(len(own.free) * LANES, np.float32), np.empty(len(own.free) * LANES, np.float32)
    start, lane, column = np.empty(last + 2, np.int64), np.empty(most * LANES, np.int64), np.empty(most * LANES, np.int64)
    place, at = np.empty(most * LANES, np.int64), np.empty(most * LANES, np.float32)
    side, beta = np.empty(most * LANES, np.float32), np.empty(most * LANES, np.float32)
    first_, second_ = np.empty(most * LANES, np.float32), np.empty(most * LANES, np.float32)
    leaf, chosen = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    reached, best = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    for block in range(begin, end, LANES):
        for b in range(LANES):
            leaf[b] = min(block + b, end - 1)
            for j in range(free):
                slope[j * LANES + b] = table.slope[leaf[b], j]
        gather_forms(forms.start, forms.slot, forms.value, table.query, leaf, base, lowest)
        narrow(own, leaf, low, high, slope, chord, height)
        sort_splits(layers, table.slot, leaf, start, lane, column)
        for t in range(start[last + 1]):
            i, k = leaf[lane[t]], column[t]
            place[t] = table.slot[i, k] * LANES + lane[t]
            side[t], beta[t], first_[t], second_[t] = table.side[i, k], table.multiplier[i, k], _ZERO, _LEAST
        first[:] = _ZERO
        second[:] = _LEAST
        for step in range(climb.steps + 1):
            proposing = step < climb.steps
            if not proposing:
                best[:], chosen[:] = _ZERO, -1
                for b in range(LANES):
                    reached[b] = forms.constant[table.query[leaf[b]]]
            for l in range(last, 0, -1):
                s0, s1, f0, f1 = layers.slot[l] * LANES, layers.slot[l + 1] * LANES, layers.free[l] * LANES, layers.free[l + 1] * LANES
                multiply(down.first, down.start, down.col, down.place, numbers.down, l, x, x)
                if l >= layers.lowest:
                    add(x[s0:s1], base[s0 - lowest * LANES : s1 - lowest * LANES])
                for t in range(start[l], start[l + 1]):
                    at[t] = x[place[t]]
                cross_down(x[s0 : s0 + f1 - f0], coeff[f0:f1], slope[f0:f1], chord[f0:f1], _ZERO)
                below = np.float32(layers.slope[l])
                scale(x[s0 + f1 - f0 : s0 + f1 - f0 + layers.flat[l] * LANES], below)
                for t in range(start[l], start[l + 1]):
                    x[place[t]] = (at[t] if side[t] > _ZERO else below * at[t]) - side[t] * beta[t]
                    if not proposing and place[t] - s0 < f1 - f0:
                        coeff[f0 + place[t] - s0] = _ZERO
                if not proposing:
                    pay_lines(reached, coeff[f0:f1], height[f0:f1], _ZERO)
                    find_splits(best, chosen, coeff[f0:f1], height[f0:f1], layers.slot[l])
            multiply(down.first, down.start, down.col, down.place, numbers.down, 0, x, x)
            if layers.lowest == 0:
                add(x[: inputs * LANES], base[: inputs * LANES])
            if not proposing:
                multiply(down.first, down.start, down.col, down.place, numbers.down, last + 1, x, x)
                for b in range(LANES):
                    reached[b] += x[inputs * LANES + b]
                break
            corner(x[: inputs * LANES])
            x[inputs * LANES : (inputs + 1) * LANES] = np.float32(1)
            pace = np.float32(climb.rate * climb.decay**step * np.sqrt(1 - 0.9 ** (step + 1)) / (1 - 0.5 ** (step + 1)))
            for l in range(1, last + 1):
                s0, s1, f0, f1 = layers.slot[l] * LANES, layers.slot[l + 1] * LANES, layers.free[l] * LANES, layers.free[l + 1] * LANES
                below = np.float32(layers.slope[l])
                multiply(up.first, up.start, up.col, up.place, numbers.up, l, x, x)
                for t in range(start[l], start[l + 1]):
                    at[t] = x[place[t]]
                climb_up(x[s0 : s0 + f1 - f0], coeff[f0:f1], slope[f0:f1], first[f0:f1], second[f0:f1],
                         chord[f0:f1], height[f0:f1], below, pace)  # fmt: skip
                keep_in_range(own, l, low, high, slope)
                scale(x[s0 + f1 - f0 : s0 + f1 - f0 + layers.flat[l] * LANES], below)
                for t in range(start[l], start[l + 1]):
                    x[place[t]] = at[t] if side[t] > _ZERO else below * at[t]
                    g = -side[t] * at[t]
                    first_[t] = np.float32(0.5) * (first_[t] + g)
                    second_[t] = np.float32(0.9) * second_[t] + np.float32(0.1) * g * g
                    beta[t] = max(beta[t] + pace * first_[t] / np.sqrt(second_[t]), _ZERO)
        for b in range(LANES):
            best[b] = reached[b]
        for j in range(inputs):
            for b in range(LANES):
                reached[b] -= abs(x[j * LANES + b])
        for t in range(start[last + 1]):
            table.multiplier[leaf[lane[t]], column[t]] = beta[t]
        for b in range(min(LANES, end - block)):
            i = block + b
            value[i], middle[i] = reached[b], best[b]
            branch[i] = chosen[b] if table.slot[i, most - 1] < 0 else -1
            for j in range(free):
                table.slope[i, j] = slope[j * LANES + b]
            for j in range(inputs):
                points[i, j] = -np.float32(1) if x[j * LANES + b] >= _ZERO else np.float32(1)


@kernel_with_fused_products
def prove(
    layers: Layers, down: Pattern, numbers: Proving, forms: Forms, own: Own, table: Table, begin: int, end: int,
    value: Double, constant: Double, affine: Double,
) -> None:  # fmt: skip
    """Rigorous values of the leaves `begin` to `end` of a table: `value`. Where `affine`, `(leaves, inputs)`, has any
    rows, affine bounds of the forms: these coefficients and `constant`, for which the charge for their product with the
    inputs is still to be paid. What overflows is infinite or not a number."""
    last, slots, free = len(layers.slot) - 2, layers.slot[-1], layers.free[-1]
    inputs, most = layers.slot[1] - 1, table.slot.shape[1]
    x = np.zeros((slots + 1) * LANES)
    lowest = layers.slot[layers.lowest]
    base = np.empty((slots - lowest) * LANES)
    slope, coeff = np.empty(free * LANES), np.empty(free * LANES)
    chord, height = numbers.chord.copy(), numbers.height.copy()
    low, high = np.empty(len(own.free) * LANES), np.empty(len(own.free) * LANES)
    start, lane, column = np.empty(last + 2, np.int64), np.empty(most * LANES, np.int64), np.empty(most * LANES, np.int64)
    at, leaf, total, part = np.empty(most * LANES), np.empty(LANES, np.int64), np.empty(LANES), np.empty(LANES)
    for block in range(begin, end, LANES):
        for b in range(LANES):
            leaf[b] = min(block + b, end - 1)
            total[b] = forms.constant[table.query[leaf[b]]] - numbers.extra
        for l in range(1, last + 1):
            least = layers.slope[l]
            steps = 255.0 / max(1.0 - least, 1e-30)
            for j in range(layers.free[l], layers.free[l + 1]):
                for b in range(LANES):
                    code = np.rint((np.float64(table.slope[leaf[b], j]) - least) * steps)
                    slope[j * LANES + b] = numbers.levels[l, int(min(code, 255.0)) if code > 0 else 0]
        gather_forms(forms.start, forms.slot, forms.value, table.query, leaf, base, lowest)
        narrow(own, leaf, low, high, slope, chord, height)
        sort_splits(layers, table.slot, leaf, start, lane, column)
        for l in range(last, 0, -1):
            s0, s1, f0, f1 = layers.slot[l] * LANES, layers.slot[l + 1] * LANES, layers.free[l] * LANES, layers.free[l + 1] * LANES
            multiply(down.first, down.start, down.col, down.place, numbers.down, l, x, x)
            if l >= layers.lowest:
                add(x[s0:s1], base[s0 - lowest * LANES : s1 - lowest * LANES])
            for t in range(start[l], start[l + 1]):
                at[t] = x[table.slot[leaf[lane[t]], column[t]] * LANES + lane[t]]
            part[:] = 0.0
            flat = s0 + f1 - f0 + layers.flat[l] * LANES
            # what rounding changes behind the activation: of coefficients before they are crossed
            subtract_sizes(part, x[s0:flat], numbers.behind[layers.slot[l] : flat // LANES])
            cross_down(x[s0 : s0 + f1 - f0], coeff[f0:f1], slope[f0:f1], chord[f0:f1], 0.0)
            scale(x[s0 + f1 - f0 : flat], layers.slope[l])
            for t in range(start[l], start[l + 1]):
                i, k = leaf[lane[t]], column[t]
                place, side, beta = table.slot[i, k] * LANES + lane[t], np.float64(table.side[i, k]), np.float64(table.multiplier[i, k])
                x[place] = (at[t] if side > 0.0 else layers.slope[l] * at[t]) - side * beta
                if place - s0 < f1 - f0:
                    coeff[f0 + place - s0] = 0.0
                if not beta >= 0.0:
                    total[lane[t]] = np.nan
            pay_lines(part, coeff[f0:f1], height[f0:f1], 0.0)
            # and before it
            subtract_sizes(part, x[s0:s1], numbers.before[layers.slot[l] : layers.slot[l + 1]])
            for b in range(LANES):
                total[b] += part[b]
        multiply(down.first, down.start, down.col, down.place, numbers.down, 0, x, x)
        multiply(down.first, down.start, down.col, down.place, numbers.down, last + 1, x, x)
        if layers.lowest == 0:
            add(x[: inputs * LANES], base[: inputs * LANES])
        for b in range(LANES):
            total[b] += x[inputs * LANES + b]
        for b in range(min(LANES, end - block)):
            if len(affine):
                constant[block + b] = total[b]
                for j in range(inputs):
                    affine[block + b, j] = x[j * LANES + b]
        part[:] = 0.0
        add_values(part, x[: inputs * LANES], numbers.centre)
        subtract_sizes(part, x[: inputs * LANES], numbers.radius)
        for b in range(min(LANES, end - block)):
            value[block + b] = total[b] + part[b]
