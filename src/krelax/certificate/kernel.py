"""Bounds of a network over a region: intervals forward, and the backward pass that every other bound comes from.

Both arithmetics, both semantics. A *magnitude* bounds the sum of the absolute values of the terms that make up an entry
of a node; wherever numbers round, `gamma * <|coefficients|, magnitude>` is subtracted from the bound (Higham 2002,
section 3.1, for any order of summation). In `float32` semantics every affine node of the network rounds, too.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from krelax.certificate.activations import KINDS
from krelax.certificate.arithmetic import Arithmetic, Array, Floats, Rows, gamma
from krelax.certificate.network import Activation, Affine, Network
from krelax.certificate.region import Region
from krelax.errors import KrelaxError

_FLOAT32, _LARGEST_FLOAT32, _LARGEST_COEFFICIENT = 2.0**-24, 2.0**127, 2.0**126
# The largest product of factors of affine nodes, one after the other, that float32 executions may compute in any order
# and combination: far from overflow, and far from where factors that are subnormal, 2**-126, count.
_LARGEST_REACH = 2.0**60
# Terms charged beyond those of the long sums: short operations around them, and in float32 those of a normalisation
# that is folded into the node before it.
_OVERHEAD, _OVERHEAD_FLOAT32 = 64, 16
# Added to magnitudes, so that a relative error covers products that underflow; and in float32 to every factor, so that
# it covers those that are subnormal and taken for zero; and so many times the reach, for subnormal products of factors.
_FLOOR, _FLOOR_FLOAT32, _FLOOR_OF_REACH = 2.0**-900, 2.0**-80, 2.0**-90


class Rejected(KrelaxError):
    """A step of the proof does not hold, or the last bound is not positive."""


class TooClose(Rejected):
    """The last bound is positive but for what rounding may have taken."""


class Contradiction(Rejected):
    """Bounds that contradict each other."""


def check_executable(network: Network, ar: Arithmetic) -> None:
    """Raises Rejected for a network of which nothing is known when float32 executes it."""
    if not network.single:
        raise Rejected("float32 semantics of a network with tensors of type float64")
    for node in network.nodes:
        if isinstance(node, Activation) and not KINDS[node.kind].float32:
            raise Rejected(f"float32 semantics of a {node.kind}, whose executions are not known")
        if isinstance(node, Affine):
            ones = [ar.number(np.ones((1, network.size(j)))) for j in node.inputs]
            if not (ar.floats(node.spread(ar, ones)) < _LARGEST_COEFFICIENT).all():
                raise Rejected("coefficients that float32 cannot hold, or quotients by what may be taken for zero")


@dataclass
class Crossed:
    """An activation crossed: coefficients before it, the price `(rows,)`, and for the rounding error a bound of the
    sums of the absolute values of the terms that they are made of, and how many terms there are."""

    slopes: Array
    price: Array
    terms: Array
    count: int


Step = Callable[[int, Array | None], Crossed | None]


class Bounds:
    """What is known of a network's nodes over a region, or over boxes, in evaluation order:
    `lower[i] <= node i <= upper[i]`, and `magnitude[i]`; each `(regions, size)`. For float32 also `reach[i]`,
    `(regions, 1)`: nothing is larger that an execution computes on the way from the activations before to node i, even
    where it multiplies factors of several affine nodes first, or leaves some for later (Gemm's alpha)."""

    def __init__(self, network: Network, region: Region, ar: Arithmetic, float32: bool) -> None:
        region = region.flushed() if float32 else region
        self.network, self.region, self.ar, self.float32 = network, region, ar, float32
        self.lower, self.upper, self.magnitude = [region.lower], [region.upper], [region.largest()]
        self.reach = [self._beginning(0)]

    def of(self, network: Network) -> Bounds:
        """The same of a network that continues this one, or that this one continues."""
        other = copy(self)
        other.network, count = network, len(network.nodes)
        other.lower, other.upper, other.magnitude = self.lower[:count], self.upper[:count], self.magnitude[:count]
        other.reach = self.reach[:count]
        while len(other.lower) < count:
            other.advance()
        return other

    def largest(self, node: int) -> Floats:
        """Largest absolute values of a node."""
        return np.maximum(abs(self.lower[node]), abs(self.upper[node]))

    def advance(self) -> None:
        """Append the interval of the next node."""
        i = len(self.lower)
        node = self.network.nodes[i]
        if isinstance(node, Affine):
            self.reach.append(self._reach(node))
        lower, upper, magnitude = self._interval(i)
        self.lower.append(lower)
        self.upper.append(upper)
        self.magnitude.append(magnitude)
        if not isinstance(node, Affine):
            self.reach.append(self._beginning(i))

    def _beginning(self, i: int) -> Floats:
        """The reach of the input, or of an activation."""
        return np.maximum(self.largest(i).max(1, keepdims=True, initial=0.0), 1.0)

    def _reach(self, node: Affine) -> Floats:
        """The reach of an affine node: every factor counts as one at least."""
        if not self.float32:
            return np.ones((1, 1))
        total = np.zeros((1, 1))
        for j, m in zip(node.inputs, node.maps, strict=True):
            ones = self.ar.number(np.ones((1, self.network.size(j))))
            gain = np.max(self.ar.floats(m.absolute.forward(self.ar, ones)), initial=1.0)
            total = total + 1.01 * max(gain, 1.0) * max(node.made_of, 1.0) * self.reach[j]
        if node.bias_size is not None:
            total = total + 1.01 * max(np.max(np.abs(node.bias_size), initial=0.0), node.made_of)
        if not (total < _LARGEST_REACH).all():
            raise Rejected("float32 executions may overflow, or lose what is too small beside other numbers")
        return total

    def renew(self, node: int) -> None:
        """Intersect the interval of a node with what those of its inputs are now."""
        self.tighten(node, *self._interval(node)[:2])

    def _interval(self, i: int) -> tuple[Floats, Floats, Floats]:
        node = self.network.nodes[i]
        return self._affine(node, i) if isinstance(node, Affine) else self._activation(node)

    def _affine(self, node: Affine, i: int) -> tuple[Floats, Floats, Floats]:
        ar = self.ar
        if node.moves_only:
            sides = [[side[j] for j in node.inputs] for side in (self.lower, self.upper)]
            lower, upper = (node.forward(ar, side) for side in sides)
            return lower, upper, np.maximum(abs(lower), abs(upper))
        centre = [(self.lower[j] + self.upper[j]) / 2 for j in node.inputs]
        ends = zip(centre, node.inputs, strict=True)
        radius = [
            ar.maximum(ar.number(self.upper[j]) - ar.number(c), ar.number(c) - ar.number(self.lower[j]))
            for c, j in ends
        ]
        middle = node.forward(ar, [ar.number(c) for c in centre])
        magnitude = self._magnitude(node, i)
        spread = node.spread(ar, radius) + self._slack(node, node.terms) * ar.number(magnitude)
        return ar.down(middle - spread), -ar.down(-(middle + spread)), magnitude

    def _magnitude(self, node: Affine, i: int) -> Floats:
        """Bounds of the sums of an affine node's absolute terms."""
        floor = _FLOOR_FLOAT32 if self.float32 else 0.0
        largest = [self.largest(j) + floor for j in node.inputs]
        magnitude = -self.ar.down(-node.magnitude(self.ar, [self.ar.number(v) for v in largest])) + _FLOOR
        if self.float32:
            magnitude = magnitude + floor * (1 + sum(v.sum(1, keepdims=True) for v in largest))
            magnitude = magnitude + _FLOOR_OF_REACH * self.reach[i]
            if not (magnitude < _LARGEST_FLOAT32).all():
                raise Rejected("float32 executions may overflow")
        return magnitude

    def _activation(self, node: Any) -> tuple[Floats, Floats, Floats]:
        z = node.inputs[0]
        lower, upper = KINDS[node.kind].interval(node, (self.lower[z], self.upper[z]), self.float32)
        return lower, upper, np.maximum(abs(lower), abs(upper))

    def _slack(self, node: Affine, terms: int) -> float:
        """Relative error of an affine node's terms: by this arithmetic, by its coefficients, by float32 execution."""
        slack = gamma(terms + _OVERHEAD, self.ar.unit) + 1.01 * node.fuzz
        if self.float32 and not node.moves_only:
            slack += gamma(node.terms + _OVERHEAD_FLOAT32, _FLOAT32)
        return slack

    def tighten(self, node: int, lower: Floats, upper: Floats) -> None:
        """Intersect a node's bounds with others that hold, too."""
        self.replace(node, np.maximum(self.lower[node], lower), np.minimum(self.upper[node], upper))

    def replace(self, node: int, lower: Floats, upper: Floats) -> None:
        """Put other bounds that hold in the place of a node's. Raises Contradiction."""
        self.lower[node], self.upper[node] = lower, upper
        if (self.lower[node] > self.upper[node]).any():
            raise Contradiction("bounds that contradict each other")

    def minimise(self, coeff: dict[int, Array], constant: Array, step: Step, which: Rows = slice(None)) -> Floats:
        """Lower bounds `(rows,)` of forms `sum <coeff[i], node i> + constant`, each over the region, or over the one
        that `which` names. `coeff` is used up."""
        return self.least(*self.over_inputs(coeff, constant, step, which), which)

    def least(self, coeff: Array | None, constant: Array, which: Rows = slice(None)) -> Floats:
        """Lower bounds `(rows,)` of linear forms of the inputs, None for constants."""
        if coeff is None:
            return self.ar.down(constant)
        return self.ar.down(constant + self.region.minimise(self.ar, coeff, which))

    def over_inputs(
        self, coeff: dict[int, Array], constant: Array, step: Step, which: Rows = slice(None)
    ) -> tuple[Array | None, Array]:
        """Forms of nodes bounded from below, all over the region, by linear forms of the inputs: coefficients `(rows,
        inputs)`, None if there are none, and constants `(rows,)`. `coeff` is used up."""
        ar, network = self.ar, self.network
        count = len(network.nodes) + _OVERHEAD
        number_of = {i: j for j, i in enumerate(network.activations)}
        total, error = constant, gamma(count, ar.unit) * abs(constant)
        for i in range(len(network.nodes) - 1, 0, -1):
            node, c = network.nodes[i], coeff.pop(i, None)
            if isinstance(node, Activation):
                crossed = step(number_of[i], c)
                if crossed is None:
                    continue
                self._give(coeff, node.inputs[0], crossed.slopes)
                total = total - crossed.price
                error = error + crossed.terms * gamma(count + crossed.count, ar.unit) + ar.tiny * crossed.count
            elif isinstance(node, Affine) and c is not None:
                for j, m in zip(node.inputs, node.maps, strict=True):
                    self._give(coeff, j, m.adjoint(ar, c))
                if node.bias is not None:
                    total = total + ar.dot(c, node.bias.reshape(1, node.size))
                error = error + self._charge(node, i, c, count, which)
        return coeff.get(0), total - error

    @staticmethod
    def _give(coeff: dict[int, Array], node: int, part: Array) -> None:
        coeff[node] = coeff[node] + part if node in coeff else part

    def _charge(self, node: Affine, i: int, c: Array, count: int, which: Rows) -> Array:
        """What rounding at an affine node can have changed, `(rows,)`."""
        ar = self.ar
        terms = node.terms + node.adjoint_terms + count
        slack = self._slack(node, terms)
        if not slack:
            return ar.number(np.zeros(()))
        charge = slack * ar.dot(abs(c), ar.number(self.magnitude[i][which]))
        if ar.tiny:
            reach = sum((self.largest(j).sum(1) for j in node.inputs), self.magnitude[i].sum(1))
            charge = charge + terms * ar.tiny * (1 + reach[which])
        return charge
