"""Groups of neurons in the backward pass: the multi-neuron step.

The coefficients of a neuron are shared out among the groups it belongs to and itself alone, `A = A_0 + sum_g A_g`, and
so are its slopes, `lambda = lambda_0 + sum_g lambda_g`; every part pays its own support function. Any shares and any
slopes are sound; both are optimised. Without groups this is the single-neuron step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from krelax.bounds.groups import Groups
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import written
from krelax.bounds.split import Split
from krelax.bounds.steps import Parameter, Relaxed, Single, SingleNeuron, Step, columns
from krelax.problem.region import FLOOR
from krelax.proof.choices import ONE, Choices, Shared, codes


def pick(x: Tensor, places: Tensor) -> Tensor:
    """Rows of `(1, n, queries)` at places `(groups, k)`: `(1, groups, k, queries)`."""
    return x.index_select(1, places.flatten()).unflatten(1, places.shape)


def put(x: Tensor, places: Tensor, values: Tensor) -> None:
    """Add values `(1, groups, k, queries)` to the rows of `(1, n, queries)` at `(groups, k)`."""
    x.index_add_(1, places.flatten(), values.flatten(1, 2))


def _add(x: Tensor, places: Tensor, columns: Tensor) -> Tensor:
    """`x`, `(1, queries, *shape)`, with columns `(1, m, queries)` added to its entries."""
    return x.flatten(2).index_add(2, places, columns.transpose(1, 2)).view_as(x)


# Far more products that are too small to be represented than there are, times what is charged for each.
_UNDERFLOW = 2.0**90


class _Crossed(NamedTuple):
    """What groups met on the way down: their members' slopes and coefficients, and where their support is attained."""

    whole: Tensor
    line: Tensor
    coeff: Tensor
    slope: Tensor
    tilt: Tensor
    z: Tensor
    a: Tensor


class Shares:
    """The witness of some groups: which part of its members' coefficients each takes, and how its slopes differ from
    those of the members' own lines. `places`, `(groups, k)`, say where to find the members among those of all groups.

    `share` and `tilt` are `(batch, groups, k, queries)`; a tilt is a part of the group's sum of absolute coefficients.
    """

    # steps of shares and tilts in units of those of single slopes
    _SHARE, _TILT = 1.0, 0.03

    def __init__(self, groups: Groups, places: Tensor, share: Tensor, tilt: Tensor) -> None:
        self.groups, self.places = groups, places
        zero, one = share.new_zeros(()), share.new_ones(())
        self.share = Parameter(share, zero, one, self._SHARE)
        self.tilt = Parameter(tilt, -one, one, self._TILT)
        self._write: Callable[[Tensor], Tensor] = lambda values: values

    def over(self, groups: Groups) -> Shares:
        """The same shares of other relaxations of the same groups, in their type, of numbers that can be written."""
        dtype = groups.joint.bounds.dtype
        other = Shares(groups, self.places, self.share.value.to(dtype), self.tilt.value.to(dtype))
        other._write = written
        return other

    def coded(self) -> Shares:
        """The same with shares and tilts as leaves write them down."""
        share, tilt = ((codes(p.value) / ONE).to(p.value) for p in (self.share, self.tilt))
        return Shares(self.groups, self.places, share, tilt)

    def take(self, coeff: Tensor, line: Tensor, sides: Tensor | None) -> tuple[_Crossed, Tensor, Tensor]:
        """The groups' coefficients and slopes, with the prices and absolute terms, `(batch, queries)`.

        `coeff`, `line` and `sides`, `(1, m, queries)`, are the coefficients of all groups' members, the slopes that
        they would have alone, and the sides of zero that they lie on.
        """
        joint = self.groups.joint
        whole, own = pick(coeff, self.places), pick(line, self.places)
        part = self._write(self.share.value * whole)
        slope = self._write(self.tilt.value * part.abs().sum(2, keepdim=True) + part * own)
        found = joint.support(slope, part, None if sides is None else pick(sides, self.places))
        met = _Crossed(whole, own, part, slope, self.tilt.value, found.z, found.a)
        far, reach = ((t + FLOOR).unsqueeze(-1) for t in (joint.magnitude, joint.reach))
        absolute = (slope.abs() * far + part.abs() * reach).sum((1, 2))
        # sums over groups are longer than the sums over neurons that the backward pass charges for
        absolute = absolute * (1 + slope[0, :, :, 0].numel() / 64) + torch.finfo(slope.dtype).tiny * _UNDERFLOW
        return met, found.value.sum(1), absolute

    def taken(self, met: _Crossed) -> Shared:
        """What the groups took."""
        coeff, slope = (t[0].permute(2, 0, 1).float().cpu().numpy() for t in (met.coeff, met.slope))
        return Shared(self.groups.stated, coeff, slope)

    def follow(self, met: _Crossed, before: Tensor, alone: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of shares and tilts; and, for the members, what their coefficients and slopes in the groups are
        worth: the derivatives of the bound with respect to the whole coefficient (less what it is worth `alone`) and
        to the member's line, both `(batch, groups, k, queries)`."""
        moved = pick(before, self.places) - met.z
        tilting = (met.tilt * moved).sum(2, keepdim=True)
        inside = met.a + met.line * moved + met.coeff.sign() * tilting
        worth = inside - pick(alone, self.places)
        self.share.gradient = met.whole * worth
        self.tilt.gradient = met.coeff.abs().sum(2, keepdim=True) * moved
        return self.share.value * worth, met.coeff * moved


class _Tape(NamedTuple):
    """What all groups met, what was left for single neurons, of which coefficients, and their own tape."""

    met: list[_Crossed]
    whole: Tensor
    rest: Tensor
    alone: Any


class Grouped(Step):
    """Neurons in groups, and alone for what is left: a step with part of its coefficients taken by groups.

    One region; `members`, `(m,)`, are the neurons in groups.
    """

    def __init__(self, alone: SingleNeuron, members: Tensor, shares: Sequence[Shares]) -> None:
        self.relaxation = alone.relaxation
        self._sides = alone.sides_at(members)
        self.alone, self.members, self.shares = alone, members, tuple(shares)

    def parameters(self) -> list[Parameter]:
        return [*self.alone.parameters(), *(p for s in self.shares for p in (s.share, s.tilt))]

    def over(self, bounds: LayerBounds, node: int) -> Grouped:
        shares = [s.over(g) for s, g in zip(self.shares, bounds.groups[node], strict=True)]
        if isinstance(self.alone, Split):
            shares = [s.coded() for s in shares]
        return Grouped(self.alone.over(bounds, node), self.members, shares)

    def choices(self, region: int, tape: _Tape | None) -> Choices:
        if tape is None:
            return self.alone.choices(region, None)
        taken = (s.taken(met) for s, met in zip(self.shares, tape.met, strict=True))
        return replace(self.alone.choices(region, tape.alone), groups=tuple(taken))

    def backward(self, coeff: Tensor) -> Relaxed:
        whole = columns(coeff, self.members)
        line = self.alone.slopes_at(self.members, whole)
        taken, joint = torch.zeros_like(whole), torch.zeros_like(whole)
        price = absolute = coeff.new_zeros(coeff.shape[:2])
        every: list[_Crossed] = []
        for s in self.shares:
            met, paid, terms = s.take(whole, line, self._sides)
            every.append(met)
            put(taken, s.places, met.coeff)
            put(joint, s.places, met.slope)
            price, absolute = price + paid, absolute + terms
        rest = _add(coeff, self.members, -taken)
        left = self.alone.backward(rest)
        tape = _Tape(every, whole, rest, left.tape)
        return Relaxed(_add(left.slopes, self.members, joint), price + left.price, absolute, tape)

    def forward(self, coeff: Tensor, before: Tensor, tape: _Tape) -> Tensor:
        after = self.alone.forward(tape.rest, before, tape.alone)
        here, alone = columns(before, self.members), columns(after, self.members)
        gained, along = torch.zeros_like(alone), torch.zeros_like(alone)
        for s, met in zip(self.shares, tape.met, strict=True):
            worth, sloped = s.follow(met, here, alone)
            put(gained, s.places, worth)
            put(along, s.places, sloped)
        self.alone.add_gradient(self.members, tape.whole, along)
        return _add(after, self.members, gained)


def membership(groups: Sequence[Groups]) -> tuple[Tensor, list[Tensor]]:
    """The neurons in groups, `(m,)`, and where among them the members of each set of groups are, `(groups, k)`."""
    members = torch.cat([g.members.flatten() for g in groups] or [torch.arange(0)]).unique()
    return members, [torch.searchsorted(members, g.members[0]) for g in groups]


def even(groups: Sequence[Groups], queries: int) -> list[Shares]:
    """Coefficients shared out evenly, a copy of the shares for each query, without tilts."""
    if not groups:
        return []
    members, places = membership(groups)
    belongs = torch.cat([p.flatten() for p in places]).bincount(minlength=len(members))
    shares = []
    for g, p in zip(groups, places, strict=True):
        share = (1 / belongs.to(g.joint.bounds))[p][None, ..., None].repeat(1, 1, 1, queries)
        shares.append(Shares(g, p, share, torch.zeros_like(share)))
    return shares


def grouped(alone: Single, groups: Sequence[Groups], queries: int) -> Grouped:
    """A step whose coefficients are shared out evenly, a copy of the shares for each query. One region."""
    return Grouped(alone, membership(groups)[0], even(groups, queries))
