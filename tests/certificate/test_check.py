"""The checker as a whole: questions that are checked together, errors of what is asked, proofs that do not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from tests.certificate.bases import MODELS, bases
from tests.certificate.corpus import NETWORKS, boxed, i4
from tests.certificate.files import F32, call, file
from tests.certificate.proofs import certificate, plain

from krelax.certificate import check as checker
from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected, TooClose
from krelax.certificate.format.schema import Boxes, Certificate, Forms, GroupSet, Layer, Lemma, Question, Region
from krelax.certificate.format.specification import match
from krelax.certificate.kernel.arithmetic import Exact, Float64
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.network import Affine
from krelax.certificate.kernel.region import Region as Boxed
from krelax.certificate.onnx.reader import read_network
from krelax.problem.query import Case, Halfspace, Specification

BASES = {name: (MODELS[network], make) for name, network, make in bases()}


def base(name: str) -> tuple[bytes, Certificate]:
    model, make = BASES[name]
    return model, deepcopy(make())


def test_one_question_that_does_not_fit_is_named_among_those_of_its_kind() -> None:
    """Those beside it are checked by themselves."""
    model, asked = NETWORKS["diamond"], [boxed(2.75) for _ in range(3)]
    assert len(check(certificate(model, *asked), model)) == 3
    asked[1].boxes = Boxes(i4(5, -1, -1), np.zeros(3))
    with pytest.raises(Malformed, match="question 1: a tree of boxes"):
        check(certificate(model, *asked), model)
    asked[1].boxes, asked[1].offsets = boxed(2.75).boxes, np.array([1.0])
    with pytest.raises(Rejected, match="question 1: what is proven"):
        check(certificate(model, *asked), model)


def test_questions_about_balls_answer_no_case_of_boxes() -> None:
    """A specification is about boxes, and found among all questions."""
    ball, box = boxed(2.75), boxed(2.75)
    ball.region = Region("l2", ball.region.lower, ball.region.upper, np.zeros(2), 9.0)
    case = Case(-np.ones(2), np.ones(2), (Halfspace({0: Fraction(1)}, Fraction(2.75)),))
    asked = Specification(2, 1, (case,))
    assert [e.tolist() for e in match(certificate(b"", ball, box), asked)] == [[[0.0, 0.0]]] * 2
    with pytest.raises(Rejected, match="unsafe case 0"):
        match(certificate(b"", ball), asked)


@pytest.mark.parametrize("name", ["residual joint", "pooled joint"])
def test_errors_of_margins_that_are_taken_together_are_paid_for(name: str) -> None:
    """By the largest outputs, whatever margin of a clause is the largest."""
    model, made = base(name)
    question = made.questions[0]
    error = np.zeros((len(question.rows), question.rows.shape[1] + 1))
    (margin,) = check(made, model, errors=[error])
    error[0, -1] = margin / 4
    (less,) = check(made, model, errors=[error])
    assert margin - less == pytest.approx(margin / 4, rel=1e-6)
    assert less < margin - margin / 4
    error[-1, -1] = 2 * margin
    with pytest.raises(Rejected):
        check(made, model, errors=[error])


def test_what_cases_take_counts_before_exact_numbers_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = base("deep case")
    question = made.questions[0]
    networks = checker._Networks(read_network(model))
    with_cases = checker._Checked(networks, question, False, None)
    assert question.cases
    without = checker._Checked(networks, deepcopy(question), False, None)
    without.question.cases = None
    assert with_cases._work() > without._work()
    margin = with_cases.margin(Float64())
    monkeypatch.setattr(checker._Checked, "_proven", lambda _, ar: -1e-20 if ar.name == "float64" else margin)
    monkeypatch.setattr(checker, "_MOST_EXACT", without._work())
    with pytest.raises(TooClose, match="too close to call"):
        with_cases.margin(Float64())
    assert without.margin(Float64()) == margin


WRONG: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "a case at no level": ("deep case", lambda q: setattr(q.cases[0], "level", 0.0), "level that is not positive"),
    "a case about no activation": (
        "deep case", lambda q: setattr(q.cases[0].steps[0], "activation", 99), "an activation that does not exist"),
    "clips at no level": ("deep clips", lambda q: setattr(q.margins, "level", None), "clips of forms|none may be"),
    "clips at level zero": ("deep clips", lambda q: setattr(q.margins, "level", 0.0), "not positive"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_proofs_that_do_not_fit_say_what_does_not(name: str) -> None:
    of, change, message = WRONG[name]
    model, made = base(of)
    change(made.questions[0])
    with pytest.raises(Malformed, match=message):
        check(made, model)


@pytest.mark.parametrize(("exponent", "fits"), [(0, True), (100, True), (101, False), (-101, False)])
def test_operands_of_products_are_scaled_by_a_few_powers_of_two(exponent: int, fits: bool) -> None:
    model = file([call("Gemm", "x w", "a"), call("Mul", "a x")], {"w": F32([[1, -1], [0.5, 1]])})
    groups = GroupSet(i4(0, 1)[None], np.array([[1, 1]], np.int8), i4(exponent))
    question = Question(
        Region("box", -np.ones(2), np.ones(2)), np.ones((1, 2)), np.array([9.0]), i4(0),
        [Layer("interval", [], [groups])], plain(1),
    )  # fmt: skip
    made = certificate(model, question)
    if fits:
        assert check(made, model)[0] > 0
    else:
        with pytest.raises(Malformed, match="exponents beyond 100"):
            check(made, model)


@pytest.mark.parametrize("exact", [False, True])
def test_entries_that_are_always_zero_are_bounded_by_zero(exact: bool) -> None:
    """A pre-activation of which an entry is padding: nothing of it depends on the input."""
    model = file([call("Pad", "x p", "t"), call("Relu", "t", "r"), call("MatMul", "r w")],
                 {"p": np.array([0, 1, 0, 0]), "w": F32([[-1], [1], [1]])})  # fmt: skip
    about = Forms(i4(0, 1), i4(0, 0), np.array([1.0, -1.0]))
    claim = Lemma(i4(-1, -1), np.zeros(0, np.float32), [], about)
    network = read_network(model).over(Exact() if exact else Float64())
    question = Question(
        Region("box", -np.ones(2), np.ones(2)), np.ones((1, 1)), np.array([2.0**-20]), i4(0),
        [Layer("interval", [claim])], plain(1),
    )  # fmt: skip
    made = Certificate(hashlib.sha256(model).hexdigest(), "real", "test", [question])
    (margin,) = check(made, model, exact)
    assert 0 < margin <= 2.0**-20
    assert network.size(network.before(0)) == 3


def test_executions_whose_terms_are_too_large_are_rejected() -> None:
    """Bounds of terms are looked at, too, and not only products of factors, which are as large."""
    network = read_network(file([call("MatMul", "x w")], {"w": F32([[1, 1], [1, 1]])}))
    node, reach = network.nodes[-1], np.ones((1, 2))
    assert isinstance(node, Affine)
    for size, fits in ((2.0**100, True), (2.0**127, False)):
        end = np.full((1, 2), size)
        bounds = LayerBounds.of(network, Boxed(-end, end), Float64(), True)
        if fits:
            assert (bounds._magnitude(node, reach) >= 2 * size).all()
        else:
            with pytest.raises(Rejected, match="may overflow"):
                bounds._magnitude(node, reach)
