"""Lemmas: lower bounds of forms of one pre-activation, or of the margins, that any choices prove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.errors import Malformed
from krelax.certificate.format.lemmas import Leaves, forms_of, leaves_of
from krelax.certificate.format.schema import Choices, Lemma, Shares
from krelax.certificate.kernel.activations import Ends
from krelax.certificate.kernel.arithmetic import Array, Floats
from krelax.certificate.kernel.backward import InputForms, Relaxed, over_inputs
from krelax.certificate.kernel.clipping import Clips, Lines, Narrowing, ScaledForms
from krelax.certificate.kernel.context import Context, slots_of
from krelax.certificate.kernel.groups import Groups
from krelax.certificate.kernel.linear import Index
from krelax.certificate.kernel.relaxation import Choice, Part, Table, relax

# Of clips at one activation.
_MOST_MULTIPLIERS = 1 << 26


def check_lemma(context: Context, lemma: Lemma, layer: int | None = None) -> Floats:
    """Lower bounds `(forms,)` of a lemma's forms, of the pre-activation of an activation or of the margins.

    They hold over the region whatever the lemma chooses. Nothing but the arguments decides, and none of them changes.
    Raises Malformed for a lemma that does not fit.
    """
    node, count = _subject(context, lemma, layer)
    leaves = leaves_of(lemma, count, slots_of(context.network, _choosable(context, layer)), context.assumed)
    clips = _clips(context, lemma, leaves)
    narrowings = {-1: clips.start({j: context.ends(j) for j in clips.lines})}  # by the leaf that is a clip
    values = np.empty(len(leaves))
    for wave in leaves.waves():
        for part in context.batches(len(wave)):
            batch = wave[part]
            forms = _over_inputs(context, lemma, node, _Chosen(context, lemma, leaves, batch, clips, narrowings))
            values[batch] = forms.minimum(context.bounds)
            mine = np.flatnonzero(np.isin(batch, leaves.clips))
            if len(mine):
                own, coeff = batch[mine], None if forms.coeff is None else forms.coeff[mine]
                numbers, before = np.searchsorted(leaves.clips, own).tolist(), leaves.behind[own].tolist()
                parents = [narrowings[i] for i in before]
                behind = clips.narrowed(context.bounds, numbers, parents, coeff, forms.constant[mine])
                narrowings |= dict(zip(own.tolist(), behind, strict=True))
    result = np.full(count, np.inf)
    np.minimum.at(result, leaves.form, _counted(values, leaves, clips.level, narrowings))
    return result


def _counted(values: Floats, leaves: Leaves, level: float, narrowings: Mapping[int, Narrowing]) -> Floats:
    """What leaves prove of the bounds that they have: no more than the level behind clips, all where nothing is left.
    Clips by themselves prove nothing."""
    if not len(leaves.clips):
        return values
    empty = np.array([narrowings[i].empty for i in leaves.behind.tolist()])
    values = np.where(empty, np.inf, values)
    values = np.where(leaves.behind >= 0, np.minimum(values, level), values)
    values[leaves.clips] = np.inf
    return values


def check_lines(context: Context, lemma: Lemma, layer: int) -> Lines:
    """The affine bounds of single entries of a pre-activation, which a lemma without splits chooses, over a box."""
    node, count = _subject(context, lemma, layer)
    leaves, forms = leaves_of(lemma, count, slots_of(context.network, context.groups[:layer])), lemma.forms
    assert forms is not None
    single = len(forms.entry) == count and (abs(forms.coefficient) == 1).all() and lemma.level is None
    if context.bounds.region.kind != "box" or not single or len(leaves) != count:
        raise Malformed("lines over a region that is no box, with splits, or that are not about single entries")
    ar, empty = context.bounds.ar, np.zeros((0, context.network.size(0)))
    coeffs, constants = [ar.number(empty)], [ar.number(empty[:, 0])]
    for part in context.batches(count):
        batch = np.arange(part.start, part.stop)
        found = _over_inputs(context, lemma, node, _Chosen(context, lemma, leaves, batch, Clips(np.inf, {}, {}), {}))
        rows = np.zeros((len(batch), context.network.size(0)))
        coeffs.append(ar.number(rows) if found.coeff is None else found.coeff)
        constants.append(found.constant)
    bounds = ScaledForms.of(ar, context.bounds.region, ar.join(coeffs), ar.join(constants))
    return Lines(forms.entry.astype(np.int64), forms.coefficient, bounds)


def _subject(context: Context, lemma: Lemma, layer: int | None) -> tuple[int, int]:
    """The node that a lemma is about, and how many forms it has."""
    if layer is None:
        return len(context.network.nodes) - 1, len(context.rows)
    node = context.network.before(layer)
    return node, forms_of(lemma.forms, context.network.size(node))


def _choosable(context: Context, layer: int | None) -> Sequence[Sequence[Groups]]:
    """The groups of the activations at which a lemma chooses: those before its own, and all under an assumption."""
    return context.groups if layer is None or context.assumed is not None else context.groups[:layer]


def _clips(context: Context, lemma: Lemma, leaves: Leaves) -> Clips:
    """The clips of a lemma about margins, perhaps none."""
    if not len(leaves.clips):
        return Clips(np.inf, {}, {})
    if lemma.forms is not None or lemma.level is None or lemma.level <= 0:
        raise Malformed("clips of forms that are no margins, or at a level that is not positive")
    multipliers = {c.activation: c.clips for c in lemma.crossings if c.clips is not None}
    if any(j not in context.lines or len(context.lines[j].entry) != x.shape[1] for j, x in multipliers.items()):
        raise Malformed("multipliers of lines that do not exist")
    if any(len(x) != len(leaves.clips) or x.size > _MOST_MULTIPLIERS for x in multipliers.values()):
        raise Malformed("multipliers for more or fewer clips than there are, or too many")
    return Clips(lemma.level, {j: context.lines[j] for j in multipliers}, multipliers)


def _over_inputs(context: Context, lemma: Lemma, node: int, chosen: _Chosen) -> InputForms:
    """The affine bounds that a batch of leaves of a lemma chooses."""
    ar, forms, which = context.bounds.ar, lemma.forms, chosen.leaves.form[chosen.batch]
    if forms is None:
        rows, offsets = context.rows[which], context.offsets[which]
    else:
        first, last = int(which[0]), int(which[-1])
        terms = slice(*np.searchsorted(forms.form, [first, last + 1]))
        rows, offsets = np.zeros((last - first + 1, context.network.size(node))), np.zeros(len(which))
        rows[forms.form[terms] - first, forms.entry[terms]] = forms.coefficient[terms]
        rows = rows[which - first]
    return over_inputs(context.bounds, node, ar.number(rows), ar.number(offsets), chosen)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The relaxations that a lemma chooses in a batch of its leaves, over what clips have left."""

    context: Context
    lemma: Lemma
    leaves: Leaves
    batch: Index
    clips: Clips
    narrowings: Mapping[int, Narrowing]

    def __call__(self, j: int, coeff: Array | None) -> Relaxed | None:
        network, ar, rows = self.context.network, self.context.bounds.ar, len(self.batch)
        splits = _splits(self.leaves, self.batch, network.offsets[j], network.offsets[j + 1])
        if coeff is None:
            if not len(splits.leaf):
                return None
            coeff = ar.number(np.zeros((rows, network.activation(j).size)))
        ends, choices, empty = self._ends(j), self._choices.get(j), None
        tables = {} if choices is None else _tables(choices, self.batch, ends[0].shape[1])
        if len(splits.leaf):
            ends = splits.cut(ends, rows)
            pieces = network.activation(j).rule.pieces
            assert pieces is not None  # nothing else is split
            tables |= splits.tables(rows, pieces)
            empty = np.asarray((ends[0] > ends[1]).any(1))
        parts = [] if choices is None else [self._part(j, shares) for shares in choices.groups]
        return relax(self.context.bounds, j, coeff, ends, Choice(tables=tables, parts=parts), empty=empty)

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

    def _part(self, j: int, shares: Shares) -> Part:
        stored = shares.coeff[self.batch], shares.slope[self.batch]
        coeff, slope = (self.context.bounds.ar.number(x.astype(np.float64)) for x in stored)
        basis = None if shares.basis is None else shares.basis[self.batch]
        active = ((stored[0] != 0) | (stored[1] != 0)).any((1, 2))
        return Part(self.context.groups[j][shares.set], coeff, slope, basis, active)


@dataclass(frozen=True, eq=False)
class _Splits:
    """Splits of one activation: for each the leaf and the neuron, numbered from 0, side and multiplier."""

    leaf: Index
    neuron: Index
    side: Floats
    multiplier: Floats

    def cut(self, ends: Ends, leaves: int) -> Ends:
        """The intervals in every leaf, cut at zero."""
        lower, upper = (np.repeat(end.T, leaves, 1).T if len(end) == 1 else end.copy() for end in ends)
        up, down = ((self.leaf[mine], self.neuron[mine]) for mine in (self.side > 0, self.side < 0))
        lower[up], upper[down] = np.maximum(lower[up], 0), np.minimum(upper[down], 0)
        return lower, upper

    def tables(self, leaves: int, pieces: tuple[float, float]) -> dict[str, Table]:
        """The slopes of the pieces that the splits leave, and by how much slopes are lowered. The sides decide, not
        bounds that may be rounded."""
        neurons, place = np.unique(self.neuron, return_inverse=True)
        slopes, lowered = np.full((leaves, len(neurons)), np.nan), np.zeros((leaves, len(neurons)))
        slopes[self.leaf, place] = np.where(self.side > 0, pieces[1], pieces[0])
        lowered[self.leaf, place] = self.side * self.multiplier
        return {"pieces": Table(neurons, slopes), "lowered": Table(neurons, lowered)}


def _splits(leaves: Leaves, batch: Index, first: int, last: int) -> _Splits:
    """Splits of neurons first to last - 1 in a batch of leaves."""
    count = leaves.start[batch + 1] - leaves.start[batch]
    leaf = np.repeat(np.arange(len(batch)), count)
    here = np.arange(len(leaf)) + np.repeat(leaves.start[batch] - (np.cumsum(count) - count), count)
    mine = (leaves.neuron[here] >= first) & (leaves.neuron[here] < last)
    leaf, here = leaf[mine], here[mine]
    return _Splits(leaf, leaves.neuron[here] - first, leaves.side[here], leaves.multiplier[here])


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
