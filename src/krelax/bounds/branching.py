"""Tightening by branching: one branch and bound raises the lower bounds of many queries at once.

Every query keeps its own leaves, and its bound is the smallest of theirs. In every round the worst leaves of every open
query are split on the neuron whose relaxation costs most, and all children are bounded in batches. The search runs on
proposals; what it returns is the minimum over the final leaves, whose regions cover the whole region, each evaluated
rigorously.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from krelax.bounds.backward import Form, neurons, signed
from krelax.bounds.compression import without_inactive
from krelax.bounds.instance import Instance, OutOfTime, chunk_queries, memory_budget, pieces
from krelax.bounds.intermediate import ASCENT_COPIES, interval_is_exact, undecided
from krelax.bounds.intervals import Intervals
from krelax.bounds.leaves import Evaluator, Leaves
from krelax.bounds.optimise import Ascent
from krelax.errors import InputError

# A child that falls below its parent by less, relatively, is not worth a proof of the parent.
_UNNOTICED = 1e-3

# Copies of all leaves that are held while they move to a larger place, with as much again for the passes.
_POOL_COPIES = 4
# How far beyond zero, relatively to its width, an interval is taken to be decided before it has been proven.
_BEYOND = 1e-4


@dataclass(frozen=True)
class Effort:
    """How much a search may do: leaves to be split in a round, rounds, splits on the way to a leaf, ascent of the
    queries themselves (`root`) and of every child (`leaf`), and seconds (None: as long as it takes)."""

    leaves: int = 256
    rounds: int = 20
    depth: int = 32
    root: Ascent = field(default_factory=lambda: Ascent(16, 0.5, 0.88))
    leaf: Ascent = field(default_factory=lambda: Ascent(2, 0.1, 0.8))
    seconds: float | None = None


def tighten_by_branching(
    instance: Instance,
    known: Intervals,
    forms: tuple[Form, Form],
    effort: Effort,
    start: Tensor,
    target: Tensor | None = None,
    weight: Tensor | None = None,
    task: Tensor | None = None,
) -> Tensor:
    """Rigorous lower bounds `(queries,)` of linear forms over one region, never below `start`.

    `forms` holds the queries in the exact and the fast type of the instance, batch 1. A query is left alone from
    `target` on, and with it all queries of the same `task` (a number below that of queries; by default each has its
    own). Queries get shares of every round in proportion to `weight`. All three are `(queries,)`.
    The search ends early at the deadline, or when its leaves fill memory, and returns what has been proven.
    Raises InputError for more than one region.
    """
    if len(instance.region) != 1:
        raise InputError(f"branching works on one region at a time, got {len(instance.region)}")
    with torch.no_grad():
        instance, known, forms = without_inactive(instance, known, forms)
        search = _Search(instance, Evaluator(instance, known, *forms), effort, start, target, weight, task)
        return search.run()


def tighten_layer(
    instance: Instance, known: Intervals, node: int, effort: Effort, weight: Tensor | None = None
) -> None:
    """Tighten both bounds of every undecided entry of the pre-activation `node`, in place, until it is decided.

    `weight`, `(2, entries of the node)`: what lower and upper bounds are worth; entries of weight 0 are left alone.
    Raises InputError for more than one region.
    """
    if interval_is_exact(instance.network, instance.region, node) or not known.relaxations:
        return
    index = undecided(instance, known, node)[:1].nonzero()[:, 1][None]
    if not index.numel():
        return
    forms = tuple(signed(neurons(n, node, index)) for n in (instance.network, instance.fast_network))
    lower, upper = (t[node].flatten(1) for t in (known.lower, known.upper))
    start = torch.cat([lower[0, index[0]], -upper[0, index[0]]])
    target = _BEYOND * (upper - lower)[0, index[0]].repeat(2)
    task = torch.arange(index.numel()).repeat(2)
    share = _urgency(start) if weight is None else _urgency(start) * weight[:, index[0]].flatten()
    found = tighten_by_branching(instance, known, (forms[0], forms[1]), effort, start, target, share, task)
    below, above = found.chunk(2)
    lower, upper = lower.index_copy(1, index[0], below[None]), upper.index_copy(1, index[0], -above[None])
    known.tighten(node, lower.view_as(known.lower[node]), upper.view_as(known.upper[node]))


def _urgency(start: Tensor) -> Tensor:
    """What bounds are worth, from `start` of `tighten_layer`: the steeper the chord falls with a bound, the more. The
    bound nearer to zero decides the neuron, and takes more off its triangle."""
    below, above = (-start).chunk(2)
    width = (below + above).clamp(min=torch.finfo(start.dtype).tiny)
    return torch.cat([above / width, below / width])


class _Search:
    """The queue of one search. `leaves` has spare rows at its end; the first `count` are in use."""

    def __init__(
        self,
        instance: Instance,
        evaluator: Evaluator,
        effort: Effort,
        start: Tensor,
        target: Tensor | None,
        weight: Tensor | None,
        task: Tensor | None,
    ) -> None:
        self._instance, self._evaluator, self._effort = instance, evaluator, effort
        self._start = start
        self._target = start.new_full(start.shape, torch.inf) if target is None else target
        self._task = torch.arange(len(start)) if task is None else task
        self._weight = start.new_ones(start.shape) if weight is None else weight.to(start.dtype)
        self._credit = torch.zeros_like(self._weight)
        widest = max(prod(instance.network.nodes[i].shape) for i in range(max(evaluator.nodes) + 1))
        itemsize = instance.fast_region.lower.element_size()
        self._size = max(32, chunk_queries(widest * itemsize, ASCENT_COPIES, start.device))
        self._began = time.perf_counter()
        self._proof_seconds = 0.0  # for one leaf
        query = (self._weight > 0).nonzero()[:, 0]
        self._leaves = evaluator.roots(query, effort.depth)
        self._count = len(query)
        row = sum(prod(t.shape[1:]) * t.element_size() for t in self._leaves.tensors())
        self._most = memory_budget(start.device) // (_POOL_COPIES * row)

    def run(self) -> Tensor:
        """Bounds of all queries, with what there was time for."""
        try:
            self._improve_roots()
        except OutOfTime:
            return self._start
        try:
            for _ in range(self._effort.rounds):
                if self._is_late() or not self._round():
                    break
        except OutOfTime:
            pass
        return self._proven()

    def _is_late(self) -> bool:
        """Whether what is left of the time is needed to evaluate the leaves there are."""
        now = time.perf_counter() + 1.5 * self._proof_seconds * (self._count + 2 * self._effort.leaves)
        limit, deadline = self._effort.seconds, self._instance.deadline
        return (limit is not None and now > self._began + limit) or (deadline is not None and now > deadline)

    def _improve_roots(self) -> None:
        for rows in pieces(self._count, self._size):
            leaves = self._leaves.select(rows)
            self._evaluator.improve(leaves, self._effort.root)
            began = time.perf_counter()
            leaves.floor = self._evaluator.prove(leaves)
            self._proof_seconds = (time.perf_counter() - began) / len(rows)
            self._start = self._start.scatter_reduce(0, leaves.query, leaves.floor, "amax")
            self._leaves.write(rows, leaves)

    def _round(self) -> bool:
        """Split the worst leaves of every open query, as many as its credit allows; says whether any are left."""
        able = self._able()
        rows = self._worst(able)
        for chunk in pieces(len(rows), max(1, self._size // 2)):
            if self._is_late() or self._count + len(chunk) > self._most:
                return False
            self._split(rows[chunk])
        return len(able) > 0

    def _split(self, rows: Tensor) -> None:
        parents = self._leaves.select(rows)
        children = parents.children()
        self._evaluator.improve(children, self._effort.leaf)
        self._inherit(parents, children)
        if self._count + len(rows) > len(self._leaves):
            self._leaves = self._leaves.room(min(2 * (self._count + len(rows)), self._most))
        fresh = torch.arange(self._count, self._count + len(rows))
        self._leaves.write(torch.cat([rows, fresh]), children)
        self._count += len(rows)

    def _inherit(self, parents: Leaves, children: Leaves) -> None:
        """No child is below its parent. Where its own slopes would be, what it inherits is proven with the parent's."""
        inherited = parents.value.repeat(2)
        slack = _UNNOTICED * (1 + inherited.abs())
        lost = (children.value < inherited - slack).view(2, -1).any(0).nonzero()[:, 0]
        if len(lost):
            parents.floor[lost] = self._evaluator.prove(parents.select(lost))
        children.floor = parents.floor.repeat(2)
        torch.maximum(children.value, inherited, out=children.value)

    def _able(self) -> Tensor:
        """Rows of the leaves worth splitting: below their target, of an open query, with a neuron to split."""
        query, value = self._leaves.query[: self._count], self._leaves.value[: self._count]
        able = (self._leaves.branch[: self._count] >= 0) & (value < self._target[query]) & self._open()[query]
        return able.nonzero()[:, 0]

    def _open(self) -> Tensor:
        """Which queries belong to a task none of whose queries has reached its target."""
        reached = (self._weight > 0) & (self._smallest(self._leaves.value[: self._count].double()) >= self._target)
        done = torch.zeros_like(self._task).scatter_reduce_(0, self._task, reached.long(), "amax")
        return done[self._task] == 0

    def _smallest(self, value: Tensor) -> Tensor:
        """The smallest value of every query's leaves, infinite where there are none."""
        infinite = torch.full_like(self._start, torch.inf)
        return infinite.scatter_reduce_(0, self._leaves.query[: self._count], value, "amin")

    def _worst(self, rows: Tensor) -> Tensor:
        """The worst of these leaves of every query, after handing out a round's credit among their queries."""
        query, value = self._leaves.query[rows], self._leaves.value[rows]
        share = torch.zeros_like(self._weight)
        share[query] = self._weight[query]
        self._credit += self._effort.leaves * share / share.sum().clamp(min=torch.finfo(share.dtype).tiny)
        order = value.argsort(stable=True)
        order = order[query[order].argsort(stable=True)]
        query = query[order]
        taken = _rank(query, len(share)) < self._credit.floor()[query]
        self._credit -= torch.bincount(query[taken], minlength=len(share))
        return rows[order[taken]]

    def _proven(self) -> Tensor:
        """Rigorous bounds: the smallest over a query's leaves, if there was time for all of them. What is below its
        target in a task that another query has done is not proven."""
        value = torch.full((self._count,), -torch.inf, dtype=self._start.dtype)
        reached = self._smallest(self._leaves.value[: self._count].double()) >= self._target
        wanted = (self._open() | reached)[self._leaves.query[: self._count]].nonzero()[:, 0]
        for chunk in pieces(len(wanted), self._size):
            rows = wanted[chunk]
            value[rows] = self._evaluator.prove(self._leaves.select(rows))
        smallest = self._smallest(value)
        return torch.where(self._weight > 0, torch.maximum(self._start, smallest), self._start)


def _rank(sorted_labels: Tensor, labels: int) -> Tensor:
    """Position of every entry among those of its label."""
    count = torch.bincount(sorted_labels, minlength=labels)
    first = count.cumsum(0) - count
    return torch.arange(len(sorted_labels)) - first[sorted_labels]
