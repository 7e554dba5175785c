"""How much each margin of a clause should count, where margins are known to second order: found by trying.

The worth of a mixture of two forms is about concave in the weights, so a golden section search finds the best one, on a
logarithmic scale: margins of a clause may differ much in size. Of more than two forms the best mixture so far meets the
next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from krelax.bounds.quadratic import DECOMPOSING, Lowest, Products, Rows, lowest

# Weights are so many times smaller than they are written.
UNIT = 1 << 14
# Binary orders of magnitude that one form may count less than another one of the same size, and steps of a search.
_ORDERS, _STEPS = 12.0, 8
_GOLDEN = (5**0.5 - 1) / 2
# Products that the clauses of one batch of boxes may take.
_MOST = 1 << 28
# Sweeps of the minimisation while weights are sought.
_SWEEPS = 8


def most_rows(varied: int, members: int) -> int:
    """How many clauses, each over a box, to look at together: what takes so many products."""
    tried = 1 if members == 1 else 2 + (members - 1) * (_STEPS + 3)
    return _MOST // (tried * DECOMPOSING * max(1, varied) ** 3)


def improve(
    margins: Rows, given: Tensor, members: Tensor, products: Sequence[Products], shares: Tensor
) -> tuple[Lowest, Tensor]:
    """The best bounds of some clauses, each over a box of its own, and the weights that they are of.

    `margins` has parts `(rows, members)`, `(rows, symbols, members)` and `(rows, members)`; `members`, `(rows,
    members)`, says which of them there are, and `given` are weights to begin with: whole numbers of which those of a
    row add up to `UNIT`.
    """
    size = (margins.symbols.abs().sum(1) + margins.error).clamp(min=torch.finfo(margins.error.dtype).tiny)

    def worth(weights: Tensor) -> Tensor:
        return lowest(_mixed(margins, weights), products, shares, _SWEEPS).value

    if members.shape[1] == 1:
        return lowest(_mixed(margins, given), products, shares), given
    mixture = torch.zeros_like(given)
    mixture[:, 0] = UNIT
    most = worth(mixture)
    for j in range(1, members.shape[1]):
        one = torch.zeros_like(given)
        one[:, j] = UNIT
        for weights, value in (_between(worth, mixture, one, size), (one, worth(one))):
            better = members[:, j] & (value > most)
            mixture, most = torch.where(better.unsqueeze(1), weights, mixture), torch.where(better, value, most)
    mixture = torch.where((worth(given) > most).unsqueeze(1), given, mixture)
    return lowest(_mixed(margins, mixture), products, shares), mixture


def _between(worth: Callable[[Tensor], Tensor], first: Tensor, second: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The best mixture of two ones, and its worth."""
    sizes = [(w * size).sum(1) for w in (first, second)]

    def at(order: Tensor) -> tuple[Tensor, Tensor]:
        share = 1 / (1 + sizes[1] / (torch.exp2(order) * sizes[0]))
        weights = whole(torch.lerp(first, second, share.unsqueeze(1)))
        return weights, worth(weights)

    low = torch.full_like(sizes[0], -_ORDERS)
    high = -low
    left, right = (high - _GOLDEN * (high - low)), (low + _GOLDEN * (high - low))
    (one, value), (two, other) = at(left), at(right)
    for _ in range(_STEPS):
        lower = value > other
        low, high = torch.where(lower, low, left), torch.where(lower, right, high)
        new = torch.where(lower, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        left, right = torch.where(lower, new, right), torch.where(lower, left, new)
        weights, v = at(new)
        mine = lower.unsqueeze(1)
        one, two = torch.where(mine, weights, two), torch.where(mine, one, weights)
        value, other = torch.where(lower, v, other), torch.where(lower, value, v)
    best = (value > other).unsqueeze(1)
    return torch.where(best, one, two), torch.maximum(value, other)


def whole(weights: Tensor) -> Tensor:
    """Weights that add up to about `UNIT`, rounded so that they do: the largest takes what is lost."""
    rounded = weights.floor()
    largest = rounded.argmax(1, keepdim=True)
    return rounded.scatter_add(1, largest, UNIT - rounded.sum(1, keepdim=True))


def _mixed(margins: Rows, weights: Tensor) -> Rows:
    share = weights / UNIT
    symbols = (margins.symbols @ share.unsqueeze(2)).squeeze(2)
    return Rows((margins.centre * share).sum(1), symbols, (margins.error * share).sum(1))
