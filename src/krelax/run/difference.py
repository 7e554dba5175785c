"""How far two networks are apart around each image: a copy that was pruned, quantised or trained a little more.

Is every output of the one within a distance of that of the other, for every input of the region? Without a distance,
the smallest one is found that is certified: attacks say what it must be at least, bounds what it is at most, and a
search starts just above what attacks found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.bounds.bounded import Bounded
from krelax.bounds.branching import Effort
from krelax.bounds.instance import Instance, OutOfTime
from krelax.bounds.layers import LayerBounds
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.optimise import Ascent
from krelax.bounds.parts import Part, tighten_parts
from krelax.certificate.format.schema import Question, System
from krelax.errors import InputError, one_line
from krelax.network.difference import alike, places
from krelax.network.difference import difference as between
from krelax.network.graph import Network
from krelax.network.scalars import with_axes
from krelax.problem.exact import Floats
from krelax.problem.images import Images
from krelax.problem.queries import Queries
from krelax.problem.scaling import Scaling
from krelax.run.certificates import Certificates, Written
from krelax.run.certify import (
    CertifyOptions,
    check_device,
    check_proven,
    counterexample_record,
    finite,
    identity,
    predictions,
)
from krelax.run.journal import open_results
from krelax.run.systems import differing
from krelax.search.around import Around, Number, exact, outward, radii_of
from krelax.search.attack import Attack, descend, starts
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.replay import replay
from krelax.search.verdict import Counterexample, Outcome, Verdict
from krelax.watch import counted, now

Seen = Callable[[dict[str, Any]], None]

# A search for the smallest distance may be told so often that there is a larger one.
_MOST_TRIES = 8
# The smallest distance that is worth a search, as a part of what bounds say; and of the outputs, which float32 rounds
# by as much.
_LEAST, _ROUNDING = Fraction(1, 1000), Fraction(1, 2**24)
# What searches call a counterexample that is the image itself.
_WORDS = {"misclassified": "at the image itself"}
_BOUNDS, _ATTACK = METHODS["crown"], Attack(restarts=24, steps=60)
# How long the layers of the models are branched on, and of the time that is left at most such a part.
_LAYERS, _INNER, _PART = Effort(rounds=60), Ascent(24, 0.5, 0.88), 0.25


@dataclass(frozen=True)
class DifferenceOptions:
    """What is asked of every image, and with what effort, as `krelax.run.certify.CertifyOptions` says. `within` is the
    distance of outputs, exactly; None asks for the smallest one, to a relative `accuracy`."""

    eps: Number | tuple[Number, ...]
    within: Fraction | None = None
    accuracy: Fraction = Fraction(1, 10)
    norm: str = "linf"
    clip: tuple[Number, Number] | None = (0.0, 1.0)
    method: str = "auto"
    timeout: float | None = 60.0
    device: str = "cpu"
    deterministic: bool = False
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        if self.within is not None and not self.within > 0:
            raise InputError(f"the distance of outputs must be above 0, got {float(self.within):g}")
        if not 0 < self.accuracy <= 10:
            raise InputError(f"the accuracy must be above 0 and at most 10, got {float(self.accuracy):g}")

    @property
    def ends(self) -> tuple[Fraction, Fraction] | None:
        """The range, exactly."""
        return None if self.clip is None else (exact(self.clip[0]), exact(self.clip[1]))


@dataclass
class _State:
    """What is known of an image: that outputs differ by no more than `certified`, and by `found` at a point."""

    index: int
    label: int
    predicted: tuple[int, int]
    verdict: Verdict | None = None
    certified: Fraction | None = None
    found: Fraction = Fraction(0)
    point: Counterexample | None = None
    reason: str = ""
    seconds: float = 0.0
    tries: list[dict[str, Any]] = field(default_factory=list)
    certificate: Written | None = None

    @property
    def size(self) -> Fraction:
        """Of the outputs, where they were looked at."""
        return Fraction(0) if self.point is None else Fraction(float(np.abs(self.point.y).max(initial=0.0)))

    def record(self) -> dict[str, Any]:
        """For a journal."""
        facts: dict[str, Any] = {
            "index": self.index,
            "label": self.label,
            "predicted": list(self.predicted),
            "certified": None if self.certified is None else outward(self.certified, up=True),
            "found": outward(self.found, up=False),
            "reason": one_line(self.reason),
            "seconds": round(self.seconds, 4),
            "tries": self.tries,
        }
        if self.verdict is not None:
            facts["verdict"] = self.verdict.value
        if self.certificate is not None:
            facts["certificate"] = self.certificate.record()
        return facts if self.point is None else facts | {"counterexample": counterexample_record(self.point)}


def difference(
    one: Network,
    other: Network,
    images: Images,
    indices: range,
    options: DifferenceOptions,
    *,
    journal: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    settings: dict[str, Any] | None = None,
    seen: Seen = lambda record: None,
    certificates: Certificates | None = None,
) -> dict[int, dict[str, Any]]:
    """Are the outputs of two networks within a distance, for every input around each image?

    Args:
        one: The first network.
        other: The second one, with the same inputs and as many outputs.
        images: Images `(n, *input_shape)` and labels `(n,)`.
        indices: Which of them.
        options: The regions, the distance, and with what effort.
        journal: A file to which each result is written as it comes.
        resume: Whether results that the journal holds are kept and not computed again.
        overwrite: Whether results that the journal holds, of whatever run, are deleted.
        settings: What identifies models and data in the journal.
        seen: Is called with each result.
        certificates: Where proofs about the files of both networks are written, that of the second one among its
            `others`: what holds gets one, `image-INDEX.zip`. Only with a distance.

    Returns:
        The results by index: no outputs differ by more than `certified` (None where nothing was bounded), and some
        differ by `found` at the point that is in `counterexample`. With a distance there is a `verdict`.

    Raises:
        InputError: The networks do not fit each other, options or images do not, or the journal is of another run.

    Sound: yes. What is certified is proven, what is found was replayed in both original models.
    Complete: as `krelax.run.certify.certify`.
    """
    check_device(options.device)
    plan, network = Plan.of(options.method), between(one, other)
    if certificates is not None and options.within is None:
        raise InputError("certificates are about a distance of outputs; say with --within which one")
    for each in (one, other) if certificates is not None else ():
        check_proven(each)
    facts = identity(CertifyOptions(options.eps, options.norm, options.clip, options.method, options.timeout,
                                    options.device, options.deterministic, options.scaling), settings)  # fmt: skip
    within = None if options.within is None else str(options.within)
    header = {**facts, "within": within, "accuracy": float(options.accuracy), "kind_of_run": "difference"}
    with open_results(journal, header, indices, resume, overwrite, seen) as (results, wanted, keep):
        if wanted:
            chosen = Images(images.images[wanted], images.labels[wanted])
            both = zip(*(predictions(n, chosen, options.scaling).tolist() for n in (one, other)), strict=True)
            states = [_State(*each) for each in zip(wanted, chosen.labels.tolist(), both, strict=True)]
            _Differences(network, (one, other), images, options, plan, keep, certificates).find(states)
    return {i: results[i] for i in indices}


@dataclass
class _Differences:
    """The search for the differences around some images, of a `network` of the difference of two `models`."""

    network: Network
    models: tuple[Network, Network]
    images: Images
    options: DifferenceOptions
    plan: Plan
    keep: Callable[[_State], None]
    certificates: Certificates | None = None
    layers: dict[int, LayerBounds] = field(default_factory=dict)

    @cached_property
    def beside(self) -> Network:
        """The models side by side."""
        return between(*self.models, together=False)

    @cached_property
    def system(self) -> System:
        """What certificates call the models."""
        assert self.certificates is not None
        one, other = self.models
        together = one.output_shape == other.output_shape and alike(one, other)
        return differing((self.certificates.model, *self.certificates.others), self.models, together)

    def find(self, states: list[_State]) -> None:
        """Decide all images, or measure one after the other, and keep each as soon as it is known."""
        if self.options.within is not None:
            self.decide(states, [self.options.within] * len(states), self.keep)
            return
        for state in states:
            with torch.no_grad(), counted(self.options.deterministic):
                self.measure(state)
                self.narrow(state)
            self.keep(state)

    def around(self, states: Sequence[_State]) -> Around:
        """The regions around images."""
        chosen, options = self.images.images[[s.index for s in states]], self.options
        return Around(chosen, radii_of(options.eps, len(states)), options.norm, options.ends, options.scaling)

    def decide(self, states: list[_State], within: list[Fraction], keep: Callable[[_State], None]) -> None:
        """Is the distance of each image one? Its state has the verdict then."""
        questions = about_differences(self.network, self.around(states), within)

        plan, required = self.plan, None
        if self.certificates is not None:
            asked = replace(questions, queries=_of_both(questions.queries))
            required = self.certificates.required_margins(asked, self.system)
            plan = self.certificates.provable(plan, self.system)

        def report(i: int, outcome: Outcome) -> None:
            outcome = self.written(states[i], outcome)
            _learn(states[i], within[i], outcome)
            keep(states[i])

        def refine(i: int, instance: Instance, queries: Queries, found: Bounded) -> Bounded:
            return self.refined(states[i].index, instance, queries, found)

        options, left = self.options, None
        if options.timeout is not None:
            left = max(0.1, options.timeout - max(s.seconds for s in states))
        total = None if left is None else left * len(states)
        proofs = self.certificates is not None
        decide(self.network, questions, plan, report, total, options.device, left, proofs, required,
               options.deterministic, refine)  # fmt: skip

    def written(self, state: _State, outcome: Outcome) -> Outcome:
        """The outcome, whose certificate is written if there is to be one; nothing is known by one that is refused."""
        if self.certificates is None or outcome.verdict is not Verdict.HOLDS:
            return outcome
        proven = replace(outcome, system=self.system, proofs=tuple(map(_about_both, outcome.proofs)))
        checked, state.certificate = self.certificates.write(f"image-{state.index}.zip", proven)
        return checked if checked.verdict is Verdict.HOLDS else replace(checked, margin=None)

    def refined(self, index: int, instance: Instance, queries: Queries, found: Bounded) -> Bounded:
        """Better bounds of one image, for all distances that are tried: branching tightens the layers of the models
        that are part of the network."""
        if index not in self.layers:
            parts = [self.part(model, instance) for model in self.models]
            left = None if instance.deadline is None else _PART * (instance.deadline - now())
            bounds = tighten_parts(instance.until(left), found.bounds, [p for p in parts if p], _LAYERS, _INNER)
            self.layers = {index: bounds}
        return bound(instance, queries, METHODS["alpha"], found=replace(found, bounds=self.layers[index]))

    def part(self, model: Network, instance: Instance) -> Part | None:
        """A model, if activations of it are in the network."""
        model = with_axes(model)
        where = places(model, with_axes(self.network))
        part = Part(Instance.of(model, instance.region), where)
        return part if part.kinked else None

    def measure(self, state: _State) -> None:
        """What outputs differ by at most, by bounds alone, and at least, by an attack, as far as the time suffices."""
        began, around = now(), self.around([state])
        asked = about_differences(self.network, around, [Fraction(0)])
        instance = Instance.of(self.network, asked.region).until(self.options.timeout)
        with instance.watch(), suppress(OutOfTime):
            found = bound(instance, asked.queries, _BOUNDS).value
            if alike(*self.models):
                # where much is undecided, what neurons are apart by may grow beyond both of them
                beside = replace(Instance.of(self.beside, asked.region), deadline=instance.deadline)
                found = torch.maximum(found, bound(beside, asked.queries, _BOUNDS).value)
            value = float(found.min())
            state.certified = None if finite(value) is None else max(Fraction(0), -Fraction(value))
            self.attack(state, around, instance)
        state.seconds += now() - began

    def attack(self, state: _State, around: Around, instance: Instance) -> None:
        """Points at which outputs differ, which are replayed in both models."""
        asked = about_differences(self.network, around, [2 * (state.certified or Fraction(1))])
        queries = asked.queries.to(instance.fast_network.dtype, "cpu")
        x, _ = descend(instance, queries, starts(instance, queries, _ATTACK), _ATTACK)
        for point in (instance.region.lower[0] / 2 + instance.region.upper[0] / 2, *x[0].double()):
            candidate = around.nearest(0, point.reshape(self.network.input_shape).numpy(), self.network.elements)
            if candidate is not None:
                _replay(self.network, state, around, candidate)

    def narrow(self, state: _State) -> None:
        """Search for a proof just above what was found, again where it finds more."""
        factor = 1 + self.options.accuracy
        for _ in range(_MOST_TRIES):
            target = factor * max(state.found, _LEAST * (state.certified or 0), _ROUNDING * state.size)
            if state.certified is not None and state.certified <= target:
                state.reason = "found"
                return
            if self.options.timeout is not None and state.seconds >= self.options.timeout:
                state.reason = "timeout"
                return
            within = Fraction(outward(target, up=True)) or Fraction(1, 2**40)
            self.decide([state], [within], lambda _: None)
            verdict, state.verdict = state.verdict, None
            state.reason = "found" if verdict is Verdict.HOLDS else state.reason
            if verdict is not Verdict.VIOLATED:
                return


def about_differences(network: Network, around: Around, within: Sequence[Fraction]) -> Questions:
    """Are all outputs, differences, at most so far from zero around each image? One question for each image."""
    count = int(np.prod(network.output_shape))
    rows = torch.cat([-torch.eye(count), torch.eye(count)]).double()
    offsets = torch.tensor([outward(w, up=False) for w in within], dtype=torch.float64)
    every = len(within), 2 * count
    queries = Queries(rows.expand(len(within), -1, -1).contiguous(), offsets[:, None].repeat(1, 2 * count),
                      torch.arange(2 * count).repeat(len(within), 1), 2 * count)  # fmt: skip
    assert queries.offsets.shape == every

    def nearest(i: int, x: Floats) -> NDArray[Any] | None:
        return around.nearest(i, x, network.elements)

    def violated(i: int, x: NDArray[Any], y: NDArray[Any]) -> bool:
        return around.contains(i, x) and apart(y) > within[i]

    return Questions(around.region(), queries, violated, torch.tensor(around.given(), dtype=torch.float64), nearest)


def _of_both(queries: Queries) -> Queries:
    """The same of the outputs of both models, one after the other."""
    return replace(queries, rows=torch.cat([queries.rows, -queries.rows], -1))


def _about_both(question: Question) -> Question:
    return replace(question, rows=np.concatenate([question.rows, -question.rows], 1))


def apart(y: NDArray[Any]) -> Fraction:
    """The largest difference of outputs of two models, one after the other, exactly."""
    one, other = np.split(y.flatten().astype(np.float64), 2)
    return max(abs(Fraction(a) - Fraction(b)) for a, b in zip(one.tolist(), other.tolist(), strict=True))


def _replay(network: Network, state: _State, around: Around, candidate: NDArray[Any]) -> None:
    """Keep a point of the region where outputs differ by more than what was found before."""
    first = state.point is None
    found = replay(network, candidate, lambda x, y: around.contains(0, x) and (first or apart(y) > state.found))
    if found is not None:
        state.found, state.point = apart(found.y), found


def _learn(state: _State, within: Fraction, outcome: Outcome) -> None:
    """What an outcome says of the differences."""
    state.seconds += outcome.seconds
    state.verdict, state.reason = outcome.verdict, _WORDS.get(outcome.reason, outcome.reason)
    state.tries.append({"within": float(within), "verdict": outcome.verdict.value, "reason": one_line(outcome.reason)})
    bounds = [] if state.certified is None else [state.certified]
    if outcome.verdict is Verdict.HOLDS:
        bounds.append(within)
    if outcome.margin is not None and finite(outcome.margin) is not None:
        bounds.append(max(Fraction(0), Fraction(outward(within, up=False)) - Fraction(outcome.margin)))
    state.certified = min(bounds, default=None)
    if outcome.counterexample is not None:
        state.found, state.point = apart(outcome.counterexample.y), outcome.counterexample
