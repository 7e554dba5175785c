"""Tightening by branching: one branch and bound raises the lower bounds of many queries at once.

Every query keeps its own leaves, and its bound is the smallest of theirs. In every round the worst leaves of every open
query are split on the neuron whose relaxation costs most, and all children are bounded in batches. The search runs on
proposals; a leaf whose bound reaches the target is evaluated rigorously and closed. What it returns is the minimum over
closed and remaining leaves, whose regions cover the whole region. The same loop serves pre-activations and margins.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from krelax.bounds.backward import Form
from krelax.bounds.compression import without_inactive
from krelax.bounds.evaluator import Evaluator
from krelax.bounds.groups import Groups
from krelax.bounds.instance import Instance, OutOfTime, chunk_queries, helpers, memory_budget, pieces, workers
from krelax.bounds.intermediate import ASCENT_COPIES
from krelax.bounds.layers import LayerBounds
from krelax.bounds.leaves import COLUMNS, Leaves
from krelax.bounds.optimise import Ascent
from krelax.bounds.pool import Pool
from krelax.bounds.recorder import Recorder
from krelax.errors import InputError
from krelax.problem.region import Box
from krelax.proof import leaves as proof
from krelax.proof.log import UNSTATED, Forms

# A child that falls below its parent by less, relatively, is not worth a proof of the parent.
_UNNOTICED = 1e-3

# Copies of all leaves that are held while they move to a larger place, with as much again for the passes.
_POOL_COPIES = 4
# How far beyond its target, relatively to the way there, a proposed bound should be before it is proven.
_BEYOND = 1e-4

# `branch` of a leaf with nothing left to split, and of one that longer optimisation has not helped either.
_EXHAUSTED, _HOPELESS = -1, -2
# Leaves with nothing left to split that are looked at together.
_POLISHED = 32
# A GPU splits so many times the leaves in about the same time.
_WIDER = 8
# So many times the leaves in a round save time where kernels bound them: what is left is work for each round.
_FASTER = 2
# Room for so many rounds is plenty.
_ROOMY = 8
# Clips are prepared for what so many leaves need.
_LOOKED_AT = 64

Probe = Callable[[Tensor], None]
# The node that queries are about, and the form of each.
Names = tuple[int, Forms]


class Proved(NamedTuple):
    """Lower bounds of queries, `(queries,)`, and the lemmas that prove those above where the search began, `UNSTATED`
    for others; None where no proofs are recorded."""

    value: Tensor
    lemmas: Tensor | None


@dataclass(frozen=True)
class Effort:
    """How much a search may do: leaves to be split in a round, rounds, splits on the way to a leaf, ascent of the
    queries themselves (`root`), of every child (`leaf`), of leaves with nothing left to split (`last`), and seconds
    (None: no limit). With `partial`, time is kept for proving bounds that fall short of their targets; with
    `groups`, leaves pay for neurons in groups together. After so many seconds of `clips` (None: never), intervals are
    narrowed to where forms are near their targets, so that proven bounds may be hardly above them."""

    leaves: int = 256
    rounds: int = 20
    depth: int = 32
    root: Ascent = field(default_factory=lambda: Ascent(16, 0.5, 0.88))
    leaf: Ascent = field(default_factory=lambda: Ascent(2, 0.1, 0.8))
    last: Ascent = field(default_factory=lambda: Ascent(100, 0.3, 0.96))
    seconds: float | None = None
    partial: bool = True
    groups: bool = False
    clips: float | None = None


class Branching:
    """A branch and bound that raises lower bounds of linear forms over one region, and can go on where it stopped.

    `forms` holds the queries in the exact and the fast type of the instance, batch 1, and `start` what is proven of
    them. A query is answered once its bound is above its `target` (infinite by default), and with it all queries of the
    same `task` (a number below that of queries; by default each has its own). Queries get shares of every round in
    proportion to `weight`. All four are `(queries,)`. `probe` is shown inputs at which bounds of bad leaves are
    attained, `(points, *input_shape)` in the fast type; what it raises ends the search. `names` say as what the
    lemmas about queries are recorded in the log of the instance, if it has one. With `assumed`, an activation of one
    neuron, which may lie behind the forms, bounds hold where that is inactive.

    A leaf is closed when its proven bound is above the target of its query, which is answered when none of its leaves
    is left. `leaves` counts those that were bounded. Raises InputError for more than one region.
    """

    def __init__(
        self,
        instance: Instance,
        known: LayerBounds,
        forms: tuple[Form, Form],
        effort: Effort,
        start: Tensor,
        target: Tensor | None = None,
        weight: Tensor | None = None,
        task: Tensor | None = None,
        probe: Probe | None = None,
        names: Names | None = None,
        assumed: int | None = None,
    ) -> None:
        if len(instance.region) != 1:
            raise InputError(f"branching works on one region at a time, got {len(instance.region)}")
        widths = {i: r.lower[0].numel() for i, r in known.relaxations.items()}
        top = max(forms[0].coeff) if assumed is None else len(instance.network.nodes) - 1
        instance, known, forms, kept = without_inactive(instance, known, forms, top)
        if not effort.groups:
            known.groups.clear()
        elif instance.logs:  # leaves say what pairs take over, not what larger groups do
            known.groups = {i: tuple(g for g in sets if _is_stated(g)) for i, sets in known.groups.items()}
        self._instance, self._evaluator = instance, Evaluator(instance, known, *forms, top, assumed, effort.depth)
        self._effort, self._probe = effort, probe
        self._leaves = effort.leaves * (_WIDER if start.device.type == "cuda" else 1)
        collected = proof.Leaves(instance.logs[0], *names) if instance.logs and names is not None else None
        self._recorder = Recorder(collected, self._evaluator, kept, widths)
        self._start = start
        self._lemmas = None if collected is None else torch.full_like(start, UNSTATED, dtype=torch.int64)
        self._target = start.new_full(start.shape, torch.inf) if target is None else target
        self._weight = start.new_ones(start.shape) if weight is None else weight.to(start.dtype)
        self._task = torch.arange(len(start), device=start.device) if task is None else task
        beyond = (_BEYOND * (self._target - start)).nan_to_num(0.0, 0.0, 0.0).clamp(min=0)
        self._ahead = self._target + beyond
        self._level = 0.0  # behind a clip no bound counts for more
        # clips are found by compiled loops, on a CPU
        can = isinstance(instance.region, Box) and start.device.type == "cpu"
        self._clips_after = effort.clips if can and effort.clips is not None else torch.inf
        self._clipping = False
        self._spent = 0.0
        self._closed = torch.full_like(start, torch.inf)  # the smallest bound of a query's closed leaves
        self._credit = torch.zeros_like(self._weight)
        self._proof_seconds = 0.0  # for one leaf
        self._until: float | None = None
        self._size, self._pool = self._room()
        self.leaves = len(self._pool)
        self._fresh = True

    def _room(self) -> tuple[int, Pool]:
        """How many leaves to work on at a time, and a place for all of them."""
        nodes, device = self._evaluator.nodes, self._start.device
        widest = max(prod(self._instance.network.nodes[i].shape) for i in range(max(nodes, default=0) + 1))
        itemsize = self._instance.fast_region.lower.element_size()
        leaves = self._evaluator.roots((self._weight > 0).nonzero()[:, 0], min(COLUMNS, self._effort.depth))
        deepest = leaves.select(leaves.rows()[:1]).wide(self._effort.depth)
        row = sum(prod(t.shape[1:]) * t.element_size() for t in deepest.tensors())
        size = max(32, chunk_queries(widest * itemsize, ASCENT_COPIES, device))
        return size, Pool(leaves, memory_budget(device) // (_POOL_COPIES * row))

    def run(self, seconds: float | None = None) -> Proved:
        """Search for so long (None: until nothing is left to do), and return rigorous bounds of all queries.

        Ends early at the deadline of the instance, or when the leaves fill memory.
        """
        began = time.perf_counter()
        self._until = None if seconds is None else began + seconds
        with torch.no_grad():
            try:
                if self._fresh:
                    self._improve_roots()
                with helpers(self._start.device) as pool:
                    for _ in range(self._effort.rounds):
                        if self._is_late() or not (self._round(pool) or self._polish()):
                            break
                        if self._spent + time.perf_counter() - began >= self._clips_after:
                            self._begin_clips()
            except OutOfTime:
                pass
            self._spent += time.perf_counter() - began
            return self._proven()

    def worst(self) -> float:
        """The smallest bound, as proposed, of an open leaf; zero if there is none."""
        return min(0.0, float(self._pool.value.min())) if len(self._pool) else 0.0

    def _is_late(self) -> bool:
        """Whether what is left of the time is needed to evaluate the leaves there are."""
        leaves = len(self._pool) + 2 * self._leaves if self._effort.partial else 0
        now = time.perf_counter() + 1.5 * self._proof_seconds * leaves
        limits = (self._until, self._instance.deadline)
        return self._instance.expired() or any(limit is not None and now > limit for limit in limits)

    def _begin_clips(self) -> None:
        """From now on leaves narrow intervals for those behind them."""
        open_ = self._among_open(self._pool.branch >= 0)
        if not len(open_):
            return
        self._clips_after = torch.inf
        self._level = float((self._ahead - self._target)[self._pool.query[open_]].min())
        worst = open_[self._pool.value[open_].argsort(stable=True)[:_LOOKED_AT]]
        straight = self._evaluator.begin_clips(self._pool.take(worst)) if self._level > 0 else {}
        if not straight:
            return
        self._clipping = True
        self._pool = Pool(self._evaluator.widened(self._pool.take(self._pool.rows())), self._pool.most)
        self._recorder.begin_clips(self._level, straight)

    def _leave_empty(self, leaves: Leaves, empty: Tensor) -> None:
        """Leaves in which nothing is near their targets prove as much as any behind clips can."""
        leaves.floor[empty], leaves.proof[empty], leaves.value[empty] = self._level, -1, self._level

    def _clip(self, leaves: Leaves, middle: Tensor) -> None:
        """Narrow the intervals of open leaves where that promises anything: not where the affine bound of the margin
        is near its target in more than a quarter of its range, of which `middle` is the middle."""
        target = self._target[leaves.query]
        rows = ((leaves.floor <= target) & (leaves.value + middle > 2 * target)).nonzero()[:, 0]
        if not len(rows):
            return
        some = leaves.select(rows)
        found = self._evaluator.clip(some, self._level)
        self._raise(some, some.rows(), found.value)
        clips = (found.narrowed & (some.floor <= self._target[some.query])).nonzero()[:, 0]
        behind = found.leaves.select(clips)
        behind.floor, behind.proof = some.floor[clips], some.proof[clips]
        behind.clip = self._recorder.clip(some.select(clips), found.multipliers, clips)
        self._leave_empty(behind, found.empty[clips])
        some.write(clips, behind)
        leaves.write(rows, some)

    def _improve_roots(self) -> None:
        for rows in pieces(len(self._pool), self._size, self._start.device):
            leaves = self._pool.take(rows)
            points = self._evaluator.improve(leaves, self._effort.root).points
            self._prove(leaves, leaves.rows())
            self._raise_start(leaves)
            self._pool.put(rows, leaves)
            self._show(points)
        every = self._pool.rows()
        self._drop_closed(every, self._pool.take(every))
        self._fresh = False

    def _raise_start(self, leaves: Leaves) -> None:
        """Roots cover the whole region: what they prove is proven of their queries."""
        lemmas, floor = self._recorder.alone(leaves), leaves.floor
        if lemmas is not None and self._lemmas is not None:
            floor = torch.where(lemmas == UNSTATED, -torch.inf, floor)
            better = floor > self._start[leaves.query]
            self._lemmas[leaves.query[better]] = lemmas[better]
        self._start = self._start.scatter_reduce(0, leaves.query, floor, "amax")

    def _show(self, points: Tensor) -> None:
        if self._probe is not None:
            self._probe(points)

    def _round(self, pool: ThreadPoolExecutor | None) -> bool:
        """Split the worst leaves of every open query, as many as its credit allows; says whether there are any."""
        able = self._among_open(self._pool.branch >= 0)
        rows = self._worst(able)[: self._pool.free // 2]
        if not len(rows):
            return False
        portion = self._size // 2
        if pool is not None and self._evaluator.compiled:  # which holds no lock: one part for each core
            portion = min(portion, -(-len(rows) // workers(rows.device)))
        parts = [rows[chunk] for chunk in pieces(len(rows), portion, rows.device)]
        split: list[Tensor] = []
        try:
            for children, points in (pool.map if pool else map)(self._split, parts):
                split.append(parts[len(split)])
                self.leaves += len(children)
                self._take_in(children)
                if len(split) == 1:
                    self._show(points)
        finally:
            self._pool.drop(torch.cat([*split, rows[:0]]))
        return len(able) > 0

    def _split(self, rows: Tensor) -> tuple[Leaves, Tensor]:
        """Both children of leaves, and where their bounds are attained. Changes nothing: runs beside others."""
        parents = self._pool.take(rows)
        children = parents.children()
        points, middle = self._evaluator.improve(children, self._effort.leaf)
        self._inherit(parents, children)
        self._prove_done(children)
        if self._clipping:
            self._leave_empty(children, self._evaluator.contradict(children))
            self._clip(children, middle)
        return children, points

    def _inherit(self, parents: Leaves, children: Leaves) -> None:
        """No child is below its parent. Where its own choices would be, what it inherits is proven with those of the
        parent."""
        inherited = parents.value.repeat(2)
        slack = _UNNOTICED * (1 + inherited.abs())
        lost = (children.value < inherited - slack).view(2, -1).any(0).nonzero()[:, 0]
        self._prove(parents, lost)
        self._note_proofs(parents)
        children.floor, children.proof = parents.floor.repeat(2), parents.proof.repeat(2)
        torch.maximum(children.value, inherited, out=children.value)

    def _prove_done(self, leaves: Leaves) -> None:
        """Prove the bounds that are proposed to be beyond their targets; they count for no more than what is proven."""
        done = (leaves.value >= self._ahead[leaves.query]).nonzero()[:, 0]
        self._prove(leaves, done)
        leaves.value[done] = torch.minimum(leaves.value[done], leaves.floor[done].to(leaves.value))

    def _prove(self, leaves: Leaves, rows: Tensor) -> None:
        """Raise the floors of some leaves to what they prove themselves."""
        if not len(rows):
            return
        began = time.perf_counter()
        value = self._evaluator.prove(leaves.select(rows))
        seconds = (time.perf_counter() - began) / len(rows)
        self._proof_seconds = min(seconds, self._proof_seconds or seconds)
        self._raise(leaves, rows, value)

    def _raise(self, leaves: Leaves, rows: Tensor, value: Tensor) -> None:
        """Raise the floors of some leaves to what their own choices prove."""
        value = self._counted(leaves, rows, value)
        better = value > leaves.floor[rows]
        leaves.floor[rows[better]], leaves.proof[rows[better]] = value[better], -1

    def _counted(self, leaves: Leaves, rows: Tensor, value: Tensor) -> Tensor:
        """For how much bounds of some leaves count: behind clips for no more than their level."""
        return torch.where(leaves.clip[rows] >= 0, value.clamp(max=self._level), value)

    def _take_in(self, leaves: Leaves) -> None:
        """Keep new leaves, but for those that are closed."""
        open_ = (leaves.floor <= self._target[leaves.query]).nonzero()[:, 0]
        self._close(leaves)
        self._pool.add(leaves.select(open_))

    def _close(self, leaves: Leaves) -> Tensor:
        """Note the bounds of leaves that are closed; their positions."""
        closed = (leaves.floor > self._target[leaves.query]).nonzero()[:, 0]
        self._closed.scatter_reduce_(0, leaves.query[closed], leaves.floor[closed], "amin")
        self._recorder.close(leaves, closed)
        return closed

    def _note_proofs(self, leaves: Leaves) -> None:
        """Give the proofs of floors numbers, under which leaves that inherit them find them."""
        worthy = leaves.floor > (-torch.inf if self._effort.partial else self._target[leaves.query])
        self._recorder.number(leaves, (worthy & (leaves.proof < 0)).nonzero()[:, 0])

    def _drop_closed(self, rows: Tensor, leaves: Leaves) -> None:
        self._pool.drop(rows[self._close(leaves)])

    def _polish(self) -> bool:
        """Optimise leaves with nothing left that is worth a split for longer, and then solve their linear programs.
        Those that are still open are split at any undecided neuron, or given up. Says whether there were any. Where
        bounds that fall short of their targets count too, leaves are rather kept as they are."""
        if self._effort.partial:
            return False
        rows = self._among_open(self._pool.branch == _EXHAUSTED)[:_POLISHED]
        if not len(rows):
            return False
        leaves = self._pool.take(rows)
        self._note_proofs(leaves)
        before = leaves.select(leaves.rows())
        self._show(self._evaluator.improve(leaves, self._effort.last).points)
        worse = (leaves.value < before.value).nonzero()[:, 0]
        leaves.write(worse, before.select(worse))
        self._prove_done(leaves)
        stuck = ((leaves.branch == _EXHAUSTED) & (leaves.floor <= self._target[leaves.query])).nonzero()[:, 0]
        if len(stuck):
            self._show(self._solve(leaves, stuck))
            leaves.branch[stuck] = self._evaluator.any_undecided(leaves.select(stuck))
        leaves.branch[leaves.branch == _EXHAUSTED] = _HOPELESS
        self._pool.put(rows, leaves)
        self._drop_closed(rows, leaves)
        return True

    def _solve(self, leaves: Leaves, rows: Tensor) -> Tensor:
        """Raise the floors of some leaves to what their linear programs prove; the points at which they attain it."""
        value, points, slopes = self._evaluator.solve(leaves.select(rows))
        value = self._counted(leaves, rows, value)
        better = (value > leaves.floor[rows]).nonzero()[:, 0]
        leaves.floor[rows[better]] = value[better]
        self._recorder.number(leaves, rows[better], {i: s[better].flatten(1) for i, s in slopes.items()})
        return points

    def _among_open(self, mask: Tensor) -> Tensor:
        """Rows of leaves below their targets that the mask picks, of queries that still matter."""
        query, value = self._pool.query, self._pool.value
        return (mask & (value < self._ahead[query]) & self._matters()[query]).nonzero()[:, 0]

    def _answered(self) -> Tensor:
        """Queries with no leaf left."""
        left = torch.bincount(self._pool.query, minlength=len(self._start))
        return (left == 0) & (self._weight > 0)

    def _matters(self) -> Tensor:
        """Queries of tasks that are not done."""
        task = self._task
        done = torch.zeros_like(task).scatter_reduce_(0, task, self._answered().long(), "amax")
        return done[task] == 0

    def _worst(self, rows: Tensor) -> Tensor:
        """The worst of these leaves of every query, after handing out a round's credit among their queries. The best
        ones where there is no room for many more: they are the next to be closed."""
        query, value = self._pool.query[rows], self._pool.value[rows]
        share = torch.zeros_like(self._weight)
        share[query] = self._weight[query]
        more = self._evaluator.compiled and not self._effort.partial  # there rounds are counted
        leaves = self._leaves * (_FASTER if more else 1)
        self._credit += leaves * share / share.sum().clamp(min=torch.finfo(share.dtype).tiny)
        order = _by_query(query, value if self._pool.free >= _ROOMY * self._leaves else -value)
        query = query[order]
        taken = _rank(query, len(share)) < self._credit.floor()[query]
        self._credit -= torch.bincount(query[taken], minlength=len(share))
        return rows[order[taken]]

    def _proven(self) -> Proved:
        """Rigorous bounds: the smallest over a query's leaves, if there was time for all of them. What is below its
        target in a task that another query has done is not proven."""
        wanted = self._matters() if self._effort.partial else torch.zeros_like(self._task, dtype=torch.bool)
        bound = self._closed.clone()
        for rows in pieces(len(self._pool), self._size, self._start.device):
            leaves = self._pool.take(rows)
            asked = wanted[leaves.query].nonzero()[:, 0] if not self._instance.expired() else rows[:0]
            self._prove(leaves, asked)
            floor = torch.full_like(leaves.floor, -torch.inf).index_copy(0, asked, leaves.floor[asked])
            bound.scatter_reduce_(0, leaves.query, floor, "amin")
            self._recorder.leave(leaves, asked)
        lemmas = self._recorder.conclude(bound)
        if lemmas is not None:
            bound = torch.where(lemmas == UNSTATED, -torch.inf, bound)
        better = (self._weight > 0) & (bound > self._start)
        if lemmas is not None and self._lemmas is not None:
            lemmas = torch.where(better, lemmas, self._lemmas)
        return Proved(torch.where(better, bound, self._start), lemmas)


def _is_stated(groups: Groups) -> bool:
    """Whether certificates can say what leaves choose for these groups."""
    return groups.members.shape[2] == 2 and groups.through is None


def _by_query(query: Tensor, value: Tensor) -> Tensor:
    """The order of leaves by query, then value: of one integer for both, in half the time of two sorts."""
    bits = value.float().view(torch.int32)
    return (query << 32).add_(bits ^ ((bits >> 31) & 0x7FFFFFFF)).argsort(stable=True)


def _rank(sorted_labels: Tensor, labels: int) -> Tensor:
    """Position of every entry among those of its label."""
    count = torch.bincount(sorted_labels, minlength=labels)
    first = count.cumsum(0) - count
    return torch.arange(len(sorted_labels), device=count.device) - first[sorted_labels]
