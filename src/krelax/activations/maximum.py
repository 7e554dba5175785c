"""The maximum of a window: one relaxation of several pre-activations at once.

The relaxation is the convex hull of the graph over the box, and its support function is exact. For `coeff <= 0` it is a
maximum over the members of the window, each a linear form on the box. For `coeff > 0` it is the maximum of a concave
function of the window's maximum alone, found by going through the upper bounds in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from krelax.activations.base import ASIDE, Activation, Lines, Relaxation, Rule, Support
from krelax.op import Shape


@dataclass(frozen=True, eq=False)
class Max(Activation):
    """Largest entry along the last axis, which disappears (max pooling, after `Take` laid out the windows).

    `copies`, bool `(*shape)`, says which members are the same entry as one before them, so that comparing both would
    say nothing; None if there are none. Only comparisons may ask: parts of the network have the same operator.
    """

    copies: Tensor | None = None

    name = "max"
    rising = True
    published = True
    work = 50.0

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0][:-1]

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].amax(-1)

    def piece(self, z: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(z.argmax(-1), z.shape[-1]).to(z)

    def relax(self, lower: Tensor, upper: Tensor) -> Maximum:
        return Maximum(self, lower, upper, copies=self.copies)


def _without_each(terms: Tensor) -> Tensor:
    """For each entry of the last axis the sum of all others. Nothing is subtracted, so little is lost to rounding."""
    none = torch.zeros_like(terms[..., :1])
    before = torch.cat([none, terms[..., :-1]], -1).cumsum(-1)
    behind = torch.cat([none, terms[..., 1:].flip(-1)], -1).cumsum(-1).flip(-1)
    return before + behind


class Order(NamedTuple):
    """Of every window two members to be compared next, and what that is worth, `(batch, *shape of a)` each: how far
    from the larger one of both a line may be. Nothing is where no two members can each be the larger one."""

    first: Tensor
    second: Tensor
    gain: Tensor


class Maximum(Relaxation):
    """`a = max_i z_i` over the last axis of z, with `lower <= z <= upper`.

    With `among`, bool `(batch, *shape)`, the others are known to be no larger than one of these members: they are free
    in their intervals, and the maximum is over the rest.
    """

    reduces = True

    def __init__(
        self,
        op: Activation,
        lower: Tensor,
        upper: Tensor,
        among: Tensor | None = None,
        copies: Tensor | None = None,
    ) -> None:
        super().__init__(op, lower, upper)
        self._among, self._copies = among, copies
        self._low = self.lower if among is None else self.lower.where(among, -torch.inf)
        self._high = self.upper if among is None else self.upper.where(among, -torch.inf)

    def window(self) -> Maximum:
        return self

    def over(self, lower: Tensor, upper: Tensor) -> Maximum:
        return Maximum(self.op, lower, upper, self._among, self._copies)

    def among(self, members: Tensor) -> Maximum:
        """The same where all but these members, `(batch, *shape)`, are known to be no larger than one of them."""
        members = members if self._copies is None else members & ~self._copies
        return Maximum(self.op, self.lower, self.upper, members, self._copies)

    def some(self, windows: Tensor, among: Tensor) -> Maximum:
        """Some windows of one region, by their numbers, `(windows,)`, as `(1, windows, size)`, with the members that
        are `among` those that count, but for copies."""
        size = self.lower.shape[-1]
        lower, upper = (t.reshape(-1, size)[windows][None] for t in (self.lower, self.upper))
        copies = None if self._copies is None else self._copies.reshape(-1, size)[windows]
        return Maximum(self.op, lower, upper, None, copies).among(among[None])

    def interval(self) -> tuple[Tensor, Tensor]:
        return self.lower.amax(-1), self._high.amax(-1)

    def unstable(self) -> Tensor:
        """Members that can be the maximum without having to be."""
        possible = self._high > self._low.amax(-1, keepdim=True)
        return possible & (possible.sum(-1, keepdim=True) > 1)

    def order(self) -> Order:
        """Compare the member of the largest upper bound with the next one, which then is out, or takes its place. So
        none is first twice. A proposal.

        Of two members i and j the maximum is `j + max(i - j, 0)`: a comparison is the split of that ReLU, and worth the
        height of its triangle.
        """
        low, high = self._low, self._high
        if self._copies is not None:
            low, high = (t.masked_fill(self._copies, -torch.inf) for t in (low, high))
        second = high.argmax(-1, keepdim=True)
        low2, high2 = low.gather(-1, second), high.gather(-1, second)
        high1, first = high.scatter(-1, second, -torch.inf).max(-1, keepdim=True)
        below, above = low.gather(-1, first) - high2, high1 - low2
        undecided = (below < 0) & (above > 0) & below.isfinite() & above.isfinite()
        gain = torch.where(undecided, below * above / (below - above), 0.0)
        return Order(first.squeeze(-1), second.squeeze(-1), gain.squeeze(-1))

    def splits(self) -> None:
        return None

    def matters(self) -> Tensor:
        return self._high >= self._low.amax(-1, keepdim=True)

    def facets(self) -> Iterator[tuple[bool, Tensor]]:
        """Every member is a lower line. The upper one rises with each member as far as that one alone can carry the
        maximum above the largest lower bound."""
        for member in range(self.lower.shape[-1]):
            slope = torch.zeros_like(self.lower)
            slope[..., member] = 1.0
            yield True, slope
        rise, width = self._high - self._low.amax(-1, keepdim=True), self.upper - self.lower
        yield False, torch.where(width > 0, (rise / width).clamp(0, 1), 0.0)

    @cached_property
    def _leader(self) -> Tensor:
        """One-hot of the first member whose lower bound is largest, or nearly so: others decide the same in spite of
        rounding. Of equal ones that with the largest upper bound."""
        score = self._low + ASIDE * (self.upper - self.lower).clamp(min=0)
        spread = (self._high.amax(-1, keepdim=True) - self._low.amax(-1, keepdim=True)).clamp(min=0)
        close = score >= score.amax(-1, keepdim=True) - ASIDE / 2 * spread
        # of equal numbers argmax may pick any
        first = torch.where(close, torch.arange(close.shape[-1], 0, -1, device=close.device), 0).argmax(-1)
        return torch.nn.functional.one_hot(first, self.lower.shape[-1]).to(self.lower.dtype)

    def lines(self, lower: Tensor, upper: Tensor) -> Lines:
        below, above = self._concave(lower, torch.ones_like(lower[..., 0])), self._convex(-upper, -upper.new_ones(()))
        return Lines(lower, upper, below.value, above.value, below.z, above.z)

    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        # NumPy's: torch's own imports sympy, which takes a second
        slope = slope.expand(np.broadcast_shapes(slope.shape, (*coeff.shape, 1), self.lower.unsqueeze(1).shape))
        coeff = coeff.expand(slope.shape[:-1])
        below, above = self._concave(slope, coeff), self._convex(slope, coeff)
        positive = coeff > 0
        z = torch.where(positive.unsqueeze(-1), below.z, above.z)
        return Support(torch.where(positive, below.value, above.value), z, torch.where(positive, below.a, above.a))

    def _concave(self, slope: Tensor, coeff: Tensor) -> Support:
        """For `coeff > 0`, where a is the maximum t itself: the members of positive slope rise with t up to their
        upper bounds. That pays until the slopes of those that still rise add up to `coeff` or less."""
        lower, upper, high = (t.unsqueeze(1) for t in (self.lower, self.upper, self._high))
        least = self._low.unsqueeze(1).amax(-1, keepdim=True)
        gain = torch.where(high > least, slope.clamp(min=0), 0.0)
        ends, order = high.sort(dim=-1, descending=True, stable=True)
        rising = gain.gather(-1, order.expand(gain.shape)).cumsum(-1)
        stop = torch.where(rising >= coeff.unsqueeze(-1), ends, least).amax(-1, keepdim=True).maximum(least)
        most = torch.minimum(upper, stop)
        if self._among is not None:
            most = torch.where(self._among.unsqueeze(1), most, upper)
        z = torch.where(slope > 0, most, lower)
        a = stop.squeeze(-1)
        return Support((slope * z).sum(-1) - coeff * a, z, a)

    def _convex(self, slope: Tensor, coeff: Tensor) -> Support:
        """For `coeff <= 0`: a maximum over the members of maxima of linear forms over the box, which differ in one
        member."""
        lower, upper, own = self.lower.unsqueeze(1), self.upper.unsqueeze(1), slope - coeff.clamp(max=0).unsqueeze(-1)
        alone, leading = torch.where(slope >= 0, upper, lower), torch.where(own >= 0, upper, lower)
        values = _without_each(slope * alone) + own * leading
        if self._among is not None:
            values = torch.where(self._among.unsqueeze(1), values, -torch.inf)
        value, member = values.max(-1, keepdim=True)
        z = alone.scatter(-1, member, leading.gather(-1, member))
        inside = z if self._among is None else z.where(self._among.unsqueeze(1), -torch.inf)
        return Support(value.squeeze(-1), z, inside.amax(-1))

    def slope_range(self) -> tuple[Tensor, Tensor]:
        leader = self._leader
        return leader, leader

    def slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        """Lower line: the leader itself. Upper line: the leader if it is always the maximum, or nearly so, else a
        constant."""
        zero = torch.zeros_like(self.lower)
        if rule is Rule.ZERO:
            return zero, zero
        leader = self._leader
        rest = torch.where(leader > 0, torch.full_like(zero, -torch.inf), self._high).amax(-1, keepdim=True)
        low, high = ((leader * t).sum(-1, keepdim=True) for t in (self.lower, self.upper))
        return leader, torch.where(rest - low <= ASIDE * (high - low), leader, zero)
