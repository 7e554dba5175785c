"""Deciding one question: branch and bound until every leaf is closed or one of them holds a counterexample.

Inputs are split where there are few, neurons elsewhere. Branching on the margins comes first, for a moment: how far it
brings the worst leaf tells whether it will do. In convolutional networks it mostly will; in deep dense ones almost
everything is lost in the bounds of layers, and a pass that tightens those is worth any number of leaves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from krelax.bounds.backward import outputs
from krelax.bounds.branching import Branching, Effort
from krelax.bounds.instance import Instance, OutOfTime
from krelax.bounds.ledger import MARGINS, Ledger
from krelax.bounds.methods import Bounded, by_groups, holds
from krelax.bounds.multineuron import Joining
from krelax.bounds.optimise import Ascent
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.attack import Attack, descend
from krelax.search.boxes import InputSplitting, Splitting
from krelax.search.clauses import largest, mixed
from krelax.search.contradiction import Assumption, Contradiction
from krelax.search.verdict import Counterexample

Confirm = Callable[[Tensor], Counterexample | None]

# Nobody hopes for more doublings of the time.
_DOUBLINGS = 5.0

# Points are attacked on the first, second, fourth, ... occasion, and on every one of so many.
_OFTEN = 32
_FEW = 32


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
    """A pass over the layers, and the part of its way to zero that it must bring the worst margin: if it does not, the
    search goes on where it was, and there are no further passes."""

    joining: Joining
    gain: float = 0.1


# Groups of neurons make a pass better, but in the same time more rounds without them make it better still.
_PASSES = tuple(
    Pass(Joining(None, splitting=Effort(rounds=rounds)), gain) for rounds, gain in ((20, 0.3), (60, 0.1), (160, 0.1))
)


# Of the way to zero, what margins proven by contradiction are assumed to lack.
_LEVEL = 1e-4
# Of a search for a contradiction. Without rounds every neuron is bounded by one leaf.
_SWEEPS = tuple(Effort(rounds=rounds) for rounds in (0, 20, 60, 160))


@dataclass(frozen=True)
class Complete:
    """Effort of a complete search; `name` is the reason it gives for a proof.

    Up to `inputs` inputs are split themselves, in turns with neurons. Otherwise margins are branched on, at first for
    `turn` seconds, and then for as long again and again while that is on course: worst leaves come nearer to zero by
    about the same with every doubling of the time, so that, with `hope` times as much, the time left is enough. When it
    is not, one of the `passes` tightens the bounds of all layers, and branching begins anew, at first for `between`
    seconds. No turn takes more than `share` of the time that is left, and no pass more than `passing` of it.
    """

    inputs: int = 12
    boxes: Splitting = field(default_factory=Splitting)
    branching: Effort = _MARGINS
    passes: tuple[Pass, ...] = _PASSES
    turn: float = 3.0
    between: float = 1.0
    share: float = 0.2
    hope: float = 1.25
    passing: float = 0.5
    sweeps: tuple[Effort, ...] = _SWEEPS
    worthwhile: float = 0.1
    portion: float = 0.5
    attack: Attack = field(default_factory=lambda: Attack(steps=20, first_step=0.1))


@dataclass(frozen=True, eq=False)
class Found:
    """What a search came to: the margin it proved, why it ended, and the counterexample if there is one."""

    margin: float
    reason: str
    counterexample: Counterexample | None = None


class _Refuted(Exception):
    """A counterexample was replayed."""

    def __init__(self, found: Counterexample) -> None:
        super().__init__()
        self.found = found


def decide_question(instance: Instance, queries: Queries, found: Bounded, effort: Complete, confirm: Confirm) -> Found:
    """Decide one question about one region, of which `found` is known; `confirm` replays points `(n, *input_shape)`.

    The margin is proven. Ends at the deadline of the instance with what it has then.
    """
    probe = _Probe(instance, queries, effort.attack, confirm)
    with torch.no_grad():
        try:
            if _splits_inputs(instance, effort):
                return _by_inputs(instance, queries, found, effort, probe)
            return _by_neurons(instance, queries, found, effort, probe)
        except _Refuted as refuted:
            return Found(float(queries.margin(found.value)), "branching", refuted.found)


def _splits_inputs(instance: Instance, effort: Complete) -> bool:
    region = instance.region
    return isinstance(region, Box) and int((region.upper > region.lower).sum()) <= effort.inputs


def _by_inputs(instance: Instance, queries: Queries, found: Bounded, effort: Complete, probe: _Probe) -> Found:
    """Boxes and neurons take turns: where a margin is small along a face boxes are too many, and neurons few."""
    boxes, turn = InputSplitting(instance, queries, effort.boxes, probe.replays), effort.turn
    by_boxes, margin = True, float(queries.margin(found.value))
    while True:
        if by_boxes:
            result = boxes.run(turn)
            margin = max(margin, result.margin)
            if result.holds or probe.found is not None or instance.expired():
                return Found(margin, result.reason, probe.found)
            by_boxes = result.reason == "timeout"
        limited = instance.until(turn if by_boxes else None)
        other = _by_neurons(limited, queries, found, effort, probe)
        if other.margin > 0 or not by_boxes or instance.expired():
            return replace(other, margin=max(margin, other.margin))
        turn *= 2


def _by_neurons(instance: Instance, queries: Queries, found: Bounded, effort: Complete, probe: _Probe) -> Found:
    """Branching and tightening take turns until the question is decided or the time is up."""
    if mixed(queries, found):
        instance, queries, found = largest(instance, queries, found)
    passes, turn = list(effort.passes), effort.turn / 2  # the first two turns are of the same length
    search = _Margins(instance, queries, found, effort.branching, probe)
    try:
        while True:
            found = search.run(found, _within(instance, turn, effort.share) if passes else None)
            if holds(queries, found.value) or not passes:
                break
            if search.is_on_course(effort.hope):
                turn = search.seconds
                continue
            turn = effort.between / 2
            seconds = _within(instance, torch.inf, effort.passing)
            step = passes.pop(0)
            tighter = by_groups(instance, queries, found, step.joining, stop=True, seconds=seconds)
            if holds(queries, tighter.value):
                found = tighter
                break
            if float(tighter.value.min()) < (1 - step.gain) * float(found.value.min()):
                passes = []
            else:
                found = tighter
                found = _by_contradiction(instance, queries, found, effort, probe)
                if holds(queries, found.value):
                    break
                # over tightened layers clips cost more leaves than they save
                search = _Margins(instance, queries, found, replace(effort.branching, clips=None), probe)
    except OutOfTime:
        pass
    margin = float(queries.margin(found.value))
    if margin > 0:
        return Found(margin, "branching")
    return Found(margin, "timeout" if instance.expired() else "nothing is left to split")


def _by_contradiction(instance: Instance, queries: Queries, found: Bounded, effort: Complete, probe: _Probe) -> Bounded:
    """Prove the margins that are open, each by contradiction, those nearest to zero first, as far as that leads."""
    values = found.value.clone()
    for margin in values[0].argsort(descending=True).tolist():
        if values[0, margin] <= 0:
            values[0, margin] = _contradict(instance, queries, found, margin, effort, probe)
            if values[0, margin] <= 0:
                break
    return replace(found, value=values)


def _contradict(
    instance: Instance, queries: Queries, found: Bounded, margin: int, effort: Complete, probe: _Probe
) -> float:
    """What is proven of a margin: of its `level`, of which not much is needed, or less."""
    value, sweeps = float(found.value[0, margin]), list(effort.sweeps)
    row, offset = queries.rows[0, margin], queries.offsets[0, margin]
    search = Contradiction(instance, found.known, Assumption(row, offset, -_LEVEL * value))
    one = Queries(row[None, None], offset[None, None], queries.clause[:, :1] * 0, 1)
    reached = value
    while True:
        began, before = time.perf_counter(), reached
        if search.sweep(sweeps[0]):
            return search.conclude(margin, None)
        instance.check()
        noting = replace(instance, ledgers=tuple(Ledger() for _ in instance.ledgers))
        known = Bounded(found.value[:, margin : margin + 1], search.known)
        branching = _Margins(noting, one, known, replace(effort.branching, clips=None), probe)
        seconds = None if len(sweeps) == 1 else effort.portion * (time.perf_counter() - began)
        if (proven := float(branching.run(known, seconds).value)) > 0:
            return search.conclude(margin, noting.ledgers[0].claims[MARGINS][0] if noting.ledgers else None)
        value, reached = max(value, proven), max(reached, branching.worst())
        if seconds is None:
            return value
        if reached > (1 - effort.worthwhile) * before:
            continue
        sweeps.pop(0)


def _within(instance: Instance, seconds: float, share: float) -> float:
    """Seconds of a turn: not more than a share of what is left."""
    left = torch.inf if instance.deadline is None else instance.deadline - time.perf_counter()
    return min(seconds, share * left)


class _Margins:
    """A search on the margins of the clauses that are still open."""

    def __init__(self, instance: Instance, queries: Queries, found: Bounded, effort: Effort, probe: _Probe) -> None:
        settled = queries.clause_values(found.value)[0] > 0
        self._index = (~settled[queries.clause[0]]).nonzero()[:, 0]
        exact, fast = (
            outputs(n, *(t[:, self._index].to(n.dtype) for t in (queries.rows, queries.offsets)))
            for n in (instance.network, instance.fast_network)
        )
        start = found.value[0, self._index]
        task = queries.clause[0, self._index].unique(return_inverse=True)[1]
        target, names = torch.zeros_like(start), (MARGINS, self._index.tolist())
        self._instance, self._start = instance, min([0.0, *start.tolist()])
        self._readings: list[float] = []
        self.seconds, self._is_stuck = 0.0, False
        self._search = Branching(
            instance, found.known, (exact, fast), effort, start, target, task=task, probe=probe.show, names=names
        )

    def run(self, found: Bounded, seconds: float | None) -> Bounded:
        """Go on for so long; what is known then."""
        began = time.perf_counter()
        value = self._search.run(seconds)
        spent = time.perf_counter() - began
        self.seconds += spent
        self._readings.append(self.progress())
        self._is_stuck = seconds is not None and spent < seconds
        return replace(found, value=found.value.index_copy(1, self._index, value[None]))

    def worst(self) -> float:
        """The bound of the worst leaf, as proposed."""
        return self._search.worst()

    def progress(self) -> float:
        """How far the worst leaf has come on the way from the worst margin to zero."""
        return 1 - self.worst() / self._start if self._start < 0 else 1.0

    def is_on_course(self, hope: float) -> bool:
        """Whether the time left would do, after turns that doubled the time each, if every further doubling brought
        `hope` times what the last one did. After a single turn nobody knows. A search that did not use its time has
        nothing left to do."""
        if self._is_stuck or len(self._readings) < 2:
            return not self._is_stuck
        before, now = self._readings[-2:]
        deadline = self._instance.deadline
        left = torch.inf if deadline is None else deadline - time.perf_counter()
        doublings = min(_DOUBLINGS, math.log2(1 + max(0.0, left) / self.seconds))
        return now + hope * (now - before) * doublings >= 1


class _Probe:
    """Looks for counterexamples around the points where bounds of bad leaves are attained, less and less often."""

    def __init__(self, instance: Instance, queries: Queries, attack: Attack, confirm: Confirm) -> None:
        self._instance, self._attack, self._confirm = instance, attack, confirm
        self._queries = queries.to(instance.fast_network.dtype, queries.rows.device)
        self._shown = 0
        self.found: Counterexample | None = None

    def show(self, points: Tensor) -> None:
        """Descend from some of the points, `(n, *input_shape)`; few ones are at least looked at on every occasion.

        Raises _Refuted if that leads to a counterexample.
        """
        self._shown += 1
        rarely = bool(self._shown & (self._shown - 1) and self._shown % _OFTEN)
        if not len(points) or (rarely and len(points) > _FEW):
            return
        attack = replace(self._attack, steps=0) if rarely else self._attack
        x, margin = descend(self._instance, self._queries, points[None, :_FEW], attack)
        if float(margin) <= 0 and self.replays(x.double()) and self.found is not None:
            raise _Refuted(self.found)

    def replays(self, points: Tensor) -> bool:
        """Whether one of the candidates, `(n, *input_shape)`, is a counterexample."""
        self.found = self.found or self._confirm(points)
        return self.found is not None
