"""Bounds and the lemmas that prove them go together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from krelax.activations import ReLU
from krelax.bounds.bounded import Bounded
from krelax.bounds.layers import LayerBounds, advance, renew, start
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.problem.region import Box
from krelax.proof.log import DERIVED, UNSTATED


def network() -> Network:
    builder = Builder((2,))
    hidden = builder.add(ReLU(), builder.add(Dense(torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double()), 0))
    return builder.build(builder.add(Dense(torch.ones(1, 2).double()), hidden))


def bounds(proofs: bool = True, regions: int = 1) -> LayerBounds:
    one = torch.ones(regions, 2).double()
    layers = start(Box(-one, one), proofs)
    while len(layers.lower) < len(network().nodes):
        advance(network(), layers)
    return layers


def simple(proofs: bool = True) -> LayerBounds:
    """Two nodes between -2 and 2."""
    end = torch.full((1, 2), 2.0).double()
    return LayerBounds((-end, -end), (end, end), (end, end), lemmas={} if proofs else None)


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers]).double()


def numbers(*of: int) -> Tensor:
    return torch.tensor([of])


def sides(bounds: LayerBounds, node: int) -> tuple[list[list[float]], ...]:
    below, above = bounds.lemmas_of(node)
    return bounds.lower[node].tolist(), bounds.upper[node].tolist(), below.tolist(), above.tolist()


def test_what_is_tighter_brings_its_lemma() -> None:
    bounds = simple()
    bounds.tighten(1, row(-1, -3), row(1, 1), (numbers(1, 2), numbers(3, 4)))
    assert sides(bounds, 1) == ([[-1, -2]], [[1, 1]], [[1, 0]], [[3, 4]])
    bounds.tighten(1, row(-1, -1), row(2, 0.5), (numbers(5, 6), numbers(7, 8)))
    assert sides(bounds, 1) == ([[-1, -1]], [[1, 0.5]], [[1, 6]], [[3, 8]])


def test_what_has_no_lemma_does_not_count() -> None:
    bounds = simple()
    bounds.tighten(1, row(-1, -1), row(1, 1), (numbers(UNSTATED, 1), numbers(UNSTATED, UNSTATED)))
    assert sides(bounds, 1) == ([[-2, -1]], [[2, 2]], [[0, 1]], [[0, 0]])
    bounds.replace(1, row(-9, -9), row(9, 9), (numbers(2, UNSTATED), numbers(UNSTATED, 3)))
    assert sides(bounds, 1) == ([[-9, -1]], [[2, 9]], [[2, 1]], [[0, 3]])


def test_nothing_narrows_without_a_lemma_where_proofs_are_recorded() -> None:
    bounds, without = simple(), simple(proofs=False)
    for change in (bounds.tighten, bounds.replace):
        with pytest.raises(ValueError, match="without the lemmas"):
            change(1, row(-1, -1), row(1, 1), None)
    with pytest.raises(ValueError, match="without the lemmas"):
        bounds.meet(without, 1)
    with pytest.raises(ValueError, match="without the lemmas"):
        Bounded(row(1), bounds, lemmas=numbers(1)).improved(row(2), None)
    without.tighten(1, row(-1, -1), row(1, 1), None)
    assert without.lower[1].tolist() == [[-1, -1]]


def test_bounds_that_contradict_each_other_keep_both_lemmas() -> None:
    bounds = simple()
    bounds.tighten(1, row(1, -2), row(0.5, 2), (numbers(1, 2), numbers(3, 4)))
    assert sides(bounds, 1) == ([[1, -2]], [[1, 2]], [[1, 0]], [[3, 0]])


def test_what_interval_arithmetic_says_is_derived() -> None:
    layers = bounds()
    layers.tighten(3, row(-1), row(3), (numbers(1), numbers(2)))
    layers.tighten(1, row(-2, -2), row(1, 1), (numbers(3, 4), numbers(5, 6)))
    renew(network(), layers, 2)
    renew(network(), layers, 3)
    assert sides(layers, 2)[2:] == ([[DERIVED, DERIVED]], [[DERIVED, DERIVED]])
    assert layers.upper[3].item() < 2.01
    assert sides(layers, 3)[2:] == ([[DERIVED]], [[DERIVED]])


def test_meeting_others_takes_what_is_better_of_theirs() -> None:
    bounds, other = simple(), simple()
    bounds.tighten(1, row(-1, -2), row(2, 1), (numbers(1, 2), numbers(3, 4)))
    other.tighten(1, row(-2, -1), row(2, 0.5), (numbers(5, 6), numbers(7, 8)))
    before = bounds.copy()
    bounds.meet(other, 1)
    assert sides(bounds, 1) == ([[-1, -1]], [[2, 0.5]], [[1, 6]], [[0, 8]])
    assert sides(before, 1) == ([[-1, -2]], [[2, 1]], [[1, 0]], [[0, 4]])
    assert bounds.changed(before, 1).tolist() == [6, 8]


def test_regions_keep_their_own_lemmas() -> None:
    first, second = bounds(), bounds()
    first.tighten(1, row(-1, -1), row(1, 1), (numbers(1, 2), numbers(3, 4)))
    both = LayerBounds.join([first, second], network())
    assert both.lemmas_of(1)[0].tolist() == [[1, 2], [0, 0]]
    found = Bounded(row(1).repeat(2, 1), both, lemmas=torch.tensor([[7], [8]]))
    alone = found.select(torch.tensor([0]), network())
    for region, expected in (
        (found.conclusion(0), [1, 2, 3, 4]),
        (found.conclusion(1), []),
        (alone.conclusion(), [1, 2, 3, 4]),
    ):
        assert region is not None
        assert region.layers[1].tolist() == expected
    assert both.to(torch.float32, network()).lemmas is None


def test_margins_keep_the_better_of_two_lemmas() -> None:
    found = Bounded.of(row(1, -1, 0), bounds(), numbers(1, 2, UNSTATED))
    assert (found.value.tolist(), found.lemmas) == ([[1, -1, -torch.inf]], pytest.approx(numbers(1, 2, DERIVED)))
    found = found.improved(row(0, 3, 5), numbers(3, 4, UNSTATED))
    assert found.value.tolist() == [[1, 3, -torch.inf]]
    assert found.lemmas is not None
    assert found.lemmas.tolist() == [[1, 4, DERIVED]]
