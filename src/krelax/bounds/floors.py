"""What leaves of a branch and bound prove: searches run on proposals, and a leaf is closed by a rigorous bound."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from krelax.bounds.evaluator import Evaluator
from krelax.bounds.leaves import Leaves
from krelax.bounds.recorder import Recorder
from krelax.watch import now

# A child that falls below its parent by less, relatively, is not worth a proof of the parent.
UNNOTICED = 1e-3


class Floors:
    """Raises the floors of leaves to what they prove, and has the proofs recorded.

    Floors above `worthy`, `(queries,)`, are passed on to children with their proofs. Bounds that are proposed to be
    above `ahead`, `(queries,)`, are proven. Behind a clip no bound counts for more than `level`. `seconds` is what the
    proof of one leaf takes.
    """

    def __init__(self, evaluator: Evaluator, recorder: Recorder, worthy: Tensor, ahead: Tensor) -> None:
        self._evaluator, self._recorder = evaluator, recorder
        self._worthy, self.ahead = worthy, ahead
        self.level, self.seconds = 0.0, 0.0

    def prove(self, leaves: Leaves, rows: Tensor) -> None:
        """Raise the floors of some leaves to what they prove themselves."""
        if not len(rows):
            return
        began = now()
        value = self._evaluator.prove(leaves.select(rows))
        seconds = (now() - began) / len(rows)
        self.seconds = min(seconds, self.seconds or seconds)
        self.reach(leaves, rows, value)

    def prove_done(self, leaves: Leaves) -> None:
        """Prove the bounds that are proposed to be beyond their targets; they count for no more than what is proven."""
        done = (leaves.value >= self.ahead[leaves.query]).nonzero()[:, 0]
        self.prove(leaves, done)
        leaves.value[done] = torch.minimum(leaves.value[done], leaves.floor[done].to(leaves.value))

    def reach(self, leaves: Leaves, rows: Tensor, value: Tensor) -> None:
        """Some leaves prove these values by what they choose."""
        value = self._counted(leaves, rows, value)
        better = value > leaves.floor[rows]
        leaves.floor[rows[better]], leaves.proof[rows[better]] = value[better], -1

    def reach_by(self, slopes: Mapping[int, Tensor], leaves: Leaves, rows: Tensor, value: Tensor) -> None:
        """Some leaves prove these values by slopes outright, `(rows, *shape)`, by activation."""
        value = self._counted(leaves, rows, value)
        better = (value > leaves.floor[rows]).nonzero()[:, 0]
        leaves.floor[rows[better]] = value[better]
        self._recorder.number(leaves, rows[better], {i: s[better].flatten(1) for i, s in slopes.items()})

    def inherit(self, parents: Leaves, children: Leaves) -> None:
        """No child is below its parent. Where its own choices would be, what it inherits is proven with those of the
        parent."""
        inherited = parents.value.repeat(2)
        slack = UNNOTICED * (1 + inherited.abs())
        lost = (children.value < inherited - slack).view(2, -1).any(0).nonzero()[:, 0]
        self.prove(parents, lost)
        self.keep_proofs(parents)
        children.floor, children.proof = parents.floor.repeat(2), parents.proof.repeat(2)
        torch.maximum(children.value, inherited, out=children.value)

    def keep_proofs(self, leaves: Leaves) -> None:
        """Give the proofs of floors numbers, under which leaves that inherit them find them."""
        worthy = leaves.floor > self._worthy[leaves.query]
        self._recorder.number(leaves, (worthy & (leaves.proof < 0)).nonzero()[:, 0])

    def _counted(self, leaves: Leaves, rows: Tensor, value: Tensor) -> Tensor:
        return torch.where(leaves.clip[rows] >= 0, value.clamp(max=self.level), value)
