"""Pairs of neurons in lanes: what a pair takes over of its members' coefficients, what it pays for that, and a step of
ascent for its shares and tilts.

A pair pays the support function of its members' graph over an octagon: the largest product with 13 points
(`krelax.hull.octagon`), of those whose signs agree with the leaf's splits; of all of them where none do, because then
the leaf is empty. What is written down as machine vectors holds one pair of 16 leaves in registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from krelax.hull.jit import intrinsic, kernel_that_proposes, kernel_with_fused_products, llvm_tools
from krelax.lanes.crossing import At, Real, Reals, fill
from krelax.lanes.plan import Joint, Layers, Pairs, Single, Splits
from krelax.lanes.vectors import LANES, Code, Vector

# Points of a pair, numbers of a point, and members.
POINTS, PARTS = 13, 4
# A share of one, as it is written down.
ONE = 32767.0
# Steps of tilts in units of those of shares.
TILT = 0.03


class _Best:
    """The best of some points so far: its value, which of them it is, and the best of all, allowed or not."""

    def __init__(self, code: Code) -> None:
        self.value = self.every = code.constant(float("-inf"))
        self.number = code.whole_constant(0)

    def look(self, n: int, value: Vector, allowed: Any) -> None:
        """Look at point n, which only counts where it is allowed; None: everywhere."""
        code, better = value.code, value.above(self.value)
        if allowed is not None:
            self.every = self.every.at_least(value)
            better = code.builder.and_(better, allowed)
        self.value = value.where(better, self.value)
        self.number = code.builder.select(better, code.whole_constant(n), self.number)


def _best_of(code: Code, points: Any, signs: Any, pair: Any, factors: list[Vector], forbidden: Any) -> _Best:
    """The largest product of a pair's points; without `forbidden` signs of all of them."""
    best, builder = _Best(code), code.builder
    for n in range(POINTS):
        value = factors[0] * code.shared(points, code.place(pair, PARTS * LANES, n))
        for m, factor in enumerate(factors[1:], start=1):
            value = factor.times_plus(code.shared(points, code.place(pair, PARTS * LANES, m * LANES + n)), value)
        allowed = None
        if forbidden is not None:
            sign = code.shared_codes(signs, code.place(pair, POINTS, n))
            allowed = builder.icmp_signed("==", builder.and_(forbidden, sign), code.whole_constant(0))
        best.look(n, value, allowed)
    return best


def _pay(code: Code, with_points: bool) -> None:
    """The code of `pay` and of `pay_and_meet`."""
    x, line, share, tilt, points, signs, sides, reach, taken, joint, paid, size, *met, pair, first, second = code.given
    members, b = (first, second), code.builder
    part = [code.load(share, code.place(pair, 2, k)) * code.load(x, i) for k, i in enumerate(members)]
    whole = part[0].magnitude() + part[1].magnitude()
    slope = [
        code.load(tilt, code.place(pair, 2, k)).times_plus(whole, part[k] * code.load(line, i))
        for k, i in enumerate(members)
    ]
    forbidden = b.or_(code.load_codes(sides, first), b.shl(code.load_codes(sides, second), code.whole_constant(2)))
    value, number = code.variable(code.reals), code.variable(code.codes)
    with b.if_else(code.any(forbidden)) as (some, none):
        with some:
            best = _best_of(code, points, signs, pair, [*slope, *part], forbidden)
            b.store(best.value.where(best.value.above(float("-inf")), best.every).value, value)
            b.store(best.number, number)
        with none:
            best = _best_of(code, points, signs, pair, [*slope, *part], None)
            b.store(best.value.value, value)
            b.store(best.number, number)
    code.add(paid, code.number(0), Vector(code, b.load(value)))
    absolute = [s.magnitude() + p.magnitude() for s, p in zip(slope, part, strict=True)]
    largest = [code.shared(reach, code.place(pair, 2, k)) for k in range(2)]
    code.add(size, code.number(0), absolute[0].times_plus(largest[0], absolute[1] * largest[1]))
    for k, i in enumerate(members):
        code.add(taken, i, part[k])
        code.add(joint, i, slope[k])
    for m in range(PARTS if with_points else 0):
        row = code.place(pair, PARTS, m)
        code.store(met[0], row, code.chosen(code.load(points, row), b.load(number), POINTS))


@intrinsic
def _pay_pair(
    typing: Any, x: Any, line: Any, share: Any, tilt: Any, points: Any, signs: Any, sides: Any, reach: Any, taken: Any,
    joint: Any, paid: Any, size: Any, pair: Any, first: Any, second: Any,
) -> Any:  # fmt: skip
    """What one pair takes and pays; `first` and `second` are its members' rows in `x`, `line`, `taken` and `joint`.
    `size` gets the sum of the absolute terms, up to which the price is right but for rounding."""
    _, _, types = llvm_tools()

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        _pay(Code(context, builder, signature, given), with_points=False)
        return context.get_dummy_value()

    arrays = (x, line, share, tilt, points, signs, sides, reach, taken, joint, paid, size)
    return types.void(*arrays, *[types.intp] * 3), generate


@intrinsic
def _pay_and_meet(
    typing: Any, x: Any, line: Any, share: Any, tilt: Any, points: Any, signs: Any, sides: Any, reach: Any, taken: Any,
    joint: Any, paid: Any, size: Any, met: Any, pair: Any, first: Any, second: Any,
) -> Any:  # fmt: skip
    """The same; `met` gets the points at which supports are attained."""
    _, _, types = llvm_tools()

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        _pay(Code(context, builder, signature, given), with_points=True)
        return context.get_dummy_value()

    arrays = (x, line, share, tilt, points, signs, sides, reach, taken, joint, paid, size, met)
    return types.void(*arrays, *[types.intp] * 3), generate


def _climb(code: Code) -> None:
    """The code of `_climb_pair`."""
    x, line, share, tilt, met, point, after, mean, square, gained, along, rate, pair, first, second = code.given
    members, rate = (first, second), code.everywhere(rate)
    shares = [code.load(share, code.place(pair, 2, k)) for k in range(2)]
    tilts = [code.load(tilt, code.place(pair, 2, k)) for k in range(2)]
    whole, lines = [code.load(x, i) for i in members], [code.load(line, i) for i in members]
    part = [s * w for s, w in zip(shares, whole, strict=True)]
    moved = [code.load(point, i) - code.load(met, code.place(pair, PARTS, k)) for k, i in enumerate(members)]
    tilting = tilts[0].times_plus(moved[0], tilts[1] * moved[1])
    size, one, zero = part[0].magnitude() + part[1].magnitude(), code.constant(1.0), code.constant(0.0)
    for k, i in enumerate(members):
        sign = one.where(part[k].above(0.0), code.constant(-1.0).where(zero.above(part[k]), zero))
        inside = lines[k].times_plus(moved[k], sign * tilting) - code.load(met, code.place(pair, PARTS, 2 + k))
        worth = inside - code.load(after, i)
        code.add(gained, i, shares[k] * worth)
        code.add(along, i, (part[k] * moved[k]).where(whole[k].above(0.0), zero))
        climbers = ((share, shares[k], k, whole[k] * worth, rate, 0.0),
                    (tilt, tilts[k], 2 + k, size * moved[k], rate * TILT, -1.0))  # fmt: skip
        for array, value, row, gradient, pace, least in climbers:
            at = code.place(pair, PARTS, row)
            m = (code.load(mean, at) + gradient) * 0.5
            w = code.load(square, at).times_plus(0.9, gradient * gradient * 0.1)
            code.store(mean, at, m)
            code.store(square, at, w)
            risen = pace.times_plus(m.over_root(w), value).at_least(least).at_most(1.0)
            code.store(array, code.place(pair, 2, k), risen)


@intrinsic
def _climb_pair(
    typing: Any, x: Any, line: Any, share: Any, tilt: Any, met: Any, point: Any, after: Any, mean: Any, square: Any,
    gained: Any, along: Any, rate: Any, pair: Any, first: Any, second: Any,
) -> Any:  # fmt: skip
    """A step of Adam for the shares and tilts of one pair, from the primal points before its members and `after` them,
    as they would be alone. `gained` gets by how much they are better in the pair, `along` the derivatives with respect
    to the members' lower slopes."""
    _, _, types = llvm_tools()

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        _climb(Code(context, builder, signature, given))
        return context.get_dummy_value()

    arrays = (x, line, share, tilt, met, point, after, mean, square, gained, along)
    return types.void(*arrays, types.float32, *[types.intp] * 3), generate


@kernel_with_fused_products
def mark_sides(layers: Layers, splits: Splits, sides: Any) -> None:
    """For all undecided slots of 16 leaves which signs their splits forbid: 1 positive ones, 2 negative ones."""
    for t in range(len(sides)):
        sides[t] = 0
    for l in range(len(layers.slot) - 1):
        s, f, n = layers.slot[l] * LANES, layers.free[l] * LANES, (layers.free[l + 1] - layers.free[l]) * LANES
        for t in range(splits.start[l], splits.start[l + 1]):
            place = splits.place[t] - s
            if place < n:
                sides[f + place] = 2 if splits.side[t] > 0 else 1


@kernel_with_fused_products
def _begin(
    layers: Layers, l: int, x: Reals, slope: Reals, chord: Reals, splits: Splits, joint: Joint, zero: Real, below: Real,
) -> None:  # fmt: skip
    """Keep the coefficients behind layer l, and the slopes of their lines."""
    s, f, n = layers.slot[l] * LANES, layers.free[l] * LANES, (layers.free[l + 1] - layers.free[l]) * LANES
    for t in range(n):
        i, j = At(s + t), At(f + t)
        v = x[i]
        joint.whole[j] = v
        joint.line[j] = slope[j] if v > zero else chord[j]
    for t in range(n):
        joint.taken[At(t)] = zero
        joint.slope[At(t)] = zero
    for t in range(splits.start[l], splits.start[l + 1]):
        place = splits.place[t] - s
        if place < n:
            joint.line[f + place] = zero + 1 if splits.side[t] > zero else below


@kernel_with_fused_products
def _leave_rest(layers: Layers, l: int, x: Reals, joint: Joint) -> None:
    """What pairs take is not left for single neurons."""
    s, n = layers.slot[l] * LANES, (layers.free[l + 1] - layers.free[l]) * LANES
    for t in range(n):
        x[At(s + t)] -= joint.taken[At(t)]


@kernel_with_fused_products
def take(
    layers: Layers, l: int, pairs: Pairs, points: Reals, x: Reals, slope: Reals, chord: Reals, splits: Splits,
    joint: Joint, zero: Real, below: Real,
) -> None:  # fmt: skip
    """Let the pairs of layer l take their parts of coefficients behind it, and pay: in `joint.paid`."""
    if pairs.first[l] == pairs.first[l + 1]:
        return
    _begin(layers, l, x, slope, chord, splits, joint, zero, below)
    f = layers.free[l]
    whole, line, sides = joint.whole[f * LANES :], joint.line[f * LANES :], joint.sides[f * LANES :]
    for g in range(pairs.first[l], pairs.first[l + 1]):
        _pay_pair(whole, line, joint.share, joint.tilt, points, pairs.signs, sides, joint.reach, joint.taken,
                  joint.slope, joint.paid, joint.size, g, pairs.member[g, 0], pairs.member[g, 1])  # fmt: skip
    _leave_rest(layers, l, x, joint)


@kernel_that_proposes
def take_and_meet(
    layers: Layers, l: int, pairs: Pairs, points: Single, x: Single, slope: Single, chord: Single, splits: Splits,
    joint: Joint, below: Real,
) -> None:  # fmt: skip
    """The same, with the points at which supports are attained: in `joint.met`."""
    if pairs.first[l] == pairs.first[l + 1]:
        return
    _begin(layers, l, x, slope, chord, splits, joint, np.float32(0), below)
    f = layers.free[l]
    whole, line, sides = joint.whole[f * LANES :], joint.line[f * LANES :], joint.sides[f * LANES :]
    for g in range(pairs.first[l], pairs.first[l + 1]):
        _pay_and_meet(whole, line, joint.share, joint.tilt, points, pairs.signs, sides, joint.reach, joint.taken,
                      joint.slope, joint.paid, joint.size, joint.met, g, pairs.member[g, 0],
                      pairs.member[g, 1])  # fmt: skip
    _leave_rest(layers, l, x, joint)


@kernel_with_fused_products
def give(layers: Layers, l: int, pairs: Pairs, x: Reals, joint: Joint) -> None:
    """Add the slopes of the pairs of layer l to those of single neurons."""
    if pairs.first[l] == pairs.first[l + 1]:
        return
    s, n = layers.slot[l] * LANES, (layers.free[l + 1] - layers.free[l]) * LANES
    for t in range(n):
        x[At(s + t)] += joint.slope[At(t)]


@kernel_that_proposes
def settle(
    x: Single, begin: int, rest: Single, slope: Single, chord: Single, height: Single, first: int, count: int,
    point: Single,
) -> None:  # fmt: skip
    """Keep the primal point before an activation, and put the one behind it, of single neurons, in its place."""
    for t in range(count):
        i, j = At(begin + t), At(first + t)
        v = x[i]
        point[At(t)] = v
        x[i] = slope[j] * v if rest[j] > np.float32(0) else chord[j] * v + height[j]


@kernel_that_proposes
def climb_lines(
    x: Single, begin: int, rest: Single, slope: Single, mean: Single, square: Single, point: Single, along: Single,
    gained: Single, first: int, count: int, least: Real, rate: Real,
) -> None:  # fmt: skip
    """A step of Adam for the slopes of lower lines, single neurons' and pairs' share of the derivative together; and
    what pairs gain, added to the primal point behind the activation."""
    for t in range(count):
        j = At(first + t)
        g = max(rest[j], np.float32(0)) * point[At(t)] + along[At(t)]
        m = np.float32(0.5) * (mean[j] + g)
        w = np.float32(0.9) * square[j] + np.float32(0.1) * g * g
        mean[j] = m
        square[j] = w
        slope[j] = min(max(slope[j] + rate * m / np.sqrt(w), least), np.float32(1))
    for t in range(count):
        x[At(begin + t)] += gained[At(t)]


@kernel_that_proposes
def climb_pairs(layers: Layers, l: int, pairs: Pairs, x: Single, joint: Joint, rate: Real) -> None:
    """Steps of the shares and tilts of layer l, whose point is in `joint.point`, and behind single neurons in `x`."""
    f, s = layers.free[l], layers.slot[l]
    count = (layers.free[l + 1] - f) * LANES
    for t in range(count):
        joint.taken[At(t)] = np.float32(0)
        joint.slope[At(t)] = np.float32(0)
    whole, line, after = joint.whole[f * LANES :], joint.line[f * LANES :], x[s * LANES :]
    for g in range(pairs.first[l], pairs.first[l + 1]):
        _climb_pair(whole, line, joint.share, joint.tilt, joint.met, joint.point, after, joint.mean, joint.square,
                    joint.taken, joint.slope, rate, g, pairs.member[g, 0], pairs.member[g, 1])  # fmt: skip


@kernel_with_fused_products
def begin_joint(layers: Layers, joint: Joint, splits: Splits, zero: Real, least: Real) -> None:
    """Prepare room for 16 leaves."""
    if len(joint.share):
        mark_sides(layers, splits, joint.sides)
        fill(joint.mean, zero)
        fill(joint.square, least)


@kernel_that_proposes
def room_to_propose(layers: Layers, pairs: Pairs) -> Joint:
    """Room for the pairs of 16 leaves, empty where there are none."""
    count, widest, free = len(pairs.member), 0, 0
    if count:
        free = layers.free[-1]
        for l in range(len(layers.free) - 1):
            widest = max(widest, layers.free[l + 1] - layers.free[l])
    two, four, row, all_ = 2 * count * LANES, 4 * count * LANES, widest * LANES, free * LANES
    return Joint(
        np.empty(two, np.float32), np.empty(two, np.float32), np.empty(four, np.float32), np.empty(four, np.float32),
        np.empty(four, np.float32), pairs.reach.astype(np.float32), np.empty(all_, np.float32),
        np.empty(all_, np.float32), np.empty(all_, np.int32), np.empty(row, np.float32), np.empty(row, np.float32),
        np.empty(row, np.float32), np.zeros(LANES, np.float32), np.zeros(LANES, np.float32),
    )  # fmt: skip


@kernel_with_fused_products
def room_to_prove(layers: Layers, pairs: Pairs) -> Joint:
    """The same in double precision, without what only ascent needs."""
    count, widest, free = len(pairs.member), 0, 0
    if count:
        free = layers.free[-1]
        for l in range(len(layers.free) - 1):
            widest = max(widest, layers.free[l + 1] - layers.free[l])
    two, row, all_ = 2 * count * LANES, widest * LANES, free * LANES
    return Joint(
        np.empty(two), np.empty(two), np.empty(0), np.empty(0), np.empty(0), pairs.reach, np.empty(all_),
        np.empty(all_), np.empty(all_, np.int32), np.empty(row), np.empty(row), np.empty(0), np.zeros(LANES),
        np.zeros(LANES),
    )  # fmt: skip


@kernel_with_fused_products
def write_down(values: Reals) -> None:
    """Shares or tilts as they are written down (`krelax.proof.choices`)."""
    for t in range(len(values)):
        values[t] = np.rint(values[t] * ONE) / ONE
