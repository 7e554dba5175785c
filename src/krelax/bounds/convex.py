"""Activations that forms are convex in: no coefficient behind them is ever negative, whatever the slopes are.

Of a convex activation only the lower line counts, and over a convex set its best slope loses nothing. So a split of it
gains nothing, but where slopes fall short of the best: its turn comes when nothing else is left to split.
"""

from __future__ import annotations

import torch
from torch import Tensor

from krelax.activations import Activation
from krelax.bounds.backward import Form
from krelax.network.graph import Network
from krelax.network.ops import Linear


def convex_activations(network: Network, form: Form) -> set[int]:
    """The piecewise-linear activations, from the last one on, behind all entries of which coefficients of the forms
    (batch 1) are at least zero. It proposes what to split: rounding is not counted."""
    found: set[int] = set()
    ends = {i: (coeff, coeff) for i, coeff in form.coeff.items()}
    for i in range(max(ends), 0, -1):
        if i not in ends:
            continue
        (low, high), node = ends.pop(i), network.nodes[i]
        if isinstance(node.op, Linear):
            for j, part in zip(node.inputs, _pulled(network, i, node.op, low, high), strict=True):
                _add(ends, j, *part)
            continue
        assert isinstance(node.op, Activation)
        leak = node.op.leak
        if leak is None or bool((low < 0).any()):
            break
        found.add(i)
        _add(ends, node.inputs[0], leak * low, high)
    return found


def _pulled(network: Network, node: int, op: Linear, low: Tensor, high: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Least and largest coefficients of the inputs of an affine node."""
    shapes, size = [network.nodes[j].shape for j in network.nodes[node].inputs], low.shape[:2]
    middle = op.adjoint(((low + high) / 2).flatten(0, 1), *shapes)
    radius = op.absolute().adjoint(((high - low) / 2).flatten(0, 1), *shapes)
    pairs = zip(middle, radius, strict=True)
    return [((m - r).unflatten(0, size), (m + r).unflatten(0, size)) for m, r in pairs]


def _add(ends: dict[int, tuple[Tensor, Tensor]], node: int, low: Tensor, high: Tensor) -> None:
    if node in ends:
        low, high = low + ends[node][0], high + ends[node][1]
    ends[node] = low, torch.maximum(low, high)
