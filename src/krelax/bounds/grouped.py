"""Groups of neurons in the backward pass: the multi-neuron step.

The coefficients of a neuron are shared out among the groups it belongs to and itself alone, `A = A_0 + sum_g A_g`, and
so are its slopes, `lambda = lambda_0 + sum_g lambda_g`; every part pays its own support function. Any shares and any
slopes are sound; both are optimised. Without groups this is the single-neuron step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from krelax.bounds.groups import Groups, Through
from krelax.bounds.intervals import Intervals
from krelax.bounds.steps import Crossing, Parameter, Single, Step


def pick(x: Tensor, places: Tensor) -> Tensor:
    """Rows of `(batch, n, queries)` at places `(batch, groups, k)`: `(batch, groups, k, queries)`."""
    index = places.flatten(1)
    if len(index) == 1:
        taken = x.index_select(1, index[0])
    else:
        taken = x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))
    return taken.unflatten(1, places.shape[1:])


def put(x: Tensor, places: Tensor, values: Tensor) -> None:
    """Add values `(batch, groups, k, queries)` to the rows of `(batch, n, queries)` at `(batch, groups, k)`."""
    source, index = values.flatten(1, 2), places.flatten(1)
    if len(index) == 1:
        x.index_add_(1, index[0], source)
    else:
        x.scatter_add_(1, index.unsqueeze(2).expand_as(source), source)


def _columns(x: Tensor) -> Tensor:
    """`(batch, queries, *shape)` with the queries last, where they are worked on side by side."""
    return x.flatten(2).transpose(1, 2).contiguous()


def _back(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.transpose(1, 2).unflatten(2, shape)


def _give(elsewhere: dict[int, Tensor], through: Through, slope: Tensor) -> None:
    """Add the slopes of pass-through members, `(batch, groups, p, queries)`, to the coefficients of their node."""
    rows = slope.new_zeros(len(slope), prod(through.shape), slope.shape[-1])
    put(rows, through.places, slope)
    given = _back(rows, through.shape)
    before = elsewhere.get(through.node)
    elsewhere[through.node] = given if before is None else before + given


class _Crossed(NamedTuple):
    """What a group met on the way down: its members' slopes and coefficients, and where its support is attained."""

    whole: Tensor
    line: Tensor
    coeff: Tensor
    tilt: Tensor
    z: Tensor
    a: Tensor


class Shares:
    """The witness of some groups: which part of its members' coefficients each takes, and how its slopes differ from
    those of the members' own lines.

    `share` is `(batch, groups, k, queries)`; `tilt`, `(batch, groups, k + p, queries)`, is a part of the group's sum of
    absolute coefficients.
    """

    # steps of shares and tilts in units of those of single slopes
    _SHARE, _TILT = 1.0, 0.03

    def __init__(self, groups: Groups, share: Tensor, tilt: Tensor) -> None:
        self.groups = groups
        zero, one = share.new_zeros(()), share.new_ones(())
        self.share = Parameter(share, zero, one, self._SHARE)
        self.tilt = Parameter(tilt, -one, one, self._TILT)
        self._met: _Crossed | None = None

    def over(self, groups: Groups) -> Shares:
        """The same shares of other relaxations of the same groups, in their type."""
        dtype = groups.joint.bounds.dtype
        return Shares(groups, self.share.value.to(dtype), self.tilt.value.to(dtype))

    def take(self, coeff: Tensor, line: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The groups' coefficients and slopes, with the prices and absolute terms, `(batch, queries)`.

        `coeff` and `line`, both `(batch, n, queries)`, are the coefficients and the slopes that the members would have
        alone.
        """
        joint, k = self.groups.joint, self.groups.members.shape[-1]
        whole, own = pick(coeff, self.groups.members), pick(line, self.groups.members)
        part = self.share.value * whole
        slope = self.tilt.value * part.abs().sum(2, keepdim=True)
        slope[:, :, :k] += part * own
        every = part if slope.shape[2] == k else torch.cat([part, torch.zeros_like(slope[:, :, k:])], 2)
        found = joint.support(slope, every)
        self._met = _Crossed(whole, own, part, self.tilt.value, found.z, found.a)
        absolute = ((slope.abs() + every.abs()) * joint.magnitude.unsqueeze(-1)).sum((1, 2))
        return part, slope, found.value.sum(1), absolute

    def follow(self, points: Mapping[int, Tensor], before: Tensor, alone: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of shares and tilts; and, for the members, what their coefficients and slopes in the groups are
        worth: the derivatives of the bound with respect to the whole coefficient (less what it is worth `alone`) and
        to the member's line, both `(batch, groups, k, queries)`."""
        met, k = self._met, self.groups.members.shape[-1]
        assert met is not None
        q, through = pick(before, self.groups.members), self.groups.through
        if through is not None:
            q = torch.cat([q, pick(_columns(points[through.node]), through.places)], 2)
        moved = q - met.z
        tilting = (met.tilt * moved).sum(2, keepdim=True)
        inside = met.a[:, :, :k] + met.line * moved[:, :, :k] + met.coeff.sign() * tilting
        worth = inside - pick(alone, self.groups.members)
        self.share.gradient = met.whole * worth
        self.tilt.gradient = met.coeff.abs().sum(2, keepdim=True) * moved
        return self.share.value * worth, met.coeff * moved[:, :, :k]


class Grouped(Step):
    """Neurons in groups, and alone for what is left: `Single` with part of the coefficients taken by groups."""

    def __init__(self, alone: Single, shares: Sequence[Shares]) -> None:
        self.relaxation = alone.relaxation
        self.alone, self.shares = alone, tuple(shares)
        self._rest: Tensor | None = None

    def parameters(self) -> list[Parameter]:
        return [*self.alone.parameters(), *(p for s in self.shares for p in (s.share, s.tilt))]

    def over(self, known: Intervals, node: int) -> Grouped:
        groups = known.groups[node]
        return Grouped(self.alone.over(known, node), [s.over(g) for s, g in zip(self.shares, groups, strict=True)])

    def back(self, coeff: Tensor) -> Crossing:
        shape = coeff.shape[2:]
        whole, line = _columns(coeff), _columns(self.alone.slopes_of(coeff))
        rest, joint = whole.clone(), torch.zeros_like(whole)
        price = absolute = coeff.new_zeros(coeff.shape[:2])
        elsewhere: dict[int, Tensor] = {}
        for s in self.shares:
            part, slope, paid, terms = s.take(whole, line)
            k = part.shape[2]
            put(rest, s.groups.members, -part)
            put(joint, s.groups.members, slope[:, :, :k])
            price, absolute = price + paid, absolute + terms
            if s.groups.through is not None:
                _give(elsewhere, s.groups.through, slope[:, :, k:])
        self._rest = _back(rest, shape).contiguous()
        left = self.alone.back(self._rest)
        return Crossing(left.slopes + _back(joint, shape), price + left.price, absolute, elsewhere)

    def forth(self, coeff: Tensor, points: Mapping[int, Tensor], operand: int) -> Tensor:
        assert self._rest is not None
        before = _columns(points[operand])
        alone = self.alone.forth(self._rest, points, operand)
        total = _columns(alone)
        single, along = total.clone(), torch.zeros_like(total)
        for s in self.shares:
            worth, sloped = s.follow(points, before, single)
            put(total, s.groups.members, worth)
            put(along, s.groups.members, sloped)
        self.alone.add_gradient(coeff, _back(along, coeff.shape[2:]))
        return _back(total, coeff.shape[2:]).contiguous()


def grouped(alone: Single, groups: Sequence[Groups], queries: int) -> Grouped:
    """A step whose coefficients are shared out evenly, a copy of the shares for each query."""
    belongs = _memberships(groups, alone.relaxation.lower)
    shares = []
    for g in groups:
        share = pick(1 / belongs, g.members).expand(-1, -1, -1, queries).contiguous()
        tilt = share.new_zeros(*share.shape[:2], len(g.joint.negative_slopes), queries)
        shares.append(Shares(g, share, tilt))
    return Grouped(alone, shares)


def _memberships(groups: Sequence[Groups], like: Tensor) -> Tensor:
    """In how many groups each neuron is, `(batch, n, 1)`."""
    count = like.new_zeros(len(like), like[0].numel(), 1)
    for g in groups:
        put(count, g.members, like.new_ones(*g.members.shape, 1))
    return count
