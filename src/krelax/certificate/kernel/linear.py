"""The three linear maps that networks are made of: picking entries, scaling them, and products with matrices.

Of each, `forward` makes values from those of the input, and `adjoint` coefficients of the input from those of the
value. `terms` and `adjoint_terms` are the most products added up in an entry of either. `absolute` is the map with
absolute values of its coefficients, and `over` the same map with numbers of an arithmetic.

A convolution has one matrix for each entry of its kernel. Values are arrays `(batch, size)`, of floats or exact ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pick:
    """Entries `index` of `size` ones; -1 stands for zero."""

    index: Index
    size: int

    terms = 1

    @property
    def absolute(self) -> Pick:
        return self

    @cached_property
    def adjoint_terms(self) -> int:
        return int(np.bincount(self.index + 1)[1:].max(initial=1))

    @cached_property
    def _order(self) -> tuple[Index, Index, Index]:
        """Places by the entry they pick, where each entry's begin, and the entries that are picked at all."""
        order = np.argsort(self.index, kind="stable")
        order = order[self.index[order] >= 0]
        picked, starts = np.unique(self.index[order], return_index=True)
        return order, starts, picked

    @cached_property
    def _zeros(self) -> Index:
        return np.flatnonzero(self.index < 0)

    @cached_property
    def _is_identity(self) -> bool:
        return np.array_equal(self.index, np.arange(self.size))

    def forward(self, ar: Arithmetic, x: Array) -> Array:
        y = ar.columns(x, self.index)
        if len(self._zeros):
            y[:, self._zeros] = 0
        return y

    def adjoint(self, ar: Arithmetic, c: Array) -> Array:
        if self._is_identity:
            return c
        order, starts, picked = self._order
        y = ar.segments(c if (np.diff(order) == 1).all() and len(order) == c.shape[1] else ar.columns(c, order), starts)
        if len(picked) == self.size:
            return y
        result = ar.number(np.zeros((len(c), self.size)))
        if len(picked):
            result[:, picked] = y
        return result

    def over(self, ar: Arithmetic) -> Pick:
        return self


@dataclass(frozen=True, eq=False)
class Scale:
    """Every entry times its own factor, `(size,)`, or one for all."""

    factor: Array

    terms = adjoint_terms = 1

    @cached_property
    def absolute(self) -> Scale:
        return Scale(abs(self.factor))

    def forward(self, ar: Arithmetic, x: Array) -> Array:
        return x * self.factor

    def adjoint(self, ar: Arithmetic, c: Array) -> Array:
        return c * self.factor

    def over(self, ar: Arithmetic) -> Scale:
        return Scale(ar.number(self.factor))


@dataclass(frozen=True, eq=False)
class Dense:
    """Products with matrices, from `(images, groups, inputs, *before)` to `(images, groups, outputs, *after)`.

    `weight`, `(taps, groups, outputs, inputs)`, has a matrix for each entry of a convolution's kernel; what tap t makes
    of the places `source[t]` is added up at the places `target[t]`. Without places there is one tap: a matrix. Slices
    have no place twice, so an entry adds up no more products than the taps have inputs, in whatever order, and an entry
    of the adjoint no more than they have outputs.
    """

    weight: Array
    images: int = 1
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    source: Sequence[tuple[slice, ...]] = ((),)
    target: Sequence[tuple[slice, ...]] = ((),)

    @property
    def terms(self) -> int:
        return int(self.weight.shape[0] * self.weight.shape[3])

    @property
    def adjoint_terms(self) -> int:
        return int(self.weight.shape[0] * self.weight.shape[2])

    @cached_property
    def absolute(self) -> Dense:
        return replace(self, weight=abs(self.weight))

    @cached_property
    def _adjoint(self) -> Dense:
        turned = self.weight.swapaxes(2, 3)
        return Dense(turned, self.images, self.after, self.before, self.target, self.source)

    def forward(self, ar: Arithmetic, x: Array) -> Array:
        return ar.product(self._multiply, self.weight, x, self.terms)

    def adjoint(self, ar: Arithmetic, c: Array) -> Array:
        return self._adjoint.forward(ar, c)

    def _multiply(self, weight: Floats, x: Floats) -> Floats:
        """Rows come last here, images before them, and lie so in memory: what a tap takes is one matrix. Where there is
        only one matrix, rows and images come first as they are."""
        (_, groups, outputs, inputs), rows = weight.shape, len(x)
        if groups == 1 and not self.before and not self.after:
            return (x.reshape(rows * self.images, inputs) @ weight[0, 0].T).reshape(rows, self.images * outputs)
        x = x.T.reshape(self.images, groups * inputs * prod(self.before), rows).swapaxes(0, 1)
        x = x.reshape(groups, inputs, *self.before, self.images * rows)
        y = np.zeros((groups, outputs, *self.after, self.images * rows))
        for matrix, source, target in zip(weight, self.source, self.target, strict=True):
            taken = x[:, :, *source]
            made = matrix @ taken.reshape(groups, inputs, prod(taken.shape[2:]))
            y[:, :, *target] += made.reshape(groups, outputs, *taken.shape[2:])
        y = y.reshape(groups * outputs * prod(self.after), self.images, rows).swapaxes(0, 1)
        return y.reshape(self.images * groups * outputs * prod(self.after), rows).T

    def over(self, ar: Arithmetic) -> Dense:
        return replace(self, weight=ar.number(self.weight))


Map = Pick | Scale | Dense
