"""The cuts of a search that splits inputs."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Cuts:
    """Trees of boxes: for each box by its number the input that it is cut at (-1: none), where, and the number of the
    part below; that above has the next one. The first boxes are the `regions`. `inputs` are the inputs that vary.
    `weights` are those of margins in boxes that are closed, in clauses of several. With a `width`, what is cut are not
    the inputs, but the entries of the bottleneck that has so many."""

    def __init__(self, inputs: Sequence[int], regions: int = 1) -> None:
        self.cut: list[int] = [-1] * regions
        self.at: list[float] = [0.0] * regions
        self.below: list[int] = [-1] * regions
        self.weights: dict[int, NDArray[np.int16]] = {}
        self.width: int | None = None
        self._inputs, self._lock = inputs, Lock()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=Lock())

    def tree(self, region: int, inputs: Sequence[int] | None = None) -> Cuts:
        """The tree of one of several regions, without weights; of other inputs, if they are given."""
        names = {i: i for i in self._inputs} if inputs is None else dict(zip(self._inputs, inputs, strict=True))
        result, waiting = Cuts(self._inputs if inputs is None else inputs), [(region, 0)]
        while waiting:
            mine, its = waiting.pop()
            if self.cut[mine] >= 0:
                below, first = self.below[mine], len(result.cut)
                result.cut[its], result.at[its], result.below[its] = names[self.cut[mine]], self.at[mine], first
                result.cut += [-1, -1]
                result.at += [0.0, 0.0]
                result.below += [-1, -1]
                waiting += [(below, first), (below + 1, first + 1)]
        return result

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

    def graft(self, boxes: Tensor, others: Cuts) -> Tensor:
        """Put in the place of boxes, `(n,)`, that are not cut the trees of as many regions, of the same inputs, that
        were cut elsewhere. The numbers here of all boxes there, `(m,)`."""
        with self._lock:
            count, first = len(others.cut), len(self.cut)
            numbers = [*boxes.tolist(), *range(first, first + count - len(boxes))]
            self.cut += [-1] * (count - len(boxes))
            self.at += [0.0] * (count - len(boxes))
            self.below += [-1] * (count - len(boxes))
            for its, mine in enumerate(numbers):
                if others.cut[its] >= 0:
                    self.cut[mine], self.at[mine] = others.cut[its], others.at[its]
                    self.below[mine] = numbers[others.below[its]]
        self.weights.update((numbers[its], weights) for its, weights in others.weights.items())
        return torch.tensor(numbers, device=boxes.device)

    def close(self, boxes: Tensor, weights: Tensor) -> None:
        """Note the weights, `(n, margins)`, that close boxes, `(n,)`."""
        self.weights.update(zip(boxes.tolist(), weights.cpu().numpy().astype(np.int16), strict=True))
