"""What a question sees of a network: the entries of nodes that its rows depend on.

A question about few outputs of a convolutional network sees a part of it. What it does not see needs no bounds beyond
those of interval arithmetic. This only decides where work is done: bounds are sound whatever is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from krelax.activations import Activation
from krelax.network.graph import Network
from krelax.network.ops import Linear


def seen(network: Network, rows: Tensor) -> dict[int, Tensor]:
    """The entries that some of the rows, `(batch, queries, outputs)`, depend on: masks `(n,)` of the nodes that have
    others, too."""
    last = len(network.nodes) - 1
    masks = {last: (rows != 0).flatten(0, 1).any(0).reshape(network.output_shape)}
    for i in range(last, 0, -1):
        mask = masks.get(i)
        if mask is None:
            continue
        node = network.nodes[i]
        shapes = [network.nodes[j].shape for j in node.inputs]
        if isinstance(node.op, Linear):
            absolute, ones = node.op.absolute(), mask[None].to(network.dtype)
            parts = [part[0] > 0 for part in absolute.adjoint(ones, *shapes)]
        elif isinstance(node.op, Activation) and node.op.shape(*shapes) == shapes[0]:
            parts = [mask]
        else:
            parts = [torch.ones(shape, dtype=torch.bool, device=mask.device) for shape in shapes]
        for j, part in zip(node.inputs, parts, strict=True):
            masks[j] = masks[j] | part if j in masks else part
    return {i: mask.flatten() for i, mask in masks.items() if not bool(mask.all())}
