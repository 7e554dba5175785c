"""Bounds of one question over many boxes at a time: zonotopes for what lies inside, a backward pass for the margins.

Where few inputs vary, pushing affine forms forward is far cheaper than a backward pass for every neuron. Every node is
`centre + sum_s symbols[s] e_s` up to `error`, with `|e_s| <= 1` (DeepZ, Singh et al. 2018): the first symbols are the
inputs, each scaled to the box, and every neuron that is not exact adds one. Symbols are packed box by box, so there are
as many as the box with the most inexact neurons needs.

The forms also say which input to cut. A linear term is not what a cut improves: the worst corner of the box stays a
corner of one half, with the same value. What shrinks is the error of the relaxations, so every symbol is traced back
to the inputs that made its neuron inexact.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from krelax.activations import Lines, Relaxation, Rule
from krelax.bounds.backward import lower_bound, outputs
from krelax.bounds.instance import Instance, OutOfTime
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import bounding, gamma, underflow
from krelax.bounds.steps import Single, Witness
from krelax.network.ops import Linear
from krelax.op import Op
from krelax.problem.extensions import matches, with_margins
from krelax.problem.queries import Queries
from krelax.problem.region import Box, Region, middle

# Symbols of one box take no more; the smallest of further ones become part of the error.
_MOST_BYTES = 64 << 20
# A tensor of symbols should not be larger: it falls out of the caches.
_CACHE_BYTES = 16 << 20
# Weights are so many times smaller than they are written; and so often is the range halved in which one is sought.
UNIT, _HALVINGS = 1 << 14, 12


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

    def select(self, index: Tensor) -> Bounds:
        """What is known over some of the boxes."""
        weights = None if self.weights is None else self.weights[index]
        return Bounds(self.value[index], self.slopes[index], self.blame[index], weights)


@dataclass
class _Form:
    """One node: `centre`, `error` and `size` are `(boxes, *shape)`, `symbols` is `(boxes, symbols, *shape)`; the size
    bounds the sum of the absolute values of all parts. Symbols that came later than this form are left out."""

    centre: Tensor
    symbols: Tensor
    error: Tensor
    size: Tensor


class Bounder:
    """Bounds one question, `queries` with a batch of one, over boxes inside the region of `instance`.

    Boxes are given by their faces in the inputs that vary, `(boxes, varied)`; `varied` are the flat indices of those.
    An input whose faces have no number between them is part of the error: decimals are enclosed so.
    """

    def __init__(self, instance: Instance, queries: Queries) -> None:
        self._instance, queries = instance, queries.distinct()[0]
        self._network, region = instance.network, instance.region
        self._clause = queries.clause[0]
        self._rows, self._offsets = (t[:, self._clause.argsort()] for t in (queries.rows, queries.offsets))
        self._members: Tensor | None = None
        if len(self._clause) > queries.clauses:
            self._network = with_margins(instance.network, queries)
            numbers = torch.arange(queries.clauses, device=self._clause.device)
            self._members = (self._clause == numbers[:, None]).to(queries.rows)
            self._offsets = queries.offsets.new_zeros(1, queries.clauses)
        self._faces = region.lower.flatten(), region.upper.flatten()
        self.varied = varied(region)
        self._absolute = [_absolute(n.op) for n in self._network.nodes]
        self._last_use = {j: i for i, node in enumerate(self._network.nodes) for j in node.inputs}
        self._row = 8 * max(prod(node.shape) for node in self._network.nodes)
        self._symbols, self.until = len(self.varied), torch.inf

    @property
    def at_a_time(self) -> int:
        """How many boxes to bound at a time, judging by the last ones."""
        return max(1, _CACHE_BYTES // (self._row * max(1, self._symbols)))

    def points(self, x: Tensor) -> Tensor:
        """Inputs `(n, *input_shape)` from the entries that vary, `(n, varied)`."""
        return self._completed(x, self._faces[0])

    def _completed(self, x: Tensor, others: Tensor) -> Tensor:
        full = others.expand(len(x), -1).index_copy(1, self.varied, x)
        return full.reshape(-1, *self._network.input_shape)

    def bound(self, lower: Tensor, upper: Tensor) -> Bounds:
        """Bounds over every box. Raises OutOfTime at the instance's deadline, and `until` then, on the clock of
        `time.perf_counter()`."""
        boxes = Box(self._completed(lower, self._faces[0]), self._completed(upper, self._faces[1]))
        bounds, witness, form, shares = self._forward(boxes)
        rows, weights = self._rows, None
        if self._members is not None:
            weights = shared_weights(form.centre, form.symbols, form.error, self._clause)
            rows = self._members * (weights / UNIT).unsqueeze(1)
        found = self._margins(form, shares, rows, weights)
        rows, offsets = (t.expand(len(boxes), *t.shape[1:]) for t in (rows, self._offsets))
        asked = outputs(self._network, rows, offsets)
        backward = lower_bound(self._network, boxes, asked, witness, bounds)
        found.value = torch.maximum(found.value, backward)
        return found

    def _forward(self, boxes: Box) -> tuple[LayerBounds, Witness, _Form, Tensor]:
        """What the backward pass needs, the form of the output, and for every symbol the shares, `(boxes, symbols,
        varied)`, that the inputs have in it."""
        nodes = self._network.nodes
        form, shares = self._inputs(boxes)
        forms, bounds, witness = {0: form}, LayerBounds(), Witness()
        bounds.append(boxes.lower, boxes.upper, form.size)
        for i, node in enumerate(nodes[1:], start=1):
            self._check()
            absolute = self._absolute[i]
            if isinstance(node.op, Linear) and absolute is not None:
                form = _affine(node.op, *absolute, [forms[j] for j in node.inputs])
            else:
                operand = forms[node.inputs[0]]
                absolute_sum, origin = _spread(operand, shares)
                lower, upper = _interval(operand, absolute_sum)
                bounds.relaxations[i] = relaxation = self._network.activation(i).relax(lower, upper)
                witness[i], band = _lines(relaxation, bool(self._instance.logs))
                form, shares = _activate(operand, absolute_sum, origin, relaxation, band, shares, self._room(shares))
            forms[i] = form
            bounds.append(-form.size, form.size, form.size)
            for j in {j for j in node.inputs if self._last_use[j] == i}:
                del forms[j]
        self._symbols = shares.shape[1]
        return bounds, witness, form, shares

    def _check(self) -> None:
        self._instance.check()
        if time.perf_counter() > self.until:
            raise OutOfTime

    def _room(self, shares: Tensor) -> int:
        """How many symbols there is still room for."""
        return max(1, _MOST_BYTES // self._row - shares.shape[1])

    def _inputs(self, boxes: Box) -> tuple[_Form, Tensor]:
        """The input itself, and the shares of its symbols: each its own."""
        centre = middle(boxes.lower, boxes.upper)
        radius = torch.maximum(boxes.upper - centre, centre - boxes.lower)
        radius = torch.where(radius > 0, torch.nextafter(radius, torch.full_like(radius, torch.inf)), radius)
        count = len(self.varied)
        symbols = centre.new_zeros(len(centre), count, centre[0].numel())
        symbols[:, torch.arange(count, device=self.varied.device), self.varied] = radius.flatten(1)[:, self.varied]
        error = radius.flatten(1).index_fill(1, self.varied, 0.0).reshape(radius.shape)
        shares = torch.eye(count, dtype=centre.dtype, device=centre.device).expand(len(centre), -1, -1)
        form = _Form(centre, symbols.unflatten(2, centre.shape[1:]), error, centre.abs() + radius)
        return form, shares

    def _margins(self, output: _Form, shares: Tensor, rows: Tensor, weights: Tensor | None) -> Bounds:
        """Bounds of `rows`, `(boxes | 1, clauses, outputs)`, and offsets by the form of the output alone."""
        columns, size, offsets = rows.transpose(1, 2), output.size.flatten(1), self._offsets
        symbols = output.symbols.flatten(2) @ columns
        spread, count = symbols.abs(), symbols.shape[1]

        def over(t: Tensor, by: Tensor) -> Tensor:
            return (t.flatten(1).unsqueeze(1) @ by).squeeze(1)

        lost = gamma(rows.shape[2] + count, rows.dtype) * (over(size, columns.abs()) + offsets.abs())
        lost = lost + underflow(rows.shape[2] * (1 + count), output.size)
        error = over(output.error, columns.abs()) + lost
        value = over(output.centre, columns) + offsets - spread.sum(1) - error
        blame = spread.transpose(1, 2) @ shares[:, :count]
        return Bounds(bounding(value), symbols[:, : len(self.varied)].transpose(1, 2), blame, weights)


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


def varied(region: Region) -> Tensor:
    """The flat indices of inputs with a number between their faces, which can be cut."""
    at = middle(region.lower, region.upper)
    return ((region.lower < at) & (at < region.upper)).flatten().nonzero()[:, 0]


def fits(instance: Instance) -> bool:
    """Whether the symbols of the inputs alone, for one box, are no more than one box may have."""
    return 8 * len(varied(instance.region)) * max(prod(node.shape) for node in instance.network.nodes) <= _MOST_BYTES


def _absolute(op: Op) -> tuple[Linear, Linear | None] | None:
    """An affine operator's absolute value, and its sizes where they are more."""
    return (op.absolute(), None if op.is_exact else op.sizes()) if isinstance(op, Linear) else None


def _affine(op: Linear, absolute: Linear, sizes: Linear | None, operands: list[_Form]) -> _Form:
    """An affine operator acts on every part. Every symbol's products round, and each is part of the size. What the
    errors of constants multiply is the node itself, its error included."""
    boxes, most = len(operands[0].centre), max(f.symbols.shape[1] for f in operands)
    centre = op.forward(*(f.centre for f in operands))
    symbols = _each(op, [_padded(f.symbols, most) for f in operands])
    if sizes is None:
        both = absolute.linear(*(torch.cat([f.error, f.size]) for f in operands))
        error, size = both[:boxes], both[boxes:]
        bias = absolute.constant()
        size = (size if bias is None else size + bias).expand_as(centre)
    else:
        error = absolute.linear(*(f.error for f in operands))
        size = sizes.forward(*(f.size + f.error for f in operands)).expand_as(centre)
    if not op.moves_only:
        given = torch.cat([f.size.flatten(1) for f in operands], dim=1)
        error = error + gamma(op.terms, size.dtype) * size + _column(underflow(op.terms * (1 + most), given), size)
    return _Form(centre, symbols, error.expand_as(centre), size)


def _each(op: Linear, parts: list[Tensor]) -> Tensor:
    """The linear part of an operator on every symbol."""
    boxes, symbols = parts[0].shape[:2]
    if symbols == 0:
        return parts[0].new_zeros(boxes, 0, *op.shape(*(tuple(p.shape[2:]) for p in parts)))
    return op.linear(*(p.flatten(0, 1) for p in parts)).unflatten(0, (boxes, symbols))


def _padded(symbols: Tensor, count: int) -> Tensor:
    """With zeros for symbols that came later."""
    missing = count - symbols.shape[1]
    if not missing:
        return symbols
    return torch.cat([symbols, symbols.new_zeros(len(symbols), missing, *symbols.shape[2:])], dim=1)


def _column(t: Tensor, like: Tensor) -> Tensor:
    """`(boxes, 1)` as something to add to `(boxes, *shape)`."""
    return t.reshape(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class _Band:
    """Two parallel lines, `slope z - below <= a <= slope z + above`; shapes as in `Relaxation`."""

    slope: Tensor
    above: Tensor
    below: Tensor


class _Fixed(Single):
    """Lines that nothing optimises."""

    def __init__(self, relaxation: Relaxation, lines: Lines) -> None:
        self.relaxation, self._lines = relaxation, lines
        self._lower = self._upper = None


def _spread(form: _Form, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the absolute values of the symbols, `(boxes, *shape)`, and what the inputs contribute to them,
    `(boxes, entries, varied)`: one pass over the symbols for both."""
    count = form.symbols.shape[1]
    ones = shares.new_ones(len(shares), count, 1)
    both = form.symbols.abs().flatten(2).transpose(1, 2) @ torch.cat([shares[:, :count], ones], dim=2)
    return both[..., -1].reshape(form.centre.shape), both[..., :-1]


def _interval(form: _Form, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of a node, rounding included."""
    radius = spread + form.error
    radius = radius + gamma(form.symbols.shape[1], radius.dtype) * (form.centre.abs() + radius)
    return form.centre - radius, form.centre + radius


def _lines(relaxation: Relaxation, proofs: bool) -> tuple[Single, _Band]:
    """The lines of the backward pass and those of the forms. Certificates name no slopes in boxes: their checker
    derives them."""
    adaptive, parallel = relaxation.box_lines()
    above, below = parallel.above[:, 0], parallel.below
    band = _Band(parallel.upper[:, 0], above, torch.zeros_like(above) if below is None else below[:, 0])
    return _Fixed(relaxation, parallel if proofs and relaxation.derived is Rule.PARALLEL else adaptive), band


def _activate(
    form: _Form, spread: Tensor, origin: Tensor, relaxation: Relaxation, band: _Band, shares: Tensor, room: int
) -> tuple[_Form, Tensor]:
    """An activation becomes a band: a new symbol for every inexact neuron, at most `room` of them for a box. Also the
    shares of all symbols."""

    def summed(t: Tensor) -> Tensor:
        return t.sum(-1) if relaxation.reduces else t

    steep, intercepts = band.slope.abs(), band.above.abs() + band.below.abs()
    terms = band.slope.shape[-1] if relaxation.reduces else 1
    centre = summed(band.slope * form.centre) + (band.above - band.below) / 2
    size = summed(steep * (form.centre.abs() + spread + form.error)) + intercepts
    lost = _column(underflow(terms * (1 + shares.shape[1]), form.size), size)
    error = summed(steep * form.error) + gamma(terms, size.dtype) * size + lost
    half, rest = _largest(((band.above + band.below) / 2).clamp(min=0), room)
    if relaxation.reduces:
        origin = origin.unflatten(1, form.centre.shape[1:]).sum(-2).flatten(1, -2)
        old = (band.slope.unsqueeze(1) * form.symbols).sum(-1).flatten(2)
        symbols, shares = _with_new(old, None, half.flatten(1), origin, shares)
    else:
        symbols, shares = _with_new(form.symbols.flatten(2), band.slope.flatten(1), half.flatten(1), origin, shares)
    return _Form(centre, symbols.unflatten(2, half.shape[1:]), error if rest is None else error + rest, size), shares


def _largest(half: Tensor, room: int) -> tuple[Tensor, Tensor | None]:
    """Half the widths of bands that get a symbol, and of those for which there is no room."""
    flat = half.flatten(1)
    if flat.shape[1] <= room or int((flat > 0).sum(1).max()) <= room:
        return half, None
    chosen = flat.topk(room, dim=1).indices
    kept = torch.zeros_like(flat).scatter(1, chosen, flat.gather(1, chosen)).reshape(half.shape)
    return kept, half - kept


def _with_new(old: Tensor, slope: Tensor | None, half: Tensor, origin: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """The symbols `(boxes, symbols, entries)` times `slope`, with new ones behind all others, packed box by box, and
    the shares of all."""
    boxes, before = shares.shape[:2]
    inexact = half > 0
    rank = inexact.cumsum(1) + (before - 1)
    total = int(rank[:, -1].max()) + 1
    symbols = old.new_empty(boxes, total, old.shape[2])
    if slope is None:
        symbols[:, : old.shape[1]] = old
    else:
        torch.mul(old, slope.unsqueeze(1), out=symbols[:, : old.shape[1]])
    symbols[:, old.shape[1] :] = 0
    box, place = inexact.nonzero(as_tuple=True)
    at = rank[box, place]
    symbols[box, at, place] = half[box, place]
    part = origin[box, place]
    more = shares.new_zeros(boxes, total, shares.shape[2])
    more[:, :before] = shares
    more[box, at] = part / part.sum(1, keepdim=True).clamp(min=torch.finfo(part.dtype).tiny)
    return symbols, more
