"""How much a complete search may do, and what it comes to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from krelax.bounds.branching import Effort
from krelax.bounds.multineuron import MultiNeuron
from krelax.bounds.optimise import Ascent
from krelax.proof.log import Conclusion
from krelax.search.attack import Attack
from krelax.search.boxes import Splitting
from krelax.search.verdict import Counterexample

Split = Literal["inputs", "bottleneck", "neurons", "programs"]

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

    multi_neuron: MultiNeuron
    gain: float
    few: int


# Groups of neurons make a pass better, but in the same time more rounds without them make it better still.
_PASSES = tuple(
    Pass(MultiNeuron(None, splitting=Effort(rounds=rounds)), gain, few)
    for rounds, gain, few in ((20, 0.3, 1), (60, 0.1, 0), (160, 0.1, 2))
)


# Sweeps of a search for a contradiction. Without rounds every bound is that of a single leaf.
_SWEEPS = tuple(Effort(rounds=rounds) for rounds in (0, 10, 40, 160))


@dataclass(frozen=True)
class Complete:
    """Effort of a complete search; `name` is the reason it gives for a proof.

    Inputs, what goes through a bottleneck, and neurons are split, and programs solved, in turns
    (`krelax.search.schedule`), or what `split` names of these. After so many seconds of `patience` that goes on only as
    long as it is on course to end before its deadline.

    Margins are branched on, at first for `turn` seconds, and then for as long again and again while that is
    on course: worst leaves come nearer to zero by about the same with every doubling of the time, so that `hope`
    doublings more are enough; with so many leaves a search can be `judged`. When it is not on course, open margins are
    proven by contradiction, first by the quickest of the `sweeps` alone; not before the first pass, though, unless
    branching has brought them a `promising` part of their way. While more than a few resist, one of the `passes`
    tightens the bounds of all layers for all of them, and branching begins anew, at first for `between` seconds; then
    all sweeps have their turns. A sweep is repeated as long as it brings a margin a `worthwhile` part of its way to
    zero. After each, and for longer before a dearer one, branching has a `portion` of its time, or more if that is on
    course. No turn takes more than `share` of the time that is left, and no pass more than `passing` of it.
    """

    split: tuple[Split, ...] = ("inputs", "bottleneck", "neurons", "programs")
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
    patience: float = math.inf
    attack: Attack = field(default_factory=lambda: Attack(steps=20, first_step=0.1))


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search came to: the margin it proved, why it ended, the counterexample if there is one, and what the
    margin rests on, where proofs are recorded. `worst` is the margin of the worst part that is left, as proposed:
    nothing is proven of that."""

    margin: float
    reason: str
    counterexample: Counterexample | None = None
    conclusion: Conclusion | None = None
    worst: float = -math.inf

    @property
    def decided(self) -> bool:
        """Whether the question is."""
        return self.margin > 0 or self.counterexample is not None
