"""Groups of neurons over a batch of regions: who belongs together, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.activations.joint import Joint


@dataclass(frozen=True, eq=False)
class Through:
    """Pass-through members of groups: places `(batch, groups, p)` in a flattened node of the given shape, which is
    evaluated before the activation."""

    node: int
    shape: tuple[int, ...]
    places: Tensor


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of one activation over a batch of regions, and what is known of them.

    `members`, `(batch, groups, k)`, are places in the flattened pre-activation. With p pass-through members, the
    groups' relaxation has k + p members, those last.
    """

    members: Tensor
    joint: Joint
    through: Through | None = None

    def to(self, dtype: torch.dtype) -> Groups:
        """The same groups in another type."""
        return Groups(self.members, self.joint.to(dtype), self.through)
