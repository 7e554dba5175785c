"""Trees that split sigmoid and tanh: at any point, and again."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.certificate.corpus import i4
from tests.certificate.proofs import as_file, certificate
from tests.curved import Problem, problem

from krelax.bounds.methods import METHODS
from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.lemmas import Slot, leaves_of
from krelax.certificate.format.schema import Certificate, Choices, Layer, Lemma, Question, Region
from krelax.certificate.kernel.choices import _Splits
from krelax.search.attack import Attack
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict


def f4(*values: float) -> Any:
    return np.array(values, np.float32)


# --- searches


def decided(case: Problem, plan: Plan) -> Outcome:
    found: list[Outcome] = []
    decide(
        case.network,
        Questions(case.box, case.queries, lambda i, x, y: False),
        plan,
        lambda _, o: found.append(o),
        60.0,
        proofs=True,
    )
    return found[0]


@pytest.mark.parametrize(("kinds", "seed"), [("t", 5), ("st", 8), ("rs", 8)])
def test_what_splits_decide_is_accepted(kinds: str, seed: int, tmp_path: Path) -> None:
    """A margin between what is proven without splits and the truth; in both arithmetics, through the file. Certificates
    of what is not true are refused."""
    case = problem(tmp_path / "model.onnx", seed, kinds)
    alpha, truth = Plan((METHODS["alpha"],)), float(case.margins(case.inputs(100000)).min())
    before = decided(case, alpha).margin
    assert before is not None
    case = case.moved(0.35 * -before - 0.65 * truth)
    assert decided(case, alpha).verdict is Verdict.UNKNOWN
    outcome = decided(case, Plan((METHODS["alpha"], Attack(), Complete(split=("neurons",)))))
    assert outcome.verdict is Verdict.HOLDS
    model = case.path.read_bytes()
    write(tmp_path / "c.zip", Certificate(hashlib.sha256(model).hexdigest(), "real", "test", list(outcome.proofs)))
    kept = read(tmp_path / "c.zip")
    lemma = kept.questions[0].margins
    assert lemma is not None
    assert lemma.points is not None
    assert len(lemma.points) > 1
    assert (lemma.points != 0).any()  # elsewhere than at the inflection, too
    for exact in (False, True):
        margins = check(kept, model, exact=exact)
        assert 0 < min(margins) <= float(case.margins(case.inputs(100000)).min())
    refuse_what_is_changed(kept, lemma, model, case)
    short = replace(kept.questions[0], margins=replace(lemma, points=lemma.points[:-1]))
    with pytest.raises(ValueError, match=r"points: .* nodes"):
        write(tmp_path / "d.zip", replace(kept, questions=[short]))


def refuse_what_is_changed(kept: Certificate, lemma: Lemma, model: bytes, case: Problem) -> None:
    """Other points, other sides, subtrees of others: proofs of something true, or refused."""
    rng, question, truth = np.random.default_rng(0), kept.questions[0], float(case.margins(case.inputs(100000)).min())
    splits, rejected = np.flatnonzero(lemma.tree >= 0), 0
    assert lemma.points is not None
    for _ in range(12):
        points, tree, multipliers = lemma.points.copy(), lemma.tree.copy(), lemma.multipliers.copy()
        some = rng.choice(splits, min(3, len(splits)))
        points[some] = rng.normal(0, 2, len(some))
        multipliers *= rng.choice([1.0, 3.0, 0.0])
        changed = replace(question, margins=replace(lemma, points=points, tree=tree, multipliers=multipliers))
        try:
            assert min(check(replace(kept, questions=[changed]), model)) <= truth
        except (Rejected, Malformed):
            rejected += 1
    assert rejected > 2
    false = replace(question, offsets=question.offsets - truth)
    with pytest.raises(Rejected):
        check(replace(kept, questions=[false]), model)
    for wrong in (None, np.where(lemma.tree < 0, 1, lemma.points).astype(np.float32)):
        with pytest.raises(Malformed):
            check(replace(kept, questions=[replace(question, margins=replace(lemma, points=wrong))]), model)


# --- the format

SLOTS = [Slot(2, False), Slot(2, True)]


def tree(nodes: list[int], points: Any, splits: int) -> Lemma:
    return Lemma(i4(*nodes), np.zeros(splits, np.float32), points=points)


def test_a_neuron_may_be_split_again_at_another_point() -> None:
    lemma = tree([0, 0, -1, -1, 2, -1, -1], f4(0.5, 1.5, 0, 0, 0, 0, 0), 8)
    found = leaves_of(lemma, 1, SLOTS)
    assert found.neuron.tolist() == [0, 0, 0, 0, 0, 2, 0, 2]
    assert found.point.tolist() == [0.5, 1.5, 0.5, 1.5, 0.5, 0.0, 0.5, 0.0]
    assert found.side.tolist() == [1, 1, 1, -1, -1, 1, -1, -1]


@pytest.mark.parametrize(
    "lemma",
    [
        tree([0, 0, -1, -1, -1], f4(0.5, 0.5, 0, 0, 0), 5),  # twice at one point
        tree([2, -1, -1], f4(0.5, 0, 0), 2),  # linear on both sides of zero
        tree([2, 2, -1, -1, -1], f4(0, -0.0, 0, 0, 0), 5),  # minus zero is zero
        tree([0, -1, -1], f4(0.5, 0.5, 0), 2),  # of a leaf
        tree([0, -1, -1], None, 2),  # without points
        tree([4, -1, -1], f4(0.5, 0, 0), 2),  # there are four
        tree([0, -1], f4(0.5, 0), 1),  # no second side: a gap
    ],
)
def test_points_that_do_not_fit_are_malformed(lemma: Lemma) -> None:
    with pytest.raises(Malformed):
        leaves_of(lemma, 1, SLOTS)


def test_the_assumed_neuron_is_not_split_again() -> None:
    """It is the first on every path, with points and without."""
    for points in (None, f4(0, 0, 0)):
        with pytest.raises(Malformed):
            leaves_of(tree([3, -1, -1], points, 4), 1, SLOTS, assumed=3)
    found = leaves_of(tree([0, -1, -1], f4(0.25, 0, 0), 4), 1, SLOTS, assumed=3)
    assert found.neuron.tolist() == [3, 0, 3, 0]
    assert found.point.tolist() == [0, 0.25, 0, 0.25]
    assert found.side.tolist() == [-1, 1, -1, -1]


# --- the rule


def test_intervals_are_cut_at_every_point() -> None:
    numbers = (np.array(x) for x in ([0, 0, 1, 1], [0, 0, 1, 1], [-0.5, 0.25, 1.0, 1.5], [1.0, -1.0, 1.0, 1.0]))
    splits = _Splits(*numbers, np.array([0.0, 0.0, 2.0, 3.0]))  # type: ignore[call-arg]
    lower, upper = splits.cut((np.array([[-1.0, -2.0]]), np.array([[1.0, 2.0]])), 2)
    assert lower.tolist() == [[-0.5, -2.0], [-1.0, 1.5]]
    assert upper.tolist() == [[0.25, 2.0], [1.0, 2.0]]
    lowered = splits.tables(2, None)["lowered"]
    assert lowered.values.tolist() == [[0.0, 0.0], [0.0, 5.0]]


def sigmoid_at(point: float, line: tuple[float, float], offset: float) -> tuple[Certificate, bytes]:
    """One sigmoid of one input over [-4, 4], less a fifth of the input, split once: a lower line for each piece."""
    constants = [numpy_helper.from_array(np.float32([[w]]), f"w{i}") for i, w in enumerate([1.0, 1.0, -0.2])]
    nodes = [
        helper.make_node("Gemm", ["x", "w0"], ["z"], transB=1),
        helper.make_node("Sigmoid", ["z"], ["a"]),
        helper.make_node("Gemm", ["a", "w1"], ["s"], transB=1),
        helper.make_node("Gemm", ["x", "w2"], ["t"], transB=1),
        helper.make_node("Add", ["s", "t"], ["y"]),
    ]
    model = as_file(nodes, constants, (1, 1), "y")
    lines = np.array([[[line[0], 0.0]], [[line[1], 0.0]]], np.float32)
    crossing = Choices(0, i4(0, 1), i4(0), lines=lines)
    lemma = Lemma(i4(0, -1, -1), f4(0, 0), [crossing], points=f4(point, 0, 0))
    region = Region("box", np.array([-4.0]), np.array([4.0]))
    asked = Question(region, np.ones((1, 1)), np.array([offset]), i4(0), [Layer("interval")], lemma)
    return certificate(model, asked), model


def test_lines_count_for_what_they_are_over_their_piece() -> None:
    """Wrong points and wrong lines prove less, never too much."""
    z = np.linspace(-4, 4, 100001)
    least = float((1 / (1 + np.exp(-z)) - float(np.float32(0.2)) * z).min())
    right = float((1 / (1 + np.exp(-4)) - 0.5) / 4), 0.2

    def proven(point: float, line: tuple[float, float]) -> float:
        kept, model = sigmoid_at(point, line, 10.0)
        found = [min(check(kept, model, exact=exact)) - 10 for exact in (False, True)]
        assert max(found) <= least
        return found[0]

    best = proven(0.0, right)
    assert best > least - 1e-6
    for point, line in ((-1.0, right), (-2.0, right), (-9.0, right), (0.0, (0.05, 0.2)), (0.0, (right[0], 0.05))):
        assert proven(point, line) < best - 0.01
    kept, model = sigmoid_at(0.0, right, 0.005 - best)
    assert min(check(kept, model)) > 0
    kept, model = sigmoid_at(-1.0, right, 0.005 - best)
    with pytest.raises(Rejected):
        check(kept, model)
