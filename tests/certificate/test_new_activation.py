"""An activation that the checker does not have: one class of rules, and one line of the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.certificate.corpus import i4
from tests.certificate.proofs import as_file, certificate, leaves

from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.schema import Choices, GroupSet, Layer, Lemma, Question, Region
from krelax.certificate.kernel.activations import RULES, Ends, Rule
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Exact, Float64, Floats
from krelax.certificate.onnx.operator import OPERATORS
from krelax.errors import UnsupportedError

WEIGHTS = np.array([[1.0, 0.5], [-0.75, 1.0]]), np.array([[1.0, -0.5], [0.25, 1.0]])


class Softplus(Rule):
    """`log(1 + exp(z))`, convex. The C library is trusted to `error`."""

    name = "softplus"
    error = 2.0**-40

    def interval(self, ends: Ends, float32: bool) -> Ends:
        low, high = (np.logaddexp(z, 0) for z in ends)
        return np.maximum(low - self.error, 0), high + self.error

    def lines(self, ends: Ends, parallel: bool) -> Ends:
        (lower, upper), width = ends, np.where(ends[1] > ends[0], ends[1] - ends[0], 1)
        chord = (np.logaddexp(upper, 0) - np.logaddexp(lower, 0)) / width
        return (chord if parallel else self._slope((lower + upper) / 2)), chord

    def price(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        """Convex in z for `coeff <= 0`: an end. Concave for others: a tangent near the maximum, where it is larger."""
        ratio = np.clip(np.nan_to_num(ar.floats(slope) / ar.floats(coeff)), 2.0**-50, 1 - 2.0**-50)
        point = np.clip(np.log(ratio) - np.log1p(-ratio), *ends)
        rise = slope - coeff * ar.number(self._slope(point))
        tangent = ar.maximum(*(rise * (ar.number(z) - ar.number(point)) for z in ends))
        convex = ar.maximum(*(self._value(ar, coeff, slope, z) for z in ends))
        best = ar.where(ar.floats(coeff) > 0, self._value(ar, coeff, slope, point) + tangent, convex)
        return best + abs(coeff) * ar.number(4 * self.error * (1 + abs(ends[0]) + abs(ends[1])))

    def reach(self, largest: Floats) -> Floats:
        return largest + 1

    def _slope(self, z: Floats) -> Floats:
        return 0.5 + 0.5 * np.tanh(z / 2)

    def _value(self, ar: Arithmetic, coeff: Array, slope: Array, z: Floats) -> Array:
        return slope * ar.number(z) - coeff * ar.number(np.logaddexp(z, 0))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the table, which is read when the program starts."""
    monkeypatch.setitem(RULES, "Softplus", Softplus)
    monkeypatch.setitem(OPERATORS, "Softplus", OPERATORS["Relu"])


def model() -> bytes:
    constants = [numpy_helper.from_array(w.astype(np.float32), f"w{i}") for i, w in enumerate(WEIGHTS)]
    nodes = [
        helper.make_node("Gemm", ["x", "w0"], ["z"], transB=1),
        helper.make_node("Softplus", ["z"], ["a"]),
        helper.make_node("Gemm", ["a", "w1"], ["y"], transB=1),
    ]
    return as_file(nodes, constants, (1, 2), "y")


REGION = Region("box", np.array([-0.5, -0.25]), np.array([0.75, 1.0]))


def truth() -> Any:
    """Outputs at points of the region, its corners among them."""
    x = np.stack(np.meshgrid(*(np.linspace(a, b, 41) for a, b in zip(REGION.lower, REGION.upper, strict=True))), -1)
    return np.logaddexp(x.reshape(-1, 2) @ WEIGHTS[0].T, 0) @ WEIGHTS[1].T


def question(offset: float, lines: Any = None, tree: Any = None) -> Question:
    """Is the first output above `-offset`?"""
    crossings = [] if lines is None else [Choices(0, i4(0), i4(0, 1), lines=np.array([lines], np.float32))]
    lemma = Lemma(leaves(1) if tree is None else tree, np.zeros(0 if tree is None else 2, np.float32), crossings)
    return Question(REGION, np.eye(2)[:1], np.array([offset]), i4(0), [Layer("interval")], lemma)


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_the_price_is_the_support_function(ar: Arithmetic) -> None:
    rng = np.random.default_rng(1)
    lower = rng.normal(0, 3, (300, 1))
    ends = lower, lower + rng.exponential(2, (300, 1))
    coeff, slope = rng.normal(0, 1, (300, 1)), rng.normal(0, 0.5, (300, 1))
    price = ar.floats(Softplus().price(ar, ar.number(coeff), ar.number(slope), ends))
    z = lower + (ends[1] - lower) * np.linspace(0, 1, 2000)
    searched = (slope * z - coeff * np.logaddexp(z, 0)).max(1)
    assert (price[:, 0] >= searched - 1e-12).all()
    assert np.allclose(price[:, 0], searched, atol=1e-5)


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
    grouped = question(100.0)
    grouped.layers[0].groups = [GroupSet(np.array([[0, 1]], np.int32), np.array([[1, 1]], np.int8))]
    fractions = question(100.0)
    assert fractions.margins is not None
    fractions.margins.crossings = [Choices(0, i4(0), i4(0, 1), slopes=np.zeros((1, 2), np.uint8))]
    for made in (split, grouped, fractions):
        with pytest.raises(Malformed):
            check(certificate(data, made), data)
    with pytest.raises(Rejected, match="softplus"):
        check(certificate(data, question(100.0), semantics="float32"), data)


def test_without_its_line_in_the_table_its_networks_are_refused() -> None:
    data = model()
    with pytest.raises(UnsupportedError, match="not supported by the checker: operator Softplus"):
        check(certificate(data, question(100.0)), data)
