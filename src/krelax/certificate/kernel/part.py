"""The part of a network that varies with some inputs, for regions that have next to nothing else free.

Entries of nodes that no such input reaches are bounded once for a region, by interval arithmetic, and what affine nodes
have of them is an input of a smaller network. Boxes of the region then cost what that network costs.

Sound: every value of the whole network over a region is one of the part, over intervals that are rounded outward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, prod

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.arithmetic import Arithmetic, Float64, Floats
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.linear import Dense, Index, Map, Pick, Scale
from krelax.certificate.kernel.network import Activation, Affine, Network
from krelax.certificate.kernel.region import Region

# The part is worth its price if it has at most such a share of all entries, ...
_SHARE = 0.5
# ... and if convolutions are asked for the coefficients of no more entries than so many for each region: a box costs
# more passes than that.
_ROWS = 8
# Numbers of a matrix.
_NUMBERS = 1 << 24
_FLOATS = Float64()

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Part:
    """A network over the inputs `free`, in order, and others: `slots` are the entries of affine nodes of the `whole` of
    which those are what does not vary. `live` says which entries of nodes vary."""

    whole: Network
    network: Network
    free: Index
    live: tuple[Mask, ...]
    slots: Mapping[int, Index]

    def given(self, ar: Arithmetic, lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
        """Bounds of the inputs beside those that are free, `(regions, entries)`, over regions `(regions, inputs)`."""
        region = Region(np.where(self.live[0], 0.0, lower), np.where(self.live[0], 0.0, upper))
        bounds, found = LayerBounds.of(self.whole, region, ar, False), (list[Floats](), list[Floats]())
        for i in range(1, len(self.whole.nodes)):
            bounds = bounds.advanced()
            sides = bounds.lower[i], bounds.upper[i]
            for side, to in zip(sides, found, strict=True):
                to.append(side[:, self.slots.get(i, np.zeros(0, np.int64))])
            bounds = bounds.replaced(i, *(np.where(self.live[i], 0.0, side) for side in sides))
        below, above = (np.concatenate(side, 1) for side in found)
        return below, above


def part_of(network: Network, ar: Arithmetic, free: Index, regions: int) -> Part | None:
    """The part of a network, with numbers of an arithmetic, that varies with some inputs; None where that would save
    little over so many regions, or is not possible."""
    if not ar.unit:  # exact numbers are for few questions
        return None
    live = _reached(network, free)
    if sum(mask.sum() for mask in live) > _SHARE * sum(mask.size for mask in live):
        return None
    kept = _needed(network, live)
    if kept is None or not all(_is_cheap(network, i, kept, regions) for i in range(1, len(live))):
        return None
    return _Builder(network, live, kept).build()


def _is_cheap(network: Network, i: int, kept: list[Index], regions: int) -> bool:
    node = network.nodes[i]
    if not isinstance(node, Affine) or not len(kept[i]):
        return True
    rows = max(len(kept[j]) for j in node.inputs)
    if all(not isinstance(m, Dense) or _is_plain(m) for m in (*node.maps, *node.sizes)):
        return node.within == inf and rows * len(kept[i]) <= _NUMBERS
    return node.within == inf and rows <= _ROWS * regions and rows * max(node.size, network.size(0)) <= _NUMBERS


def _is_plain(m: Dense) -> bool:
    """Whether a map has one matrix, for all places."""
    return len(m.weight) == 1 and not any(m.source[0]) and not any(m.target[0]) and m.before == m.after


def _owners(node: Activation) -> Index:
    """The entry of an activation that each entry of its pre-activation is for."""
    return np.asarray(node.rule.behind(np.arange(node.size)[None])[0], np.int64)


def _reached(network: Network, free: Index) -> list[Mask]:
    """The entries of nodes that depend on some inputs."""
    live = [np.isin(np.arange(network.size(0)), free)]
    for node in network.nodes[1:]:
        if isinstance(node, Affine):
            made = [_pattern(m, live[j], False) for m, j in zip(_sizes(node), node.inputs, strict=True)]
            live.append(np.any(made, 0))
        else:
            assert isinstance(node, Activation)  # nothing else comes behind the input
            live.append(np.bincount(_owners(node), live[node.inputs[0]], node.size) > 0)
    return live


def _needed(network: Network, live: Sequence[Mask]) -> list[Index] | None:
    """The entries that the part has of each node: all of the last one, and of others what those depend on. None where
    an activation is of inputs."""
    masks = [np.zeros_like(mask) for mask in live]
    masks[-1][:] = True
    for i in reversed(range(1, len(live))):
        node = network.nodes[i]
        if isinstance(node, Affine):
            for m, j in zip(_sizes(node), node.inputs, strict=True):
                masks[j] |= _pattern(m, masks[i], True) & live[j]
        elif isinstance(node, Activation) and masks[i].any():
            if node.inputs[0] == 0:
                return None
            masks[node.inputs[0]] |= masks[i][_owners(node)]
    return [np.flatnonzero(mask) for mask in (live[0], *masks[1:])]


def _sizes(node: Affine) -> tuple[Map, ...]:
    """What coefficients are, or may be for all that is known of their errors."""
    return node.sizes or node.maps


def _pattern(m: Map, mask: Mask, adjoint: bool) -> Mask:
    """Where a map, or its adjoint, of something that is zero outside a mask may be something else than zero."""
    if isinstance(m, Scale):
        return mask
    if isinstance(m, Dense):
        m = _counting(m)
    made = (m.adjoint if adjoint else m.forward)(_FLOATS, mask[None].astype(np.float64))
    return np.asarray(made[0] > 0)


def _counting(m: Dense) -> Dense:
    return replace(m, weight=(m.weight != 0).astype(np.float64))


class _Builder:
    """Makes the network of the part, of the entries `kept` of each node."""

    def __init__(self, network: Network, live: Sequence[Mask], kept: Sequence[Index]) -> None:
        self._network, self._live, self._kept = network, live, kept
        self._slots = {i: self._given(i) for i in range(1, len(live)) if isinstance(network.nodes[i], Affine)}
        begin = np.cumsum([len(kept[0]), *map(len, self._slots.values())])
        self._inputs, self._begin = int(begin[-1]), dict(zip(self._slots, begin.tolist(), strict=False))
        self._nodes, self._place = list[Affine | Activation | None]([None]), dict[int, int]()

    def build(self) -> Part | None:
        """The part; None where it cannot be."""
        count = len(self._kept[0])
        self._place[0] = self._add(Affine((0,), (Pick(np.arange(count), self._inputs),), count))
        for i, node in enumerate(self._network.nodes):
            if node is None or not len(self._kept[i]):
                continue
            made = self._affine(i, node) if isinstance(node, Affine) else self._activation(i, node)
            if made is None:
                return None
            self._place[i] = self._add(made)
        network = Network(tuple(self._nodes), self._inputs, single=False)
        return Part(self._network, network, self._kept[0], tuple(self._live), self._slots)

    def _add(self, node: Affine | Activation) -> int:
        self._nodes.append(node)
        return len(self._nodes) - 1

    def _given(self, i: int) -> Index:
        """The entries kept of an affine node in which something does not vary."""
        node, kept = self._network.nodes[i], self._kept[i]
        assert isinstance(node, Affine)
        made = [_pattern(m, ~self._live[j], False) for m, j in zip(_sizes(node), node.inputs, strict=True)]
        more = [t != 0 for t in (node.bias, node.bias_size) if t is not None]  # a bias of zero may have an error
        there = np.any([*made, *more], 0)
        return kept[there[kept]]

    def _activation(self, i: int, node: Activation) -> Activation | None:
        z, kept, owners = node.inputs[0], self._kept[i], _owners(node)
        wanted = np.flatnonzero(np.isin(owners, kept))
        made, place = Activation((self._place[z],), node.rule, len(kept)), self._kept[z]
        if not np.array_equal(_owners(made), np.searchsorted(kept, owners[wanted])):
            return None
        if len(wanted) < len(place):
            pick = Affine((self._place[z],), (Pick(np.searchsorted(place, wanted), len(place)),), len(wanted))
            made = replace(made, inputs=(self._add(pick),))
        return made

    def _affine(self, i: int, node: Affine) -> Affine | None:
        """What an affine node makes of what varies, and of the rest."""
        kept, maps, sizes, inputs = self._kept[i], list[Map](), list[Map](), list[int]()
        for k, (m, j) in enumerate(zip(node.maps, node.inputs, strict=True)):
            if not _pattern(_sizes(node)[k], self._live[j], False)[kept].any():
                continue
            own = [self._restricted(each, i, j) for each in (m, *node.sizes[k : k + 1])]
            if own[0] is None or own[-1] is None:
                return None
            maps.append(own[0])
            sizes += [own[-1]] if node.sizes else []
            inputs.append(self._place[j])
        slots = self._slots[i]
        if len(slots) or not maps:
            index = np.full(len(kept), -1)
            index[np.searchsorted(kept, slots)] = self._begin[i] + np.arange(len(slots))
            maps, inputs = [*maps, Pick(index, self._inputs)], [*inputs, 0]
            sizes += [maps[-1]] if node.sizes else []
        made = replace(node, inputs=tuple(inputs), maps=tuple(maps), size=len(kept), sizes=tuple(sizes))
        return replace(made, bias=None, bias_size=None)

    def _restricted(self, m: Map, i: int, j: int) -> Map | None:
        """What a map makes of the entries of node j that vary, for those that are kept of node i. None where a
        coefficient is made of several."""
        rows, columns, live = self._kept[i], self._kept[j], self._live[j][self._kept[j]]
        if isinstance(m, Pick):
            places = np.full(m.size + 1, -1)  # the last one is that of zero
            places[columns[live]] = np.flatnonzero(live)
            return Pick(places[m.index[rows]], len(columns))
        if isinstance(m, Scale) and np.array_equal(rows, columns) and live.all():
            return Scale(m.factor if np.size(m.factor) == 1 else m.factor[rows])
        if isinstance(m, Scale):
            factor = np.broadcast_to(m.factor, self._network.size(j))[rows]
            matrix = factor[:, None] * (rows[:, None] == columns)
        elif _is_plain(m):
            matrix = _block(m, rows, columns)
        else:
            units = np.eye(self._network.size(j))[columns]
            if (_counting(m).forward(_FLOATS, units) > 1).any():
                return None
            matrix = m.forward(_FLOATS, units)[:, rows].T
        return Dense(np.ascontiguousarray(matrix * live)[None, None])


def _block(m: Dense, rows: Index, columns: Index) -> Floats:
    """Some rows and columns of a map that has one matrix for each of its groups."""
    (_, groups, outputs, inputs), places = m.weight.shape, prod(m.before)
    (outer, place), (behind, other) = np.divmod(rows, places), np.divmod(columns, places)
    (owner, output), (source, given) = np.divmod(outer, outputs), np.divmod(behind, inputs)
    weight = m.weight[0, (owner % groups)[:, None], output[:, None], given]
    return np.asarray(weight * ((owner[:, None] == source) & (place[:, None] == other)))
