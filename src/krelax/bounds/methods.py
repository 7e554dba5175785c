"""Methods as recipes: which slopes, which intermediate bounds, how much effort."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from krelax.activations import Rule
from krelax.bounds import zonotope
from krelax.bounds.asked import bound_margins_by_rule, holds, open_margins, optimise_margins, record_margins
from krelax.bounds.backward import outputs
from krelax.bounds.bounded import Bounded
from krelax.bounds.branching import Effort
from krelax.bounds.forward import Forward, parallel, record_parallel
from krelax.bounds.instance import Instance, OutOfTime, memory_budget, one_core_each
from krelax.bounds.intermediate import (
    ASCENT_COPIES,
    RULE_COPIES,
    bound_by_rule,
    interval_is_exact,
    tighten_by_ascent,
)
from krelax.bounds.layers import LayerBounds, advance, start
from krelax.bounds.lp import bound_by_lp
from krelax.bounds.multineuron import MultiNeuron, bound_layers, neuron_scores
from krelax.bounds.optimise import Ascent
from krelax.bounds.recording import chosen
from krelax.bounds.seen import seen
from krelax.errors import InputError
from krelax.hull.grouping import Grouping
from krelax.problem.queries import Queries
from krelax.proof.choices import Choices, LeafTable
from krelax.watch import now


@dataclass(frozen=True)
class Method:
    """A bounding method.

    `final` is the rule of the slopes for the query, `intermediate` that for pre-activations (None: interval
    arithmetic only). With `inner` and `outer` the slopes are then optimised, for pre-activations and for the query.
    With `multi_neuron`, groups of neurons are then bounded together, in one pass through the layers for each entry,
    until the question is settled. With `program`, the margins are linear programs in the end. With `forward`, zonotopes
    are pushed through the network instead.
    """

    name: str
    final: Rule
    intermediate: Rule | None = None
    inner: Ascent | None = None
    outer: Ascent | None = None
    multi_neuron: tuple[MultiNeuron, ...] = ()
    program: bool = False
    forward: bool = False

    @property
    def separate(self) -> bool:
        """Whether every region is worked on by itself."""
        return bool(self.multi_neuron) or self.program

    @property
    def copies(self) -> int:
        """Tensors the size of the widest layer that the method holds for every query."""
        return RULE_COPIES if self.inner is None else ASCENT_COPIES


_ALPHA = Method("alpha", Rule.ADAPTIVE, Rule.ADAPTIVE, Ascent(24, 0.5, 0.88), Ascent(50, 0.5, 0.92))

_PAIRS = Grouping(2, neurons=60, overlap=3)
_TRIPLES = Grouping(3, neurons=40, overlap=2, enough=1.0)
_FOURS = Grouping(4, neurons=20, overlap=1, enough=1.0)
_SPLIT = (
    MultiNeuron(None, splitting=Effort(rounds=20)),
    MultiNeuron(_TRIPLES, splitting=Effort(rounds=60)),
    MultiNeuron(_TRIPLES, splitting=Effort(rounds=160)),
)
# Where a pass with groups brings the worst margin less than this part of its way to zero, another will not do it.
_WORTH_ANOTHER = 0.5
# Bounds of layers by a rule may take the first part of the time until a deadline, because nothing else comes far
# without them; what is optimised the second one; or so many seconds where that is more.
_RULE_PART, _PART, _LEAST = 0.5, 0.2, 3.0

METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method("interval", Rule.ZERO),
        Method("zonotope", Rule.PARALLEL, forward=True),
        Method("fast-lin", Rule.PARALLEL, Rule.PARALLEL),
        Method("fixed0", Rule.FIXED_0, Rule.FIXED_0),
        Method("fixed1", Rule.FIXED_1, Rule.FIXED_1),
        Method("crown-ibp", Rule.ADAPTIVE),
        Method("crown", Rule.ADAPTIVE, Rule.ADAPTIVE),
        _ALPHA,
        replace(_ALPHA, name="lp", program=True),
        replace(_ALPHA, name="krelu", multi_neuron=(MultiNeuron(_PAIRS),)),
        replace(_ALPHA, name="krelu3", multi_neuron=(MultiNeuron(_TRIPLES),)),
        replace(_ALPHA, name="krelu4", multi_neuron=(MultiNeuron(_FOURS),)),
        replace(_ALPHA, name="lp-krelu", multi_neuron=(MultiNeuron(_PAIRS),), program=True),
        replace(_ALPHA, name="split", multi_neuron=_SPLIT),
    )
}


def bound(
    instance: Instance, queries: Queries, method: Method, stop: bool = False, found: Bounded | None = None
) -> Bounded:
    """Lower bounds of the margins of questions over a batch of regions, by one method.

    Args:
        instance: The network over the regions, `(batch, *input_shape)`.
        queries: The margins, of any real type: rows `(batch, queries, outputs)`.
        method: One of `METHODS`, or another.
        stop: Whether optimisation ends as soon as every question is settled, which leaves the margins looser.
        found: What is known already. Methods that optimise start from it, and else from what closed-form rules find.

    Returns:
        The bounds, `(batch, queries)`, with the bounds of layers and the witness that they rest on. They are never
        below the interval bound of the same query, and for optimised slopes never below what closed-form rules find.

    Raises:
        InputError: The queries are not about these regions or these outputs.
        OutOfTime: The deadline of the instance has passed. A part of the time until then is kept for what comes after,
            so that pre-activations for which there is no time are bounded more coarsely.

    Sound: yes, in floating point: every rounding error is charged.
    Complete: no. No method reaches the true minimum in general.
    Reference: E. Wong, J. Z. Kolter, 2018 (the framework); H. Salman et al., 2019 (single-neuron methods); G. Singh et
        al., 2019 (groups).
    """
    queries = _fitting(instance, queries)
    instance = replace(instance, seen=seen(instance.network, queries.rows))
    with torch.no_grad(), one_core_each(queries.rows.device):
        if method.forward:
            return _forward(instance, queries)
        if found is None or method.inner is None:
            found = _by_rule(instance, queries, method, stop)
        if method.inner is None or method.outer is None or (stop and holds(queries, found.value)):
            return found
        if stop and method.inner.affordable(instance.network).steps < method.inner.steps:
            # slopes of the queries alone may do, where those of layers are dear
            found = _optimised(instance, queries, found, method.outer, stop)
            if holds(queries, found.value):
                return found
        found = _by_ascent(instance, queries, found, method.inner, method.outer, stop)
        if not method.separate:
            return found
        return _each(instance, queries, found, method, stop)


def _fitting(instance: Instance, queries: Queries) -> Queries:
    """The queries in the type that decides, on the instance's device; InputError if they do not fit."""
    regions, outputs = len(instance.region), prod(instance.network.output_shape)
    given = tuple(queries.rows.shape)
    if len(given) != 3 or given[0] != regions or given[1] == 0 or given[2] != outputs or regions == 0:
        wanted = f"({regions}, queries, {outputs})"
        raise InputError(
            f"queries with rows of shape {given}: for {regions} regions and {outputs} outputs give {wanted}"
        )
    if queries.rows.is_complex() or queries.offsets.is_complex():
        raise InputError("queries of complex numbers; give real ones")
    if tuple(queries.offsets.shape) != given[:2] or tuple(queries.clause.shape) != given[:2]:
        shapes = f"{tuple(queries.offsets.shape)} and {tuple(queries.clause.shape)}"
        raise InputError(f"offsets and clauses of shapes {shapes} for rows of shape {given}; give {given[:2]} for both")
    if (
        queries.clause.is_floating_point()
        or not 0 <= int(queries.clause.min()) <= int(queries.clause.max()) < queries.clauses
    ):
        raise InputError(f"clauses must be whole numbers from 0 to {queries.clauses - 1}, one for each query")
    lower = instance.region.lower
    return (
        queries if queries.rows.dtype == queries.offsets.dtype == lower.dtype else queries.to(lower.dtype, lower.device)
    )


def _forward(instance: Instance, queries: Queries) -> Bounded:
    """Zonotopes and intervals side by side, each node with the better of the two bounds; where proofs are recorded,
    which say nothing of the rest, each undecided entry of a pre-activation."""
    network, region = instance.network, instance.region
    bounds, forms = start(region, bool(instance.logs)), [zonotope.identity(region)]
    read = {network.nodes[i].inputs[0] for i in network.activations()} if instance.logs else set()
    for i in range(1, len(network.nodes)):
        instance.check()
        advance(network, bounds)
        if zonotope.COPIES * zonotope.size(network, forms, bounds) > memory_budget(region.lower.device):
            raise torch.OutOfMemoryError(f"a zonotope of node {i} does not fit memory")
        forms.append(zonotope.follow(network, forms, bounds))
        lower, upper = forms[i].bounds(region)
        if not instance.logs:
            bounds.tighten(i, lower, upper, None)
        elif i in read and not interval_is_exact(network, region, i):
            bounds.tighten(i, lower, upper, record_parallel(instance, bounds, i, lower, upper))
    by_interval = bound_margins_by_rule(replace(instance, logs=()), queries, bounds, Rule.ZERO).value
    by_zonotope = zonotope.margins(forms[-1], queries, region)
    lemmas = record_margins(instance, by_zonotope, chosen(instance, parallel(instance, bounds), 1))
    return _with_intervals(instance, Bounded.of(by_zonotope, bounds, lemmas), by_interval)


def _by_rule(instance: Instance, queries: Queries, method: Method, stop: bool) -> Bounded:
    """Backward passes with closed-form slopes: one for each layer, then one for the queries."""
    known = start(instance.region, bool(instance.logs))
    found = go_on(instance, queries, known, method.intermediate, method.final, stop)
    if method.final is Rule.ZERO:
        return found
    # closed-form slopes can be worse than none
    without, plain = replace(instance, logs=()), start(instance.region, False)
    for _ in instance.network.nodes[1:]:
        advance(instance.network, plain)
    which = open_margins(queries, found.value).any(0).nonzero()[:, 0] if stop else None
    return _with_intervals(instance, found, bound_margins_by_rule(without, queries, plain, Rule.ZERO, which).value)


def go_on(
    instance: Instance,
    queries: Queries,
    bounds: LayerBounds,
    intermediate: Rule | None,
    final: Rule,
    stop: bool = False,
) -> Bounded:
    """Backward passes with closed-form slopes: one for each layer behind those whose `bounds` are known, which grow,
    then one for the queries; if it may `stop`, for those that a look does not settle."""
    network = instance.network
    hurried, activations = instance.until(_patience(instance, _RULE_PART)), set(network.activations())
    forward = Forward(hurried)
    for i, node in enumerate(network.nodes[len(bounds.lower) :], start=len(bounds.lower)):
        instance.check()
        if i in activations and intermediate is not None:
            with suppress(OutOfTime):
                forward.tighten(bounds, node.inputs[0])
                bound_by_rule(hurried, bounds, node.inputs[0], intermediate)
        advance(network, bounds)
    look = _look(instance, queries, bounds, forward) if stop and intermediate is not None else None
    if look is None:
        return bound_margins_by_rule(instance, queries, bounds, final)
    which = open_margins(queries, look.value).any(0).nonzero()[:, 0]
    if not len(which):
        return look
    found = bound_margins_by_rule(instance, queries, bounds, final, which)
    return look.improved(found.value, found.lemmas)


def _look(instance: Instance, queries: Queries, bounds: LayerBounds, forward: Forward) -> Bounded | None:
    """What forms pushed forward prove of the margins, if they are worth it."""
    value = None
    with suppress(OutOfTime):
        value = forward.margins(bounds, queries)
    if value is None:
        return None
    lemmas = record_margins(instance, value, chosen(instance, parallel(instance, bounds), 1))
    return Bounded.of(value, bounds, lemmas)


def _with_intervals(instance: Instance, found: Bounded, value: Tensor) -> Bounded:
    """With the better of the margins' bounds and others, `(batch, queries)`, that slopes of zero prove."""
    if instance.logs and not bool((value > found.value).any()):
        return found
    sizes = {i: relaxation.lower[0].numel() for i, relaxation in found.bounds.relaxations.items()}
    zeros = {i: Choices(absolute=np.zeros((1, n), np.float32)) for i, n in sizes.items()}
    leaves = [LeafTable.unsplit(zeros, 1)] * len(instance.logs)
    return found.improved(value, record_margins(instance, value, leaves))


def _by_ascent(
    instance: Instance, queries: Queries, found: Bounded, inner: Ascent, outer: Ascent, stop: bool
) -> Bounded:
    """Start from what the rules found and optimise, layer by layer, then the queries."""
    network, region = instance.network, instance.region
    bounds, hurried = start(region, bool(instance.logs)), instance.until(_patience(instance))
    activations = set(network.activations())
    for i, node in enumerate(network.nodes[1:], start=1):
        instance.check()
        if i in activations:
            with suppress(OutOfTime):
                tighten_by_ascent(hurried, bounds, node.inputs[0], inner)
        advance(network, bounds)
        bounds.meet(found.bounds, i)
    return _optimised(instance, queries, replace(found, bounds=bounds), outer, stop)


def _patience(instance: Instance, part: float = _PART) -> float | None:
    """Seconds that bounds of layers, or slopes of the query, may take."""
    if instance.deadline is None:
        return None
    return max(_LEAST, part * (instance.deadline - now()))


def _each(instance: Instance, queries: Queries, found: Bounded, method: Method, stop: bool) -> Bounded:
    """Go on region by region, because each has groups of its own."""
    parts = []
    for i in torch.arange(len(queries)).split(1):
        one, asked, part = instance.select(i), queries.select(i), found.select(i, instance.network)
        for multi_neuron in method.multi_neuron:
            before = float(part.value.min())
            if stop and holds(asked, part.value):
                break
            part = by_groups(one, asked, part, multi_neuron, stop)
            if stop and multi_neuron.grouping and float(part.value.min()) < (1 - _WORTH_ANOTHER) * before:
                break
        if method.program and not (stop and holds(asked, part.value)):
            part = _by_program(one, asked, part, stop)
        parts.append(part)
    return Bounded.join(parts, instance.network)


def by_groups(
    instance: Instance,
    queries: Queries,
    found: Bounded,
    multi_neuron: MultiNeuron,
    stop: bool,
    seconds: float | None = None,
) -> Bounded:
    """Groups where the best single-neuron bound of the worst margin loses most, then everything once more.

    One region. Bounds of layers are tightened for about `seconds`; what there is no time for stays as it was found.
    """
    worst = found.value[0].argmin(0, keepdim=True)
    form = outputs(
        instance.fast_network, *(t[:, worst].to(instance.fast_network.dtype) for t in (queries.rows, queries.offsets))
    )
    scores = neuron_scores(instance, form, found.bounds, curves=multi_neuron.grouping is not None)
    bounds = bound_layers(instance.until(seconds), found.bounds, scores, multi_neuron)
    instance.check()
    return _optimised(instance, queries, replace(found, bounds=bounds), multi_neuron.outer, stop)


def _by_program(instance: Instance, queries: Queries, found: Bounded, stop: bool) -> Bounded:
    """Linear programs of the margins, with cutting planes if there are groups; one region."""
    if not found.bounds.groups:
        return bound_by_lp(instance, queries, found, stop)
    from krelax.bounds.cutting import bound_by_cutting  # numba takes a while to import

    return bound_by_cutting(instance, queries, found, stop)


def _optimised(instance: Instance, queries: Queries, found: Bounded, ascent: Ascent, stop: bool) -> Bounded:
    """Slopes optimised for the margins, for a part of the time."""
    return optimise_margins(instance, queries, found, replace(ascent, seconds=_patience(instance)), stop)
