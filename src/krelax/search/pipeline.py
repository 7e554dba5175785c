"""A whole batch of questions, cheapest tools first: what one stage decides, the next does not see."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from krelax.bounds.instance import Instance, OutOfTime, one_core_each
from krelax.bounds.methods import METHODS, Method
from krelax.errors import InputError
from krelax.network.graph import Network, products
from krelax.network.scalars import with_axes
from krelax.proof.log import ProofLog
from krelax.search.attack import Attack
from krelax.search.boxes import Splitting
from krelax.search.effort import Complete, Split
from krelax.search.inputs import passes
from krelax.search.processes import out_of_memory
from krelax.search.questions import Questions
from krelax.search.run import Report, Run
from krelax.search.stages import (
    Refine,
    attack_all,
    bound_all,
    close_together,
    cut_boxes,
    look_at_anchors,
    refine_all,
    search_all,
)
from krelax.search.together import Together
from krelax.watch import cancellation, counted, now

# An attack goes before backward passes that take so many times as long.
_DEARER = 16.0
# For what nothing else has settled.
THOROUGH = Attack(restarts=32, steps=100, samples=1000, seed=1)


@dataclass(frozen=True)
class Plan:
    """The stages of a run, in order; methods by name in `krelax.bounds.methods.METHODS`."""

    stages: tuple[Method | Attack | Splitting | Together | Complete, ...]

    @classmethod
    def of(cls, method: str) -> Plan:
        """`auto`, or one method and an attack on what it leaves open. Raises InputError for an unknown name."""
        if method == "auto":
            boxes = Splitting()
            rest = (METHODS["alpha"], boxes, THOROUGH, Complete(boxes=boxes))
            return cls((Together(), replace(boxes, ahead=True), METHODS["crown"], Attack(), boxes, *rest))
        if method not in METHODS:
            raise InputError(f"unknown method {method!r}: use auto or one of {', '.join(METHODS)}")
        return cls((METHODS[method], Attack()))

    def arranged(self, network: Network) -> Plan:
        """The same with the first attack before the first method, where that costs so much more that an attack is next
        to nothing."""
        begin = next((i for i, s in enumerate(self.stages) if isinstance(s, Method)), len(self.stages))
        rest = self.stages[begin:]
        attack = next((s for s in rest if isinstance(s, Attack)), None)
        if attack is None or not any(isinstance(s, Method) and s.intermediate for s in rest[:1]):
            return self
        if passes(network) <= _DEARER * attack.passes * products(network.nodes):
            return self
        end = rest.index(attack)
        return Plan((*self.stages[:begin], attack, *rest[:end], *rest[end + 1 :]))

    @property
    def proving(self) -> Plan:
        """The same without attacks, but those that are part of a search."""
        return Plan(tuple(stage for stage in self.stages if not isinstance(stage, Attack)))

    def patient(self, seconds: float) -> Plan:
        """The same with complete searches that go on for longer only while they are on course."""
        kept = (replace(stage, patience=seconds) if isinstance(stage, Complete) else stage for stage in self.stages)
        return Plan(tuple(kept))

    @property
    def quick(self) -> Plan:
        """The same without complete searches."""
        return Plan(tuple(stage for stage in self.stages if not isinstance(stage, Complete)))

    def without(self, split: Split) -> Plan:
        """The same, but that complete searches do not split this."""
        kept = (
            replace(s, split=tuple(name for name in s.split if name != split)) if isinstance(s, Complete) else s
            for s in self.stages
        )
        return Plan(tuple(kept))


# Where it is known that there is a counterexample of real numbers.
ATTACKS = Plan((Attack(), THOROUGH))


def decide(
    network: Network,
    questions: Questions,
    plan: Plan,
    report: Report,
    timeout: float | None = None,
    device: str = "cpu",
    each: float | None = None,
    proofs: bool = False,
    required: Tensor | None = None,
    deterministic: bool = False,
    refine: Refine | None = None,
) -> None:
    """Answer every question, reporting each as soon as it is settled: `report(index, outcome)`, once for each.

    HOLDS rests on a sound bound, VIOLATED on a replayed counterexample; what the stages leave open when they or the
    `timeout` (seconds, for the whole batch) end is UNKNOWN, with the reason. A complete search spends at most `each`
    seconds on a question, what was spent on it before included. With `proofs`, outcomes that hold have theirs.
    Bounds are sought above `required`, `(questions,)`, instead of zero; what ends between them holds narrowly.
    If it is to be `deterministic`, one core works, and seconds are counted as work: the same questions then get the
    same answers on this machine, however busy it is. `refine`, without proofs, makes better bounds of what a complete
    search would begin with.
    """
    with counted(deterministic):
        _decide(network, questions, plan, report, timeout, device, each, proofs, required, refine)


def _decide(
    network: Network, questions: Questions, plan: Plan, report: Report, timeout: float | None, device: str,
    each: float | None, proofs: bool, required: Tensor | None, refine: Refine | None,
) -> None:  # fmt: skip
    deadline = None if timeout is None else now() + timeout
    network = with_axes(network)
    questions = questions.shaped(network.input_shape)
    asked = questions.queries if required is None else questions.queries.lowered(required)
    placed = asked.to(torch.float64, device)
    run = Run(network, questions, placed, report, torch.ones(len(questions), dtype=torch.bool), required=required)
    instance = Instance.of(network, questions.region.to(torch.float64, device), deadline=deadline)
    instance = replace(instance, cancelled=cancellation())
    if proofs:
        run.logs = {i: ProofLog() for i in range(len(questions))}
        instance = replace(instance, logs=tuple(run.logs.values()))
    reason = "the relaxation is too coarse and the attack found nothing"
    with torch.no_grad(), one_core_each(run.device), instance.watch():
        try:
            look_at_anchors(run, instance)
            for stage in plan.arranged(network).stages:
                if isinstance(stage, Attack):
                    attack_all(run, instance, stage)
                elif isinstance(stage, Splitting):
                    cut_boxes(run, instance, stage)
                elif isinstance(stage, Together):
                    close_together(run, instance, stage)
                elif isinstance(stage, Complete):
                    if refine is not None and not proofs:
                        refine_all(run, instance, refine, each)
                    search_all(run, instance, stage, each)
                else:
                    bound_all(run, instance, stage)
        except OutOfTime:
            reason = "timeout"
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            reason = "memory"
    for i in run.open.nonzero().flatten().tolist():
        run.give_up(i, reason)
