"""Lemmas: lower bounds of forms of one pre-activation, or of the margins, that any choices prove."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from krelax.certificate.errors import Malformed
from krelax.certificate.format.lemmas import Leaves, forms_of, leaves_of
from krelax.certificate.format.schema import Lemma
from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.kernel.backward import InputForms, carried, over_inputs
from krelax.certificate.kernel.choices import Chosen
from krelax.certificate.kernel.clipping import Clips, Lines, Narrowing, ScaledForms
from krelax.certificate.kernel.context import Context, slots_of
from krelax.certificate.kernel.linear import Index, Pick
from krelax.certificate.kernel.network import Affine

# Of clips at one activation.
_MOST_MULTIPLIERS = 1 << 26


def check_lemma(context: Context, lemma: Lemma, layer: int | None = None) -> Floats:
    """Lower bounds `(forms,)` of a lemma's forms, of the pre-activation of activation `layer`, or of the margins.

    Nothing but the arguments decides, and none of them changes. Where nothing is proven, a bound is minus infinity.
    Raises Malformed for a lemma that does not fit. Sound: each form is at least its bound over the region of the
    context, whatever the lemma chooses (CROWN, Zhang et al. 2018; multipliers of splits, Wang et al. 2021).
    """
    node, count = _subject(context, lemma, layer)
    # the activations at which it chooses: those before its own, and all of them under an assumption
    before = context.groups if layer is None or context.assumed is not None else context.groups[:layer]
    leaves = leaves_of(lemma, count, slots_of(context.network, before), context.assumed)
    clips = _clips(context, lemma, leaves)
    narrowings = {-1: clips.start({j: context.ends(j) for j in clips.lines})}  # by the leaf that is a clip
    values = np.empty(len(leaves))
    for wave in leaves.waves():
        for part in context.batches(len(wave)):
            batch = wave[part]
            forms = _over_inputs(context, lemma, node, Chosen(context, lemma, leaves, batch, clips, narrowings))
            values[batch] = forms.minimum(context.bounds)
            if len(leaves.clips):
                narrowings |= _behind(context, clips, leaves, batch, forms, narrowings)
    result = np.full(count, np.inf)
    np.minimum.at(result, leaves.form, _counted(values, leaves, clips.level, narrowings))
    return result


def _behind(
    context: Context, clips: Clips, leaves: Leaves, batch: Index, forms: InputForms, known: Mapping[int, Narrowing]
) -> dict[int, Narrowing]:
    """What is left behind the clips of a batch, whose margins are at least what their forms say."""
    mine = np.flatnonzero(np.isin(batch, leaves.clips))
    own, parents = batch[mine], [known[i] for i in leaves.behind[batch[mine]].tolist()]
    numbers = np.searchsorted(leaves.clips, own).tolist()
    behind = clips.narrowed(context.bounds, numbers, parents, forms.coeff[mine], forms.constant[mine])
    return dict(zip(own.tolist(), behind, strict=True))


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
    if context.bounds.region.kind != "box" or not count or not single or len(leaves) != count:
        raise Malformed("lines over a region that is no box, with splits, or that are not about single entries")
    ar, coeffs, constants = context.bounds.ar, [], []
    for part in context.batches(count):
        batch = np.arange(part.start, part.stop)
        found = _over_inputs(context, lemma, node, Chosen(context, lemma, leaves, batch, Clips(np.inf, {}, {}), {}))
        coeffs.append(found.coeff)
        constants.append(found.constant)
    bounds = ScaledForms.of(ar, context.bounds.region, ar.join(coeffs), ar.join(constants))
    return Lines(forms.entry.astype(np.int64), forms.coefficient, bounds)


def _subject(context: Context, lemma: Lemma, layer: int | None) -> tuple[int, int]:
    """The node that a lemma is about, and how many forms it has."""
    if layer is None:
        return len(context.network.nodes) - 1, len(context.rows)
    node = context.network.before(layer)
    return node, forms_of(lemma.forms, context.network.size(node))


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


def _over_inputs(context: Context, lemma: Lemma, node: int, chosen: Chosen) -> InputForms:
    """The affine bounds that a batch of leaves of a lemma chooses."""
    ar, forms, which = context.bounds.ar, lemma.forms, chosen.leaves.form[chosen.batch]
    if forms is None:
        rows, offsets = context.rows[which], context.offsets[which]
    else:
        first, last = int(which[0]), int(which[-1])
        terms = slice(*np.searchsorted(forms.form, [first, last + 1]))
        row, entry, number = forms.form[terms] - first, forms.entry[terms].astype(np.int64), forms.coefficient[terms]
        begin = {node: entry}
        if len(np.unique(row)) == len(row):  # nothing is added up
            begin = _copied(context, node, entry)
        coeff = {}
        for j, places in begin.items():
            rows, there = np.zeros((last - first + 1, context.network.size(j))), places >= 0
            rows[row[there], places[there]] = number[there]
            coeff[j] = ar.number(rows[which - first])
        return carried(context.bounds, coeff, ar.number(np.zeros(len(which))), chosen)
    return over_inputs(context.bounds, node, ar.number(rows), ar.number(offsets), chosen)


def _copied(context: Context, node: int, entries: Index) -> dict[int, Index]:
    """By the inputs of a node that only copies the entries of theirs that its entries are, -1 for none; of any other
    node these entries themselves. Nothing rounds in between."""
    here = context.network.nodes[node]
    if not isinstance(here, Affine) or not here.moves_only or len(set(here.inputs)) < len(here.inputs):
        return {node: entries}
    picks = zip(here.inputs, here.maps, strict=True)
    return {j: m.index[entries] for j, m in picks if isinstance(m, Pick)}
