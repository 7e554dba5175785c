"""Copies of one number have one bound, and it is looked for once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import helper
from tests.certificate.proofs import as_file
from tests.marks import at_night_after

from krelax.bounds.copies import copies, shared
from krelax.bounds.instance import Instance
from krelax.bounds.intermediate import undecided
from krelax.bounds.methods import METHODS, bound
from krelax.certificate.onnx.reader import read_network
from krelax.network import products
from krelax.network.graph import Builder
from krelax.network.linear import Dense
from krelax.problem.queries import Queries
from krelax.problem.region import Box


def gram(seed: int = 0) -> Builder:
    """All products of the rows of a matrix that depends on the input."""
    builder = Builder((3, 2))
    weight = torch.randn(4, 2, generator=torch.Generator().manual_seed(seed)).double()
    left, right = (builder.add(Dense(weight * s, None), 0) for s in (1.0, -0.5))
    products.matmul(builder, left, products.compose.swap_last(builder, right))  # type: ignore[attr-defined]
    return builder


def test_copies_are_the_entries_with_the_same_number() -> None:
    network = gram().build(len(gram()._nodes) - 1)
    (activation,) = network.activations()
    before = network.nodes[activation].inputs[0]
    places = copies(network, before)
    assert places is not None
    x = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(1)).double()
    flat = network.values(x)[before].flatten()
    assert torch.equal(flat, flat[places])
    assert len(places.unique()) == len(flat.unique()) == 2 * 3 * 4
    assert bool((places <= torch.arange(len(places))).all())
    assert torch.equal(shared(network, before, flat[None])[0], flat)
    assert copies(network, activation) is None


def test_every_copy_has_the_bounds_of_the_first() -> None:
    network = gram().build(len(gram()._nodes) - 1)
    (activation,) = network.activations()
    before = network.nodes[activation].inputs[0]
    centre = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(2)).double()
    instance = Instance.of(network, Box(centre - 0.3, centre + 0.3))
    rows = torch.ones(1, 1, 9).double()
    asked = Queries(rows, torch.zeros(1, 1).double(), torch.zeros(1, 1).long(), 1)
    found = bound(instance, asked, METHODS["alpha"]).bounds
    places = copies(instance.network, before)
    for side in (found.lower[before], found.upper[before]):
        assert torch.equal(side.flatten(), side.flatten()[places])
    assert int(undecided(instance, found, before).sum()) == 2 * 3 * 4


@pytest.mark.parametrize("seed", at_night_after(1, range(4)))
def test_the_checker_finds_the_same_copies(seed: int) -> None:
    shape = tuple(np.random.default_rng(seed).integers(1, 4, 2).tolist())
    nodes = [helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("Relu", ["t"], ["r"])]
    nodes.append(helper.make_node("MatMul", ["x", "r"], ["y"]))
    network = read_network(as_file(nodes, [], shape, "y"))
    last = network.before(1)
    places = network.copies(last)
    assert places is not None
    before = network.nodes[last]
    numbers = [m.index for m in before.maps]  # type: ignore[union-attr]
    pairs = np.stack(numbers, 1).tolist()
    assert [pairs[i] for i in places] == pairs
    assert len({tuple(p) for p in pairs}) == len(set(places.tolist()))
