"""Two networks as one: the same difference, in real numbers, and bounds of it that no input crosses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from krelax.activations import LeakyReLU, Max, ReLU, Sigmoid
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.network.difference import alike, places, subtract
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Arithmetic, Conv, Dense, Scale
from krelax.network.ops import Concat, Reshape, Take
from krelax.op import Op
from krelax.problem.queries import Queries
from krelax.problem.region import Box

Make = Callable[[np.random.Generator], Network]


def dense(rng: np.random.Generator, inputs: int, outputs: int, bias: bool = True) -> Dense:
    weight = torch.from_numpy(rng.normal(size=(outputs, inputs)) / inputs**0.5)
    return Dense(weight, torch.from_numpy(rng.normal(size=outputs)) if bias else None)


def perturbed(network: Network, rng: np.random.Generator, size: float = 1e-2) -> Network:
    """A copy whose constants are a little different."""

    def moved(op: Op) -> Op:
        names = op._constants if isinstance(op, Arithmetic) else ()
        constants = {n: t for n in names if (t := getattr(op, n)) is not None}
        return replace(op, **{n: t + size * torch.from_numpy(rng.normal(size=t.shape)) for n, t in constants.items()})

    return replace(network, nodes=tuple(replace(n, op=moved(n.op)) for n in network.nodes))


def mixed(rng: np.random.Generator) -> Network:
    """Convolutions, branches, scaling, and activations of every kind that matters here."""
    b = Builder((1, 1, 4, 4))
    weight = torch.from_numpy(rng.normal(size=(2, 1, 3, 3)) / 3)
    x = b.add(Conv(weight, torch.from_numpy(rng.normal(size=2)), (1, 1), (0, 0), (1, 1)), 0)
    x = b.add(Scale(torch.tensor(1.5).double(), torch.tensor(-0.1).double()), x)
    x = b.add(Reshape((1, 8)), b.add(ReLU(), x))
    left = b.add(LeakyReLU(0.1), b.add(dense(rng, 8, 6), x))
    right = b.add(Sigmoid(), b.add(dense(rng, 8, 6, bias=False), x))
    x = b.add(Concat(1), b.add(Add((1, -1)), left, right), left)
    x = b.add(Max(), b.add(Take(torch.arange(12).reshape(1, 6, 2)), x))
    return b.build(b.add(dense(rng, 6, 3), b.add(ReLU(), b.add(dense(rng, 6, 6), x))))


def dense_network(rng: np.random.Generator, sizes: tuple[int, ...] = (3, 8, 8, 2)) -> Network:
    b = Builder((sizes[0],))
    x = 0
    for i, (m, n) in enumerate(pairwise(sizes)):
        x = b.add(dense(rng, m, n), x if i == 0 else b.add(ReLU(), x))
    return b.build(x)


def between(one: Network, other: Network) -> Network:
    """The difference of two networks at one input."""
    builder = Builder(one.input_shape)
    return builder.build(subtract(builder, one, other, (0, 0))[0])


def side_by_side(one: Network, other: Network) -> Network:
    """The same, of networks that are bounded by themselves."""
    b, ends = Builder(one.input_shape), []
    for network in (one, other):
        place = {0: 0}
        for i, node in enumerate(network.nodes[1:], start=1):
            place[i] = b.add(node.op, *(place[j] for j in node.inputs))
        ends.append(place[len(network.nodes) - 1])
    return b.build(b.add(Add((1, -1)), *ends))


def margins(network: Network, box: Box, method: str) -> torch.Tensor:
    """Lower bounds of the outputs and of their negatives, `(1, 2 n)`."""
    count = int(np.prod(network.output_shape))
    rows = torch.cat([torch.eye(count), -torch.eye(count)]).double()[None]
    clause = torch.arange(2 * count)[None]
    queries = Queries(rows, torch.zeros(1, 2 * count).double(), clause, 2 * count)
    return bound(Instance.of(network, box), queries, METHODS[method]).value


@pytest.mark.parametrize("make", [mixed, dense_network])
def test_the_difference_is_that_of_both_networks(make: Make) -> None:
    rng = np.random.default_rng(1)
    one = make(rng)
    other = perturbed(one, rng)
    assert alike(one, other)
    x = torch.from_numpy(rng.normal(size=(50, *one.input_shape)))
    found, wanted = between(one, other)(x), one(x) - other(x)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    assert wanted.abs().max() > 1e-4


def test_a_copy_has_no_difference() -> None:
    network = mixed(np.random.default_rng(2))
    x = torch.ones(1, *network.input_shape).double()
    assert not between(network, network)(x).any()


def test_the_second_network_is_part_of_the_difference() -> None:
    """With all of its nodes; of the first one there is nothing that is not in both."""
    rng = np.random.default_rng(7)
    one = mixed(rng)
    other = perturbed(one, rng)
    whole = between(one, other)
    where = places(other, whole)
    x = torch.from_numpy(rng.normal(size=(4, *one.input_shape)))
    ours, theirs = whole.values(x), other.values(x)
    assert all(torch.equal(ours[place], theirs[i]) for i, place in where.items())
    last = max(i for i, node in enumerate(other.nodes) if isinstance(node.op, ReLU))
    assert last in where
    alone = dense_network(rng)
    assert max(places(alone, between(alone, perturbed(alone, rng)))) == 0
    joint = side_by_side(one, other)
    assert len(places(one, joint)) == len(places(other, joint)) == len(one.nodes)


def test_equal_enclosures_need_not_be_of_equal_constants() -> None:
    b = Builder((1,))
    one = b.build(b.add(Dense(torch.ones(1, 1).double(), None, torch.full((1, 1), 1e-3).double()), 0))
    box = Box(torch.ones(1, 1).double(), torch.full((1, 1), 2.0).double())
    low, high = margins(between(one, one), box, "crown")[0].tolist()
    assert -1e-2 < low <= -4e-3
    assert -1e-2 < high <= -4e-3


def test_networks_of_other_structures_are_subtracted_at_the_end() -> None:
    rng = np.random.default_rng(3)
    one, other = dense_network(rng), dense_network(rng, (3, 5, 2))
    x = torch.from_numpy(rng.normal(size=(20, 3)))
    assert torch.equal(between(one, other)(x), one(x) - other(x))


def test_one_network_at_two_inputs() -> None:
    rng = np.random.default_rng(4)
    network = mixed(rng)
    b = Builder((2, *network.input_shape))
    ends = [b.add(Reshape(network.input_shape), b.add(Take(torch.arange(16 * i, 16 * i + 16)), 0)) for i in (0, 1)]
    joint = b.build(subtract(b, network, network, (ends[0], ends[1]))[0])
    x = torch.from_numpy(rng.normal(size=(20, *joint.input_shape)))
    assert torch.allclose(joint(x), network(x[:, 0]) - network(x[:, 1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("make", "method"), [
    *((make, method) for make in (mixed, dense_network) for method in ("interval", "zonotope", "crown", "alpha")),
    (dense_network, "krelu"),
    pytest.param(mixed, "krelu", marks=pytest.mark.slow),
])  # fmt: skip
def test_no_input_crosses_the_bounds(make: Make, method: str) -> None:
    rng = np.random.default_rng(5)
    one = make(rng)
    other = perturbed(one, rng)
    centre = torch.from_numpy(rng.normal(size=(1, *one.input_shape)))
    box = Box(centre - 0.2, centre + 0.2)
    bounds = margins(between(one, other), box, method)
    steps = torch.from_numpy(rng.uniform(-1, 1, size=(3000, *one.input_shape)))
    x = centre + 0.2 * torch.cat([steps, steps.sign()])
    y = (one(x) - other(x)).reshape(len(x), -1)
    lowest = torch.cat([y, -y], 1).amin(0)
    # the sample itself rounds
    assert (bounds[0] <= lowest + 1e-13).all()


@pytest.mark.parametrize("method", ["crown", "alpha"])
def test_bounds_of_the_difference_are_several_times_tighter(method: str) -> None:
    """Which is what it is for; of a network that was changed a little."""
    rng = np.random.default_rng(6)
    one = dense_network(rng, (4, 20, 20, 3))
    other = perturbed(one, rng, 1e-3)
    centre = torch.from_numpy(rng.normal(size=(1, 4)))
    box = Box(centre - 0.3, centre + 0.3)
    ours, theirs = (margins(n, box, method) for n in (between(one, other), side_by_side(one, other)))
    assert (10 * ours > theirs).all()
