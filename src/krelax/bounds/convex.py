"""Activations that forms are convex in: no coefficient behind them is ever negative, whatever the slopes are.

Of a convex activation only the lower line counts, and over a convex set its best slope loses nothing. So a split of it
gains nothing, but where slopes fall short of the best: its turn comes when nothing else is left to split.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from krelax.activations import Activation
from krelax.bounds.backward import Form, pull
from krelax.bounds.layers import LayerBounds
from krelax.network.graph import Network
from krelax.network.ops import Linear

# Slopes are tried at so many corners of their ranges.
_TRIED = 8
# Coefficients that rounding may have made negative, relative to their ranges.
_ROUNDED = 1e-12
# The least and the largest that coefficients can be, `(1, *shape)` each.
Range = tuple[Tensor, Tensor]


def convex_activations(network: Network, form: Form) -> set[int]:
    """The piecewise-linear activations, from the last one on, behind all entries of which coefficients of the forms
    (batch 1) are at least zero, as far as slopes that are drawn tell. It proposes what to split last."""
    found, generator = set[int](), torch.Generator().manual_seed(0)
    coeffs = {i: torch.cat([coeff] * _TRIED, 1) for i, coeff in form.coeff.items()}
    pending = Form(coeffs, torch.cat([form.constant] * _TRIED, 1))
    for i in range(max(coeffs), 0, -1):
        coeff, node = pending.take(i), network.nodes[i]
        if coeff is None:
            continue
        if isinstance(node.op, Linear):
            pull(network, i, node.op, coeff, pending)
            continue
        leak = node.op.leak if isinstance(node.op, Activation) else None
        if leak is None or bool((coeff < 0).any()):
            break
        found.add(i)
        upper = torch.rand(coeff.shape, generator=generator).to(coeff.device) < 1 / 2
        pending.give(node.inputs[0], torch.where(upper, coeff, leak * coeff))
    return found


def convex_neurons(network: Network, form: Form, bounds: LayerBounds) -> dict[int, Tensor]:
    """By activation, the neurons, `(n,)`, that a form of one node (batch and queries 1) is convex in: coefficients
    behind them are never negative, whatever the slopes behind those are. Intervals of coefficients say so; as they
    round, this proposes what need not be split. Ends at the first activation without slopes."""
    ranges = {i: (coeff[0, 0, None], coeff[0, 0, None]) for i, coeff in form.coeff.items()}
    found: dict[int, Tensor] = {}
    for i in range(max(ranges), 0, -1):
        here, node = ranges.pop(i, None), network.nodes[i]
        if here is None:
            continue
        if isinstance(node.op, Linear):
            parts = _pulled(node.op, here, [network.nodes[j].shape for j in node.inputs])
        else:
            triangle = bounds.relaxations[i].triangle()
            if triangle is None:
                break
            found[i] = here[0].flatten() >= -_ROUNDED * here[1].flatten().abs()
            slopes = triangle.slope_range()
            parts = [_hull([slope * side for slope in slopes for side in here])]
        for j, (low, high) in zip(node.inputs, parts, strict=True):
            before = ranges.get(j)
            ranges[j] = (low, high) if before is None else (before[0] + low, before[1] + high)
    return found


def _pulled(op: Linear, here: Range, shapes: Sequence[tuple[int, ...]]) -> list[Range]:
    """The ranges of coefficients of the operands."""
    middle, radius = (here[0] + here[1]) / 2, (here[1] - here[0]) / 2
    pairs = zip(op.adjoint(middle, *shapes), op.absolute().adjoint(radius, *shapes), strict=True)
    return [(centre - width, centre + width) for centre, width in pairs]


def _hull(values: Sequence[Tensor]) -> Range:
    stacked = torch.stack(torch.broadcast_tensors(*values))
    return stacked.amin(0), stacked.amax(0)
