"""Products over octagons of their operands, in the backward pass.

Nothing is shared out: an octagon is all that a product is in, so its lines are lines of the hull over it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from krelax.activations import Relaxation
from krelax.activations.operands import within
from krelax.bounds.groups import Groups
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import written
from krelax.bounds.steps import Single
from krelax.proof.choices import Choices, Whole


class Joined(Single):
    """Every product on two lines with the given slopes, each `(batch, queries, *shape)`, over an octagon if it has one.
    One region."""

    def __init__(self, relaxation: Relaxation, groups: Groups, lower: Tensor, upper: Tensor) -> None:
        super().__init__(within(relaxation, groups.members[0], groups.joint), lower, upper)
        self._groups = groups

    def over(self, bounds: LayerBounds, node: int) -> Joined:
        (groups,), relaxation = bounds.groups[node], bounds.relaxations[node]
        lower, upper = (written(t.to(relaxation.lower)) for t in self.slopes)
        return Joined(relaxation, groups, lower, upper)

    def choices(self, region: int, tape: Any) -> Choices:
        return replace(super().choices(region, tape), groups=(Whole(self._groups.stated),))

    def shared(self) -> None:
        return None
