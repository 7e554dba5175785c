"""The cuts of a search that splits inputs."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import torch
from torch import Tensor


class Cuts:
    """A tree of boxes: for each box by its number the input that it is cut at (-1: none), where, and the number of the
    part below; that above has the next one. Box 0 is the region. `inputs` are the inputs that vary."""

    def __init__(self, inputs: Sequence[int]) -> None:
        self.cut: list[int] = [-1]
        self.at: list[float] = [0.0]
        self.below: list[int] = [-1]
        self._inputs, self._lock = inputs, Lock()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=Lock())

    def split(self, boxes: Tensor, axis: Tensor, at: Tensor) -> Tensor:
        """Cut boxes, `(n,)`, in two across one of the inputs that vary; the numbers of the parts below."""
        with self._lock:
            first = len(self.cut)
            for box, i, x in zip(boxes.tolist(), axis.tolist(), at.tolist(), strict=True):
                self.cut[box], self.at[box], self.below[box] = self._inputs[i], x, len(self.cut)
                self.cut += [-1, -1]
                self.at += [0.0, 0.0]
                self.below += [-1, -1]
        return torch.arange(first, first + 2 * len(boxes), 2, device=boxes.device)
