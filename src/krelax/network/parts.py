"""Sums of parts of nodes: what is left of affine operators where a network is cut down to some of its entries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor

from krelax.network.ops import Linear
from krelax.op import Shape


@dataclass(frozen=True, eq=False)
class Parts(Linear):
    """The sum of a part of each operand, flattened, in the shape `target`.

    A part is a matrix `(entries, operand)`, a factor for each entry of an operand that has as many, or the places
    `(entries,)`, integers, of entries of the operand, where -1 stands for zero. `charged` are the parts with absolute
    values and what errors of their constants count for, where that is more.
    """

    parts: tuple[Tensor, ...]
    target: Shape
    charged: tuple[Tensor, ...] | None = None

    @cached_property
    def moves_only(self) -> bool:
        places = [part >= 0 for part in self.parts if not part.is_floating_point()]
        copies = self.charged is None and len(places) == len(self.parts)
        return copies and int(torch.stack(places).sum(0).max()) <= 1

    @cached_property
    def terms(self) -> int:
        forward = sum(part.shape[1] if part.dim() == 2 else 1 for part in self.parts)
        return max(forward, *(_columns(part) for part in self.parts))

    @property
    def is_exact(self) -> bool:
        return self.charged is None

    @cached_property
    def _gaps(self) -> list[Tensor | None]:
        """The entries of each part that are zero, where it has places: None if there are none."""
        gaps = [None if part.is_floating_point() else (part < 0).nonzero()[:, 0] for part in self.parts]
        return [g if g is not None and len(g) else None for g in gaps]

    def shape(self, *inputs: Shape) -> Shape:
        return self.target

    @cached_property
    def summands(self) -> tuple[Parts, ...]:
        """Operators of one operand each, whose results, which are always new tensors, add up to the linear part."""
        return tuple(Parts((part,), self.target) for part in self.parts)

    def linear(self, *inputs: Tensor) -> Tensor:
        each = zip(inputs, self.parts, self._gaps, strict=True)
        first, *rest = (_taken(x.flatten(1), part, gaps) for x, part, gaps in each)
        for other in rest:
            first = first + other
        return first.reshape(len(first), *self.target)

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        rows = coeff.flatten(1)
        given = (_given(rows, part, prod(shape)) for part, shape in zip(self.parts, inputs, strict=True))
        return tuple(part.reshape(len(rows), *shape) for part, shape in zip(given, inputs, strict=True))

    def absolute(self) -> Linear:
        return Parts(tuple(part.abs() if part.is_floating_point() else part for part in self.parts), self.target)

    def sizes(self) -> Linear:
        return self.absolute() if self.charged is None else Parts(self.charged, self.target)

    def parameters(self) -> list[Tensor]:
        return [*self.parts, *(self.charged or ())]


def _columns(part: Tensor) -> int:
    """Most terms in an entry of the adjoint."""
    if part.is_floating_point():
        return len(part) if part.dim() == 2 else 1
    return int((part + 1).bincount()[1:].max()) if bool((part >= 0).any()) else 1


def _taken(x: Tensor, part: Tensor, gaps: Tensor | None) -> Tensor:
    if part.is_floating_point():
        return x @ part.T if part.dim() == 2 else x * part
    if x.is_cuda:
        taken = x.index_select(1, part.clamp(min=0))
    else:  # NumPy is several times faster at this
        taken = torch.from_numpy(np.take(x.numpy(), part.numpy(), axis=1))
    return taken if gaps is None else taken.index_fill_(1, gaps, 0.0)


def _given(coeff: Tensor, part: Tensor, size: int) -> Tensor:
    if part.is_floating_point():
        return coeff @ part if part.dim() == 2 else coeff * part
    there = part >= 0
    return coeff.new_zeros(len(coeff), size).index_add_(1, part[there], coeff[:, there])
