"""How long leaves are optimised: short where many leaves do, long where that closes a tree much earlier.

A leaf that is v below its target, and whose children gain g and h, is the root of a tree of about `x ** v` leaves,
where `x ** -g + x ** -h = 1` (Le Bodic and Nemhauser 2017). Steps of an ascent make v smaller and gains larger, and
leaves dearer. Which of that counts for more differs from network to network.

Halves of a ReLU are linear, and the other slopes are hardly worth more than a few steps each time. Halves of a curve
need new lines: before these are found, one of them gains nothing.
"""

from __future__ import annotations

from dataclasses import replace
from math import log, log2

import torch
from torch import Tensor

from krelax.bounds.evaluator import Evaluator
from krelax.bounds.leaves import Leaves
from krelax.bounds.optimise import Ascent

# What is tried beside the ascent of the effort, and what leaves have where curves are split.
_LONGER, _OF_CURVES = (Ascent(10, 0.07, 0.85), Ascent(30, 0.1, 0.9)), Ascent(40, 0.1, 0.92)
# So many leaves are looked at, when the tree has had so many, and each time it has had so many times more.
SAMPLE, _FIRST, _AGAIN = 8, 1024, 4
# The largest trees that are told apart, in doublings, and steps of bisection that find them.
_MOST, _HALVINGS = 60.0, 40
# A longer ascent is taken if the work is less by so many doublings: they are guessed from few leaves.
_CLEARLY = 3.0


class Pace:
    """The ascent of leaves, `ascent`, chosen anew from time to time by what it brings to some that wait."""

    def __init__(self, evaluator: Evaluator, shortest: Ascent) -> None:
        self._evaluator, self._at, self._next = evaluator, 0, _FIRST
        longer = tuple(a for a in _LONGER if a.steps > shortest.steps)
        self._ascents = (_OF_CURVES,) if evaluator.splits_curves else (shortest, *longer)

    @property
    def ascent(self) -> Ascent:
        return self._ascents[self._at]

    @property
    def kept(self) -> Ascent:
        """No step: what leaves have chosen already is looked at."""
        return replace(self.ascent, steps=0)

    def is_due(self, leaves: int) -> bool:
        """Whether to look again where there have been so many leaves."""
        return leaves >= self._next and len(self._ascents) > 1

    def look(self, leaves: Leaves, target: Tensor) -> None:
        """Take the ascent for which the trees of some leaves, which can all be split, are the least work. `target` has
        those of queries."""
        self._next *= _AGAIN
        work = [self._work(leaves, target, ascent) for ascent in self._ascents]
        work[0] -= _CLEARLY
        self._at = min(range(len(work)), key=work.__getitem__)

    def _work(self, leaves: Leaves, target: Tensor, ascent: Ascent) -> float:
        """The logarithm of the work that closing leaves is with some ascent, up to a constant."""
        parents = leaves.select(leaves.rows())
        self._evaluator.improve(parents, ascent)
        children = parents.children()
        self._evaluator.improve(children, ascent)
        goal = target[leaves.query].to(parents.value)
        reached = torch.minimum(parents.value, goal)
        # no child is below its parent, whose choices it may take back
        halves = torch.minimum(torch.maximum(children.value, parents.value.repeat(2)), goal.repeat(2))
        doublings = _doublings(goal - reached, *(halves.view(2, -1) - reached))
        return log2(1 + ascent.steps) + float(torch.logsumexp(doublings * log(2), 0)) / log(2)


def _doublings(left: Tensor, gain: Tensor, other: Tensor) -> Tensor:
    """Logarithms of the leaves of trees whose roots are so far below their targets, `(leaves,)`, at most `_MOST`."""
    left, worse, better = left.double(), torch.minimum(gain, other).double(), torch.maximum(gain, other).double()
    low, high = torch.zeros_like(left), _MOST / left.clamp(min=1e-12)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = middle * worse * log(2) >= -torch.log1p(-torch.exp2(-middle * better))
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return high * left
