"""Copies of one network at ordered inputs: what follows from how it rises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.run.files import dense, save

from krelax.network.onnx import load_onnx
from krelax.run.verify import ORDER, VerifyOptions, verify_file
from krelax.search.verdict import Outcome

# Of two inputs, through two neurons: it rises with both, by at least a quarter in the first one.
RISING = [(np.array([[1.0, 2.0], [0.5, 0.0]]), np.array([2.0, -1.0])), (np.array([[0.25, 1.0]]), np.array([0.0]))]
# It falls with the second one, where the second neuron is active.
BOTH = [(np.array([[1.0, 0.25], [0.5, 1.0]]), np.array([3.0, 0.0])), (np.array([[1.0, -1.0]]), np.array([0.0]))]


def asked(folder: Path, layers: object, *conditions: str, activation: str = "Relu") -> Outcome:
    """The answer about a network f, and a copy g of it, with inputs X and U in [-1, 1] and outputs Y and V."""
    bounds = [f"({op} {x}[0,{i}] {end})" for x in "XU" for i in range(2) for op, end in (("<=", 1.0), (">=", -1.0))]
    lines = ["(vnnlib-version <2.0>)",
             "(declare-network f (declare-input X real [1,2]) (declare-output Y real [1,1]))",
             "(declare-network g (equal-to f) (declare-input U real [1,2]) (declare-output V real [1,1]))",
             *(f"(assert {part})" for part in (*bounds, *conditions))]  # fmt: skip
    query = folder / "query.vnnlib"
    query.write_text("\n".join(lines), "utf-8")
    path = save(dense(*layers, shape=(1, 2), op=activation), folder / "f.onnx")  # type: ignore[misc]
    options = VerifyOptions(timeout=2.0, deterministic=True)
    return verify_file(query, {"f": path}, lambda path, scores: load_onnx(path, scores=scores), options)[1]


FIRST = ("(<= X[0,0] U[0,0])", "(== X[0,1] U[0,1])")
SECOND = ("(== X[0,0] U[0,0])", "(<= X[0,1] U[0,1])")


@pytest.fixture(autouse=True)
def _no_exact_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks as small as these are decided otherwise."""
    monkeypatch.setattr("krelax.run.verify._WORK", 0)


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid"])
@pytest.mark.parametrize("order", [FIRST, SECOND, ("(<= X[0,0] U[0,0])", "(>= U[0,1] X[0,1])")])
def test_signs_of_weights(order: tuple[str, ...], activation: str, tmp_path: Path) -> None:
    outcome = asked(tmp_path, RISING, *order, "(> Y[0,0] V[0,0])", activation=activation)
    assert (outcome.verdict.value, outcome.reason) == ("holds", ORDER)


def test_equal_outputs_are_found(tmp_path: Path) -> None:
    """Where both inputs are the same, so are the outputs, as the condition wants them."""
    assert asked(tmp_path, RISING, *FIRST, "(>= Y[0,0] V[0,0])").verdict.value == "violated"
    assert asked(tmp_path, RISING, *FIRST, "(< Y[0,0] V[0,0])").verdict.value == "violated"


def test_the_wrong_way(tmp_path: Path) -> None:
    """In the second input the output falls; and nothing follows where one of two inputs is not ordered."""
    assert asked(tmp_path, BOTH, *SECOND, "(> Y[0,0] V[0,0])").verdict.value == "violated"
    free = asked(tmp_path, RISING, "(<= X[0,0] U[0,0])", "(> Y[0,0] V[0,0])")
    assert free.verdict.value == "violated"


@pytest.mark.parametrize(("conditions", "verdict"), [
    ((*FIRST, "(> Y[0,0] V[0,0])"), "holds"),  # by slopes of 1/2 or 1
    ((*SECOND, "(> Y[0,0] (+ V[0,0] 1.625))"), "holds"),  # it falls by at most 3/4 of a difference of at most 2
    ((*SECOND, "(> Y[0,0] (+ V[0,0] 1.0))"), "violated"),
    ((*SECOND, "(> (+ Y[0,0] (* -0.25 X[0,0])) (+ V[0,0] 1.875))"), "holds"),  # of an input at least -1/4
])  # fmt: skip
def test_slopes(conditions: tuple[str, ...], verdict: str, tmp_path: Path) -> None:
    assert asked(tmp_path, BOTH, *conditions).verdict.value == verdict


def test_only_the_same_output_of_the_same_network(tmp_path: Path) -> None:
    """Weighted differences, and three values, are compared by other means."""
    for condition in ("(> (* 2.0 Y[0,0]) V[0,0])", "(> Y[0,0] 5.0)"):
        assert asked(tmp_path, RISING, *FIRST, condition).reason != ORDER
