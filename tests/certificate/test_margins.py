"""Margins that forms pushed forward settle, and those that are optimised beside settled ones, in certificates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from tests.certificate.agreement import Case, examine, least_margin, points_of
from tests.certificate.proofs import as_file

from krelax.bounds import asked, forward
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.methods import METHODS, bound
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.pipeline import Plan
from krelax.search.questions import Questions
from krelax.search.verdict import Verdict


def dense(path: Path, outputs: int) -> None:
    """Three layers behind three numbers."""
    rng, nodes, constants, x, wide = np.random.default_rng(5), [], [], "x", 3
    for i, (n, last) in enumerate(((12, False), (12, False), (outputs, True))):
        weight, bias = rng.normal(0, 0.5, (n, wide)), rng.normal(0, 0.2, n)
        constants += [numpy_helper.from_array(a.astype(np.float32), f"{c}{i}") for c, a in (("w", weight), ("b", bias))]
        out = "y" if last else f"z{i}"
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [out], transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"a{i}"]))
        x, wide = f"a{i}", n
    path.write_bytes(as_file(nodes, constants, (1, 3), "y"))


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("method", ["crown", "alpha"])
@pytest.mark.parametrize(("parts", "settled"), [(1, 4), (64, 4), (64, 8)])
def test_margins_that_are_settled_one_after_the_other_are_accepted(
    method: str, members: int, parts: int, settled: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Margins are far above zero, or above what the method proves of them by next to nothing."""
    monkeypatch.setattr(forward, "_DEAR", 0.0)
    monkeypatch.setattr(forward, "_MANY", 1)
    monkeypatch.setattr(asked, "chunk_queries", lambda *_: parts)
    outputs, path, rng = 8, tmp_path / "dense.onnx", np.random.default_rng(2)
    dense(path, outputs)
    network, centre = load_onnx(path), torch.from_numpy(rng.random((1, 1, 3)))
    region, rows = Box(centre - 0.3, centre + 0.3), torch.eye(outputs, dtype=torch.float64)[None]
    clause = torch.arange(outputs)[None] // members
    queries = Queries(rows, torch.zeros(1, outputs).double(), clause, outputs // members)
    reached = bound(Instance.of(network, region), queries, METHODS[method]).value
    far = torch.arange(outputs) < settled
    queries = Queries(rows, torch.where(far, 5.0, 1e-6) - reached, clause, queries.clauses)
    looks: list[int] = []
    through = forward.Forward.margins

    def margins(own: forward.Forward, bounds: LayerBounds, given: Queries) -> torch.Tensor | None:
        looks.append(given.rows.shape[1])
        return through(own, bounds, given)

    monkeypatch.setattr(forward.Forward, "margins", margins)
    least = least_margin(network, queries, points_of(rng, region, 200))
    question = Questions(region, queries, lambda i, x, y: False)
    outcome, wrong = examine(Case(path, network, question, method, Plan((METHODS[method],)), least), tmp_path, 60.0)
    assert (outcome.verdict, wrong) == (Verdict.HOLDS, "")
    assert looks
