"""More effort never gives a looser bound: interval <= zonotope <= truth, interval <= CROWN <= optimised <= truth."""

from __future__ import annotations

from fractions import Fraction
from importlib.resources import files

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from tests.bounds.problems import METHODS, Problem, problems
from tests.marks import at_night_after
from torch import Tensor

from krelax.activations import Sigmoid
from krelax.bounds.instance import Instance
from krelax.bounds.intermediate import undecided
from krelax.bounds.methods import bound
from krelax.network.graph import Builder
from krelax.network.linear import Dense
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries, classification
from krelax.problem.region import Box, ball

DATA = files("krelax") / "data"
LADDERS = [("interval", name) for name in sorted(METHODS) if name != "interval"] + [
    ("crown", "alpha"),
    *(("alpha", name) for name in METHODS if METHODS[name].multi_neuron),
]
STEPS = [pair for pair in LADDERS if set(pair) <= set(METHODS)]


def check_ladder(values: dict[str, Tensor]) -> None:
    """No tolerance: a method that improves on another includes the other's bound."""
    for weaker, stronger in STEPS:
        gap = values[weaker] - values[stronger]
        assert (gap <= 0).all(), f"{stronger} is below {weaker} by {gap.max().item()}"


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems(batch=1))
def test_the_ladder_of_methods_ends_at_the_exact_minimum(problem: Problem) -> None:
    check_minima(problem)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems(batch=1))
def test_the_ladder_of_methods_ends_at_the_exact_minimum_of_many(problem: Problem) -> None:
    check_minima(problem)


def check_minima(problem: Problem) -> None:
    values = {name: problem.bounded(name).value for name in METHODS}
    check_ladder(values)
    for margin, exact in enumerate(problem.minima()[0]):
        assert all(Fraction(v[0, margin].item()) <= exact for v in values.values())


def digits(count: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Test images `(count, 1, 8, 8)` in [0, 1], and labels."""
    with np.load(str(DATA / "digits_test.npz")) as data:
        images, labels = data["images"][first : first + count], data["labels"][first : first + count]
    return torch.from_numpy(images).double() / 255, torch.from_numpy(labels).long()


@pytest.mark.parametrize(
    ("name", "eps", "norm"),
    at_night_after(1, [("digits_conv", 0.02, "linf"), ("digits_dense", 0.0, "linf"), ("digits_dense", 0.08, "linf"),
                       ("digits_conv", 0.3, "l2"), ("digits_dense", 1.0, "l1")]),
)  # fmt: skip
def test_the_ladder_on_the_bundled_networks(name: str, eps: float, norm: str) -> None:
    network = load_onnx(str(DATA / f"{name}.onnx"))
    images, labels = digits(1)
    images = images.reshape(1, *network.input_shape)
    instance = Instance.of(network, ball(images, eps, norm))
    queries = classification(labels, 10)
    values = {m: bound(instance, queries, METHODS[m]).value for m in METHODS}
    check_ladder(values)
    assert (values["alpha"] <= queries.values(network(images).unsqueeze(1))[:, 0] + 1e-9).all()


@pytest.mark.parametrize("name", ["digits_conv", "digits_dense"])
def test_optimised_slopes_close_part_of_the_gap(name: str) -> None:
    """An optimiser that does nothing would pass every other test: alpha must gain on CROWN, on every image."""
    network = load_onnx(str(DATA / f"{name}.onnx"))
    images, labels = digits(4, first=10)
    instance = Instance.of(network, ball(images.reshape(4, *network.input_shape), 0.08))
    crown, alpha = (bound(instance, classification(labels, 10), METHODS[m]).value for m in ("crown", "alpha"))
    assert (alpha.mean(1) > crown.mean(1) + 0.1).all()


def cancelling_sigmoids() -> tuple[Instance, Queries]:
    """`sigmoid(4 x) - sigmoid(4 x) + 3`, exactly 3, as the operand of another sigmoid: its sign is never in doubt."""
    builder = Builder((1,))
    one = torch.ones(2, 1, dtype=torch.float64)
    a = builder.add(Sigmoid(), builder.add(Dense(4 * one), 0))
    z = builder.add(Dense(torch.tensor([[1.0, -1.0]]).double(), torch.tensor([3.0]).double()), a)
    network = builder.build(builder.add(Sigmoid(), z))
    region = Box(torch.tensor([[-1.0]]).double(), torch.tensor([[1.0]]).double())
    row = torch.ones(1, 1, 1, dtype=torch.float64)
    return Instance.of(network, region), Queries(row, row[0] * 0, torch.zeros(1, 1, dtype=torch.int64), 1)


def test_smooth_neurons_are_tightened_where_their_sign_is_known_too() -> None:
    """A sigmoid is curved on either side of zero: unlike a ReLU it gains from tighter bounds wherever they lie."""
    instance, queries = cancelling_sigmoids()
    found = {m: bound(instance, queries, METHODS[m]) for m in ("interval", "crown")}
    width = {m: (b.bounds.upper[3] - b.bounds.lower[3]).item() for m, b in found.items()}
    assert undecided(instance, found["interval"].bounds, 3).all()
    assert width["crown"] < 0.9 * width["interval"]
    assert found["crown"].value.item() > found["interval"].value.item()
