"""The proof of one question: bounds layer by layer, then the margins, by themselves or by refutation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from krelax.certificate.errors import Contradiction, Rejected
from krelax.certificate.format.questions import check_asked, check_proof
from krelax.certificate.format.schema import Layer, Lemma, Question, Refutation
from krelax.certificate.kernel.arithmetic import Arithmetic, Floats
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.boxes import behind_bottleneck, check_boxes
from krelax.certificate.kernel.closed_form import bound_entries
from krelax.certificate.kernel.context import Context, slots_of
from krelax.certificate.kernel.extension import with_assumed, with_margins, with_maxima
from krelax.certificate.kernel.groups import Key, key, polytopes
from krelax.certificate.kernel.lemma import check_lemma, check_lines
from krelax.certificate.kernel.linear import Index
from krelax.certificate.kernel.network import Activation, Network
from krelax.certificate.kernel.region import Region


@dataclass(frozen=True)
class Proof:
    """What is proven of the weakest clause of a question, and what it rests on."""

    margin: float
    context: Context


@dataclass(frozen=True)
class Margins:
    """Margins `rows @ y + offsets` in clauses, and bounds of the `errors` of both, `(margins, outputs + 1)`, or so many
    for each of several regions."""

    rows: Floats
    offsets: Floats
    clause: Index
    errors: Floats | None


def check_question(
    network: Network, question: Question, ar: Arithmetic, float32: bool = False, errors: Floats | None = None
) -> Proof:
    """What the proof of a question shows. `network` has its constants as numbers of the arithmetic. `errors`,
    `(margins, outputs + 1)`, bound how far rows and offsets are from what is meant.

    Raises Malformed for a proof that does not fit, and Rejected for one that ends before the margins. Sound: in every
    point of the region every clause has a margin of at least what is proven.
    """
    outputs = len(network.nodes) - 1
    check_asked(question, network.size(0), network.size(outputs))
    asked = Margins(question.rows, question.offsets, question.clause.astype(np.int64), errors)
    if question.joint is not None:
        network, asked = _jointly(network, asked, question.joint.astype(np.int64), ar)
    if question.boxes is not None and question.boxes.weights is not None:
        network, asked = _shared(network, asked, ar)
    weakest = partial(weakest_of, asked, outputs)
    check_proof(question, len(asked.rows), slots_of(network, [()] * len(network.activations)))
    context = Context(LayerBounds.of(network, Region.of(question.region), ar, float32), asked.rows, asked.offsets)
    if question.boxes is not None:
        if question.boxes.width is not None:
            context, node = behind_bottleneck(context, question.boxes.width, outputs)
            weakest = partial(weakest_of, asked, outputs - node)
        return Proof(check_boxes(context, question.boxes, weakest), context)
    context = _layers(context, question.layers)
    assert question.margins is not None
    values = check_lemma(context, question.margins)
    for case in question.cases or ():
        values[case.margin] = np.maximum(values[case.margin], check_refutation(context, case))
    return Proof(float(weakest(context.bounds, values[None])[0]), context)


def _jointly(network: Network, asked: Margins, joint: Index, ar: Arithmetic) -> tuple[Network, Margins]:
    """The network with the largest margins of the clauses `joint` behind its outputs, and what is asked of that: the
    margins of other clauses, and these."""
    mine = np.isin(asked.clause, joint)
    order = np.flatnonzero(mine)[np.argsort(asked.clause[mine], kind="stable")]
    longer = with_maxima(network, asked.rows[order], asked.offsets[order], asked.clause[order], ar)
    count, outputs = len(joint), asked.rows.shape[1]
    rows = np.concatenate([np.pad(asked.rows[~mine], ((0, 0), (0, count))), np.eye(count, outputs + count, outputs)])
    clause, errors = np.concatenate([asked.clause[~mine], joint]), asked.errors
    if errors is not None:
        errors = np.concatenate([errors[~mine], _largest(errors, asked.clause, joint)])
    return longer, Margins(rows, np.append(asked.offsets[~mine], np.zeros(count)), clause, errors)


def _shared(network: Network, asked: Margins, ar: Arithmetic) -> tuple[Network, Margins]:
    """The network with all margins as output, and what is asked of sums of them, one for each clause, whose weights
    are at least zero and add up to one."""
    clauses = np.arange(int(asked.clause.max()) + 1)
    rows = (asked.clause == clauses[:, None]).astype(np.float64)
    errors = None if asked.errors is None else _largest(asked.errors, asked.clause, clauses)
    longer = with_margins(network, asked.rows, asked.offsets, ar)
    return longer, Margins(rows, np.zeros(len(clauses)), clauses, errors)


def _largest(errors: Floats, clause: Index, clauses: Index) -> Floats:
    """The largest errors of the members of some clauses."""
    return np.array([errors[clause == n].max(0) for n in clauses])


def weakest_of(asked: Margins, outputs: int, bounds: LayerBounds, values: Floats) -> Floats:
    """For each region the smallest over all clauses of their largest margins: `values`, `(regions, margins)`, less what
    errors of rows and offsets come to. `outputs` is the node that those multiply."""
    if asked.errors is not None:
        largest = np.append(bounds.largest(outputs), np.ones((len(values), 1)), 1)
        lost = (asked.errors @ largest[..., None])[..., 0] * (1 + 2.0**-30)
        values = np.nextafter(values - lost, -np.inf)
    clauses = range(int(asked.clause.max()) + 1)
    return np.stack([values[:, asked.clause == n].max(1) for n in clauses], 1).min(1)


def _layers(context: Context, layers: list[Layer]) -> Context:
    """Bounds of all nodes."""
    for node in context.network.nodes[1:]:
        if isinstance(node, Activation):
            j = len(context.groups)
            context = check_layer(context, j, layers[j])
        context = replace(context, bounds=context.bounds.advanced())
    return context


def check_layer(context: Context, j: int, layer: Layer) -> Context:
    """The context with what the lemmas say about the pre-activation of activation j, and with its groups and lines.

    Raises Contradiction where bounds contradict each other, which they do over no region that has a point.
    """
    z, rule, forms = context.network.before(j), context.network.activation(j).rule, dict[Key, float]()
    if layer.base != "interval":
        undecided = rule.undecided(context.ends(j))
        if (places := context.network.copies(z)) is not None:
            every, undecided = undecided, np.zeros_like(undecided)
            np.logical_or.at(undecided.T, places, every.T)
        sides = bound_entries(context, z, np.nonzero(undecided), layer.base == "parallel")
        context = replace(context, bounds=context.bounds.tightened(z, *_of_copies(context.network, z, *sides)))
    for lemma in layer.claims:
        context, others = _learnt(context, z, lemma, check_lemma(context, lemma, j))
        forms |= {name: max(bound, forms.get(name, -np.inf)) for name, bound in others.items()}
    lines = dict(context.lines) if layer.lines is None else {**context.lines, j: check_lines(context, layer.lines, j)}
    lower, upper = (end[0] for end in context.ends(j))
    sets = tuple(polytopes(s, forms, (lower, upper), rule) for s in layer.groups)
    return replace(context, lines=lines, groups=(*context.groups, sets))


def _of_copies(network: Network, node: int, lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """Bounds of entries that are copies of one number hold for all of them."""
    if (places := network.copies(node)) is None:
        return lower, upper
    sides = []
    for side, better in ((lower, np.maximum), (upper, np.minimum)):
        best = side.copy()
        better.at(best.T, places, side.T)
        sides.append(best[:, places])
    return sides[0], sides[1]


def _learnt(context: Context, node: int, lemma: Lemma, found: Floats) -> tuple[Context, dict[Key, float]]:
    """The context with an interval tightened by forms of one entry with coefficient 1 or -1, and the other forms."""
    forms = lemma.forms
    assert forms is not None
    lower, upper = context.bounds.lower[node].copy(), context.bounds.upper[node].copy()
    starts = np.searchsorted(forms.form, np.arange(len(found) + 1))
    single = (np.diff(starts) == 1) & (abs(forms.coefficient[starts[:-1]]) == 1)
    entry, sign = forms.entry[starts[:-1]], forms.coefficient[starts[:-1]]
    below, above = single & (sign > 0), single & (sign < 0)
    np.fmax.at(lower[0], entry[below], found[below])
    np.fmin.at(upper[0], entry[above], -found[above])
    lower, upper = _of_copies(context.network, node, lower, upper)
    others: dict[Key, float] = {}
    for i in np.flatnonzero(~single):
        terms = slice(starts[i], starts[i + 1])
        name = key(forms.entry[terms], forms.coefficient[terms])
        others[name] = max(float(found[i]), others.get(name, -np.inf))
    return replace(context, bounds=context.bounds.tightened(node, lower, upper)), others


def check_refutation(context: Context, case: Refutation) -> float:
    """A lower bound of a margin, from what follows if it is at most a level.

    Raises Rejected where nothing follows. Sound: the margin is above the level, or at least what is proven where it is
    not (output-constrained tightening, Kotha et al. 2023).
    """
    network, none = context.network, ((),) * len(context.network.activations)
    only = slice(case.margin, case.margin + 1)
    longer = with_assumed(network, context.rows, context.offsets, case, context.bounds.ar)
    here = Context(
        context.bounds.over(longer), context.rows[only], context.offsets[only], (*none, ()), {}, int(longer.offsets[-2])
    )
    try:
        for step in case.steps:
            here = _narrowed(here, step.activation, step.claim)
    except Contradiction:  # no input has so small a margin
        return case.level
    if case.claim is None or case.claim.forms is not None:
        raise Rejected("a case without a lemma about its margin, whose bounds do not contradict each other")
    here = replace(here, bounds=here.bounds.over(network), groups=none, assumed=None)
    lines = {step.activation: check_lines(here, step.claim, step.activation) for step in case.lines or ()}
    found = check_lemma(replace(here, lines=lines), case.claim)
    return float(np.minimum(found[0], case.level))  # which NaN passes


def _narrowed(context: Context, j: int, lemma: Lemma) -> Context:
    """Better bounds of a pre-activation, and of all that comes after it."""
    z = context.network.before(j)
    context, _ = _learnt(context, z, lemma, check_lemma(context, lemma, j))
    bounds = context.bounds
    for i in range(z + 1, len(context.network.nodes)):
        bounds = bounds.renewed(i)
    return replace(context, bounds=bounds)
