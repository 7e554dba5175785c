"""Fewer, larger affine operators: elementwise scaling after a dense or convolution operator is folded into it.

In float64, where the relative change of a weight (about 1e-16) is inside the rounding charged to every affine node.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from krelax.network.graph import Builder, Network
from krelax.network.linear import Conv, ConvTranspose, Dense, Scale
from krelax.network.ops import Op, Shape


def fuse(network: Network) -> Network:
    """The same function with every `Scale` folded into the operator before it, where that is possible."""
    uses = Counter(j for node in network.nodes for j in node.inputs)
    builder = Builder(network.input_shape)
    place = {0: 0}
    ops: dict[int, Op] = {}
    for i, node in enumerate(network.nodes[1:], start=1):
        before = node.inputs[0]
        merged = None
        if isinstance(node.op, Scale) and before in ops and uses[before] == 1:
            merged = _fold(ops[before], node.op, node.shape)
        if merged is not None:
            place[i] = builder.replace(place[before], merged)
        else:
            place[i] = builder.add(node.op, *(place[j] for j in node.inputs), name=node.name)
        ops[i] = node.op if merged is None else merged
    return replace(network, nodes=builder.build(place[len(network.nodes) - 1]).nodes)


def _fold(op: Op, scale: Scale, shape: Shape) -> Op | None:
    if not isinstance(op, Dense | Conv | ConvTranspose) or (op.bias is not None and op.bias.dim() != 1):
        return None
    axis = len(shape) - 1 if isinstance(op, Dense) else 1
    one, zero = (torch.full((), v, dtype=op.weight.dtype) for v in (1.0, 0.0))
    factor = _along(one if scale.factor is None else scale.factor, axis, shape)
    shift = _along(zero if scale.shift is None else scale.shift, axis, shape)
    if factor is None or shift is None:
        return None
    bias = shift if op.bias is None else op.bias * factor + shift
    if isinstance(op, ConvTranspose):
        grouped = op.weight.unflatten(0, (op.groups, -1))
        weight = (grouped * factor.reshape(op.groups, 1, -1, *[1] * (op.weight.dim() - 2))).flatten(0, 1)
    else:
        weight = op.weight * factor.reshape(-1, *[1] * (op.weight.dim() - 1))
    return replace(op, weight=weight, bias=bias)


def _along(constant: Tensor, axis: int, shape: Shape) -> Tensor | None:
    """A constant that varies along `axis` only, as a vector; None if it varies along others."""
    full = torch.broadcast_to(constant, shape).movedim(axis, 0).reshape(shape[axis], -1)
    return full[:, 0].contiguous() if bool((full == full[:, :1]).all()) else None
