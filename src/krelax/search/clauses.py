"""Clauses of several margins bounded jointly: as the largest of them, by more ReLUs behind the network's outputs.

At every input one positive member settles a clause, but not the same one everywhere. A form that shares its weight
among the members can be positive everywhere, and slopes of the new ReLUs are these shares: every method optimises them
like any others, searches split them (by which member is the larger), and certificates have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from krelax.activations import Rule
from krelax.bounds.bounded import Bounded
from krelax.bounds.instance import Instance
from krelax.bounds.methods import go_on
from krelax.problem.extensions import with_maxima
from krelax.problem.queries import Queries
from krelax.proof.log import DERIVED

# Numbers in the rows of all margins, of which those of maxima are mostly zeros.
_MOST = 1 << 26


class Posed(NamedTuple):
    """A question about one region, what is known of it, and the instance that it is about."""

    instance: Instance
    queries: Queries
    found: Bounded


def pose(instance: Instance, queries: Queries, found: Bounded) -> Posed:
    """A question with one margin for each open clause of several: `found` says of it how it was posed before, or is
    what is known of it as it is asked."""
    if found.joint:
        return Posed(*extended(instance, queries, found.joint), found)
    joint = mixed(queries, found)
    return _jointly(instance, queries, found, joint) if joint else Posed(instance, queries, found)


def mixed(queries: Queries, found: Bounded) -> tuple[int, ...]:
    """The clauses of several margins that are open; those nearest to zero, where they are too many for memory."""
    members = queries.clause[0].bincount(minlength=queries.clauses)
    if int(members.max()) > 1:
        members = queries.distinct()[0].clause[0].bincount(minlength=queries.clauses)
    value = queries.clause_values(found.value)[0]
    several = ((value <= 0) & (members > 1)).nonzero()[:, 0]
    count = max(0, min(len(several), _MOST // queries.clauses - queries.rows.shape[-1]))
    return tuple(several[value[several].argsort(descending=True)[:count]].sort().values.tolist())


def extended(instance: Instance, queries: Queries, joint: Sequence[int]) -> tuple[Instance, Queries]:
    """The same question with one margin for each of the clauses `joint`."""
    distinct, fast = queries.distinct()[0], instance.fast_network
    network, asked = with_maxima(instance.network, distinct, joint)
    fast, _ = with_maxima(fast, distinct.to(fast.dtype, queries.rows.device), joint)
    return replace(instance, network=network, fast_network=fast), asked


def _jointly(instance: Instance, queries: Queries, found: Bounded, joint: tuple[int, ...]) -> Posed:
    """With one margin for each of the clauses `joint`, of which none is settled. Bounds of layers stay, and those of
    other clauses."""
    longer, asked = extended(instance, queries, joint)
    bounds = found.bounds.copy()
    bounds.groups = dict(found.bounds.groups)
    known = go_on(longer, asked, bounds, Rule.ADAPTIVE, Rule.ADAPTIVE)
    kept = queries.distinct()[1]
    kept = kept[~torch.isin(queries.clause[0, kept], torch.tensor(joint, device=kept.device))]
    value, lemmas = torch.full_like(known.value, -torch.inf), None
    value[:, : len(kept)] = found.value[:, kept]
    if found.lemmas is not None:
        lemmas = torch.full_like(value, DERIVED, dtype=torch.int64)
        lemmas[:, : len(kept)] = found.lemmas[:, kept]
    return Posed(longer, asked, replace(known.improved(value, lemmas), joint=joint))


# What questions have in common that are about one network: clauses bounded jointly, and the bytes of their queries.
Kind = tuple[tuple[int, ...], bytes, bytes, bytes]


class Batch:
    """The questions of a batch, with `queries`, each as it is posed by now. Those of one kind are about one network."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._kinds: dict[int, Kind] = {}
        self._posed: dict[Kind, Posed] = {}

    @property
    def several(self) -> bool:
        """Whether clauses have several margins."""
        return self._queries.clause.shape[1] > self._queries.clauses

    def pose(self, instance: Instance, i: int, found: Bounded) -> Bounded:
        """Pose question i with joint clauses from now on, if any is open by what is found; what is known of it then."""
        if i not in self._kinds:
            one = torch.tensor([i])
            queries = self._queries.select(one)
            posed = pose(instance.select(one), queries, found)
            if posed.found.joint:
                rows, offsets, clause = (
                    t.cpu().numpy().tobytes() for t in (queries.rows, queries.offsets, queries.clause)
                )
                self._kinds[i], found = (posed.found.joint, rows, offsets, clause), posed.found
                self._posed.setdefault(self._kinds[i], posed)
        return found

    def alike(self, index: Tensor) -> list[Tensor]:
        """Questions by their kinds."""
        parts: dict[Kind | None, list[int]] = {}
        for i in index.tolist():
            parts.setdefault(self._kinds.get(i), []).append(i)
        return [torch.tensor(part) for part in parts.values()]

    def asked(self, instance: Instance, index: Tensor) -> tuple[Instance, Queries, tuple[int, ...]]:
        """Questions of one kind, with their clauses that are bounded jointly."""
        one, kind = instance.select(index), self._kinds.get(int(index[0]))
        if kind is None:
            return one, self._queries.select(index), ()
        posed = self._posed[kind]
        one = replace(one, network=posed.instance.network, fast_network=posed.instance.fast_network)
        return one, posed.queries.select(torch.zeros_like(index)), posed.found.joint
