"""Conditions that contradict each other, whatever the network is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.run.files import model, node, save, tensor

from krelax.network.onnx import load_onnx
from krelax.run.verify import EXACT, VerifyOptions, verify_file
from krelax.search.rational import Settled
from krelax.search.verdict import Outcome

NODES = {
    "Relu": lambda: node("Relu", "h", "k"),
    "LeakyRelu": lambda: node("LeakyRelu", "h", "k", alpha=0.5),
    "Sigmoid": lambda: node("Sigmoid", "h", "k"),
    "Tanh": lambda: node("Tanh", "h", "k"),
}


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """The answer about hidden nodes H and what an activation makes of them, K, and outputs Y that may be equal."""
    # small networks are decided by cutting them up
    monkeypatch.setattr("krelax.run.verify.settled", lambda network, specification, *_: Settled(specification))

    def answer(activation: str, *conditions: str) -> Outcome:
        weight = np.array([[1.0, -2.0, 0.5], [0.25, 1.0, -1.0]], np.float32)
        nodes = [node("MatMul", "x", "w", "h"), NODES[activation](), node("MatMul", "k", "v", "y")]
        made = model(nodes, {"w": weight, "v": weight.T @ weight}, [tensor("x", [1, 2])], [tensor("y", [1, 3])])
        path = save(made, tmp_path / "f.onnx")
        lines = ["(vnnlib-version <2.0>)(declare-network f (declare-input X real [1,2])",
                 '(declare-hidden H real [1,3] "h")(declare-hidden K real [1,3] "k")(declare-output Y real [1,3]))',
                 *(f"(assert (<= {x} 1.0))(assert (>= {x} -1.0))" for x in ("X[0,0]", "X[0,1]")),
                 *(f"(assert {condition})" for condition in conditions)]  # fmt: skip
        query = tmp_path / "query.vnnlib"
        query.write_text("\n".join(lines), "utf-8")
        options = VerifyOptions(timeout=1.0, deterministic=True)
        return verify_file(query, {"f": path}, lambda path, scores: load_onnx(path, scores=scores), options)[1]

    return answer


@pytest.mark.parametrize("conditions", [
    ("(< Y[0,0] Y[0,1])", "(< Y[0,1] Y[0,0])"),
    ("(< Y[0,0] Y[0,1])", "(< Y[0,1] (* 2.0 X[0,0]))", "(< (* 2.0 X[0,0]) Y[0,0])"),
    ("(== Y[0,0] Y[0,1])", "(!= (* 3.0 Y[0,0]) (* 3.0 Y[0,1]))"),
    ("(< (+ Y[0,0] Y[0,1]) 0.25)", "(> (+ (* 2.0 Y[0,0]) (* 2.0 Y[0,1])) 0.5)"),
])  # fmt: skip
def test_outputs(conditions: tuple[str, ...], ask: Callable[..., Outcome]) -> None:
    outcome = ask("Relu", *conditions)
    assert (outcome.verdict.value, outcome.reason) == ("holds", EXACT)


@pytest.mark.parametrize(("activation", "conditions", "verdict"), [
    ("Relu", ("(< K[0,0] H[0,0])",), "holds"),
    ("Relu", ("(< H[0,0] 0.0)", "(> K[0,0] 0.0)"), "holds"),
    ("Relu", ("(< H[0,0] H[0,1])", "(> K[0,0] K[0,1])"), "holds"),
    ("Relu", ("(< H[0,0] H[0,1])", "(>= K[0,0] K[0,1])"), "violated"),  # both are zero
    ("LeakyRelu", ("(< K[0,0] (* 0.5 H[0,0]))",), "holds"),
    ("LeakyRelu", ("(> K[0,0] H[0,0])", "(> H[0,0] -0.5)"), "violated"),
    ("Sigmoid", ("(>= H[0,0] 0.0)", "(< K[0,0] 0.5)"), "holds"),
    ("Sigmoid", ("(>= H[0,0] 0.0)", "(<= K[0,0] 0.5)"), "violated"),
    ("Sigmoid", ("(<= H[0,0] H[0,1])", "(> K[0,0] K[0,1])"), "holds"),
    ("Tanh", ("(> H[0,0] 0.0)", "(<= K[0,0] 0.0)"), "holds"),
    ("Tanh", ("(< H[0,0] H[0,1])", "(== K[0,0] K[0,1])"), "holds"),
    ("Tanh", ("(< H[0,0] H[0,1])", "(> K[0,0] K[0,2])"), "violated"),  # of another one
])  # fmt: skip
def test_hidden_nodes(activation: str, conditions: tuple[str, ...], verdict: str, ask: Callable[..., Outcome]) -> None:
    outcome = ask(activation, *conditions)
    assert outcome.verdict.value == verdict
    if verdict == "holds":
        assert outcome.reason == EXACT


def test_as_far_as_the_work_lasts(ask: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krelax.run.verify._WORK", 3)
    assert ask("Relu", "(< Y[0,0] Y[0,1])", "(< Y[0,1] Y[0,0])").verdict.value == "unknown"
