"""The part of a network that a window of a layer sees.

A neuron of a convolution sees a small part of the input, and a backward pass that starts there meets coefficients of
zero everywhere else. A cone is the network of a window of a node: its nodes are windows of nodes, padded by zeros where
a convolution is, and whole nodes before operators that do not work window by window (`krelax.bounds.windows`). Windows
in different places whose cones look alike are bounded together, as regions of a batch.

Sound: each entry of a cone is computed as in the network, so what bounds that one's nodes bounds the cone's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod

import torch
from torch import Tensor

from krelax.activations import Activation
from krelax.bounds.layers import LayerBounds
from krelax.bounds.windows import Local, Window, both, entries_of, extents, inside, local
from krelax.network.graph import Builder, Network
from krelax.network.linear import Conv
from krelax.network.ops import Pad, Reshape
from krelax.op import Shape
from krelax.problem.region import Region

# Entries of a window on each of the axes that are divided: the first of these, then others while that is cheaper.
_EXTENTS = (4, 2, 1)
# A layer is divided into no more windows than this.
_MOST = 256
# Nodes whose cones are remembered, which are asked for again for every batch of regions.
_REMEMBERED = 64
# A cone is worth it if it has no more than this part of the network's entries.
_WORTHWHILE = 0.7
# What passes do in a place of a cone, whatever is asked there, takes as long as so many forms; and this part of the
# entries of a layer is asked about, more or less, from both sides.
_FIXED, _ASKED = 24.0, 0.1


@dataclass(frozen=True, eq=False)
class Cone:
    """The network of a window, the nodes of the original network that its nodes are windows of (-1: padding), and
    those windows, of every place where it looks like this. The last of them is the node that is asked about."""

    network: Network
    origin: tuple[int, ...]
    places: tuple[Mapping[int, Window], ...]

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
    axes, shape = _axes(network, node), network.nodes[node].shape
    best: list[Window] = []
    least = _WORTHWHILE * 2 * _ASKED * sum(prod(n.shape) for n in network.nodes[: node + 1]) * prod(shape)
    for extent in _EXTENTS if axes else ():
        every = _covering(shape, axes, extent)
        middle = _plan(network, node, every[len(every) // 2])
        cost = middle.entries * (_FIXED * len(every) + 2 * _ASKED * prod(shape))
        if len(every) > _MOST or (best and cost >= least):
            break
        if cost < least:
            best, least = every, cost
    plans = [_plan(network, node, window) for window in best]
    if any(plan.windows[node] != window for plan, window in zip(plans, best, strict=True)):
        return []  # an operator takes more at once
    alike: dict[tuple[object, ...], list[_Plan]] = defaultdict(list)
    for plan in plans:
        alike[plan.key].append(plan)
    return [_built(network, same) for same in alike.values()]


def _axes(network: Network, node: int) -> list[int]:
    """The axes of a node that are divided: the last ones, as many as the convolution works on that comes last before
    it, if there is one; but for one that an activation takes at once."""
    shape = network.nodes[node].shape
    readers = [n for n in network.nodes if node in n.inputs and isinstance(n.op, Activation)]
    end = len(shape) - any(n.shape == shape[:-1] for n in readers)
    while node > 0:
        op = network.nodes[node].op
        if isinstance(op, Conv):
            return list(range(max(0, end - (op.weight.dim() - 2)), end))
        node = max(network.nodes[node].inputs)
    return []


def _covering(shape: Shape, axes: Sequence[int], extent: int) -> list[Window]:
    """Windows that cover a node, of this extent on some axes, and whole on others."""
    steps = [extent if a in axes else max(1, n) for a, n in enumerate(shape)]
    parts = ([(i, min(n, i + step)) for i in range(0, n, step)] for n, step in zip(shape, steps, strict=True))
    return list(product(*parts))


@dataclass(frozen=True, eq=False)
class _Plan:
    """The windows of the nodes that a window sees, and how they are computed."""

    windows: Mapping[int, Window]
    locals: Mapping[int, Local]
    network: Network

    @property
    def key(self) -> tuple[object, ...]:
        """The same for windows whose cones look alike."""
        sizes = tuple((i, extents(self.windows[i])) for i in sorted(self.windows))
        return sizes, tuple((i, self.padding(i), self.locals[i].constants) for i in sorted(self.locals))

    def padding(self, node: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        """For each operand of a node, how many zeros to add to its window on both sides (negative: entries to drop)."""
        result = []
        for j, wanted in zip(self.network.nodes[node].inputs, self.locals[node].operands, strict=True):
            pairs = list(zip(wanted.window, self.windows[j], wanted.before, wanted.after, strict=True))
            before = tuple(pad - (w[0] - g[0]) for w, g, pad, _ in pairs)
            result.append((before, tuple(pad - (g[1] - w[1]) for w, g, _, pad in pairs)))
        return tuple(result)

    @property
    def entries(self) -> int:
        """Entries of all windows."""
        return sum(map(entries_of, self.windows.values()))


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
    windows, found = {node: window}, {}
    for i in range(node, first(network), -1):
        if i in windows:
            here = network.nodes[i]
            found[i] = local(here, [network.nodes[j].shape for j in here.inputs], windows[i])
            windows[i] = found[i].window
            for j, operand in zip(here.inputs, found[i].operands, strict=True):
                windows[j] = both(operand.window, windows.get(j, operand.window))
    return _Plan(windows, found, network)


def _built(network: Network, plans: Sequence[_Plan]) -> Cone:
    """The cone that these windows have in common."""
    plan, source = plans[0], first(network)
    builder = Builder(extents(plan.windows[source]))
    number, origin = {source: 0}, [source]
    for i in sorted(plan.locals):
        inputs = []
        for j, (before, after) in zip(network.nodes[i].inputs, plan.padding(i), strict=True):
            at = number[j]
            if any(before) or any(after):
                at = builder.add(Pad(before, after), at)
                origin.append(-1)
            inputs.append(at)
        number[i] = builder.add(plan.locals[i].op, *inputs)
        origin.append(i)
    built = replace(builder.build(number[max(number)]), converted=network.converted)
    return Cone(built, tuple(origin), tuple(p.windows for p in plans))


def entries(shape: Shape, places: Sequence[Window]) -> Iterator[Tensor]:
    """The flat numbers of the entries of windows of a node, `(entries,)` each."""
    every = torch.arange(prod(shape)).reshape(1, *shape)
    return (every[inside(window)].flatten() for window in places)
