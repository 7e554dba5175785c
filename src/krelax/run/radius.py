"""How robust is each image: the largest radius that is certified, and the smallest one that is refuted.

Attacks come first, because they are cheap: each starts from the nearest counterexample that is known, and they end when
none finds a nearer one. Then the radius just below that is certified, which is all if it holds. Where it does not, what
the search found is the next counterexample. Where it gives up, smaller radii are tried, and then larger ones again.

How long a try takes grows with the radius, slowly at first, and then so fast that no time is enough. So a try is given
little time at first, and then a few times as long as the largest radius that is certified took. What is given up costs
no more than that, and most of the time is spent on the radius in the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.problem.images import Images
from krelax.problem.regions import Transformed
from krelax.problem.scaling import Scaling
from krelax.run.amounts import Amounts
from krelax.run.attacked import Refuted, attacked, between, from_counterexample, rounded
from krelax.run.certificates import Certificates, check_target
from krelax.run.certify import CertifyOptions, Seen, check_device, check_proven, identity, margins, predictions
from krelax.run.journal import open_results
from krelax.run.known import Open, State
from krelax.run.regions import check_certificates
from krelax.search.around import Around, Number, exact
from krelax.search.complete import OFF_COURSE
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import about_surroundings
from krelax.search.verdict import Outcome, Verdict
from krelax.watch import counted, now

# A try at a radius may take such a part of an image's time, attacks such a part of what is left of it.
_PART, _ATTACKS = 1 / 3, 0.2
# A search is to be on course after such a part of an image's time, or as long as the largest certified radius took.
_PATIENCE = 1 / 16
# A try may take so many times as long as the largest certified radius took; none begins with less than so many times.
_LONGER, _WORTHWHILE = 2.0, 1.5
# A radius is tried again if it was given up after less than such a part of the time that there is for it now.
_ENOUGH = 0.5
# What is certified and what was given up late need not be nearer than such a part of what is open altogether.
_FINE = 1 / 4
# Reasons that more time might mend.
_LATE = {"timeout", OFF_COURSE}
# By the square of such a factor radii are apart at most that are tried below one that stays open.
_STEP = Fraction(5, 4)
_LEAST_SECONDS = 0.2
_FINEST = Fraction(1, 10**12)  # accuracies that float64 can tell apart
# How often the step between such radii is doubled at most.
_MOST_DOUBLED = 8


@dataclass(frozen=True)
class RadiusOptions:
    """What is asked of every image: its radius, to a relative `accuracy`, in a norm and range, and with what effort.
    `timeout` is in seconds for each image (None: no limit). With a `region`, how much of that an image stands."""

    accuracy: Fraction = Fraction(1, 100)
    norm: str = "linf"
    clip: tuple[Number, Number] | None = (0.0, 1.0)
    method: str = "auto"
    timeout: float | None = 60.0
    device: str = "cpu"
    deterministic: bool = False
    scaling: Scaling | None = None
    region: Transformed | None = None

    def __post_init__(self) -> None:
        if not _FINEST <= self.accuracy <= 10:
            raise InputError(f"the accuracy must be from {float(_FINEST):g} to 10, got {float(self.accuracy):g}")

    @property
    def ends(self) -> tuple[Fraction, Fraction] | None:
        """The range, exactly."""
        return None if self.clip is None else (exact(self.clip[0]), exact(self.clip[1]))

    @property
    def digits(self) -> int:
        """How many digits radii have, so that rounding takes little of the accuracy."""
        return max(3, 2 + math.ceil(-math.log10(self.accuracy)))


def radius(
    network: Network,
    images: Images,
    indices: range,
    options: RadiusOptions,
    *,
    journal: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    settings: dict[str, Any] | None = None,
    seen: Seen = lambda record: None,
    certificates: Certificates | None = None,
) -> dict[int, dict[str, Any]]:
    """The radius of images: the largest that is certified, and the smallest that is refuted.

    Args:
        network: The classifier.
        images: Images `(n, *input_shape)` and labels `(n,)`.
        indices: Which of them.
        options: The norm, the accuracy, and with what effort.
        journal: A file to which each result is written as it comes.
        resume: Whether results that the journal holds are kept and not computed again.
        overwrite: Whether results that the journal holds, of whatever run, are deleted.
        settings: What identifies model and data in the journal.
        seen: Is called with each result.
        certificates: Where proofs are written: that of the largest certified radius, `image-INDEX.zip`.

    Returns:
        The results by index: `certified` and `refuted` are radii, None where there is none.

    Raises:
        InputError: Options or images do not fit, or the journal is that of another run.

    Sound: yes. What is certified is proven, what is refuted has a counterexample at that distance, which was replayed.
    Complete: as `krelax.certify` at the radius.
    """
    check_device(options.device)
    plan = Plan.of(options.method)
    if options.region is not None and certificates is not None:
        check_certificates(options.region)
    if certificates is not None:
        check_proven(network)
    asked = CertifyOptions(0, options.norm, options.clip, options.method, options.timeout, options.device,
                           options.deterministic, options.scaling, options.region)  # fmt: skip
    facts = identity(asked, settings)
    del facts["eps"]
    header = {**facts, "accuracy": float(options.accuracy), "kind_of_run": "radius"}
    with open_results(journal, header, indices, resume, overwrite, seen) as (results, wanted, keep):
        if wanted and options.region is not None:
            Amounts(network, images, options.region, asked, plan, options.accuracy, options.digits, keep).find(wanted)
        elif wanted:
            _Radii(network, images, options, plan, keep, certificates).find(wanted)
    return {i: results[i] for i in indices}


@dataclass
class _Radii:
    """The search for the radii of some images."""

    network: Network
    images: Images
    options: RadiusOptions
    plan: Plan
    keep: Callable[[State], None]
    certificates: Certificates | None

    @property
    def largest(self) -> Fraction | None:
        """A radius at which regions are all of the range; None if there is no such one."""
        ends = self.options.ends
        if ends is None:
            return None
        size, width = self.images.images[0].size, ends[1] - ends[0]
        return {"linf": width, "l1": width * size, "l2": width * (math.isqrt(size) + 1)}[self.options.norm]

    @property
    def least(self) -> Fraction:
        """Counterexamples that are nearer are the image itself, as the model is given it."""
        return (self.largest or Fraction(1)) / 10**6

    def around(self, states: Sequence[State], radii: Sequence[Fraction]) -> Around:
        """The regions of images, each of its own radius."""
        chosen = self.images.images[[s.index for s in states]]
        return Around(chosen, tuple(radii), self.options.norm, self.options.ends, self.options.scaling)

    def find(self, wanted: list[int]) -> None:
        """Find the radii of images, and keep each as soon as it is known."""
        chosen = Images(self.images.images[wanted], self.images.labels[wanted])
        predicted = predictions(self.network, chosen, self.options.scaling).tolist()
        labels = chosen.labels.tolist()
        states = [State(*each) for each in zip(wanted, labels, predicted, strict=True)]
        for state, margin in zip(states, margins(self.network, chosen, self.options.scaling).tolist(), strict=True):
            state.clean = margin
        if self.options.ends is not None:  # raises for images that lie outside
            self.around(states, [Fraction(0)] * len(states)).region()
        self.attack(states, None)
        states = self.settled(states)
        while states:
            targets = [self.target(s) for s in states]
            refuted = self.certify(states, targets)
            self.attack(refuted, [s.refuted for s in refuted])
            states = self.settled(states)

    def settled(self, states: list[State]) -> list[State]:
        """Keep what is known well enough, or for which there is no time; what is left."""
        left = []
        for state in states:
            why = self.end(state)
            if why:
                state.reason = why
                self.keep(state)
            else:
                left.append(state)
        return left

    def end(self, state: State) -> str:
        """Why nothing more is to be done about an image; empty if there is."""
        factor = 1 + self.options.accuracy
        if state.refuted is not None and state.refuted.radius <= self.least:
            return "misclassified"
        if state.certified is not None and self.largest is not None and state.certified >= self.largest:
            return "everywhere"
        if state.certified is not None:
            near = factor * state.certified
            if state.refuted is not None and state.refuted.radius <= near:
                return "found"
            lowest = state.lowest
            close = lowest is not None and (lowest.radius <= near or self.is_fine(state, state.certified, lowest))
            if lowest is not None and close and not self.again(state, lowest):
                return "open in between"
        left = self.left(state)
        if left is not None and left < max(_LEAST_SECONDS, _WORTHWHILE * state.cost):
            return "timeout"
        return "the method is too weak" if state.lowest and state.lowest.radius < self.smallest(state) else ""

    @staticmethod
    def is_fine(state: State, certified: Fraction, given_up: Open) -> bool:
        """Whether a radius that was given up for want of time is as near to the certified one, as factors count, as it
        need be where the refuted one is far away."""
        if state.refuted is None or given_up.seconds == math.inf:
            return False
        return math.log(given_up.radius / certified) <= _FINE * math.log(state.refuted.radius / certified)

    def left(self, state: State) -> float | None:
        """Seconds that are left for an image; None if there is no limit."""
        return None if self.options.timeout is None else self.options.timeout - state.seconds

    def seconds(self, state: State) -> float | None:
        """How long a try may take for an image; None if there is no limit."""
        limit, left = self.options.timeout, self.left(state)
        if limit is None or left is None:
            return None
        return max(_LEAST_SECONDS, min(left, max(_PART * limit, _LONGER * state.cost)))

    def again(self, state: State, given_up: Open) -> bool:
        """Whether there is much more time now for a radius than there was when it was given up."""
        seconds = self.seconds(state)
        return seconds is not None and given_up.seconds < _ENOUGH * seconds

    def smallest(self, state: State) -> Fraction:
        """Radii below it are not tried."""
        top = state.refuted.radius if state.refuted is not None else self.largest or Fraction(1)
        return top / 10**4

    def target(self, state: State) -> Fraction:
        """The radius to certify next: just below the smallest refuted one, or between what is known."""
        lowest = state.lowest
        if lowest is not None:
            return self.below(state, lowest)
        if state.refuted is not None:
            return self.next_to(state.refuted.radius)
        if self.largest is not None:
            return self.largest
        return 2 * state.certified if state.certified is not None else Fraction(1)

    def next_to(self, radius: Fraction) -> Fraction:
        """The least radius to certify that is near to another one."""
        return rounded(radius / (1 + self.options.accuracy), self.options.digits, up=True)

    def below(self, state: State, given_up: Open) -> Fraction:
        """A radius below one that was given up: between where the same effort does, or what is certified, and where
        it did not do. The same one, if those are near already."""
        high, low, digits = given_up.radius, state.certified, self.options.digits
        part = self.chord(state, given_up)
        if low is None:
            count = min(len(state.open), _MOST_DOUBLED)
            least, most = _STEP ** (-2 * count), (1 + self.options.accuracy) ** -(2 ** (count - 1))
            part = least if part is None else max(part, least)
            return min(between(part * high, high, digits), rounded(most * high, digits, up=True))
        near = self.next_to(high)
        if near <= low:
            return high
        return min(between(low if part is None else max(low, part * high), high, digits), near)

    def chord(self, state: State, given_up: Open) -> Fraction | None:
        """The part of a radius that was given up at which the same effort does; None where nothing is known.

        Margins fall the faster the larger radii are. So the chord from the margin of the image itself to the worst that
        was left is zero at a radius where they are still positive.
        """
        if not 0 < state.clean < math.inf or not -math.inf < given_up.margin <= 0:
            return None
        return Fraction(state.clean / (state.clean - given_up.margin))

    def certify(self, states: list[State], radii: list[Fraction]) -> list[State]:
        """Try to certify a radius of each image; those that are refuted there."""
        refuted: list[State] = []
        for group in self.groups(states):
            refuted += self._certify([states[i] for i in group], [radii[i] for i in group])
        return refuted

    def groups(self, states: list[State]) -> list[list[int]]:
        """Images to be worked on together: with about as much time; one by one where balls need that."""
        if self.options.norm != "linf":
            return [[i] for i in range(len(states))]
        found: dict[int, list[int]] = {}
        for i, state in enumerate(states):
            found.setdefault(math.floor(math.log2(self.seconds(state) or 1.0)), []).append(i)
        return [found[size] for size in sorted(found)]

    def _certify(self, states: list[State], radii: list[Fraction]) -> list[State]:
        around, refuted = self.around(states, radii), []
        labels = np.array([s.label for s in states])
        questions = about_surroundings(self.network, labels, around)
        # attacks have looked for counterexamples here
        plan, required, proofs = self.plan.proving, None, self.certificates is not None
        limits = [s for state in states if (s := self.seconds(state)) is not None]
        each = min(limits, default=None)
        if self.options.timeout is not None:
            plan = plan.patient(max(_PATIENCE * self.options.timeout, *(s.cost for s in states)))
        if self.certificates is not None:
            required, plan = self.certificates.required_margins(questions), self.certificates.provable(plan)

        def report(i: int, outcome: Outcome) -> None:
            state = states[i]
            state.seconds += outcome.seconds
            outcome = self.written(state, outcome)
            state.tried(radii[i], outcome, outcome.seconds)
            if outcome.verdict is Verdict.HOLDS:
                state.certify(radii[i], outcome.seconds)
            elif outcome.counterexample is not None:
                state.refute(from_counterexample(around, i, outcome.counterexample, self.options.digits))
                refuted.append(state)
            else:
                margin = -math.inf if outcome.margin is None else outcome.margin
                seconds = each if each is not None and outcome.reason in _LATE else math.inf
                state.give_up(radii[i], seconds, max(margin, outcome.worst))

        total = None if each is None else each * len(states)
        deterministic = self.options.deterministic
        decide(self.network, questions, plan, report, total, self.options.device, each, proofs, required, deterministic)
        return refuted

    def written(self, state: State, outcome: Outcome) -> Outcome:
        """The outcome with its certificate, which takes the place of that of a smaller radius if it is accepted."""
        if self.certificates is None:
            return outcome
        outcome, written = self.certificates.write(f"image-{state.index}.next.zip", outcome)
        if written is not None and outcome.verdict is Verdict.HOLDS:
            path = written.path.with_name(f"image-{state.index}.zip")
            check_target(path)
            written.path.replace(path)
            state.certificate = replace(written, path=path).record()
        elif written is not None:
            written.path.unlink()
        return outcome

    def attack(self, states: list[State], known: Sequence[Refuted | None] | None) -> None:
        """Look for counterexamples nearer than those that are known, of images that may have such."""
        if not states:
            return
        labels = np.array([s.label for s in states])
        limit = None
        if self.options.timeout is not None:
            limit = _ATTACKS * sum(max(0.0, self.options.timeout - s.seconds) for s in states)
        with counted(self.options.deterministic):
            began = now()
            found = attacked(
                self.network,
                labels,
                lambda index, radii: self.around([states[i] for i in index], radii),
                known or [None] * len(states),
                [s.certified for s in states],
                (self.least, self.largest),
                self.options,
                limit,
            )
            seconds = (now() - began) / len(states)
        for state, refuted in zip(states, found, strict=True):
            state.refuted = refuted
            state.seconds += seconds
