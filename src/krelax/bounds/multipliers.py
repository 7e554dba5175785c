"""Relaxed an activation with the multipliers of a linear program: slopes, and cutting planes with their prices.

A cut `z . x + a . y <= offset` over the pre-activations x and post-activations y of some neurons joins the form with a
multiplier mu >= 0, as `mu (z . x + a . y - offset) <= 0`. So it moves coefficients from one side of the activation to
the other, for a price. What is left crosses the single neurons' relaxation, with slopes that are given too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from krelax.activations import Relaxation
from krelax.bounds.groups import Groups
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import underflow
from krelax.bounds.steps import Relaxed, Step
from krelax.problem.region import FLOOR, dot
from krelax.proof.choices import Choices, Shared


@dataclass(frozen=True, eq=False)
class Cuts:
    """Inequalities `z . x + a . y <= offset` over the neurons at `places` of an elementwise activation of one region.

    `places`, `z` and `a` are `(R, k)`, `offset` `(R,)`; places count the flattened activation, and may repeat where
    coefficients are zero. `group`, `(R,)`, is the number of the group of which a cut is a facet, through all sets of
    groups of the activation; -1 for none. Every cut must hold on the region: it is as sound as what it came from.
    """

    places: Tensor
    z: Tensor
    a: Tensor
    offset: Tensor
    group: Tensor

    def __len__(self) -> int:
        return len(self.offset)

    def select(self, index: Tensor | slice) -> Cuts:
        """Some of the cuts."""
        return Cuts(*(t[index] for t in (self.places, self.z, self.a, self.offset, self.group)))

    def to(self, like: Tensor) -> Cuts:
        """The same cuts in the type and on the device of a tensor."""
        z, a, offset = self.z.to(like), self.a.to(like), self.offset.to(like)
        return Cuts(self.places.to(like.device), z, a, offset, self.group.to(like.device))

    @classmethod
    def join(cls, parts: Sequence[Cuts]) -> Cuts:
        """All cuts, in order; shorter ones are padded."""
        k = max(p.places.shape[1] for p in parts)
        wide = ([pad(t, (0, k - t.shape[1])) for t in (p.places, p.z, p.a)] for p in parts)
        places, z, a = (torch.cat(ts) for ts in zip(*wide, strict=True))
        return cls(places, z, a, torch.cat([p.offset for p in parts]), torch.cat([p.group for p in parts]))


class Multipliers(Step):
    """Slopes `(batch, queries, *shape of z)` and cuts with multipliers `(queries, R)` as they are.

    `slopes` is what the backward pass carries on, whatever it costs, in absolute terms: not to be multiplied by the
    coefficients that it meets, and there even without any. Sound for all numbers: multipliers below zero count as
    zero, and what is not finite ends as no bound. Cuts are for one region, and `groups` are those of the activation.
    """

    wants_a_visit = True

    def __init__(
        self,
        relaxation: Relaxation,
        slopes: Tensor,
        cuts: Cuts | None = None,
        multipliers: Tensor | None = None,
        groups: tuple[Groups, ...] = (),
    ) -> None:
        self.relaxation, self.groups = relaxation, groups
        self.slopes = slopes.to(relaxation.lower)
        self.cuts = None if cuts is None or multipliers is None or not len(cuts) else cuts.to(self.slopes)
        self.multipliers = None if multipliers is None else multipliers.to(self.slopes).clamp(min=0)

    def over(self, bounds: LayerBounds, node: int) -> Multipliers:
        return Multipliers(bounds.relaxations[node], self.slopes, self.cuts, self.multipliers, self.groups)

    def choices(self, region: int, tape: Tensor | None) -> Choices:
        """Cuts as what their groups take over: the offset of a facet is the group's support."""
        absolute, shared = self.slopes, tuple[Shared, ...]()
        if self.cuts is not None and self.multipliers is not None:
            absolute = absolute - _scattered(self.multipliers, self.cuts.places, self.cuts.z, absolute)[0]
            shared = tuple(_shared(self.groups, self.cuts, self.multipliers))
        return Choices(absolute=absolute[region].flatten(1).float().cpu().numpy(), groups=shared)

    def forward(self, coeff: Tensor, before: Tensor, tape: Tensor) -> Tensor:
        return tape

    def backward(self, coeff: Tensor) -> Relaxed:
        if self.cuts is None or self.multipliers is None:
            price, _, at = self._pay(self.slopes, coeff)
            return Relaxed(self.slopes, price, tape=at)
        return self._back_with(self.cuts, self.multipliers, coeff)

    def _pay(self, slopes: Tensor, coeff: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Support values, `(batch, queries)`, the magnitudes of the post-activations, and where the support is attained
        in them."""
        found = self.relaxation.support(slopes, coeff)
        lower, upper = self.relaxation.interval()
        return found.value.flatten(2).sum(-1), torch.maximum(lower.abs(), upper.abs()), found.a

    def _back_with(self, cuts: Cuts, multipliers: Tensor, coeff: Tensor) -> Relaxed:
        moved_z, size_z = _scattered(multipliers, cuts.places, cuts.z, self.slopes)
        moved_a, size_a = _scattered(multipliers, cuts.places, cuts.a, coeff)
        price, largest, at = self._pay(self.slopes - moved_z, coeff + moved_a)
        z, a = self.relaxation.magnitude + FLOOR, largest + FLOOR
        price = price + multipliers @ cuts.offset
        absolute = dot(self.slopes.abs() + size_z, z.unsqueeze(1)) + dot(coeff.abs() + size_a, a.unsqueeze(1))
        absolute = absolute + multipliers @ cuts.offset.abs()
        # sums here have more terms, as many as the cuts have, than those that the backward pass allows for
        terms = cuts.places.numel()
        absolute = absolute * (1 + (terms + 2) / coeff[0, 0].numel())
        return Relaxed(self.slopes, price + underflow(terms, z) + underflow(terms, a), absolute, tape=at)


def _shared(sets: Sequence[Groups], cuts: Cuts, multipliers: Tensor) -> Iterator[Shared]:
    """What the cuts of every set of groups move through them, with multipliers `(queries, R)`."""
    first = 0
    for groups in sets:
        _, count, k = groups.members.shape
        mine = (cuts.group >= first) & (cuts.group < first + count)
        coeff, slope = (
            _by_group(multipliers[:, mine], cuts.group[mine] - first, values[mine, :k], groups)
            for values in (-cuts.a, cuts.z)
        )
        yield Shared(groups.stated, coeff, slope)
        first += count


def _by_group(multipliers: Tensor, group: Tensor, values: Tensor, groups: Groups) -> NDArray[np.float32]:
    """`sum_r multipliers[:, r] values[r]` for every group, `(queries, groups, k)`."""
    total = values.new_zeros(len(multipliers), *groups.members.shape[1:])
    total.index_add_(1, group, multipliers.unsqueeze(-1) * values)
    return total.float().cpu().numpy()


def _scattered(multipliers: Tensor, places: Tensor, values: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """`sum_r multipliers[:, r] values[r]` at the entries, `(1, queries, *shape)`, and the sum of absolute values."""
    products = (multipliers.unsqueeze(-1) * values).flatten(1)
    zeros = like.new_zeros(len(multipliers), like[0, 0].numel())
    total, size = (zeros.index_add(1, places.flatten(), t) for t in (products, products.abs()))
    return total.reshape(1, -1, *like.shape[2:]), size.reshape(1, -1, *like.shape[2:])
