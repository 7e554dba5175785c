"""Affine forms pushed forward: of every node, in terms of symbols between -1 and 1.

Every node is `centre + sum_s symbols[s] e_s` up to `error`, with `|e_s| <= 1` (DeepZ, Singh et al. 2018): the first
symbols are the inputs, each scaled to its box, and a neuron that is not exact may add one, or is part of the error.
Symbols are packed box by box, so there are as many as the box with the most inexact neurons needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from krelax.activations import Lines, Relaxation
from krelax.bounds.rounding import gamma, underflow
from krelax.network.graph import visit
from krelax.network.ops import Linear
from krelax.network.parts import Parts
from krelax.op import Op
from krelax.problem.region import middle
from krelax.watch import tick

# What follows an activation's intervals takes as long as so many products for an entry of a symbol.
_ELEMENTWISE = 64
# Numbers that an operator makes of symbols at a time: they stay in caches.
_AT_ONCE = 1 << 19
# Sums of so many terms are short.
_SHORT = 8
# Bands so narrow, relative to the largest numbers of an activation's lines, get no symbol.
_NARROW = 2.0**-40


@dataclass
class Form:
    """One node: `centre`, `error` and `size` are `(boxes, *shape)`, `symbols` is `(boxes, symbols, *shape)`; the size
    bounds the sum of the absolute values of all parts. Symbols that came later than this form are left out."""

    centre: Tensor
    symbols: Tensor
    error: Tensor
    size: Tensor


def inputs(lower: Tensor, upper: Tensor, varied: Tensor) -> Form:
    """The inputs of boxes, `(boxes, *shape)`: those that vary, flat indices, are symbols, and others are errors."""
    centre = middle(lower, upper)
    radius = torch.maximum(upper - centre, centre - lower)
    radius = torch.where(radius > 0, torch.nextafter(radius, torch.full_like(radius, torch.inf)), radius)
    count = len(varied)
    symbols = centre.new_zeros(len(centre), count, centre[0].numel())
    symbols[:, torch.arange(count, device=varied.device), varied] = radius.flatten(1)[:, varied]
    error = radius.flatten(1).index_fill(1, varied, 0.0).reshape(radius.shape)
    return Form(centre, symbols.unflatten(2, centre.shape[1:]), error, centre.abs() + radius)


def absolutes(op: Op) -> tuple[Linear, Linear | None] | None:
    """An affine operator's absolute value, and its sizes where they are more."""
    return (op.absolute(), None if op.is_exact else op.sizes()) if isinstance(op, Linear) else None


def affine(op: Linear, absolute: Linear, sizes: Linear | None, operands: list[Form]) -> Form:
    """An affine operator acts on every part. Every symbol's products round, and each is part of the size. What the
    errors of constants multiply is the node itself, its error included."""
    boxes, most = len(operands[0].centre), max(f.symbols.shape[1] for f in operands)
    centre = op.forward(*(f.centre for f in operands))
    symbols = _each(op, [f.symbols for f in operands])
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
    return Form(centre, symbols, error.expand_as(centre), size)


def _each(op: Linear, parts: list[Tensor]) -> Tensor:
    """The linear part of an operator on every symbol; those that came later are zero in some operands."""
    boxes, symbols = len(parts[0]), max(p.shape[1] for p in parts)
    if isinstance(op, Parts) and any(p.shape[1] < symbols for p in parts):
        each = sorted((_each(m, [p]) for m, p in zip(op.summands, parts, strict=True)), key=lambda t: -t.shape[1])
        for other in each[1:]:
            each[0][:, : other.shape[1]] += other
        return each[0]
    parts = [_padded(p, symbols) for p in parts]
    shape = op.shape(*(tuple(p.shape[2:]) for p in parts))
    if symbols == 0:
        return parts[0].new_zeros(boxes, 0, *shape)
    rows, flat = max(1, _AT_ONCE // max(1, prod(shape))), [p.flatten(0, 1) for p in parts]
    if op.moves_only or boxes * symbols <= rows:
        visit(op, shape, boxes * symbols)
        return op.linear(*flat).unflatten(0, (boxes, symbols))
    made = parts[0].new_empty(boxes * symbols, *shape)
    for i in range(0, len(made), rows):
        visit(op, shape, len(made[i : i + rows]))
        made[i : i + rows] = op.linear(*(p[i : i + rows] for p in flat))
    return made.unflatten(0, (boxes, symbols))


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
class Band:
    """Two parallel lines, `slope z - below <= a <= slope z + above`; shapes as in `Relaxation`."""

    slope: Tensor
    above: Tensor
    below: Tensor


def band_of(parallel: Lines) -> Band:
    """Parallel lines of an activation as a band."""
    above, below = parallel.above[:, 0], parallel.below
    return Band(parallel.upper[:, 0], above, torch.zeros_like(above) if below is None else below[:, 0])


def spread_of(form: Form, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the absolute values of the symbols, `(boxes, *shape)`, and what the inputs contribute to them,
    `(boxes, entries, varied)`: one pass over the symbols for both."""
    symbols = form.symbols.flatten(2)
    boxes, count, entries = symbols.shape
    tick(symbols.numel() * (_ELEMENTWISE + shares.shape[2]))
    weights = torch.cat([shares[:, :count], shares.new_ones(len(shares), count, 1)], dim=2)
    size = max(1, _AT_ONCE // max(1, boxes * entries))
    parts = zip(symbols.split(size, 1), weights.split(size, 1), strict=True)
    both = sum((part.abs().transpose(1, 2) @ by for part, by in parts), symbols.new_zeros(()))
    both = both.expand(boxes, entries, weights.shape[2])
    return both[..., -1].reshape(form.centre.shape), both[..., :-1]


def interval(form: Form, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of a node, rounding included."""
    radius = spread + form.error
    radius = radius + gamma(form.symbols.shape[1], radius.dtype) * (form.centre.abs() + radius)
    return form.centre - radius, form.centre + radius


def activate(
    form: Form, spread: Tensor, origin: Tensor, relaxation: Relaxation, band: Band, shares: Tensor, room: int
) -> tuple[Form, Tensor]:
    """An activation becomes a band: a new symbol for every inexact neuron, at most `room` of them for a box. Also the
    shares of all symbols."""

    def times(slope: Tensor, t: Tensor) -> Tensor:
        return _dot(slope, t) if relaxation.reduces else slope * t

    steep, intercepts = band.slope.abs(), band.above.abs() + band.below.abs()
    terms = band.slope.shape[-1] if relaxation.reduces else 1
    centre = times(band.slope, form.centre) + (band.above - band.below) / 2
    size = times(steep, form.centre.abs() + spread + form.error) + intercepts
    lost = _column(underflow(terms * (1 + shares.shape[1]), form.size), size)
    error = times(steep, form.error) + gamma(terms, size.dtype) * size + lost
    half, rest = half_widths(band, room)
    if relaxation.reduces:
        origin = origin.unflatten(1, form.centre.shape[1:]).sum(-2).flatten(1, -2)
        old = _dot(band.slope.unsqueeze(1), form.symbols).flatten(2)
        symbols, shares = _with_new(old, None, half.flatten(1), origin, shares)
    else:
        symbols, shares = _with_new(form.symbols.flatten(2), band.slope.flatten(1), half.flatten(1), origin, shares)
    return Form(centre, symbols.unflatten(2, half.shape[1:]), error if rest is None else error + rest, size), shares


def _dot(slope: Tensor, t: Tensor) -> Tensor:
    """Sums of products over the last axis; short sums entry by entry, which is many times faster."""
    if t.shape[-1] > _SHORT:
        return (slope * t).sum(-1)
    result = slope[..., 0] * t[..., 0]
    for k in range(1, t.shape[-1]):
        result = torch.addcmul(result, slope[..., k], t[..., k])
    return result


def half_widths(band: Band, room: int) -> tuple[Tensor, Tensor | None]:
    """Half the widths of bands that get a symbol, and of those that do not: for which there is no room, and which are
    so narrow that they are little more than rounding, as those of what does not vary."""
    half = ((band.above + band.below) / 2).clamp(min=0)
    flat = half.flatten(1)
    sizes = (band.above.abs() + band.below.abs()).flatten(1).nan_to_num(0.0, posinf=0.0).amax(1, keepdim=True)
    wide = flat > _NARROW * sizes
    kept = torch.where(wide, flat, 0.0)
    if flat.shape[1] > room and int(wide.sum(1).max()) > room:
        chosen = flat.topk(room, dim=1).indices
        kept = torch.zeros_like(flat).scatter(1, chosen, kept.gather(1, chosen))
    kept = kept.reshape(half.shape)
    return kept, None if torch.equal(kept, half) else torch.where(kept > 0, 0.0, half)


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
