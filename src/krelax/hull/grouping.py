"""Which neurons of a layer are bounded together: a few strategies behind one function.

A group pays where its members' relaxations are loose, where they matter, and where their pre-activations depend on one
another. `score` says the first two (triangle area, or area times the size of the coefficient that meets it), `affinity`
the third (how much narrower a sum is than its parts).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import torch
from torch import Tensor


class Strategy(StrEnum):
    """How groups are formed from neurons in the order of their scores."""

    SPARSE = "sparse"  # all subsets of blocks of the order: PRIMA (Mueller et al. 2022)
    AFFINE = "affine"  # each neuron with those whose pre-activations it depends on most


@dataclass(frozen=True)
class Grouping:
    """Groups of `size` among the `neurons` of highest score, each of them in about `size * overlap` groups.

    Affinities from `enough` on count as `enough`.
    """

    size: int = 2
    strategy: Strategy = Strategy.AFFINE
    neurons: int = 100
    overlap: int = 2
    enough: float = 0.3


def groups(score: Tensor, grouping: Grouping, affinity: Tensor | None = None) -> Tensor:
    """Members of groups, `(groups, size)` places in `score`, `(n,)`; only neurons of positive score are grouped.

    `affinity`, `(n, n)`, is what `Strategy.AFFINE` needs. No group twice; none if there are fewer neurons than a group
    has members. Chosen on the CPU, wherever the scores are: one by one, from few numbers.
    """
    return _groups(score.cpu(), grouping, None if affinity is None else affinity.cpu()).to(score.device)


def _groups(score: Tensor, grouping: Grouping, affinity: Tensor | None) -> Tensor:
    order = score.argsort(descending=True, stable=True)
    order = order[score[order] > 0][: grouping.neurons]
    if len(order) < grouping.size:
        return order.new_zeros(0, grouping.size)
    match grouping.strategy:
        case Strategy.SPARSE:
            places = _sparse(len(order), grouping)
        case Strategy.AFFINE:
            assert affinity is not None
            related = affinity[order][:, order].clamp(max=grouping.enough)
            worth = related * (score[order, None] * score[order]).sqrt()
            places = _affine(worth, grouping)
    return order[places.sort(1).values.unique(dim=0)]


def _sparse(count: int, grouping: Grouping) -> Tensor:
    """All groups inside blocks just large enough that a neuron is in about `overlap * size` of them."""
    block = grouping.size
    while len(list(combinations(range(block), grouping.size - 1))) < grouping.overlap * grouping.size:
        block += 1
    blocks = (range(first, min(first + block, count)) for first in range(0, count, block))
    return torch.tensor([g for b in blocks for g in combinations(b, grouping.size)]).reshape(-1, grouping.size)


def _affine(worth: Tensor, grouping: Grouping) -> Tensor:
    """Pairs in the order of their worth, no neuron in more than `2 * overlap`; then each pair with the neurons that
    go best with it, no neuron chosen more than `overlap` times at each size.

    Without those limits a few neurons would be in most groups.
    """
    count = len(worth)
    first, second = torch.triu_indices(count, count, 1)
    order = worth[first, second].argsort(descending=True, stable=True)
    left = [2 * grouping.overlap] * count
    chosen = []
    for i, j in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if left[i] and left[j]:
            chosen.append([i, j])
            left[i] -= 1
            left[j] -= 1
    places = torch.tensor(chosen)
    for _ in range(grouping.size - 2):
        places = _grown(places, worth, grouping.overlap)
    return places


def _grown(places: Tensor, worth: Tensor, times: int) -> Tensor:
    """Groups `(groups, k)`, each with one more member: the one of largest total worth that is not used up."""
    total = worth[places].sum(1).scatter(1, places, -torch.inf)
    left, added = [times] * len(worth), []
    for choices in total.argsort(dim=1, descending=True, stable=True)[:, : len(worth) - places.shape[1]].tolist():
        best = next((i for i in choices if left[i]), choices[0])
        left[best] -= left[best] > 0
        added.append(best)
    return torch.cat([places, torch.tensor(added)[:, None]], 1)
