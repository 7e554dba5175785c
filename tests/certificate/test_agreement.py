"""Both arithmetics of the checker come to the same: no choice is left to numbers that round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.certificate.agreement import case_of, examine
from tests.certificate.corpus import NETWORKS, pair, split
from tests.certificate.proofs import as_file, certificate, model, plain
from tests.exact import Layer as Dense
from tests.marks import at_night_after

from krelax.certificate.check import check
from krelax.certificate.errors import Rejected, TooClose
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.schema import Certificate, Choices, Layer, Lemma, Question, Region
from krelax.errors import KrelaxError
from krelax.run.certificates import Certificates
from krelax.search.verdict import Outcome, Verdict

# y = relu(z) - relu(z) for z = 0.1 relu(x0) + 0.2 relu(x1), whose lower bound is 0, or hardly below it
TWICE = [
    Dense([[1, 0], [0, 1]], [0, 0]),
    Dense([[0.1, 0.2], [0.1, 0.2]], [0, 0]),
    Dense([[-1, 1]], [0], None),
]


def twice() -> Question:
    """y > -0.1, by a split of the first z: on its inactive side the second one is bounded by zero."""
    lines = np.array([[[1, 1]], [[0, 0]]], np.float32)  # of the second z, in either leaf
    crossing = Choices(1, np.array([0, 1], np.int32), np.array([1], np.int32), lines=lines)
    claim = Lemma(np.array([2, -1, -1], np.int32), np.zeros(2, np.float32), [crossing])
    region = Region("box", np.full(2, -1.0), np.full(2, 1.0))
    layers = [Layer("interval"), Layer("interval")]
    return Question(region, np.ones((1, 1)), np.array([0.1]), np.zeros(1, np.int32), layers, claim)


def test_sides_of_splits_decide_slopes_where_an_interval_touches_zero() -> None:
    data = model(TWICE)
    made = certificate(data, twice())
    margins = [check(made, data, exact)[0] for exact in (False, True)]
    np.testing.assert_allclose(margins, 0.1, rtol=1e-12)
    assert margins[0] <= margins[1]


def narrow(above: float) -> Certificate:
    """A proof by splits, exact but for rounding, that a margin is so much above zero."""
    region = Region("box", np.full(2, -1.0), np.full(2, 1.0))
    question = Question(region, np.ones((1, 1)), np.array([2 + above]), np.zeros(1, np.int32), [pair()], split())
    return certificate(NETWORKS["diamond"], question)


def test_exact_numbers_decide_where_float64_lacks_only_rounding() -> None:
    assert check(narrow(2.0**-51), NETWORKS["diamond"]) == [2.0**-51]
    for above in (0.0, -(2.0**-51)):
        with pytest.raises(Rejected, match="smallest margin is"):
            check(narrow(above), NETWORKS["diamond"])


@pytest.mark.parametrize("scale", [2.0**-30, 1.0, 2.0**60])
def test_rounding_is_measured_by_the_numbers_that_round(scale: float) -> None:
    """A margin that is small beside the numbers it is made of lacks more in float64 the larger those are."""
    nodes = [helper.make_node("Mul", ["x", "c"], ["y"])]
    data = as_file(nodes, [numpy_helper.from_array(np.float32(scale), "c")], (1, 2), "y")
    region = Region("box", np.ones(2), np.ones(2))
    question = Question(
        region, np.array([[1.0, -1.0]]), np.array([scale * 2.0**-50]), np.zeros(1, np.int32), [], plain(1)
    )
    made = certificate(data, question)
    assert check(made, data) == check(made, data, exact=True) == [scale * 2.0**-50]


def test_large_proofs_within_rounding_of_zero_are_too_close_to_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krelax.certificate.check._MOST_EXACT", 0.0)
    with pytest.raises(TooClose, match="question 0: too close to call in float64"):
        check(narrow(2.0**-51), NETWORKS["diamond"])
    assert check(narrow(2.0**-51), NETWORKS["diamond"], exact=True) == [2.0**-51]
    (tmp_path / "diamond.onnx").write_bytes(NETWORKS["diamond"])
    certificates = Certificates(tmp_path / "proofs", tmp_path / "diamond.onnx", check=True)
    found = Outcome(Verdict.HOLDS, "branching", proofs=tuple(narrow(2.0**-51).questions))
    outcome, _ = certificates.write("c.zip", found)
    assert outcome.verdict is Verdict.UNKNOWN
    assert outcome.reason.startswith("the bound is within rounding of zero: question 0: too close to call")


def test_numbers_too_large_for_exact_ones_are_refused() -> None:
    """Half of a weight of 1e-320 is a subnormal number, and a division by it is none."""
    nodes = [helper.make_node("Div", ["x", "c"], ["y"])]
    data = as_file(nodes, [numpy_helper.from_array(np.array(1e-320), "c")], (1, 1), "y")
    region = Region("box", np.zeros(1), np.ones(1))
    question = Question(region, np.ones((1, 1)), np.ones(1), np.zeros(1, np.int32), [], plain(1))
    for exact in (False, True):
        with pytest.raises(KrelaxError):
            check(certificate(data, question), data, exact)


def test_errors_of_our_own_are_not_called_malformed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of the checker is no acceptance, and not the file's fault."""
    made = narrow(0.5)
    write(tmp_path / "c.zip", made)

    def broken(*args: object) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("krelax.certificate.format.archive._decode_object", broken)
        with pytest.raises(ValueError, match="a bug"):
            read(tmp_path / "c.zip")
    monkeypatch.setattr("krelax.certificate.check.check_question", broken)
    with pytest.raises(ValueError, match="a bug"):
        check(made, NETWORKS["diamond"])


PARTS = [(0, 8), (8, 22), *((30 * i, 30) for i in range(1, 10))]


@pytest.mark.parametrize(("first", "count"), at_night_after(1, PARTS))
def test_both_arithmetics_accept_whatever_is_found(first: int, count: int, tmp_path: Path) -> None:
    """Random networks, decided in every way: float64 and exact numbers both accept, and exact ones prove as much or
    more; forgeries are refused. `python -m tests.certificate.agreement` tries more of them."""
    held = 0
    for seed in range(first, first + count):
        case = case_of(seed, tmp_path)
        outcome, problem = examine(case, tmp_path, 0.2, 1)
        assert not problem, f"seed {seed} ({case.way}): {problem}"
        held += outcome.verdict is Verdict.HOLDS
    assert held >= count / 6
