"""Groups of neurons over a batch of regions: who belongs together, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from krelax.activations.joint import Joint
from krelax.proof.choices import GroupSet


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of one activation over a batch of regions, and what is known of them.

    `members`, `(batch, groups, k)`, are places in the flattened pre-activation. `lemmas`, `(batch, groups, m)`, prove
    the bounds of the rows of the groups' relaxation, 0 where these are the members' own; None where no proofs are
    recorded.
    """

    members: Tensor
    joint: Joint
    lemmas: Tensor | None = None

    def to(self, dtype: torch.dtype) -> Groups:
        """The same groups in another type."""
        return Groups(self.members, self.joint.to(dtype), self.lemmas)

    @cached_property
    def stated(self) -> GroupSet:
        """The groups of one region as proofs state them."""
        joint = self.joint
        lemmas = torch.zeros(joint.bounds.shape, dtype=torch.int64) if self.lemmas is None else self.lemmas
        return GroupSet(
            self.members[0].cpu().numpy().astype(np.int32),
            joint.rows.cpu().numpy().astype(np.int8),
            joint.bounds[0].double().cpu().numpy(),
            lemmas[0].cpu().numpy(),
            joint.negative_slopes,
        )
