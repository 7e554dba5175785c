"""Groups of neurons over a batch of regions: who belongs together, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from krelax.activations.joint import Together
from krelax.proof.choices import GroupSet


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of one activation over a batch of regions, and what is known of them.

    `members`, `(batch, groups, k)`, are places in the flattened pre-activation. `lemmas`, `(batch, groups, m)`, prove
    the bounds of the rows of the groups' relaxation, 0 where these are the members' own; None where no proofs are
    recorded.
    """

    members: Tensor
    joint: Together
    lemmas: Tensor | None = None
    among: tuple[GroupSet, Tensor] | None = None

    def to(self, dtype: torch.dtype) -> Groups:
        """The same groups in another type."""
        return replace(self, joint=self.joint.to(dtype))

    def some(self, which: Tensor, members: Tensor) -> Groups:
        """Some of the groups of one region, `(groups,)`, whose members, `(1, groups, k)`, have these numbers now."""
        lemmas = None if self.lemmas is None else self.lemmas[:, which]
        origin, before = self.origin
        return Groups(members, self.joint.select(which), lemmas, (origin, before[which.cpu()]))

    @property
    def origin(self) -> tuple[GroupSet, Tensor]:
        """The set that the groups are some of, as proofs state it, and which of its groups they are."""
        if self.among is not None:
            return self.among
        return self.stated, torch.arange(self.members.shape[1])

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
            None if joint.scales is None else joint.scales.cpu().numpy().astype(np.int8),
        )
