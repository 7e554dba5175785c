"""Softmax, and sums of exponentials, over boxes where these differ by more than double precision holds."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from tests.certificate.proofs import as_file

from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.certificate.check import check
from krelax.certificate.format.schema import Certificate
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict


def written(kind: str) -> bytes:
    """A file of a softmax over three numbers, or of one over a sum of their exponentials."""
    if kind == "Softmax":
        return as_file([helper.make_node("Softmax", ["x"], ["y"], axis=1)], [], (1, 3), "y")
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("ReduceSum", ["e"], ["s"], keepdims=1),
        helper.make_node("Reciprocal", ["s"], ["y"]),
    ]
    return as_file(nodes, [], (1, 3), "y")


@pytest.mark.parametrize("method", ["interval", "crown"])
@pytest.mark.parametrize("kind", ["Softmax", "Reciprocal"])
def test_sums_of_exponentials_stay_positive(kind: str, method: str, tmp_path: Path) -> None:
    """That no output is negative is known, and proven to others."""
    data = written(kind)
    (tmp_path / "net.onnx").write_bytes(data)
    network = load_onnx(tmp_path / "net.onnx")
    lower, upper = (torch.tensor([[ends]]).double() for ends in ([-5.0, -40.0, -1.0], [75.0, 60.0, 1.0]))
    box, outputs = Box(lower, upper), int(np.prod(network.output_shape))
    rows = torch.eye(outputs).double()[None]
    asked = Queries(rows, torch.zeros(1, outputs).double(), torch.arange(outputs)[None], outputs)
    found = bound(Instance.of(network, box), asked, METHODS[method]).value
    assert bool((found >= -1e-6).all())
    outcomes: list[Outcome] = []
    asked = replace(asked, offsets=asked.offsets + 0.01)
    questions = Questions(box, asked, lambda i, x, y: False)
    decide(network, questions, Plan((METHODS[method],)), lambda i, o: outcomes.append(o), 60.0, proofs=True)
    assert outcomes[0].verdict is Verdict.HOLDS
    made = Certificate(hashlib.sha256(data).hexdigest(), "real", "test", list(outcomes[0].proofs))
    assert 0 < min(check(made, data)) <= 0.011
