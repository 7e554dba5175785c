"""Unsafe cases that contradict how a network rises: about several copies of it, whose inputs are ordered.

An example is `x <= x'`, in one entry or in several, and `f(x) > f(x')`. Where both inputs may be the same, so are the
outputs, and no bound of their difference excludes that one is larger. But between two points an output gains the
integral of its slope. So such a case is impossible where signs of weights say that the output does not fall
(`krelax.network.direction`), or bounds of slopes do (`krelax.network.slope`). A search for those has some of the time,
if slopes at a few points do not refute them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import NamedTuple

import numpy as np
import torch

from krelax.errors import UnsupportedError
from krelax.network.direction import Moves, directions
from krelax.network.graph import Network
from krelax.network.slope import slope
from krelax.problem.queries import Queries
from krelax.problem.query import Case, Floats, Specification
from krelax.problem.region import Box
from krelax.search.around import outward
from krelax.search.excluded import intervals
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict

# Slopes are looked at, at so many points.
_SAMPLES = 64
# Searches for proofs of slopes have such a part of the time, and never more seconds.
_PART, _SECONDS = 1 / 4, 60.0
# So much of what slopes may lose is allowed, and the rest keeps apart what is not strict.
_ALLOWED = Fraction(1023, 1024)


class Copy(NamedTuple):
    """A use of a network: its inputs' places among all inputs, and the number of the first of its values."""

    network: int
    inputs: tuple[int, ...]
    first: int


@dataclass(frozen=True, eq=False)
class Copies:
    """Uses of networks in the order of their values, and `network(i)`: network i, whose outputs are all its values."""

    uses: tuple[Copy, ...]
    network: Callable[[int], Network]

    def use(self, value: int) -> Copy:
        """The one that a value is of."""
        return self.uses[bisect_right([use.first for use in self.uses], value) - 1]


class _Claim(NamedTuple):
    """That an output of a network falls by no more than `slack` from the inputs at the places `low` to those at the
    places `high`, which contradicts a case. A slack of zero may be attained."""

    network: int
    output: int
    low: tuple[int, ...]
    high: tuple[int, ...]
    slack: Fraction


def without_ordered(
    copies: Copies, specification: Specification, check: Callable[[], None], seconds: float | None, device: str,
    deterministic: bool,
) -> Specification:  # fmt: skip
    """The specification without the cases that contradict how networks rise.

    Sound: no input satisfies a case that is left out. `check` is called between cases, and may raise.
    """
    kept: list[Case] = []
    limit = _SECONDS if seconds is None else min(_SECONDS, _PART * seconds)
    asked = _Asked(copies, specification, limit / max(1, len(specification.cases)), device, deterministic)
    for case in specification.cases:
        check()
        claims = list(asked.claims(case)) if case.is_bounded else []
        if not any(asked.by_signs(case, claim) or asked.by_slopes(case, claim) for claim in claims):
            kept.append(case)
    return replace(specification, cases=tuple(kept))


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a specification claims of copies, and proofs of it. Each claim has so many `seconds`."""

    copies: Copies
    specification: Specification
    seconds: float
    device: str
    deterministic: bool

    def claims(self, case: Case) -> Iterator[_Claim]:
        """What would contradict a case."""
        terms = self.specification.terms or ()
        for halfspace in case.halfspaces:
            factors = {i: factor for i, factor in halfspace.coefficients.items() if factor}
            if any(len(terms[i]) != 1 for i in factors):
                continue
            (*values,) = (i for i in factors if terms[i][0] % 2)
            if len(values) != 2 or factors[values[0]] != -factors[values[1]]:
                continue
            upper, lower = sorted(values, key=factors.__getitem__, reverse=True)
            (one, output), (other, same) = (self._named(terms[i][0] // 2) for i in (upper, lower))
            if one.network != other.network or output != same:
                continue
            rest = sum((self._least(case, terms[i][0], factors[i]) for i in factors if i not in values), Fraction(0))
            slack = (halfspace.constant + rest) / factors[upper]
            if slack > 0 or (slack == 0 and halfspace.strict):
                yield _Claim(one.network, output, other.inputs, one.inputs, slack)

    def _named(self, value: int) -> tuple[Copy, int]:
        use = self.copies.use(value)
        return use, value - use.first

    def _least(self, case: Case, code: int, factor: Fraction) -> Fraction:
        """The least of a multiple of an input."""
        place = self._place(code)
        return factor * Fraction(float((case.lower if factor > 0 else case.upper)[place]))

    def _place(self, code: int) -> int:
        places = self.specification.places
        return code // 2 if places is None else places[code // 2]

    def _ways(self, case: Case, claim: _Claim) -> dict[int, list[int]]:
        """For the inputs of a network that differ, whether they may rise (1) or fall (-1), or both."""
        terms, ordered = self.specification.terms or (), set[tuple[int, int]]()
        for halfspace in case.halfspaces:
            factors = {terms[i]: factor for i, factor in halfspace.coefficients.items() if factor}
            if len(factors) == 2 and halfspace.constant >= 0 and all(len(t) == 1 and t[0] % 2 == 0 for t in factors):
                (one, a), (other, b) = sorted(factors.items(), key=lambda each: each[1])
                if a == -b:  # other <= one
                    ordered.add((self._place(other[0]), self._place(one[0])))
        found = {}
        for j, (low, high) in enumerate(zip(claim.low, claim.high, strict=True)):
            if low != high:
                rises = (low, high) in ordered or case.upper[low] <= case.lower[high]
                falls = (high, low) in ordered or case.upper[high] <= case.lower[low]
                found[j] = [1] * (not falls) + [-1] * (not rises)
        return found

    def _hull(self, case: Case, claim: _Claim) -> tuple[Floats, Floats]:
        """A box with both inputs, and all between them."""
        ends = [list(places) for places in (claim.low, claim.high)]
        return np.minimum(*(case.lower[p] for p in ends)), np.maximum(*(case.upper[p] for p in ends))

    def by_signs(self, case: Case, claim: _Claim) -> bool:
        """Whether signs of weights prove a claim."""
        network, ways = self.copies.network(claim.network), self._ways(case, claim)
        rise, fall = (torch.zeros(len(claim.low), dtype=torch.bool) for _ in range(2))
        for j, signs in ways.items():
            rise[j], fall[j] = 1 in signs, -1 in signs
        bounds = intervals(network, *self._hull(case, claim))
        lower, upper = ([torch.from_numpy(pair[side]) for pair in bounds] for side in (0, 1))
        moves = directions(network, Moves(rise, fall), lower, upper)
        return not bool(moves.may_fall.flatten()[claim.output])

    def by_slopes(self, case: Case, claim: _Claim) -> bool:
        """Whether bounds of slopes prove a claim: of each input that differs, so that no one loses more than its share
        of what may be lost."""
        ways = self._ways(case, claim)
        wanted: list[tuple[Network, int, Fraction]] = []
        lower, upper = self._hull(case, claim)
        for j, signs in ways.items():
            width = Fraction(float(upper[j])) - Fraction(float(lower[j]))
            if not width:
                continue
            try:
                steep = slope(self.copies.network(claim.network), j)
            except UnsupportedError:
                return False
            wanted += [(steep, sign, _ALLOWED * claim.slack / (width * len(ways))) for sign in signs]
        if not all(self._looks(each, claim.output, lower, upper) for each in wanted):
            return False
        return all(self._proves(each, claim.output, lower, upper, len(wanted)) for each in wanted)

    def _looks(self, asked: tuple[Network, int, Fraction], output: int, lower: Floats, upper: Floats) -> bool:
        """Whether slopes at a few points are as they are asked to be."""
        steep, sign, slack = asked
        low, high = (torch.from_numpy(side).reshape(1, *steep.input_shape) for side in (lower, upper))
        generator = torch.Generator().manual_seed(0)
        points = low + torch.rand(_SAMPLES, *steep.input_shape, generator=generator, dtype=torch.float64) * (high - low)
        values = steep(points).flatten(1)[:, output]
        return bool((sign * values + float(slack) > 0).all())

    def _proves(
        self, asked: tuple[Network, int, Fraction], output: int, lower: Floats, upper: Floats, count: int
    ) -> bool:
        steep, sign, slack = asked
        rows = torch.zeros(1, 1, prod(steep.output_shape), dtype=torch.float64)
        rows[0, 0, output] = sign
        offsets = torch.tensor([[outward(slack, up=False)]], dtype=torch.float64)
        queries = Queries(rows, offsets, torch.zeros(1, 1, dtype=torch.int64), 1)
        region = Box(*(torch.from_numpy(side).reshape(1, *steep.input_shape) for side in (lower, upper)))
        found: list[Outcome] = []
        decide(steep, Questions(region, queries, lambda *_: False), Plan.of("auto").proving,
               lambda _, outcome: found.append(outcome), self.seconds / count, self.device,
               deterministic=self.deterministic)  # fmt: skip
        return [outcome.verdict for outcome in found] == [Verdict.HOLDS]
