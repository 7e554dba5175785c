"""The part of a network that varies: the same function, the same bounds, and never more than the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.certificate.test_part import PARTS
from tests.rows import COLUMNS, ROWS, rows_model

from krelax.bounds.boxed import Bounder
from krelax.bounds.instance import Instance
from krelax.bounds.varying import alike, varying
from krelax.network.graph import Network, products
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries
from krelax.problem.region import Box

COUNT, FREE = 40, torch.tensor([4])
ASKED = torch.tensor([[[1.0, -0.5], [-2.0, 1.0]]])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    path = tmp_path_factory.mktemp("rows") / "net.onnx"
    path.write_bytes(rows_model())
    return load_onnx(path)


def regions(network: Network, free: torch.Tensor, width: float) -> Instance:
    """Questions about different points, of which one input is free."""
    rng = torch.Generator().manual_seed(5)
    at = torch.rand(COUNT, ROWS * COLUMNS, generator=rng, dtype=torch.float64) * 2 - 1
    lower, upper = at.clone(), at.clone()
    upper[:, free] += width
    shape = (COUNT, *network.input_shape)
    return Instance.of(network, Box(lower.reshape(shape), upper.reshape(shape)))


def queries() -> Queries:
    clause = torch.arange(2).expand(COUNT, -1)
    return Queries(ASKED.double().expand(COUNT, -1, -1), torch.zeros(COUNT, 2, dtype=torch.float64), clause, 2)


def test_the_part_is_the_network_over_what_is_free(network: Network) -> None:
    instance = regions(network, FREE, 0.5)
    part = varying(instance, FREE)
    assert part is not None
    x, given = instance.region.lower.clone(), (part.region.lower + part.region.upper) / 2
    for share in (0.0, 0.3, 1.0):
        x.flatten(1)[:, FREE] = given[:, :1] = instance.region.lower.flatten(1)[:, FREE] + share * 0.5
        torch.testing.assert_close(part.network(given), network(x).flatten(1), rtol=1e-12, atol=1e-12)
    assert products(part.network.nodes) < products(network.nodes) / 2
    assert float((part.region.upper - part.region.lower)[:, 1:].max()) < 1e-12


def test_bounds_over_the_part_are_those_over_the_network(network: Network) -> None:
    instance = regions(network, FREE, 0.2)
    part = varying(instance, FREE)
    assert part is not None
    lower, upper = (side.flatten(1)[:, FREE] for side in (instance.region.lower, instance.region.upper))
    own, whole = Bounder(part, queries(), free=1), Bounder(instance, queries())
    index = torch.arange(COUNT)
    small, large = own.bound(lower, upper, index).value, whole.bound(lower, upper, index).value
    torch.testing.assert_close(small, large, rtol=1e-9, atol=1e-9)
    for share in np.linspace(0, 1, 7):
        x = instance.region.lower.clone()
        x.flatten(1)[:, FREE] += share * 0.2
        values = queries().values(network(x).unsqueeze(1))
        assert bool((small <= values.reshape(COUNT, 2) + 1e-12).all())


def test_what_is_wide_is_bounded_whichever_input_is_free(network: Network) -> None:
    """Inputs that are not free may lie between other numbers, and weights of rows may be free."""
    for free in (torch.tensor([5]), torch.tensor([3, 4, 5])):
        instance = regions(network, free, 0.2)
        upper = instance.region.upper.clone()
        upper.flatten(1)[:, 0] += 0.1
        instance = replace(instance, region=Box(instance.region.lower, upper))
        part = varying(instance, free)
        assert part is not None
        lower, high = (side.flatten(1)[:, free] for side in (instance.region.lower, instance.region.upper))
        found = Bounder(part, queries(), free=len(free)).bound(lower, high, torch.arange(COUNT)).value
        for share in torch.rand(9, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64):
            x = instance.region.lower.clone()
            x.flatten(1)[:, free] += share[0] * 0.2
            x.flatten(1)[:, 0] += share[1] * 0.1
            values = queries().values(network(x).unsqueeze(1))
            assert bool((found <= values.reshape(COUNT, 2) + 1e-12).all())


def test_there_is_no_part_where_much_varies(network: Network) -> None:
    every = torch.arange(0, ROWS * COLUMNS, COLUMNS)
    assert varying(regions(network, every, 0.1), every) is None


def test_parts_about_the_same_column_of_different_rows_are_alike(network: Network) -> None:
    keys = []
    for free in (4, 7, 5):
        part = varying(regions(network, torch.tensor([free]), 0.1), torch.tensor([free]))
        assert part is not None
        keys.append(alike(part))
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_other_networks_are_bounded_as_these_are(name: str, tmp_path: Path) -> None:
    """Convolutions, scalings of some entries, and functions that nothing of what is free reaches."""
    data, free = PARTS[name]
    (tmp_path / "model.onnx").write_bytes(data)
    whole = load_onnx(tmp_path / "model.onnx")
    size, count, index = int(np.prod(whole.input_shape)), 6, torch.tensor(free)
    lower = torch.rand(count, size, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 2 - 1
    upper = lower.clone()
    upper[:, index] += 0.25
    shape = (count, *whole.input_shape)
    instance = Instance.of(whole, Box(lower.reshape(shape), upper.reshape(shape)))
    part = varying(instance, index)
    assert part is not None
    assert products(part.network.nodes) < products(whole.nodes)
    clause = torch.arange(2).expand(count, -1)
    asked = Queries(ASKED.double().expand(count, -1, -1), torch.zeros(count, 2, dtype=torch.float64), clause, 2)
    own, every = Bounder(part, asked, free=1), Bounder(instance, asked)
    ends = lower[:, index], upper[:, index]
    small, large = (bounder.bound(*ends, torch.arange(count)).value for bounder in (own, every))
    torch.testing.assert_close(small, large, rtol=1e-9, atol=1e-9)
    for share in (0.0, 0.5, 1.0):
        x = (lower + share * (upper - lower)).reshape(shape)
        values = asked.values(whole(x).reshape(count, 1, -1))
        assert bool((small <= values.reshape(count, 2) + 1e-12).all())
