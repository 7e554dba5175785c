"""The part of a network that a window of a layer sees.

A neuron of a convolution sees a small part of the input, and a backward pass that starts there meets coefficients of
zero everywhere else. A cone is the network of a window of a node: its nodes are windows of nodes, padded by zeros where
a convolution is, and whole nodes before operators that do not work window by window. Windows in different places whose
cones look alike are bounded together, as regions of a batch.

Sound: each entry of a cone is computed as in the network, so what bounds that one's nodes bounds the cone's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from krelax.activations import Activation
from krelax.bounds.layers import LayerBounds
from krelax.network.graph import Builder, Network, Node
from krelax.network.linear import Add, Conv, Scale, Within
from krelax.network.ops import Pad, Reshape
from krelax.op import Op, Shape
from krelax.problem.region import Region

# Begin and end on each of a node's last axes.
Window = tuple[tuple[int, int], ...]
# None is the whole node.
Part = Window | None
# Entries of a window on each axis.
_EXTENT = 4
# Nodes whose cones are remembered, which are asked for again for every batch of regions.
_REMEMBERED = 64
# A cone is worth it if it has no more than this part of the network's entries.
_WORTHWHILE = 0.5


class _Operand(NamedTuple):
    """What an operator needs of an operand: a window, and zeros before and after it."""

    window: Window
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Cone:
    """The network of a window, the nodes of the original network that its nodes are windows of (-1: padding), and
    those windows, of every place where it looks like this. The last of them is the node that is asked about."""

    network: Network
    origin: tuple[int, ...]
    places: tuple[Mapping[int, Part], ...]

    def at(self, places: slice) -> Cone:
        """The same in some of the places."""
        return replace(self, places=self.places[places])

    def region(self, region: Region, shape: Shape) -> Region:
        """The inputs that it sees, `(places * batch, *shape)`, of a region whose inputs are of this shape."""
        return region.shaped(shape).moved(lambda t: self.gathered(t, self.origin[0]))

    def gathered(self, t: Tensor, node: int) -> Tensor:
        """The windows of a tensor `(batch, *shape of the original node)`, `(places * batch, *shape)`."""
        return torch.cat([t[inside(place[node])] for place in self.places])

    def bounds(self, bounds: LayerBounds) -> LayerBounds:
        """Bounds of its nodes, with their relaxations, `(places * batch, *shape)`."""
        result = LayerBounds()
        for i, (origin, node) in enumerate(zip(self.origin, self.network.nodes, strict=True)):
            if origin >= 0:
                sides = (bounds.lower, bounds.upper, bounds.magnitude)
                result.append(*(self.gathered(side[origin], origin) for side in sides))
            else:
                (j,) = node.inputs
                assert isinstance(node.op, Pad)
                sides = (result.lower, result.upper, result.magnitude)
                result.append(*(node.op.linear(side[j]) for side in sides))
            if isinstance(node.op, Activation):
                result.relax(self.network, i)
        return result


@lru_cache(_REMEMBERED)
def cones(network: Network, node: int) -> Sequence[Cone]:
    """Cones of windows that cover a node, together; none where they would hardly be smaller than the network."""
    rank = _rank(network, node)
    if rank is None:
        return []
    extents = network.nodes[node].shape[-rank:]
    axes = [[(i, min(n, i + _EXTENT)) for i in range(0, n, _EXTENT)] for n in extents]
    plans: dict[tuple[object, ...], list[_Plan]] = defaultdict(list)
    total = 0
    for window in product(*axes):
        plan = _plan(network, node, window)
        if plan.windows[node] is None:
            return []
        plans[plan.key].append(plan)
        total += plan.entries * prod(b - a for a, b in window)
    whole = sum(prod(n.shape) for n in network.nodes[: node + 1])
    if total > _WORTHWHILE * whole * prod(extents):
        return []
    return [_built(network, same) for same in plans.values()]


def _rank(network: Network, node: int) -> int | None:
    """On how many axes the convolution works that comes last before a node, if there is one."""
    while node > 0:
        op = network.nodes[node].op
        if isinstance(op, Conv):
            return op.weight.dim() - 2
        node = max(network.nodes[node].inputs)
    return None


@dataclass(frozen=True, eq=False)
class _Plan:
    """The windows of the nodes that a window sees, and what each of them needs of its operands."""

    windows: Mapping[int, Part]
    operands: Mapping[int, Sequence[_Operand | None]]
    network: Network

    @property
    def key(self) -> tuple[object, ...]:
        """The same for windows whose cones look alike."""
        sizes = tuple((i, _cropped(self.network.nodes[i].shape, self.windows[i])) for i in sorted(self.windows))
        pads = tuple((i, self.padding(i)) for i in sorted(self.operands))
        return sizes, pads

    def padding(self, node: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        """For each operand of a node, how many zeros to add to its window on both sides (negative: entries to drop)."""
        result: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        for j, wanted in zip(self.network.nodes[node].inputs, self.operands[node], strict=True):
            if wanted is None:
                result.append(((), ()))
                continue
            given = self.windows[j] or [(0, n) for n in self.network.nodes[j].shape[-len(wanted.window) :]]
            pairs = list(zip(wanted.window, given, wanted.before, wanted.after, strict=True))
            before = tuple(pad - (w[0] - g[0]) for w, g, pad, _ in pairs)
            result.append((before, tuple(pad - (g[1] - w[1]) for w, g, _, pad in pairs)))
        return tuple(result)

    @property
    def entries(self) -> int:
        """Entries of all windows."""
        return sum(prod(_cropped(self.network.nodes[i].shape, w)) for i, w in self.windows.items())


def first(network: Network) -> int:
    """The node that is the input with the axes that the first operators work on."""
    node, readers = 0, _readers(network, 0)
    while len(readers) == 1 and isinstance(network.nodes[readers[0]].op, Reshape):
        (node,) = readers
        readers = _readers(network, node)
    return node


def _readers(network: Network, node: int) -> list[int]:
    return [i for i, n in enumerate(network.nodes) if node in n.inputs]


def _plan(network: Network, node: int, window: Window) -> _Plan:
    """What a window of a node sees."""
    windows: dict[int, Part] = {node: window}
    operands: dict[int, Sequence[_Operand | None]] = {}
    for i in range(node, first(network), -1):
        if i not in windows:
            continue
        inputs, own = network.nodes[i].inputs, windows[i]
        shapes = [network.nodes[j].shape for j in inputs]
        needed = None if own is None else _needed(network.nodes[i], shapes, own)
        if needed is None:
            windows[i] = None
        operands[i] = needed or [None for _ in inputs]
        for j, operand in zip(inputs, operands[i], strict=True):
            windows[j] = None if operand is None else _both(operand.window, windows.get(j, operand.window))
    return _Plan(windows, operands, network)


def _both(one: Window, other: Part) -> Part:
    """The smallest window around two."""
    if other is None:
        return None
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def _needed(node: Node, shapes: Sequence[Shape], window: Window) -> list[_Operand] | None:
    """What a window of a node needs of each operand; None if there is no answer."""
    op, rank, none = node.op, len(window), (0,) * len(window)
    if isinstance(op, Conv):
        return _seen(op, shapes[0][-rank:], window) if op.weight.dim() - 2 == rank else None
    if isinstance(op, Scale):
        whole = all(t.dim() < rank or all(n == 1 for n in t.shape[-rank:]) for t in op.parameters())
    else:
        alone = isinstance(op, Activation) and op.shape(node.shape) == node.shape
        whole = alone or isinstance(op, Add | Within | Reshape)
    if whole and all(len(s) >= rank and s[-rank:] == node.shape[-rank:] for s in shapes):
        return [_Operand(window, none, none) for _ in shapes]
    return None


def _seen(op: Conv, extents: Shape, window: Window) -> list[_Operand] | None:
    """What a window of a convolution sees."""
    inside, before, after = [], [], []
    geometry = zip(window, extents, op.weight.shape[2:], op.stride, op.padding, op.dilation, strict=True)
    for (a, b), n, k, s, p, d in geometry:
        first, last = a * s - p, (b - 1) * s - p + d * (k - 1) + 1
        if last <= 0 or first >= n:  # it sees padding alone
            return None
        inside.append((max(0, first), min(n, last)))
        before.append(max(0, -first))
        after.append(max(0, last - n))
    return [_Operand(tuple(inside), tuple(before), tuple(after))]


def _built(network: Network, plans: Sequence[_Plan]) -> Cone:
    """The cone that these windows have in common."""
    plan, source = plans[0], first(network)
    builder = Builder(_cropped(network.nodes[source].shape, plan.windows[source]))
    number, origin = {source: 0}, [source]
    for i in sorted(plan.operands):
        node, inputs = network.nodes[i], []
        for j, (before, after) in zip(node.inputs, plan.padding(i), strict=True):
            at = number[j]
            if any(before) or any(after):
                lead = (0,) * (len(network.nodes[j].shape) - len(before))
                at = builder.add(Pad((*lead, *before), (*lead, *after)), at)
                origin.append(-1)
            inputs.append(at)
        number[i] = builder.add(_windowed(node, plan.windows[i]), *inputs)
        origin.append(i)
    built = replace(builder.build(number[max(number)]), converted=network.converted)
    return Cone(built, tuple(origin), tuple(p.windows for p in plans))


def _windowed(node: Node, window: Part) -> Op:
    """The operator on a window whose padding is there already."""
    if window is None:
        return node.op
    if isinstance(node.op, Conv):
        return replace(node.op, padding=(0,) * len(window))
    return replace(node.op, target=_cropped(node.shape, window)) if isinstance(node.op, Reshape) else node.op


def _cropped(shape: Shape, window: Part) -> Shape:
    return shape if window is None else (*shape[: len(shape) - len(window)], *(b - a for a, b in window))


def inside(window: Part) -> tuple[Any, ...]:
    """The index of a window in a tensor."""
    return (..., *(slice(a, b) for a, b in window or ()))


def entries(shape: Shape, places: Sequence[Part]) -> Iterator[Tensor]:
    """The flat numbers of the entries of windows of a node, `(entries,)` each."""
    every = torch.arange(prod(shape)).reshape(shape)
    return (every[inside(window)].flatten() for window in places)
