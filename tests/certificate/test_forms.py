"""Affine forms in boxes: never more than the truth, and what backward passes by the same rule say."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests import exact
from tests.certificate.proofs import as_file, network_of, random_layers, rough
from tests.certificate.values import evaluate
from tests.marks import at_night_after

from krelax.certificate.kernel import boxes as checked
from krelax.certificate.kernel import forms as pushed
from krelax.certificate.kernel.arithmetic import Arithmetic, Exact, Float64
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.context import Context
from krelax.certificate.kernel.network import Network
from krelax.certificate.kernel.region import Region
from krelax.certificate.onnx.reader import read_network


def in_boxes(network: Network, boxes: Region, ar: Arithmetic, float32: bool = False) -> Context:
    root = Region(boxes.lower.min(0, keepdims=True), boxes.upper.max(0, keepdims=True))
    bounds = LayerBounds.of(network.over(ar), root, ar, float32)
    with np.errstate(all="ignore"):
        return checked._derived(Context(bounds, np.zeros((0, 0)), np.zeros(0)), boxes)[0]


def drawn(rng: np.random.Generator, count: int, size: int) -> Region:
    """Boxes of different sizes, of which one is a point and some inputs do not vary."""
    centre, radius = (
        rng.normal(0, 1, (count, size)),
        rng.uniform(0, 1, (count, size)) * (rng.random((count, size)) < 0.7),
    )
    radius[0] = 0
    return Region(centre - radius, centre + radius)


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("seed", at_night_after(1, range(4)))
def test_intervals_contain_the_exact_ranges(seed: int, ar: Arithmetic) -> None:
    rng = np.random.default_rng(seed)
    slope = (0.0, 0.125, float(np.float32(0.01)), 0.0)[seed]
    layers = random_layers(rng, [4, 3, 2], slope, *([rough] if seed == 3 else []))
    boxes = drawn(rng, 3, 2)
    found = in_boxes(network_of(layers)[1], boxes, ar)
    for box in range(3):
        ranges = exact.ranges(layers, boxes.lower[box].tolist(), boxes.upper[box].tolist())
        for j in range(len(found.network.activations)):
            for low, high, truth in zip(*(end[box] for end in found.ends(j)), ranges[j], strict=True):
                assert low <= truth.low
                assert truth.high <= high


def crossing(rng: np.random.Generator) -> Network:
    """All activations, overlapping windows, two branches, and an activation of the input itself."""
    w = {name: rng.normal(0, 0.6, shape).astype(np.float32)
         for name, shape in (("k", (2, 1, 2, 2)), ("m", (8, 5)), ("n", (5, 5)), ("o", (9, 5)))}  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"]),
        helper.make_node("LeakyRelu", ["c"], ["d"], alpha=0.25),
        helper.make_node("MaxPool", ["d"], ["p"], kernel_shape=[1, 2], pads=[0, 1, 0, 0]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["g"]),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("MatMul", ["h", "n"], ["i"]),
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("Flatten", ["t"], ["u"]),
        helper.make_node("MatMul", ["u", "o"], ["v"]),
        helper.make_node("Exp", ["i"], ["e"]),
        helper.make_node("Add", ["e", "h"], ["r"]),
        helper.make_node("Add", ["r", "v"], ["s"]),
        helper.make_node("Sigmoid", ["s"], ["y"]),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in w.items()]
    return read_network(as_file(nodes, constants, (1, 1, 3, 3), "y"))


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("seed", at_night_after(1, range(3)))
def test_backward_passes_say_the_same(seed: int, ar: Arithmetic, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take over where forms are too large. Where these have few symbols, small gaps are errors."""
    rng = np.random.default_rng(seed)
    network, boxes = crossing(rng), drawn(rng, 3, 9)
    x = boxes.lower + rng.random((400, 3, 9)).round(1) * (boxes.upper - boxes.lower)
    values = evaluate(network, x.reshape(-1, 9))
    found = in_boxes(network, boxes, ar)
    for j in range(len(network.activations)):
        z = values[network.before(j)].reshape(400, 3, -1)
        lower, upper = found.ends(j)
        assert (lower <= z.min(0) + 1e-12).all()
        assert (z.max(0) <= upper + 1e-12).all()
    monkeypatch.setattr(pushed, "_MOST_NUMBERS", 0)
    other = in_boxes(network, boxes, ar)
    for j in range(len(network.activations)):
        np.testing.assert_allclose(found.ends(j), other.ends(j), rtol=0, atol=1e-9)
    largest = max(network.size(i) for i in range(len(network.nodes)))
    monkeypatch.setattr(pushed, "_MOST_NUMBERS", 3 * 9 * largest)
    monkeypatch.setattr(pushed, "_EXACT", 1)
    other, wider = in_boxes(network, boxes, ar), False
    for j in range(len(network.activations)):
        z = values[network.before(j)].reshape(400, 3, -1)
        assert (other.ends(j)[0] <= z.min(0) + 1e-12).all()
        assert (z.max(0) <= other.ends(j)[1] + 1e-12).all()
        wider |= bool((other.ends(j)[0] < found.ends(j)[0] - 1e-6).any())
    assert wider


def test_executions_in_float32_are_inside() -> None:
    """Over points, where nothing is lost but by rounding."""
    rng = np.random.default_rng(0)
    layers = random_layers(rng, [5, 5, 5, 2], 0.0, rough)
    network = network_of(layers)[1]
    x = rng.normal(0, 1, (50, 2)).astype(np.float32)
    found = in_boxes(network, Region(x.astype(float), x.astype(float)), Float64(), True)
    here = x
    for j, layer in enumerate(layers[:3]):
        here = here @ np.asarray(layer.weight, np.float32).T + np.asarray(layer.bias, np.float32)
        lower, upper = found.ends(j)
        assert ((lower <= here) & (here <= upper)).all()
        here = np.maximum(here, 0)


def test_what_overflows_says_nothing() -> None:
    """Interval arithmetic, which stays finite longer, then has the last word."""
    layers = [exact.Layer([[1, 1], [1, -1]], [0, 0]), exact.Layer([[1, 1]], [0]), exact.Layer([[1]], [0], None)]
    box = Region(np.array([[-1.7e308, 0.0], [-1.0, 0.0]]), np.array([[1.7e308, 1.0], [1.0, 1.0]]))
    found = in_boxes(network_of(layers)[1], box, Float64())
    for low, high in (found.ends(j) for j in range(2)):
        assert (low <= high).all()
    assert found.ends(0)[1][0, 0] >= 1.7e308


def test_executions_of_other_slopes_are_inside() -> None:
    """A leaky ReLU rounds where its slope is taken: over points that is all that bounds are apart by."""
    rng = np.random.default_rng(1)
    layers = random_layers(rng, [4, 4, 2], float(np.float32(0.1)), rough)
    network = network_of(layers)[1]
    x = rng.normal(0, 1, (50, 2)).astype(np.float32)
    found = in_boxes(network, Region(x.astype(float), x.astype(float)), Float64(), True)
    here = x
    for j, layer in enumerate(layers[:2]):
        here = here @ np.asarray(layer.weight, np.float32).T + np.asarray(layer.bias, np.float32)
        lower, upper = found.ends(j)
        assert ((lower <= here) & (here <= upper)).all()
        here = np.where(here < 0, np.float32(0.1) * here, here)


@pytest.mark.parametrize("most", [1 << 26, 1])
def test_nothing_is_known_of_forms_for_which_there_is_no_memory(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushed, "_MOST_NUMBERS", most)
    network = network_of([exact.Layer([[1, -1]], [0], None)])[1]
    bounds = LayerBounds.of(network, Region(-np.ones((2, 2)), np.ones((2, 2))), Float64(), False)
    forms = pushed.PushedForms(bounds)
    for i in range(1, len(network.nodes)):
        bounds = bounds.advanced()
        forms.push(bounds, i)
    lowest = forms.lowest(Float64(), np.ones((2, 1)), np.ones(2), np.arange(2))
    if most > 1:
        assert ((lowest <= -1) & (lowest > -1.001)).all()
    else:
        assert (lowest == -np.inf).all()
        assert forms.interval(Float64(), 1) is None
