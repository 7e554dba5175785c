"""Bounds of leaves, 16 at a time: ascent, value and next split in float32, and proofs in float64.

One call works on many leaves, never meets the interpreter and holds no lock. All that leaves share is read only, so
threads may work on parts of one table. Without numba these functions are not called.
"""

from __future__ import annotations

from typing import Any

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
    Memory,
    Own,
    Pairs,
    Pattern,
    Proposing,
    Proving,
    Room,
    Single,
    Splits,
    Table,
    Whole,
)
from krelax.lanes.products import multiply
from krelax.lanes.vectors import LANES

_ZERO, _LEAST = np.float32(0), np.float32(1e-20)


@kernel_with_fused_products
def _room(layers: Layers, own: Own, table: Table, chord: Any, height: Any, joint: Joint) -> Room:
    """Room for 16 leaves, of the type of `chord`."""
    kind, slots, free, ranges = chord.dtype, layers.slot[-1], layers.free[-1] * LANES, len(own.free) * LANES
    leaf, most, lowest = np.empty(LANES, np.int64), table.slot.shape[1] * LANES, layers.slot[layers.lowest]
    x, base = np.zeros((slots + 1) * LANES, kind), np.empty((slots - lowest) * LANES, kind)
    coeff, slope, low, high = np.empty(free, kind), np.empty(free, kind), np.empty(ranges, kind), np.empty(ranges, kind)
    splits = Splits(np.empty(len(layers.slot), np.int64), np.empty(most, np.int64), np.empty(most, np.int64),
                    np.empty(most, np.int64), np.empty(most, kind), np.empty(most, kind),
                    np.empty(most, kind))  # fmt: skip
    return Room(leaf, x, base, coeff, slope, chord.copy(), height.copy(), low, high, splits, joint)


@kernel_with_fused_products
def _choose(block: int, end: int, leaf: Whole) -> None:
    """The numbers of 16 leaves from `block` on; the last one again where there are fewer."""
    for b in range(LANES):
        leaf[b] = min(block + b, end - 1)


@kernel_that_proposes
def _memory(layers: Layers, table: Table) -> Memory:
    """Room for Adam's memories."""
    free, most = layers.free[-1] * LANES, table.slot.shape[1] * LANES
    return Memory(np.empty(free, np.float32), np.empty(free, np.float32), np.empty(most, np.float32),
                  np.empty(most, np.float32))  # fmt: skip


@kernel_that_proposes
def _forget(memory: Memory) -> None:
    """Adam's memories at the beginning."""
    fill(memory.mean, _ZERO)
    fill(memory.square, _LEAST)
    fill(memory.split_mean, _ZERO)
    fill(memory.split_square, _LEAST)


@kernel_with_fused_products
def _fetch(layers: Layers, forms: Forms, own: Own, table: Table, room: Room, zero: Any, least: Any) -> None:
    """Fill in what the table says of 16 leaves, whose slopes are there already."""
    into_lanes(table.share, room.leaf, room.joint.share)
    into_lanes(table.tilt, room.leaf, room.joint.tilt)
    gather_forms(forms, table.query, room.leaf, room.base, layers.slot[layers.lowest])
    narrow(own, room.leaf, room.low, room.high, room.slope, room.chord, room.height)
    sort_splits(layers, table, room.leaf, room.splits)
    begin_joint(layers, room.joint, room.splits, zero, least)


@kernel_with_fused_products
def _arrive(layers: Layers, l: int, down: Pattern, values: Any, x: Any, base: Any) -> None:
    """Coefficients at layer l: what the layers above it hand down, and those of the forms themselves."""
    multiply(down.first, down.start, down.col, down.place, values, l, x, x)
    if l >= layers.lowest:
        first, end = layers.slot[l] * LANES, layers.slot[l + 1] * LANES
        add(x, first, end - first, base, layers.slot[layers.lowest] * LANES)


@kernel_that_proposes
def _appraise(
    layers: Layers, l: int, pairs: Pairs, coeff: Single, height: Single, splits: Splits, joint: Joint, reached: Single,
    best: Single, chosen: Whole,
) -> None:  # fmt: skip
    """Add what the upper lines of layer l cost to `reached`, and look for the split that promises most: `chosen` are
    the slots so far, `best` how much they promise."""
    f, n = layers.free[l] * LANES, (layers.free[l + 1] - layers.free[l]) * LANES
    drop_splits(layers, l, coeff, splits, _ZERO)
    pay_lines(reached, coeff, height, f, n, _ZERO)
    if pairs.first[l] < pairs.first[l + 1]:
        drop_splits(layers, l, joint.whole, splits, _ZERO)
        find_splits(best, chosen, joint.whole, height, f, n, layers.slot[l])
    else:
        find_splits(best, chosen, coeff, height, f, n, layers.slot[l])


@kernel_that_proposes
def _turn(x: Single, inputs: int) -> None:
    """From coefficients of the inputs to the minimiser over the box, and the constant one behind it."""
    corner(x, inputs * LANES)
    for b in range(LANES):
        x[inputs * LANES + b] = np.float32(1)


@kernel_that_proposes
def _rise(
    layers: Layers, l: int, pairs: Pairs, x: Single, coeff: Single, slope: Single, chord: Single, height: Single,
    splits: Splits, joint: Joint, memory: Memory, rate: np.float32,
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
        climb_up(x, s, coeff, slope, memory.mean, memory.square, chord, height, f, n, below, rate)
    scale(x, s + n, layers.flat[l] * LANES, below)
    climb_splits(layers, l, x, splits, memory.split_mean, memory.split_square, below, rate)
    if joined:
        climb_pairs(layers, l, pairs, x, joint, rate)
        climb_lines(x, s, coeff, slope, memory.mean, memory.square, joint.point, joint.slope, joint.taken, f, n, below,
                    rate)  # fmt: skip


@kernel_that_proposes
def _pace(climb: Climb, step: int) -> np.float32:
    """The size of a step, with Adam's corrections for its beginning."""
    size = climb.rate * climb.decay**step * np.sqrt(1 - 0.9 ** (step + 1)) / (1 - 0.5 ** (step + 1))
    return np.float32(size)


@kernel_that_proposes
def _store(table: Table, room: Room, count: int, block: int) -> None:
    """Put slopes, shares, tilts and multipliers of 16 leaves back into the table, of which `count` are new."""
    splits = room.splits
    for t in range(splits.start[-1]):
        table.multiplier[room.leaf[splits.lane[t]], splits.column[t]] = splits.multiplier[t]
    out_of_lanes(room.slope, count, table.slope, block)
    out_of_lanes(room.joint.share, count, table.share, block)
    out_of_lanes(room.joint.tilt, count, table.tilt, block)


@kernel_that_proposes
def improve(
    layers: Layers, down: Pattern, up: Pattern, numbers: Proposing, pairs: Pairs, forms: Forms, own: Own, table: Table,
    climb: Climb, begin: int, end: int, value: Single, middle: Single, branch: Whole, points: Single,
) -> None:  # fmt: skip
    """Ascent of the leaves `begin` to `end` of a table, in place; then their values, what affine bounds of the forms
    are at the centre of the box, the slots of their next splits (-1: none), and where the bounds of the first of them
    are attained, in units of the radii, `(points, inputs)`."""
    last, inputs = len(layers.slot) - 2, layers.slot[1] - 1
    room = _room(layers, own, table, numbers.chord, numbers.height, room_to_propose(layers, pairs))
    x, base, coeff, slope, chord, height = room.x, room.base, room.coeff, room.slope, room.chord, room.height
    low, high, splits, joint, memory = room.low, room.high, room.splits, room.joint, _memory(layers, table)
    ones, chosen = np.ones(inputs, np.float32), np.empty(LANES, np.int64)
    reached, best = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    for block in range(begin, end, LANES):
        count = min(LANES, end - block)
        _choose(block, end, room.leaf)
        into_lanes(table.slope, room.leaf, slope)
        _fetch(layers, forms, own, table, room, _ZERO, _LEAST)
        _forget(memory)
        for b in range(LANES):
            reached[b], best[b], chosen[b] = forms.constant[table.query[room.leaf[b]]], _ZERO, -1
        for step in range(climb.steps + 1):
            fill(joint.paid, _ZERO)
            for l in range(last, -1, -1):
                _arrive(layers, l, down, numbers.down, x, base)
                below = np.float32(layers.slope[l])
                if step < climb.steps:
                    take_and_meet(layers, l, pairs, pairs.proposed, x, slope, chord, splits, joint, below)
                else:
                    take(layers, l, pairs, pairs.proposed, x, slope, chord, splits, joint, _ZERO, below)
                cross(layers, l, x, coeff, slope, chord, splits, _ZERO, below)
                give(layers, l, pairs, x, joint)
                if step == climb.steps:
                    _appraise(layers, l, pairs, coeff, height, splits, joint, reached, best, chosen)
            if step < climb.steps:
                _turn(x, inputs)
                for l in range(1, last + 1):
                    multiply(up.first, up.start, up.col, up.place, numbers.up, l, x, x)
                    _rise(layers, l, pairs, x, coeff, slope, chord, height, splits, joint, memory, _pace(climb, step))
                    keep_in_range(own, l, low, high, slope)
        multiply(down.first, down.start, down.col, down.place, numbers.down, last + 1, x, x)
        for b in range(LANES):
            reached[b] += x[inputs * LANES + b] - joint.paid[b]
            best[b] = reached[b]
        subtract_sizes(reached, x, 0, inputs, ones, 0)
        for b in range(count):
            value[block + b], middle[block + b], branch[block + b] = reached[b], best[b], chosen[b]
        _store(table, room, count, block)
        corner(x, inputs * LANES)
        out_of_lanes(x, min(count, len(points) - block), points, block)


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
def _fetch_written(
    layers: Layers, forms: Forms, own: Own, table: Table, levels: Double, room: Room, total: Double
) -> None:
    """Fill in what the table says of 16 leaves, as it is written down. A negative multiplier spoils the `total`."""
    _written(layers, levels, table, room.leaf, room.slope)
    _fetch(layers, forms, own, table, room, 0.0, 0.0)
    write_down(room.joint.share)
    write_down(room.joint.tilt)
    splits = room.splits
    for t in range(splits.start[-1]):
        if not splits.multiplier[t] >= 0.0:
            total[splits.lane[t]] = np.nan


@kernel_with_fused_products
def _cross_charged(
    layers: Layers, l: int, numbers: Proving, pairs: Pairs, x: Double, coeff: Double, slope: Double, chord: Double,
    height: Double, splits: Splits, joint: Joint, part: Double,
) -> None:  # fmt: skip
    """Cross layer l downwards, behind which pairs have taken their part. `part` becomes minus what that costs and what
    rounding may change."""
    s, f, n = layers.slot[l], layers.free[l] * LANES, (layers.free[l + 1] - layers.free[l]) * LANES
    for b in range(LANES):
        size = joint.size[b]
        part[b] = 0.0 - (joint.paid[b] + pairs.unit * size + 0.0 * (4.0 * size))  # what overflows is no number
    # what rounding changes of coefficients behind the activation
    subtract_sizes(part, x, s * LANES, n // LANES + layers.flat[l], numbers.behind, s)
    cross(layers, l, x, coeff, slope, chord, splits, 0.0, layers.slope[l])
    give(layers, l, pairs, x, joint)
    drop_splits(layers, l, coeff, splits, 0.0)
    pay_lines(part, coeff, height, f, n, 0.0)
    # and before it
    subtract_sizes(part, x, s * LANES, layers.slot[l + 1] - s, numbers.before, s)


@kernel_with_fused_products
def prove(
    layers: Layers, down: Pattern, numbers: Proving, pairs: Pairs, forms: Forms, own: Own, table: Table, begin: int,
    end: int, value: Double, constant: Double, affine: Double,
) -> None:  # fmt: skip
    """Rigorous values of the leaves `begin` to `end` of a table: `value`. Where `affine`, `(leaves, inputs)`, has any
    rows, affine bounds of the forms: these coefficients and `constant`, for which the charge for their product with the
    inputs is still to be paid. What overflows is infinite or not a number."""
    last, inputs, total, part = len(layers.slot) - 2, layers.slot[1] - 1, np.empty(LANES), np.empty(LANES)
    room = _room(layers, own, table, numbers.chord, numbers.height, room_to_prove(layers, pairs))
    x, base, coeff, slope, chord, height = room.x, room.base, room.coeff, room.slope, room.chord, room.height
    splits, joint = room.splits, room.joint
    for block in range(begin, end, LANES):
        count = min(LANES, end - block)
        _choose(block, end, room.leaf)
        for b in range(LANES):
            total[b] = forms.constant[table.query[room.leaf[b]]] - numbers.extra
        _fetch_written(layers, forms, own, table, numbers.levels, room, total)
        for l in range(last, 0, -1):
            _arrive(layers, l, down, numbers.down, x, base)
            fill(joint.paid, 0.0)
            fill(joint.size, 0.0)
            take(layers, l, pairs, pairs.proven, x, slope, chord, splits, joint, 0.0, layers.slope[l])
            _cross_charged(layers, l, numbers, pairs, x, coeff, slope, chord, height, splits, joint, part)
            for b in range(LANES):
                total[b] += part[b]
        _arrive(layers, 0, down, numbers.down, x, base)
        multiply(down.first, down.start, down.col, down.place, numbers.down, last + 1, x, x)
        for b in range(LANES):
            total[b] += x[inputs * LANES + b]
            part[b] = 0.0
        add_values(part, x, numbers.centre)
        subtract_sizes(part, x, 0, inputs, numbers.radius, 0)
        for b in range(count):
            value[block + b] = total[b] + part[b]
            if len(affine):
                constant[block + b] = total[b]
        if len(affine):
            out_of_lanes(x, count, affine, block)
