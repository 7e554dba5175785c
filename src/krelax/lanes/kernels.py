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
    climb_splits,
    climb_up,
    corner,
    cross,
    drop_splits,
    fill,
    find_splits,
    gather_forms,
    into_lanes,
    keep_in_range,
    narrow,
    out_of_lanes,
    pay_lines,
    scale,
    sort_splits,
    subtract_sizes,
)
from krelax.lanes.pairs import (
    begin_joint,
    climb_lines,
    climb_pairs,
    give,
    room_to_propose,
    room_to_prove,
    settle,
    take,
    take_and_meet,
    write_down,
)
from krelax.lanes.plan import (
    Climb,
    Double,
    Forms,
    Joint,
    Layers,
    Own,
    Pairs,
    Pattern,
    Proposing,
    Proving,
    Single,
    Splits,
    Table,
    Whole,
)
from krelax.lanes.products import multiply
from krelax.lanes.vectors import LANES

_ZERO, _LEAST = np.float32(0), np.float32(1e-20)


@kernel_that_proposes
def _rise(
    layers: Layers, l: int, pairs: Pairs, x: Single, coeff: Single, slope: Single, mean: Single, square: Single,
    chord: Single, height: Single, splits: Splits, mean_: Single, square_: Single, joint: Joint, rate: np.float32,
) -> None:  # fmt: skip
    """Cross layer l upwards, with a step of ascent."""
    s, f, n = layers.slot[l] * LANES, layers.free[l] * LANES, (layers.free[l + 1] - layers.free[l]) * LANES
    below = np.float32(layers.slope[l])
    for t in range(splits.start[l], splits.start[l + 1]):
        splits.at[t] = x[splits.place[t]]
    joined = pairs.first[l] < pairs.first[l + 1]
    if joined:
        settle(x, s, coeff, slope, chord, height, f, n, joint.point)
    else:
        climb_up(x, s, coeff, slope, mean, square, chord, height, f, n, below, rate)
    scale(x, s + n, layers.flat[l] * LANES, below)
    climb_splits(layers, l, x, splits, mean_, square_, below, rate)
    if joined:
        climb_pairs(layers, l, pairs, x, joint, rate)
        climb_lines(x, s, coeff, slope, mean, square, joint.point, joint.slope, joint.taken, f, n, below, rate)


@kernel_that_proposes
def _pace(climb: Climb, step: int) -> np.float32:
    """The size of a step, with Adam's corrections for its beginning."""
    size = climb.rate * climb.decay**step * np.sqrt(1 - 0.9 ** (step + 1)) / (1 - 0.5 ** (step + 1))
    return np.float32(size)


@kernel_that_proposes
def improve(  # noqa: PLR0912, PLR0915
    layers: Layers, down: Pattern, up: Pattern, numbers: Proposing, pairs: Pairs, forms: Forms, own: Own, table: Table,
    climb: Climb, begin: int, end: int, value: Single, middle: Single, branch: Whole, points: Single,
) -> None:  # fmt: skip
    """Ascent of the leaves `begin` to `end` of a table, in place; then their values, what affine bounds of the forms
    are at the centre of the box, the slots of their next splits (-1: none), and where the bounds of the first of them
    are attained, in units of the radii, `(points, inputs)`."""
    last, slots, free = len(layers.slot) - 2, layers.slot[-1], layers.free[-1]
    inputs, most, lowest = layers.slot[1] - 1, table.slot.shape[1], layers.slot[layers.lowest]
    x, base = np.zeros((slots + 1) * LANES, np.float32), np.empty((slots - lowest) * LANES, np.float32)
    slope, coeff = np.empty(free * LANES, np.float32), np.empty(free * LANES, np.float32)
    mean, square = np.empty(free * LANES, np.float32), np.empty(free * LANES, np.float32)
    chord, height = numbers.chord.copy(), numbers.height.copy()
    low, high = np.empty(len(own.free) * LANES, np.float32), np.empty(len(own.free) * LANES, np.float32)
    start, lane, column = (
        np.empty(last + 2, np.int64),
        np.empty(most * LANES, np.int64),
        np.empty(most * LANES, np.int64),
    )
    place, side, beta = (
        np.empty(most * LANES, np.int64),
        np.empty(most * LANES, np.float32),
        np.empty(most * LANES, np.float32),
    )
    splits = Splits(start, lane, column, place, side, beta, np.empty(most * LANES, np.float32))
    mean_, square_ = np.empty(most * LANES, np.float32), np.empty(most * LANES, np.float32)
    leaf, chosen, ones = np.empty(LANES, np.int64), np.empty(LANES, np.int64), np.ones(inputs, np.float32)
    reached, best, joint = np.empty(LANES, np.float32), np.empty(LANES, np.float32), room_to_propose(layers, pairs)
    for block in range(begin, end, LANES):
        for b in range(LANES):
            leaf[b] = min(block + b, end - 1)
            reached[b], best[b], chosen[b] = forms.constant[table.query[leaf[b]]], _ZERO, -1
        into_lanes(table.slope, leaf, slope)
        into_lanes(table.share, leaf, joint.share)
        into_lanes(table.tilt, leaf, joint.tilt)
        gather_forms(forms, table.query, leaf, base, lowest)
        narrow(own, leaf, low, high, slope, chord, height)
        sort_splits(layers, table, leaf, splits)
        begin_joint(layers, joint, splits, _ZERO, _LEAST)
        fill(mean, _ZERO)
        fill(square, _LEAST)
        fill(mean_, _ZERO)
        fill(square_, _LEAST)
        for step in range(climb.steps + 1):
            rate = _pace(climb, step)
            fill(joint.paid, _ZERO)
            for l in range(last, -1, -1):
                multiply(down.first, down.start, down.col, down.place, numbers.down, l, x, x)
                if l >= layers.lowest:
                    add(x, layers.slot[l] * LANES, (layers.slot[l + 1] - layers.slot[l]) * LANES, base, lowest * LANES)
                below = np.float32(layers.slope[l])
                if step < climb.steps:
                    take_and_meet(layers, l, pairs, pairs.proposed, x, slope, chord, splits, joint, below)
                else:
                    take(layers, l, pairs, pairs.proposed, x, slope, chord, splits, joint, _ZERO, below)
                cross(layers, l, x, coeff, slope, chord, splits, _ZERO, below)
                give(layers, l, pairs, x, joint)
                if step == climb.steps:
                    f, n = layers.free[l] * LANES, (layers.free[l + 1] - layers.free[l]) * LANES
                    drop_splits(layers, l, coeff, splits, _ZERO)
                    pay_lines(reached, coeff, height, f, n, _ZERO)
                    if pairs.first[l] < pairs.first[l + 1]:
                        drop_splits(layers, l, joint.whole, splits, _ZERO)
                        find_splits(best, chosen, joint.whole, height, f, n, layers.slot[l])
                    else:
                        find_splits(best, chosen, coeff, height, f, n, layers.slot[l])
            if step == climb.steps:
                break
            corner(x, inputs * LANES)
            for b in range(LANES):
                x[inputs * LANES + b] = np.float32(1)
            for l in range(1, last + 1):
                multiply(up.first, up.start, up.col, up.place, numbers.up, l, x, x)
                _rise(layers, l, pairs, x, coeff, slope, mean, square, chord, height, splits, mean_, square_, joint,
                      rate)  # fmt: skip
                keep_in_range(own, l, low, high, slope)
        multiply(down.first, down.start, down.col, down.place, numbers.down, last + 1, x, x)
        for b in range(LANES):
            reached[b] += x[inputs * LANES + b] - joint.paid[b]
            best[b] = reached[b]
        subtract_sizes(reached, x, 0, inputs, ones, 0)
        corner(x, inputs * LANES)
        for t in range(start[last + 1]):
            table.multiplier[leaf[lane[t]], column[t]] = beta[t]
        for b in range(min(LANES, end - block)):
            i = block + b
            value[i], middle[i] = reached[b], best[b]
            branch[i] = chosen[b]
        out_of_lanes(slope, min(LANES, end - block), table.slope, block)
        out_of_lanes(joint.share, min(LANES, end - block), table.share, block)
        out_of_lanes(joint.tilt, min(LANES, end - block), table.tilt, block)
        out_of_lanes(x, min(LANES, end - block, len(points) - block), points, block)


@kernel_with_fused_products
def _written(layers: Layers, levels: Double, table: Table, leaf: Whole, slope: Double) -> None:
    """The slopes of 16 leaves as they are written down."""
    for l in range(1, len(layers.slot) - 1):
        least = layers.slope[l]
        steps = 255.0 / max(1.0 - least, 1e-30)
        for j in range(layers.free[l], layers.free[l + 1]):
            for b in range(LANES):
                code = np.rint((np.float64(table.slope[leaf[b], j]) - least) * steps)
                slope[j * LANES + b] = levels[l, int(min(code, 255.0)) if code > 0.0 else 0]


@kernel_with_fused_products
def prove(  # noqa: PLR0912, PLR0915
    layers: Layers, down: Pattern, numbers: Proving, pairs: Pairs, forms: Forms, own: Own, table: Table, begin: int,
    end: int, value: Double, constant: Double, affine: Double,
) -> None:  # fmt: skip
    """Rigorous values of the leaves `begin` to `end` of a table: `value`. Where `affine`, `(leaves, inputs)`, has any
    rows, affine bounds of the forms: these coefficients and `constant`, for which the charge for their product with the
    inputs is still to be paid. What overflows is infinite or not a number."""
    last, slots, free = len(layers.slot) - 2, layers.slot[-1], layers.free[-1]
    inputs, most, lowest = layers.slot[1] - 1, table.slot.shape[1], layers.slot[layers.lowest]
    x, base = np.zeros((slots + 1) * LANES), np.empty((slots - lowest) * LANES)
    slope, coeff = np.empty(free * LANES), np.empty(free * LANES)
    chord, height = numbers.chord.copy(), numbers.height.copy()
    low, high = np.empty(len(own.free) * LANES), np.empty(len(own.free) * LANES)
    start, lane, column = (
        np.empty(last + 2, np.int64),
        np.empty(most * LANES, np.int64),
        np.empty(most * LANES, np.int64),
    )
    place, side, beta = np.empty(most * LANES, np.int64), np.empty(most * LANES), np.empty(most * LANES)
    splits = Splits(start, lane, column, place, side, beta, np.empty(most * LANES))
    leaf, total, part = np.empty(LANES, np.int64), np.empty(LANES), np.empty(LANES)
    joint = room_to_prove(layers, pairs)
    for block in range(begin, end, LANES):
        for b in range(LANES):
            leaf[b] = min(block + b, end - 1)
            total[b] = forms.constant[table.query[leaf[b]]] - numbers.extra
        _written(layers, numbers.levels, table, leaf, slope)
        into_lanes(table.share, leaf, joint.share)
        into_lanes(table.tilt, leaf, joint.tilt)
        write_down(joint.share)
        write_down(joint.tilt)
        gather_forms(forms, table.query, leaf, base, lowest)
        narrow(own, leaf, low, high, slope, chord, height)
        sort_splits(layers, table, leaf, splits)
        begin_joint(layers, joint, splits, 0.0, 0.0)
        for t in range(start[last + 1]):
            if not beta[t] >= 0.0:
                total[lane[t]] = np.nan
        for l in range(last, -1, -1):
            multiply(down.first, down.start, down.col, down.place, numbers.down, l, x, x)
            s, f, n = layers.slot[l], layers.free[l] * LANES, (layers.free[l + 1] - layers.free[l]) * LANES
            rows = layers.slot[l + 1] - s
            if l >= layers.lowest:
                add(x, s * LANES, rows * LANES, base, lowest * LANES)
            if l == 0:
                break
            fill(part, 0.0)
            fill(joint.paid, 0.0)
            fill(joint.size, 0.0)
            take(layers, l, pairs, pairs.proven, x, slope, chord, splits, joint, 0.0, layers.slope[l])
            for b in range(LANES):
                size = joint.size[b]
                part[b] -= joint.paid[b] + pairs.unit * size + 0.0 * (4.0 * size)  # what overflows is no number
            # what rounding changes of coefficients behind the activation
            subtract_sizes(part, x, s * LANES, n // LANES + layers.flat[l], numbers.behind, s)
            cross(layers, l, x, coeff, slope, chord, splits, 0.0, layers.slope[l])
            give(layers, l, pairs, x, joint)
            drop_splits(layers, l, coeff, splits, 0.0)
            pay_lines(part, coeff, height, f, n, 0.0)
            # and before it
            subtract_sizes(part, x, s * LANES, rows, numbers.before, s)
            for b in range(LANES):
                total[b] += part[b]
        multiply(down.first, down.start, down.col, down.place, numbers.down, last + 1, x, x)
        for b in range(LANES):
            total[b] += x[inputs * LANES + b]
            part[b] = 0.0
        add_values(part, x, numbers.centre)
        subtract_sizes(part, x, 0, inputs, numbers.radius, 0)
        for b in range(min(LANES, end - block)):
            value[block + b] = total[b] + part[b]
            if len(affine):
                constant[block + b] = total[b]
        if len(affine):
            out_of_lanes(x, min(LANES, end - block), affine, block)
