"""Questions that run out of their shares of the time are searched again where others have left some."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.search.asking import answers
from tests.search.test_stages import loose

from krelax.bounds.methods import METHODS
from krelax.search import stages
from krelax.search.effort import Complete, SearchResult
from krelax.search.pipeline import Plan
from krelax.search.verdict import Verdict

PLAN = Plan((METHODS["interval"], Complete()))


class Pretended:
    """Searches: the clock says what is left, and `found` what each question comes to, round after round."""

    found: Callable[[int, int], SearchResult]

    def __init__(self, *_: object) -> None:
        rounds.append([])

    def __enter__(self) -> Pretended:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, work: object, asked: Sequence[int]) -> Iterator[tuple[int, SearchResult]]:
        for i in asked:
            rounds[-1].append(i)
            yield i, Pretended.found(i, len(rounds))


rounds: list[list[int]] = []
LATE, HOLDS = SearchResult(-0.5, "timeout"), SearchResult(0.5, "branching")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    def ask(shares: list[float], found: Callable[[int, int], SearchResult]) -> list[Any]:
        rounds.clear()
        left = iter(shares)
        monkeypatch.setattr(stages, "SideBySide", Pretended)
        monkeypatch.setattr(stages, "_share", lambda *_: next(left))
        monkeypatch.setattr(Pretended, "found", staticmethod(found), raising=False)
        run: Any = stages.Run  # type: ignore[attr-defined]
        monkeypatch.setattr(run, "bounded", lambda self, i, margin, _: self.margins.update({i: margin}))
        network, question = loose()
        three = [replace(question, upper=question.upper * (1 - k / 64)) for k in range(3)]
        return answers(network, three, PLAN)

    return ask


def test_they_have_what_others_left(asked: Callable[..., list[Any]]) -> None:
    outcomes = asked([5.0, 20.0, 20.0, 20.0], lambda i, n: LATE if i == 1 and n == 1 else HOLDS)
    assert sorted(rounds[0]) == [0, 1, 2]
    assert rounds[1:] == [[1]]
    assert {o.verdict for o in outcomes} == {Verdict.HOLDS}


def test_not_with_hardly_more_than_before(asked: Callable[..., list[Any]]) -> None:
    outcomes = asked([5.0, 7.0], lambda i, n: LATE if i == 1 else HOLDS)
    assert len(rounds) == 1
    assert [(o.verdict, o.reason, o.margin) for o in outcomes][1] == (Verdict.UNKNOWN, "timeout", -0.5)


def test_not_what_ended_for_another_reason(asked: Callable[..., list[Any]]) -> None:
    outcomes = asked([5.0, 50.0], lambda i, n: SearchResult(-0.5, "nothing is left"))
    assert len(rounds) == 1
    assert {o.reason for o in outcomes} == {"nothing is left"}
