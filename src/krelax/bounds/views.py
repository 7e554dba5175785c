"""The passes that bound entries of a layer: through the whole network, or through the cones of its windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from krelax.activations import Relaxation, Rule
from krelax.bounds.cones import Cone, cones, entries
from krelax.bounds.instance import Instance, chunk_queries
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import written
from krelax.bounds.steps import Single, Step, Witness
from krelax.bounds.windows import Window, inside
from krelax.network.graph import Network, Node

# The fixed cost of a pass does not matter for so many neurons.
FEW = 64
# Networks of cones in another type that are remembered.
_REMEMBERED = 256

# Entries of a pre-activation, and which of them are no padding, `(batch, m)` each.
Portion = tuple[Tensor, Tensor]


def unstable_index(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the True entries of `(batch, n)`, padded to the longest row: index and validity, `(batch, m)`."""
    count = int(mask.sum(1).max()) if mask.numel() else 0
    order = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
    return order, mask.gather(1, order)


@dataclass(frozen=True, eq=False)
class View:
    """What one pass bounds, the entries `portion` of a pre-activation: in the whole network over the bounds of all its
    nodes, or in some places of a cone, whose entries they are by `index`, `(places * batch, m)`."""

    instance: Instance
    bounds: LayerBounds
    portion: Portion
    node: int
    index: Tensor
    cone: Cone | None = None

    def inner(self) -> tuple[Instance, LayerBounds]:
        """The network over the regions of all places, and the bounds of its nodes."""
        whole, cone = self.instance, self.cone
        if cone is None:
            return whole, self.bounds
        shape = whole.network.nodes[cone.origin[0]].shape
        region, fast = (cone.region(r, shape) for r in (whole.region, whole.fast_region))
        proposing = _cast(cone.network, whole.fast_network.dtype, region.lower.device)
        inner = replace(whole, network=cone.network, region=region, fast_network=proposing, fast_region=fast)
        return replace(inner, logs=(), seen={}), self.known(self.bounds)

    def known(self, bounds: LayerBounds) -> LayerBounds:
        """What other bounds of the whole network say of the nodes that are seen."""
        return bounds if self.cone is None else self.cone.bounds(bounds)

    def joined(self, value: Tensor) -> Tensor:
        """Lower bounds of the entries of all places, then of their negatives, `(batch, 2 m)`."""
        places = 1 if self.cone is None else len(self.cone.places)
        return value.unflatten(0, (places, -1)).unflatten(2, (2, -1)).permute(1, 2, 0, 3).flatten(1)

    def spread(self, witness: Mapping[int, Step]) -> Mapping[int, Step]:
        """What was chosen for the entries of all places, in the order of `joined`, in the whole network."""
        cone = self.cone
        if cone is None:
            return witness
        inner = {cone.origin[i]: step for i, step in witness.items()}
        count = 2 * self.index.shape[1] * len(cone.places)
        result: Witness = {}
        for i, relaxation in self.bounds.relaxations.items():
            both = [t.unsqueeze(1) for t in _rounded(relaxation)]
            for k in (k for k, free in enumerate(relaxation.optimised) if free):
                both[k] = both[k].repeat(1, count, *[1] * (both[k].dim() - 2))
                step = inner.get(i)
                if step is not None:
                    assert isinstance(step, Single)
                    self._place(step.slopes[k], both[k], [place[self._operand(i)] for place in cone.places])
            result[i] = Single(relaxation, both[0], both[1])
        return result

    def _operand(self, node: int) -> int:
        return self.instance.network.nodes[node].inputs[0]

    def _place(self, slopes: Tensor, among: Tensor, windows: Sequence[Window]) -> None:
        """Write slopes of every place, `(places * batch, 2 m, *window)`, among all, `(batch, forms, *shape)`."""
        every = among.unflatten(1, (2, len(windows), -1))
        each = slopes.unflatten(0, (len(windows), -1)).unflatten(2, (2, -1))
        for p, window in enumerate(windows):
            every[:, :, p][(slice(None), slice(None), *inside(window))] = each[p]


def _rounded(relaxation: Relaxation) -> tuple[Tensor, Tensor]:
    """Adaptive slopes, as they are written down."""
    lower, upper = relaxation.slopes(Rule.ADAPTIVE)
    return relaxation.rounded(lower), written(upper)


@lru_cache(_REMEMBERED)
def _cast(network: Network, dtype: torch.dtype, device: torch.device) -> Network:
    return network.to(dtype, device)


def views(instance: Instance, bounds: LayerBounds, node: int, mask: Tensor, copies: int) -> list[View]:
    """Passes for the entries of a pre-activation that a mask picks, `(batch, n)`, which hold so many `copies` of
    coefficients. Where bounds have groups, all go through the whole network."""
    network = instance.network
    found = cones(network, node) if int(mask.sum(1).max()) > FEW and not bounds.groups else []
    if not found:
        portions = _split(mask, network.nodes[: node + 1], copies)
        return [View(instance, bounds, portion, node, portion[0]) for portion in portions]
    result = []
    for cone in found:
        numbers = torch.stack(list(entries(network.nodes[node].shape, [p[node] for p in cone.places]))).to(mask.device)
        for places, rows in _some_places(mask[:, numbers], cone, copies):
            index, valid = unstable_index(mask[:, numbers[places]].transpose(0, 1).flatten(0, 1))
            for part in range(0, index.shape[1], rows):
                some = index[:, part : part + rows], valid[:, part : part + rows]
                result.append(_in_cone(instance, bounds, cone.at(places), numbers[places], some))
    return result


def _some_places(mask: Tensor, cone: Cone, copies: int) -> Iterator[tuple[slice, int]]:
    """The places of a cone in parts that fit memory, and how many entries of each to bound at a time; `mask` picks
    entries, `(batch, places, n)`."""
    most = int(mask.sum(2).max())
    rows = chunk_queries(2 * len(mask) * widest(cone.network.nodes), copies, mask.device, FEW)
    at_a_time = max(1, rows // max(1, most))
    for begin in range(0, mask.shape[1], at_a_time):
        if bool(mask[:, begin : begin + at_a_time].any()):
            yield slice(begin, begin + at_a_time), rows


def _in_cone(instance: Instance, bounds: LayerBounds, cone: Cone, numbers: Tensor, chosen: Portion) -> View:
    """The pass for entries `(places * batch, m)` of a cone, whose entries have these `numbers`, `(places, n)`, in the
    network."""
    index, valid = (t.unflatten(0, (len(cone.places), -1)).transpose(0, 1) for t in chosen)  # batch, places, m
    own = numbers.unsqueeze(0).expand(len(index), -1, -1).gather(2, index)
    node = len(cone.network.nodes) - 1
    return View(instance, bounds, (own.flatten(1), valid.flatten(1)), node, chosen[0], cone)


def _split(mask: Tensor, nodes: Sequence[Node], copies: int) -> list[Portion]:
    index, valid = unstable_index(mask)
    size = chunk_queries(2 * len(mask) * widest(nodes), copies, mask.device, FEW)
    return [(index[:, i : i + size], valid[:, i : i + size]) for i in range(0, index.shape[1], size)]


def widest(nodes: Sequence[Node]) -> int:
    """Bytes of the coefficients of one query at the widest of some nodes."""
    return 8 * max(prod(n.shape) for n in nodes)
