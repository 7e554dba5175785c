"""Products of matrices, crossed at once: the same bounds as of all products one by one, rounding charged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.marks import at_night_after
from torch import Tensor, nn

from krelax.activations import Rule
from krelax.bounds.backward import lower_bound, neurons, outputs, signed
from krelax.bounds.contracted import contractions
from krelax.bounds.copies import sources
from krelax.bounds.layers import LayerBounds, advance, start
from krelax.bounds.steps import by_rule
from krelax.network.graph import Network
from krelax.network.torch import from_torch
from krelax.problem.region import Box


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


CASES = {
    "matmul": lambda x: x.relu() @ x.transpose(1, 2).tanh(),
    "heads": lambda x: (
        x.unflatten(2, (2, 2)).tanh().transpose(1, 2) @ x.unflatten(2, (2, 2)).permute(0, 2, 3, 1).relu()
    ),
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x.relu(), x.tanh()),
    "of sums": lambda x: (x.tanh() * x.relu()).sum(1),
    "softmax": lambda x: (x @ x.transpose(1, 2)).softmax(2) @ x.tanh(),
}


def bounded(name: str) -> tuple[Network, Box, LayerBounds]:
    generator = torch.Generator().manual_seed(3)
    network = from_torch(Function(CASES[name]), torch.randn(1, 3, 4))
    centre = torch.randn(2, 1, 3, 4, generator=generator).double()
    region = Box(centre - 0.1, centre + 0.2)
    region = region.shaped(network.input_shape)
    bounds = start(region)
    while len(bounds.lower) < len(network.nodes):
        advance(network, bounds)
    return network, region, bounds


# every case always, with the rules in turn
RULED = [(name, (Rule.ADAPTIVE, Rule.PARALLEL)[(i + j) % 2]) for j in range(2) for i, name in enumerate(CASES)]


@pytest.mark.parametrize(("name", "rule"), at_night_after(len(CASES), RULED))
def test_a_contraction_is_all_products_one_by_one(name: str, rule: Rule) -> None:
    network, region, bounds = bounded(name)
    assert contractions(network)
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(2, 5, bounds.lower[-1][0].numel(), generator=generator).double()
    form, witness = outputs(network, rows, torch.zeros(2, 5).double()), by_rule(bounds, rule)
    at_once = lower_bound(network, region, form, witness, bounds)
    laid_out = lower_bound(network, region, form, witness, bounds, {})  # who asks for tapes gets all products
    assert torch.allclose(at_once, laid_out, rtol=0, atol=1e-9)
    share = torch.rand(400, 2, *network.input_shape, generator=generator).double().round()
    x = region.lower + share * (region.upper - region.lower)
    values = network(x.flatten(0, 1)).reshape(400, 2, -1)
    least = torch.einsum("nbo,bqo->bqn", values, rows).amin(2)
    assert bool((at_once <= least).all())


def test_what_rounds_is_charged_for() -> None:
    """With numbers that cancel, bounds of a known point are below its value, but hardly."""
    network, region, _ = bounded("matmul")
    point = Box(region.lower, region.lower)
    bounds = start(point)
    while len(bounds.lower) < len(network.nodes):
        advance(network, bounds)
    rows = torch.randn(2, 50, bounds.lower[-1][0].numel(), generator=torch.Generator().manual_seed(8)).double() * 1e6
    form = outputs(network, rows, torch.zeros(2, 50).double())
    found = lower_bound(network, point, form, by_rule(bounds, Rule.ADAPTIVE), bounds)
    exact = torch.einsum("bo,bqo->bq", network(point.lower).flatten(1), rows)
    assert bool((found < exact).all())
    assert bool((exact - found <= 1e-3).all())


@pytest.mark.parametrize("name", CASES)
def test_entries_of_copies_are_those_of_what_they_copy(name: str) -> None:
    network, _, bounds = bounded(name)
    values = network.values(bounds.lower[0])
    for i in range(1, len(network.nodes)):
        found = sources(network, i)
        if found is None:
            continue
        total = torch.zeros_like(values[i].flatten(1))
        for source, places in found.items():
            total += torch.where(places >= 0, values[source].flatten(1)[:, places.clamp(min=0)], 0.0)
        assert torch.equal(total, values[i].flatten(1))
        index = torch.arange(total.shape[1]).expand(2, -1)
        form = signed(neurons(network, i, index))
        assert form.constant.shape == (2, 2 * total.shape[1])
        assert i not in form.coeff
