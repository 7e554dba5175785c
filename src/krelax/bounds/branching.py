"""Tightening by branching: one branch and bound raises the lower bounds of many queries at once.

Every query keeps its own leaves, and its bound is the smallest of theirs. In every round the worst leaves of every open
query are split on the neuron whose relaxation costs most, and all children are bounded in batches. The search runs on
proposals; a leaf whose bound reaches the target is evaluated rigorously and closed. What it returns is the minimum over
closed and remaining leaves, whose regions cover the whole region. The same loop serves pre-activations and margins.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from krelax.bounds.backward import Form
from krelax.bounds.clips import Clips
from krelax.bounds.compression import without_inactive
from krelax.bounds.evaluator import Evaluator
from krelax.bounds.floors import UNNOTICED, Floors
from krelax.bounds.groups import Groups
from krelax.bounds.instance import Instance, OutOfTime, chunk_queries, helpers, memory_budget, pieces, workers
from krelax.bounds.intermediate import ASCENT_COPIES
from krelax.bounds.layers import LayerBounds
from krelax.bounds.leaves import COLUMNS, Leaves
from krelax.bounds.optimise import Ascent
from krelax.bounds.order import WorstFirst
from krelax.bounds.pace import SAMPLE, Pace
from krelax.bounds.recorder import Recorder
from krelax.bounds.tree import Tree, once
from krelax.errors import InputError
from krelax.problem.region import Box
from krelax.proof import leaves as proof
from krelax.proof.log import UNSTATED, Forms
from krelax.watch import now

# Copies of all leaves that are held while they move to a larger place, with as much again for the passes.
_POOL_COPIES = 4
# How far beyond its target, relatively to the way there, a proposed bound should be before it is proven.
_BEYOND = 1e-4

# `branch` of a leaf with nothing left to split, and of one that longer optimisation has not helped either.
_EXHAUSTED, _HOPELESS = -1, -2
# What is the same in all leaves is settled for so many of the worst queries.
_SETTLED = 2
# Leaves with nothing left to split that are looked at together.
_POLISHED = 32
# A GPU splits so many times the leaves in about the same time.
_WIDER = 8
# So many times the leaves in a round save time where kernels bound them: what is left is work for each round.
_FASTER = 2

Probe = Callable[[Tensor], None]
# The node that queries are about, and the form of each.
Names = tuple[int, Forms]


class Split(NamedTuple):
    """What came of leaves that were split: their children, and inputs at which bounds of those are attained."""

    subproblems: Leaves
    points: Tensor


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
        bounds: LayerBounds,
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
        self._effort, self._probe, self._start = effort, probe, start
        self._weight = start.new_ones(start.shape) if weight is None else weight.to(start.dtype)
        self._task = torch.arange(len(start), device=start.device) if task is None else task
        target = start.new_full(start.shape, torch.inf) if target is None else target
        widths = {i: r.lower[0].numel() for i, r in bounds.relaxations.items()}
        top = max(forms[0].coeff) if assumed is None else len(instance.network.nodes) - 1
        instance, bounds, forms, kept = without_inactive(instance, bounds, forms, top)
        if not effort.groups:
            bounds.groups.clear()
        elif instance.logs:  # leaves say what pairs take over, not what larger groups do
            bounds.groups = {i: tuple(g for g in sets if _is_stated(g)) for i, sets in bounds.groups.items()}
        self._instance, self._evaluator = instance, Evaluator(instance, bounds, *forms, top, assumed, effort.depth)
        collected = proof.Leaves(instance.logs[0], *names) if instance.logs and names is not None else None
        self._recorder = Recorder(collected, self._evaluator, kept, widths)
        self._lemmas = None if collected is None else torch.full_like(start, UNSTATED, dtype=torch.int64)
        beyond = (_BEYOND * (target - start)).nan_to_num(0.0, 0.0, 0.0).clamp(min=0)
        worthy = torch.full_like(target, -torch.inf) if effort.partial else target
        self._floors = Floors(self._evaluator, self._recorder, worthy, target + beyond)
        self._clips = Clips(self._evaluator, self._recorder, self._floors, target)
        # clips are found by compiled loops, on a CPU
        can = isinstance(instance.region, Box) and start.device.type == "cpu"
        self._clips_after = effort.clips if can and effort.clips is not None else torch.inf
        self._order, self._spent = WorstFirst(self._weight), 0.0
        self._pace = Pace(self._evaluator, effort.leaf)
        self._until: float | None = None
        self._tree, self._size = self._plant(target)
        self.leaves, self._fresh = len(self._tree), True
        # rounds there may still be, those begun, the last one of which something was shown, and when clips begin
        self._rounds, self._begun, self._shown, self._clips_at = 0, 0, 0, torch.inf

    def _plant(self, target: Tensor) -> tuple[Tree[Leaves], int]:
        """A tree of roots, with room for what memory holds, and how many leaves to work on at a time."""
        nodes, device = self._evaluator.nodes, target.device
        widest = max(prod(self._instance.network.nodes[i].shape) for i in range(max(nodes, default=0) + 1))
        itemsize = self._instance.fast_region.lower.element_size()
        leaves = self._evaluator.roots((self._weight > 0).nonzero()[:, 0], min(COLUMNS, self._effort.depth))
        deepest = leaves.select(leaves.rows()[:1]).wide(self._effort.depth)
        row = sum(prod(t.shape[1:]) * t.element_size() for t in deepest.tensors())
        size = chunk_queries(widest * itemsize, ASCENT_COPIES, device, 32)
        return Tree(leaves, target, memory_budget(device) // (_POOL_COPIES * row)), size

    def run(self, seconds: float | None = None) -> Proved:
        """Search for so long (None: until nothing is left to do), and return rigorous bounds of all queries.

        Ends early at the deadline of the instance, or when the leaves fill memory.
        """
        began = now()
        self._until = None if seconds is None else began + seconds
        with torch.no_grad():
            try:
                if self._fresh:
                    self._improve_roots()
                self._rounds, self._clips_at = self._effort.rounds, began + self._clips_after - self._spent
                with helpers(self._start.device) as pool:
                    while self._goes_on():
                        if now() >= self._clips_at:
                            self._begin_clips()
                        if not (self._split_all(pool) or self._polish()):
                            break
            except OutOfTime:
                pass
            self._spent += now() - began
            return self._proven()

    def worst(self) -> float:
        """The smallest bound, as proposed, of an open leaf; zero if there is none."""
        return min(0.0, float(self._tree.open.value.min())) if len(self._tree) else 0.0

    def _goes_on(self) -> bool:
        return self._rounds > 0 and not self._is_late()

    def _is_late(self) -> bool:
        """Whether what is left of the time is needed to evaluate the leaves there are."""
        leaves = len(self._tree) + 2 * self._wanted() if self._effort.partial else 0
        done = now() + 1.5 * self._floors.seconds * leaves
        limits = (self._until, self._instance.deadline)
        return self._instance.expired() or any(limit is not None and done > limit for limit in limits)

    def _wanted(self) -> int:
        """Leaves to be split in a round."""
        return self._effort.leaves * (_WIDER if self._start.device.type == "cuda" else 1)

    def _improve_roots(self) -> None:
        """Roots cover the whole region: what they prove is proven of their queries."""
        if not self._effort.partial:
            asked = (self._weight > 0).nonzero()[:, 0]
            self._evaluator.settle(asked[self._start[asked].argsort()[:_SETTLED]], self._effort.root)
        for closed, came in self._tree.grow(once(self._pieces(self._tree.open.rows())), self._improve_root):
            self._recorder.close(closed)
            self._raise_start(came.subproblems)
            self._show(came.points)
        self._fresh = False

    def _improve_root(self, leaves: Leaves) -> Split:
        points = self._evaluator.improve(leaves, self._effort.root).points
        self._floors.prove(leaves, leaves.rows())
        return Split(leaves, points)

    def _raise_start(self, leaves: Leaves) -> None:
        lemmas, floor = self._recorder.alone(leaves), leaves.floor
        if lemmas is not None and self._lemmas is not None:
            floor = torch.where(lemmas == UNSTATED, -torch.inf, floor)
            better = floor > self._start[leaves.query]
            self._lemmas[leaves.query[better]] = lemmas[better]
        self._start = self._start.scatter_reduce(0, leaves.query, floor, "amax")

    def _pieces(self, rows: Tensor, size: int | None = None) -> list[Tensor]:
        return [rows[piece] for piece in pieces(len(rows), size or self._size, rows.device)]

    def _show(self, points: Tensor) -> None:
        if self._probe is not None:
            self._probe(points)

    def _split_all(self, pool: ThreadPoolExecutor | None) -> bool:
        """Split the worst leaves of every open query, round after round, until there are none or something else is to
        be done; says whether there were any. Where rounds are not counted, each begins before the last one ends."""
        before = self.leaves
        ahead = 0 if pool is None or self._counts_rounds else 2 * workers(self._start.device)
        for closed, came in self._tree.grow(self._next_round, self._split, pool, ahead):
            self.leaves += len(came.subproblems)
            self._recorder.close(closed)
            if self._shown < self._begun:
                self._shown = self._begun
                self._show(came.points)
        return self.leaves > before

    @property
    def _counts_rounds(self) -> bool:
        return self._effort.partial or not self._evaluator.compiled

    def _next_round(self) -> list[Tensor]:
        """The worst leaves of every open query, as many as it is owed, in parts."""
        if not self._goes_on() or now() >= self._clips_at:
            return []
        self._rounds -= 1
        able = self._among_open(self._tree.open.branch >= 0)
        rows = self._order.choose(self._tree, able, self._wanted() * (1 if self._counts_rounds else _FASTER))
        rows = rows[: self._tree.free // 2]
        if not len(rows):
            return []
        if self._pace.is_due(self.leaves) and not self._effort.partial:
            self._pace.look(self._tree.open.select(rows[:SAMPLE]), self._tree.target)
        self._begun += 1
        portion, cores = self._size // 2, workers(rows.device)
        if cores > 1 and self._evaluator.compiled:  # which holds no lock: one part for each core
            portion = min(portion, -(-len(rows) // cores))
        return self._pieces(rows, portion)

    def _split(self, parents: Leaves) -> Split:
        """Both children of leaves. Changes nothing else: runs beside others."""
        children = parents.children()
        points, middle = self._evaluator.improve(children, self._pace.ascent)
        self._take_back(parents, children)
        self._floors.inherit(parents, children)
        self._floors.prove_done(children)
        if self._clips.begun:
            self._clips.apply(children, middle)
        return Split(children, points)

    def _take_back(self, parents: Leaves, children: Leaves) -> None:
        """Children that optimising has made worse than their parents go on from the choices of these, which are worth
        no less in either half."""
        slack = UNNOTICED * (1 + parents.value.abs())
        worse = (children.value.view(2, -1) < parents.value - slack).any(0).nonzero()[:, 0]
        if not len(worse):
            return
        again = parents.select(worse).children().wide(children.neuron.shape[1])
        self._evaluator.improve(again, self._pace.kept)
        place = torch.cat([worse, worse + len(parents)])
        better = (again.value > children.value[place]).nonzero()[:, 0]
        children.write(place[better], again.select(better))

    def _begin_clips(self) -> None:
        open_ = self._among_open(self._tree.open.branch >= 0)
        if len(open_):
            self._clips_after = self._clips_at = torch.inf
            self._recorder.write_down()
            self._clips.begin(self._tree, open_)

    def _polish(self) -> bool:
        """Optimise leaves with nothing left that is worth a split for longer, and then solve their linear programs.
        Those that are still open are split at any undecided neuron, or given up. Says whether there were any. Where
        bounds that fall short of their targets count too, leaves are rather kept as they are."""
        if self._effort.partial:
            return False
        rows = self._among_open(self._tree.open.branch == _EXHAUSTED)[:_POLISHED]
        if not len(rows):
            return False
        for closed, _ in self._tree.grow(once([rows]), self._polished):
            self._recorder.close(closed)
        return True

    def _polished(self, leaves: Leaves) -> Split:
        self._floors.keep_proofs(leaves)
        before = leaves.select(leaves.rows())
        points = self._evaluator.improve(leaves, self._effort.last).points
        self._show(points)
        worse = (leaves.value < before.value).nonzero()[:, 0]
        leaves.write(worse, before.select(worse))
        self._floors.prove_done(leaves)
        still = leaves.floor <= self._tree.target[leaves.query]
        stuck = ((leaves.branch == _EXHAUSTED) & still).nonzero()[:, 0]
        later = stuck[:0]
        if len(stuck):
            value, points, slopes = self._evaluator.solve(leaves.select(stuck), self._until)
            stuck, later = stuck[: len(value)], stuck[len(value) :]
            self._floors.reach_by(slopes, leaves, stuck, value)
            self._show(points)
            some = leaves.select(stuck)
            self._evaluator.split_any(some)
            leaves.branch[stuck], leaves.at[stuck] = some.branch, some.at
        leaves.branch[leaves.branch == _EXHAUSTED] = _HOPELESS
        leaves.branch[later] = _EXHAUSTED
        return Split(leaves, points)

    def _among_open(self, mask: Tensor) -> Tensor:
        """Rows of leaves below their targets that the mask picks, of queries that still matter."""
        query, value = self._tree.open.query, self._tree.open.value
        return (mask & (value < self._floors.ahead[query]) & self._matters()[query]).nonzero()[:, 0]

    def _matters(self) -> Tensor:
        """Queries of tasks that are not done."""
        task, answered = self._task, self._tree.answered & (self._weight > 0)
        done = torch.zeros_like(task).scatter_reduce_(0, task, answered.long(), "amax")
        return done[task] == 0

    def _proven(self) -> Proved:
        """Rigorous bounds: the smallest over a query's leaves, if there was time for all of them. What is below its
        target in a task that another query has done is not proven."""
        wanted = self._matters() if self._effort.partial else torch.zeros_like(self._task, dtype=torch.bool)
        bound = torch.where(self._tree.answered | wanted, self._tree.closed, -torch.inf)
        for rows in self._pieces(self._tree.open.rows()) if bool(wanted.any()) else ():
            leaves = self._tree.open.select(rows)
            asked = wanted[leaves.query].nonzero()[:, 0] if not self._instance.expired() else rows[:0]
            self._floors.prove(leaves, asked)
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
    return groups.members.shape[2] == 2
