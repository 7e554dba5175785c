"""What is known so far of every question of a run, and what becomes of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor

from krelax.bounds.bounded import Bounded
from krelax.bounds.instance import Instance, OutOfTime
from krelax.certificate.format.schema import Question
from krelax.errors import KrelaxError, internal, shows_tracebacks
from krelax.network.graph import Network
from krelax.problem.queries import Queries
from krelax.proof.encode import question
from krelax.proof.log import Conclusion, ProofLog
from krelax.search.clauses import Batch
from krelax.search.inputs import Inputs
from krelax.search.processes import out_of_memory
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Stage, Verdict
from krelax.watch import now, watched

Report = Callable[[int, Outcome], None]

# Far more than a sum of two numbers can lose, relative to them.
_ROUNDED = 2.0**-40
# Bounds of questions still open are kept for later stages up to so many bytes in all.
_KEPT_BYTES = 1 << 30

# Reasons that say nothing of the question.
_NO_TIME = {"timeout", "memory"}


@dataclass
class Run:
    """What is known so far of every question of a run."""

    network: Network
    questions: Questions
    queries: Queries
    report: Report
    open: Tensor
    margins: dict[int, float] = field(default_factory=dict)
    found: dict[int, Bounded] = field(default_factory=dict)
    stages: dict[int, list[Stage]] = field(default_factory=dict)
    logs: dict[int, ProofLog] = field(default_factory=dict)
    conclusions: dict[int, Conclusion | None] = field(default_factory=dict)
    boxes: dict[int, Inputs] = field(default_factory=dict)
    worst: dict[int, float] = field(default_factory=dict)
    required: Tensor | None = None

    def __post_init__(self) -> None:
        self.batch = Batch(self.queries)

    @property
    def device(self) -> torch.device:
        return self.queries.rows.device

    def settle(self, index: int, outcome: Outcome) -> None:
        self.open[index] = False
        self.found.pop(index, None)
        self.boxes.pop(index, None)
        with watched(None):  # what is known is written down, however late it is
            self._settle(index, outcome)

    def _settle(self, index: int, outcome: Outcome) -> None:
        log, conclusion = self.logs.pop(index, None), self.conclusions.pop(index, None)
        try:
            proofs: tuple[Question, ...] = ()
            if log is not None and outcome.verdict is Verdict.HOLDS:
                proofs = (self._proof(index, log, conclusion),)
        except Exception as error:
            outcome, proofs = Outcome(Verdict.UNKNOWN, reason_of(error)), ()
        margin, seconds, stages = self.margins.get(index), self.spent(index), tuple(self.stages.get(index, ()))
        worst = self.worst.pop(index, -math.inf)
        if (gap := self._gap(index)) and margin is not None:
            margin += gap
            stages = tuple(replace(s, margin=None if s.margin is None else s.margin + gap) for s in stages)
        found = replace(outcome, margin=margin, seconds=seconds, proofs=proofs, stages=stages, worst=worst)
        self.report(index, found)

    def _proof(self, index: int, log: ProofLog, conclusion: Conclusion | None) -> Question:
        assert conclusion is not None
        began, one = now(), torch.tensor([index])
        region, queries = self.questions.region.select(one), self.questions.queries.select(one)
        proof = question(self.network, region, queries, log, conclusion)
        self.charge("proof", [index], began)
        return proof

    def remaining(self) -> Tensor:
        """Questions still open, the largest margins first."""
        index = self.open.nonzero().flatten()
        margins = torch.tensor([self.margins.get(i, -torch.inf) for i in index.tolist()])
        return index[margins.argsort(descending=True, stable=True)]

    def keeps(self, network: Network) -> bool:
        """Whether there is room to keep what is known of one more question."""
        size = 3 * 8 * sum(prod(node.shape) for node in network.nodes)
        return len(self.found) * size < _KEPT_BYTES

    def alike(self, instance: Instance) -> list[Tensor]:
        """The questions still open, by the networks that they are about: of clauses that are known to be open several
        margins are bounded jointly from now on."""
        if self.batch.several:
            self.found = {i: self.batch.pose(instance, i, found) for i, found in self.found.items()}
        return self.batch.alike(self.remaining())

    def bounds(self, index: Tensor, network: Network) -> Bounded | None:
        """What earlier stages found for all of these questions, if it was kept."""
        parts = [self.found.get(i) for i in index.tolist()]
        kept = [p for p in parts if p is not None]
        return Bounded.join(kept, network) if len(kept) == len(parts) else None

    def give_up(self, index: int, reason: str) -> None:
        """A question that is not bounded above its required margin holds narrowly if it is bounded above zero."""
        if self.required is not None and self.margins.get(index, -torch.inf) + self._gap(index) > 0:
            self.settle(index, Outcome(Verdict.HOLDS, "narrowly"))
        else:
            why = "" if reason in _NO_TIME else self.no_point(index)
            self.settle(index, Outcome(Verdict.UNKNOWN, why or reason))

    def no_point(self, index: int) -> str:
        """That there is nothing a counterexample could be, or an empty text if there is."""
        lower = self.questions.region.lower[index].double().cpu().numpy()
        if self.questions.candidate(self.network, index, lower) is not None:
            return ""
        return f"the region holds no {self.network.elements.title} point, so no input could show a violation"

    def _gap(self, index: int) -> float:
        """By how much margins are larger than those of the lowered queries, less what rounding took when the offsets
        were lowered."""
        if self.required is None:
            return 0.0
        required, offsets = float(self.required[index]), self.questions.queries.offsets[index]
        return required - _ROUNDED * (required + float(offsets.abs().max()))

    def charge(self, name: str, index: Sequence[int], began: float) -> None:
        """Share the time since `began` out among questions that a stage has worked on together."""
        share = (now() - began) / max(1, len(index))
        for i in index:
            self.stages.setdefault(i, []).append(Stage(name, share))

    def spent(self, index: int, name: str | None = None) -> float:
        """Seconds of all stages so far, or of those of one name."""
        return sum(stage.seconds for stage in self.stages.get(index, ()) if name in {None, stage.name})

    def bounded(self, index: int, margin: float, conclusion: Conclusion | None) -> None:
        """Keep the margin that the last stage proved, and what it rests on, if it is the best so far."""
        if index not in self.margins or margin > self.margins[index]:
            self.margins[index], self.conclusions[index] = margin, conclusion
        self.stages[index][-1] = replace(self.stages[index][-1], margin=margin)


def reason_of(error: Exception) -> str:
    """Why a question stays open on which the work failed; raises what is not about the question alone."""
    if isinstance(error, RuntimeError) and out_of_memory(error):
        return "memory"
    if shows_tracebacks() or isinstance(error, OutOfTime | KrelaxError):
        raise error
    return internal(error)
