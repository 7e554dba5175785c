"""Bounds of every node of a network over a region, by interval arithmetic, in both arithmetics and both semantics.

A *magnitude* bounds the sum of the absolute values of the terms that make up an entry of a node. Wherever numbers
round, `gamma * <|coefficients|, magnitude>` is subtracted from the bound (Higham 2002, section 3.1, for any order of
summation). In float32 semantics every affine node of the network rounds, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from krelax.certificate.errors import Contradiction, Rejected
from krelax.certificate.kernel.activations.rule import LARGEST_FLOAT32
from krelax.certificate.kernel.arithmetic import Arithmetic, Floats, gamma
from krelax.certificate.kernel.network import Activation, Affine, Network
from krelax.certificate.kernel.region import Region

_FLOAT32, _LARGEST_COEFFICIENT = 2.0**-24, 2.0**126
# The largest product of factors of affine nodes, one after the other, that float32 executions may compute in any order
# and combination: far from overflow, and far from where factors that are subnormal, 2**-126, count.
_LARGEST_REACH = 2.0**60
# Terms charged beyond those of the long sums: short operations around them, and in float32 those of a normalisation
# that is folded into the node before it.
OVERHEAD, _OVERHEAD_FLOAT32 = 64, 16
# Added to magnitudes, so that a relative error covers products that underflow; and in float32 to every factor, so that
# it covers those that are subnormal and taken for zero; and so many times the reach, for subnormal products of factors.
_FLOOR, _FLOOR_FLOAT32, _FLOOR_OF_REACH = 2.0**-900, 2.0**-80, 2.0**-90


def check_executable(network: Network, ar: Arithmetic) -> None:
    """Raises Rejected for a network of which nothing is known when float32 executes it."""
    if not network.single:
        what = "float64 tensors, dequantised weights, interpolation or composed functions"
        raise Rejected(f"float32 semantics of a network with {what}")
    for node in network.nodes:
        if isinstance(node, Activation) and node.rule.obstacle is not None:
            raise Rejected(f"float32 semantics of a {node.rule.obstacle}")
        if isinstance(node, Affine):
            ones = [ar.number(np.ones((1, network.size(j)))) for j in node.inputs]
            if not (ar.floats(node.spread(ar, ones)) < _LARGEST_COEFFICIENT).all():
                raise Rejected("coefficients that float32 cannot hold, or quotients by what may be taken for zero")


@dataclass(frozen=True, eq=False)
class LayerBounds:
    """What is known of the first nodes of a network over a region, or over boxes: `lower[i] <= node i <= upper[i]`, and
    `magnitude[i]`; each `(regions, size)`. Nothing here changes: what is learnt makes new bounds.

    For float32 also `reach[i]`, `(regions, 2)`: nothing is larger that an execution computes on the way from the
    activations before to node i, even where it multiplies factors of several affine nodes first, or leaves some for
    later (Gemm's alpha). The second number is the same where factors before a product are left for behind it, too.
    """

    network: Network
    region: Region
    ar: Arithmetic
    float32: bool
    lower: tuple[Floats, ...]
    upper: tuple[Floats, ...]
    magnitude: tuple[Floats, ...]
    reach: tuple[Floats, ...]

    @classmethod
    def of(cls, network: Network, region: Region, ar: Arithmetic, float32: bool) -> LayerBounds:
        """Bounds of the input alone."""
        region = region.flushed() if float32 else region
        largest = region.largest()
        return cls(network, region, ar, float32, (region.lower,), (region.upper,), (largest,), (_beginning(largest),))

    def largest(self, node: int) -> Floats:
        """Largest absolute values of a node."""
        return np.maximum(abs(self.lower[node]), abs(self.upper[node]))

    def advanced(self) -> LayerBounds:
        """With the interval of the next node."""
        i = len(self.lower)
        node, reach = self.network.nodes[i], np.ones((1, 2))
        if self.float32 and isinstance(node, Affine):
            reach = self._reach(node)
        lower, upper, magnitude = self._interval(i, reach)
        if isinstance(node, Activation):
            reach = _beginning(np.maximum(abs(lower), abs(upper)))
            if self.float32 and node.rule.paired:
                before = self.reach[node.inputs[0]][:, :1]
                reach = np.concatenate([reach[:, :1], np.maximum(reach[:, 1:], before**2)], 1)
        sides = (*self.lower, lower), (*self.upper, upper), (*self.magnitude, magnitude), (*self.reach, reach)
        return LayerBounds(self.network, self.region, self.ar, self.float32, *sides)

    def over(self, network: Network) -> LayerBounds:
        """The same of a network that continues this one, or that this one continues."""
        count = len(network.nodes)
        known = (side[:count] for side in (self.lower, self.upper, self.magnitude, self.reach))
        other = LayerBounds(network, self.region, self.ar, self.float32, *known)
        while len(other.lower) < count:
            other = other.advanced()
        return other

    def renewed(self, node: int) -> LayerBounds:
        """With the interval of a node intersected with what those of its inputs say."""
        return self.tightened(node, *self._interval(node, self.reach[node])[:2])

    def tightened(self, node: int, lower: Floats, upper: Floats) -> LayerBounds:
        """With a node's bounds intersected with others that hold, too. Raises Contradiction."""
        return self.replaced(node, np.maximum(self.lower[node], lower), np.minimum(self.upper[node], upper))

    def replaced(self, node: int, lower: Floats, upper: Floats) -> LayerBounds:
        """With other bounds that hold in the place of a node's. Raises Contradiction."""
        if (lower > upper).any():
            raise Contradiction("bounds that contradict each other")
        lowers = (*self.lower[:node], lower, *self.lower[node + 1 :])
        uppers = (*self.upper[:node], upper, *self.upper[node + 1 :])
        return replace(self, lower=lowers, upper=uppers)

    def slack(self, node: Affine, terms: int) -> float:
        """Relative error of an affine node's terms: by this arithmetic, by its coefficients, by float32 execution."""
        slack = gamma(terms + OVERHEAD, self.ar.unit) + 1.01 * node.fuzz
        if self.float32 and not node.moves_only:
            slack += gamma(node.terms + _OVERHEAD_FLOAT32, _FLOAT32)
        return slack

    def _interval(self, i: int, reach: Floats) -> tuple[Floats, Floats, Floats]:
        """Lower and upper bounds, and magnitudes, of a node by those of its inputs."""
        node = self.network.nodes[i]
        if isinstance(node, Affine) and not node.moves_only:
            return self._affine(node, reach)
        assert node is not None
        if isinstance(node, Affine):
            lower, upper = (node.forward(self.ar, [side[j] for j in node.inputs]) for side in (self.lower, self.upper))
        else:
            ends = self.lower[node.inputs[0]], self.upper[node.inputs[0]]
            lower, upper = node.rule.interval(ends, self.float32)
            if node.rule.units is not None and (error := node.rule.executed(ends)) is not None:
                lower, upper = lower - error, upper + error
        return lower, upper, np.maximum(abs(lower), abs(upper))

    def _affine(self, node: Affine, reach: Floats) -> tuple[Floats, Floats, Floats]:
        ar = self.ar
        centre = [ar.number((self.lower[j] + self.upper[j]) / 2) for j in node.inputs]
        ends = [(ar.number(self.lower[j]), ar.number(self.upper[j])) for j in node.inputs]
        radius = [ar.maximum(high - c, c - low) for c, (low, high) in zip(centre, ends, strict=True)]
        middle, magnitude = node.forward(ar, centre), self._magnitude(node, reach)
        spread = node.spread(ar, radius)
        if slack := self.slack(node, node.terms):
            spread = spread + slack * ar.number(magnitude)
        lower, upper = ar.down(middle - spread), -ar.down(-(middle + spread))
        if not self.float32 and all((self.lower[j] >= 0).all() for j in node.inputs) and node.raises(ar):
            # of wide intervals the middle loses what is small beside it; no term is negative here
            least = node.forward(ar, [low for low, _ in ends])
            if slack := gamma(node.terms + OVERHEAD, ar.unit):
                least = least - slack * least
            lower = np.maximum(lower, np.maximum(ar.down(least) - _FLOOR, 0.0))
        if node.within < np.inf and not (np.maximum(abs(lower), abs(upper)) <= node.within).all():
            raise Rejected(f"values that may be larger than {node.within:g}, beyond which the file clips them")
        return lower, upper, magnitude

    def _magnitude(self, node: Affine, reach: Floats) -> Floats:
        """Bounds of the sums of an affine node's absolute terms."""
        floor = _FLOOR_FLOAT32 if self.float32 else 0.0
        largest = [self.largest(j) + floor for j in node.inputs]
        magnitude = -self.ar.down(-node.magnitude(self.ar, [self.ar.number(v) for v in largest])) + _FLOOR
        if self.float32:
            magnitude = magnitude + floor * (1 + sum(v.sum(1, keepdims=True) for v in largest))
            magnitude = magnitude + _FLOOR_OF_REACH * reach.max(1, keepdims=True)
            if not (magnitude < LARGEST_FLOAT32).all():
                raise Rejected("float32 executions may overflow")
        return magnitude

    def _reach(self, node: Affine) -> Floats:
        """The reach of an affine node: every factor counts as one at least."""
        total = np.zeros((1, 2))
        for j, m in zip(node.inputs, node.maps, strict=True):
            ones = self.ar.number(np.ones((1, self.network.size(j))))
            gain = np.max(self.ar.floats(m.absolute.forward(self.ar, ones)), initial=1.0)
            total = total + 1.01 * max(gain, 1.0) * max(node.made_of, 1.0) * self.reach[j]
        if node.bias_size is not None:
            total = total + 1.01 * max(np.max(np.abs(node.bias_size), initial=0.0), node.made_of)
        if not (total < _LARGEST_REACH).all():
            raise Rejected("float32 executions may overflow, or lose what is too small beside other numbers")
        return total


def _beginning(largest: Floats) -> Floats:
    """The reach of the input, or of an activation."""
    return np.repeat(np.maximum(largest.max(1, keepdims=True, initial=0.0), 1.0), 2, axis=1)
