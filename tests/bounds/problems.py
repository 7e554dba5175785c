"""Small networks with boxes and margins for the tests of bounds, with their exact answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.exact import Layer, Range, as_network, minimum, ranges
from torch import Tensor

from krelax.bounds import methods
from krelax.bounds.bounded import Bounded
from krelax.bounds.branching import Effort
from krelax.bounds.instance import Instance
from krelax.bounds.methods import Method, bound
from krelax.bounds.optimise import Ascent
from krelax.network.graph import Network
from krelax.network.linear import Dense
from krelax.problem.queries import Queries
from krelax.problem.region import Box, Region


def short(method: Method) -> Method:
    """A method with the same parts and as little effort as shows that they work."""
    ascent, effort = Ascent(4, 0.5, 0.9), Effort(leaves=16, rounds=2, root=Ascent(3), leaf=Ascent(1))
    passes = (
        replace(j, inner=ascent, combinations=ascent, outer=ascent, splitting=j.splitting and effort)
        for j in method.multi_neuron[:2]
    )
    return replace(method, multi_neuron=tuple(passes))


METHODS = {name: short(method) for name, method in methods.METHODS.items()}
# Methods that optimise, or solve linear programs, and those that take no time.
DEAR = tuple(name for name, method in METHODS.items() if method.inner is not None or method.separate)
CHEAP = tuple(name for name in METHODS if name not in DEAR)
Matrix = NDArray[np.float64]


def margins(rows: Tensor, offsets: Tensor) -> Queries:
    """One clause for every margin; rows `(batch, queries, outputs)`."""
    clause = torch.arange(offsets.shape[1]).expand(offsets.shape)
    return Queries(rows, offsets, clause, offsets.shape[1])


def bounded(network: Network, region: Region, rows: Tensor, offsets: Tensor, method: str) -> Bounded:
    """What a method finds for the margins `rows @ y + offsets`, optimised for as long as the method likes."""
    return bound(Instance.of(network, region), margins(rows, offsets), METHODS[method])


@dataclass(frozen=True)
class Problem:
    """Layers with two inputs, boxes `(batch, 2)` and margins `(queries, outputs)`, `(queries,)`."""

    layers: list[Layer]
    lower: Matrix
    upper: Matrix
    rows: Matrix
    offsets: Matrix

    def bounded(self, method: str) -> Bounded:
        batch = len(self.lower)
        region = Box(torch.from_numpy(self.lower), torch.from_numpy(self.upper))
        rows, offsets = (torch.from_numpy(t).expand(batch, *t.shape) for t in (self.rows, self.offsets))
        return bounded(as_network(self.layers), region, rows, offsets, method)

    def minima(self) -> list[list[Fraction]]:
        """Exact minimum of every margin over every box."""
        return [
            [minimum(self.layers, r, d, l, u) for r, d in zip(self.rows.tolist(), self.offsets.tolist(), strict=True)]
            for l, u in zip(self.lower.tolist(), self.upper.tolist(), strict=True)
        ]

    def pre_activations(self) -> list[list[list[Range]]]:
        """Exact ranges, by box, layer and neuron."""
        return [ranges(self.layers, l, u) for l, u in zip(self.lower.tolist(), self.upper.tolist(), strict=True)]

    def places(self) -> list[int]:
        """Node of every layer's pre-activation."""
        return [i for i, node in enumerate(as_network(self.layers).nodes) if isinstance(node.op, Dense)]


def _integers(rng: np.random.Generator, shape: Sequence[int]) -> Matrix:
    """Ties, zero lines through corners and parallel neurons are common."""
    return rng.integers(-2, 3, size=shape).astype(float)


def _normal(rng: np.random.Generator, shape: Sequence[int]) -> Matrix:
    return rng.normal(size=shape)


def _mixed(rng: np.random.Generator, shape: Sequence[int]) -> Matrix:
    """Sizes from 1e-3 to 1e3 in one matrix, a fifth of the entries zero."""
    size = 10.0 ** rng.uniform(-3, 3, size=shape)
    return size * rng.choice([-1.0, 1.0, 0.0], p=[0.4, 0.4, 0.2], size=shape)


def _nearly_equal(rng: np.random.Generator, shape: Sequence[int]) -> Matrix:
    """Rows that differ in their last bits: what one adds the other takes away."""
    base = rng.normal(size=(1, *shape[1:])) if len(shape) > 1 else rng.normal()
    return (
        base
        * (1 + 1e-15 * rng.integers(-4, 5, size=shape))
        * rng.choice([-1.0, 1.0], size=(shape[0], *[1] * (len(shape) - 1)))
    )


WEIGHTS = {"integers": _integers, "normal": _normal, "mixed": _mixed, "nearly equal": _nearly_equal}


def _layer(rng: np.random.Generator, kind: str, n: int, m: int, slope: float, skip: bool, odd: bool) -> Layer:
    weight, bias = WEIGHTS[kind](rng, (m, n)), WEIGHTS[kind](rng, (m,))
    if odd:
        weight[m - 1], bias[m - 1] = weight[0], bias[0]  # a neuron twice
        bias[m // 2] -= 1e4  # a neuron that is (probably) always off
    return Layer(weight.tolist(), bias.tolist(), slope, skip and n == m)


@st.composite
def problems(draw: st.DrawFn, depth: int = 4, width: int = 8, batch: int = 2) -> Problem:
    """Networks of one to `depth` hidden layers of two to `width` neurons; boxes of width 0 to 10, near and far."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    widths = [2, *draw(st.lists(st.integers(2, width), min_size=1, max_size=depth), label="widths")]
    kind = draw(st.sampled_from(sorted(WEIGHTS)), label="weights")
    slope = draw(st.sampled_from([0.0, 0.0, 0.01, 0.5, 1.0]), label="slope")
    skip, odd = draw(st.booleans(), label="skip"), draw(st.booleans(), label="odd")
    if skip:
        widths = [2, *[widths[1]] * (len(widths) - 1)]
    layers = [_layer(rng, kind, n, m, slope, skip, odd) for n, m in pairwise(widths)]
    sizes = st.sampled_from([0.0, 1e-9, 1e-3, 0.5, 2.0, 10.0])
    extent = np.array([[draw(sizes), draw(sizes)] for _ in range(batch)])
    middle = draw(st.sampled_from([0.0, 1.0, 1e3, -1e6]), label="distance") * rng.normal(size=(batch, 2))
    lower = middle - extent / 2
    return Problem(
        layers, lower, np.maximum(lower, middle + extent / 2), _normal(rng, (2, widths[-1])), _normal(rng, (2,))
    )
