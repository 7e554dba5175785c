"""Several ways of deciding a question in turns, on a clock of their own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tests.bounds.test_branching import of_box
from tests.bounds.test_clipping import dyadic_layers

from krelax.network.graph import products
from krelax.search import schedule
from krelax.search.effort import SearchResult
from krelax.search.schedule import Course, take_turns


class Clock:
    def __init__(self) -> None:
        self.now = 0.0


class Pretended:
    """A way that decides its question after so many seconds, or ends without an answer."""

    proves = True

    def __init__(self, clock: Clock, needs: float, price: float = 0.0, weight: float = 1.0, ends: float = 1e9) -> None:
        self.clock, self.needs, self.ends = clock, needs, ends
        self.price, self.weight = price, weight
        self.left = torch.inf
        self.spent, self.slices, self.found = 0.0, list[float](), SearchResult(-torch.inf, "timeout")

    @property
    def ahead(self) -> float:
        return self.left

    def advance(self, seconds: float, patience: float) -> bool:
        assert patience >= seconds
        took = min(seconds, self.needs - self.spent, self.ends - self.spent)
        self.clock.now += took
        self.spent += took
        self.slices.append(took)
        if self.spent >= self.needs:
            self.found = SearchResult(1.0, "decided")
        return self.spent < min(self.needs, self.ends)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(schedule, "now", lambda: clock.now)
    return clock


INSTANCE = SimpleNamespace(expired=lambda: False)


def turns(*ways: Pretended) -> Pretended:
    best, off_course = take_turns(ways, INSTANCE)  # type: ignore[arg-type]
    assert isinstance(best, Pretended)
    assert not off_course
    return best


@pytest.mark.parametrize("needs", [0.05, 1.0, 17.0, 300.0])
@pytest.mark.parametrize("first", [True, False])
def test_both_never_take_much_longer_than_the_better_one(clock: Clock, needs: float, first: bool) -> None:
    good, bad = Pretended(clock, needs), Pretended(clock, 1e9)
    assert turns(*([good, bad] if first else [bad, good])) is good
    assert clock.now <= 3 * needs + 0.2


def test_slices_double(clock: Clock) -> None:
    one, other = Pretended(clock, 10.0), Pretended(clock, 1e9)
    turns(one, other)
    assert one.slices[1:4] == pytest.approx([0.1, 0.2, 0.4])
    assert other.slices[1:4] == pytest.approx([0.1, 0.2, 0.4])


def test_a_slice_lasts_until_another_way_is_due(clock: Clock) -> None:
    """What cannot pause gets more than what was spent before, where nobody waits for it."""
    dear, cheap = Pretended(clock, 1.0, price=50.0), Pretended(clock, 1e9, weight=2.0)
    turns(dear, cheap)
    assert cheap.slices == pytest.approx([100.0])


def test_who_is_dear_waits(clock: Clock) -> None:
    dear, cheap = Pretended(clock, 1.0, price=50.0), Pretended(clock, 20.0)
    assert turns(dear, cheap) is cheap
    assert not dear.slices
    dear, cheap = Pretended(clock, 1.0, price=50.0), Pretended(clock, 1e9)
    assert turns(dear, cheap) is dear
    assert cheap.spent <= 102


def test_weights_share_the_time_out(clock: Clock) -> None:
    light, heavy = Pretended(clock, 1e9, weight=1 / 8), Pretended(clock, 100.0)
    assert turns(light, heavy) is heavy
    assert light.spent <= 2 * 100 / 8


def test_what_has_ended_leaves_the_time_to_others(clock: Clock) -> None:
    ended, other = Pretended(clock, 1e9, ends=0.25), Pretended(clock, 70.0)
    assert turns(ended, other) is other
    assert clock.now == pytest.approx(70.25)


def test_the_work_ends_with_the_last_way_that_proves(clock: Clock) -> None:
    endless, other = Pretended(clock, 1e9, weight=1 / 16), Pretended(clock, 1e9, ends=20.0)
    endless.proves = False
    assert turns(endless, other) is other
    assert clock.now <= 20 * (1 + 2 / 16) + 0.2


def test_without_an_answer_what_is_proven_best_counts(clock: Clock) -> None:
    one, other = Pretended(clock, 1e9, ends=1.0), Pretended(clock, 1e9, ends=1.0)
    one.found = SearchResult(-1.0, "nothing is left")
    assert turns(one, other) is one
    other.found = SearchResult(-1.0, "nothing is left here, either")
    assert turns(one, other) is other


@pytest.mark.parametrize(
    ("ahead", "seconds"),
    [
        (torch.inf, 8.0),  # nothing tells that it will have done
        (30.0, 22.0),  # at first it will have done before the deadline
        (45.0, 8.0),
    ],
)
def test_what_is_off_course_is_given_up_after_some_time(clock: Clock, ahead: float, seconds: float) -> None:
    way = Pretended(clock, 1e9)
    way.left = ahead
    instance = SimpleNamespace(expired=lambda: clock.now >= 50.0, deadline=50.0)
    way.advance = lambda seconds, patience, own=way.advance: own(min(seconds, 50.0 - clock.now), 50.0)  # type: ignore
    found = take_turns([way], instance, 8.0)  # type: ignore[list-item, arg-type]
    assert clock.now == pytest.approx(seconds)
    assert found.off_course


def test_whether_it_is_on_course_is_looked_at_again(clock: Clock) -> None:
    class Slowing(Pretended):
        @property
        def ahead(self) -> float:
            return 10.0 if self.spent < 11 else 1e3

    way = Slowing(clock, 1e9)
    found = take_turns([way], SimpleNamespace(expired=lambda: False, deadline=50.0), 8.0)  # type: ignore
    assert found.off_course
    assert clock.now == pytest.approx(12.0)


def test_what_is_on_course_has_done(clock: Clock) -> None:
    way = Pretended(clock, 20.0)
    way.left = 12.0
    found = take_turns([way], SimpleNamespace(expired=lambda: False, deadline=50.0), 8.0)  # type: ignore
    assert (found.best, found.off_course) == (way, False)


def test_products_of_a_network_are_counted() -> None:
    network = of_box(dyadic_layers(0, 2, 6, 5, 4, 1), [-0.5, -0.5], [0.5, 0.5]).network
    assert products(network.nodes) >= 2 * 6 + 6 * 5 + 5 * 4 + 4


def test_steady_progress_earns_what_it_promises() -> None:
    course = Course()
    assert [course.weight(1.0, done) for done in (0.1, 0.2, 0.3, 0.4, 0.5)] == pytest.approx(
        [4 * done / (1 - done) for done in (0.1, 0.2, 0.3, 0.4)] + [4.0]
    )
    assert course.ahead == pytest.approx(5.0)
    course.weight(5.0, 0.4)  # less of a tree may be closed than before
    assert course.ahead > 1e3


def test_what_was_done_at_once_does_not_count_for_long() -> None:
    """Most of the work is done in the first second, and then hardly any."""
    course = Course()
    weights = [course.weight(1.0, 0.8 + n / 1000) for n in range(1, 5)]
    assert weights[0] == 4.0
    assert weights[-1] == pytest.approx((4.0 / 8) ** 0.5)
