"""A whole batch of questions, cheapest tools first: what one stage decides, the next does not see."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.bounded import Bounded
from krelax.bounds.instance import Instance, OutOfTime, chunk_images, helpers, one_core_each, pieces, workers
from krelax.bounds.methods import METHODS, Method, bound
from krelax.certificate.format.schema import Question
from krelax.errors import InputError, KrelaxError, internal, shows_tracebacks
from krelax.network.graph import Network
from krelax.network.scalars import with_axes
from krelax.problem.queries import Queries
from krelax.proof.encode import question
from krelax.proof.log import Conclusion, ProofLog
from krelax.search.attack import Attack, search
from krelax.search.clauses import Batch
from krelax.search.effort import Complete, SearchResult
from krelax.search.processes import Search, SideBySide, out_of_memory
from krelax.search.questions import Questions
from krelax.search.replay import replay
from krelax.search.verdict import Counterexample, Outcome, Stage, Verdict
from krelax.watch import watched

Report = Callable[[int, Outcome], None]
T = TypeVar("T")

# Far more than a sum of two numbers can lose, relative to them.
_ROUNDED = 2.0**-40
# Bounds of questions still open are kept for later stages up to so many bytes in all.
_KEPT_BYTES = 1 << 30

# Reasons that say nothing of the question.
_NO_TIME = {"timeout", "memory"}

# For what nothing else has settled.
THOROUGH = Attack(restarts=32, steps=100, samples=1000, seed=1)


@dataclass(frozen=True)
class Plan:
    """The stages of a run, in order; methods by name in `krelax.bounds.methods.METHODS`."""

    stages: tuple[Method | Attack | Complete, ...]

    @classmethod
    def of(cls, method: str) -> Plan:
        """`auto`, or one method and an attack on what it leaves open. Raises InputError for an unknown name."""
        if method == "auto":
            return cls((METHODS["crown"], Attack(), METHODS["alpha"], THOROUGH, Complete()))
        if method not in METHODS:
            raise InputError(f"unknown method {method!r}: use auto or one of {', '.join(METHODS)}")
        return cls((METHODS[method], Attack()))


@dataclass
class _Run:
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
    required: Tensor | None = None

    def __post_init__(self) -> None:
        self.batch = Batch(self.queries)

    @property
    def device(self) -> torch.device:
        return self.queries.rows.device

    def settle(self, index: int, outcome: Outcome) -> None:
        self.open[index] = False
        self.found.pop(index, None)
        with watched(None):  # what is known is written down, however late it is
            self._settle(index, outcome)

    def _settle(self, index: int, outcome: Outcome) -> None:
        log, conclusion = self.logs.pop(index, None), self.conclusions.pop(index, None)
        try:
            proofs: tuple[Question, ...] = ()
            if log is not None and outcome.verdict is Verdict.HOLDS:
                proofs = (self._proof(index, log, conclusion),)
        except Exception as error:
            outcome, proofs = Outcome(Verdict.UNKNOWN, _reason(error)), ()
        margin, seconds, stages = self.margins.get(index), self.spent(index), tuple(self.stages.get(index, ()))
        if (gap := self._gap(index)) and margin is not None:
            margin += gap
            stages = tuple(replace(s, margin=None if s.margin is None else s.margin + gap) for s in stages)
        self.report(index, replace(outcome, margin=margin, seconds=seconds, proofs=proofs, stages=stages))

    def _proof(self, index: int, log: ProofLog, conclusion: Conclusion | None) -> Question:
        assert conclusion is not None
        began, one = time.perf_counter(), torch.tensor([index])
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
        return (
            f"the region holds no {np.dtype(self.network.replay_dtype).name} point, so no input could show a violation"
        )

    def _gap(self, index: int) -> float:
        """By how much margins are larger than those of the lowered queries, less what rounding took when the offsets
        were lowered."""
        if self.required is None:
            return 0.0
        required, offsets = float(self.required[index]), self.questions.queries.offsets[index]
        return required - _ROUNDED * (required + float(offsets.abs().max()))

    def charge(self, name: str, index: Sequence[int], began: float) -> None:
        """Share the time since `began` out among questions that a stage has worked on together."""
        share = (time.perf_counter() - began) / max(1, len(index))
        for i in index:
            self.stages.setdefault(i, []).append(Stage(name, share))

    def spent(self, index: int) -> float:
        """Seconds of all stages so far."""
        return sum(stage.seconds for stage in self.stages.get(index, ()))

    def bounded(self, index: int, margin: float, conclusion: Conclusion | None) -> None:
        """Keep the margin that the last stage proved, and what it rests on, if it is the best so far."""
        if index not in self.margins or margin > self.margins[index]:
            self.margins[index], self.conclusions[index] = margin, conclusion
        self.stages[index][-1] = replace(self.stages[index][-1], margin=margin)


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
) -> None:
    """Answer every question, reporting each as soon as it is settled: `report(index, outcome)`, once for each.

    HOLDS rests on a sound bound, VIOLATED on a replayed counterexample; what the stages leave open when they or the
    `timeout` (seconds, for the whole batch) end is UNKNOWN, with the reason. A complete search spends at most `each`
    seconds on a question, what was spent on it before included. With `proofs`, outcomes that hold have theirs.
    Bounds are sought above `required`, `(questions,)`, instead of zero; what ends between them holds narrowly.
    """
    deadline = None if timeout is None else time.perf_counter() + timeout
    network = with_axes(network)
    questions = questions.shaped(network.input_shape)
    asked = questions.queries if required is None else questions.queries.lowered(required)
    placed = asked.to(torch.float64, device)
    run = _Run(network, questions, placed, report, torch.ones(len(questions), dtype=torch.bool), required=required)
    instance = Instance.of(network, questions.region.to(torch.float64, device), deadline=deadline)
    if proofs:
        run.logs = {i: ProofLog() for i in range(len(questions))}
        instance = replace(instance, logs=tuple(run.logs.values()))
    reason = "the relaxation is too coarse and the attack found nothing"
    with torch.no_grad(), one_core_each(run.device), instance.watch():
        try:
            _look(run, instance)
            for stage in plan.stages:
                if isinstance(stage, Attack):
                    _attack(run, instance, stage)
                elif isinstance(stage, Complete):
                    _complete(run, instance, stage, each)
                else:
                    _bound(run, instance, stage)
        except OutOfTime:
            reason = "timeout"
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            reason = "memory"
    for i in run.open.nonzero().flatten().tolist():
        run.give_up(i, reason)


def _reason(error: Exception) -> str:
    """Why a question stays open on which the work failed; raises what is not about the question alone."""
    if isinstance(error, RuntimeError) and out_of_memory(error):
        return "memory"
    if shows_tracebacks() or isinstance(error, OutOfTime | KrelaxError):
        raise error
    return internal(error)


def _look(run: _Run, instance: Instance) -> None:
    """Replay the anchors that are wrong as they are."""
    anchors = run.questions.anchors
    if anchors is None:
        return
    for part in pieces(len(anchors), 256):
        y = instance.network(anchors[part].to(run.queries.rows)).unsqueeze(1)
        queries = run.queries.select(part)
        wrong = part[queries.margin(queries.values(y))[:, 0].cpu() <= 0]
        _confirm(run, wrong, anchors[wrong], "misclassified")


def _bound(run: _Run, instance: Instance, method: Method) -> None:
    """One bounding method on everything still open. If it optimises, closed-form slopes first say which clauses of
    several margins are open, where that is not known."""
    if method.inner is not None and run.batch.several and not run.found:
        _bound(run, instance, replace(METHODS["crown"], name=method.name))

    def work(index: Tensor) -> tuple[Bounded, Tensor]:
        one, queries, joint = run.batch.asked(instance, index)
        found = bound(one, queries, method, True, run.bounds(index, one.network))
        return replace(found, joint=joint), queries.margin(found.value)

    size = 1 if method.separate else chunk_images(instance.network, method.copies, run.device)
    for index, (found, margins) in _batches(run, instance, method.name, size, work, run.alike(instance)):
        network = run.batch.asked(instance, index)[0].network
        for place, (i, margin) in enumerate(zip(index.tolist(), margins.tolist(), strict=True)):
            run.bounded(i, margin, found.conclusion(place))
            if margin > 0:
                run.settle(i, Outcome(Verdict.HOLDS, method.name))
            elif run.keeps(instance.network):
                run.found[i] = found.select(torch.tensor([place]), network)


def _attack(run: _Run, instance: Instance, attack: Attack) -> None:
    """An attack on everything still open, and a replay of what it found."""

    def work(index: Tensor) -> Tensor:
        queries = run.queries.select(index).to(instance.fast_network.dtype, run.device)
        return search(instance.select(index), queries, attack)[0]

    points = max(attack.restarts, attack.samples)
    size = chunk_images(instance.network, points, run.device, 1)
    for index, x in _batches(run, instance, "attack", size, work, [run.remaining()]):
        _confirm(run, index, x)


def _complete(run: _Run, instance: Instance, effort: Complete, each: float | None) -> None:
    """A complete search on every question still open, the most promising ones first."""

    def work(i: int, search: Search) -> SearchResult:
        instance.check()
        began = time.perf_counter()
        one, queries = _timed(run, instance, i, each), run.queries.select(torch.tensor([i]))
        try:
            result = search(one, queries, run.found.get(i), partial(_counterexample, run, i))
        except Exception as error:
            result = SearchResult(-torch.inf, _reason(error))
        run.charge("search", [i], began)
        return result

    asked = run.remaining().tolist()
    with SideBySide(instance, effort, min(workers(run.device), len(asked))) as searches:
        for i, found in searches.map(work, asked):
            _conclude(run, i, found)


def _timed(run: _Run, instance: Instance, i: int, each: float | None) -> Instance:
    """One question with its own deadline: its share of the time where nothing else is said."""
    one = instance.select(torch.tensor([i]))
    if each is None:
        return one.share(-(-int(run.open.sum()) // workers(run.device)))
    return one.until(each - run.spent(i))


def _conclude(run: _Run, i: int, found: SearchResult) -> None:
    run.bounded(i, found.margin, found.conclusion)
    if found.counterexample is not None:
        run.settle(i, Outcome(Verdict.VIOLATED, found.reason, counterexample=found.counterexample))
    elif found.margin > 0:
        run.settle(i, Outcome(Verdict.HOLDS, found.reason))
    else:
        run.give_up(i, found.reason)


def _batches(
    run: _Run, instance: Instance, name: str, size: int, work: Callable[[Tensor], T], asked: Sequence[Tensor]
) -> Iterator[tuple[Tensor, T]]:
    """What `work`, a stage of this name, makes of the questions `asked`, batch by batch, none of which has questions of
    two of these tensors: indices and result, as they come. Where the work fails on a batch, its questions are worked on
    one by one, and those on which it fails are given up.

    Batches run side by side, each on one core; one that is alone sees to it itself that all cores are used.
    """
    parts = [every[part] for every in asked for part in pieces(len(every), size)]

    def timed(index: Tensor) -> tuple[Tensor, T | str]:
        instance.check()
        began = time.perf_counter()
        try:
            result: T | str = work(index)
        except Exception as error:
            result = _reason(error)
        run.charge(name, index.tolist(), began)
        return index, result

    def one_by_one(index: Tensor, result: T | str) -> Iterator[tuple[Tensor, T]]:
        if not isinstance(result, str):
            yield index, result
        elif len(index) > 1:
            for single in index.split(1):
                yield from one_by_one(*timed(single))
        else:
            run.give_up(int(index), result)

    with helpers(run.device, len(parts)) as pool:
        if pool is None:
            for part in parts:
                yield from one_by_one(*timed(part))
            return
        try:
            for future in as_completed([pool.submit(timed, part) for part in parts]):
                yield from one_by_one(*future.result())
        except BaseException:
            instance.cancelled.set()
            raise


def _confirm(run: _Run, index: Tensor, x: Tensor, reason: str = "attack") -> None:
    """Replay one candidate for each of some questions. Where none can be, because the region holds no number of the
    model's type, a question is given up if our own evaluation calls the candidate unsafe: it does not hold."""
    for i, point in zip(index.tolist(), x, strict=True):
        found = _counterexample(run, i, point[None])
        if found is not None:
            run.settle(i, Outcome(Verdict.VIOLATED, reason, counterexample=found))
        elif (why := run.no_point(i)) and _unsafe(run, i, point):
            run.give_up(i, why)


def _unsafe(run: _Run, i: int, point: Tensor) -> bool:
    """Whether the property fails at a point of the region of real numbers, as far as float64 can tell."""
    one = torch.tensor([i])
    inside = run.questions.region.select(one).project(point.cpu().double()[None, None])
    values = run.questions.queries.select(one).values(run.network(inside[0])[None])
    return bool(run.questions.queries.select(one).margin(values) <= 0)


def _counterexample(run: _Run, i: int, points: Tensor) -> Counterexample | None:
    """Replay candidates for one question, moved into its region; the original model has the last word."""
    with watched(None):  # a counterexample is not lost because it is late
        for point in points.cpu().double().numpy():
            candidate = run.questions.candidate(run.network, i, point)
            if candidate is not None:
                found = replay(run.network, candidate, partial(run.questions.violated, i))
            else:
                found = None if run.questions.real is None else run.questions.real(i, point)
            if found is not None:
                return found
    return None
