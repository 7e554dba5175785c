"""Strict comparisons that outputs touch, and never satisfy: no bound of a closure can tell, intervals can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.run.files import model, node, save

from krelax.network.onnx import load_onnx
from krelax.problem.vnnlib import read_vnnlib
from krelax.run.verify import VerifyOptions, verify, verify_file
from krelax.search.verdict import Outcome, Verdict

BOX = """
(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)
(assert (>= X_0 -1)) (assert (<= X_0 2)) (assert (>= X_1 -0.1)) (assert (<= X_1 0.25))
"""


@pytest.mark.parametrize(
    ("formula", "verdict"),
    [
        ("(assert (< Y_0 0))", Verdict.HOLDS),
        ("(assert (<= Y_0 0))", Verdict.VIOLATED),
        ("(assert (> Y_0 2))", Verdict.HOLDS),
        ("(assert (>= Y_0 2))", Verdict.VIOLATED),
        ("(assert (< (+ Y_0 Y_1) 0))", Verdict.HOLDS),
        ("(assert (or (< Y_0 0) (>= Y_1 0.25)))", Verdict.VIOLATED),
        ("(assert (or (< Y_0 0) (> Y_1 0.25)))", Verdict.HOLDS),
        ("(assert (or (and (< Y_0 0) (>= Y_1 0)) (> Y_0 2)))", Verdict.HOLDS),
        ("(assert (< Y_0 1e-300))", Verdict.VIOLATED),
        ("(assert (> Y_1 0.2499999999))", Verdict.VIOLATED),
    ],
)
def test_strict_comparisons_at_the_ends(formula: str, verdict: Verdict, tmp_path: Path) -> None:
    assert asked(formula, tmp_path).verdict is verdict


@pytest.mark.parametrize("formula", ["(assert (< Y_0 0))", "(assert (> Y_0 2))"])
def test_what_needs_a_certificate_is_not_left_to_intervals(formula: str, tmp_path: Path) -> None:
    outcome = asked(formula, tmp_path, proofs=True)
    assert outcome.verdict is Verdict.UNKNOWN


def asked(formula: str, folder: Path, proofs: bool = False) -> Outcome:
    (folder / "p.vnnlib").write_text(BOX + formula, encoding="utf-8")
    network = load_onnx(save(model([node("Relu", "x", "y")]), folder / "m.onnx"))
    outcome = verify(network, read_vnnlib(folder / "p.vnnlib"), VerifyOptions("crown", proofs=proofs))
    if outcome.counterexample is not None:
        assert (outcome.counterexample.y == np.maximum(outcome.counterexample.x, 0)).all()
    return outcome


@pytest.mark.parametrize(
    ("formula", "verdict"),
    [
        ("(and (> Y[0,0] 0) (<= (* X[0,0] Y[0,0]) 0))", Verdict.HOLDS),
        ("(and (>= Y[0,1] 0) (<= (* X[0,0] Y[0,1]) 0))", Verdict.VIOLATED),
        ("(and (< Y[0,1] 0) (>= (* 2 X[0,0] Y[0,1]) (* X[0,1] X[0,1])))", Verdict.HOLDS),
        ("(and (>= X[0,1] 0) (> Y[0,0] 0) (<= (* 2 X[0,0] Y[0,0]) (* X[0,1] X[0,1])))", Verdict.HOLDS),
        ("(or (!= X[0,1] 0) (< (* X[0,1] X[0,1]) 0))", Verdict.VIOLATED),
    ],
)
def test_products_of_what_is_positive(formula: str, verdict: Verdict, tmp_path: Path) -> None:
    """Of ReLUs of both inputs, the second of which is not positive: margins of closures are zero in all of them."""
    query = """(vnnlib-version <2.0>)
        (declare-network f (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))
        (assert (and (> X[0,0] 0) (<= X[0,0] 2) (>= X[0,1] -1) (<= X[0,1] 0)))"""
    (tmp_path / "p.vnnlib").write_text(f"{query}(assert {formula})", encoding="utf-8")
    files = {None: save(model([node("Relu", "x", "y")]), tmp_path / "m.onnx")}
    _, outcome = verify_file(tmp_path / "p.vnnlib", files, lambda path, _: load_onnx(path), VerifyOptions("crown"))
    assert outcome.verdict is verdict
