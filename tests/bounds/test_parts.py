"""Bounds of a network by those of networks that are part of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.network.test_difference import between, dense_network, perturbed, side_by_side

from krelax.activations import Difference, Sigmoid
from krelax.bounds.bounded import Bounded
from krelax.bounds.branching import Effort
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.optimise import Ascent
from krelax.bounds.parts import Part, tighten_parts
from krelax.network.difference import places
from krelax.network.graph import Builder, Network
from krelax.problem.queries import Queries
from krelax.problem.region import Box


def models(seed: int, sizes: tuple[int, ...] = (5, 16, 16, 16, 2)) -> tuple[Network, Network, Box]:
    """A network, a copy that is a little different, and a region."""
    rng = np.random.default_rng(seed)
    one = dense_network(rng, sizes)
    centre = torch.from_numpy(rng.normal(size=(1, sizes[0])))
    return one, perturbed(one, rng, 1e-2), Box(centre - 0.5, centre + 0.5)


def both_sides(count: int) -> Queries:
    rows = torch.cat([torch.eye(count), -torch.eye(count)]).double()[None]
    return Queries(rows, torch.zeros(1, 2 * count).double(), torch.arange(2 * count)[None], 2 * count)


def tightened(
    network: Network, parts: tuple[Network, ...], box: Box, seconds: float | None = None
) -> tuple[Bounded, LayerBounds]:
    """What a method finds, and what is made of it."""
    instance = Instance.of(network, box)
    found = bound(instance, both_sides(2), METHODS["alpha"])
    each = [Part(Instance.of(part, box), places(part, network)) for part in parts]
    with torch.no_grad():
        return found, tighten_parts(instance.until(seconds), found.bounds, each, Effort(rounds=10), Ascent(8, 0.5, 0.8))


@pytest.mark.parametrize("build", [between, side_by_side])
def test_bounds_are_tighter_and_no_input_crosses_them(build: Callable[[Network, Network], Network]) -> None:
    one, other, box = models(1)
    network = build(one, other)
    found, bounds = tightened(network, (one, other), box)
    share = torch.rand(4000, 5, generator=torch.Generator().manual_seed(0)).double()
    corners = torch.cat([share, share.round()])
    x = box.lower + corners * (box.upper - box.lower)
    for i, values in enumerate(network.values(x)):
        # the sample itself rounds
        assert (bounds.lower[i] <= values + 1e-12).all()
        assert (bounds.upper[i] >= values - 1e-12).all()
        assert (bounds.lower[i] >= found.bounds.lower[i]).all()
        assert (bounds.upper[i] <= found.bounds.upper[i]).all()
    again = bound(Instance.of(network, box), both_sides(2), METHODS["alpha"], found=Bounded(found.value, bounds))
    assert (again.value >= found.value).all()
    assert again.value.min() > 0.95 * found.value.min()  # which is negative


def test_neurons_are_tightened_beyond_what_they_are_apart_by() -> None:
    """Both networks are decided then, and the difference is linear."""
    one, other, box = models(2)
    network = between(one, other)
    found, bounds = tightened(network, (other,), box)
    decided = []
    for known in (found.bounds, bounds):
        differences = [r for i, r in known.relaxations.items() if isinstance(network.nodes[i].op, Difference)]
        decided.append(sum(int((~r.unstable()[..., 1]).sum()) for r in differences))
    assert decided[1] > decided[0]


def test_without_time_bounds_are_what_they_were() -> None:
    one, other, box = models(3)
    network = between(one, other)
    found, bounds = tightened(network, (other,), box, seconds=-1.0)
    for i in range(len(network.nodes)):
        assert (bounds.lower[i] >= found.bounds.lower[i]).all()
        assert (bounds.upper[i] <= found.bounds.upper[i]).all()


def test_layers_that_have_no_kink_at_zero_are_left_alone() -> None:
    rng = np.random.default_rng(4)
    one = dense_network(rng, (3, 4, 2))
    b = Builder((3,))
    end = b.add(one.nodes[1].op, 0)
    model = b.build(b.add(Sigmoid(), end))
    box = Box(torch.zeros(1, 3).double(), torch.ones(1, 3).double())
    assert Part(Instance.of(model, box), places(model, model)).kinked == {}
    assert Part(Instance.of(one, box), places(one, one)).kinked == {1: 1}


def test_pairs_decided_beyond_zero() -> None:
    """A difference is linear where g is beyond what it says."""
    lower = torch.tensor([[[0.5, -0.2], [-0.7, -0.3], [0.1, -0.2]]])
    upper = torch.tensor([[[2.0, 0.3], [-0.4, 0.4], [1.0, 0.1]]])
    relaxation = Difference().relax(lower, upper)
    far = relaxation.beyond()[..., 0]
    assert far.tolist() == [[pytest.approx(0.3), pytest.approx(0.4), pytest.approx(0.2)]]
    linear = (lower[..., 0] >= far) | (upper[..., 0] <= -far)
    assert linear.tolist() == [[True, True, False]]
    assert (~relaxation.unstable()[..., 1] == linear).all()
