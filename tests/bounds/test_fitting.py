"""What `bound` is given: any real type and layout of regions and queries, and one line for what does not fit."""

from __future__ import annotations

import pytest
import torch
from tests.bounds.problems import METHODS
from tests.marks import at_night_after
from torch import Tensor

from krelax.activations import ReLU
from krelax.bounds.instance import Instance
from krelax.bounds.methods import bound
from krelax.errors import InputError
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.problem.queries import Queries, classification
from krelax.problem.region import Box, Region, ball


def network() -> Network:
    """Two layers of multiples of 1/8, so that every type holds them."""
    generator = torch.Generator().manual_seed(3)

    def eighths(*shape: int) -> Tensor:
        return (8 * torch.randn(shape, generator=generator, dtype=torch.float64)).round() / 8

    builder = Builder((1, 3))
    hidden = builder.add(ReLU(), builder.add(Dense(eighths(4, 3), eighths(4)), 0))
    return builder.build(builder.add(Dense(eighths(2, 4), eighths(2)), hidden))


def unit() -> tuple[Tensor, Tensor]:
    return torch.zeros(2, 1, 3, dtype=torch.float64), torch.ones(2, 1, 3, dtype=torch.float64)


ASKED = classification(torch.tensor([0, 1]), 2)


def typed(queries: Queries, dtype: torch.dtype) -> Queries:
    return Queries(queries.rows.to(dtype), queries.offsets.to(dtype), queries.clause, queries.clauses)


TYPES = (torch.float32, torch.float16, torch.int64)
# every method with one of them always
TYPED = [(method, TYPES[(i + j) % 3]) for j in range(3) for i, method in enumerate(METHODS)]


@pytest.mark.parametrize(("method", "dtype"), at_night_after(len(METHODS), TYPED))
def test_types_that_hold_the_same_numbers_give_the_same_bounds(method: str, dtype: torch.dtype) -> None:
    lower, upper = unit()
    expected = bound(Instance.of(network(), Box(lower, upper)), ASKED, METHODS[method]).value
    instance = Instance.of(network(), Box(lower.to(dtype), upper.to(dtype)))
    found = bound(instance, typed(ASKED, dtype), METHODS[method]).value
    assert found.dtype == torch.float64
    assert torch.equal(found, expected)


@pytest.mark.parametrize("method", list(METHODS))
def test_layouts_make_no_difference(method: str) -> None:
    lower, upper = unit()
    expected = bound(Instance.of(network(), Box(lower, upper)), ASKED, METHODS[method]).value
    strided = Box(torch.zeros(3, 1, 2).permute(2, 1, 0), torch.ones(1, 1, 1).expand(2, 1, 3))
    rows = ASKED.rows.transpose(1, 2).contiguous().transpose(1, 2)
    asked = Queries(rows, ASKED.offsets.T.contiguous().T, ASKED.clause, ASKED.clauses)
    assert torch.equal(bound(Instance.of(network(), strided), asked, METHODS[method]).value, expected)


def test_a_network_without_constants_has_the_type_it_was_converted_to() -> None:
    builder = Builder((2,))
    plain = builder.build(builder.add(ReLU(), 0))
    assert plain.dtype == torch.float64
    assert plain.to(torch.float32).dtype == torch.float32
    instance = Instance.of(plain, Box(torch.full((1, 2), -1.0), torch.ones(1, 2)))
    assert instance.fast_network.dtype == instance.fast_region.lower.dtype == torch.float32


def regions(count: int) -> Region:
    return Box(torch.zeros(count, 1, 3), torch.ones(count, 1, 3))


def queries(batch: int, count: int, outputs: int, clause: int = 0) -> Queries:
    rows = torch.zeros(batch, count, outputs)
    return Queries(rows, rows[..., 0], torch.full((batch, count), clause), 1)


@pytest.mark.parametrize("method", ["crown", "alpha", "krelu"])
@pytest.mark.parametrize(
    ("asked", "count", "what"),
    [
        (queries(2, 1, 3), 2, r"rows of shape \(2, 1, 3\)"),
        (queries(1, 1, 2), 2, r"rows of shape \(1, 1, 2\)"),
        (queries(2, 0, 2), 2, r"rows of shape \(2, 0, 2\)"),
        (queries(0, 1, 2), 0, "a region without any input"),
        (queries(2, 1, 2, clause=1), 2, "clauses must be whole numbers from 0 to 0"),
        (Queries(torch.zeros(2, 1, 2), torch.zeros(2), torch.zeros(2, 1).long(), 1), 2, r"shapes \(2,\) and \(2, 1\)"),
    ],
)
def test_queries_that_do_not_fit_are_refused(asked: Queries, count: int, what: str, method: str) -> None:
    with pytest.raises(InputError, match=what):
        bound(Instance.of(network(), regions(count)), asked, METHODS[method])


@pytest.mark.parametrize(
    ("lower", "upper", "what"),
    [
        (torch.zeros(1, 1, 3), torch.ones(1, 1, 1), "bounds of shapes"),
        (torch.zeros(1, 1, 3, dtype=torch.complex64), torch.ones(1, 1, 3), "complex"),
        (torch.full((1, 1, 3), 2**53 + 1), torch.full((1, 1, 3), 2**53 + 1), "integers beyond"),
        (torch.ones(1, 1, 3), torch.zeros(1, 1, 3), "empty region"),
    ],
)
def test_regions_that_are_none_are_refused(lower: Tensor, upper: Tensor, what: str) -> None:
    with pytest.raises(InputError, match=what):
        Box(lower, upper)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_balls_around_integers(norm: str) -> None:
    whole, expected = (ball(torch.ones(1, 1, 3, dtype=t), 0.5, norm, None) for t in (torch.int64, torch.float64))
    values = [
        bound(Instance.of(network(), r), ASKED.select(torch.tensor([0])), METHODS["crown"]).value
        for r in (whole, expected)
    ]
    assert torch.allclose(*values, atol=1e-6)  # type: ignore[misc]


@pytest.mark.parametrize("labels", [[2], [-1], [0.5], [[0]]])
def test_labels_that_are_none_are_refused(labels: list[float]) -> None:
    with pytest.raises(InputError, match="labels must be"):
        classification(torch.tensor(labels), 2)
