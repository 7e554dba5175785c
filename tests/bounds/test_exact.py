"""The ground truth of the other tests, tested itself: its extremes are attained, and nothing beats them."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from tests.exact import Layer, as_network, evaluate, minimum, ranges


def random_layers(seed: int, slope: float, skip: bool) -> list[Layer]:
    """Two inputs, three hidden layers of five neurons, float32-like weights."""
    rng = np.random.default_rng(seed)
    widths = [2, 5, 5, 5]
    return [
        Layer(
            rng.normal(size=(m, n)).astype(np.float32).astype(float).tolist(),
            rng.normal(size=m).astype(np.float32).astype(float).tolist(),
            slope,
            skip and m == n,
        )
        for n, m in pairwise(widths)
    ]


def test_two_neurons_sharing_inputs_have_the_known_joint_maximum() -> None:
    """a1 + a2 over z1 = u + v, z2 = u - v is at most 2, where single-neuron triangles give 3."""
    layers = [Layer([[1.0, 1.0], [1.0, -1.0]], [0.0, 0.0])]
    assert minimum(layers, [-1.0, -1.0], 0.0, [-1.0, -1.0], [1.0, 1.0]) == -2


def test_maximum_written_with_a_relu_is_the_maximum() -> None:
    layers = [Layer([[1.0, -1.0], [0.0, 1.0]], [0.0, 0.0])]
    assert minimum(layers, [-1.0, -1.0], 0.25, [0.0, 0.0], [1.0, 1.0]) == Fraction(-3, 4)
    assert minimum(layers, [1.0, 1.0], 0.0, [0.0, 0.0], [1.0, 1.0]) == 0


def test_skip_connection_adds_the_input() -> None:
    """|x| = x + 2 relu(-x) = (relu(-2x)) + x."""
    layers = [Layer([[-2.0, 0.0], [0.0, -2.0]], [0.0, 0.0], 0.0, True)]
    assert minimum(layers, [1.0, 1.0], 0.0, [-3.0, -1.0], [2.0, 5.0]) == 0
    assert minimum(layers, [-1.0, -1.0], 0.0, [-3.0, -1.0], [2.0, 5.0]) == -8


def test_the_smallest_difference_is_seen() -> None:
    """Arithmetic that rounds anywhere would lose 2^-1000 next to 1."""
    tiny = 2.0**-1000
    layers = [Layer([[1.0, 0.0]], [tiny]), Layer([[1.0]], [-1.0], 0.5)]
    assert minimum(layers, [1.0], 0.0, [0.0, 0.0], [0.0, 0.0]) == (Fraction(tiny) - 1) / 2


@pytest.mark.parametrize("slope", [0.0, 0.125, 1.0])
@pytest.mark.parametrize("skip", [False, True])
def test_extremes_are_attained_and_no_sample_beats_them(slope: float, skip: bool) -> None:
    lower, upper = [-1.5, -0.25], [1.0, 2.0]
    for seed in range(3):
        layers = random_layers(seed, slope, skip)
        samples = np.random.default_rng(seed).uniform(lower, upper, size=(40, 2))
        for depth, found in enumerate(ranges(layers, lower, upper)):
            pre = [*layers[:depth], Layer(layers[depth].weight, layers[depth].bias, None)]
            values = [evaluate(pre, x) for x in samples]
            for i, r in enumerate(found):
                assert evaluate(pre, r.low_at)[i] == r.low
                assert evaluate(pre, r.high_at)[i] == r.high
                assert r.low <= min(v[i] for v in values)
                assert r.high >= max(v[i] for v in values)
                assert all(a <= x <= b for p in (r.low_at, r.high_at) for a, x, b in zip(lower, p, upper, strict=True))


@pytest.mark.parametrize("slope", [0.0, 0.125])
@pytest.mark.parametrize("skip", [False, True])
def test_the_krelax_network_computes_the_same_function(slope: float, skip: bool) -> None:
    import torch

    layers = random_layers(7, slope, skip)
    x = np.random.default_rng(0).uniform(-2, 2, size=(20, 2))
    ours = as_network(layers)(torch.from_numpy(x)).numpy()
    exact = np.array([[float(v) for v in evaluate(layers, p)] for p in x])
    np.testing.assert_allclose(ours, exact, rtol=1e-11, atol=1e-11)
