"""Entries that add up to one: the mean of the weights that multiply them is a constant, in both readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tests.certificate.values import evaluate
from tests.run.files import model, node, tensor

import krelax
from krelax.activations import Product, Reciprocal
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.certificate.onnx.reader import read_network
from krelax.network.graph import Network
from krelax.network.linear import Dense
from krelax.problem.queries import Queries
from krelax.problem.region import Box

WEIGHTS = np.array([[10.0, -3], [11, -3], [14, -3.3], [12.1, -3]], np.float32)


def normalised(tmp_path: Path, kind: str) -> Path:
    divided = [node("ReduceSum", "x", "a", "s", keepdims=1), node("Div", "x", "s", "p")]
    nodes = {"quotient": divided, "softmax": [node("Softmax", "x", "p", axis=-1)]}[kind]
    constants: dict[str, Any] = {"w": WEIGHTS, "c": np.float32([0.1, 7])}
    nodes = [*nodes, node("Gemm", "p", "w", "c", "y")]
    if kind == "quotient":
        constants["a"] = np.array([1], np.int64)
    onnx.save(model(nodes, constants, [tensor("x", [1, 4])]), tmp_path / "made.onnx")
    return tmp_path / "made.onnx"


def margin(network: Network, lower: float, upper: float, offset: float) -> float:
    """A lower bound of the first output less an offset, by closed-form slopes."""
    region = Box(torch.full((1, 1, 4), lower).double(), torch.full((1, 1, 4), upper).double())
    queries = Queries(torch.tensor([[[1.0, 0]]]).double(), torch.tensor([[-offset]]).double(), torch.tensor([[0]]), 1)
    with torch.no_grad():
        return float(bound(Instance.of(network, region), queries, METHODS["crown"]).value)


@pytest.mark.parametrize("kind", ["quotient", "softmax"])
def test_both_readers_compute_the_same(kind: str, tmp_path: Path) -> None:
    path = normalised(tmp_path, kind)
    network, mine = krelax.load_onnx(path), read_network(path.read_bytes())
    assert not mine.single
    x = torch.rand(1, 1, 4, dtype=torch.float64) + 0.5
    values, wanted = evaluate(mine, x.reshape(1, -1).numpy()), network.values(x)
    np.testing.assert_allclose(values[-1], wanted[-1].reshape(1, -1), rtol=1e-12)
    assert len(mine.activations) == len(network.activations())
    weights = [n.op.weight for n in network.nodes if isinstance(n.op, Dense)]
    assert float(weights[-1].mean(1).abs().max()) < 0.02


def test_less_is_lost_of_weights_that_differ_little(tmp_path: Path) -> None:
    """The sum of the smallest products alone would be far below 10, which no mean of the weights is."""
    assert margin(krelax.load_onnx(normalised(tmp_path, "quotient")), 1.0, 1.5, 0.0) > 9.5


def test_nothing_is_proven_where_the_sum_may_be_zero(tmp_path: Path) -> None:
    network = krelax.load_onnx(normalised(tmp_path, "quotient"))
    assert any(isinstance(n.op, Reciprocal) for n in network.nodes)
    assert any(isinstance(n.op, Product) for n in network.nodes)
    assert margin(network, -1.0, 1.0, -1e9) == -np.inf
