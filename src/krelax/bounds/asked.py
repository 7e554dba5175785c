"""Bounds of the margins once those of layers are known: with the lines of a rule, or slopes optimised for each.

Margins are bounded as many at a time as memory holds. Where it is enough to settle the questions, those whose clauses
are settled are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from krelax.activations import Rule
from krelax.bounds.backward import lower_bound, outputs
from krelax.bounds.bounded import Bounded
from krelax.bounds.instance import Instance, chunk_queries, pieces, side_by_side
from krelax.bounds.intermediate import ASCENT_COPIES, RULE_COPIES
from krelax.bounds.layers import LayerBounds
from krelax.bounds.optimise import Ascent, ascend
from krelax.bounds.recording import chosen, record, record_forms
from krelax.bounds.steps import Tapes, by_rule, over
from krelax.bounds.views import FEW, Portion, unstable_index, widest
from krelax.network.graph import Network
from krelax.problem.queries import Queries
from krelax.proof.choices import LeafTable
from krelax.proof.log import MARGINS, UNSTATED, Forms


def holds(queries: Queries, value: Tensor) -> bool:
    """Whether bounds of the margins settle every question of the batch."""
    return bool((queries.margin(value) > 0).all())


def record_margins(instance: Instance, value: Tensor, leaves: Sequence[LeafTable]) -> Tensor | None:
    """Record bounds of all margins, `(batch, queries)`."""
    return record(instance, MARGINS, Forms.single(range(value.shape[1])), value, leaves)


def open_margins(queries: Queries, value: Tensor) -> Tensor:
    """Which margins belong to clauses that bounds do not settle, in each region: `(batch, queries)`."""
    return queries.clause_values(value).gather(1, queries.clause) <= 0


def bound_margins_by_rule(
    instance: Instance, queries: Queries, bounds: LayerBounds, rule: Rule, which: Tensor | None = None
) -> Bounded:
    """The margins by backward passes with the lines of a rule: all, or those of numbers `which`; minus infinity is
    the bound of others."""
    network, region, witness = instance.network, instance.region, by_rule(bounds, rule)
    device, (batch, count) = queries.rows.device, queries.offsets.shape
    which = torch.arange(count, device=device) if which is None else which

    def prove(part: Tensor) -> Tensor:
        index = which[part]
        form = outputs(network, queries.rows[:, index], queries.offsets[:, index])
        return lower_bound(network, region, form, witness, bounds)

    parts = list(pieces(len(which), _at_a_time(network, batch, RULE_COPIES, device), device))
    value = torch.cat([queries.offsets[:, :0], *side_by_side(prove, parts, device)], 1)
    index, leaves = which.expand(batch, -1), chosen(instance, witness, 1)
    lemmas = record_forms(instance, MARGINS, Forms.single, index, torch.ones_like(index) > 0, value, leaves)
    value, lemmas = _among(count, index, value, lemmas)
    return Bounded.of(value, bounds, lemmas)


def optimise_margins(instance: Instance, queries: Queries, found: Bounded, ascent: Ascent, stop: bool) -> Bounded:
    """Slopes optimised for each margin over what is known; if it may `stop`, for those of open clauses only, until
    all questions are settled."""
    batch, count = found.value.shape
    if stop:
        index, valid = unstable_index(open_margins(queries, found.value))
    else:
        index = torch.arange(count, device=found.value.device).expand(batch, -1)
        valid = torch.ones_like(index, dtype=torch.bool)
    size = _at_a_time(instance.network, batch, ASCENT_COPIES, index.device)
    for part in pieces(index.shape[1], size, index.device):
        done = _settles(queries, found) if stop else None
        found = _optimised(instance, queries, found, (index[:, part], valid[:, part]), ascent, done)
    return found


def _settles(queries: Queries, found: Bounded) -> Callable[[Tensor, Tensor], bool]:
    """Whether values of margins `index`, both `(batch, m)`, settle all questions, with what is found of the others."""

    def settles(index: Tensor, values: Tensor) -> bool:
        known = found.value.to(values.dtype).scatter_reduce(1, index, values, "amax")
        return holds(queries, known)

    return settles


def _optimised(
    instance: Instance, queries: Queries, found: Bounded, portion: Portion, ascent: Ascent,
    done: Callable[[Tensor, Tensor], bool] | None,
) -> Bounded:  # fmt: skip
    """Slopes optimised for a portion of the margins, until values are `done`."""
    network, bounds, (index, valid) = instance.network, found.bounds, portion
    fast = instance.fast_network.dtype
    rows = queries.rows.gather(1, index.unsqueeze(2).expand(-1, -1, queries.rows.shape[2]))
    offsets = queries.offsets.gather(1, index)
    form = outputs(instance.fast_network, rows.to(fast), offsets.to(fast))
    ended = None if done is None else lambda values: done(index, values)
    witness = over(ascend(instance, form, bounds.to(fast, network), ascent, ended), bounds)
    tapes: Tapes = {}
    value = lower_bound(network, instance.region, outputs(network, rows, offsets), witness, bounds, tapes)
    leaves = chosen(instance, witness, value.shape[1], tapes)
    lemmas = record_forms(instance, MARGINS, Forms.single, index, valid, value, leaves)
    found = found.improved(*_among(found.value.shape[1], index, value, lemmas))
    # the witness is kept if it is about all of them
    return replace(found, witness=witness, tapes=tapes) if value.shape == found.value.shape else found


def _among(count: int, index: Tensor, value: Tensor, lemmas: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Bounds of margins `index`, all `(batch, m)`, and their lemmas among all margins: minus infinity is the bound of
    others, and nothing is stated of them."""
    shape = (len(index), count)
    if lemmas is not None:
        lemmas = lemmas.new_full(shape, UNSTATED).scatter(1, index, lemmas)
    return value.new_full(shape, -torch.inf).scatter(1, index, value), lemmas


def _at_a_time(network: Network, batch: int, copies: int, device: torch.device) -> int:
    """How many margins to bound at a time."""
    return chunk_queries(batch * widest(network.nodes), copies, device, FEW)
