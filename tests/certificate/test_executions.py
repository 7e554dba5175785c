"""Ten thousand float32 executions of trained networks, in random orders of summation, at points where nothing but
rounding separates them from what is certified of their outputs."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.certificate.proofs import plain
from tests.certificate.values import evaluate
from tests.marks import at_night_after

from krelax.certificate.format.schema import Layer, Question, Region
from krelax.certificate.kernel.arithmetic import Float64
from krelax.certificate.kernel.linear import Dense, Pick
from krelax.certificate.kernel.network import Affine, Network
from krelax.certificate.kernel.question import check_question
from krelax.certificate.onnx.reader import read_network

DATA = Path(str(files("krelax") / "data"))
IMAGES, EACH = 10, 500
WAYS = ("product and sum", "fused", "in blocks")


def image(number: int) -> Any:
    """A digit at the corner of a small box around it, so that pixels are no round numbers."""
    rng = np.random.default_rng(number)
    pixels = np.load(DATA / "digits_test.npz")["images"][number].reshape(-1) / 255.0
    return (pixels + 0.03 * rng.choice([-1, 1], pixels.shape)).astype(np.float32)


def execute(network: Network, x: Any, rng: Any, way: str, count: int) -> Any:
    """Outputs of float32 executions of one input, `(count, outputs)`, each with its own orders of summation."""
    values = [np.broadcast_to(x, (count, len(x)))]
    for node in network.nodes[1:]:
        assert node is not None
        z = values[node.inputs[0]]
        if not isinstance(node, Affine):
            values.append(np.maximum(z, np.float32(0)))
        elif isinstance(node.maps[0], Pick):
            values.append(node.maps[0].forward(Float64(), z))
        else:
            values.append(product(z, node, rng, way))
    return values[-1]


def product(x: Any, node: Affine, rng: Any, way: str) -> Any:
    """Matrix products or convolutions, term by term, the terms of executions in orders of their own; the bias first or
    last."""
    (dense,) = node.maps
    assert isinstance(dense, Dense)
    matrix, count = dense.forward(Float64(), np.eye(x.shape[1])).astype(np.float32), len(x)
    places = np.argsort(matrix == 0, axis=0, kind="stable")[: dense.terms]  # the inputs of every entry come first
    bias = (np.zeros(node.size) if node.bias is None else node.bias).astype(np.float32)
    order = rng.permuted(np.tile(np.arange(len(places)), (count, 1)), axis=1)
    first = rng.random() < 0.5
    total = np.zeros((count, node.size), np.float32) + (bias if first else np.float32(0))
    block = np.zeros_like(total)
    for k in order.T:
        factors = np.take_along_axis(x, places[k], 1), matrix[places[k], np.arange(node.size)]
        if way == "fused":  # the product of two float32 numbers is exact in float64
            total = (total + factors[0].astype(np.float64) * factors[1]).astype(np.float32)
        elif way == "in blocks":
            block = block + factors[0] * factors[1]
            if rng.random() < 0.2:
                total, block = total + block, np.zeros_like(block)
        else:
            total = total + factors[0] * factors[1]
    total = total + block
    return total if first else total + bias


def certified(network: Network, x: Any) -> tuple[Any, Any]:
    """What is certified of the outputs at a point, from below and from above."""
    outputs, point = network.size(len(network.nodes) - 1), x.astype(np.float64)
    ends = []
    for sign in (1.0, -1.0):
        least = []
        for i in range(outputs):
            row = sign * np.eye(outputs)[i : i + 1]
            question = Question(Region("box", point, point), row, np.zeros(1), np.zeros(1, np.int32))
            question.layers, question.margins = [Layer("interval") for _ in network.activations], plain(1)
            least.append(sign * check_question(network, question, Float64(), float32=True).margin)
        ends.append(np.array(least))
    return ends[0], ends[1]


@pytest.mark.parametrize("number", at_night_after(1, range(IMAGES)))
@pytest.mark.parametrize("name", ["digits_dense", "digits_conv"])
def test_executions_of_networks_stay_within_what_is_certified(name: str, number: int) -> None:
    network, x = read_network((DATA / f"{name}.onnx").read_bytes()), image(number)
    lower, upper = certified(network, x)
    exact = evaluate(network, x[None].astype(np.float64))[-1][0]
    rng = np.random.default_rng([number, len(name)])
    y = np.concatenate([execute(network, x, rng, WAYS[n % 3], EACH // 10) for n in range(10)]).astype(np.float64)
    assert y.shape == (EACH, len(exact))
    assert (lower <= y).all()
    assert (y <= upper).all()
    # the executions differ, and what is certified is not far from them
    assert len(np.unique(y[:, 0])) > 3
    assert (upper - lower).max() < 1e4 * abs(y - exact).max()
