"""The contract of an operator: what affine operators and activations have in common.

Every tensor has one leading batch axis of any size; the rest is the operator's own shape, which includes the
model's batch axis if it has one (so `(1, 3, 32, 32)` stays four-dimensional and no axis is special).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Op(ABC):
    """One operator of a network: immutable, stateless, batched over the leading axis."""

    @abstractmethod
    def shape(self, *inputs: Shape) -> Shape:
        """Shape of the result, without the batch axis."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """Value of the operator; inputs and result are `(batch, *shape)`."""

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Self:
        """The same operator with its floating-point constants converted."""
        changed = {
            f.name: value.to(dtype=dtype if value.is_floating_point() else value.dtype, device=device)
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return dataclasses.replace(self, **changed) if changed else self

    def parameters(self) -> list[Tensor]:
        """The tensors the operator holds."""
        values = (getattr(self, f.name) for f in dataclasses.fields(self))
        return [v for v in values if isinstance(v, Tensor)]
