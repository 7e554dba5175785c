"""What a lemma chooses at every activation: tables of slopes, shares of groups, and splits with their multipliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.format.lemmas import Leaves
from krelax.certificate.format.schema import Choices, Lemma, Shares
from krelax.certificate.kernel.activations import Ends
from krelax.certificate.kernel.arithmetic import Array, Floats
from krelax.certificate.kernel.backward import Relaxed
from krelax.certificate.kernel.bands import Bands
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.clipping import Clips, Narrowing
from krelax.certificate.kernel.context import Context
from krelax.certificate.kernel.contraction import Shared
from krelax.certificate.kernel.groups import Groups
from krelax.certificate.kernel.linear import Index
from krelax.certificate.kernel.relaxation import Choice, Part, Table, relax, shared_lines
from krelax.certificate.kernel.saddles import Saddles

# Multipliers that are added up have so many bits below the largest: of 2**53 that is enough for any path.
_BITS = 32


@dataclass(frozen=True, eq=False)
class Chosen:
    """The relaxations that a lemma chooses in a batch of its leaves, over what clips have left."""

    context: Context
    lemma: Lemma
    leaves: Leaves
    batch: Index
    clips: Clips
    narrowings: Mapping[int, Narrowing]

    def __call__(self, j: int, coeff: Array | None) -> Relaxed | None:
        bounds, rows, activation = self.context.bounds, len(self.batch), self.context.network.activation(j)
        splits = self._splits(j)
        if coeff is None:
            if not len(splits.leaf):
                return None
            coeff = bounds.ar.number(np.zeros((rows, activation.size)))
        ends, choices = self._ends(j), self._choices.get(j)
        tables = {} if choices is None else _tables(choices, self.batch, ends[0].shape[1])
        parts, whole = self._groups(j, [] if choices is None else choices.groups)
        if not len(splits.leaf):
            return relax(bounds, j, coeff, ends, Choice(tables=tables, parts=parts, whole=whole))
        if activation.rule.members:
            compared = splits.compared(activation.rule.members)
            same, size = self.context.network.copies(activation.inputs[0]), ends[0].shape[1]
            rule = activation.rule.without(compared.out(rows, np.arange(size) if same is None else same))
            relaxed = relax(bounds, j, coeff, ends, Choice(tables=tables, parts=parts, rule=rule))
            return compared.paid(bounds, j, relaxed)
        ends = splits.cut(ends, rows)
        tables = tables | splits.tables(rows, activation.rule.pieces)
        choice = Choice(tables=tables, parts=parts, whole=whole)
        return replace(relax(bounds, j, coeff, ends, choice), empty=np.asarray((ends[0] > ends[1]).any(1)))

    def shared(self, j: int) -> Shared | None:
        """The lines at activation j, if no leaf splits it or has shares of groups, and all name the same rows."""
        ends, choices = self._ends(j), self._choices.get(j)
        if len(self._splits(j).leaf) or (choices is not None and len(choices.groups)):
            return None
        tables: dict[str, Table] = {}
        if choices is not None and choices.row is not None:
            first = self.batch[:1]
            if (choices.row[self.batch] != choices.row[first]).any():
                return None
            tables = {
                name: table
                for name, table in _tables(choices, first, ends[0].shape[1]).items()
                if not np.isnan(table.values).all()
            }
        return shared_lines(self.context.network.activation(j).rule, ends, Choice(tables=tables))

    @cached_property
    def _choices(self) -> dict[int, Choices]:
        return {c.activation: c for c in self.lemma.crossings}

    def _ends(self, j: int) -> Ends:
        """The intervals of activation j's pre-activation, `(1, entries)`, or those in every leaf."""
        ends, behind = self.context.ends(j), self.leaves.behind[self.batch]
        if j not in self.clips.lines or (behind < 0).all():
            return ends
        left = [self.narrowings[i].ends[j] for i in behind.tolist()]
        result = [np.tile(end, (len(behind), 1)) for end in ends]
        for side, end in enumerate(result):
            end[:, self.clips.lines[j].neurons] = np.stack([here[side] for here in left])
        return result[0], result[1]

    @cached_property
    def _paths(self) -> tuple[Index, Index]:
        """For each split on the path of a leaf of the batch the leaf, and the number of the split."""
        start, count = self.leaves.start[self.batch], np.diff(self.leaves.start)[self.batch]
        leaf = np.repeat(np.arange(len(self.batch)), count)
        return leaf, np.arange(len(leaf)) + np.repeat(start - (np.cumsum(count) - count), count)

    def _splits(self, j: int) -> _Splits:
        """Splits of neurons of activation j."""
        (leaf, here), (first, last) = self._paths, self.context.network.offsets[j : j + 2]
        neuron = self.leaves.neuron[here]
        mine = (neuron >= first) & (neuron < last)
        leaf, here = leaf[mine], here[mine]
        side, multiplier = self.leaves.side[here], self.leaves.multiplier[here]
        return _Splits(leaf, neuron[mine] - first, self.leaves.point[here], side, multiplier)

    def _groups(self, j: int, shares: Sequence[Shares]) -> tuple[list[Part], list[Saddles]]:
        """What sets of groups take over, and those that take over all."""
        both = [(self.context.groups[j][s.set], s) for s in shares]
        whole = [groups for groups, _ in both if isinstance(groups, Saddles)]
        return [self._part(groups, s) for groups, s in both if not isinstance(groups, Saddles)], whole

    def _part(self, groups: Groups | Bands, shares: Shares) -> Part:
        """What a set of groups takes over, outright or in parts."""
        outright = shares.share is None
        first, second = (shares.coeff, shares.slope) if outright else (shares.share, shares.tilt)
        assert first is not None  # as the format has it
        assert second is not None
        one, other = (t[self.batch].astype(np.float64) for t in (first, second))
        basis = None if shares.basis is None else shares.basis[self.batch]
        active = (((one != 0) | (other != 0)) if outright else one != 0).any((1, 2))
        if not outright:
            one, other = one / 32767, other / 32767
        return Part(groups, outright, one, other, basis, active)


@dataclass(frozen=True, eq=False)
class _Splits:
    """Splits of one activation: for each the leaf and the neuron, numbered from 0, point, side and multiplier."""

    leaf: Index
    neuron: Index
    point: Floats
    side: Floats
    multiplier: Floats

    def cut(self, ends: Ends, leaves: int) -> Ends:
        """The intervals in every leaf, cut at the points: at several, if a neuron is split again."""
        lower, upper = (np.repeat(end.T, leaves, 1).T if len(end) == 1 else end.copy() for end in ends)
        up, down = self.side > 0, self.side < 0
        np.maximum.at(lower, (self.leaf[up], self.neuron[up]), self.point[up])
        np.minimum.at(upper, (self.leaf[down], self.neuron[down]), self.point[down])
        return lower, upper

    def tables(self, leaves: int, pieces: tuple[float, float] | None) -> dict[str, Table]:
        """By how much slopes are lowered, and the slopes of linear pieces that splits leave. Their sides decide which,
        not bounds that may be rounded."""
        neurons, place = np.unique(self.neuron, return_inverse=True)
        slopes, lowered = np.full((leaves, len(neurons)), np.nan), np.zeros((leaves, len(neurons)))
        np.add.at(lowered, (self.leaf, place), self.side * self.multiplier)
        tables = {"lowered": Table(neurons, lowered)}
        if pieces is not None:
            slopes[self.leaf, place] = np.where(self.side > 0, pieces[1], pieces[0])
            tables["pieces"] = Table(neurons, slopes)
        return tables

    def compared(self, members: int) -> _Comparisons:
        """The same as comparisons of members of windows, of so many each: points are members."""
        rival = self.neuron - self.neuron % members + self.point.astype(np.int64)
        winner, loser = (np.where(self.side > 0, *pair) for pair in ((self.neuron, rival), (rival, self.neuron)))
        return _Comparisons(self.leaf, winner, loser, self.multiplier, members)


@dataclass(frozen=True, eq=False)
class _Comparisons:
    """Comparisons of entries: in each leaf the winner is at least as large as the loser; those of a leaf in order.
    Windows have so many `members`."""

    leaf: Index
    winner: Index
    loser: Index
    multiplier: Floats
    members: int

    def out(self, leaves: int, same: Index) -> NDArray[np.bool_]:
        """Entries that are no larger than one of the others of their window, `(leaves, entries)`. Where `same` has one
        number, entries are the same.

        Copies of others are out. So is a loser, if its winner is still in. So the largest entry, or one as large, is
        always in: whoever is out is no larger than one that was in then, and either still is, or went out later for the
        same reason.
        """
        place = np.arange(len(same))
        _, first = np.unique(place // self.members * len(same) + same, return_index=True)
        result = np.tile(~np.isin(place, first), (leaves, 1))
        for leaf, winner, loser in zip(self.leaf.tolist(), self.winner.tolist(), self.loser.tolist(), strict=True):
            result[leaf, loser] |= not result[leaf, winner]
        return result

    def paid(self, bounds: LayerBounds, j: int, relaxed: Relaxed) -> Relaxed:
        """With `multiplier * (winner - loser)` subtracted, which is not negative. Multipliers are any numbers that are
        not: on a grid, on which their sums do not round."""
        ar, lowered = bounds.ar, np.zeros(relaxed.slopes.shape)
        unit = np.ldexp(1.0, int(np.frexp(self.multiplier.max(initial=0.0))[1]) - _BITS)
        multiplier = np.rint(self.multiplier / unit) * unit
        np.add.at(lowered, (self.leaf, self.winner), multiplier)
        np.add.at(lowered, (self.leaf, self.loser), -multiplier)
        shift, terms = ar.number(lowered), relaxed.terms
        if ar.unit:
            terms = terms + ar.dot(abs(shift), bounds.largest(bounds.network.before(j)))
        return replace(relaxed, slopes=relaxed.slopes - shift, terms=terms)


def _tables(c: Choices, batch: Index, size: int) -> dict[str, Table]:
    """The slopes chosen for a batch of leaves; `row` numbers the rows of `slopes`, `lines` and `absolute` through."""
    tables: dict[str, Table] = {}
    if c.row is None:
        return tables
    row, entries = c.row[batch], np.arange(size) if c.entries is None else c.entries
    if c.slopes is not None:
        fractions = tables["fractions"] = _rows(c.slopes, row, entries, 255)
        if c.upper is not None and c.owner is not None:
            mine = (row >= 0) & (row < len(c.slopes))
            owner = np.where(mine, c.owner[np.where(mine, row, 0)], -1)
            upper = tables["upper"] = _rows(c.upper, owner, entries)
            fractions.values[upper.values < 0], upper.values[upper.values < 0] = np.nan, np.nan
        row = row - len(c.slopes)
    if c.lines is not None:
        tables["below"], tables["above"] = (_rows(c.lines[:, :, i], row, entries) for i in (0, 1))
        row = row - len(c.lines)
    if c.absolute is not None:
        tables["absolute"] = _rows(c.absolute, row, np.arange(size))
    return tables


def _rows(table: NDArray[Any], row: NDArray[np.int32], entries: NDArray[Any], parts: int = 1) -> Table:
    """Rows of a table about some entries, in so many parts of one; of NaN where there is none."""
    values = np.full((len(row), len(entries)), np.nan)
    mine = np.flatnonzero((row >= 0) & (row < len(table)))
    values[mine] = table[row[mine]] / parts
    return Table(entries, values)
