"""One activation crossed backwards, for a batch of forms: groups take over their parts, neurons pay for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.activations import KINDS, Ends
from krelax.certificate.arithmetic import Arithmetic, Array, Floats, Rows
from krelax.certificate.groups import Groups
from krelax.certificate.kernel import Bounds, Crossed


@dataclass
class Part:
    """What a set of groups takes over of coefficients and slopes, `(rows, groups, k)`, and the bases that bound it.
    `active`, `(rows,)`, says in which rows it takes anything."""

    groups: Groups
    coeff: Array
    slope: Array
    basis: NDArray[np.uint8] | None
    active: NDArray[np.bool_]

    def price(self, ar: Arithmetic, ends: Ends) -> Array:
        """What the groups pay in each row, `(rows,)`: nothing where they take nothing."""
        rows = np.flatnonzero(self.active)
        some = (end if len(end) == 1 else end[rows] for end in ends)
        basis = None if self.basis is None else self.basis[rows]
        paid = self.groups.support(ar, self.coeff[rows], self.slope[rows], (next(some), next(some)), basis).sum(1)
        return ar.where(self.active, paid[self.active.cumsum().clip(1) - 1], ar.number(np.zeros(())))


@dataclass
class Choice:
    """How slopes are chosen: by a rule, unless there are fractions `t` of lower slopes, perhaps with slopes of `upper`
    lines, or slopes of a neuron's lower and upper `lines`, or `absolute` ones, NaN where there are none; and then
    `lowered`. Each is `(rows, entries)`."""

    rule: str = "adaptive"
    t: Floats | None = None
    upper: Floats | None = None
    lines: tuple[Floats, Floats] | None = None
    absolute: Floats | None = None
    lowered: Floats | None = None
    parts: Sequence[Part] = field(default_factory=tuple)


def cross(bounds: Bounds, j: int, coeff: Array, ends: Ends, choice: Choice, which: Rows) -> Crossed:
    """Cross activation j. Behind it are the coefficients `coeff`, `(rows, neurons)`, before it the intervals `ends`,
    `(regions | rows | 1, entries)`, cut by splits; `which` are the rows' regions."""
    ar, node = bounds.ar, bounds.network.activation(j)
    kind, zero = KINDS[node.kind], ar.number(np.zeros(()))
    rest, joint, price, taken = coeff, None, zero, zero
    own_ends = ends[0][which], ends[1][which]
    for part in choice.parts:
        if not part.active.any():
            continue
        put = part.groups.put
        rest = rest - put(ar, part.coeff)
        joint = put(ar, part.slope) if joint is None else joint + put(ar, part.slope)
        price = price + part.price(ar, own_ends)
        if ar.unit:
            taken = taken + put(ar, abs(part.coeff) + abs(part.slope))
    own = kind.behind(ar, node, rest)
    slopes = ar.choice(_slopes(bounds, j, ar.floats(own), ends, choice, which))
    price = price + kind.price(ar, node, own, slopes, own_ends).sum(1)
    if bounds.float32 and node.negative_slope:  # the product with the slope rounds
        error = 2.0**-23 * node.negative_slope * np.maximum(-own_ends[0], 0) + 2.0**-120
        price = price + ar.dot(abs(coeff), ar.number(error))
    terms = zero
    if ar.unit:
        largest = bounds.largest(node.inputs[0])[which]
        terms = ar.dot(abs(slopes) + taken, largest) + ar.dot(abs(coeff), kind.reach(node, largest))
    count = bounds.network.size(node.inputs[0]) + sum(part.groups.members.size for part in choice.parts)
    return Crossed(slopes if joint is None else slopes + joint, price, terms, count)


def _slopes(bounds: Bounds, j: int, coeff: Floats, ends: Ends, choice: Choice, which: Rows) -> Floats:
    """The slopes chosen for the neurons alone."""
    node = bounds.network.activation(j)
    result = KINDS[node.kind].slopes(node, coeff, ends, choice.rule, choice.t, choice.upper, which)
    if choice.lines is not None:
        line = np.where(coeff > 0, *choice.lines)
        result = np.where(np.isnan(line), result, line * coeff)
    if choice.absolute is not None:
        result = np.where(np.isnan(choice.absolute), result, choice.absolute)
    return result if choice.lowered is None else result - choice.lowered
