"""Several ways of deciding one question, worked on in turns.

Nobody knows beforehand which of them will do. So each gets slices of time that double, or last until another one is
due, the one that has had least next, and all of them together never take much longer than the best of them would alone.
Ways that only look for counterexamples do not hurry those that prove: work that cannot pause lasts until another of the
latter is due.

A way is first tried when its first step, whose price is known beforehand, is no dearer than what others have had. Later
its own progress may give it a larger share than others, or a smaller one, but always some.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from krelax.bounds.instance import Instance
from krelax.search.effort import SearchResult
from krelax.watch import now

# Seconds of the first slice.
_FIRST = 0.1
# The smallest and the largest share of the time of a way whose course is known, of which other ways have one.
_LEAST, _MOST = 1 / 8, 4.0
# The part of the patience after which it is looked again whether a search is on course.
_LOOK = 1 / 4


class Way(Protocol):
    """A way of deciding a question that can go on where it stopped."""

    @property
    def proves(self) -> bool:
        """Whether it can prove that a property holds; the work ends with the last way that can."""
        ...

    @property
    def price(self) -> float:
        """Seconds that its first step takes, roughly, on any machine."""
        ...

    @property
    def weight(self) -> float:
        """Its share of the time, relative to others."""
        ...

    @property
    def ahead(self) -> float:
        """Seconds of its own that it still takes at the pace it has had; infinite where nothing tells."""
        ...

    @property
    def found(self) -> SearchResult:
        """What it has come to."""
        ...

    def advance(self, seconds: float, patience: float) -> bool:
        """Go on for about so long; says whether there is more to do. What cannot pause may take up to `patience`."""
        ...


class Course:
    """How fast the part of the work that is done grows, and the share of the time that it earns.

    What is left is guessed at the pace of all the time so far and at that of its latter half: a tree may close most of
    a region at once and then hardly anything, or nothing for long and then much.
    """

    def __init__(self) -> None:
        self._readings = [(0.0, 0.0)]
        self.ahead = math.inf

    def weight(self, seconds: float, done: float) -> float:
        """The share after so many more seconds, when such a part is done: one, where the rest would take four times as
        long as it has had so far; the geometric mean of both guesses."""
        now = max(self._readings[-1][0] + seconds, 1e-9)
        half = max(reading for reading in self._readings if reading[0] <= now / 2)
        self._readings.append((now, done))
        rates = (done / now, (done - half[1]) / (now - half[0]))
        self.ahead = (1 - done) / max(math.sqrt(math.prod(max(rate, 0.0) for rate in rates)), 1e-9)
        return math.sqrt(math.prod(_share(4 * rate * now / max(1 - done, 1e-9)) for rate in rates))


def _share(weight: float) -> float:
    return min(_MOST, max(_LEAST, weight))


class Turns(NamedTuple):
    """The way that has decided, or that has proven most, and whether the others were given up as off course."""

    best: Way
    off_course: bool = False


def take_turns(ways: Sequence[Way], instance: Instance, patience: float = math.inf) -> Turns:
    """Work on all ways until one has decided the question, none that proves goes on, or the instance's deadline has
    passed. After so many seconds of `patience` they go on only as long as one of those that prove is on course to have
    done before the deadline."""
    spent, going, off_course = [0.0] * len(ways), list(range(len(ways))), False

    def due(i: int) -> float:
        return (spent[i] + ways[i].price) / ways[i].weight

    def until(i: int, others: list[int]) -> float:
        """Seconds until another one is due, but not less than what was spent already."""
        first = min((due(j) for j in others if j != i), default=float("inf"))
        return max(_FIRST, ways[i].price, spent[i], first * ways[i].weight - ways[i].price - spent[i])

    def ahead() -> float:
        """Seconds until one of them has done, if it goes on to have the part of the time that it has had."""
        return min((ways[i].ahead * sum(spent) / spent[i] for i in proving if spent[i] > 0), default=math.inf)

    while proving := [i for i in going if ways[i].proves]:
        if instance.expired():
            break
        rest = patience - sum(spent)
        off_course = rest <= 0 and instance.deadline is not None and now() + ahead() > instance.deadline
        if off_course:
            break
        i = min(going, key=due)
        began = now()
        slice_ = until(i, going)
        goes_on = ways[i].advance(min(slice_, rest if rest > 0 else _LOOK * patience), until(i, proving))
        spent[i] += now() - began
        if ways[i].found.decided:
            return Turns(ways[i])
        if not goes_on:
            going.remove(i)
    return Turns(max(reversed(ways), key=lambda way: way.found.margin), off_course)
