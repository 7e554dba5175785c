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
from krelax.certificate.kernel.linear import Dense, Index, Map, Pick


@dataclass(frozen=True, eq=False)
class Affine:
    """The sum of `maps`, each of one input, and `bias`, `(size,)`.

    `fuzz` bounds the relative error of the coefficients (as of a quotient that is no float64 number), and `bias_size`
    the sum of the absolute values of the terms that the bias is made of. Where errors are not relative to coefficients,
    they are to those of the maps `sizes`, which are positive and no smaller. `made_of` is the largest number that
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
    sizes: tuple[Map, ...] = ()

    @property
    def terms(self) -> int:
        """Most products that are added up in one entry."""
        return sum(m.terms for m in self.maps) + (self.bias is not None)

    @property
    def adjoint_terms(self) -> int:
        return max(m.adjoint_terms for m in self.maps) + self.size

    @cached_property
    def moves_only(self) -> bool:
        """Whether entries are copied, and nothing is computed."""
        picks = [m for m in self.maps if isinstance(m, Pick)]
        if len(picks) < len(self.maps) or self.bias is not None:
            return False
        return len(picks) == 1 or bool((np.sum([m.index >= 0 for m in picks], 0) <= 1).all())

    def raises(self, ar: Arithmetic) -> bool:
        """Whether coefficients and bias are known exactly, and none is negative."""
        weights = [m.weight if isinstance(m, Dense) else m.factor for m in self.maps if not isinstance(m, Pick)]
        given = [*weights, *([] if self.bias is None else [self.bias])]
        return self.fuzz == 0 and not any(ar.positive(-numbers).any() for numbers in given)

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
        if self.sizes:
            result = reduce(add, (m.forward(ar, r) for m, r in zip(self.sizes, largest, strict=True)))
        return result if self.bias_size is None else result + ar.number(self.bias_size)

    def over(self, ar: Arithmetic) -> Affine:
        bias = None if self.bias is None else ar.number(self.bias)
        maps, sizes = (tuple(m.over(ar) for m in side) for side in (self.maps, self.sizes))
        return replace(self, maps=maps, sizes=sizes, bias=bias)


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

    def executing(self, units: int) -> Network:
        """The same where executions in float32 compute functions of one number to within so many units: see `Rule`."""
        nodes = (replace(n, rule=n.rule.executing(units)) if isinstance(n, Activation) else n for n in self.nodes)
        return replace(self, nodes=tuple(nodes))

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

    def copies(self, node: int) -> Index | None:
        """For every entry of a node that only picks entries of others the first entry that is the same number; None
        for another node. Zeros are one number."""
        here = self.nodes[node]
        if not isinstance(here, Affine) or not here.moves_only:
            return None
        begin = np.cumsum([0, *(self.size(j) for j in here.inputs)])
        number_of = {j: int(begin[here.inputs.index(j)]) for j in here.inputs}
        each = [
            np.where(m.index < 0, 0, m.index + 1 + number_of[j])
            for j, m in zip(here.inputs, here.maps, strict=True)
            if isinstance(m, Pick)
        ]
        _, first, inverse = np.unique(np.sum(each, 0), return_index=True, return_inverse=True)
        return np.asarray(first[inverse.reshape(-1)], np.int64)

    @cached_property
    def offsets(self) -> Index:
        """Number of the first neuron of every activation, and the number of all."""
        return np.cumsum([0, *(self.size(self.before(j)) for j in range(len(self.activations)))])

    def over(self, ar: Arithmetic) -> Network:
        """The same network with its constants as numbers of an arithmetic."""
        return replace(self, nodes=tuple(n.over(ar) if isinstance(n, Affine) else n for n in self.nodes))
