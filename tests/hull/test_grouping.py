"""Who is grouped with whom: no group twice, only neurons that matter, and nobody in too many."""

from __future__ import annotations

import pytest
import torch

from krelax.hull.grouping import Grouping, Strategy, groups


def chosen(strategy: Strategy, size: int, neurons: int = 12, overlap: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    score = torch.rand(20, generator=generator)
    score[5:9] = 0
    affinity = torch.rand(20, 20, generator=generator)
    return groups(score, Grouping(size, strategy, neurons, overlap), (affinity + affinity.T) / 2)


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_groups_are_distinct_and_of_neurons_with_a_score(strategy: Strategy, size: int) -> None:
    found = chosen(strategy, size)
    assert found.shape[1] == size
    assert len(found) > 0
    members = [frozenset(g) for g in found.tolist()]
    assert len(set(members)) == len(members)
    assert all(len(g) == size and not g & {5, 6, 7, 8} for g in members)


def test_only_the_neurons_of_highest_score_are_grouped() -> None:
    score = torch.arange(20.0)
    found = groups(score, Grouping(2, Strategy.SPARSE, neurons=4))
    assert set(found.flatten().tolist()) == {16, 17, 18, 19}


def test_a_neuron_is_in_a_limited_number_of_pairs() -> None:
    found = chosen(Strategy.AFFINE, 2, overlap=2)
    assert found.flatten().bincount().max() <= 4


@pytest.mark.parametrize("size", [3, 4])
def test_no_neuron_is_in_most_of_the_larger_groups(size: int) -> None:
    score, worth = torch.ones(40), torch.linspace(1, 2, 40)
    found = groups(score, Grouping(size, Strategy.AFFINE, overlap=2, enough=9.0), worth[:, None] * worth)
    assert len(found) > 40
    assert found.flatten().bincount().max() <= 2 * size


def test_affinities_beyond_enough_leave_the_choice_to_the_scores() -> None:
    score, affinity = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.full((4, 4), 0.5)
    affinity[2, 3] = affinity[3, 2] = 1.0
    affinity[0, 3] = affinity[3, 0] = 0.9
    found = groups(score, Grouping(2, Strategy.AFFINE, overlap=1, enough=0.5), affinity)
    assert {0, 1} in [set(g) for g in found.tolist()]


def test_related_neurons_are_paired_first() -> None:
    affinity = torch.full((6, 6), 0.1)
    affinity[1, 4] = affinity[4, 1] = 0.9
    found = groups(torch.ones(6), Grouping(2, Strategy.AFFINE, overlap=1), affinity)
    assert {1, 4} in [set(g) for g in found.tolist()]


def test_too_few_neurons_make_no_group() -> None:
    assert groups(torch.tensor([1.0, 0.0, 1.0]), Grouping(3)).shape == (0, 3)
