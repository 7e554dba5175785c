"""One activation crossed backwards, for a batch of forms: groups take over their parts, neurons pay for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.activations import KINDS, Ends
from krelax.certificate.arithmetic import Arithmetic, Array, Floats, Rows
from krelax.certificate.groups import Groups
from krelax.certificate.kernel import Bounds, Crossed
from krelax.certificate.network import Activation, Index


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
class Table:
    """Numbers `(rows, entries)` of some neurons; `missing` stands for those of others."""

    entries: Index
    values: Floats
    missing: float = np.nan

    def at(self, neurons: Index, size: int) -> Floats:
        """The numbers of these out of `size` neurons."""
        place = np.full(size, -1)
        place[neurons] = np.arange(len(neurons))
        mine = place[self.entries] >= 0
        result = np.full((len(neurons), len(self.values)), self.missing)
        result[place[self.entries[mine]]] = self.values.T[mine]
        return result.T


@dataclass
class Choice:
    """How slopes are chosen: by a rule, unless there are fractions `t` of lower slopes, or slopes of a neuron's lower
    and upper `lines`, or `absolute` ones, NaN where there are none; and then `lowered`."""

    rule: str = "adaptive"
    t: Table | None = None
    lines: tuple[Table, Table] | None = None
    absolute: Table | None = None
    lowered: Table | None = None
    parts: Sequence[Part] = ()

    def binding(self) -> list[Index]:
        """Neurons of which anything is chosen even if their sign is settled."""
        tables = (self.absolute, self.lowered, *(self.lines or ()))
        return [t.entries for t in tables if t is not None] + [p.groups.members for p in self.parts]


def cross(bounds: Bounds, j: int, coeff: Array, ends: Ends, choice: Choice, which: Rows) -> Crossed:
    """Cross activation j. Behind it are the coefficients `coeff`, `(rows, neurons)`, before it the intervals `ends`,
    `(regions | rows | 1, entries)`, cut by splits; `which` are the rows' regions.

    ReLUs that are z, or zero, and of which nothing is chosen hand on their coefficients, or zero. They pay nothing, and
    nothing rounds.
    """
    ar, node, (lower, upper) = bounds.ar, bounds.network.activation(j), ends
    dead = (upper <= 0) & (node.negative_slope == 0)
    settled = np.logical_and(((lower >= 0) | dead).all(0), node.kind == "relu")
    for neurons in choice.binding():
        settled[neurons] = False
    if not settled.any():
        return _cross(bounds, j, coeff, ends, choice, which, slice(None))
    others = np.flatnonzero(~settled)
    crossed = _cross(bounds, j, coeff, ends, choice, which, others)
    slopes = coeff * ar.number((lower >= 0).astype(np.float64))[which]
    slopes[:, others] = crossed.slopes
    return replace(crossed, slopes=slopes)


def _cross(
    bounds: Bounds, j: int, coeff: Array, ends: Ends, choice: Choice, which: Rows, columns: Index | slice
) -> Crossed:
    """What `cross` says, of some of the neurons."""
    ar, node, size = bounds.ar, bounds.network.activation(j), ends[0].shape[1]
    kind, zero, coeff = KINDS[node.kind], ar.number(np.zeros(())), coeff[:, columns]
    rest, joint, price, taken = coeff, None, zero, zero
    for part in choice.parts:
        if not part.active.any():
            continue
        given, slope = (part.groups.put(ar, x)[:, columns] for x in (part.coeff, part.slope))
        rest = rest - given
        joint = slope if joint is None else joint + slope
        price = price + part.price(ar, (ends[0][which], ends[1][which]))
        if ar.unit:
            taken = taken + part.groups.put(ar, abs(part.coeff) + abs(part.slope))[:, columns]
    own, ends = kind.behind(ar, node, rest), (ends[0][:, columns], ends[1][:, columns])
    slopes = ar.choice(_slopes(node, ar.floats(own), ends, choice, which, np.arange(size)[columns], size))
    own_ends = ends[0][which], ends[1][which]
    price = price + kind.price(ar, node, own, slopes, own_ends).sum(1)
    if bounds.float32 and node.negative_slope:  # the product with the slope rounds
        error = 2.0**-23 * node.negative_slope * np.maximum(-own_ends[0], 0) + 2.0**-120
        price = price + ar.dot(abs(coeff), ar.number(error))
    terms = zero
    if ar.unit:
        largest = bounds.largest(node.inputs[0])[which][:, columns]
        terms = ar.dot(abs(slopes) + taken, largest) + ar.dot(abs(coeff), kind.reach(node, largest))
    count = size + sum(part.groups.members.size for part in choice.parts)
    return Crossed(slopes if joint is None else slopes + joint, price, terms, count)


def _slopes(
    node: Activation, coeff: Floats, ends: Ends, choice: Choice, which: Rows, neurons: Index, size: int
) -> Floats:
    """The slopes chosen for some neurons alone."""
    t = None if choice.t is None else choice.t.at(neurons, size)
    result = KINDS[node.kind].slopes(node, coeff, ends, choice.rule, t, which)
    if choice.lines is not None:
        lower, upper = (table.at(neurons, size) for table in choice.lines)
        line = np.where(coeff > 0, lower, upper)
        result = np.where(np.isnan(line), result, line * coeff)
    if choice.absolute is not None:
        absolute = choice.absolute.at(neurons, size)
        result = np.where(np.isnan(absolute), result, absolute)
    return result if choice.lowered is None else result - choice.lowered.at(neurons, size)
