"""Deciding one question by splitting neurons: branching, tightening and contradictions in turns.

Branching on the margins comes first, for a moment: how far it brings the worst leaf tells whether it will do. In
convolutional networks it mostly will; in deep dense ones almost everything is lost in the bounds of layers, and a pass
that tightens those is worth any number of leaves.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from krelax.bounds.asked import holds
from krelax.bounds.bounded import Bounded
from krelax.bounds.branching import Effort
from krelax.bounds.instance import Instance, OutOfTime
from krelax.bounds.methods import by_groups
from krelax.network.graph import products
from krelax.problem.extensions import Assumption
from krelax.problem.queries import Queries
from krelax.proof.log import DERIVED
from krelax.search.clauses import Posed
from krelax.search.contradiction import Contradiction
from krelax.search.effort import Complete, Pass, SearchResult
from krelax.search.margins import Margins, Probe
from krelax.watch import PRODUCTS, now

# Margins proven by contradiction are assumed to be at most at so much of what their bounds lack, or of this much.
_SHARE, _LEAST = 1e-4, 1e-3
# Seconds of branching in which something can come of it.
_SHORTEST = 0.05
# What a step of branching's root costs for each node of a network, beside its products: calls of operators.
_CALLS = 1e-4
# Doublings of the time that nobody waits for, and how many times as long it takes as the last one promises.
_FAR, _SLOWER = 64.0, 3.0
# What some work leads to, with pauses.
T = TypeVar("T")
Work = Generator[None, None, T]


class Neurons:
    """Branching, tightening and contradictions until a question is decided or the time is up."""

    weight, proves = 1.0, True

    def __init__(self, posed: Posed, effort: Complete, probe: Probe) -> None:
        instance, queries, found = posed
        self._instance, self._queries, self._found, self._effort = instance, queries, found, effort
        self._branching, self._probe = effort.branching, probe
        self._search: Margins | None = None
        self._patience = self._until = self._latest = 0.0
        self._steps = self._work()
        self._spent, self._readings = 0.0, [(0.0, -math.inf)]
        passes = 2 * effort.branching.root.steps
        rows, nodes = queries.rows.shape[1], len(instance.network.nodes)
        self.price = passes * (rows * products(instance.network.nodes) / PRODUCTS + nodes * _CALLS)

    def advance(self, seconds: float, patience: float) -> bool:
        """Go on for about so long, what cannot pause up to `patience`; says whether there is more to do."""
        began = now()
        self._patience, self._until, self._latest = patience, began + seconds, began + patience
        try:
            with suppress(OutOfTime):
                for _ in self._steps:
                    if now() >= self._until:
                        return not self.found.decided
            return False
        finally:
            self._spent += now() - began
            self._readings.append((self._spent, self.found.worst))

    @property
    def ahead(self) -> float:
        """Seconds of its own until nothing is left: a few times what it would be if every doubling of the time brought
        the worst part that is left as much nearer to zero as the last one; zero while there was none."""
        spent, worst = self._readings[-1]
        before, earlier = max((0.0, -math.inf), *(r for r in self._readings if r[0] <= spent / 2))
        if before == 0:
            return 0.0
        gained = (worst - earlier) / math.log2(spent / before)
        doublings = -worst / gained if gained > 0 else math.inf
        return _SLOWER * spent * (2**doublings - 1) if doublings < _FAR else math.inf

    def _margins(self) -> Margins:
        """The search on the open margins over what is known, which goes on until bounds of layers are tightened."""
        if self._search is None:
            self._search = Margins(self._instance, self._queries, self._found, self._branching, self._probe)
        return self._search

    def _keep(self) -> None:
        """Keep what the search on the margins has found."""
        if self._search is not None:
            found = self._search.found
            self._found = self._found.improved(found.value, found.lemmas)

    @property
    def found(self) -> SearchResult:
        """What is proven now."""
        self._keep()
        margin = float(self._queries.margin(self._found.value))
        reason = "timeout" if self._instance.expired() else "nothing is left to split"
        conclusion = self._found.conclusion()
        worst = margin if self._search is None else self._search.worst()
        return SearchResult(margin, "branching" if margin > 0 else reason, conclusion=conclusion, worst=worst)

    def _work(self) -> Work[None]:
        effort, turn = self._effort, self._effort.turn
        for step in (*effort.passes, None):
            search = self._margins()
            yield from self._branch(search, self._queries, turn / 2, effort.hope, effort.judged)
            self._keep()
            if turn < effort.turn or search.progress() >= effort.promising:
                yield from self._contradict(effort.sweeps[:1])
            if step is None or len(self._open()) <= step.few:
                break
            yield from self._rest()
            if not self._tighten(step):
                break
            yield
            turn = effort.between
        yield from self._contradict(effort.sweeps, until_done=True)

    def _rest(self) -> Work[None]:
        """Leave what cannot pause to the next slice, if most of the time for it is gone."""
        if self._left() < self._patience / 2:
            self._until = 0.0
            yield

    def _left(self) -> float:
        """Seconds that are left for what cannot pause."""
        return self._latest - now()

    def _tighten(self, step: Pass) -> bool:
        """Tighten all layers; says whether that was worth it."""
        seconds, before = _within(self._instance, self._left(), self._effort.passing), float(self._found.value.min())
        tighter = by_groups(self._instance, self._queries, self._found, step.multi_neuron, True, seconds)
        if float(tighter.value.min()) < (1 - step.gain) * before:
            return False
        # over tightened layers clips cost more leaves than they save
        self._found, self._branching, self._search = tighter, replace(self._branching, clips=None), None
        return True

    def _open(self) -> Tensor:
        """The clauses that are open."""
        return (self._queries.clause_values(self._found.value)[0] <= 0).nonzero()[:, 0]

    def _branch(self, search: Margins, queries: Queries, turn: float, hope: float, judged: int = 0) -> Work[None]:
        """Branch on open margins for two turns, and on as long as that is on course."""
        while True:
            yield from self._turn(search, _within(self._instance, turn, self._effort.share))
            if holds(queries, search.found.value) or not search.is_on_course(hope, judged):
                return
            turn = search.seconds

    def _turn(self, search: Margins, seconds: float) -> Work[None]:
        """Branch for so long, in parts that end where slices of time do."""
        end = search.seconds + seconds
        while True:
            left, slice_ = end - search.seconds, max(_SHORTEST, self._until - now())
            search.run(min(left, slice_), slice_ >= left)
            if slice_ >= left or search.is_done:
                return
            yield

    def _contradict(self, sweeps: Sequence[Effort], until_done: bool = False) -> Work[None]:
        """Prove the margins of open clauses, each by contradiction, those nearest to zero first, until one resists."""
        open_ = torch.isin(self._queries.clause[0], self._open())  # which have one member each
        order = self._found.value[0].argsort(descending=True)
        for margin in order[open_[order]].tolist():
            proven = yield from self._by_contradiction(margin, sweeps, until_done)
            if proven is None:
                return
            value = self._found.value.clone()
            value[0, margin], lemma = proven
            lemmas = None if self._found.lemmas is None else torch.full_like(self._found.lemmas, lemma)
            self._found = self._found.improved(value, lemmas)

    def _by_contradiction(
        self, margin: int, sweeps: Sequence[Effort], until_done: bool
    ) -> Work[tuple[float, int] | None]:
        """What is proven of a margin, a small level, of which not much is needed, and the lemma that says so; None if
        it is not positive. Sweeps are repeated as long as they are worthwhile, and branching on the margin is on
        course; with `until_done` it goes on in the end."""
        value, bounds = self._found.value[:, margin : margin + 1], self._found.bounds
        row, offset = self._queries.rows[:, margin : margin + 1], self._queries.offsets[:, margin : margin + 1]
        asked = Queries(row, offset, self._queries.clause[:, :1] * 0, 1)
        search = Contradiction(self._instance, bounds, Assumption(row[0, 0], offset[0, 0], _level(value)))
        reached, portion = float(value), self._effort.portion
        nothing = None if self._found.lemmas is None else torch.full_like(value, DERIVED, dtype=torch.int64)
        for effort, dearer in zip(sweeps, (*sweeps[1:], None), strict=False):
            worthwhile = True
            while worthwhile:
                yield from self._rest()
                began = now()
                if search.sweep(effort, self._left()):
                    return search.conclude()
                self._instance.check()
                found = Bounded(value, search.bounds, lemmas=nothing)
                branching = Margins(self._instance, asked, found, self._branching, self._probe)
                branching.run(0.0)
                spent, before, reached = now() - began, reached, float(branching.found.value)
                worthwhile = reached > (1 - self._effort.worthwhile) * before
                yield
                if worthwhile and reached <= 0:
                    yield from self._branch(branching, asked, portion * spent, 1.0)
                if holds(asked, branching.found.value):
                    return search.conclude(float(branching.found.value), _lemma(branching.found))
            if until_done:
                if dearer is None:
                    yield from self._turn(branching, torch.inf)
                else:
                    turn = portion * spent * _cost(dearer) / _cost(effort) / 2
                    yield from self._branch(branching, asked, turn, 2 * self._effort.hope)
                if holds(asked, branching.found.value):
                    return search.conclude(float(branching.found.value), _lemma(branching.found))
        search.give_up()
        return None


def _cost(effort: Effort) -> float:
    """What a sweep costs, roughly, compared with one without rounds."""
    return 1 + effort.rounds / 2


def _lemma(found: Bounded) -> int:
    """The lemma about the only margin."""
    return DERIVED if found.lemmas is None else int(found.lemmas)


def _level(value: Tensor) -> float:
    """What a margin is assumed to be at most, of which a bound is known."""
    missing = -float(value) if bool(value.isfinite()) else 0.0
    return _SHARE * max(missing, _LEAST)


def _within(instance: Instance, seconds: float, share: float) -> float:
    """Seconds of a turn: not more than a share of what is left."""
    left = torch.inf if instance.deadline is None else instance.deadline - now()
    return min(seconds, share * left)
