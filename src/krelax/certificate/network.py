"""The network as the checker sees it: affine nodes, each a sum of simple linear maps, and activations.

Values of a node are flattened: arrays `(batch, size)`, of floats or exact numbers. Only three linear maps are needed:
picking entries, scaling them, and products with matrices, of which a convolution has one for each entry of its kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.arithmetic import Arithmetic, Array, Floats
from krelax.errors import UnsupportedError

Index = NDArray[np.int64]
# Of all nodes together.
_MOST_NUMBERS = 10**8


class Map(Protocol):
    """A linear map. `terms` and `adjoint_terms` are the most products added up in an entry of its value and of its
    adjoint's; `absolute` is the map with absolute values of its coefficients."""

    @property
    def terms(self) -> int: ...
    @property
    def adjoint_terms(self) -> int: ...
    def forward(self, ar: Arithmetic, x: Array) -> Array: ...
    def adjoint(self, ar: Arithmetic, c: Array) -> Array: ...
    @property
    def absolute(self) -> Map: ...
    def over(self, ar: Arithmetic) -> Map:
        """The same map with its coefficients as numbers of an arithmetic."""


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

    def forward(self, ar: Arithmetic, x: Array) -> Array:
        y = x[:, self.index]
        y[:, self.index < 0] = 0
        return y

    def adjoint(self, ar: Arithmetic, c: Array) -> Array:
        order, starts, picked = self._order
        y = ar.number(np.zeros((self.size, len(c))).T)
        if len(picked):
            y[:, picked] = ar.segments(c[:, order], starts)
        return y

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
        """Rows come last here, images before them, and lie so in memory: what a tap takes is one matrix."""
        (_, groups, outputs, inputs), rows = weight.shape, len(x)
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


@dataclass(frozen=True, eq=False)
class Affine:
    """The sum of `maps`, each of one input, and `bias`, `(size,)`.

    `fuzz` bounds the relative error of the coefficients (as of a quotient that is no float64 number), and `bias_size`
    the sum of the absolute values of the terms that the bias is made of. `made_of` is the largest number that
    coefficients and bias are computed from.
    """

    inputs: tuple[int, ...]
    maps: tuple[Map, ...]
    size: int
    bias: Array | None = None
    bias_size: Floats | None = None
    fuzz: float = 0.0
    made_of: float = 0.0

    @property
    def terms(self) -> int:
        """Most products that are added up in one entry."""
        return sum(m.terms for m in self.maps) + (self.bias is not None)

    @property
    def adjoint_terms(self) -> int:
        return max(m.adjoint_terms for m in self.maps) + self.size

    @property
    def moves_only(self) -> bool:
        """Whether entries are copied, and nothing is computed."""
        return len(self.maps) == 1 and isinstance(self.maps[0], Pick) and self.bias is None

    def forward(self, ar: Arithmetic, x: Sequence[Array]) -> Array:
        """Values from values of the inputs."""
        result = self._sum([m.forward(ar, v) for m, v in zip(self.maps, x, strict=True)])
        return result if self.bias is None else result + self.bias

    def spread(self, ar: Arithmetic, radius: Sequence[Array]) -> Array:
        """How far values can be away if the inputs are away by their radius."""
        return self._sum([m.absolute.forward(ar, r) for m, r in zip(self.maps, radius, strict=True)])

    def magnitude(self, ar: Arithmetic, largest: Sequence[Array]) -> Array:
        """Sums of the absolute terms of every entry, for inputs up to the largest ones."""
        result = self.spread(ar, largest)
        return result if self.bias_size is None else result + ar.number(self.bias_size)

    @staticmethod
    def _sum(parts: Sequence[Array]) -> Array:
        result = parts[0]
        for part in parts[1:]:
            result = result + part
        return result

    def over(self, ar: Arithmetic) -> Affine:
        bias = None if self.bias is None else ar.number(self.bias)
        return replace(self, maps=tuple(m.over(ar) for m in self.maps), bias=bias)


@dataclass(frozen=True, eq=False)
class Activation:
    """`kind` is "relu" (leaky with a `negative_slope`), "sigmoid", "tanh" or "max": of windows of `window` entries, one
    after the other."""

    inputs: tuple[int, ...]
    kind: str
    size: int
    negative_slope: float = 0.0
    window: int = 1


@dataclass(frozen=True)
class Interface:
    """What a file calls its input and its output, their shapes, and the type of the input's numbers."""

    names: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    element: str


@dataclass(frozen=True, eq=False)
class Network:
    """Nodes in the order of the file. Node 0, the input, is None; the last one is the output. `single` says whether all
    tensors of the file are of type float32."""

    nodes: tuple[Affine | Activation | None, ...]
    input_size: int
    single: bool = True
    interface: Interface | None = None

    def size(self, node: int) -> int:
        """Number of entries of a node."""
        there = self.nodes[node]
        return self.input_size if there is None else there.size

    @cached_property
    def activations(self) -> list[int]:
        """Nodes that are activations, in their order."""
        return [i for i, node in enumerate(self.nodes) if isinstance(node, Activation)]

    def activation(self, number: int) -> Activation:
        node = self.nodes[self.activations[number]]
        assert isinstance(node, Activation)
        return node

    def before(self, number: int) -> int:
        """The pre-activation of an activation."""
        return self.activation(number).inputs[0]

    @cached_property
    def offsets(self) -> Index:
        """Number of the first neuron of every activation, and the number of all."""
        return np.cumsum([0, *(self.size(self.before(j)) for j in range(len(self.activations)))])

    def over(self, ar: Arithmetic) -> Network:
        """The same network with its constants as numbers of an arithmetic."""
        return replace(self, nodes=tuple(n.over(ar) if isinstance(n, Affine) else n for n in self.nodes))


class Builder:
    """Collects nodes in order."""

    def __init__(self, input_size: int) -> None:
        self._nodes: list[Affine | Activation | None] = [None]
        self._input_size, self._room = input_size, _MOST_NUMBERS

    def add(self, node: Affine | Activation) -> int:
        """The number of a node. Raises UnsupportedError for a network of too many numbers."""
        self._room -= node.size
        if self._room < 0:
            raise UnsupportedError(f"more than {_MOST_NUMBERS} numbers in one evaluation")
        self._nodes.append(node)
        return len(self._nodes) - 1

    def size(self, node: int) -> int:
        there = self._nodes[node]
        return self._input_size if there is None else there.size

    def pick(self, x: int, index: Index) -> int:
        """Entries of a node; picks of picks are one."""
        flat, before = index.reshape(-1), self._nodes[x]
        if np.array_equal(flat, np.arange(self.size(x))):
            return x
        if isinstance(before, Affine) and before.moves_only and isinstance(inner := before.maps[0], Pick):
            return self.pick(before.inputs[0], np.where(flat < 0, -1, inner.index[flat]))
        return self.add(Affine((x,), (Pick(flat, self.size(x)),), flat.size))

    def build(self, output: int, single: bool) -> Network:
        """The network up to a node, without what it does not need."""
        needed = {0, output}
        for i in range(output, 0, -1):
            node = self._nodes[i]
            if i in needed and node is not None:
                needed.update(node.inputs)
        place = {old: new for new, old in enumerate(sorted(needed))}
        nodes = (self._nodes[i] for i in sorted(needed))
        moved = (n and replace(n, inputs=tuple(place[j] for j in n.inputs)) for n in nodes)
        return Network(tuple(moved), self._input_size, single)


def full(constant: Floats, shape: tuple[int, ...]) -> Floats:
    """A constant broadcast to a shape, flattened."""
    return np.ascontiguousarray(np.broadcast_to(constant, shape)).reshape(prod(shape))
