"""Whether outputs rise with inputs, against what is so exactly."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.marks import at_night_after
from tests.run.files import random_dense, save
from torch import nn

import krelax
from krelax.errors import InputError, UnsupportedError
from krelax.network.onnx import load_onnx


def linear(*weights: float) -> nn.Module:
    module = nn.Linear(len(weights), 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([weights]))
    return module.eval()


X = np.full((2, 2), 0.5, np.float32)


@pytest.mark.parametrize(("weight", "rising", "verdict"), [
    (0.5, True, "holds"), (0.5, False, "violated"), (-0.5, True, "violated"), (-0.5, False, "holds"),
])  # fmt: skip
def test_the_sign_of_a_weight_decides(weight: float, rising: bool, verdict: str) -> None:
    found = krelax.monotone(linear(weight, 1.0), X, eps=0.25, feature=0, rising=rising)
    assert [v.value for v in found.verdicts] == [verdict, verdict]
    assert len(found.pairs) == (2 if verdict == "violated" else 0)


def test_slack_is_exact() -> None:
    """A slope of -1/4 is within a slack that is a little more, and not in one that is a little less."""
    answers = [
        krelax.monotone(linear(-0.25, 1.0), X[:1], eps=0.25, feature=0, slack=Fraction(1, 4) + d).verdicts[0].value
        for d in (Fraction(1, 1000), -Fraction(1, 1000))
    ]
    assert answers == ["holds", "violated"]


def test_what_does_not_change_needs_slack() -> None:
    """Of the slope x - x nothing can be proven, and rounding in the model is no counterexample."""
    first, last = nn.Linear(2, 2), nn.Linear(2, 1)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 1 / 3], [1.0, 0.0]]))
        last.weight.copy_(torch.tensor([[1.0, -1.0]]))
    module = nn.Sequential(first, last).eval()
    found = krelax.monotone(module, X[:1], eps=0.25, feature=0, timeout=0.5)
    assert found.verdicts[0].value == "unknown"
    assert krelax.monotone(module, X[:1], eps=0.25, feature=0, slack=1e-6).verdicts[0].value == "holds"


def test_signs_of_weights_prove_what_bounds_cannot() -> None:
    """Behind ReLUs the slope is zero in places. A hard swish falls at first, so nothing follows from signs there, and
    its slope is not known."""
    torch.manual_seed(3)
    layers = [nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 1)]
    with torch.no_grad():
        for layer in (layers[0], layers[2]):
            layer.weight.abs_()
    found = krelax.monotone(nn.Sequential(*layers).eval(), X[:1], eps=0.5, feature=1, timeout=2)
    assert (found.verdicts[0].value, found.answers[0].reason, found.slopes[0]) == ("holds", "signs of weights", 0)
    with pytest.raises(UnsupportedError, match="hard-swish"):
        krelax.monotone(nn.Sequential(layers[0], nn.Hardswish()).eval(), X[:1], eps=0.5, feature=1)


@pytest.mark.parametrize("seed", at_night_after(2, range(4)))
def test_answers_are_those_of_a_grid(seed: int, tmp_path: Path) -> None:
    """Slopes of a network of two inputs are looked at in a fine grid. Whatever is proven is no more than the least, and
    pairs are in the region, differ in the feature, and are answered in the wrong order."""
    save(random_dense([2, 8, 8, 1], seed), tmp_path / "a.onnx")
    network = load_onnx(tmp_path / "a.onnx")
    x = np.random.default_rng(seed).random((3, 1, 2)).astype(np.float32)
    eps, slack = 0.05, 1e-3
    found = krelax.monotone(network, x, eps=eps, feature=1, slack=slack)
    for i, answer in enumerate(found):
        sides = [torch.linspace(float(v) - eps, float(v) + eps, 101, dtype=torch.float64) for v in x[i, 0]]
        grid = torch.cartesian_prod(*sides)
        y = network(grid.reshape(-1, 1, 2)).reshape(101, 101)
        least = float((y.diff(dim=1) / (eps / 50)).min())
        assert answer.slope is None or answer.slope <= least + 1e-6
        # no network in this test comes nearer to the slack than that
        assert abs(least + slack) > 1e-4
        assert answer.verdict.value == ("holds" if least > -slack else "violated")
        if answer.pair is not None:
            p, q = answer.pair.x.astype(np.float64)
            assert (p[0, 0], p[0, 1] < q[0, 1]) == (q[0, 0], True)
            assert (abs(answer.pair.x.astype(np.float64) - x[i]) <= eps).all()
            assert network.replay is not None
            assert network.replay(answer.pair.x[0]).item() > network.replay(answer.pair.x[1]).item()


def test_radii_of_their_own_and_ranges_count() -> None:
    """`-|x0|` rises up to zero. Items are at -1/2, and the range or the radius ends there."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        module[0].bias.zero_()
        module[2].weight.fill_(-1.0)
    x = np.full((1, 2), -0.5, np.float32)
    for options, verdict in (
        ({"eps": 0.75}, "violated"),
        ({"eps": [0.25, 0.75]}, "holds"),
        ({"eps": 0.75, "clip": (-1.0, -0.125)}, "holds"),
    ):
        found = krelax.monotone(module, x, feature=0, **options)
        assert found.verdicts[0].value == verdict, options
    assert "rises with input 0" in repr(found)
    assert "<table" in found._repr_html_()


def test_what_does_not_fit_is_one_line() -> None:
    for options, message in (
        ({"feature": 2}, "feature must be a whole number from 0 to 1"),
        ({"feature": 0, "output": 1}, "output must be a whole number from 0 to 0"),
        ({"feature": 0, "slack": -1}, "the slack must be at least 0"),
        ({"feature": 0, "eps": -1}, "eps must be"),
    ):
        with pytest.raises(InputError, match=message):
            krelax.monotone(linear(1.0, 1.0), X, **({"eps": 0.1} | options))
