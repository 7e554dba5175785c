"""Two networks of one structure as one, in the values of the second, and what those of the first are more.

Of an affine node with the matrices W and V the difference d of its values in both is `(W - V) g + W d`, with the value
g of its operand in the second network and the difference d of that. Of a rectifier it is an activation of g and d. A
node of another kind is had in both networks, and subtracted. Where both networks have the same of the same, there is no
difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from krelax.certificate.errors import Malformed
from krelax.certificate.kernel.activations import LeakyReLU, ReLU, Rule
from krelax.certificate.kernel.activations.difference import Difference
from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.kernel.linear import Dense, Map, Pick, Scale
from krelax.certificate.kernel.network import Activation, Affine, Network
from krelax.certificate.onnx.builder import Builder

# The relative error of a difference of two float64 numbers, which is rounded once, and more.
_ROUNDED = 2.0**-52

_Node = Affine | Activation


def subtracted(builder: Builder, one: Network, other: Network) -> tuple[int, int]:
    """Append two networks over the builder's input: the nodes of the outputs of both. Raises Malformed for networks
    whose nodes do not correspond."""
    pair = _Pair(builder, _nodes(one), _nodes(other))
    if len(one.nodes) != len(other.nodes) or not all(map(_alike, pair.one, pair.other)):
        raise Malformed("networks whose nodes do not correspond are not to be subtracted")
    for i in range(1, len(one.nodes)):
        pair.follow(i)
    last = len(one.nodes) - 1
    more, second = pair.difference(last), pair.second[last]
    size = builder.size(second)
    every = Pick(np.arange(size), size)
    return builder.add(Affine((second, more), (every, every), size)), second


def _nodes(network: Network) -> list[_Node | None]:
    return list(network.nodes)


def _alike(one: _Node | None, other: _Node | None) -> bool:
    """Whether nodes are of one kind and size, and joined in the same way."""
    if one is None or other is None:
        return one is other
    return type(one) is type(other) and one.inputs == other.inputs and one.size == other.size


@dataclass
class _Pair:
    """Corresponding nodes: those of the `first` network, as far as anybody asked for them, of the `second`, and how far
    the first is `apart` from that, of those that are not the same."""

    builder: Builder
    one: list[_Node | None]
    other: list[_Node | None]
    first: dict[int, int] = field(default_factory=lambda: {0: 0})
    second: dict[int, int] = field(default_factory=lambda: {0: 0})
    apart: dict[int, int] = field(default_factory=dict)

    def follow(self, i: int) -> None:
        """Append node i of the second network, and the difference."""
        one, other = self.one[i], self.other[i]
        assert one is not None
        assert other is not None
        self.second[i] = self._moved(other, self.second)
        different = any(j in self.apart for j in one.inputs)
        if isinstance(one, Affine) and isinstance(other, Affine):
            if different or not _same(one, other):
                found = _between(one, other)
                self.apart[i] = self._plainly(i) if found is None else self._affine(one, found)
        else:
            assert isinstance(one, Activation)
            assert isinstance(other, Activation)
            equal = _same_rule(one.rule, other.rule)
            if different or not equal:
                leak = _leak(one.rule) if equal else None
                self.apart[i] = self._plainly(i) if leak is None else self._rectified(one, leak)

    def difference(self, i: int) -> int:
        """How far a node is apart, zeros of one that is not."""
        if i not in self.apart:
            size = self.builder.size(self.second[i])
            self.apart[i] = self.builder.add(Affine((self.second[i],), (Pick(np.full(size, -1), size),), size))
        return self.apart[i]

    def _affine(self, one: Affine, between: _Between) -> int:
        """`(W - V) g + W d`, and the difference of what both add."""
        inputs, maps, sizes = list[int](), list[Map](), list[Map]()
        for j, less, size in between.maps:
            inputs.append(self.second[j])
            maps.append(less)
            sizes.append(size)
        own = one.sizes or tuple(m.absolute for m in one.maps)
        for j, m, size in zip(one.inputs, one.maps, own, strict=True):
            if j in self.apart:
                inputs.append(self.apart[j])
                maps.append(m)
                sizes.append(size)
        if not inputs:  # which differ in what they add alone
            inputs, maps = [0], [Pick(np.full(one.size, -1), self.builder.size(0))]
            sizes = list(maps)
        bias, size_of, fuzz = between.bias, between.bias_size, between.fuzz + _ROUNDED
        every = tuple(sizes) if between.fuzz else ()
        return self.builder.add(Affine(tuple(inputs), tuple(maps), one.size, bias, size_of, fuzz, sizes=every))

    def _rectified(self, one: Activation, leak: float) -> int:
        (operand,) = one.inputs
        g, d, size = self.second[operand], self.difference(operand), one.size
        none = np.full(size, -1)
        picks = [Pick(np.stack(p, 1).reshape(-1), size) for p in ((np.arange(size), none), (none, np.arange(size)))]
        pairs = self.builder.add(Affine((g, d), tuple(picks), 2 * size))
        return self.builder.add(Activation((pairs,), Difference(leak), size))

    def _plainly(self, i: int) -> int:
        """The node in both networks, subtracted."""
        copy, second = self._copy(i), self.second[i]
        size = self.builder.size(second)
        maps = Pick(np.arange(size), size), Scale(-np.ones(1))
        return self.builder.add(Affine((copy, second), maps, size))

    def _copy(self, i: int) -> int:
        """Node i of the first network, with all that it needs."""
        todo, needed = [i], set[int]()
        while todo:
            j = todo.pop()
            node = self.one[j]
            if j not in self.first and j not in needed and node is not None:
                needed.add(j)
                todo += node.inputs
        for j in sorted(needed):
            node = self.one[j]
            assert node is not None
            self.first[j] = self._moved(node, self.first)
        return self.first[i]

    def _moved(self, node: _Node, place: dict[int, int]) -> int:
        return self.builder.add(replace(node, inputs=tuple(place[j] for j in node.inputs)))


@dataclass(frozen=True)
class _Between:
    """The differences of the constants of two affine nodes: maps that differ, each with its input and with positive
    coefficients that are no smaller than those of both, what is added, the sizes of that, and the relative error of
    both, to which a rounding comes."""

    maps: list[tuple[int, Map, Map]]
    bias: Floats | None
    bias_size: Floats | None
    fuzz: float


def _between(one: Affine, other: Affine) -> _Between | None:
    """None for nodes whose maps cannot be subtracted, or that are only right within bounds."""
    if min(one.within, other.within) < inf or len(one.maps) != len(other.maps):
        return None
    found, fuzz = list[tuple[int, Map, Map]](), max(one.fuzz, other.fuzz)
    sizes = [node.sizes or tuple(m.absolute for m in node.maps) for node in (one, other)]
    for j, m, n, own, others in zip(one.inputs, one.maps, other.maps, *sizes, strict=True):
        less, size = _combined(m, n, -1.0), _combined(own, others, 1.0)
        if less is None or size is None or (fuzz and isinstance(m, Pick)):
            return None
        if not isinstance(less, Pick) and (fuzz or _weight(less).any()):
            found.append((j, less, size))
    if one.bias is None and other.bias is None:
        return _Between(found, None, None, fuzz)
    both = [np.zeros(one.size) if n.bias is None else np.asarray(n.bias, np.float64) for n in (one, other)]
    size_of = sum(abs(b) if n.bias_size is None else n.bias_size for b, n in zip(both, (one, other), strict=True))
    return _Between(found, both[0] - both[1], np.asarray(size_of), fuzz)


def _weight(m: Dense | Scale) -> Floats:
    return np.asarray(m.weight if isinstance(m, Dense) else m.factor, np.float64)


def _combined(one: Map, other: Map, sign: float) -> Map | None:
    """The sum or the difference of two maps, each coefficient rounded; the map itself if it picks entries, which both
    do. None for maps of different kinds."""
    if isinstance(one, Pick) or isinstance(other, Pick):
        both = isinstance(one, Pick) and isinstance(other, Pick) and one.size == other.size
        return one if both and np.array_equal(one.index, other.index) else None  # type: ignore[union-attr]
    if type(one) is not type(other) or _weight(one).shape != _weight(other).shape:
        return None
    numbers = _weight(one) + sign * _weight(other)
    if not np.isfinite(numbers).all():
        return None
    if isinstance(one, Scale):
        return Scale(numbers)
    assert isinstance(other, Dense)
    placed = (one.images, one.before, one.after, one.source, one.target)
    same = placed == (other.images, other.before, other.after, other.source, other.target)
    return replace(one, weight=numbers) if same else None


def _leak(rule: Rule) -> float | None:
    """The slope of a rectifier on the left; None for what is none."""
    if type(rule) is ReLU:
        return 0.0
    return rule.negative_slope if isinstance(rule, LeakyReLU) and 0 <= rule.negative_slope <= 1 else None


def _same_rule(one: Rule, other: Rule) -> bool:
    """Whether two activations are the same function, for sure."""
    return type(one) is type(other) and (one == other or not (vars(one) or vars(other)))


def _same(one: Affine, other: Affine) -> bool:
    """Whether two affine nodes compute the same, for sure: equal enclosures may be of different constants."""
    found = _between(one, other)
    if found is None or found.fuzz or found.maps:
        return False
    return found.bias is None or not found.bias.any()
