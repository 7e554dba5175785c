"""A bounding problem as the kernels of lanes want it: live neurons, sparse matrices, and charges for rounding.

Proofs in lanes compute, in float64 and for each layer from the last: coefficients behind it, which are sums over the
layers that read it; coefficients before it; and what crossing it costs. Errors are pushed on to the values that they
multiply, as in `krelax.bounds.rounding`, so that every slot has a charge for each unit of its coefficients.
docs/rounding.md has the proof.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.activations.joint import Joint, Together
from krelax.bounds.backward import Form, pull, rounding_of
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import gamma, underflow
from krelax.bounds.sites import Kinked
from krelax.lanes.matrices import Block, Matrix, Terms, Unmodelled, bias_of, folded, grouped, kept, rows_of, sizes_of
from krelax.lanes.pairs import PARTS, POINTS
from krelax.lanes.plan import Double, Forms, Layers, Pairs, Pattern, Proposing, Proving, Whole
from krelax.lanes.vectors import LANES
from krelax.network.ops import Linear
from krelax.problem.region import FLOOR, Box

# More products than these take too much memory.
_MOST = 6_000_000
# Units of rounding that the errors of an operator's constants may have in its sizes (`krelax.network.constants`).
_OF_CONSTANTS = 32


@dataclass(frozen=True, eq=False)
class Tables:
    """Everything that leaves share. `slot_of`: the slot of each neuron that can be split, -1 for none, and behind them
    all; `neuron_of`: the neuron of each slot, -1 for none, and behind them all. `nodes`: those of the layers."""

    nodes: list[int]
    layers: Layers
    down: Pattern
    up: Pattern
    proposing: Proposing
    proving: Proving
    pairs: Pairs
    fast: Forms
    exact: Forms
    slot_of: Whole
    neuron_of: Whole


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer: its node, the affine node that it is made of, the entries of its slots (undecided ones, then `flat`
    ones), the slope of the latter, and their terms by the layers before it."""

    node: int
    source: int
    entries: Whole
    free: int
    flat: int
    slope: float
    terms: Mapping[int, Terms]


def tables_of(
    instance: Instance, bounds: LayerBounds, form: Form, sites: Mapping[int, Kinked], assumed: int | None
) -> Tables | None:
    """The tables of the queries `form`, in the type that decides; None for what kernels do not model: regions that are
    no boxes, proposals in double precision, and what matrices do not say or only with too many terms."""
    if not isinstance(instance.region, Box) or instance.fast_network.dtype != torch.float32 or not sites:
        return None
    # the input, activations, and affine nodes that are layers of their own
    nodes = sorted({0, *sites, *kept(instance.network, max([*sites, *form.coeff]))})
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows proves nothing
            found, error = _settled(instance, bounds, form, nodes)
            layers = _layers(instance, bounds, found, sites, nodes, assumed)
            return _Assembly(instance, bounds, sites, layers, found, error).tables()
    except Unmodelled:
        return None


def _settled(instance: Instance, bounds: LayerBounds, form: Form, nodes: list[int]) -> tuple[Form, Tensor]:
    """The forms over layers alone, and what rounding may have changed: as the backward pass does it."""
    network = instance.network
    form, error = Form(dict(form.coeff), form.constant), torch.zeros_like(form.constant)
    for i in range(max(form.coeff), 0, -1):
        coeff = None if i in nodes else form.take(i)
        if coeff is None:
            continue
        op = network.nodes[i].op
        if not isinstance(op, Linear):
            raise Unmodelled
        pull(network, i, op, coeff, form)
        terms = coeff[0, 0].numel() + len(network.nodes) + op.terms
        error = error + rounding_of(network, bounds, i, coeff, terms)
    return form, error


def _layers(
    instance: Instance,
    bounds: LayerBounds,
    form: Form,
    sites: Mapping[int, Kinked],
    nodes: list[int],
    assumed: int | None,
) -> list[_Layer]:
    """The layers, from the last to the first: entries that nobody reads are left out, undecided ones never."""
    network = instance.network
    sizes = {i: prod(network.nodes[i].shape) for i in nodes}
    alive = {i: _alive(bounds, i, sites.get(i), n) for i, n in sizes.items()}
    needed = {i: np.zeros(n, np.bool_) for i, n in sizes.items()}
    for i, coeff in form.coeff.items():
        needed[i] |= (coeff[0].flatten(1) != 0).any(0).numpy()
    layers, left = [], _MOST
    for i in reversed(nodes[1:]):
        source = network.nodes[i].inputs[0] if i in sites else i
        wanted = (needed[i] & alive[i]) | (i == assumed)
        parts = _slots(bounds, i, sites[i], wanted) if i in sites else [wanted.nonzero()[0]]
        entries = np.concatenate(parts)
        found = rows_of(network, source, entries, set(nodes) - ({i} - {*sites}), left)
        terms = {j: t.select(alive[j][t.entry]) for j, t in found.items()}
        for j, t in terms.items():
            needed[j][t.entry] = True
            left -= len(t.row)
        free, flat = (len(parts[0]), len(parts[1])) if i in sites else (0, 0)
        slope = sites[i].relaxation.negative_slope if i in sites else 1.0
        layers.append(_Layer(i, source, entries, free, flat, slope, terms))
    return [_Layer(0, 0, np.arange(sizes[0]), 0, 0, 1.0, {}), *reversed(layers)]


def _alive(bounds: LayerBounds, node: int, site: Kinked | None, size: int) -> NDArray[np.bool_]:
    """Which entries of a layer are not zero everywhere."""
    if site is None or site.relaxation.negative_slope != 0:
        return np.ones(size, np.bool_)
    return (bounds.relaxations[node].upper.flatten() > 0).numpy()


def _slots(bounds: LayerBounds, node: int, site: Kinked, wanted: NDArray[np.bool_]) -> list[Whole]:
    """The entries of an activation that are undecided, and those wanted among the flat and the passing ones. Raises
    Unmodelled where single precision sees other signs."""
    relaxation = bounds.relaxations[node]
    undecided, lower = relaxation.unstable().flatten().numpy(), relaxation.lower.flatten().numpy()
    if not np.array_equal(undecided.nonzero()[0], site.undecided.numpy()):
        raise Unmodelled
    others = wanted & ~undecided
    return [mask.nonzero()[0] for mask in (undecided, others & (lower < 0), others & (lower >= 0))]


def _in_rows(points: Double) -> Double:
    """Points `(pairs, points, parts)` with a row of lanes for each part, whose points are numbered."""
    rows = np.zeros((len(points), points.shape[2], LANES))
    rows[:, :, : points.shape[1]] = points.swapaxes(1, 2)
    return rows.ravel()


class _Assembly:
    """Puts layers together."""

    def __init__(
        self,
        instance: Instance,
        bounds: LayerBounds,
        sites: Mapping[int, Kinked],
        layers: list[_Layer],
        form: Form,
        error: Tensor,
    ) -> None:
        self._network, self._bounds, self._sites, self._layers = instance.network, bounds, sites, layers
        self._form, self._error, self._region = form, error, instance.region
        assert isinstance(instance.region, Box)
        self._centre, self._radius = (t.flatten().numpy() for t in instance.region.halves)
        self._inputs = len(self._centre)
        self._slot = np.cumsum([0, self._inputs + 1, *(len(a.entries) for a in layers[1:])])
        self._number = {a.node: self._numbers(n, a) for n, a in enumerate(layers)}
        among = {a.node for a in layers}
        self._before = [among - ({a.node} - {0, *sites}) for a in layers]  # where the sums of a layer end
        self._bias = [bias_of(self._network, a.source, b).flatten() for a, b in zip(layers, self._before, strict=True)]

    def _numbers(self, n: int, layer: _Layer) -> Whole:
        number = np.full(prod(self._network.nodes[layer.node].shape), -1)
        number[layer.entries] = self._slot[n] + np.arange(len(layer.entries))
        return number

    def tables(self) -> Tables:
        layers, end = self._layers, int(self._slot[-1])
        forms = [n for n, a in enumerate(layers) if a.node in self._form.coeff]
        free, flat = np.cumsum([0, *(a.free for a in layers)]), np.array([a.flat for a in layers])
        slope = np.array([a.slope for a in layers])
        if not free[-1]:
            raise Unmodelled  # nothing to choose
        up, down = self._matrices()
        above, below = grouped(up, end), grouped(down, end)
        rows = [np.zeros(0, np.int64), *(b.row for m in down[:-1] for b in m.blocks)]
        most = int(np.bincount(np.concatenate(rows)).max(initial=0))
        pairs = self._pairs()
        proving, exact, lines, unit = self._proving(below.values(down, False), most, pairs)
        repeated = (np.repeat(t, LANES).astype(np.float32) for t in lines)
        proposing = Proposing(below.values(down, True), above.values(up, True), *repeated)
        found = Layers(self._slot, free, flat, slope, min(forms, default=len(layers) - 1))
        return Tables(
            [a.node for a in layers],
            found,
            below.pattern,
            above.pattern,
            proposing,
            proving,
            pairs._replace(unit=unit),
            self._forms(True),
            exact,
            *self._neurons(),
        )

    def _matrices(self) -> tuple[list[Matrix], list[Matrix]]:
        """Those of passes up, by the layer that reads, and down, by the layer that is read; behind the latter that of
        constants."""
        count, constant = len(self._layers), np.int64(self._inputs)
        up: list[list[Block]] = [[] for _ in range(count)]
        down: list[list[Block]] = [[] for _ in range(count + 1)]
        place = {a.node: n for n, a in enumerate(self._layers)}
        for n, layer in enumerate(self._layers[1:], start=1):
            bias = self._bias[n].numpy()[layer.entries]
            shifted = bias.copy()
            for j, t in layer.terms.items():
                row, col, scaled = self._slot[n] + t.row, self._number[j][t.entry], t.weight
                if j == 0:
                    scaled = t.weight * self._radius[t.entry]
                    shifted += np.bincount(t.row, t.weight * self._centre[t.entry], minlength=len(bias))
                up[n].append(Block(row, col, t.weight, scaled))
                down[place[j]].append(Block(col, row, t.weight, scaled))
            row = self._slot[n] + np.arange(len(bias))
            up[n].append(Block(row, np.full_like(row, constant), bias, shifted))
            down[count].append(Block(np.full_like(row, constant), row, bias, shifted))
        ends = [(int(a), int(b)) for a, b in zip(self._slot[:-1], self._slot[1:], strict=True)]
        ups = [Matrix(*(ends[n] if n else (0, 0)), blocks) for n, blocks in enumerate(up)]
        ends[0] = 0, self._inputs
        ends.append((self._inputs, self._inputs + 1))
        return ups, [Matrix(*ends[n], blocks) for n, blocks in enumerate(down)]

    def _pairs(self) -> Pairs:
        """The pairs of all layers, whose members are undecided, in the order of leaves' tables."""
        first, members, proposed, proven, reach = [0, 0], [], [], [], []
        for layer in self._layers[1:]:
            count = 0
            site = self._sites.get(layer.node)
            for mine, exact in zip(site.groups, self._bounds.groups.get(layer.node, ()), strict=True) if site else ():
                place = np.searchsorted(layer.entries[: layer.free], mine.members[0].numpy())
                members.append(place)
                proposed.append(_lifted(mine.joint))
                proven.append(_lifted(exact.joint))
                reach.append(exact.joint.magnitude[0].numpy() + FLOOR)
                count += len(place)
            first.append(first[-1] + count)
        none, every = np.zeros((0, 2)), [np.zeros((0, POINTS, PARTS))]
        lifted = [np.concatenate([*every, *kind]) for kind in (proposed, proven)]
        z = lifted[1][..., :2]
        signs = (((z > 0) * 1 + (z < 0) * 2) << np.array([0, 2])).sum(-1).astype(np.int32)
        return Pairs(
            np.array(first), np.concatenate([none.astype(np.int64), *members]),
            _in_rows(lifted[0]).astype(np.float32), _in_rows(lifted[1]), signs.ravel(),
            np.concatenate([none, *reach]).ravel(), 0.0,
        )  # fmt: skip

    def _proving(self, down: Double, most: int, pairs: Pairs) -> tuple[Proving, Forms, tuple[Double, Double], float]:
        """Charges, lines and the unit of pairs. No sum of products has more than `most` terms, but for those of
        constants."""
        bounds, layers = self._bounds, self._layers
        widest, slots = max(len(a.entries) for a in layers), int(self._slot[-1])
        # what is added up one after the other: three costs of every slot of a layer, layers, and inputs
        others = 3 * widest + len(layers) + 2 * self._inputs + max(self._folds())
        joint = 2 * len(pairs.member)
        others += joint
        short, long = (gamma(terms + others, torch.float64) for terms in (most, slots))
        largest = {a.node: torch.maximum(bounds.lower[a.node].abs(), bounds.upper[a.node].abs()) for a in layers}
        before, behind, extra = np.zeros(slots), np.zeros(slots), 0.0
        chords, heights, levels = [], [], [np.ones((1, 256))]
        for n, layer in enumerate(layers[1:], start=1):
            here, free = slice(self._slot[n], self._slot[n + 1]), layer.entries[: layer.free]
            inside = {i: largest[i] for i in self._before[n]}
            size = sizes_of(self._network, layer.source, inside).flatten()
            size = size + FLOOR * sum(float(largest[j].sum()) for j in layer.terms)
            bias = self._bias[n].abs()
            reach, high = largest[layer.node].flatten(), torch.zeros_like(size)
            sizes = [largest[layer.node]]
            if layer.node in self._sites:
                relaxation = bounds.relaxations[layer.node].triangle()
                assert relaxation is not None
                high, chord = (t.flatten() for t in (relaxation.height(), relaxation.chord()))
                chords.append(chord.numpy()[free])
                heights.append(high.numpy()[free])
                size = size + relaxation.magnitude.flatten()
                sizes.append(relaxation.magnitude)
            levels.append(self._levels(layer))
            before[here] = (short * (size + FLOOR) + long * (bias + FLOOR)).numpy()[layer.entries]
            behind[here] = (short * (reach + high + FLOOR)).numpy()[layer.entries]
            extra += sum(float(underflow(most + 4 * slots + PARTS * joint, t)) for t in sizes)
        extra += float(underflow(most + 4 * slots, self._region.magnitude))
        reach = self._region.magnitude.flatten() + FLOOR
        radius = self._radius + (short * reach).numpy()
        none = np.zeros(0)
        lines = np.concatenate([none, *chords]), np.concatenate([none, *heights])
        every, place = [np.repeat(t, LANES) for t in lines], np.concatenate(levels)
        proving = Proving(down, every[0], every[1], before, behind, self._centre, radius, place, extra)
        return proving, self._forms(False, short, largest), lines, short

    def _folds(self) -> list[int]:
        """For each layer, in units of rounding, what its weights and biases may be off beyond what one operator's may:
        a unit for each term and factor, and the errors of each operator's constants."""
        pairs = zip(self._layers, self._before, strict=True)
        found = (folded(self._network, a.source, before) for a, before in pairs)
        return [terms + operators * (1 + _OF_CONSTANTS) for terms, operators in found]

    def _levels(self, layer: _Layer) -> Double:
        """The slopes that a layer's lower lines may have, `(1, 256)`."""
        slope = torch.linspace(layer.slope, 1, 256, dtype=torch.float64)
        if layer.node in self._sites:
            slope = self._bounds.relaxations[layer.node].rounded(slope).clamp(layer.slope, 1)
        return slope[None].numpy()

    def _forms(self, fast: bool, unit: float = 0.0, largest: Mapping[int, Tensor] | None = None) -> Forms:
        """The queries over slots; those of proofs are less what rounding may change of them."""
        constant, parts = self._form.constant[0].clone(), []
        if largest is not None:
            constant -= self._error[0] + unit * (constant.abs() + FLOOR)
        for i, coeff in self._form.coeff.items():
            flat = coeff[0].flatten(1)
            if largest is not None:
                constant -= unit * (flat.abs() @ (largest[i].flatten() + FLOOR))
            query, entry = flat.numpy().nonzero()
            value, slot = flat.numpy()[query, entry], self._number[i][entry]
            if fast and i == 0:
                constant += flat @ torch.from_numpy(self._centre)
                value = value * self._radius[entry]
            parts.append((query[slot >= 0], slot[slot >= 0], value[slot >= 0]))
        none = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        query, slot, value = (np.concatenate([none[k], *(p[k] for p in parts)]) for k in range(3))
        order = np.argsort(query, kind="stable")
        start = np.searchsorted(query[order], np.arange(len(constant) + 1))
        return Forms(start, slot[order], value[order], constant.numpy())

    def _neurons(self) -> tuple[Whole, Whole]:
        last = max(site.first + site.count for site in self._sites.values())
        slot_of, neuron_of = np.full(last + 1, -1), np.full(int(self._slot[-1]) + 1, -1)
        for n, layer in enumerate(self._layers):
            if layer.node in self._sites:
                neuron = self._sites[layer.node].first + layer.entries
                slot_of[neuron] = self._slot[n] + np.arange(len(neuron))
                neuron_of[slot_of[neuron]] = neuron
        return slot_of, neuron_of


def _lifted(joint: Together) -> NDArray[Any]:
    """The points that span the hulls of groups of neurons that are split at their kinks, of one region."""
    assert isinstance(joint, Joint)
    return joint.lifted[0].numpy()
