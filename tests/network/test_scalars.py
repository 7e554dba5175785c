"""Networks with tensors without axes, in the form in which they are bounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from tests.bounds.problems import METHODS
from tests.exact_cells import count_cells

from krelax.activations import Max, ReLU, Tanh
from krelax.bounds.instance import Instance
from krelax.bounds.methods import bound
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Dense, Scale
from krelax.network.ops import Concat, Expand, Linear, Reshape, Transpose
from krelax.network.scalars import with_axes
from krelax.network.torch import from_torch
from krelax.problem.queries import Queries
from krelax.problem.region import Box


def from_a_scalar() -> Network:
    """Scalars into everything that takes them, and to vectors."""
    builder = Builder(())
    moved = builder.add(Transpose(()), builder.add(Scale(torch.tensor(2.0), torch.tensor(-0.25)), 0))
    both = builder.add(Add((1, -1)), builder.add(Tanh(), moved), 0)
    pair = builder.add(Concat(0), *(builder.add(Reshape((1,)), i) for i in (both, moved)))
    weight = torch.tensor([[1.0, -2.0], [0.5, 1.0], [-1.0, 1.0]])
    return builder.build(builder.add(ReLU(), builder.add(Dense(weight), pair)))


def to_a_scalar() -> Network:
    """A maximum of a whole vector, and what comes after it."""
    builder = Builder((3,))
    largest = builder.add(Max(), 0)
    wide = builder.add(Expand((3,)), builder.add(Reshape((1,)), builder.add(ReLU(), largest)))
    return builder.build(builder.add(Max(), builder.add(Add((1, -1)), wide, 0)))


NETWORKS: list[Callable[[], Network]] = [from_a_scalar, to_a_scalar]


def points(network: Network, count: int = 7) -> torch.Tensor:
    return torch.randn(count, *network.input_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("build", NETWORKS)
def test_the_same_function_with_an_axis_everywhere(build: Callable[[], Network]) -> None:
    network = build().to(torch.float64)
    wide, x = with_axes(network), points(network)
    assert all(node.shape for node in wide.nodes)
    assert wide.dtype == network.dtype
    assert torch.equal(wide(x.reshape(-1, *wide.input_shape)).flatten(), network(x).flatten())
    assert with_axes(wide) is wide


@pytest.mark.parametrize("build", NETWORKS)
def test_adjoints_and_absolute_values(build: Callable[[], Network]) -> None:
    wide = with_axes(build().to(torch.float64))
    generator = torch.Generator().manual_seed(2)
    for node in wide.nodes[1:]:
        if isinstance(node.op, Linear):
            shapes = [wide.nodes[j].shape for j in node.inputs]
            x = [torch.randn(2, *s, generator=generator, dtype=torch.float64) for s in shapes]
            coeff = torch.randn(2, *node.shape, generator=generator, dtype=torch.float64)
            pulled = node.op.adjoint(coeff, *shapes)
            forward = (coeff * node.op.linear(*x)).flatten(1).sum(1)
            backward = sum((a * b).flatten(1).sum(1) for a, b in zip(pulled, x, strict=True))
            assert torch.allclose(forward, torch.as_tensor(backward), rtol=1e-12, atol=1e-12)
            assert bool((node.op.absolute().forward(*map(torch.abs, x)) >= node.op.forward(*x).abs() - 1e-12).all())


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("build", NETWORKS)
def test_bounds_are_below_every_value(build: Callable[[], Network], method: str) -> None:
    network = build().to(torch.float64)
    x = points(network, 2)
    region = Box(x - 0.5, x + 0.5)
    outputs = prod(network.output_shape)
    rows = torch.eye(outputs, dtype=torch.float64).expand(2, -1, -1)
    asked = Queries(rows, torch.zeros(2, outputs), torch.zeros(2, outputs, dtype=torch.long), 1)
    found = bound(Instance.of(network, region), asked, METHODS[method]).value
    share = torch.rand(500, 1, *network.input_shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    inside = region.lower + share * (region.upper - region.lower)
    least = network(inside.flatten(0, 1)).reshape(500, 2, outputs).amin(0)
    assert bool((found <= least).all())
    assert bool(found.isfinite().all())


def test_a_module_that_returns_a_number() -> None:
    class Total(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x).sum()

    network = from_torch(Total(), torch.zeros(3))
    assert network.output_shape == ()
    assert with_axes(network).output_shape == (1,)


def test_a_replay_gets_inputs_of_the_models_own_shape() -> None:
    network = replace(from_a_scalar(), replay=lambda x: x)
    replay = with_axes(network).replay
    assert replay is not None
    assert replay(np.ones(1, np.float32)).shape == ()


def test_exact_truth_of_an_input_without_axes() -> None:
    builder = Builder(())
    network = builder.build(builder.add(ReLU(), 0))
    assert count_cells(network, np.array(-1.0), np.array(2.0)) == 2
