"""What the leaves of a search prove, recorded about the neurons of the whole network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.bounds.evaluator import Evaluator
from krelax.bounds.leaves import Leaves
from krelax.proof import leaves as proof
from krelax.proof.choices import AffineBounds
from krelax.proof.leaves import Proven

# Leaves that are closed wait until they take so many bytes.
_TOGETHER = 8 << 20


class Recorder:
    """Records leaves of a search as an evaluator proves them; does nothing without `collected`. Of some nodes the
    evaluator's network has only the entries that were `kept`; `widths` says how many neurons activations have in the
    whole network."""

    def __init__(
        self,
        collected: proof.Leaves | None,
        evaluator: Evaluator,
        kept: Mapping[int, Tensor],
        widths: Mapping[int, int],
    ) -> None:
        self._collected, self._evaluator, self._kept, self._widths = collected, evaluator, kept, widths
        self._left: list[Proven] = []
        self._closed: list[Leaves] = []
        self._bytes = 0

    def _proven(self, leaves: Leaves, slopes: dict[int, Tensor] | None = None) -> Proven:
        noted = self._evaluator.noted(leaves, slopes).among(self._kept, self._widths)
        return Proven(noted, leaves.query.cpu().numpy(), leaves.proof.cpu().numpy())

    def alone(self, leaves: Leaves) -> Tensor | None:
        """Leaves each of which covers the whole region: the numbers of the lemmas that they prove, `(leaves,)`."""
        if self._collected is None:
            return None
        return torch.from_numpy(self._collected.alone(self._proven(leaves), leaves.floor)).to(leaves.query.device)

    def number(self, leaves: Leaves, rows: Tensor, slopes: dict[int, Tensor] | None = None) -> None:
        """Give the proofs of some floors numbers, under which leaves that inherit them find them. They are proven by
        what the leaves choose, or by slopes outright, `(rows, neurons)`."""
        if self._collected is not None and len(rows):
            leaves.proof[rows] = self._collected.number(self._proven(leaves.select(rows), slopes)).to(rows.device)

    def close(self, leaves: Leaves) -> None:
        """Leaves are closed. They are written down many at a time, which takes half as long."""
        if self._collected is not None and len(leaves):
            self._closed.append(leaves)
            self._bytes += sum(t.nbytes for t in leaves.tensors())
            if self._bytes > _TOGETHER:
                self.write_down()

    def write_down(self) -> None:
        """Write down all leaves that are closed, before what they can choose changes."""
        if self._collected is None or not self._closed:
            return
        widest = max(self._closed, key=lambda leaves: leaves.neuron.shape[1])
        every = [leaves.as_wide_as(widest).tensors() for leaves in self._closed]
        self._collected.close(self._proven(widest.of([torch.cat(t) for t in zip(*every, strict=True)])))
        self._closed, self._bytes = [], 0

    def begin_clips(self, level: float, straight: Mapping[int, AffineBounds]) -> None:
        """From now on leaves may be clips, with such lines, by the nodes of the pre-activations."""
        if self._collected is not None:
            self._collected.begin_clips(level, {i: self._whole(i, s) for i, s in straight.items()})

    def _whole(self, node: int, straight: AffineBounds) -> AffineBounds:
        kept, entries = self._kept.get(node), straight.entries
        places = entries if kept is None else kept.cpu().numpy().astype(np.int32)[entries]
        return AffineBounds(places, straight.leaves.among(self._kept, self._widths))

    def clip(self, leaves: Leaves, multipliers: Mapping[int, NDArray[np.uint8]], rows: Tensor) -> Tensor:
        """Leaves, as they were before, are clips, with the multipliers that have the numbers `rows`. Their own numbers,
        `(leaves,)`; zero where nothing is recorded."""
        if self._collected is None:
            return torch.zeros_like(leaves.clip)
        here = {i: codes[rows.cpu().numpy()] for i, codes in multipliers.items()}
        return self._collected.clip(self._proven(leaves), here).to(rows.device)

    def leave(self, leaves: Leaves, rows: Tensor) -> None:
        """Some leaves are open, and count with what they prove."""
        if self._collected is not None and len(rows):
            self._left.append(self._proven(leaves.select(rows)))

    def conclude(self, bound: Tensor) -> Tensor | None:
        """The numbers of lemmas, `(queries,)`, that queries are at least `bound`, as leaves closed and left prove;
        `UNSTATED` where it is infinite."""
        if self._collected is None:
            return None
        self.write_down()
        left, self._left = self._left, []
        return torch.from_numpy(self._collected.conclude(bound, left)).to(bound.device)
