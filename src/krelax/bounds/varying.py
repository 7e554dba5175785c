"""The part of a network that varies: what most inputs have in common with all of a region is computed once.

Where few inputs are free, as in a question about one column of a table, many entries of nodes do not depend on them at
all. Those are bounded once for each region, by intervals, and what affine operators have of them is an input of a
smaller network, whose other inputs are those that are free. Boxes of the regions then cost what the part costs.

Sound: every value of the whole network over a region is one of the part, over intervals that are rounded outward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from math import prod

import torch
from torch import Tensor

from krelax.activations.base import Activation
from krelax.bounds.forms import Form, absolutes, affine, inputs, interval
from krelax.bounds.instance import Instance
from krelax.network.graph import Network, Node
from krelax.network.linear import Add, Conv, Dense, Scale, Sum
from krelax.network.ops import Linear, Source, one_hot
from krelax.network.parts import Parts
from krelax.op import Op
from krelax.problem.region import Box, middle

# The part is worth its price if it has at most such a share of all entries, ...
_SHARE = 0.5
# ... and if convolutions are asked for the coefficients of no more entries than so many for each region: a box costs
# more passes than that.
_ROWS = 8
# Numbers of a matrix.
_NUMBERS = 1 << 24
# Of what affine operators that compute are made of, these say the coefficients as they are.
_PLAIN = (Add, Conv, Dense, Scale, Sum)


def varying(instance: Instance, free: Tensor) -> Instance | None:
    """The same questions about the part of the network that varies with the inputs `free`, flat indices in increasing
    order, which are its first ones. None where that would save little, or is not possible. The part is there to be
    bounded in double precision, and for nothing else."""
    network, region = instance.network, instance.region
    assert isinstance(region, Box)
    if not all(_is_plain(network, node) for node in network.nodes[1:]):
        return None
    live = _reached(network, free)
    if sum(int(mask.sum()) for mask in live) > _SHARE * sum(mask.numel() for mask in live):
        return None
    kept = _needed(network, live)
    if not all(_is_cheap(network, i, kept, len(region)) for i in range(1, len(kept))):
        return None
    rest = _rest(instance, live, kept)
    if not all(bool(side.isfinite().all()) for r in rest.values() for side in (r.lower, r.upper)):
        return None
    builder = _Builder(network, live, kept, rest)
    part = builder.build()
    faces = (side.flatten(1)[:, kept[0]] for side in (region.lower, region.upper))
    lower, upper = (torch.cat([face, *more], 1) for face, more in zip(faces, builder.given, strict=True))
    return replace(instance, network=part, region=Box(lower, upper))


def _is_plain(network: Network, node: Node) -> bool:
    """Whether some entries of a node can be computed without others."""
    if isinstance(node.op, Linear):
        return node.op.moves_only or isinstance(node.op, _PLAIN)
    shape, uniform = network.nodes[node.inputs[0]].shape, isinstance(node.op, Activation) and node.op.uniform
    return bool(node.inputs[0]) and uniform and not node.op.parameters() and node.shape in (shape, shape[:-1])


def alike(part: Instance) -> bytes:
    """A key that is the same for parts that are the same function of their inputs."""
    digest = sha256()
    for node in part.network.nodes:
        known = (type(node.op), node.inputs, node.shape)
        tensors = node.op.parameters()
        digest.update(repr(known if tensors else (*known, node.op)).encode())
        for t in tensors:
            digest.update(repr((t.dtype, t.shape)).encode() + t.cpu().numpy().tobytes())
    return digest.digest()


def _is_cheap(network: Network, i: int, kept: list[Tensor], regions: int) -> bool:
    """Whether the matrices that a node's operator becomes are worth their price."""
    node = network.nodes[i]
    if not isinstance(node.op, Linear) or not len(kept[i]):
        return True
    rows = max(len(kept[j]) for j in node.inputs)
    if isinstance(node.op, Conv):
        return rows <= _ROWS * regions and rows * prod(node.shape) <= _NUMBERS
    return rows * len(kept[i]) <= _NUMBERS


def _reached(network: Network, free: Tensor) -> list[Tensor]:
    """The entries of all nodes that depend on inputs, `(*shape)` each; also where only errors of constants do."""
    first = torch.zeros(prod(network.input_shape), dtype=torch.bool, device=free.device).index_fill(0, free, True)
    live = [first.reshape(network.input_shape)]
    for node in network.nodes[1:]:
        given = [live[j] for j in node.inputs]
        if isinstance(node.op, Linear):
            live.append(node.op.sizes().linear(*(m[None].to(network.dtype) for m in given))[0] > 0)
        else:
            live.append(given[0] if node.shape == given[0].shape else given[0].any(-1))
    return live


def _needed(network: Network, live: list[Tensor]) -> list[Tensor]:
    """The flat indices of the entries that the part has of each node: all of the last one, and of others what those
    depend on."""
    masks = [torch.zeros_like(m) for m in live]
    masks[-1][...] = True
    for i in range(len(live) - 1, 0, -1):
        node, mask = network.nodes[i], masks[i]
        if not bool(mask.any()):
            continue
        shapes = [network.nodes[j].shape for j in node.inputs]
        if isinstance(node.op, Linear):
            parts = node.op.sizes().adjoint(mask[None].to(network.dtype), *shapes)
            for j, part in zip(node.inputs, parts, strict=True):
                masks[j] |= (part[0] > 0) & live[j]
        else:
            masks[node.inputs[0]] |= mask if mask.shape == shapes[0] else mask.unsqueeze(-1)
    masks[0] = live[0]
    return [m.flatten().nonzero()[:, 0] for m in masks]


@dataclass(frozen=True)
class _Rest:
    """What does not vary of the entries that are kept of an affine node: whether there is anything, `(entries,)`, and
    bounds of what there is, `(regions, some entries)`."""

    there: Tensor
    lower: Tensor
    upper: Tensor


def _rest(instance: Instance, live: list[Tensor], kept: list[Tensor]) -> dict[int, _Rest]:
    """What does not vary of affine nodes."""
    network, region, found = instance.network, instance.region, dict[int, _Rest]()
    last = {j: i for i, node in enumerate(network.nodes) for j in node.inputs}
    forms = {0: _without(inputs(region.lower, region.upper, kept[0][:0]), live[0])}
    for i, node in enumerate(network.nodes[1:], start=1):
        instance.check()
        if isinstance(node.op, Linear):
            absolute = absolutes(node.op)
            assert absolute is not None
            form = affine(node.op, *absolute, [forms[j] for j in node.inputs])
            if len(kept[i]):
                others = (~live[j][None] for j in node.inputs)
                there = node.op.sizes().forward(*(mask.to(network.dtype) for mask in others)).expand(1, *node.shape) > 0
                places = kept[i][there.flatten()[kept[i]]]
                sides = interval(form, torch.zeros_like(form.error))
                found[i] = _Rest(there.flatten()[kept[i]], *(side.flatten(1)[:, places] for side in sides))
        else:
            operand = forms[node.inputs[0]]
            ends = interval(operand, torch.zeros_like(operand.error))
            form = _between(*network.activation(i).relax(*ends).interval())
        forms[i] = _without(form, live[i])
        for j in {j for j in node.inputs if last[j] == i}:
            del forms[j]
    return found


def _without(form: Form, live: Tensor) -> Form:
    """With zeros for what varies."""
    parts = (torch.where(live, 0.0, t) for t in (form.centre, form.symbols, form.error, form.size))
    return Form(*parts)


def _between(lower: Tensor, upper: Tensor) -> Form:
    """Anything between two bounds."""
    centre = middle(lower, upper)
    radius = torch.maximum(upper - centre, centre - lower)
    radius = torch.where(radius > 0, torch.nextafter(radius, torch.full_like(radius, torch.inf)), radius)
    return Form(centre, centre.new_zeros(len(centre), 0, *centre.shape[1:]), radius, centre.abs() + radius)


class _Builder:
    """Makes the network of the part, of the entries `kept` of each node. Its first inputs are those that are free."""

    def __init__(
        self,
        network: Network,
        live: list[Tensor],
        kept: list[Tensor],
        rest: dict[int, _Rest],
    ) -> None:
        self._network, self._live, self._kept, self._rest = network, live, kept, rest
        self._inputs, free = len(kept[0]), torch.arange(len(kept[0]), device=kept[0].device)
        # bounds of the inputs beside those that are free, `(regions, entries)` each
        self.given: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._nodes, self._place = [Node(Source(), (), ())], dict[int, int]()
        self._place[0] = self._add(Parts((free,), (len(free),)), (0,))

    def build(self) -> Network:
        """The network of the part."""
        for i, node in enumerate(self._network.nodes[1:], start=1):
            if not len(self._kept[i]):
                continue
            if isinstance(node.op, Linear):
                self._place[i] = self._affine(i, node, node.op)
            else:
                self._place[i] = self._add(node.op, (self._operand(i, node),))
        self._nodes[0] = replace(self._nodes[0], shape=(self._inputs,))
        return replace(self._network, nodes=tuple(self._nodes), replay=None)

    def _add(self, op: Op, operands: tuple[int, ...]) -> int:
        shape = op.shape(*(self._nodes[j].shape for j in operands))
        self._nodes.append(Node(op, operands, shape))
        return len(self._nodes) - 1

    def _operand(self, i: int, node: Node) -> int:
        """What an activation is of, in its shape."""
        z, kept = node.inputs[0], self._kept[i]
        shape = self._network.nodes[z].shape
        target = (len(kept),) if node.shape == shape else (len(kept), shape[-1])
        wanted = kept if len(target) == 1 else kept[:, None] * shape[-1] + torch.arange(shape[-1], device=kept.device)
        places = torch.searchsorted(self._kept[z], wanted.flatten())
        if len(target) == 1 and len(places) == len(self._kept[z]):
            return self._place[z]
        return self._add(Parts((places,), target), (self._place[z],))

    def _affine(self, i: int, node: Node, op: Linear) -> int:
        """What an affine operator makes of what varies, and of the rest."""
        parts, charged, operands = list[Tensor](), list[Tensor](), list[int]()
        for k, j in enumerate(node.inputs):
            size = self._part(i, node, op.sizes(), k)
            if size is not None:
                made = self._part(i, node, op, k)
                parts.append(torch.zeros_like(size) if made is None else made)
                charged.append(size)
                operands.append(self._place[j])
        rest = self._rest[i]
        if bool(rest.there.any()) or not parts:
            places = torch.where(rest.there, self._inputs - 1 + rest.there.cumsum(0), -1)
            parts, charged, operands = [*parts, places], [*charged, places], [*operands, 0]
            self._inputs += int(rest.there.sum())
            self.given[0].append(rest.lower)
            self.given[1].append(rest.upper)
        shape = (len(self._kept[i]),)
        return self._add(Parts(tuple(parts), shape, None if op.is_exact else tuple(charged)), tuple(operands))

    def _part(self, i: int, node: Node, op: Linear, k: int) -> Tensor | None:
        """The coefficients of what varies of operand number k, as a part of `Parts`; None if there are none."""
        j = node.inputs[k]
        rows, columns, live = self._kept[i], self._kept[j], self._live[j].flatten()[self._kept[j]]
        if op.moves_only:
            return self._places(i, node, op, k)
        if isinstance(op, Add | Scale):
            factor = rows.new_full((1,), op.signs[k], dtype=self._network.dtype) if isinstance(op, Add) else op.factor
            if factor is None:
                factor = torch.ones(1, dtype=self._network.dtype, device=rows.device)
            factor = factor.expand(node.shape).flatten()[rows]
            if torch.equal(rows, columns) and bool(live.all()):
                return torch.arange(len(rows), device=rows.device) if bool((factor == 1).all()) else factor
            matrix = factor[:, None] * (rows[:, None] == columns)
        elif isinstance(op, Dense):
            (wide, deep), weight = op.weight.shape, op.weight
            matrix = weight[rows % wide][:, columns % deep] * ((rows // wide)[:, None] == columns // deep)
        elif isinstance(op, Sum):
            numbers = torch.arange(1, prod(node.shape) + 1, dtype=self._network.dtype, device=rows.device)
            owner = op.adjoint(numbers.reshape(1, *node.shape), self._network.nodes[j].shape)[0].flatten()[columns]
            matrix = (owner == rows[:, None] + 1).to(self._network.dtype)
        else:
            units = one_hot(columns, self._network.nodes[j].shape, self._network.dtype)
            matrix = op.linear(units).flatten(1)[:, rows].T
        matrix = (matrix * live).contiguous()
        return matrix if bool(matrix.any()) else None

    def _places(self, i: int, node: Node, op: Linear, k: int) -> Tensor | None:
        """Which entries of operand number k are copied, by what becomes of their numbers."""
        rows, columns = self._kept[i], self._kept[node.inputs[k]]
        shapes = [self._network.nodes[j].shape for j in node.inputs]
        numbers = [torch.zeros(1, *s, dtype=self._network.dtype, device=rows.device) for s in shapes]
        numbers[k] = torch.arange(1, prod(shapes[k]) + 1).to(numbers[k]).reshape(numbers[k].shape)
        source = op.linear(*numbers).flatten()[rows].long() - 1
        there = (source >= 0) & self._live[node.inputs[k]].flatten()[source.clamp(min=0)]
        places = torch.searchsorted(columns, source.clamp(min=0))
        return torch.where(there, places, -1) if bool(there.any()) else None
