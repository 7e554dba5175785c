"""One activation relaxed, for a batch of forms: groups take over their parts, neurons alone pay for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations import Ends, Rule
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats, Rows
from krelax.certificate.kernel.backward import Relaxed
from krelax.certificate.kernel.bands import Bands
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.contraction import Shared
from krelax.certificate.kernel.groups import Groups
from krelax.certificate.kernel.linear import Index
from krelax.certificate.kernel.saddles import Saddles


@dataclass(frozen=True, eq=False)
class Part:
    """What a set of groups takes over, `(rows, groups, k)`: `outright`, of coefficients `first` and of slopes `second`,
    with the bases that bound it; or else shares of the coefficients, and tilts of the slopes. `active`, `(rows,)`, says
    in which rows it takes anything."""

    groups: Groups | Bands
    outright: bool
    first: Floats
    second: Floats
    basis: NDArray[np.uint8] | None
    active: NDArray[np.bool_]

    def take(self, ar: Arithmetic, coeff: Floats, line: Floats) -> tuple[Array, Array]:
        """The coefficients and slopes taken over; all neurons have the coefficients `coeff` and lines of the slopes
        `line`, `(rows, neurons)`. Any numbers will do, so these may round."""
        if self.outright:
            return ar.number(self.first), ar.number(self.second)
        part = self.first * coeff[:, self.groups.members]
        slope = self.second * abs(part).sum(2, keepdims=True) + part * line[:, self.groups.members]
        return ar.choice(part), ar.choice(slope)

    def price(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        """What the groups pay in each row, `(rows,)`: nothing where they take nothing."""
        rows = np.flatnonzero(self.active)
        some = (end if len(end) == 1 else end[rows] for end in ends)
        basis = None if self.basis is None else self.basis[rows]
        paid = self.groups.support(ar, coeff[rows], slope[rows], (next(some), next(some)), basis).sum(1)
        return ar.where(self.active, paid[self.active.cumsum().clip(1) - 1], ar.number(np.zeros(())))


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers of some neurons, `(rows, entries)`; NaN where there is none."""

    entries: Index
    values: Floats

    def at(self, neurons: Index, size: int) -> Floats:
        """The numbers of these out of `size` neurons."""
        place = np.full(size, -1)
        place[neurons] = np.arange(len(neurons))
        mine = place[self.entries] >= 0
        result = np.full((len(neurons), len(self.values)), np.nan)
        result[place[self.entries[mine]]] = self.values.T[mine]
        return result.T


@dataclass(frozen=True)
class Choice:
    """How slopes are chosen: by a rule, "adaptive" or "parallel", unless `tables` have them. There are "fractions" of
    lower slopes, perhaps with slopes of upper lines, "upper"; slopes of the "pieces" of neurons that are split; slopes
    of both lines, "below" and "above"; "absolute" ones; and by how much they are then "lowered". Instead of the
    activation's own rule there may be another `rule`, which says more. Groups of
    `whole` are all that their members are in."""

    parallel: bool = False
    rule: Rule | None = None
    tables: Mapping[str, Table] = field(default_factory=dict)
    parts: Sequence[Part] = ()
    whole: Sequence[Saddles] = ()


def relax(bounds: LayerBounds, j: int, coeff: Array, ends: Ends, choice: Choice, which: Rows = slice(None)) -> Relaxed:
    """Relax activation j. Behind it are the coefficients `coeff`, `(rows, neurons)`, before it the intervals `ends`,
    `(regions | rows | 1, entries)`, cut by splits; `which` are the rows' regions.

    Neurons that are linear all over their intervals, and of which nothing is chosen, hand on their coefficients, or
    zero: they pay nothing, and nothing rounds. All else is about the others, the `columns`.
    """
    ar, node, size = bounds.ar, bounds.network.activation(j), ends[0].shape[1]
    rule, zero, passed = choice.rule or node.rule, ar.number(np.zeros(())), coeff
    linear = _linear(rule, ends, choice)
    columns = np.flatnonzero(~linear) if linear.any() else slice(None)
    all_ends, coeff = (ends[0][which], ends[1][which]), coeff[:, columns]
    ends, own_ends = ((x[0][:, columns], x[1][:, columns]) for x in (ends, all_ends))
    neurons = np.arange(size)[columns]
    tables = {name: table.at(neurons, size) for name, table in choice.tables.items()}
    lower, upper = (line[which] for line in _lines(rule, ends, choice.parallel, tables))
    rest, joint, price, taken = coeff, zero, zero, zero
    whole, line = np.zeros((2, len(passed), size))
    if any(p.active.any() for p in choice.parts):
        whole[:, columns] = ar.floats(coeff)
        line[:, columns] = np.where(whole[:, columns] > 0, lower, upper)
    for part in (p for p in choice.parts if p.active.any()):
        both = part.take(ar, whole, line)
        taking, slope = (part.groups.put(ar, x)[:, columns] for x in both)
        rest, joint, price = rest - taking, joint + slope, price + part.price(ar, *both, all_ends)
        if ar.unit:
            taken = taken + part.groups.put(ar, abs(both[0]) + abs(both[1]))[:, columns]
    own = rule.behind(rest)
    slopes = ar.choice(_slopes(ar.floats(own), lower, upper, tables))
    alone = rule.price(ar, own, slopes, own_ends)
    for saddles in choice.whole:
        alone = saddles.least(ar, alone, rest, slopes)
    price = price + alone.sum(1)
    error = rule.executed(own_ends) if bounds.float32 else None
    if error is not None:
        price = price + ar.dot(abs(coeff), ar.number(error))
    terms = zero
    if ar.unit:
        largest = bounds.largest(node.inputs[0])[which][:, columns]
        terms = ar.dot(abs(slopes) + taken, largest) + ar.dot(abs(coeff), rule.reach(own_ends))
    slopes = slopes + joint
    if linear.any():
        passed = passed * ar.number((all_ends[0] >= 0).astype(np.float64))
        passed[:, columns] = slopes
        slopes = passed
    return Relaxed(slopes, price, terms, size + sum(part.groups.members.size for part in choice.parts))


def shared_lines(rule: Rule, ends: Ends, choice: Choice) -> Shared | None:
    """The lines that are chosen over one interval, if all rows share them: tables have one row, of lines alone."""
    if len(ends[0]) > 1 or choice.parts or not set(choice.tables) <= {"below", "above"}:
        return None
    if any(len(table.values) > 1 for table in choice.tables.values()):
        return None
    size = ends[0].shape[1]
    tables = {name: table.at(np.arange(size), size) for name, table in choice.tables.items()}
    return Shared(*_lines(rule, ends, choice.parallel, tables), ends)


def _linear(rule: Rule, ends: Ends, choice: Choice) -> NDArray[np.bool_]:
    """Neurons that are linear in every row, and of which nothing is chosen but fractions, which say nothing of them."""
    linear = np.asarray(rule.linear(ends).all(0))
    for name, table in choice.tables.items():
        if name != "fractions":
            linear[table.entries[~np.isnan(table.values).all(0)]] = False
    for part in choice.parts:
        linear[part.groups.members] = False
    return linear


def _lines(rule: Rule, ends: Ends, parallel: bool, tables: Mapping[str, Floats]) -> Ends:
    """The slopes of lower and upper lines, `(regions | rows | 1, neurons)`."""
    lines = rule.lines(ends, parallel)
    if "fractions" in tables:
        lines = rule.chosen(lines, ends, tables["fractions"], tables.get("upper"))
    for names in (("pieces", "pieces"), ("below", "above")):
        if names[0] in tables:
            lower, upper = (tables[name] for name in names)
            lines = np.where(np.isnan(lower), lines[0], lower), np.where(np.isnan(upper), lines[1], upper)
    return lines


def _slopes(coeff: Floats, lower: Floats, upper: Floats, tables: Mapping[str, Floats]) -> Floats:
    """The slopes chosen for neurons alone."""
    result = np.where(coeff > 0, lower, upper) * coeff
    if "absolute" in tables:
        result = np.where(np.isnan(tables["absolute"]), result, tables["absolute"])
    return result - np.nan_to_num(tables["lowered"]) if "lowered" in tables else result
