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
    """Numbers of some neurons, `(rows, entries)`; NaN where there is none."""

    entries: Index
    values: Floats

    @property
    def present(self) -> Index:
        """Neurons with a number in some row."""
        return self.entries[~np.isnan(self.values).all(0)]

    def at(self, neurons: Index, size: int) -> Floats:
        """The numbers of these out of `size` neurons."""
        place = _places(neurons, size)
        mine = place[self.entries] >= 0
        result = np.full((len(neurons), len(self.values)), np.nan)
        result[place[self.entries[mine]]] = self.values.T[mine]
        return result.T


def _places(entries: Index, size: int) -> Index:
    """Where each of `size` neurons is among some of them, -1 if nowhere."""
    place = np.full(size, -1)
    place[entries] = np.arange(len(entries))
    return place


@dataclass
class Choice:
    """How slopes are chosen: by a rule, unless tables have fractions "t" of lower slopes, perhaps with slopes of upper
    lines, "top", or their "own" slopes of neurons that are split, or slopes of neurons' "lower" and "upper" lines, or
    "absolute" ones, and how far they are then "lowered"."""

    rule: str = "adaptive"
    tables: dict[str, Table] = field(default_factory=dict)
    parts: Sequence[Part] = ()


def cross(bounds: Bounds, j: int, coeff: Array, ends: Ends, choice: Choice, which: Rows) -> Crossed:
    """Cross activation j. Behind it are the coefficients `coeff`, `(rows, neurons)`, before it the intervals `ends`,
    `(regions | rows | 1, entries)`, cut by splits; `which` are the rows' regions.

    ReLUs that are z, or zero, all over their intervals, and of which nothing is chosen, hand on their coefficients, or
    zero: they pay nothing, and nothing rounds. All else is about the others, the `columns`."""
    ar, node, size = bounds.ar, bounds.network.activation(j), ends[0].shape[1]
    kind, zero = KINDS[node.kind], ar.number(np.zeros(()))
    settled = _settled(node, ends, choice)
    columns = np.flatnonzero(~settled) if settled.any() else slice(None)
    all_ends, passed, coeff = (ends[0][which], ends[1][which]), coeff, coeff[:, columns]
    ends, own_ends = ((x[0][:, columns], x[1][:, columns]) for x in (ends, all_ends))
    rest, joint, price, taken = coeff, zero, zero, zero
    for part in choice.parts:
        if not part.active.any():
            continue
        taking, slope = (part.groups.put(ar, x)[:, columns] for x in (part.coeff, part.slope))
        rest, joint, price = rest - taking, joint + slope, price + part.price(ar, all_ends)
        if ar.unit:
            taken = taken + part.groups.put(ar, abs(part.coeff) + abs(part.slope))[:, columns]
    own = kind.behind(ar, node, rest)
    tables = {name: table.at(np.arange(size)[columns], size) for name, table in choice.tables.items()}
    slopes = ar.choice(_slopes(node, ar.floats(own), ends, choice.rule, tables, which))
    price = price + kind.price(ar, node, own, slopes, own_ends).sum(1)
    if bounds.float32 and node.negative_slope:  # the product with the slope rounds
        error = 2.0**-23 * node.negative_slope * np.maximum(-own_ends[0], 0) + 2.0**-120
        price = price + ar.dot(abs(coeff), ar.number(error))
    terms = zero
    if ar.unit:
        largest = bounds.largest(node.inputs[0])[which][:, columns]
        terms = ar.dot(abs(slopes) + taken, largest) + ar.dot(abs(coeff), kind.reach(node, largest))
    slopes = slopes + joint
    if settled.any():
        passed = passed * ar.number((all_ends[0] >= 0).astype(np.float64))
        passed[:, columns] = slopes
        slopes = passed
    return Crossed(slopes, price, terms, size + sum(part.groups.members.size for part in choice.parts))


def _settled(node: Activation, ends: Ends, choice: Choice) -> NDArray[np.bool_]:
    """ReLUs that are z, or zero, all over their intervals, and of which nothing is chosen."""
    lower, upper = ends
    dead = (upper <= 0) & (node.negative_slope == 0)
    settled = np.logical_and(((lower >= 0) | dead).all(0), node.kind == "relu")
    chosen = [table.present for name, table in choice.tables.items() if name != "t"]
    for neurons in (*chosen, *(part.groups.members for part in choice.parts)):
        settled[neurons] = False
    return settled


def _slopes(node: Activation, coeff: Floats, ends: Ends, rule: str, tables: dict[str, Floats], which: Rows) -> Floats:
    """The slopes chosen for neurons alone."""
    result = KINDS[node.kind].slopes(node, coeff, ends, rule, tables.get("t"), tables.get("top"), which)
    if "own" in tables:
        result = np.where(np.isnan(tables["own"]), result, tables["own"] * coeff)
    if "lower" in tables:
        line = np.where(coeff > 0, tables["lower"], tables["upper"])
        result = np.where(np.isnan(line), result, line * coeff)
    if "absolute" in tables:
        result = np.where(np.isnan(tables["absolute"]), result, tables["absolute"])
    return result - np.nan_to_num(tables["lowered"]) if "lowered" in tables else result
