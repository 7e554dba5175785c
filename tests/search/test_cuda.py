"""The same code on a GPU: on one that is there, or on a pretended one that minds where tensors are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from tests.bounds.problems import METHODS as SHORT
from tests.gpu import gpu
from tests.marks import ALIKE, at_night_after
from tests.search.asking import answers, check_counterexample, specification
from tests.search.planted import FAMILIES, plant
from tests.search.test_planted import check
from tests.search.test_writing import METHODS_TRIED, accepted, asked, checked, decided, narrow, searched, several
from torch import Tensor

from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, Method, bound
from krelax.hull import scan
from krelax.network.graph import Network
from krelax.problem.queries import Queries
from krelax.problem.region import Region, ball
from krelax.proof.encode import question
from krelax.proof.log import ProofLog
from krelax.search.attack import Attack, search
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan
from krelax.search.questions import Questions, about_specification
from krelax.search.verdict import Verdict

SMALLEST = [(family, sizes[0]) for family, (_, sizes) in FAMILIES.items()]
# those that solve linear programs work on the CPU meanwhile
USUAL = [name for name, method in METHODS.items() if name not in ALIKE or method.program]
# Two families for every method, one of them always for those that are like no other, and every family for some.
METHODS_ON = [
    (method, *SMALLEST[(3 * i + j) % len(SMALLEST)])
    for j in (0, 2)
    for i, method in enumerate([*USUAL, *sorted(ALIKE - set(USUAL))])
]
NEURONS = Complete(split=("neurons",), passes=())


def compare(network: Network, region: Region, queries: Queries, method: Method, at: Tensor) -> None:
    """Bounds there are no larger than margins `at` points of the regions, and those of the CPU.

    A real GPU adds in another order, which sends ascents elsewhere; they are at least as good as where they start.
    """
    real = torch.cuda.is_available()
    with patch.object(scan, "COMPILED", False):  # as it is there
        reference = METHODS["crown"] if real and method.inner else method
        noting = replace(Instance.of(network, region), logs=tuple(ProofLog() for _ in range(len(region))))
        expected = bound(noting, queries, reference).value
    with gpu() as there:
        logs = tuple(ProofLog() for _ in range(len(region)))
        instance = replace(Instance.of(network, region.to(torch.float64, "cuda")), logs=logs)
        found = bound(instance, queries.to(torch.float64, "cuda"), method)
        assert all(there(t) for t in (found.value, *found.bounds.lower, *found.bounds.upper))
        value = found.value.cpu()
        first = torch.arange(1)
        conclusion = found.conclusion()
        assert conclusion is not None
        written = question(network, region.select(first), queries.select(first), logs[0], conclusion)
        assert written.margins is not None
    if real and method.inner:
        assert (value >= expected - 1e-9 * (1 + expected.abs())).all()
    else:
        tolerance = 1e-9 if real else 0.0
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)
    margins = queries.values(network(at).unsqueeze(1))[:, 0]
    assert (value <= margins + 1e-9 * (1 + margins.abs())).all()


def planted(family: str, inputs: int, count: int = 1) -> tuple[Network, Questions, Tensor]:
    """Some questions about a planted network, the first with a clause of two margins, and its secret input."""
    about = plant(family, inputs, 0)
    case = specification(about.network, about.questions[1 : 1 + count])
    at = torch.from_numpy(about.secret).expand(count, *about.network.input_shape)
    return about.network, about_specification(about.network, case), at


@pytest.mark.parametrize(("method", "family", "inputs"), at_night_after(len(USUAL), METHODS_ON))
def test_bounds_are_the_same_there(method: str, family: str, inputs: int) -> None:
    network, questions, secret = planted(family, inputs, 1 if METHODS[method].separate else 2)
    compare(network, questions.region, questions.queries, SHORT[method], secret)


@pytest.mark.parametrize(
    ("norm", "method"), at_night_after(2, [("l1", "zonotope"), ("l2", "crown"), ("l1", "lp"), ("l2", "krelu")])
)
def test_balls(norm: str, method: str) -> None:
    network, questions, _ = planted("residual", 8)
    centre = (questions.region.lower + questions.region.upper) / 2
    compare(network, ball(centre, 0.1, norm), questions.queries, SHORT[method], centre)


def test_attacks_are_the_same_there() -> None:
    """Where they start, on a real GPU; from there on it rounds otherwise, and which of equal points is best is its own
    choice."""
    network, questions, _ = planted("dense", 8, 2)
    queries = questions.queries.to(torch.float32)
    attack = Attack(steps=0 if torch.cuda.is_available() else 40)
    expected = search(Instance.of(network, questions.region), queries, attack)
    with gpu() as there:
        instance = Instance.of(network, questions.region.to(torch.float64, "cuda"))
        found = search(instance, queries.to(torch.float32, "cuda"), attack)
        assert all(map(there, found))
        points, margins = (t.cpu() for t in found)
    if not torch.cuda.is_available():
        torch.testing.assert_close(points, expected[0])
    again = queries.margin(queries.values(network.to(torch.float32)(points)[:, None]))[:, 0]
    torch.testing.assert_close(again, expected[1])
    torch.testing.assert_close(margins, expected[1])


# every family always, with one kind of needle
NEEDLES = [(*smallest, (i + j) % 2 == 1) for j in range(2) for i, smallest in enumerate(SMALLEST)]


@pytest.mark.parametrize(("family", "inputs", "safe"), at_night_after(len(SMALLEST), NEEDLES))
def test_no_verdict_is_wrong(family: str, inputs: int, safe: bool) -> None:
    about = plant(family, inputs, 0, safe)
    with gpu():
        check(about, about.questions[1:3], "auto", 0.25, "cuda")


@pytest.mark.parametrize("search", [Complete(), NEURONS], ids=["boxes", "neurons"])
def test_counterexamples_are_found(search: Complete) -> None:
    about = plant("slim", 2, 0)
    with gpu():
        (outcome,) = answers(about.network, about.questions[2:3], Plan((search,)), 60, "cuda")
    check_counterexample(outcome, about.network, about.questions[2])


@pytest.mark.parametrize(
    ("name", "which"), at_night_after(1, [("digits_conv", slice(3, 5)), ("digits_dense", slice(5, 7))])
)
def test_proofs_are_accepted(name: str, which: slice, tmp_path: Path) -> None:
    plan = Plan((METHODS["crown"], METHODS["alpha"], Complete(split=("neurons",))))
    with gpu():
        outcomes, model = searched(name, 0.08, plan, which, "cuda")
    assert {o.verdict for o in outcomes} == {Verdict.HOLDS}
    assert "branching" in {o.reason for o in outcomes}
    for outcome in outcomes:
        accepted(outcome, model, tmp_path / "c.zip")


@pytest.mark.parametrize(
    ("name", "method"),
    at_night_after(1, [("digits_conv", "pairs"), ("digits_dense", "cuts"), ("digits_conv", "triples")]),
)
def test_proofs_of_groups_are_accepted(name: str, method: str, tmp_path: Path) -> None:
    instance, queries, model = asked(name, 0.07, 9.0)
    log = ProofLog()
    with gpu():
        there = Instance.of(instance.network, instance.region.to(torch.float64, "cuda"))
        there = replace(there, logs=(log,))
        found = bound(there, queries.to(torch.float64, "cuda"), METHODS_TRIED[method])
        margin = checked(instance, queries, log, found, model, tmp_path / "c.zip")
        assert -2e-4 <= margin - float(found.value.min()) <= 0.02


About = Callable[[Path], Questions]
SEARCHES: dict[str, tuple[About, Complete]] = {
    "boxes": (lambda path: narrow(path, 4, 0.05)[0], Complete()),
    "neurons": (lambda path: narrow(path, 5, 0.01)[0], NEURONS),
    "clauses of several margins, and linear programs": (lambda path: several(path, 0), NEURONS),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_proofs_of_searches_are_accepted(name: str, tmp_path: Path) -> None:
    about, search = SEARCHES[name]
    path = tmp_path / "small.onnx"
    questions = about(path)
    with gpu():
        outcome, found = decided(path, questions, search, "cuda")
    assert outcome.margin is not None
    assert found >= 0.999 * outcome.margin - 1e-9
