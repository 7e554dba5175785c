"""Deciding small questions exactly: neurons are split, and what is left in each leaf is a linear program.

A program knows the relaxations of all neurons, all splits and the margin at once, and is exact where all that matters
is split. It costs a thousand times what a leaf costs by slopes, so this is for networks with few undecided neurons.
There the search is that of a solver of satisfiability problems. A leaf without a solution says which splits it rests
on: neurons that were in such reasons lately are split next, and a part of the tree that closes without the split above
it closes the other side of that split, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.instance import OutOfTime
from krelax.bounds.lp_leaves import Feasible, Infeasible, LeafPrograms, Slopes, Split
from krelax.network.graph import products
from krelax.proof import leaves as proof
from krelax.proof.leaves import Proven
from krelax.proof.log import MARGINS, UNSTATED, Forms
from krelax.search.clauses import Posed
from krelax.search.effort import SearchResult
from krelax.search.margins import Probe
from krelax.search.schedule import Course
from krelax.watch import PRODUCTS, now

# A program takes about so many products for each product of its rows and those of the network.
_PASSES = 10
# The next leaf takes about this part of the first.
_WARM = 1 / 40
# What a reason counts for more than the one before, and where counts begin anew.
_LATER, _LARGEST = 1.05, 1e50
# Leaves that are proven together, and points that are looked at together.
_TOGETHER, _POINTS = 64, 16

# Looks for a counterexample from a point on, `(*input_shape)`.
Follow = Callable[[Tensor], Iterator[None]]


@dataclass(eq=False)
class Closed:
    """A leaf that is closed: its splits, in order, and slopes that prove it."""

    path: list[Split]
    slopes: Slopes


@dataclass(eq=False)
class Branch:
    """A split on the way to where the search is. `other` is the side that is still to be looked at, zero when one side
    is closed, by `leaves`, which rest on the splits of the neurons in `reason`."""

    path: list[Split]
    neuron: int
    other: int
    reason: set[int] = field(default_factory=set)
    leaves: list[Closed] = field(default_factory=list)


class Tree:
    """The search about one margin. `leaves` are those that close it, which is `done` then, or never when it is
    `stuck`: nothing is left to split where a program still has a solution."""

    def __init__(self, programs: LeafPrograms) -> None:
        self._programs, self._path = programs, list[Split]()
        largest = programs.prices.max(initial=0.0)
        self._score = programs.prices / largest if largest > 0 else np.zeros(len(programs.prices))
        self._count = 1.0
        self._branches: list[Branch] = []
        self.leaves: list[Closed] = []
        self.done = self.stuck = False

    @property
    def share(self) -> float:
        """The part of the tree that is closed, where every split halves it."""
        return 1.0 if self.done else sum(2.0 ** -(d + 1) for d, b in enumerate(self._branches) if not b.other)

    def advance(self) -> Feasible | None:
        """Look at one leaf, and close it or split it. The solution that it still has."""
        found = self._programs.solve(self._path)
        if isinstance(found, Infeasible):
            self._close(found)
            return None
        neuron = self._choose(found)
        if neuron < 0:
            self.stuck = True
        else:
            side = 1 if found.z[neuron] > 0 else -1
            self._branches.append(Branch(self._path, neuron, -side))
            self._path = [*self._path, (neuron, side)]
        return found

    def _choose(self, found: Feasible) -> int:
        """Of the neurons whose relaxation the solution makes use of, or else of all that are left, the one that was
        most in reasons lately; -1 if there is none."""
        free = np.ones(len(self._score), bool)
        free[[neuron for neuron, _ in self._path]] = False
        used = free & (found.above > 0)
        among = np.flatnonzero(used if used.any() else free)
        if not len(among):
            return -1
        return int(among[np.lexsort((found.above[among], self._score[among]))[-1]])

    def _close(self, found: Infeasible) -> None:
        reason = {neuron for neuron, _ in self._path if found.used[neuron]}
        self._score[list(reason)] += self._count
        self._count *= _LATER
        if self._count > _LARGEST:
            self._score, self._count = self._score / self._count, 1.0
        leaves = [Closed(list(self._path), found.slopes)]
        while self._branches:
            branch = self._branches[-1]
            if branch.neuron in reason and branch.other:
                self._path = [*branch.path, (branch.neuron, branch.other)]
                branch.other, branch.reason, branch.leaves = 0, reason, leaves
                return
            if branch.neuron in reason:
                reason, leaves = (reason | branch.reason) - {branch.neuron}, branch.leaves + leaves
            else:  # leaves close what is above the split, too
                for leaf in leaves:
                    leaf.path = [split for split in leaf.path if split[0] != branch.neuron]
            self._branches.pop()
        self.leaves, self.done = leaves, True


class Programs:
    """Trees of linear programs on the open margins, one after the other."""

    proves = True

    def __init__(self, posed: Posed, probe: Probe, follow: Follow) -> None:
        self._instance, self._queries, self._found = posed
        self._probe, self._follow = probe, follow
        self._points: list[Tensor] = []
        self._steps = self._work()
        self._tree: Tree | None = None
        self.weight, self._course = 1.0, Course()
        nodes, relaxations = self._instance.network.nodes, self._found.bounds.relaxations
        rows = sum(prod(nodes[nodes[i].inputs[0]].shape) for i in relaxations)
        triangles = [t for r in relaxations.values() if (t := r.triangle()) is not None]
        undecided = sum(int(triangle.unstable().sum()) for triangle in triangles)
        # less than a leaf for each neuron tells nothing of those to come
        self.price = _PASSES * rows * products(nodes) / PRODUCTS * (1 + _WARM * undecided)

    @property
    def ahead(self) -> float:
        """Seconds of its own until all trees are closed, at the pace so far: of the one that is worked on, at least."""
        return self._course.ahead

    @property
    def found(self) -> SearchResult:
        """What is proven now."""
        margin, refuted = float(self._queries.margin(self._found.value)), self._probe.found
        reason = "timeout" if self._instance.expired() else "nothing is left"
        if margin > 0 or refuted is not None:
            reason = "linear programs"
        return SearchResult(margin, reason, refuted, conclusion=self._found.conclusion())

    def advance(self, seconds: float, patience: float) -> bool:
        """Go on for about so long; says whether there is more to do."""
        began, deadline = now(), self._instance.deadline
        if self._tree is None and deadline is not None and began + self.price > deadline:
            return False
        with suppress(OutOfTime):
            for _ in self._steps:
                spent = now() - began
                if spent >= seconds:
                    self.weight = self._course.weight(spent, self._tree.share if self._tree else 0.0)
                    return True
        return False

    def _work(self) -> Iterator[None]:
        """Prove the best margin of each open clause, those nearest to zero first, until one resists."""
        value, clause = self._found.value[0], self._queries.clause[0]
        settled = self._queries.clause_values(self._found.value)[0] > 0
        for margin in value.argsort(descending=True).tolist():
            if settled[clause[margin]]:
                continue
            settled[clause[margin]] = True
            programs = LeafPrograms(
                self._instance,
                self._found.bounds,
                self._queries.rows[0, margin],
                float(self._queries.offsets[0, margin]),
            )
            self._tree = tree = Tree(programs)
            while not tree.done:
                feasible = tree.advance()
                yield from self._look(feasible)
                if tree.stuck:
                    return
                yield
            if not self._prove(margin, programs, tree.leaves):
                return

    def _look(self, found: Feasible | None) -> Iterator[None]:
        """Look for counterexamples at points that programs show, and from those on that are exact."""
        if found is None or found.point is None:
            return
        self._points.append(found.point.to(self._instance.fast_region.lower))
        if len(self._points) >= _POINTS:
            self._probe.show(torch.cat(self._points))
            self._points.clear()
        if not found.above.any():
            yield from self._follow(found.point[0])

    def _prove(self, margin: int, programs: LeafPrograms, leaves: list[Closed]) -> bool:
        """Record what leaves prove of a margin; says whether that is positive."""
        value, noted = self._found.value.clone(), list[Proven]()
        least = torch.inf
        for first in range(0, len(leaves), _TOGETHER):
            self._instance.check()
            some = leaves[first : first + _TOGETHER]
            paths, slopes = [leaf.path for leaf in some], [leaf.slopes for leaf in some]
            least = min(least, float(programs.prove(paths, slopes).min()))
            if not least > 0:
                return False
            query = np.zeros(len(some), np.int64)
            noted.append(Proven(programs.noted(paths, slopes), query, query - 1))
        value[0, margin] = least
        lemmas = None
        if self._instance.logs:
            collected = proof.Leaves(self._instance.logs[0], MARGINS, Forms.single([margin]))
            lemmas = torch.full_like(value, UNSTATED, dtype=torch.int64)
            lemmas[0, margin] = int(collected.conclude(value[0, margin : margin + 1], noted)[0])
        self._found = self._found.improved(value, lemmas)
        return True
