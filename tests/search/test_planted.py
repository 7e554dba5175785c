"""Counterexamples that no attack finds are never proven away, and what narrowly holds is never refuted."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch
from tests.exact_cells import least_margin
from tests.marks import ALIKE, at_night_after
from tests.search.asking import Question, answers, check_counterexample, margin_at
from tests.search.planted import DEPTH, FAMILIES, MISS, SMOOTH, Planted, plant

from krelax.bounds.methods import METHODS
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan
from krelax.search.verdict import Verdict

NETWORKS = [(family, inputs) for family, (_, sizes) in FAMILIES.items() for inputs in sizes]
# searches take their time: of every family the smallest network always with one kind of needle, the largest with the
# other, in turn
ENDS = [
    (family, sizes[0 if safe == i % 2 else -1], bool(safe))
    for i, (family, (_, sizes)) in enumerate(FAMILIES.items())
    for safe in (0, 1)
]
SEARCHED = [*ENDS, *(one for network in NETWORKS for safe in (False, True) if (one := (*network, safe)) not in ENDS)]
PIECEWISE = [n for n in SEARCHED if n[0] not in SMOOTH]
SMALLEST = [(family, sizes[0]) for family, (_, sizes) in FAMILIES.items()]
PLANAR = [(family, inputs) for family, inputs in NETWORKS if inputs == 2 and family not in SMOOTH]
SEEDS = range(2)
# Methods that take each region by itself are slow: each of them gets two families only, and one of them always, if it
# is like no other.
METHODS_ON = [
    (method, *SMALLEST[(i + 3 * j) % len(SMALLEST)])
    for j in range(len(SMALLEST))
    for i, method in enumerate(sorted(METHODS, key=ALIKE.__contains__))
    if j < 2 or not METHODS[method].separate
]
EITHER = pytest.mark.parametrize("safe", [False, True], ids=["planted", "lowered"])

planted = cache(plant)


def margin_at_secret(asked: Planted, question: Question) -> Fraction:
    """Exact for piecewise-linear networks, to twelve digits for others; the margin over the box is no larger."""
    if asked.linear:
        return margin_at(asked.network, question, asked.secret)
    y = asked.network(torch.from_numpy(asked.secret)[None]).flatten().numpy()
    return Fraction(float(min((rows @ y + offsets).max() for rows, offsets in question.clauses)) + 1e-12)


def check(asked: Planted, questions: list[Question], plan: str | Plan, seconds: float, device: str = "cpu") -> None:
    """No verdict is wrong, no counterexample spurious and no proven margin larger than the one at the secret input."""
    wrong = Verdict.VIOLATED if asked.safe else Verdict.HOLDS
    for question, outcome in zip(questions, answers(asked.network, questions, plan, seconds, device), strict=True):
        assert outcome.verdict is not wrong, (asked.name, outcome.reason)
        assert outcome.margin is None or Fraction(outcome.margin) <= margin_at_secret(asked, question)
        if outcome.verdict is Verdict.VIOLATED:
            check_counterexample(outcome, asked.network, question)


@EITHER
@pytest.mark.parametrize(("family", "inputs"), NETWORKS)
def test_the_secret_input_is_what_it_should_be(family: str, inputs: int, safe: bool) -> None:
    """Inside every box and far from its middle; a counterexample, in float32 too, or close to one."""
    for seed in SEEDS:
        asked = planted(family, inputs, seed, safe)
        x = asked.secret.astype(np.float32)
        assert (x == asked.secret).all()
        assert asked.network.replay is not None
        y = asked.network.replay(x).flatten()
        for question in asked.questions:
            margin = margin_at_secret(asked, question)
            assert (question.lower <= asked.secret).all()
            assert (asked.secret <= question.upper).all()
            assert np.abs(asked.secret - (question.lower + question.upper) / 2).max() > 2.0**-7
            assert margin >= Fraction(MISS) if safe else margin <= -Fraction(DEPTH) + Fraction(1, 1000)
            assert any(case.contains(x.flatten(), y) for case in question.cases()) is not safe
        if asked.linear and safe:
            assert min(margin_at_secret(asked, q) for q in asked.questions) == Fraction(MISS)


@pytest.mark.parametrize(("family", "inputs"), PLANAR)
def test_lowered_needles_leave_a_margin(family: str, inputs: int) -> None:
    """The exact minimum over the whole square, away from the secret input too."""
    asked = planted(family, inputs, 0, True)
    for question in asked.questions:
        assert least_margin(asked.network, question.lower, question.upper, question.clauses).value >= Fraction(MISS)


@pytest.mark.parametrize(("family", "inputs", "safe"), at_night_after(len(ENDS), SEARCHED))
def test_the_staged_run(family: str, inputs: int, safe: bool) -> None:
    """The first kind of needle planted, the second lowered; the other way round at night."""
    asked = planted(family, inputs, int(safe), safe)
    check(asked, asked.questions, "auto", 0.25 if inputs <= 4 or family == "slim" else 0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "inputs", "safe"), SEARCHED)
def test_the_staged_run_on_other_needles(family: str, inputs: int, safe: bool) -> None:
    asked = planted(family, inputs, int(not safe), safe)
    check(asked, asked.questions, "auto", 0.25 if inputs <= 4 or family == "slim" else 0.15)


@pytest.mark.parametrize(("family", "inputs", "safe"), at_night_after(len(ENDS) - 2 * len(SMOOTH), PIECEWISE))
def test_clips_from_the_beginning(family: str, inputs: int, safe: bool) -> None:
    """Neurons are split, and leaves narrow intervals at once."""
    search = Complete(split=("neurons",), passes=(), branching=replace(Complete().branching, clips=0.0))
    asked = planted(family, inputs, 0, safe)
    check(asked, asked.questions, Plan((METHODS["crown"], search)), 0.25)


@pytest.mark.parametrize(("family", "inputs", "safe"), at_night_after(len(ENDS), SEARCHED))
def test_contradictions_from_the_beginning(family: str, inputs: int, safe: bool) -> None:
    """Neither branching nor passes come before them."""
    search = Complete(split=("neurons",), passes=(), turn=0.0, hope=0.0, judged=0, promising=0.0)
    asked = planted(family, inputs, 1, safe)
    check(asked, asked.questions, Plan((METHODS["crown"], search)), 0.25)


# each with one kind of needle always
NEEDLES = [(*on, (i + j) % 2 == 1) for j in range(2) for i, on in enumerate(METHODS_ON)]


@pytest.mark.parametrize(("method", "family", "inputs", "safe"), at_night_after(len(METHODS) - len(ALIKE), NEEDLES))
def test_every_method(method: str, family: str, inputs: int, safe: bool) -> None:
    asked = planted(family, inputs, 1, safe)
    check(asked, asked.questions[1:2], method, 0.4)
