"""The network as the checker sees it: affine nodes, each a sum of simple linear maps, and activations.

Values of a node are flattened: arrays `(batch, size)`, of floats or exact numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from math import inf
from operator import add

import numpy as np

from krelax.certificate.kernel.activations import Rule
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats
from krelax.certificate.kernel.linear import Index, Map, Pick


@dataclass(frozen=True, eq=False)
class Affine:
    """The sum of `maps`, each of one input, and `bias`, `(size,)`.

    `fuzz` bounds the relative error of the coefficients (as of a quotient that is no float64 number), and `bias_size`
    the sum of the absolute values of the terms that the bias is made of. `made_of` is the largest number that
    coefficients and bias are computed from. The file says the same only as long as no value is larger than `within`.
    """

    inputs: tuple[int, ...]
    maps: tuple[Map, ...]
    size: int
    bias: Array | None = None
    bias_size: Floats | None = None
    fuzz: float = 0.0
    made_of: float = 0.0
    within: float = inf

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
        result = reduce(add, (m.forward(ar, v) for m, v in zip(self.maps, x, strict=True)))
        return result if self.bias is None else result + self.bias

    def spread(self, ar: Arithmetic, radius: Sequence[Array]) -> Array:
        """How far values can be away if the inputs are away by their radius."""
        return reduce(add, (m.absolute.forward(ar, r) for m, r in zip(self.maps, radius, strict=True)))

    def magnitude(self, ar: Arithmetic, largest: Sequence[Array]) -> Array:
        """Sums of the absolute terms of every entry, for inputs up to the largest ones."""
        result = self.spread(ar, largest)
        return result if self.bias_size is None else result + ar.number(self.bias_size)

    def over(self, ar: Arithmetic) -> Affine:
        bias = None if self.bias is None else ar.number(self.bias)
        return replace(self, maps=tuple(m.over(ar) for m in self.maps), bias=bias)


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation with `size` entries, of the kind that its rule says."""

    inputs: tuple[int, ...]
    rule: Rule
    size: int


@dataclass(frozen=True, eq=False)
class Network:
    """Nodes in the order of the file. Node 0, the input, is None; the last one is the output. `single` says whether
    executions in float32 are known: all tensors of the file are of that type, and no constant is rounded on the way."""

    nodes: tuple[Affine | Activation | None, ...]
    input_size: int
    single: bool = True

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
