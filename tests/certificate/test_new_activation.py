"""An activation that the checker does not have: one class of rules, and one line of the table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.certificate.corpus import i4
from tests.certificate.proofs import as_file, certificate, leaves
from tests.test_extending import as_module, blocks

from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.schema import Choices, GroupSet, Layer, Lemma, Question, Region
from krelax.certificate.kernel.activations import RULES
from krelax.certificate.onnx.operator import OPERATORS
from krelax.errors import UnsupportedError

WEIGHTS = np.array([[1.0, 0.5], [-0.75, 1.0]]), np.array([[1.0, -0.5], [0.25, 1.0]])


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The rule of the recipe in docs/extending.md, and its line of the table, which is read when the program starts."""
    rule = as_module(blocks()[4][0], tmp_path / "asinh.py", "krelax.certificate.kernel.activations.asinh")
    monkeypatch.delitem(sys.modules, rule.__name__)
    monkeypatch.setitem(RULES, "Asinh", rule.Asinh)
    monkeypatch.setitem(OPERATORS, "Asinh", OPERATORS["Relu"])


def model() -> bytes:
    constants = [numpy_helper.from_array(w.astype(np.float32), f"w{i}") for i, w in enumerate(WEIGHTS)]
    nodes = [
        helper.make_node("Gemm", ["x", "w0"], ["z"], transB=1),
        helper.make_node("Asinh", ["z"], ["a"]),
        helper.make_node("Gemm", ["a", "w1"], ["y"], transB=1),
    ]
    return as_file(nodes, constants, (1, 2), "y")


REGION = Region("box", np.array([-0.5, -0.25]), np.array([0.75, 1.0]))


def truth() -> Any:
    """Outputs at points of the region, its corners among them."""
    x = np.stack(np.meshgrid(*(np.linspace(a, b, 41) for a, b in zip(REGION.lower, REGION.upper, strict=True))), -1)
    return np.arcsinh(x.reshape(-1, 2) @ WEIGHTS[0].T) @ WEIGHTS[1].T


def question(offset: float, lines: Any = None, tree: Any = None) -> Question:
    """Is the first output above `-offset`?"""
    crossings = [] if lines is None else [Choices(0, i4(0), i4(0, 1), lines=np.array([lines], np.float32))]
    lemma = Lemma(leaves(1) if tree is None else tree, np.zeros(0 if tree is None else 2, np.float32), crossings)
    return Question(REGION, np.eye(2)[:1], np.array([offset]), i4(0), [Layer("interval")], lemma)


@pytest.mark.parametrize("exact", [False, True], ids=["float64", "exact"])
@pytest.mark.parametrize("lines", [None, [[0.5, 0.6], [0.6, 0.7]], [[-3.0, 9.0], [4.0, -1.0]]])
def test_certificates_prove_no_more_than_the_truth(known: None, exact: bool, lines: Any) -> None:
    data, least = model(), truth()[:, 0].min()
    (margin,) = check(certificate(data, question(100.0, lines)), data, exact)
    assert margin <= 100 + least
    if lines is None:
        assert margin >= 100 + least - 0.2
        with pytest.raises(Rejected):  # tampered with: more is claimed than holds
            check(certificate(data, question(-least - 0.001)), data, exact)


def test_what_it_has_no_pieces_for_is_refused(known: None) -> None:
    data = model()
    split = question(100.0, tree=i4(0, -1, -1))
    fractions = question(100.0)
    assert fractions.margins is not None
    fractions.margins.crossings = [Choices(0, i4(0), i4(0, 1), slopes=np.zeros((1, 2), np.uint8))]
    for made in (split, fractions):
        with pytest.raises(Malformed):
            check(certificate(data, made), data)
    with pytest.raises(Rejected, match="asinh"):
        check(certificate(data, question(100.0), semantics="float32"), data)


def test_pairs_of_it_are_bounded_without_a_rule_of_their_own(known: None) -> None:
    data, grouped = model(), question(100.0)
    grouped.layers[0].groups = [GroupSet(np.array([[0, 1]], np.int32), np.array([[1, 1]], np.int8))]
    (margin,) = check(certificate(data, grouped), data)
    assert margin <= 100 + truth()[:, 0].min()


def test_without_its_line_in_the_table_its_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without the reader that composes it of others."""
    data = model()
    monkeypatch.delitem(OPERATORS, "Asinh")
    with pytest.raises(UnsupportedError, match="not supported by the checker: operator Asinh"):
        check(certificate(data, question(100.0)), data)
