"""Activations that forms are convex in: no coefficient behind them is ever negative, whatever the slopes are.

Of a convex activation only the lower line counts, and over a convex set its best slope loses nothing. So a split of it
gains nothing, but where slopes fall short of the best: its turn comes when nothing else is left to split.
"""

from __future__ import annotations

import torch

from krelax.activations import Activation
from krelax.bounds.backward import Form, pull
from krelax.network.graph import Network
from krelax.network.ops import Linear

# Slopes are tried at so many corners of their ranges.
_TRIED = 8


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
