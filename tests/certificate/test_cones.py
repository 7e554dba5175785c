"""What passes through cones choose is written down for the whole network, where the checker proves the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from tests.certificate.agreement import Case, examine, least_margin, points_of
from tests.certificate.proofs import as_file
from tests.marks import at_night_after

from krelax.bounds import views
from krelax.bounds.cones import cones
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.pipeline import Plan
from krelax.search.questions import Questions
from krelax.search.verdict import Verdict


def pooled(path: Path) -> None:
    """Convolutions before and behind a pool whose windows overlap."""
    rng, nodes, constants, x, channels = np.random.default_rng(3), [], [], "x", 1
    for i, pool in enumerate((True, False, False)):
        weight, bias = rng.normal(0, 0.4, (2, channels, 3, 3)), rng.normal(0, 0.2, 2)
        constants += [numpy_helper.from_array(a.astype(np.float32), f"{n}{i}") for n, a in (("w", weight), ("b", bias))]
        nodes.append(helper.make_node("Conv", [x, f"w{i}", f"b{i}"], [f"z{i}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"z{i}"], [f"a{i}"]))
        x, channels = f"a{i}", 2
        if pool:
            nodes.append(helper.make_node("MaxPool", [x], [f"p{i}"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4))
            x = f"p{i}"
    constants.append(numpy_helper.from_array(rng.normal(0, 0.3, (2, 72)).astype(np.float32), "w"))
    nodes += [helper.make_node("Flatten", [x], ["flat"]), helper.make_node("Gemm", ["flat", "w"], ["y"], transB=1)]
    path.write_bytes(as_file(nodes, constants, (1, 1, 12, 12), "y"))


@pytest.mark.parametrize("method", at_night_after(1, ["alpha", "crown"]))
def test_proofs_through_cones_are_accepted(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krelax.bounds.cones._FIXED", 0.0)
    monkeypatch.setattr(views, "FEW", 3)
    path, rng = tmp_path / "pooled.onnx", np.random.default_rng(1)
    pooled(path)
    network, centre = load_onnx(path), torch.from_numpy(rng.random((1, 1, 1, 12, 12)))
    region = Box(centre - 0.06, centre + 0.06)
    queries = Queries(torch.tensor([[[1.0, -1.0]]]).double(), torch.zeros(1, 1).double(), torch.zeros(1, 1).long(), 1)
    assert len(cones(network, network.nodes[network.activations()[-1]].inputs[0])) > 1
    reached = bound(Instance.of(network, region), queries, METHODS[method]).value
    queries = Queries(queries.rows, 1e-6 - reached, queries.clause, 1)
    asked = Questions(region, queries, lambda i, x, y: False)
    least = least_margin(network, queries, points_of(rng, region, 200))
    outcome, wrong = examine(Case(path, network, asked, method, Plan((METHODS[method],)), least), tmp_path, 60.0)
    assert (outcome.verdict, wrong) == (Verdict.HOLDS, "")
