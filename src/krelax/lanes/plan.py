"""What the kernels of lanes are given: a network as layers of sparse matrices, and leaves as tables.

Layers are numbered from 0, the input, in the order of the network. Every other layer is an activation with its
pre-activation, or an affine node that is kept as it is. Its *slots* are the entries that matter: undecided ones first,
then `flat` ones, whose output is a fixed multiple of their pre-activation (negative ones of leaky ReLUs), then those
that pass. The last slot of layer 0 is the constant one, whose coefficients are biases. Slots are numbered through all
layers; one more behind them takes what nobody reads.

Matrices of passes up have the number of the layer that reads, those of passes down that of the layer that is read. The
last one of the latter has the constants.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]
Single = NDArray[np.float32]
Double = NDArray[np.float64]


class Layers(NamedTuple):
    """Where slots are. `slot`, `(layers + 1,)`: the first slot of each layer, and the end. `free`, `(layers + 1,)`:
    the number of each layer's first undecided slot among all undecided ones, and how many there are. `flat`,
    `(layers,)`: how many flat slots follow the undecided ones. `slope`, `(layers,)`: the multiple of flat slots, and of
    negative sides. `lowest`: the first layer on which forms have coefficients."""

    slot: Whole
    free: Whole
    flat: Whole
    slope: Double
    lowest: int


class Pattern(NamedTuple):
    """Matrices in groups of four rows with common columns, without their numbers: groups `first[n]` to `first[n + 1]`
    are those of matrix n, group g has columns `col[start[g] : start[g + 1]]` and rows `place[4 g : 4 g + 4]`."""

    first: Whole
    start: Whole
    col: NDArray[np.int32]
    place: Whole


class Proposing(NamedTuple):
    """Numbers of proposals, for inputs in units of the radii of the box: those of the matrices, and of every undecided
    slot the slope and the height of its upper line, in every lane."""

    down: Single
    up: Single
    chord: Single
    height: Single


class Proving(NamedTuple):
    """Numbers of proofs, some as for proposals. `before` and `behind`, `(slots,)`: what rounding may change for every
    unit of a coefficient before an activation, and behind it; `centre` and `radius`, `(inputs,)`, of the box. `levels`,
    `(layers, 256)`: the slopes of lower lines that can be written down. `extra`: what underflow may change."""

    down: Double
    chord: Double
    height: Double
    before: Double
    behind: Double
    centre: Double
    radius: Double
    levels: Double
    extra: float


class Pairs(NamedTuple):
    """Pairs of undecided slots: those of layer l have numbers `first[l]` to `first[l + 1]`. `member`, `(pairs, 2)`:
    their slots, numbered from the first of the layer. `proposed` and `proven`, `(pairs * 4 * 16,)`: the points (z, -a)
    that span their graphs, in both types; of each pair first the first numbers of all points, with room for 16.
    `signs`, `(pairs * 13,)`, which signs z has: 1 and 2 say that the first member is positive and negative, 4 and 8
    that the second one is. `reach`, `(pairs * 2,)`: the largest |z| of members; and `unit`, what rounding may change
    for every unit of a pair's absolute terms."""

    first: Whole
    member: Whole
    proposed: Single
    proven: Double
    signs: NDArray[np.int32]
    reach: Double
    unit: float


class Forms(NamedTuple):
    """The queries: coefficients of query q are `value[start[q] : start[q + 1]]`, at the slots `slot[...]`."""

    start: Whole
    slot: Whole
    value: Double
    constant: Double


class Own(NamedTuple):
    """Intervals that are the leaves' own, of the undecided slots with the numbers `free`: the ends of the range of
    lower slopes, and the slope and the height of upper lines, `(leaves, len(free))` each. Those of layer l are in
    columns `first[l]` to `first[l + 1]`."""

    free: Whole
    first: Whole
    low: Double
    high: Double
    chord: Double
    height: Double


class Table(NamedTuple):
    """Leaves: whose they are, and their splits, `(leaves, depth)`, at slots (-1: none) on the side 1 or -1, with
    multipliers. `slope`, `(leaves, undecided)`: slopes of lower lines. `share` and `tilt`, `(leaves, 2 * pairs)`: what
    pairs take of their members, and how their slopes differ from the members' lines."""

    query: Whole
    slot: Whole
    side: Single
    multiplier: Single
    slope: Single
    share: Single
    tilt: Single


class Splits(NamedTuple):
    """The splits of 16 leaves: those of layer l have numbers `start[l]` to `start[l + 1]`. Of each its lane, its column
    in the table, its place in a row of slots and lanes, its side, its multiplier, and room for what was `at` its
    place."""

    start: Whole
    lane: Whole
    column: Whole
    place: Whole
    side: Any
    multiplier: Any
    at: Any


class Joint(NamedTuple):
    """Room for the pairs of 16 leaves, in rows of 16: their shares, tilts and the points they `met`; Adam's memories;
    `reach` in the type; coefficients behind undecided slots, the slopes of their lines, and which signs splits forbid;
    of one layer what pairs have taken, their slopes, and the primal point; what they pay, and its absolute terms."""

    share: Any
    tilt: Any
    met: Any
    mean: Any
    square: Any
    reach: Any
    whole: Any
    line: Any
    sides: Any
    taken: Any
    slope: Any
    point: Any
    paid: Any
    size: Any


class Room(NamedTuple):
    """Room for 16 leaves, in rows of 16. `leaf`, `(16,)`: their numbers. `x`: coefficients, or a primal point, at all
    slots; `base`: coefficients of their forms, from the lowest slot on that has any. Of undecided slots: coefficients
    behind them, `coeff`; the slopes of their lower lines; the slope and the height of their upper lines. `low` and
    `high`: ranges of lower slopes, as `Own` has them."""

    leaf: Whole
    x: Any
    base: Any
    coeff: Any
    slope: Any
    chord: Any
    height: Any
    low: Any
    high: Any
    splits: Splits
    joint: Joint


class Memory(NamedTuple):
    """Adam's memories for 16 leaves: of slopes of lower lines, and of multipliers of splits."""

    mean: Single
    square: Single
    split_mean: Single
    split_square: Single


class Climb(NamedTuple):
    """Steps of ascent, how fast it begins, and by what steps shrink."""

    steps: int
    rate: float
    decay: float
