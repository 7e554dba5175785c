"""Methods as recipes: which slopes, which intermediate bounds, how much effort."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from krelax.bounds.backward import by_rule, lower_bound, outputs
from krelax.bounds.instance import Instance
from krelax.bounds.intermediate import ASCENT_COPIES, RULE_COPIES, tighten_by_ascent, tighten_by_rule
from krelax.bounds.intervals import Intervals, advance, start
from krelax.bounds.optimise import Ascent, Witness, ascend, lines_of
from krelax.problem.queries import Queries
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

    @property
    def copies(self) -> int:
        """Tensors the size of the widest layer that the method holds for every query."""
        return RULE_COPIES if self.inner is None else ASCENT_COPIES


METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method("interval", Rule.ZERO),
        Method("fast-lin", Rule.PARALLEL, Rule.PARALLEL),
        Method("fixed0", Rule.FIXED_0, Rule.FIXED_0),
        Method("fixed1", Rule.FIXED_1, Rule.FIXED_1),
        Method("crown-ibp", Rule.ADAPTIVE),
        Method("crown", Rule.ADAPTIVE, Rule.ADAPTIVE),
        Method("alpha", Rule.ADAPTIVE, Rule.ADAPTIVE, Ascent(24, 0.5, 0.88), Ascent(60, 0.5, 0.93)),
    )
}


@dataclass
class Bounded:
    """What a method found for a batch: lower bounds of the queries, `(batch, queries)`, and from what."""

    value: Tensor
    known: Intervals
    witness: Witness = field(default_factory=dict)


def bound(instance: Instance, queries: Queries, method: Method, stop: bool = False) -> Bounded:
    """Lower bounds of the margins of `queries` over the regions of `instance`, by `method`.

    With `stop`, optimisation ends as soon as every question is settled, which leaves the margins looser.
    Sound. Never below the interval bound of the same query, and never below plain CROWN for optimised slopes. Raises
    OutOfTime at the instance's deadline.
    """
    with torch.no_grad():
        known = start(instance.region)
        activations = set(instance.network.activations())
        for i, node in enumerate(instance.network.nodes[1:], start=1):
            if i in activations:
                tighten(instance, known, node.inputs[0], method)
            advance(instance.network, known)
        return conclude(instance, known, queries, method, stop)


def tighten(instance: Instance, known: Intervals, node: int, method: Method) -> None:
    """Improve the bounds of a pre-activation with what the method allows."""
    if method.intermediate is not None:
        tighten_by_rule(instance, known, node, method.intermediate)
    if method.inner is not None and known.relaxations:
        tighten_by_ascent(instance, known, node, method.inner)


def conclude(instance: Instance, known: Intervals, queries: Queries, method: Method, stop: bool) -> Bounded:
    """Bound the query when every node has its bounds."""
    network, region = instance.network, instance.region
    form = outputs(network, queries.rows, queries.offsets)
    rules = dict.fromkeys((Rule.ZERO, method.final))
    value = torch.stack([lower_bound(network, region, form, by_rule(known, r), known) for r in rules]).amax(0)
    if method.outer is None or (stop and holds(queries, value)):
        return Bounded(value, known)
    fast = instance.fast_network.dtype
    asked = queries.to(fast, value.device)
    proposed = ascend(
        instance,
        outputs(instance.fast_network, asked.rows, asked.offsets),
        known.to(fast, network),
        method.outer,
        (lambda values: holds(queries, values)) if stop else None,
    )
    witness = {i: s.to(value.dtype) for i, s in proposed.items()}
    optimised = lower_bound(network, region, form, lines_of(known, witness), known)
    return Bounded(torch.maximum(value, optimised), known, witness)


def holds(queries: Queries, value: Tensor) -> bool:
    """Whether bounds of the margins settle every question of the batch."""
    return bool((queries.margin(value) > 0).all())
