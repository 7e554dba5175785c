"""Clauses of several margins as one margin each: their largest, by one more activation at the end of the network.

At every input one positive member settles a clause, but not the same one everywhere. The relaxation of a maximum lets
its members share, and its linear program mixes them in every leaf as it needs them, so that a leaf with nothing left
to split is decided exactly.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.bounded import Bounded
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds, advance
from krelax.bounds.recording import record
from krelax.problem.extensions import members, with_maxima
from krelax.problem.queries import Queries
from krelax.proof.choices import Choices, LeafTable
from krelax.proof.log import DERIVED, MARGINS, Forms


def mixed(queries: Queries, found: Bounded) -> bool:
    """Whether a clause that is open has several members."""
    members = queries.clause[0].bincount(minlength=queries.clauses)
    return bool((members[queries.clause_values(found.value)[0] <= 0] > 1).any())


def largest(instance: Instance, queries: Queries, found: Bounded) -> tuple[Instance, Queries, Bounded]:
    """The same question about one region with one margin for each clause, and what is known of it, which settles no
    clause. Nodes keep their numbers."""
    network, margins = with_maxima(instance.network, queries)
    bounds = found.bounds.copy()
    bounds.groups = dict(found.bounds.groups)
    for i in range(len(bounds.lower), len(network.nodes)):
        advance(network, bounds)
        if i == margins + 1:
            _tighten(instance, queries, found, bounds, i)
    fast = network.to(instance.fast_network.dtype, queries.rows.device)
    value = queries.clause_values(found.value).clamp(max=0)
    lemmas = _record(instance, value, margins + 2, bounds.lower[margins + 1].numel())
    asked = _single(value)
    return replace(instance, network=network, fast_network=fast), asked, Bounded.of(value, bounds, lemmas)


def _record(instance: Instance, value: Tensor, node: int, width: int) -> Tensor | None:
    """Record that the maxima of clauses, at `node`, are at least `value`, `(1, clauses)`, because one of their members
    is: slopes of zero prove that."""
    leaf = LeafTable.unsplit({node: Choices(absolute=np.zeros((1, width), np.float32))}, 1)
    return record(instance, MARGINS, Forms.single(range(value.shape[1])), value, [leaf])


def _tighten(instance: Instance, queries: Queries, found: Bounded, bounds: LayerBounds, node: int) -> None:
    """What is found of single margins, as bounds of the members of clauses, entries of a node."""
    member = members(queries).flatten()
    shape = bounds.lower[node].shape
    lower, upper = found.value[:, member].reshape(shape), bounds.upper[node]
    if found.lemmas is None:
        bounds.tighten(node, lower, upper, None)
        return
    (log,), numbers = instance.logs, found.lemmas[0, member].cpu().numpy()
    restated = log.restate(numbers, node, Forms.single(range(len(numbers))))
    below = torch.from_numpy(restated).to(lower.device).reshape(shape)
    bounds.tighten(node, lower, upper, (below, torch.full_like(below, DERIVED)))


def _single(value: Tensor) -> Queries:
    """A clause for each entry of an output."""
    count = value.shape[1]
    rows = torch.eye(count, dtype=value.dtype, device=value.device)[None]
    return Queries(rows, torch.zeros_like(value), torch.arange(count, device=value.device)[None], count)
