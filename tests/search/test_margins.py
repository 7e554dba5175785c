"""When branching on margins is on course, and when it is not."""

from __future__ import annotations

from dataclasses import replace
from threading import Event

import pytest
import torch
from tests.bounds.test_branching import bounds_of, of_box
from tests.bounds.test_clipping import dyadic_layers

from krelax.bounds.bounded import Bounded
from krelax.bounds.branching import Proved
from krelax.problem.queries import Queries
from krelax.search import margins
from krelax.search.attack import Attack
from krelax.search.effort import Complete
from krelax.search.margins import Margins, Probe

START, DOUBLINGS, JUDGED = -1.0, 2.0, 500


class Pretended:
    """A search that takes the time it is given, or less, and comes as near to zero as it is told."""

    def __init__(self) -> None:
        self.now, self.leaves, self._worst, self.takes = 0.0, 0, START, 1.0

    def run(self, seconds: float) -> Proved:
        self.now += seconds * self.takes
        return Proved(torch.full((1,), START, dtype=torch.float64), None)

    def worst(self) -> float:
        return self._worst

    def turn(self, search: Margins, found: Bounded, leaves: int, worst: float) -> bool:
        """Whether the search is on course after another turn of a second."""
        self.leaves, self._worst = leaves, worst
        search.run(1.0)
        return search.is_on_course(DOUBLINGS, JUDGED)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> tuple[Pretended, Margins, Bounded, Event]:
    instance = replace(of_box(dyadic_layers(0, 2, 6, 5, 4, 1), [-0.5, -0.5], [0.5, 0.5]), cancelled=Event())
    one = torch.ones(1, 1, dtype=torch.float64)
    queries = Queries(one[None], one, torch.zeros(1, 1, dtype=torch.long), 1)
    found = Bounded(START * one, bounds_of(instance))
    probe = Probe(instance, queries, Attack(steps=1, first_step=0.1), lambda x: None)
    search, inner = Margins(instance, queries, found, Complete().branching, probe), Pretended()
    monkeypatch.setattr(search, "_search", inner)
    monkeypatch.setattr(margins, "now", lambda: inner.now)
    return inner, search, found, instance.cancelled


def test_the_last_turn_says_what_the_next_ones_bring(pretended: tuple[Pretended, Margins, Bounded, Event]) -> None:
    inner, search, found, _ = pretended
    assert inner.turn(search, found, 1000, -0.6)  # 0.4 of the way: two more such steps are enough
    assert not inner.turn(search, found, 2000, -0.5)
    assert not inner.turn(search, found, 4000, -0.45)
    assert inner.turn(search, found, 8000, -0.2)


def test_a_few_leaves_say_nothing_yet(pretended: tuple[Pretended, Margins, Bounded, Event]) -> None:
    inner, search, found, _ = pretended
    assert inner.turn(search, found, 20, -0.95)
    assert not inner.turn(search, found, 1000, -0.9)


def test_what_cannot_go_on_is_not_on_course(pretended: tuple[Pretended, Margins, Bounded, Event]) -> None:
    """However few leaves there are: nobody would wait for it to end."""
    inner, search, found, cancelled = pretended
    inner.takes = 0.5
    assert not inner.turn(search, found, 20, -0.5)
    inner.takes = 1.0
    assert inner.turn(search, found, 20, -0.5)
    cancelled.set()
    assert not search.is_on_course(DOUBLINGS, JUDGED)
