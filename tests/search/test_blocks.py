"""Counterexamples by moving blocks of the input to the ends of a region."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from krelax.bounds.instance import Instance
from krelax.network.torch import from_torch
from krelax.problem.queries import Queries, classification
from krelax.problem.region import Ball, Box
from krelax.search.attack import Attack, best, descend, starts
from krelax.search.blocks import Blocks, moved


class Binary(nn.Module):
    """A convolution and layers whose weights and activations are -1 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.layers = nn.ModuleList([nn.Linear(800, 64), nn.Linear(64, 5)])
        for layer in (self.conv, *self.layers):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            layer.weight.data.sign_()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sign(torch.sign(self.conv(x)) + 0.1).flatten(1)
        result: Tensor = self.layers[1](torch.sign(self.layers[0](x)))
        return result


def _asked(eps: float) -> tuple[Instance, Queries]:
    torch.manual_seed(3)
    network = from_torch(Binary(), torch.rand(1, 1, 12, 12))
    centre = torch.rand(8, 1, 1, 12, 12, dtype=torch.float64)
    queries = classification(network(centre).flatten(1).argmax(1), 5).to(torch.float32)
    return Instance.of(network, Box(centre - eps, centre + eps)), queries


def test_blocks_find_what_gradients_of_ramps_do_not() -> None:
    instance, queries = _asked(0.005)
    effort = Attack(restarts=2, samples=8, steps=20)
    x, before = best(*descend(instance, queries, starts(instance, queries, effort), effort))
    x, after = moved(instance, queries, x, Blocks(tries=16, rounds=10))
    assert bool((after <= before).all())
    assert int((after <= 0).sum()) > int((before <= 0).sum())
    assert float((before - after).sum()) >= 8
    values = queries.values(instance.fast_network(x)[:, None])
    assert torch.equal(queries.margin(values)[:, 0], after)
    assert bool(((x >= instance.fast_region.lower) & (x <= instance.fast_region.upper)).all())


def test_points_stay_in_balls() -> None:
    instance, queries = _asked(0.005)
    centre, eps = instance.region.lower / 2 + instance.region.upper / 2, 0.03
    ball = Ball(centre - eps, centre + eps, centre, eps, 2)
    instance = Instance.of(instance.network, ball)
    x, margin = moved(instance, queries, centre.float(), Blocks(tries=4, rounds=5))
    assert float((x - centre).flatten(1).norm(dim=1).max()) <= eps
    assert bool((margin <= queries.margin(queries.values(instance.fast_network(centre.float())[:, None]))[:, 0]).all())
