"""Which outputs may fall where inputs rise, against values at pairs of points."""

from __future__ import annotations

import pytest
import torch
from tests.marks import at_night_after
from torch import Tensor, nn

from krelax.network.direction import Moves, directions
from krelax.network.graph import Network
from krelax.network.torch import from_torch
from krelax.search.excluded import intervals


def moves_of(network: Network, rise: list[int], fall: list[int], lower: Tensor, upper: Tensor) -> Moves:
    flags = torch.zeros(2, lower.numel(), dtype=torch.bool)
    flags[0, rise], flags[1, fall] = True, True
    bounds = intervals(network, lower.flatten().numpy(), upper.flatten().numpy())
    return directions(network, Moves(*flags), *([torch.from_numpy(b[s]) for b in bounds] for s in (0, 1)))


class Product(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1] * x[:, 1:2]


class Mixed(nn.Module):
    """Branches, subtraction, a pool, and a function that is not monotone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x[:, None])
        pooled = torch.max_pool1d(torch.relu(z), 2).flatten(1)
        return torch.cat([pooled, x[:, :1] - torch.sigmoid(x[:, 1:2]), torch.sin(x[:, 2:3]), x.sum(1, True)], 1)


def dense(positive: bool) -> nn.Module:
    layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, nn.Linear) and positive:
                layer.weight.abs_()
    return layers


MODELS = {"positive": lambda: dense(True), "any": lambda: dense(False), "mixed": Mixed, "product": Product}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", at_night_after(2, range(8)))
def test_what_may_not_fall_does_not_fall(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    network = from_torch(MODELS[name]().eval(), torch.zeros(1, 4))
    lower = torch.rand(4, dtype=torch.float64) * 2 - 1.5
    upper = lower + torch.rand(4, dtype=torch.float64)
    rise, fall = [i for i in range(4) if (seed + i) % 3 == 0], [i for i in range(4) if (seed + i) % 3 == 1]
    found = moves_of(network, rise, fall, lower, upper)
    first = lower + torch.rand(200, 4, dtype=torch.float64) * (upper - lower)
    second = first.clone()
    for entries, end in ((rise, upper), (fall, lower)):
        for i in entries:
            second[:, i] = torch.lerp(first[:, i], end[i].expand(200), torch.rand(200, dtype=torch.float64))
    first, second = (points.reshape(-1, *network.input_shape) for points in (first, second))
    gain = (network(second) - network(first)).flatten(1)
    tiny = 1e-12  # of rounding in the values that are compared
    assert not bool(((gain < -tiny) & ~found.may_fall.flatten()).any())
    assert not bool(((gain > tiny) & ~found.may_rise.flatten()).any())
    if name == "positive" and not fall:
        assert not bool(found.may_fall.any())


def test_signs_are_told_apart() -> None:
    """One input each way, through a matrix, a negation and a product of known signs."""
    weight = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, -2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [1.0, -1.0, 0.0, 0.0]])
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight.copy_(weight)
    found = moves_of(
        from_torch(layer.eval(), torch.zeros(1, 4)), [0, 1], [], torch.zeros(4).double(), torch.ones(4).double()
    )
    assert found.may_rise.flatten().tolist() == [True, False, False, True]
    assert found.may_fall.flatten().tolist() == [False, True, False, True]
    product = from_torch(Product().eval(), torch.zeros(1, 4))
    low, high = torch.tensor([1.0, -2.0, 0, 0]).double(), torch.tensor([2.0, -1.0, 0, 0]).double()
    found = moves_of(product, [0], [], low, high)
    assert (found.may_rise.flatten().tolist(), found.may_fall.flatten().tolist()) == ([False], [True])


def test_what_is_constant_does_not_move() -> None:
    """A ReLU that is never active."""
    ends = torch.tensor([[-2.0, -1.0], [-1.0, 1.0]]).double()
    found = moves_of(from_torch(nn.ReLU(), torch.zeros(1, 2)), [0, 1], [], *ends)
    assert found.may_rise.flatten().tolist() == [False, True]
