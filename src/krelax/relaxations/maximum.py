"""The maximum of a window: one relaxation of several pre-activations at once.

For `coeff <= 0` the support function is a maximum over the members of the window, each a linear form on the box:
exact. For `coeff > 0` it is bounded through `max(z) >= z_j` with j the member of the largest lower bound.
"""

from __future__ import annotations

import torch
from torch import Tensor

from krelax.relaxations.base import Relaxation, Rule, Support


def _box_maximum(form: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum of `form * z` summed over the last axis of the box, and where it is attained."""
    z = torch.where(form >= 0, upper, lower)
    return (form * z).sum(-1), z


class Maximum(Relaxation):
    """`a = max_i z_i` over the last axis of z, with `lower <= z <= upper`."""

    reduces = True

    def interval(self) -> tuple[Tensor, Tensor]:
        return self.lower.amax(-1), self.upper.amax(-1)

    def unstable(self) -> Tensor:
        """Members that can be the maximum without having to be."""
        possible = self.upper > self.lower.amax(-1, keepdim=True)
        return possible & (possible.sum(-1, keepdim=True) > 1)

    def _leader(self) -> Tensor:
        """One-hot of the member with the largest lower bound (ties: largest upper bound, then the first)."""
        width = (self.upper - self.lower).clamp(min=0)
        score = self.lower + 1e-6 * width
        return torch.nn.functional.one_hot(score.argmax(-1), self.lower.shape[-1]).to(self.lower.dtype)

    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        lower, upper = self.lower.unsqueeze(1), self.upper.unsqueeze(1)
        coeff = coeff.unsqueeze(-1)
        leader = self._leader().unsqueeze(1)
        value, z = _box_maximum(slope - coeff.clamp(min=0) * leader, lower, upper)
        a = (z * leader).sum(-1)
        for i in range(self.lower.shape[-1]):
            member = torch.zeros_like(leader)
            member[..., i] = 1
            other, point = _box_maximum(slope - coeff.clamp(max=0) * member, lower, upper)
            better = (coeff[..., 0] <= 0) & ((other > value) | (i == 0))
            value = torch.where(better, other, value)
            z = torch.where(better.unsqueeze(-1), point, z)
            a = torch.where(better, point[..., i], a)
        return Support(value, z, a)

    def slope_range(self) -> tuple[Tensor, Tensor]:
        leader = self._leader()
        return leader, leader

    def slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        """Lower line: the leader itself. Upper line: the leader if it is always the maximum, else a constant."""
        zero = torch.zeros_like(self.lower)
        if rule is Rule.ZERO:
            return zero, zero
        leader = self._leader()
        rest = torch.where(leader > 0, torch.full_like(zero, -torch.inf), self.upper).amax(-1, keepdim=True)
        settled = (leader * self.lower).sum(-1, keepdim=True) >= rest
        return leader, torch.where(settled, leader, zero)
