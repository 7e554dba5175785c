"""Fewer, larger affine operators: elementwise scaling after a dense or convolution operator is folded into it.

The folded constants are products and sums of the model's, with bounds of what rounding changed in them
(`krelax.network.constants`). Products that float64 cannot hold with full precision are left unfolded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from krelax.network.constants import Constant
from krelax.network.graph import Builder, Network
from krelax.network.linear import Arithmetic, Conv, ConvTranspose, Dense, Scale
from krelax.op import Op, Shape

# Folded products stay between these, so that nothing overflows or loses bits to underflow.
_LEAST, _MOST = 2.0**-900, 2.0**900


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
    shift = _along(_constant(scale, "shift") or Constant.of(0.0), axis, shape)
    weight, bias = _constant(op, "weight"), _constant(op, "bias")
    if shift is None or weight is None:
        return None
    given = _constant(scale, "factor")
    if given is not None:
        factor = _along(given, axis, shape)
        if factor is None:
            return None
        weight, bias = _by_output(op, weight, factor), None if bias is None else bias * factor
        if not all(_is_safe(p) for p in (weight, bias) if p is not None):
            return None
    bias = shift if bias is None else bias + shift
    if not all(bool(t.isfinite().all()) for t in (bias.value, bias.errors())):
        return None
    return replace(op, weight=weight.value, weight_error=weight.error, bias=bias.value, bias_error=bias.error)


def _constant(op: Arithmetic, name: str) -> Constant | None:
    value: Tensor | None = getattr(op, name)
    return None if value is None else Constant(value, getattr(op, f"{name}_error"))


def _by_output(op: Dense | Conv | ConvTranspose, weight: Constant, factor: Constant) -> Constant:
    """The weight times one factor for each output channel."""
    rest = [1] * (weight.dim() - 2)
    if not isinstance(op, ConvTranspose):
        return weight * factor.reshape(-1, 1, *rest)
    grouped = weight.moved(lambda t: t.unflatten(0, (op.groups, -1)))
    return (grouped * factor.reshape(op.groups, 1, -1, *rest)).moved(lambda t: t.flatten(0, 1))


def _is_safe(product: Constant) -> bool:
    """Whether every entry is zero for certain or far from the ends of float64's range."""
    size = product.value.abs()
    return bool((((size >= _LEAST) & (size <= _MOST)) | ((size == 0) & (product.errors() == 0))).all())


def _along(constant: Constant, axis: int, shape: Shape) -> Constant | None:
    """A constant that varies along `axis` only, as a vector; None if it varies along others."""
    full = constant.moved(lambda t: torch.broadcast_to(t, shape).movedim(axis, 0).reshape(shape[axis], -1))
    tensors = [t for t in (full.value, full.error) if t is not None]
    if not all(bool((t == t[:, :1]).all()) for t in tensors):
        return None
    return full.moved(lambda t: t[:, 0].contiguous())
