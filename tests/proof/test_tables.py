"""What leaves chose at an activation, put together from tables of different kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from krelax.activations import LeakyReLU, ReLU, Rule
from krelax.activations.joint import Joint
from krelax.bounds.backward import lower_bound, outputs
from krelax.bounds.grouped import grouped
from krelax.bounds.groups import Groups
from krelax.bounds.layers import advance, start
from krelax.bounds.steps import Tapes, by_rule, choices
from krelax.certificate.format import schema as file
from krelax.hull.polytope import pair_rows
from krelax.network.graph import Builder
from krelax.network.linear import Dense
from krelax.network.ops import Concat
from krelax.problem.region import Box
from krelax.proof.choices import Choices
from krelax.proof.tables import Merged


def rows(count: int, *shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.arange(1, count * int(np.prod(shape)) + 1).reshape(count, *shape).astype(dtype)


def merged(*parts: Choices) -> file.Choices:
    """Every table's rows for leaves of their own, in order."""
    counts = [len(next(t for t in (p.slopes, p.lines, p.absolute) if t is not None)) for p in parts]
    tables, first, crossing = Merged(parts, sum(counts)), 0, file.Choices(0)
    for part, count in zip(parts, counts, strict=True):
        tables.add(part, np.arange(count), np.arange(first, first + count))
        first += count
    tables.write(crossing)
    return crossing


def test_slopes_of_some_neurons_beside_lines_of_all() -> None:
    some = Choices(np.array([1, 3], np.int32), rows(2, 2, dtype=np.uint8), rows(1, 2)[0])
    crossing = merged(some, Choices(lines=rows(1, 4, 2)))
    assert crossing.entries is None
    assert crossing.row is not None
    assert crossing.slopes is not None
    assert crossing.upper is not None
    assert crossing.lines is not None
    assert crossing.row.tolist() == [0, 1, 2]
    assert crossing.slopes.tolist() == [[0, 1, 0, 2], [0, 3, 0, 4]]
    assert crossing.upper.tolist() == [[-1, 1, -1, 2]]  # negative: nothing was chosen
    assert np.array_equal(crossing.lines, rows(1, 4, 2))


def test_slopes_of_different_neurons() -> None:
    first = Choices(np.array([0, 2], np.int32), rows(1, 2, dtype=np.uint8), rows(1, 2)[0])
    second = Choices(np.array([2, 5], np.int32), rows(1, 2, dtype=np.uint8), rows(1, 2))
    crossing = merged(first, second)
    assert crossing.entries is not None
    assert crossing.slopes is not None
    assert crossing.entries.tolist() == [0, 2, 5]
    assert crossing.slopes.tolist() == [[1, 2, 0], [0, 1, 2]]


@pytest.mark.parametrize("slope", [0.0, 1e-9, 0.01, 0.1, 0.3, 0.7, 1 - 2**-40, 1.0])
def test_the_ends_of_the_range_of_slopes_can_be_written_down(slope: float) -> None:
    triangle = LeakyReLU(slope).relax(-torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))
    ends = torch.tensor([[slope, 1.0]], dtype=torch.float64)
    assert torch.equal(triangle.rounded(ends), ends)
    assert triangle.writable(triangle.slopes(Rule.ADAPTIVE)[0])


def test_groups_that_no_coefficients_reach_choose_nothing() -> None:
    """Two activations side by side, and a form of one of them."""
    builder = Builder((2,))
    eye = torch.eye(2, dtype=torch.float64)
    left, right = (
        builder.add(ReLU(), builder.add(Dense(eye), 0)),
        builder.add(LeakyReLU(0.1), builder.add(Dense(-eye), 0)),
    )
    network = builder.build(builder.add(Concat(0), left, right))
    region = Box(-torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))
    layers = start(region)
    while len(layers.lower) < len(network.nodes):
        advance(network, layers)
    octagon = torch.from_numpy(pair_rows(2)).to(torch.float64)
    bounds = octagon.abs().sum(1)[None, None]
    groups = Groups(torch.tensor([[[0, 1]]]), Joint(octagon, bounds, (0.0, 0.0)))
    witness = dict(by_rule(layers, Rule.ADAPTIVE))
    witness[left] = grouped(witness[left], (groups,), 1)  # type: ignore[arg-type]
    rows = torch.tensor([[[0.0, 0.0, 1.0, -1.0]]], dtype=torch.float64)
    form = outputs(network, rows, torch.zeros(1, 1, dtype=torch.float64))
    form.coeff = {right: rows[..., 2:]}
    tapes: Tapes = {}
    value = lower_bound(network, region, form, witness, layers, tapes)
    assert bool(value.isfinite().all())
    assert choices(witness, tapes=tapes)[left].groups == ()
    form.coeff = {left: rows[..., 2:]}
    lower_bound(network, region, form, witness, layers, tapes)
    assert len(choices(witness, tapes=tapes)[left].groups) == 1
