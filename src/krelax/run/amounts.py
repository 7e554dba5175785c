"""How much of a transformation an image stands: the largest amount that is certified, and the smallest refuted one.

The amount is the part of a region's ranges that parameters may take, on both sides of those that change nothing. Of a
single transformation it is in the unit of its parameters: a rotation by up to so many degrees. Amounts are halved until
one is certified, and then tried between that and the smallest that is not. Nothing is certified twice: a region is that
of the certified amount, and boxes of parameters around it, and only these are decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from krelax.network.graph import Network
from krelax.problem.images import Images
from krelax.problem.regions import Transformed
from krelax.run.attacked import Refuted, between, rounded
from krelax.run.certify import CertifyOptions, predictions
from krelax.run.known import State
from krelax.run.regions import decide_image
from krelax.search.pipeline import Plan
from krelax.search.verdict import Outcome, Verdict

# A try may take such a part of the time that is left for an image.
_PART = 0.5
# Nothing smaller than this part of the region is told from nothing.
_LEAST = Fraction(1, 10**4)
_LEAST_SECONDS = 0.2


@dataclass
class Amounts:
    """The search for the amounts that some images stand, to a relative accuracy."""

    network: Network
    images: Images
    region: Transformed
    options: CertifyOptions
    plan: Plan
    accuracy: Fraction
    digits: int
    keep: Callable[[State], None]

    def find(self, wanted: list[int]) -> None:
        """Find the amounts of images, one after the other, and keep each. Raises InputError for regions in which an
        image does not lie."""
        whole = self.region.amount
        chosen = Images(self.images.images[wanted], self.images.labels[wanted])
        predicted = predictions(self.network, chosen, self.options.scaling).tolist()
        for index, label, own in zip(wanted, chosen.labels.tolist(), predicted, strict=True):
            state = State(index, label, own)
            target: Fraction | None = whole
            while target is not None:
                self._try(state, target)
                state.reason = self._end(state)
                target = None if state.reason else self._target(state)
            self.keep(state)

    def _try(self, state: State, amount: Fraction) -> None:
        """Decide the region of an amount, as far as it is not certified yet."""
        inner, began = state.certified, state.seconds
        parts = [self.region.part(amount)] if inner is None else self.region.beyond(inner, amount)
        outcomes = list[Outcome]()
        for count, part in enumerate(parts):
            outcomes.append(self._decided(state, part, began, len(parts) - count))
            if outcomes[-1].verdict is not Verdict.HOLDS:
                break
        outcome, seconds = outcomes[-1], state.seconds - began
        state.tried(amount, outcome, seconds)
        if outcome.verdict is Verdict.HOLDS:
            state.certify(amount, seconds)
        elif outcome.verdict is Verdict.VIOLATED:
            state.refute(self._refuted(outcome, amount))
        else:
            state.give_up(amount, seconds)

    def _decided(self, state: State, region: Transformed, began: float, left: int) -> Outcome:
        """Decide a region, the first of so many, with its share of what a try that `began` may take."""
        seconds, limit = None, self.options.timeout
        if limit is not None:
            until = began + _PART * (limit - began)
            seconds = max(_LEAST_SECONDS, (until - state.seconds) / left)
        options = replace(self.options, timeout=seconds)
        image = self.images.images[state.index]
        outcome = decide_image(self.network, image, state.label, region, self.plan, options)
        state.seconds += outcome.seconds
        return outcome

    def _refuted(self, outcome: Outcome, amount: Fraction) -> Refuted:
        """A counterexample, and the least amount of few digits that allows it."""
        assert outcome.counterexample is not None
        reached = self.region.reached(list(map(Fraction, outcome.counterexample.parameters.values())))
        return Refuted(min(amount, rounded(reached, self.digits, up=True)), outcome.counterexample)

    def _end(self, state: State) -> str:
        """Why nothing more is to be done about an image; empty if there is."""
        whole = self.region.amount
        if state.certified == whole:
            return "everywhere"
        least = whole * _LEAST
        if state.refuted is not None and state.refuted.radius <= least:
            return "misclassified"
        if state.certified is not None:
            near = (1 + self.accuracy) * state.certified
            if state.refuted is not None and state.refuted.radius <= near:
                return "found"
            if state.lowest is not None and state.lowest.radius <= near:
                return "open in between"
        limit = self.options.timeout
        if limit is not None and state.seconds >= limit - _LEAST_SECONDS:
            return "timeout"
        return "the method is too weak" if state.lowest is not None and state.lowest.radius <= least else ""

    def _target(self, state: State) -> Fraction:
        """The amount to try next: between what is known, or half of the least that is not certified."""
        top = min(known.radius for known in (state.lowest, state.refuted) if known is not None)
        if state.certified is None:
            return rounded(top / 2, self.digits, up=False)
        return between(state.certified, top, self.digits)
