"""Counterexamples through functions that jump, where plain gradients are zero."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import torch
from tests.network.test_difference import between, dense_network, perturbed
from torch import Tensor, nn

from krelax.activations import Difference, Quantise, Sign, Step, Threshold
from krelax.bounds.instance import Instance
from krelax.network.torch import from_torch
from krelax.problem.queries import Queries, classification
from krelax.problem.region import Box
from krelax.search import straight
from krelax.search.attack import Attack, search


class Binary(nn.Module):
    """Weights and activations that are -1 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(600, 60), nn.Linear(60, 60), nn.Linear(60, 5)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in list(self.layers)[:-1]:
            x = torch.sign(layer(x))
        result: Tensor = self.layers[-1](x)
        return result


def test_descents_see_through_signs() -> None:
    """Random points of the same number, which is all that is left without ramps, find next to nothing."""
    torch.manual_seed(3)
    network = from_torch(Binary(), torch.rand(1, 600))
    centre = torch.rand(12, 1, 600, dtype=torch.float64)
    labels = network(centre).flatten(1).argmax(1)
    instance = Instance.of(network, Box(centre - 0.02, centre + 0.02))
    queries = classification(labels, 5).to(torch.float32)
    effort = Attack(restarts=4, samples=8)
    found = [int((search(instance, queries, effort)[1] <= 0).sum())]
    many = torch.rand(12, 4 * 41, 1, 600) * 0.04 - 0.02 + centre.float().unsqueeze(1)
    values = queries.margin(queries.values(straight.evaluate(instance.fast_network, many, {})))
    found.append(int((values.amin(1) <= 0).sum()))
    assert found[0] >= found[1] + 3


def test_values_are_exact_and_gradients_are_those_of_ramps() -> None:
    z = torch.tensor([-3.0, -0.2, 0.1, 0.4, 7.0], requires_grad=True)
    width = torch.full((5,), 0.5)
    slopes = []
    for op in (Sign(), Step(), Quantise(-2.0, 3.0), Threshold(0.25, 1.0)):
        (slope,) = torch.autograd.grad(op.smeared(z, width).sum(), z)
        slopes.append(slope.tolist())
    assert slopes[0] == [0, 2, 2, 2, 0]
    assert slopes[1] == [0, 1, 1, 1, 0]
    assert slopes[2] == [0, 1, 1, 1, 0]
    assert slopes[3] == [0, -0.75, -0.75, 0.25, 1]


def test_descents_see_that_differences_come_and_go() -> None:
    """What neurons are apart by goes through where they are active, and what moves them there has no gradient."""
    pairs = torch.tensor([[0.5, 0.01], [-0.5, 0.01], [-9.0, 0.01]], requires_grad=True)
    op, width = Difference(), torch.full((3, 2), 4.0)
    (plain,) = torch.autograd.grad(op.forward(pairs).sum(), pairs)
    (smooth,) = torch.autograd.grad(op.smeared(pairs, width).sum(), pairs)
    assert plain[:, 0].abs().max() < 1e-6
    assert (smooth[:2, 0] > 1e-3).all()
    assert smooth[2, 0] < 1e-6
    found = {False: 0.0, True: 0.0}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        one = dense_network(rng, (40, 30, 30, 30, 3))
        network = between(one, perturbed(one, rng, 1e-3))
        centre = torch.from_numpy(rng.normal(size=(1, 40)))
        instance = Instance.of(network, Box(centre - 0.3, centre + 0.3))
        rows = torch.cat([torch.eye(3), -torch.eye(3)])[None]
        queries = Queries(rows, torch.ones(1, 6), torch.arange(6)[None], 6)
        for smooth_ones in found:
            with patch.object(Difference, "steep", smooth_ones):
                found[smooth_ones] += 1 - float(search(instance, queries, Attack(restarts=12))[1])
    assert found[True] > 1.02 * found[False]
