"""Members of windows compared in the leaves of a branch and bound: which of two is at least as large as the other.

A window whose member i is at least as large as j has its maximum among the others, so j is free in its interval, and
the row `z_j - z_i <= 0` joins the form with a multiplier beta >= 0 (beta-CROWN, Wang et al. 2021). After n - 1
comparisons a window of n members is one of them. The lines of windows follow from the intervals of the members that
are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from krelax.activations import Lines, Rule
from krelax.activations.maximum import Maximum
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import written
from krelax.bounds.steps import MULTIPLIER_STEP, Parameter, Relaxed, Step
from krelax.problem.region import dot
from krelax.proof.choices import Choices

# Share of a lower line's price that counts when a comparison is chosen.
_LOWER_LINE = 0.2


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Comparisons of members of some leaves: the leaves, the places of the `winner` and the `loser` in a tensor
    `(leaves, *shape)`, flattened, and how many were made before in the leaf; `(comparisons,)` each. Windows have `size`
    members."""

    row: Tensor
    winner: Tensor
    loser: Tensor
    turn: Tensor
    size: int

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def windows(self) -> Tensor:
        """The windows with compared members, numbered through all leaves, `(windows,)`."""
        return torch.unique(self.winner // self.size)

    @cached_property
    def among(self) -> Tensor:
        """Which of their members may be the maximum, `(windows, size)`.

        A loser is out if its winner was still in: then it lost to one that is in, or lost later, and so on to one that
        is in. So no circle of comparisons can leave none of the largest.
        """
        places = (self.windows * self.size).unsqueeze(1) + torch.arange(self.size, device=self.row.device)
        lost = torch.full((places.numel(),), torch.iinfo(torch.int64).max, device=self.row.device)
        winner, loser = (torch.searchsorted(places.flatten(), place) for place in (self.winner, self.loser))
        lost.scatter_reduce_(0, loser, self.turn, "amin")
        out = loser[lost[winner] > self.turn]
        return torch.ones_like(lost, dtype=torch.bool).index_fill(0, out, False).view(places.shape)

    def over(self, relaxation: Maximum) -> Maximum:
        """The relaxation of these windows, `(1, windows, size)`, of one that all leaves share, `(1, *shape)`."""
        count = relaxation.lower[0].numel() // self.size
        return relaxation.some(self.windows % count, self.among)


class _Own(NamedTuple):
    """What the compared windows have of their own: numbers of windows and the leaves of them, `(windows,)`, their
    relaxation and its lines, `(windows, size)` and `(windows,)`, and where the comparisons are."""

    relaxation: Maximum
    leaf: Tensor
    lower: Tensor
    upper: Tensor
    below: Tensor
    above: Tensor


class Compared(Step):
    """Windows of so many leaves, some of them with members that are compared, and a multiplier for each comparison:
    lines by the adaptive rule, over what comparisons leave. Sound for every leaf whatever the multipliers are, if none
    is negative."""

    relaxation: Maximum

    def __init__(self, relaxation: Maximum, comparisons: Comparisons, multiplier: Tensor, leaves: int) -> None:
        self.relaxation, self.comparisons, self.leaves = relaxation, comparisons, leaves
        self.wants_a_visit = len(comparisons) > 0
        self._lines = relaxation.lines_by(Rule.ADAPTIVE)
        self._windows = relaxation.lower[0].numel() // comparisons.size
        zero = multiplier.new_zeros(())
        self.multiplier = Parameter(multiplier, zero, zero + torch.inf, MULTIPLIER_STEP)

    @cached_property
    def _own(self) -> _Own:
        relaxation = self.comparisons.over(self.relaxation)
        lines = relaxation.lines_by(Rule.ADAPTIVE)
        assert lines.below is not None
        parts = (t[0, 0] for t in (lines.lower, lines.upper, lines.below, lines.above))
        return _Own(relaxation, self.comparisons.windows // self._windows, *parts)

    def parameters(self) -> list[Parameter]:
        return [self.multiplier] if self.wants_a_visit else []

    def shared(self) -> Lines | None:
        return None if self.wants_a_visit else self._lines

    def over(self, bounds: LayerBounds, node: int) -> Self:
        relaxation = bounds.relaxations[node].window()
        assert relaxation is not None
        multiplier = written(self.multiplier.value.to(relaxation.lower.dtype))
        return type(self)(relaxation, self.comparisons, multiplier, self.leaves)

    def choices(self, region: int, tape: None) -> Choices:
        """The lines of members that are undecided before anything is compared."""
        entries = self.relaxation.unstable()[0].flatten().nonzero()[:, 0]
        both = torch.stack([t[0, 0].flatten() for t in (self._lines.lower, self._lines.upper)], -1)[None]
        if self.wants_a_visit:
            both = both.repeat(self.leaves, 1, 1)
            own = torch.stack([self._own.lower, self._own.upper], -1)
            both.view(-1, self.comparisons.size, 2).index_copy_(0, self.comparisons.windows, own)
        return Choices(entries.to(torch.int32).cpu().numpy(), lines=both[:, entries].float().cpu().numpy())

    def backward(self, coeff: Tensor) -> Relaxed:
        lines, rest = self._lines, coeff
        if self.wants_a_visit:
            rest = coeff.clone()
            rest.view(-1).index_fill_(0, self.comparisons.windows, 0.0)
        positive = rest.clamp(min=0)
        negative = rest - positive
        assert lines.below is not None
        price = dot(positive, lines.below) - dot(negative, lines.above)
        slopes = positive.unsqueeze(-1) * lines.lower
        slopes.addcmul_(negative.unsqueeze(-1), lines.upper)
        if not self.wants_a_visit:
            return Relaxed(slopes, price)
        return Relaxed(slopes, price, self._pay_own(coeff, slopes, price))

    def _pay_own(self, coeff: Tensor, slopes: Tensor, price: Tensor) -> Tensor:
        """Add the slopes and the price of compared windows. What these are made of, `(1, leaves)`: multipliers may
        cancel slopes."""
        at, own, beta = coeff.view(-1)[self.comparisons.windows], self._own, self.multiplier.value
        positive = at.clamp(min=0)
        negative = at - positive
        paid, magnitude = positive * own.below - negative * own.above, own.relaxation.magnitude[0]
        line = positive[:, None] * own.lower + negative[:, None] * own.upper
        slopes.view(-1, self.comparisons.size).index_copy_(0, self.comparisons.windows, line)
        price.view(-1).index_add_(0, own.leaf, paid)
        sizes = torch.zeros_like(price)
        sizes.view(-1).index_add_(0, own.leaf, (line.abs() * magnitude).sum(1) + at.abs() * magnitude.amax(1))
        every = self.relaxation.magnitude.flatten()
        for sign, places in ((-1, self.comparisons.winner), (1, self.comparisons.loser)):
            slopes.view(-1).index_add_(0, places, sign * beta)
            sizes.view(-1).index_add_(0, self.comparisons.row, beta * every[places % len(every)])
        return sizes

    def forward(self, coeff: Tensor, before: Tensor, tape: None) -> Tensor:
        positive, lines = torch.gt(coeff, 0, out=torch.empty_like(coeff)), self._lines
        assert lines.below is not None
        along = (torch.lerp(lines.upper, lines.lower, positive.unsqueeze(-1)) * before).sum(-1)
        result = along.add_(torch.lerp(lines.above, -lines.below, positive))
        if self.wants_a_visit:
            own, flat = self._own, before.reshape(-1)
            self.multiplier.gradient = flat[self.comparisons.loser] - flat[self.comparisons.winner]
            up = positive.view(-1)[self.comparisons.windows]
            here = flat.view(-1, self.comparisons.size)[self.comparisons.windows]
            value = (torch.lerp(own.upper, own.lower, up[:, None]) * here).sum(1)
            result.view(-1).index_copy_(0, self.comparisons.windows, value + torch.lerp(own.above, -own.below, up))
        return result

    def prices(self, coeff: Tensor) -> Tensor:
        """What comparing each member with its `rival` is expected to be worth, `(leaves, members)`: what the lines of
        the window lose."""
        gain, first, _ = self._orders
        worth = torch.maximum(-coeff[0].flatten(1), _LOWER_LINE * coeff[0].flatten(1)) * gain
        entries = torch.arange(self._windows, device=first.device) * self.comparisons.size + first
        none = worth.new_zeros(len(worth), self._windows * self.comparisons.size)
        return none.scatter_(1, entries.expand(len(worth), -1), worth)

    def points(self, coeff: Tensor, neuron: Tensor) -> Tensor:
        """With which member of its window a member of each leaf is compared, `(leaves,)`."""
        return self.rivals(neuron, torch.arange(len(neuron), device=neuron.device)).to(coeff.dtype)

    def rivals(self, neuron: Tensor, row: Tensor) -> Tensor:
        """The same of members of some leaves."""
        second = self._orders[2]
        return second[row if len(second) > 1 else torch.zeros_like(row), neuron // self.comparisons.size]

    def worth(self) -> Tensor:
        """What comparing each member may be worth, `(leaves, members)`."""
        return self.prices(-torch.ones(1, self.leaves, self._windows).to(self.relaxation.lower))

    @cached_property
    def _orders(self) -> tuple[Tensor, Tensor, Tensor]:
        """What comparing two members of each window is worth, and which, `(leaves | 1, windows)` each."""
        order = self.relaxation.order()
        shared = [t[0].flatten() for t in (order.gain, order.first, order.second)]
        if not self.wants_a_visit:
            return shared[0][None], shared[1][None], shared[2][None]
        order = self._own.relaxation.order()
        every = [t.repeat(self.leaves) for t in shared]
        for each, own in zip(every, (order.gain, order.first, order.second), strict=True):
            each.index_copy_(0, self.comparisons.windows, own[0])
        return tuple(t.view(self.leaves, -1) for t in every)  # type: ignore[return-value]
