"""Bounds of questions over many boxes at a time: zonotopes for what lies inside, a backward pass for the margins.

Where few inputs vary, pushing affine forms (`krelax.bounds.forms`) forward is far cheaper than a backward pass for
every neuron. Every neuron that is not exact adds a symbol.

The forms also say which input to cut. A linear term is not what a cut improves: the worst corner of the box stays a
corner of one half, with the same value. What shrinks is the error of the relaxations, so every symbol is traced back
to the inputs that made its neuron inexact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from krelax.activations import Lines, Relaxation, Rule
from krelax.bounds.backward import lower_bound, outputs
from krelax.bounds.forms import Band, Form, absolutes, activate, affine, band_of, inputs, interval, spread_of
from krelax.bounds.instance import Instance, OutOfTime, memory_budget, workers
from krelax.bounds.layers import LayerBounds
from krelax.bounds.mixtures import UNIT, improve, most_rows
from krelax.bounds.quadratic import Products, Rows
from krelax.bounds.rounding import bounding, gamma, underflow
from krelax.bounds.steps import Single, Witness
from krelax.network.graph import products
from krelax.network.ops import Linear
from krelax.problem.extensions import matches, with_margins
from krelax.problem.queries import Queries
from krelax.problem.region import Box, Region, middle
from krelax.watch import now

# Symbols of one box take no more, and no more than a part of what may be used, because a pass holds so many tensors of
# them; the smallest of further ones become part of the error, which intervals carry from layer to layer.
_MOST_BYTES, _COPIES = 512 << 20, 3
# Symbols of the inputs take no more.
_INPUT_BYTES = 64 << 20
# A tensor of symbols should not be larger: it falls out of the caches.
_CACHE_BYTES = 16 << 20
# So often is the range halved in which a weight is sought.
_HALVINGS = 12


@dataclass
class Bounds:
    """What is known of clauses over boxes.

    `value`, `(boxes, clauses)`, are proven lower bounds of their largest margins: of a form that shares its weight
    among the members, `weights`, `(boxes, margins)`, in units of `UNIT`; None where every clause has one member. The
    rest only proposes: `slopes`, `(boxes, clauses, varied)`, say how that form changes from the centre of the box to
    its face, and `blame`, of the same shape, which input makes the bound how loose.
    """

    value: Tensor
    slopes: Tensor
    blame: Tensor
    weights: Tensor | None

    @classmethod
    def join(cls, parts: Sequence[Bounds]) -> Bounds:
        """What is known over boxes and others, where no weights are."""
        value, slopes, blame = (torch.cat([getattr(p, name) for p in parts]) for name in ("value", "slopes", "blame"))
        return cls(value, slopes, blame, None)

    def select(self, index: Tensor) -> Bounds:
        """What is known over some of the boxes."""
        weights = None if self.weights is None else self.weights[index]
        return Bounds(self.value[index], self.slopes[index], self.blame[index], weights)


class Bounder:
    """Bounds questions over boxes inside the regions of `instance`: one, or several that are `alike`.

    Boxes are given by their faces in the inputs that vary, `(boxes, varied)`; `varied` are the flat indices of those.
    An input whose faces have no number between them is part of the error: decimals are enclosed so; and all but the
    first `free` ones, if that is given. Boxes have at most `symbols`, beside those of the inputs.
    """

    def __init__(
        self, instance: Instance, queries: Queries, symbols: float = torch.inf, free: int | None = None
    ) -> None:
        self._instance, queries = instance, queries if alike(queries) else queries.distinct()[0]
        self._network, region = instance.network, instance.region
        self._clause = queries.clause[0]
        self._rows, self._offsets = (t[:, self._clause.argsort()] for t in (queries.rows, queries.offsets))
        self._members: Tensor | None = None
        self._table = torch.arange(queries.clauses, device=self._clause.device).unsqueeze(1)
        if len(self._clause) > queries.clauses:
            self._network = with_margins(instance.network, queries)
            numbers = torch.arange(queries.clauses, device=self._clause.device)
            self._members = (self._clause == numbers[:, None]).to(queries.rows)
            self._offsets = queries.offsets.new_zeros(1, queries.clauses)
            self._table = _members_of(self._clause, queries.clauses)
        self._faces = region.lower.flatten(1), region.upper.flatten(1)
        self.varied = varied(region) if free is None else torch.arange(free, device=region.lower.device)
        self._absolute = [absolutes(n.op) for n in self._network.nodes]
        self._last_use = {j: i for i, node in enumerate(self._network.nodes) for j in node.inputs}
        self._row = 8 * max(prod(node.shape) for node in self._network.nodes)
        self._symbols, self.until = len(self.varied), torch.inf
        budget = memory_budget(region.lower.device) // (_COPIES * workers(region.lower.device))
        self._most = min(symbols, (min(_MOST_BYTES, budget) // self._row) - len(self.varied))
        self._last = LayerBounds()

    @property
    def at_a_time(self) -> int:
        """How many boxes to bound at a time, judging by the last ones."""
        return max(1, _CACHE_BYTES // (self._row * max(1, self._symbols)))

    @property
    def passes(self) -> float:
        """What backward passes for the neurons that are undecided over the box that was bounded last would cost, if
        bounding that box is one."""
        nodes, relaxations = self._network.nodes, self._last.relaxations
        rows = {nodes[i].inputs[0]: 2 * int(r.unstable()[-1].sum()) for i, r in relaxations.items()}
        dear = sum(count * products(nodes[: z + 1]) for z, count in rows.items())
        return dear / max(1, self._symbols * products(nodes))

    def points(self, x: Tensor) -> Tensor:
        """Inputs `(n, *input_shape)` from the entries that vary, `(n, varied)`."""
        return self._completed(x, self._faces[0][:1])

    def _completed(self, x: Tensor, others: Tensor) -> Tensor:
        full = others.expand(len(x), -1).index_copy(1, self.varied, x)
        return full.reshape(-1, *self._network.input_shape)

    def bound(self, lower: Tensor, upper: Tensor, question: Tensor | None = None) -> Bounds:
        """Bounds over every box; of several questions, with the number of that which each is about, `(boxes,)`. Raises
        OutOfTime at the instance's deadline, and `until` then, on the clock of `krelax.watch.now`."""
        own = slice(0, 1) if question is None else question
        boxes = Box(*(self._completed(x, face[own]) for x, face in zip((lower, upper), self._faces, strict=True)))
        bounds, witness, form, shares, beyond = self._forward(boxes)
        self._last = bounds
        rows, offsets, weights = self._rows[own], self._offsets[own], None
        if self._members is not None:
            weights = shared_weights(form.centre, form.symbols, form.error, self._clause)
            rows = self._members * (weights / UNIT).unsqueeze(1)
        found = self._margins(form, shares, rows, offsets, weights)
        rows, offsets = (t.expand(len(boxes), *t.shape[1:]) for t in (rows, offsets))
        if not bool((found.value > 0).all()):
            asked = outputs(self._network, rows, offsets)
            backward = lower_bound(self._network, boxes, asked, witness, bounds)
            found.value = torch.maximum(found.value, backward)
        if beyond and not bool((found.value > 0).all()):
            self._second_order(found, form, shares, beyond, (rows, offsets))
        return found

    def _second_order(
        self, found: Bounds, output: Form, shares: Tensor, beyond: list[Products], asked: tuple[Tensor, Tensor]
    ) -> None:
        """Better bounds of clauses that are open, if what products are beyond lines makes them better, and the weights
        that they are of. Boxes with few open clauses come first, and no more than can be done quickly."""
        open_ = ~(found.value > 0)
        count = torch.where(open_.any(1), open_.sum(1), open_.numel())
        order = count.argsort(stable=True)
        affordable = count[order].cumsum(0) <= most_rows(len(self.varied), self._table.shape[1])
        open_[order[~affordable]] = False
        box, clause = open_.nonzero(as_tuple=True)
        if not len(box):
            return
        place = self._table[clause]
        margins = self._rows_of(output, box, place.clamp(min=0), *asked)
        given = torch.full(place.shape, float(UNIT), dtype=margins.centre.dtype, device=place.device)
        if found.weights is not None:
            given = torch.where(place >= 0, found.weights[box].gather(1, place.clamp(min=0)), 0.0)
        best, weights = improve(margins, given, place >= 0, [p.select(box) for p in beyond], shares[box])
        better = best.value > found.value[box, clause]
        box, clause, place, weights = (t[better] for t in (box, clause, place, weights))
        found.value[box, clause], found.slopes[box, clause] = best.value[better], best.slopes[better]
        found.blame[box, clause] = best.blame[better]
        if found.weights is not None:
            row, member = (place >= 0).nonzero(as_tuple=True)
            found.weights[box[row], place[row, member]] = weights[row, member]

    def _rows_of(self, output: Form, box: Tensor, place: Tensor, rows: Tensor, offsets: Tensor) -> Rows:
        """The forms of margins, `(rows, members)` of them, each over one of the boxes."""
        centre, symbols, error, size = (
            t.flatten(k)[box]
            for t, k in zip((output.centre, output.symbols, output.error, output.size), (1, 2, 1, 1), strict=True)
        )
        if self._members is not None:
            index = place.unsqueeze(1).expand(-1, symbols.shape[1], -1)
            return Rows(centre.gather(1, place), symbols.gather(2, index), error.gather(1, place))
        columns, offsets = rows[box, place[:, 0]], offsets[box, place[:, 0]]
        terms, steep = columns.shape[1], columns.abs()
        size = (size * steep).sum(1) + offsets.abs()
        lost = gamma(terms, size.dtype) * size + underflow(terms * (1 + symbols.shape[1]), output.size[box])[:, 0]
        centre, error = (centre * columns).sum(1) + offsets, (error * steep).sum(1) + lost
        return Rows(*(t.unsqueeze(-1) for t in (centre, (symbols @ columns.unsqueeze(2)).squeeze(2), error)))

    def _forward(self, boxes: Box) -> tuple[LayerBounds, Witness, Form, Tensor, list[Products]]:
        """What the backward pass needs, the form of the output, for every symbol the shares, `(boxes, symbols,
        varied)`, that the inputs have in it, and what symbols of products stand for."""
        nodes, beyond = self._network.nodes, list[Products]()
        form, count = inputs(boxes.lower, boxes.upper, self.varied), len(self.varied)
        shares = torch.eye(count, dtype=form.centre.dtype, device=form.centre.device).expand(len(form.centre), -1, -1)
        forms, bounds, witness = {0: form}, LayerBounds(), Witness()
        bounds.append(boxes.lower, boxes.upper, form.size)
        for i, node in enumerate(nodes[1:], start=1):
            self._check()
            absolute = self._absolute[i]
            if isinstance(node.op, Linear) and absolute is not None:
                form = affine(node.op, *absolute, [forms[j] for j in node.inputs])
            else:
                operand = forms[node.inputs[0]]
                absolute_sum, origin = spread_of(operand, shares)
                lower, upper = interval(operand, absolute_sum)
                bounds.relaxations[i] = relaxation = self._network.activation(i).relax(lower, upper)
                witness[i], band = _lines(relaxation, bool(self._instance.logs))
                room, before = self._room(shares), shares.shape[1]
                more = Products.of(operand, absolute_sum, relaxation, band, before, room, count)
                beyond += [] if more is None else [more]
                form, shares = activate(operand, absolute_sum, origin, relaxation, band, shares, room)
            forms[i] = form
            bounds.append(-form.size, form.size, form.size)
            for j in {j for j in node.inputs if self._last_use[j] == i}:
                del forms[j]
        self._symbols = shares.shape[1]
        return bounds, witness, form, shares, beyond

    def _check(self) -> None:
        self._instance.check()
        if now() > self.until:
            raise OutOfTime

    def _room(self, shares: Tensor) -> int:
        """How many symbols there is still room for."""
        return max(1, int(len(self.varied) + self._most) - shares.shape[1])

    def _margins(self, output: Form, shares: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor | None) -> Bounds:
        """Bounds of `rows`, `(boxes | 1, clauses, outputs)`, and offsets by the form of the output alone."""
        columns, size = rows.transpose(1, 2), output.size.flatten(1)
        symbols = output.symbols.flatten(2) @ columns
        spread, count = symbols.abs(), symbols.shape[1]

        def over(t: Tensor, by: Tensor) -> Tensor:
            return (t.flatten(1).unsqueeze(1) @ by).squeeze(1)

        lost = gamma(rows.shape[2] + count, rows.dtype) * (over(size, columns.abs()) + offsets.abs())
        lost = lost + underflow(rows.shape[2] * (1 + count), output.size)
        error = over(output.error, columns.abs()) + lost
        value = over(output.centre, columns) + offsets - spread.sum(1) - error
        blame = spread.transpose(1, 2) @ shares[:, :count]
        if self._members is not None:  # a member without weight may get some as its error shrinks
            every = output.symbols.flatten(2).abs().transpose(1, 2) @ shares[:, :count]
            blame = blame + self._members @ every
        return Bounds(bounding(value), symbols[:, : len(self.varied)].transpose(1, 2), blame, weights)


def _members_of(clause: Tensor, clauses: int) -> Tensor:
    """The numbers of each clause's margins, `(clauses, most)`, -1 for none."""
    each = [(clause == n).nonzero()[:, 0] for n in range(clauses)]
    return torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=-1)


def shared_weights(centre: Tensor, symbols: Tensor, error: Tensor, clause: Tensor) -> Tensor:
    """How much each margin should count in its clause, so that the sum is large all over a box: whole numbers, of which
    those of a clause add up to `UNIT`, `(boxes, margins)`.

    Margins are affine forms, `centre` and `error` `(boxes, margins)` and `symbols` `(boxes, symbols, margins)`. Of two
    neighbours each the best mixture goes on. A proposal: any weights prove something.
    """
    order = clause.argsort(stable=True)
    owner, centre, symbols = clause[order], (centre - error)[:, order], symbols[:, :, order]
    parts = torch.eye(len(owner), dtype=centre.dtype, device=centre.device).expand(len(centre), -1, -1)
    while bool((owner[1:] == owner[:-1]).any()):
        first, second, _ = matches(owner)
        ways = centre[:, first] - centre[:, second], symbols[:, :, first] - symbols[:, :, second]
        share = _best_share(*ways, symbols[:, :, second]).unsqueeze(1)
        centre = centre[:, second] + share[:, 0] * ways[0]
        symbols = symbols[:, :, second] + share * ways[1]
        parts = parts[:, :, second] + share * (parts[:, :, first] - parts[:, :, second])
        owner = owner[second]
    weights = (parts.sum(2) * UNIT).floor()
    whole = centre.new_zeros(len(centre), len(owner)).index_add_(1, clause[order], weights)
    largest = parts.argmax(1)  # of every clause
    weights = weights.scatter_add(1, largest, UNIT - whole)
    return torch.empty_like(weights).index_copy_(1, order, weights)


def _best_share(centre: Tensor, symbols: Tensor, base: Tensor) -> Tensor:
    """The t in [0, 1] at which `t centre - sum_s |base_s + t symbols_s|` is largest: it is concave, and found by
    bisection; `(boxes, pairs)`."""

    def mixed(t: Tensor) -> Tensor:
        return base + t.unsqueeze(1) * symbols

    low, high = torch.zeros_like(centre), torch.ones_like(centre)
    for _ in range(_HALVINGS):
        at = (low + high) / 2
        slope = centre - (mixed(at).sign() * symbols).sum(1)
        low, high = torch.where(slope >= 0, at, low), torch.where(slope <= 0, at, high)
    candidates = torch.stack([(low + high) / 2, torch.zeros_like(low), torch.ones_like(low)])
    values = torch.stack([t * centre - mixed(t).abs().sum(1) for t in candidates])
    return candidates.gather(0, values.argmax(0, keepdim=True))[0]


def divisible(region: Region) -> Tensor:
    """Which inputs have a number between their faces, so that they can be cut, `(batch, inputs)`."""
    at = middle(region.lower, region.upper)
    return ((region.lower < at) & (at < region.upper)).flatten(1)


def varied(region: Region) -> Tensor:
    """The flat indices of inputs that can be cut in some region of the batch."""
    return divisible(region).any(0).nonzero()[:, 0]


def alike(queries: Queries) -> bool:
    """Whether all questions of a batch have the same clauses, each of one margin."""
    return queries.clause.shape[1] == queries.clauses and bool((queries.clause == queries.clause[:1]).all())


def fits(instance: Instance) -> bool:
    """Whether the symbols of the inputs alone, for one box, are no more than one box may have."""
    return 8 * len(varied(instance.region)) * max(prod(node.shape) for node in instance.network.nodes) <= _INPUT_BYTES


class _Fixed(Single):
    """Lines that nothing optimises."""

    def __init__(self, relaxation: Relaxation, lines: Lines) -> None:
        self.relaxation, self._lines = relaxation, lines
        self._lower = self._upper = None


def _lines(relaxation: Relaxation, proofs: bool) -> tuple[Single, Band]:
    """The lines of the backward pass and those of the forms. Certificates name no slopes in boxes: their checker
    derives them."""
    adaptive, parallel = relaxation.box_lines()
    lines = parallel if proofs and relaxation.derived is Rule.PARALLEL else adaptive
    return _Fixed(relaxation, lines), band_of(parallel)
