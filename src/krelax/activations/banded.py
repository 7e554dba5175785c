"""Pairs of neurons of any elementwise activation: bands around their graphs, over an octagon of both.

A band around a segment of a graph is two values of the activation's own support function: how far its graph lies on
either side of a line. So whatever has a relaxation has bands, and an activation needs to say nothing of groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from krelax.activations.base import ASIDE, Activation, Support
from krelax.activations.joint import PROOF, Joint, Together

if TYPE_CHECKING:
    from krelax.hull.bands import BandHull, Bands

# Segments of an interval.
SEGMENTS = 16
# What support functions are trusted to, in units of rounding; they promise 8.
_ULPS = 16


@dataclass(frozen=True, eq=False)
class Banded(Together):
    """Bands around `(batch, groups)` pairs of neurons of one activation.

    `rows`, `(8, 2)`, are the normals of octagons, in their order, and `bounds`, `(batch, groups, 8)`, the right-hand
    sides. Proposals and proofs have the same bands.
    """

    op: Activation
    rows: Tensor
    bounds: Tensor
    _made: list[Bands] = field(default_factory=list)

    # For what members are below zero: they are no lines there.
    negative_slopes = ()

    def to(self, dtype: torch.dtype) -> Banded:
        """The same pairs for coefficients of another type."""
        self._bands()
        return replace(self, rows=self.rows.to(dtype), bounds=self.bounds.to(dtype))

    def select(self, which: Tensor) -> Banded:
        """Some of the pairs of one region."""
        made = [b.select(which.cpu().numpy()) for b in self._made]
        return replace(self, bounds=self.bounds[:, which], _made=made)

    @cached_property
    def magnitude(self) -> Tensor:
        """Largest |z| of each member, `(batch, groups, 2)`."""
        return self._size(1)

    @cached_property
    def reach(self) -> Tensor:
        """At least the largest |a| of each member, `(batch, groups, 2)`."""
        return self._size(0)

    def _size(self, which: int) -> Tensor:
        return torch.from_numpy(self._bands().size[:, :, which]).to(self.bounds).unflatten(0, self.bounds.shape[:2])

    def support(self, slope: Tensor, coeff: Tensor, sides: Tensor | None = None) -> Support:
        """`max slope . z - coeff . a` over each pair; `(batch, groups, 2, queries) -> (batch, groups, queries)`.

        An upper bound of the exact maximum, rounding included, whatever the type of the coefficients, but for rounding
        the value to it. `sides` of zero are not heeded.
        """
        from krelax.hull.bands import support  # numba takes a while to import

        flat = (t.flatten(0, 1).double().contiguous().cpu().numpy() for t in (slope, coeff))
        found, shape = support(self._bands(), *flat), slope.shape[:2]
        value, z, a = (torch.from_numpy(t).to(slope).unflatten(0, shape) for t in (found.value, found.z, found.a))
        return Support(value if slope.dtype != PROOF else value.fmin(self._alone(slope, coeff)), z, a)

    def hull(self) -> BandHull:
        from krelax.hull.bands import BandHull

        return BandHull(self._bands(), lambda z: self.op.forward(torch.from_numpy(z)).numpy())

    def _alone(self, slope: Tensor, coeff: Tensor) -> Tensor:
        """What members pay by themselves, rounded up."""
        lower, upper = -self.bounds[..., [1, 3]], self.bounds[..., [6, 4]]
        by_query = (t.permute(0, 3, 1, 2) for t in (slope, coeff))
        value = self.op.relax(lower, upper).support(*by_query).value.permute(0, 2, 3, 1)
        size = slope.abs() * self.magnitude.unsqueeze(-1)
        size = size + torch.where(coeff == 0, 0.0, coeff.abs() * self.reach.unsqueeze(-1))
        return (value + _ULPS * torch.finfo(size.dtype).eps * size).sum(2)

    def _bands(self) -> Bands:
        if not self._made:
            self._made.append(_bands(self.op, self.bounds.flatten(0, 1)))
        return self._made[0]


def _bands(op: Activation, octagon: Tensor) -> Bands:
    """Bands over octagons `(groups, 8)`: the widest of each member is halved, again and again."""
    from krelax.hull.bands import Bands

    octagon = octagon.detach().to("cpu", torch.float64)
    lower, upper = -octagon[:, [1, 3]].flatten(), octagon[:, [6, 4]].flatten()
    every = _band(op, lower, upper).unsqueeze(2)
    for _ in range(SEGMENTS - 1):
        width = every[:, 3] + every[:, 4]
        widest = torch.from_numpy((width >= (1 - ASIDE) * width.amax(1, keepdim=True)).numpy().argmax(1))
        place = widest[:, None, None].expand(-1, every.shape[1], 1)
        low, high = every.gather(2, place)[:, :2, 0].unbind(1)
        middle = low / 2 + high / 2
        first, second = (_band(op, *ends).unsqueeze(2) for ends in ((low, middle), (middle, high)))
        every = torch.cat([every.scatter(2, place, first), second], 2)
    low, high, slope, below, above = every.unflatten(0, (-1, 2)).unbind(2)
    ends = torch.stack([low, high], -1)
    return Bands(*(t.contiguous().numpy() for t in (octagon, ends, slope, below, above)))


def _band(op: Activation, low: Tensor, high: Tensor) -> Tensor:
    """Segments `(n,)` with their bands, `(n, 5)`: ends, slope of the chord, and how far the activation is from its
    line through the origin, below and above."""
    relaxation, at = op.relax(low[None], high[None]), (op.forward(low), op.forward(high))
    slope = ((at[1] - at[0]) / (high - low)).nan_to_num(0.0, 0.0, 0.0)
    one = torch.ones_like(slope)[None, None]
    below, above = (relaxation.support(s * slope[None, None], s * one).value[0, 0] for s in (1, -1))
    ends = relaxation.interval()
    size = slope.abs() * relaxation.magnitude[0] + torch.maximum(ends[0].abs(), ends[1].abs())[0]
    error = _ULPS * torch.finfo(size.dtype).eps * size + torch.finfo(size.dtype).tiny
    return torch.stack([low, high, slope, below + error, above + error], 1)


def together(op: Activation, rows: Tensor, bounds: Tensor) -> Together:
    """The joint relaxation of groups of one activation over polytopes `rows @ z <= bounds`, `(m, k)` and `(batch,
    groups, m)`: exact hulls if it is two lines through the origin, else bands, of pairs."""
    if op.leak is not None:
        return Joint(rows, bounds, (op.leak,) * rows.shape[1])
    return Banded(op, rows, bounds)


def most_members(op: Activation) -> int | None:
    """How many members groups of an activation may have; None for any number."""
    return None if op.leak is not None else 2
