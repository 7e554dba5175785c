"""The slope of a network: its derivatives where it has some, and bounds that no derivative crosses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.network.test_difference import dense, dense_network, margins

from krelax.activations import Exp, LeakyReLU, Max, ReLU, Sigmoid, Square, Tanh
from krelax.errors import InputError, UnsupportedError
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Conv, Scale
from krelax.network.ops import Concat, Reshape, Take
from krelax.network.slope import slope
from krelax.problem.region import Box

Make = Callable[[np.random.Generator], Network]


def mixed(rng: np.random.Generator) -> Network:
    """Convolutions, branches, scaling, and every activation whose slope is known."""
    b = Builder((1, 1, 4, 4))
    weight = torch.from_numpy(rng.normal(size=(2, 1, 3, 3)) / 3)
    x = b.add(Conv(weight, torch.from_numpy(rng.normal(size=2)), (1, 1), (0, 0), (1, 1)), 0)
    x = b.add(Scale(torch.tensor(1.5).double(), torch.tensor(-0.1).double()), x)
    x = b.add(Reshape((1, 8)), b.add(ReLU(), x))
    parts = [b.add(op, b.add(dense(rng, 8, 4), x)) for op in (LeakyReLU(0.1), Sigmoid(), Tanh(), Exp(), Square())]
    x = b.add(Concat(1), b.add(Add((1, -1)), *parts[:2]), *parts[2:])
    return b.build(b.add(dense(rng, 6, 3), b.add(LeakyReLU(0.3), b.add(dense(rng, 16, 6), x))))


def derivative(network: Network, x: torch.Tensor, feature: int) -> torch.Tensor:
    """Of every output at points `(n, *shape)`, by automatic differentiation: `(n, outputs)`."""
    x = x.clone().requires_grad_(True)
    y = network(x).reshape(len(x), -1)
    rows = [torch.autograd.grad(y[:, k].sum(), x, retain_graph=True)[0] for k in range(y.shape[1])]
    return torch.stack([row.reshape(len(x), -1)[:, feature] for row in rows], 1)


@pytest.mark.parametrize("make", [mixed, dense_network])
@pytest.mark.parametrize("feature", [0, 2])
def test_it_is_the_derivative(make: Make, feature: int) -> None:
    rng = np.random.default_rng(1)
    network = make(rng)
    x = torch.from_numpy(rng.normal(size=(50, *network.input_shape)))
    wanted = derivative(network, x, feature)
    found = slope(network, feature)(x).reshape(wanted.shape)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    assert wanted.abs().max() > 0.01


@pytest.mark.parametrize(("make", "method"), [
    *((make, method) for make in (mixed, dense_network) for method in ("interval", "zonotope", "crown", "alpha")),
    (dense_network, "krelu"),
])  # fmt: skip
def test_no_quotient_of_differences_crosses_the_bounds(make: Make, method: str) -> None:
    """Between any two points, near or far, that differ in nothing but the input."""
    rng = np.random.default_rng(2)
    network, feature = make(rng), 1
    centre = torch.from_numpy(rng.normal(size=(1, *network.input_shape)))
    bounds = margins(slope(network, feature), Box(centre - 0.2, centre + 0.2), method)
    p = centre + torch.from_numpy(rng.uniform(-0.2, 0.2, size=(3000, *network.input_shape)))
    q = p.clone()
    q.reshape(3000, -1)[:, feature] = centre.flatten()[feature] + torch.from_numpy(rng.uniform(-0.2, 0.2, size=3000))
    step = (q - p).reshape(3000, -1)[:, feature]
    kept = step.abs() > 1e-3
    quotient = ((network(q) - network(p)).reshape(3000, -1) / step[:, None])[kept]
    # quotients round
    assert (bounds[0] <= torch.cat([quotient, -quotient], 1).amin(0) + 1e-9).all()


def test_bounds_are_exact_where_no_neuron_changes() -> None:
    rng = np.random.default_rng(3)
    network = dense_network(rng)
    x = torch.from_numpy(rng.normal(size=(1, 3)))
    wanted = derivative(network, x, 0)[0]
    bounds = margins(slope(network, 0), Box(x - 1e-6, x + 1e-6), "crown")[0]
    assert torch.allclose(bounds, torch.cat([wanted, -wanted]), rtol=0, atol=1e-9)


def test_at_a_kink_both_slopes_count() -> None:
    """The interval ends where the neuron's operand is zero, on either side."""
    b = Builder((1,))
    network = slope(b.build(b.add(ReLU(), 0)), 0)
    for low, high in ((0.0, 1.0), (-1.0, 0.0)):
        bounds = margins(network, Box(torch.tensor([[low]]).double(), torch.tensor([[high]]).double()), "crown")[0]
        assert bounds[0] <= low + 1
        assert bounds[1] <= -high


def test_what_has_no_known_slope_is_refused_by_name() -> None:
    b = Builder((4,))
    network = b.build(b.add(Max(), b.add(Take(torch.arange(4).reshape(2, 2)), 0)))
    with pytest.raises(UnsupportedError, match="the activation max is not known; that of relu"):
        slope(network, 0)
    with pytest.raises(InputError, match="no input 4; inputs of an item are numbered from 0 to 3"):
        slope(network, 4)
