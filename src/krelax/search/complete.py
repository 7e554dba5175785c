"""Deciding one question: branch and bound until every leaf is closed or one of them holds a counterexample.

Inputs are split where there are few, neurons elsewhere. Branching on the margins comes first, for a moment: how far it
brings the worst leaf tells whether it will do. In convolutional networks it mostly will; in deep dense ones almost
everything is lost in the bounds of layers, and a pass that tightens those is worth any number of leaves.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from krelax.bounds.bounded import Bounded
from krelax.bounds.branching import Effort
from krelax.bounds.instance import Instance, OutOfTime
from krelax.bounds.methods import by_groups, holds
from krelax.bounds.multineuron import Joining
from krelax.bounds.optimise import Ascent
from krelax.problem.extensions import Assumption
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.proof.log import DERIVED, Conclusion
from krelax.search.attack import Attack
from krelax.search.boxes import InputSplitting, Splitting
from krelax.search.clauses import largest, mixed
from krelax.search.contradiction import Contradiction
from krelax.search.margins import Confirm, Margins, Probe, Refuted
from krelax.search.verdict import Counterexample

# Margins proven by contradiction are assumed to be at most at so much of what their bounds lack, or of this much.
_SHARE, _LEAST = 1e-4, 1e-3

_MARGINS = Effort(
    leaves=256,
    rounds=10**9,
    depth=128,
    root=Ascent(50, 0.3, 0.95),
    leaf=Ascent(3, 0.05, 0.8),
    partial=False,
    clips=1.0,
)


@dataclass(frozen=True)
class Pass:
    """A pass over the layers where more than `few` margins are open, and the part of its way to zero that it must bring
    the worst one: if it does not, the search goes on where it was, and there are no further passes."""

    joining: Joining
    gain: float
    few: int


# Groups of neurons make a pass better, but in the same time more rounds without them make it better still.
_PASSES = tuple(
    Pass(Joining(None, splitting=Effort(rounds=rounds)), gain, few)
    for rounds, gain, few in ((20, 0.3, 1), (60, 0.1, 0), (160, 0.1, 2))
)


# Sweeps of a search for a contradiction. Without rounds every bound is that of a single leaf.
_SWEEPS = tuple(Effort(rounds=rounds) for rounds in (0, 10, 40, 160))


@dataclass(frozen=True)
class Complete:
    """Effort of a complete search; `name` is the reason it gives for a proof.

    Up to `inputs` inputs are split themselves, in turns that double, of half a `turn` at first, with turns for neurons
    of half that time, until no box can be split any more or they are too many.

    Otherwise margins are branched on, at first for `turn` seconds, and then for as long again and again while that is
    on course: worst leaves come nearer to zero by about the same with every doubling of the time, so that `hope`
    doublings more are enough; with so many leaves a search can be `judged`. When it is not on course, open margins are
    proven by contradiction, first by the quickest of the `sweeps` alone; not before the first pass, though, unless
    branching has brought them a `promising` part of their way. While more than a few resist, one of the `passes`
    tightens the bounds of all layers for all of them, and branching begins anew, at first for `between` seconds; then
    all sweeps have their turns. A sweep is repeated as long as it brings a margin a `worthwhile` part of its way to
    zero. After each, and for longer before a dearer one, branching has a `portion` of its time, or more if that is on
    course. No turn takes more than `share` of the time that is left, and no pass more than `passing` of it.
    """

    inputs: int = 12
    boxes: Splitting = field(default_factory=Splitting)
    branching: Effort = _MARGINS
    passes: tuple[Pass, ...] = _PASSES
    turn: float = 3.0
    between: float = 1.0
    share: float = 0.2
    hope: float = 2.0
    judged: int = 500
    passing: float = 0.5
    promising: float = 0.4
    sweeps: tuple[Effort, ...] = _SWEEPS
    worthwhile: float = 0.1
    portion: float = 0.5
    attack: Attack = field(default_factory=lambda: Attack(steps=20, first_step=0.1))


@dataclass(frozen=True, eq=False)
class Found:
    """What a search came to: the margin it proved, why it ended, the counterexample if there is one, and what the
    margin rests on, where proofs are recorded."""

    margin: float
    reason: str
    counterexample: Counterexample | None = None
    conclusion: Conclusion | None = None


def decide_question(instance: Instance, queries: Queries, found: Bounded, effort: Complete, confirm: Confirm) -> Found:
    """Decide one question about one region, of which `found` is known; `confirm` replays points `(n, *input_shape)`.

    The margin is proven. Ends at the deadline of the instance with what it has then.
    """
    probe = Probe(instance, queries, effort.attack, confirm)
    with torch.no_grad():
        try:
            if _splits_inputs(instance, effort):
                return _by_inputs(instance, queries, found, effort, probe)
            return _ByNeurons(instance, queries, found, effort, probe).run()
        except Refuted as refuted:
            return Found(float(queries.margin(found.value)), "branching", refuted.found)


def _splits_inputs(instance: Instance, effort: Complete) -> bool:
    region = instance.region
    return isinstance(region, Box) and int((region.upper > region.lower).sum()) <= effort.inputs


def _by_inputs(instance: Instance, queries: Queries, found: Bounded, effort: Complete, probe: Probe) -> Found:
    """Boxes and neurons take turns: where a margin is small along a face boxes are too many, and neurons few."""
    boxes, turn = InputSplitting(instance, queries, effort.boxes, probe.replays), effort.turn / 2
    neurons, margin, conclusion = None, float(queries.margin(found.value)), found.conclusion()
    while True:
        result = boxes.run(turn)
        if result.holds:
            conclusion = None if result.cuts is None else Conclusion(boxes=result.cuts)
            return Found(max(margin, result.margin), result.reason, conclusion=conclusion)
        if not instance.logs:  # of boxes that do not hold there is no proof
            margin = max(margin, result.margin)
        if probe.found is not None or instance.expired():
            return Found(margin, result.reason, probe.found, conclusion)
        neurons, last = neurons or _ByNeurons(instance, queries, found, effort, probe), result.reason != "timeout"
        other = neurons.run() if last else neurons.branch(turn / 2)
        margin, conclusion = max(margin, other.margin), other.conclusion
        if other.margin > 0 or last or instance.expired():
            return replace(other, margin=margin)
        turn *= 2


class _ByNeurons:
    """Branching, tightening and contradictions until a question, of which `found` is known, is decided or the time is
    up."""

    def __init__(self, instance: Instance, queries: Queries, found: Bounded, effort: Complete, probe: Probe) -> None:
        before = found
        if mixed(queries, found):
            instance, queries, found = largest(instance, queries, found)
        self._instance, self._queries, self._found, self._effort = instance, queries, found, effort
        self._branching, self._probe = effort.branching, probe
        self._maxima = found is not before
        self._search: Margins | None = None

    def run(self) -> Found:
        """Go on until then."""
        with suppress(OutOfTime):
            self._work()
        return self._result()

    def branch(self, seconds: float) -> Found:
        """Do nothing but branch on the margins, and that for so long."""
        with suppress(OutOfTime):
            self._found = self._margins().run(self._found, seconds)
        return self._result()

    def _margins(self) -> Margins:
        """The search on the open margins over what is known, which goes on until bounds of layers are tightened."""
        if self._search is None:
            self._search = Margins(self._instance, self._queries, self._found, self._branching, self._probe)
        return self._search

    def _result(self) -> Found:
        margin = float(self._queries.margin(self._found.value))
        reason = "timeout" if self._instance.expired() else "nothing is left to split"
        conclusion = self._found.conclusion(maxima=self._maxima)
        return Found(margin, "branching" if margin > 0 else reason, conclusion=conclusion)

    def _work(self) -> None:
        effort, turn = self._effort, self._effort.turn
        for step in (*effort.passes, None):
            search = self._margins()
            self._found = self._branch(search, self._queries, self._found, turn / 2, effort.hope, effort.judged)
            if turn < effort.turn or search.progress() >= effort.promising:
                self._contradict(effort.sweeps[:1])
            if step is None or len(self._open()) <= step.few or not self._tighten(step):
                break
            turn = effort.between
        self._contradict(effort.sweeps, until_done=True)

    def _tighten(self, step: Pass) -> bool:
        """Tighten all layers; says whether that was worth it."""
        seconds, before = _within(self._instance, torch.inf, self._effort.passing), float(self._found.value.min())
        tighter = by_groups(self._instance, self._queries, self._found, step.joining, True, seconds)
        if float(tighter.value.min()) < (1 - step.gain) * before:
            return False
        # over tightened layers clips cost more leaves than they save
        self._found, self._branching, self._search = tighter, replace(self._branching, clips=None), None
        return True

    def _open(self) -> Tensor:
        """The clauses that are open."""
        return (self._queries.clause_values(self._found.value)[0] <= 0).nonzero()[:, 0]

    def _branch(
        self, search: Margins, queries: Queries, found: Bounded, turn: float, hope: float, judged: int = 0
    ) -> Bounded:
        """Branch on open margins for two turns, and on as long as that is on course."""
        while True:
            found = search.run(found, _within(self._instance, turn, self._effort.share))
            if holds(queries, found.value) or not search.is_on_course(hope, judged):
                return found
            turn = search.seconds

    def _contradict(self, sweeps: Sequence[Effort], until_done: bool = False) -> None:
        """Prove the margins of open clauses, each by contradiction, those nearest to zero first, until one resists."""
        open_ = torch.isin(self._queries.clause[0], self._open())  # which have one member each
        order = self._found.value[0].argsort(descending=True)
        for margin in order[open_[order]].tolist():
            proven = self._by_contradiction(margin, sweeps, until_done)
            if proven is None:
                return
            value = self._found.value.clone()
            value[0, margin], lemma = proven
            lemmas = None if self._found.lemmas is None else torch.full_like(self._found.lemmas, lemma)
            self._found = self._found.improved(value, lemmas)

    def _by_contradiction(self, margin: int, sweeps: Sequence[Effort], until_done: bool) -> tuple[float, int] | None:
        """What is proven of a margin, a small level, of which not much is needed, and the lemma that says so; None if
        it is not positive. Sweeps are repeated as long as they are worthwhile, and branching on the margin is on
        course; with `until_done` it goes on in the end."""
        value, known = self._found.value[:, margin : margin + 1], self._found.known
        row, offset = self._queries.rows[:, margin : margin + 1], self._queries.offsets[:, margin : margin + 1]
        asked = Queries(row, offset, self._queries.clause[:, :1] * 0, 1)
        search = Contradiction(self._instance, known, Assumption(row[0, 0], offset[0, 0], _level(value)))
        reached, portion = float(value), self._effort.portion
        nothing = None if self._found.lemmas is None else torch.full_like(value, DERIVED, dtype=torch.int64)
        for effort, dearer in zip(sweeps, (*sweeps[1:], None), strict=False):
            worthwhile = True
            while worthwhile:
                began = time.perf_counter()
                if search.sweep(effort):
                    return search.conclude()
                self._instance.check()
                found = Bounded(value, search.known, lemmas=nothing)
                branching = Margins(self._instance, asked, found, self._branching, self._probe)
                found = branching.run(found, 0.0)
                spent, before, reached = time.perf_counter() - began, reached, float(found.value)
                worthwhile = reached > (1 - self._effort.worthwhile) * before
                if worthwhile and reached <= 0:
                    found = self._branch(branching, asked, found, portion * spent, 1.0)
                if holds(asked, found.value):
                    return search.conclude(float(found.value), _lemma(found))
            if until_done:
                if dearer is None:
                    found = branching.run(found, None)
                else:
                    turn = portion * spent * _cost(dearer) / _cost(effort) / 2
                    found = self._branch(branching, asked, found, turn, 2 * self._effort.hope)
                if holds(asked, found.value):
                    return search.conclude(float(found.value), _lemma(found))
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
    left = torch.inf if instance.deadline is None else instance.deadline - time.perf_counter()
    return min(seconds, share * left)
