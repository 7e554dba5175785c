"""Multi-neuron cutting planes: the linear program over the exact hulls of groups in every layer.

The triangle program is solved; at its optimum (z*, a*) every group is asked for the facet of its hull that the point
violates most; those join the program, which is solved again from where it was. Few of a hull's thousands of facets are
ever needed (PRIMA, Mueller et al. 2022, adds all it knows at once). In the limit this is the best that the hulls prove
together, with all slopes and all shares optimal. Facets only propose: their offsets are rigorous support values, and
the bound is what the multipliers prove in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.bounded import Bounded
from krelax.bounds.groups import Groups
from krelax.bounds.instance import Instance
from krelax.bounds.lp import Cut, Priced, Program, Solution, Status, margin_program, prove, solve_margins
from krelax.bounds.lp_model import Floats, Places
from krelax.bounds.multipliers import Cuts
from krelax.hull.rows import violation
from krelax.hull.separate import separated
from krelax.problem.queries import Queries
from krelax.watch import now


@dataclass(frozen=True)
class Cutting:
    """How long cuts are looked for.

    At most `rounds` times for a margin, `count` cuts each time, and not for violations below `tolerance`, relative to
    the size of a group; a margin is left when a round gains less than `gain`, relative to its bound, or after
    `seconds` for all margins. Cuts that do nothing are dropped when there are more than `room`.
    """

    rounds: int = 8
    count: int = 1000
    tolerance: float = 1e-4
    gain: float = 5e-4
    room: int = 3000
    seconds: float = inf


def bound_by_cutting(
    instance: Instance, queries: Queries, found: Bounded, stop: bool = False, cutting: Cutting | None = None
) -> Bounded:
    """The linear program over the hulls of the groups in `found.known`, for every margin of one region.

    Returns rigorous lower bounds of the margins `(1, queries)`, never below those of `found`, and the
    witness. With `stop`, a question that is settled is left alone. Raises as `krelax.bounds.lp.bound_by_lp`.
    """
    cutter = Cutter(margin_program(instance, found), cutting or Cutting())
    solutions = solve_margins(queries, found.value, stop, lambda row, offset: cutter.minimise(row, offset, stop))
    return prove(instance, queries, found, solutions, cutter.priced(solutions))


class Separator:
    """The groups of one activation, and where their members are among the columns of a program.

    Groups with a member that has no column of its own before or after the activation are left out. The first group has
    the number `first` among those of the activation.
    """

    def __init__(self, program: Program, node: int, groups: Groups, first: int = 0) -> None:
        members = groups.members[0].cpu().numpy()
        before, after = program.before(node)[members], program.after(node).column[members]
        usable = ((before >= 0) & (after >= 0) & (before != after)).all(1)
        joint = groups.joint
        self.node, self.places, self.group = node, members[usable], first + np.flatnonzero(usable)
        self.columns = np.concatenate([before[usable], after[usable]], axis=1)
        joint = joint.select(torch.from_numpy(np.flatnonzero(usable)))
        self.hull, self.points = joint.hull(), joint.points()
        self.size = joint.magnitude[0].double().cpu().numpy().max(1, initial=0.0)

    @property
    def k(self) -> int:
        """Members of a group."""
        return self.hull.polytope.k

    def separate(self, x: Floats, tolerance: float) -> Violated:
        """The facet of every group that a solution violates most, where it does."""
        point = x[self.columns]
        z, a = point[:, : self.k], point[:, self.k :]
        rows = separated(self.hull, z, a, self.points)
        excess = violation(rows, z, a)[:, 0] / self.size
        index = np.flatnonzero(excess > tolerance)
        values = np.concatenate([rows.z[index, 0], rows.a[index, 0]], axis=1)
        return Violated(self, index, values, rows.offset[index, 0], excess[index])


def _numbered(sets: Sequence[Groups]) -> Iterator[tuple[Groups, int]]:
    """Sets of groups, and the number of the first group of each."""
    yield from zip(sets, accumulate((g.members.shape[1] for g in sets), initial=0), strict=False)


@dataclass(frozen=True, eq=False)
class Violated:
    """Facets of some groups of a separator, (values, offset) over (z, a), and by how much they are violated, relative
    to the size of the group."""

    separator: Separator
    group: Places
    values: Floats
    offset: Floats
    excess: Floats

    def at_least(self, excess: float) -> Violated:
        """Those violated by so much."""
        keep = self.excess >= excess
        return Violated(self.separator, self.group[keep], self.values[keep], self.offset[keep], self.excess[keep])

    def rows(self) -> list[Cut]:
        """As rows of the program."""
        columns = self.separator.columns[self.group]
        return [Cut(*row) for row in zip(columns, self.values, self.offset.tolist(), strict=True)]

    def cuts(self) -> Cuts:
        """As cuts of the activation."""
        z, a = np.split(self.values, 2, axis=1)
        parts = (self.separator.places[self.group], z, a, self.offset, self.separator.group[self.group])
        return Cuts(*(torch.from_numpy(p) for p in parts))


class Cutter:
    """A program with cuts that stay from one objective to the next."""

    def __init__(self, program: Program, cutting: Cutting) -> None:
        self.program, self.cutting = program, cutting
        groups = program.bounds.groups
        present = [i for i in groups if i in program.model.before]
        sets = ((i, g, first) for i in present for g, first in _numbered(groups[i]) if g.joint.shared)
        every = (Separator(program, *numbered) for numbered in sets)
        self._separators = [s for s in every if len(s.places)]
        self._from: dict[int, tuple[int, int]] = {}  # handle: activation and place among its cuts
        self._cuts: dict[int, list[Cuts]] = {}
        self._end = now() + cutting.seconds

    def minimise(self, row: Tensor, offset: float, stop: bool = False) -> Solution:
        """Minimise `<row, output> + offset`, with as many rounds of cuts as it takes; with `stop`, to be positive."""
        best = self.program.minimise(row, offset, cold=True)
        for _ in range(self.cutting.rounds):
            if self._done(best, stop) or not self._cut(best):
                break
            solution = self.program.solve()
            if solution.status is not Status.OPTIMAL:
                break
            gain, best = solution.objective - best.objective, solution
            if gain < self.cutting.gain * abs(best.objective):
                break
        return best

    def _done(self, best: Solution, stop: bool) -> bool:
        settled = stop and best.objective > 0
        return best.status is not Status.OPTIMAL or settled or now() > self._end

    def _cut(self, solution: Solution) -> int:
        """Add what cuts off a solution most; how many cuts that is."""
        if len(solution.multipliers) > self.cutting.room:
            self.program.drop_slack_rows(solution)
        found = [s.separate(solution.x, self.cutting.tolerance) for s in self._separators]
        excess, count = np.concatenate([[], *(f.excess for f in found)]), self.cutting.count
        least = np.partition(excess, -count)[-count] if len(excess) > count else 0.0
        return sum(self._add(f.at_least(least)) for f in found)

    def _add(self, violated: Violated) -> int:
        node = violated.separator.node
        cuts = self._cuts.setdefault(node, [])
        first = sum(map(len, cuts))
        handles = self.program.add_rows(violated.rows())
        self._from |= {handle: (node, first + j) for j, handle in enumerate(handles)}
        cuts.append(violated.cuts())
        return len(handles)

    def priced(self, solutions: Sequence[Solution | None]) -> dict[int, Priced]:
        """The cuts that some solution uses, with its multipliers, by activation."""
        sizes = {node: sum(map(len, cuts)) for node, cuts in self._cuts.items()}
        multipliers = {node: torch.zeros(len(solutions), n, dtype=torch.float64) for node, n in sizes.items()}
        for k, solution in enumerate(solutions):
            for handle, value in ({} if solution is None else solution.multipliers).items():
                node, place = self._from[handle]
                multipliers[node][k, place] = value
        used = {node: (t > 0).any(0) for node, t in multipliers.items()}
        return {i: (Cuts.join(self._cuts[i]).select(used[i]), t[:, used[i]]) for i, t in multipliers.items()}
