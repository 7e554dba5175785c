"""What is certified of float32 executions holds for any order of summation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.certificate.proofs import network_of, plain, random_layers, rough

from krelax.certificate.arithmetic import Exact, Float64
from krelax.certificate.format import Layer, Question, Region
from krelax.certificate.proof import Proof


def execute(rng: Any, layers: Any, x: Any) -> list[Any]:
    """Pre-activations of a float32 execution, every sum in an order of its own, the bias anywhere in it."""
    result = []
    for layer in layers:
        weight, bias = np.array(layer.weight, np.float32), np.array(layer.bias, np.float32)
        z = np.empty(len(bias), np.float32)
        for i, row in enumerate(weight):
            terms = rng.permutation(np.append(row * x, bias[i]))
            z[i] = np.add.accumulate(terms, dtype=np.float32)[-1]
        result.append(z)
        x = z if layer.slope is None else np.where(z > 0, z, np.float32(layer.slope) * z)
    return result


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("slope", [0.0, float(np.float32(0.1))])
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_executions_stay_inside(ar: Any, slope: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = random_layers(rng, [*rng.integers(2, 9, rng.integers(1, 4)).tolist(), 2], slope, rough)
    network = network_of(layers)[1]
    x = rng.normal(0, 1, 2).astype(np.float32)
    rows = np.concatenate([np.eye(2), -np.eye(2)])
    point = x.astype(np.float64)
    question = Question(Region("box", point, point), rows, np.zeros(4), np.arange(4, dtype=np.int32))
    question.layers = [Layer(rng.choice(["interval", "adaptive"])) for _ in network.activations]
    question.margins = plain(4)
    with np.errstate(all="ignore"):
        proof = Proof(network.over(ar), question, ar, float32=True)
        margin = proof.margin()
    for _ in range(5):
        values = execute(rng, layers, x)
        for j, z in enumerate(values[:-1]):
            lower, upper = (end[0] for end in proof.ends(j))
            assert (lower <= z).all()
            assert (z <= upper).all()
        assert margin <= (rows @ values[-1].astype(np.float64)).min()
