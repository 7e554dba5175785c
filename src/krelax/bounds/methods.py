"""Methods as recipes: which slopes, which intermediate bounds, how much effort."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from krelax.bounds.backward import by_rule, lower_bound, outputs
from krelax.bounds.instance import Instance
from krelax.bounds.intermediate import tighten_by_ascent, tighten_by_rule
from krelax.bounds.intervals import Intervals, advance, start
from krelax.bounds.optimise import Ascent, Witness, ascend, lines_of
from krelax.relaxations import Rule


@dataclass(frozen=True)
class Method:
    """A bounding method.

    `final` is the rule of the slopes for the query, `intermediate` that for pre-activations (None: interval
    arithmetic only). With `inner` or `outer` slopes are optimised, for pre-activations and for the query.
    """

    name: str
    final: Rule
    intermediate: Rule | None = None
    inner: Ascent | None = None
    outer: Ascent | None = None


METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method("interval", Rule.ZERO),
        Method("fast-lin", Rule.PARALLEL, Rule.PARALLEL),
        Method("fixed0", Rule.FIXED_0, Rule.FIXED_0),
        Method("fixed1", Rule.FIXED_1, Rule.FIXED_1),
        Method("crown-ibp", Rule.ADAPTIVE),
        Method("crown", Rule.ADAPTIVE, Rule.ADAPTIVE),
        Method("alpha", Rule.ADAPTIVE, Rule.ADAPTIVE, Ascent(20), Ascent(100)),
    )
}


@dataclass
class Bounded:
    """What a method found for a batch: lower bounds of the queries, `(batch, queries)`, and from what."""

    value: Tensor
    known: Intervals
    witness: Witness = field(default_factory=dict)


def bound(instance: Instance, rows: Tensor, offsets: Tensor, method: Method) -> Bounded:
    """Lower bounds of `rows @ y + offsets`, `(batch, queries, outputs)` and `(batch, queries)`, by `method`.

    Sound. Never below the interval bound of the same query, and never below plain CROWN for optimised slopes.
    """
    known = start(instance.region)
    activations = set(instance.network.activations())
    for i, node in enumerate(instance.network.nodes[1:], start=1):
        if i in activations:
            tighten(instance, known, node.inputs[0], method)
        advance(instance.network, known)
    return conclude(instance, known, rows, offsets, method)


def tighten(instance: Instance, known: Intervals, node: int, method: Method) -> None:
    """Improve the bounds of a pre-activation with what the method allows."""
    if method.intermediate is not None:
        tighten_by_rule(instance, known, node, method.intermediate)
    if method.inner is not None and known.relaxations:
        tighten_by_ascent(instance, known, node, method.inner)


def conclude(instance: Instance, known: Intervals, rows: Tensor, offsets: Tensor, method: Method) -> Bounded:
    """Bound the query when every node has its bounds."""
    network, region = instance.network, instance.region
    form = outputs(network, rows, offsets)
    rules = dict.fromkeys((Rule.ZERO, method.final))
    values = [lower_bound(network, region, form, by_rule(known, rule), known) for rule in rules]
    witness: Witness = {}
    if method.outer is not None:
        fast = instance.fast_network.dtype
        fast_form = outputs(instance.fast_network, rows.to(fast), offsets.to(fast))
        fast_known = known.to(fast, network)
        proposed = ascend(instance.fast_network, instance.fast_region, fast_form, fast_known, method.outer, target=0.0)
        witness = {i: s.to(offsets.dtype) for i, s in proposed.items()}
        values.append(lower_bound(network, region, form, lines_of(known, witness), known))
    return Bounded(torch.stack(values).amax(0), known, witness)
