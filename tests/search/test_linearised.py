"""The affine function around a point is the network as far as no kink is crossed, and its tangent elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.search.small import NETWORKS, OUTPUTS, PIECEWISE
from torch import Tensor

from krelax.activations import Step
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add
from krelax.search.linearised import Linearised


def network_and_points(name: str, seed: int = 0) -> tuple[Network, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    network = NETWORKS[name](rng)
    x, other = (torch.from_numpy(rng.uniform(-1, 1, (1, *network.input_shape))) for _ in range(2))
    return network, x, other


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_the_network(name: str) -> None:
    network, x, _ = network_and_points(name)
    found = Linearised.at(network, x).gradients(len(network.nodes) - 1, torch.eye(OUTPUTS, dtype=torch.float64))
    wanted = torch.autograd.functional.jacobian(network, x).reshape(OUTPUTS, -1)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", PIECEWISE)
def test_the_network_is_affine_up_to_the_first_kink_and_not_beyond(name: str) -> None:
    network, x, other = network_and_points(name)
    here = Linearised.at(network, x)
    kinks = here.crossed(other, 1000)
    ways = [way for way, _ in kinks]
    assert ways == sorted(ways)
    assert len({kink[:2] for _, kink in kinks}) == len(kinks) > 1
    (first, kink), second = kinks[0], ways[1]
    assert 0 < first < second < 1

    def to(part: float) -> Tensor:
        return x + part * (other - x)

    assert not here.crossed(to(0.999 * first), 10)
    torch.testing.assert_close(here._values(to(0.999 * first))[-1], network(to(0.999 * first)))
    beyond = here.moved(to(first)).across([kink])
    between = to((first + second) / 2)
    assert [k for _, k in here.crossed(between, 10)] == [kink]
    assert not torch.allclose(here._values(between)[kink.node], network.values(between)[kink.node], atol=1e-9)
    torch.testing.assert_close(beyond._values(between)[-1], network(between))


@pytest.mark.parametrize("name", PIECEWISE)
def test_a_condition_is_zero_at_its_kink(name: str) -> None:
    network, x, other = network_and_points(name)
    here = Linearised.at(network, x)
    kinks = here.crossed(other, 5)
    gradients, values = here.conditions([kink for _, kink in kinks])
    assert bool((values > 0).all())
    for (way, _), gradient, value in zip(kinks, gradients, values, strict=True):
        torch.testing.assert_close(value + way * (gradient @ (other - x).flatten()), 0 * value, rtol=0, atol=1e-12)


def test_a_tangent_touches() -> None:
    network, x, other = network_and_points("tanh")
    here = Linearised.at(network, x)
    assert not here.crossed(other, 10)
    small = x + 1e-5 * (other - x)
    torch.testing.assert_close(here._values(small)[-1], network(small), rtol=0, atol=1e-8)
    assert not torch.allclose(here._values(other)[-1], network(other), rtol=0, atol=1e-3)


def test_steps_are_flat() -> None:
    b = Builder((3,))
    network = b.build(b.add(Add((1, 1)), 0, b.add(Step(), 0)))
    x = torch.tensor([[-0.5, 0.25, 2.0]], dtype=torch.float64)
    found = Linearised.at(network, x).gradients(len(network.nodes) - 1, torch.eye(3, dtype=torch.float64))
    assert torch.equal(found, torch.eye(3, dtype=torch.float64))
