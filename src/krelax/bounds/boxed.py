"""Bounds of one question over many boxes at a time: zonotopes for what lies inside, a backward pass for the margins.

Where inputs are few, pushing affine forms forward is far cheaper than a backward pass for every neuron. Every node is
`centre + sum_s symbols[s] e_s` up to `error`, with `|e_s| <= 1` (DeepZ, Singh et al. 2018): the first symbols are the
inputs, each scaled to the box, and every neuron that is not exact adds one. Symbols are packed box by box, so there are
as many as the box with the most inexact neurons needs.

The forms also say which input to split. A linear term in an input is not what a cut improves: the worst corner of the
box stays a corner of one half, with the same value. What shrinks is the relaxations' error, so every symbol is traced
back to the inputs that made its neuron uncertain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from krelax.bounds.backward import lower_bound, outputs
from krelax.bounds.intervals import Intervals
from krelax.bounds.rounding import gamma, underflow
from krelax.bounds.steps import by_rule
from krelax.network.activations import Activation
from krelax.network.graph import Network, Node
from krelax.network.ops import Linear
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.relaxations import Relaxation, Rule, relax


@dataclass
class Bounds:
    """Proven lower bounds of the margins, `(boxes, queries)`, and how much of each margin's uncertainty every input is
    to blame for, `(boxes, queries, inputs)`: a proposal, not a bound."""

    value: Tensor
    blame: Tensor


@dataclass
class _Form:
    """One node over a batch of boxes: `centre`, `error` and `size` are `(boxes, *shape)`, `symbols` `(boxes, symbols,
    *shape)`. The size bounds the sum of the absolute values of all parts."""

    centre: Tensor
    symbols: Tensor
    error: Tensor
    size: Tensor


class Bounder:
    """Bounds one question, `queries` with a batch of one, over batches of boxes."""

    def __init__(self, network: Network, queries: Queries) -> None:
        self.network, self.queries = network, queries
        self._absolute = [n.op.absolute() if isinstance(n.op, Linear) else None for n in network.nodes]
        self._last = {j: i for i, node in enumerate(network.nodes) for j in node.inputs}

    def bound(self, boxes: Box) -> Bounds:
        """Bounds over every box."""
        known, form, shares = self._forward(boxes)
        value, blame = self._margins(form, shares)
        rows, offsets = (t.expand(len(boxes), *t.shape[1:]) for t in (self.queries.rows, self.queries.offsets))
        form_ = outputs(self.network, rows, offsets)
        backward = lower_bound(self.network, boxes, form_, by_rule(known, Rule.ADAPTIVE), known)
        return Bounds(torch.maximum(value, backward), blame)

    def _forward(self, boxes: Box) -> tuple[Intervals, _Form, Tensor]:
        """What the backward pass needs, the form of the output, and every symbol's shares, `(boxes, symbols, inputs)`,
        in the inputs."""
        first, shares = _identity(boxes)
        forms: dict[int, _Form] = {0: first}
        known = Intervals()
        known.append(boxes.lower, boxes.upper, first.size)
        for i, node in enumerate(self.network.nodes[1:], start=1):
            operands = [forms[j] for j in node.inputs]
            absolute = self._absolute[i]
            if isinstance(node.op, Linear) and absolute is not None:
                forms[i] = _affine(node.op, absolute, operands)
            else:
                forms[i], known.relaxations[i], shares = _activate(node, operands[0], shares)
            known.append(-forms[i].size, forms[i].size, forms[i].size)
            for j in node.inputs:
                if self._last[j] == i:
                    forms.pop(j, None)
        return known, forms[len(self.network.nodes) - 1], shares

    def _margins(self, output: _Form, shares: Tensor) -> tuple[Tensor, Tensor]:
        rows, offsets = self.queries.rows[0], self.queries.offsets
        size = output.size.flatten(1) @ rows.abs().T + offsets.abs()
        symbols = (output.symbols.flatten(2) @ rows.T).abs()
        terms = rows.shape[1] + symbols.shape[1]
        lost = gamma(terms, rows.dtype) * size + underflow(terms * (1 + symbols.shape[1]), output.size)
        centre = output.centre.flatten(1) @ rows.T + offsets
        value = centre - symbols.sum(1) - output.error.flatten(1) @ rows.abs().T - lost
        blame = symbols.transpose(1, 2) @ shares
        return torch.nan_to_num(value, nan=-torch.inf, posinf=-torch.inf), blame


def _identity(boxes: Box) -> tuple[_Form, Tensor]:
    """The input itself, and the shares of its symbols: each its own."""
    count, *shape = boxes.lower.shape
    inputs = prod(shape)
    centre = boxes.lower + (boxes.upper - boxes.lower) / 2
    radius = torch.maximum(boxes.upper - centre, centre - boxes.lower)
    radius = torch.where(radius > 0, torch.nextafter(radius, torch.full_like(radius, torch.inf)), radius)
    symbols = torch.diag_embed(radius.flatten(1)).unflatten(2, shape)
    shares = torch.eye(inputs, dtype=centre.dtype, device=centre.device).expand(count, -1, -1)
    return _Form(centre, symbols, torch.zeros_like(centre), centre.abs() + radius), shares


def _affine(op: Linear, absolute: Linear, operands: list[_Form]) -> _Form:
    most = max(f.symbols.shape[1] for f in operands)
    boxes = len(operands[0].centre)
    centre = op.forward(*(f.centre for f in operands))
    parts = [_padded(f.symbols, most).flatten(0, 1) for f in operands]
    symbols = op.linear(*parts).unflatten(0, (boxes, most))
    both = absolute.linear(*(torch.cat([f.error, f.size]) for f in operands))
    error, size = both[:boxes], both[boxes:]
    bias = absolute.constant()
    size = (size if bias is None else size + bias).expand_as(centre)
    error = error.expand_as(centre)
    if not op.moves_only:
        sizes = torch.cat([f.size.flatten(1) for f in operands], dim=1)
        lost = underflow(op.terms * (1 + most), sizes).reshape(-1, *[1] * (centre.dim() - 1))
        error = error + gamma(op.terms, centre.dtype) * size + lost
    return _Form(centre, symbols, error, size)


def _padded(symbols: Tensor, count: int) -> Tensor:
    """With zeros for the symbols that came later."""
    missing = count - symbols.shape[1]
    return torch.nn.functional.pad(symbols, [0, 0] * (symbols.dim() - 2) + [0, missing]) if missing else symbols


def _activate(node: Node, form: _Form, shares: Tensor) -> tuple[_Form, Relaxation, Tensor]:
    """An activation becomes the band between two parallel lines, with one new symbol for every inexact neuron."""
    absolute = form.symbols.abs()
    spread = absolute.sum(1)
    size = form.centre.abs() + spread + form.error
    radius = spread + form.error + gamma(absolute.shape[1], size.dtype) * size
    assert isinstance(node.op, Activation)
    relaxation = relax(node.op, form.centre - radius, form.centre + radius)
    lines = relaxation.lines_by(Rule.PARALLEL)
    slope, above = lines.upper[:, 0], lines.above[:, 0]
    below = torch.zeros_like(above) if lines.below is None else lines.below[:, 0]
    # parallel: the lower line of the rule has the upper one's slope, or lies where its own intercept puts it
    half = ((above + below) / 2).clamp(min=0)
    scaled, error, size_ = (_summed(t, relaxation) for t in (slope * form.centre, slope.abs() * form.error, slope.abs() * size))
    size_ = size_ + above.abs() + below.abs()
    terms = slope.shape[-1] if relaxation.reduces else 1
    lost = underflow(terms * (1 + shares.shape[1]), size).reshape(-1, *[1] * (half.dim() - 1))
    error = error + gamma(terms, slope.dtype) * size_ + lost
    blame = _summed(absolute, relaxation).flatten(2).transpose(1, 2) @ shares[:, : absolute.shape[1]]
    carried = _summed(slope.unsqueeze(1) * form.symbols, relaxation)
    symbols, shares = _with_new(carried, half, blame, shares)
    return _Form(scaled + (above - below) / 2, symbols, error, size_), relaxation, shares


def _summed(t: Tensor, relaxation: Relaxation) -> Tensor:
    return t.sum(-1) if relaxation.reduces else t


def _with_new(symbols: Tensor, half: Tensor, blame: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """The symbols with new ones behind all others, packed box by box, and the shares of all."""
    flat = half.flatten(1)
    inexact = flat > 0
    rank = inexact.cumsum(1) + (shares.shape[1] - 1)
    total = int(rank[:, -1].max()) + 1
    old = symbols.flatten(2)
    wide = old.new_empty(len(flat), total, flat.shape[1])
    wide[:, : old.shape[1]] = old
    wide[:, old.shape[1] :] = 0
    box, place = inexact.nonzero(as_tuple=True)
    at = rank[box, place]
    wide[box, at, place] = flat[box, place]
    more = shares.new_zeros(len(flat), total, shares.shape[2])
    more[:, : shares.shape[1]] = shares
    part = blame[box, place]
    more[box, at] = part / part.sum(1, keepdim=True).clamp(min=torch.finfo(part.dtype).tiny)
    return wide.unflatten(2, half.shape[1:]), more


__all__ = ["Bounder", "Bounds", "Mapping"]
