"""Sums of products of two nodes, crossed at once.

A product of two matrices is read as all products of their entries, which are then summed up: nodes many times as large
as what comes in and goes out. Where all queries share their lines, a backward pass need not lay them out: coefficients
of the sums, times slopes, added up over the axes along which an operand is repeated, are products of matrices, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from string import ascii_letters

import torch
from torch import Tensor

from krelax.activations import Lines, Product
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import charge, underflow
from krelax.network.graph import Network
from krelax.network.linear import Sum
from krelax.network.ops import Concat, Expand, Reshape
from krelax.op import Shape
from krelax.problem.region import FLOOR

# Networks whose contractions are remembered.
_REMEMBERED = 64


@dataclass(frozen=True, eq=False)
class Contraction:
    """The nodes of products and of what they are made of, whose shape is `shape`; `operands` are both nodes before they
    are repeated to it, with axes of size one."""

    product: int
    pairs: int
    operands: tuple[int, int]
    shape: Shape


@dataclass(frozen=True, eq=False)
class Crossed:
    """Coefficients of both operands, `(batch, queries, *shape)` each, and the price, `(batch, queries)`, to be
    subtracted."""

    coeff: tuple[Tensor, Tensor]
    price: Tensor


@lru_cache(_REMEMBERED)
def contractions(network: Network) -> Mapping[int, Contraction]:
    """The contractions of a network, by their sums: nothing else reads what they lay out."""
    readers = [0] * len(network.nodes)
    for node in network.nodes:
        for j in node.inputs:
            readers[j] += 1
    found = {}
    for i, node in enumerate(network.nodes):
        if isinstance(node.op, Sum) and (contraction := _contraction(network, node.inputs[0], readers)):
            found[i] = contraction
    return found


def _contraction(network: Network, product: int, readers: list[int]) -> Contraction | None:
    node = network.nodes[product]
    if not isinstance(node.op, Product) or readers[product] > 1:
        return None
    (pairs,) = node.inputs
    joined = network.nodes[pairs]
    if not isinstance(joined.op, Concat) or joined.op.axis != len(node.shape) or readers[pairs] > 1:
        return None
    if len(joined.inputs) != 2:
        return None
    operands = [_operand(network, j, node.shape, readers) for j in joined.inputs]
    return Contraction(product, pairs, (operands[0], operands[1]), node.shape) if min(operands) >= 0 else None


def _operand(network: Network, node: int, shape: Shape, readers: list[int]) -> int:
    """The node that is repeated to a shape and gets one more axis, -1 if it is something else."""
    last = network.nodes[node]
    if not isinstance(last.op, Reshape) or last.shape != (*shape, 1) or readers[node] > 1:
        return -1
    (before,) = last.inputs
    inner = network.nodes[before]
    if isinstance(inner.op, Expand) and readers[before] == 1:
        return inner.inputs[0]
    return before if inner.shape == shape else -1


def cross(contraction: Contraction, shapes: tuple[Shape, Shape], coeff: Tensor, lines: Lines) -> Crossed:
    """Cross the products with coefficients of their sums, `(batch, queries, *shape)`, and lines that all queries share;
    the operands have these `shapes`."""
    names = ascii_letters[2 : 2 + len(contraction.shape)]
    positive = coeff.clamp(min=0)
    parts = ((positive, lines.lower[:, 0], lines.below), (coeff - positive, lines.upper[:, 0], -lines.above))
    outer = "".join(n for n, size in zip(names, coeff.shape[2:], strict=True) if size > 1)
    price, pulled = coeff.new_zeros(()), [coeff.new_zeros(()), coeff.new_zeros(())]
    for signed, slopes, intercepts in parts:
        share = signed.reshape(*coeff.shape[:2], *(n for n in coeff.shape[2:] if n > 1))
        assert intercepts is not None
        price = price + torch.einsum(f"ab{outer},a{names}->ab", share, intercepts[:, 0])
        for k, shape in enumerate(shapes):
            kept = "".join(n for n, size in zip(names, shape, strict=True) if size > 1)
            part = torch.einsum(f"ab{outer},a{names}->ab{kept}", share, slopes[..., k])
            pulled[k] = pulled[k] + part.reshape(*part.shape[:2], *shape)
    return Crossed((pulled[0], pulled[1]), price)


def follow(contraction: Contraction, coeff: Tensor, before: tuple[Tensor, Tensor], lines: Lines) -> Tensor:
    """The points of the sums on the way up, from those of both operands, `(batch, queries, *shape)` each: on the lines
    that the signs of the coefficients of the sums choose."""
    names = ascii_letters[2 : 2 + len(contraction.shape)]
    outer = "".join(n for n, size in zip(names, coeff.shape[2:], strict=True) if size > 1)
    sides = []
    for slopes, intercepts in ((lines.lower[:, 0], lines.below), (lines.upper[:, 0], -lines.above)):
        assert intercepts is not None
        value = -torch.einsum(f"a{names}->a{outer}", intercepts[:, 0]).unsqueeze(1)
        for k, point in enumerate(before):
            kept = "".join(n for n, size in zip(names, point.shape[2:], strict=True) if size > 1)
            share = point.reshape(*point.shape[:2], *(n for n in point.shape[2:] if n > 1))
            value = value + torch.einsum(f"ab{kept},a{names}->ab{outer}", share, slopes[..., k])
        sides.append(value.reshape(coeff.shape))
    return torch.where(coeff > 0, sides[0], sides[1])


def gradients(
    contraction: Contraction, coeff: Tensor, before: tuple[Tensor, Tensor], lines: Lines
) -> tuple[Tensor, Tensor]:
    """Derivatives of the sum of all bounds of a region with respect to the slopes of lower and of upper lines, which
    all queries share, `(batch, 1, *shape, 2)`; the rest is as it is for `follow`."""
    shape, names = contraction.shape, ascii_letters[2 : 2 + len(contraction.shape)]
    outer = "".join(n for n, size in zip(names, coeff.shape[2:], strict=True) if size > 1)
    positive, found = coeff.clamp(min=0), []
    for signed, touched in ((positive, lines.lower_at), (coeff - positive, lines.upper_at)):
        assert touched is not None
        share = signed.reshape(*coeff.shape[:2], *(n for n in coeff.shape[2:] if n > 1))
        parts = []
        for point in before:
            kept = "".join(n for n, size in zip(names, point.shape[2:], strict=True) if size > 1)
            there = [n if name in outer + kept else 1 for name, n in zip(names, shape, strict=True)]
            every = "".join(name for name in names if name in outer + kept)
            flat = point.reshape(*point.shape[:2], *(n for n in point.shape[2:] if n > 1))
            part = torch.einsum(f"ab{outer},ab{kept}->a{every}", share, flat)
            parts.append(part.reshape(len(part), *there).expand(len(part), *shape))
        total = signed.sum(1).unsqueeze(-1) * touched[:, 0]
        found.append((torch.stack(parts, -1) - total).unsqueeze(1))
    return found[0], found[1]


def rounding(
    contraction: Contraction, bounds: LayerBounds, lines: Lines, coeff: Tensor, total: int, more: int
) -> Tensor:
    """What rounding may change of all that, `(batch, queries)`, the sums themselves included; with so many terms `more`
    in other places. Terms are products of coefficients with slopes and pre-activations, or with products."""
    steepest = torch.maximum(lines.lower.abs(), lines.upper.abs())[:, 0]
    reach = (steepest * (bounds.magnitude[contraction.pairs] + FLOOR)).sum(-1)
    axes = [a + 1 for a, size in enumerate(coeff.shape[2:]) if size == 1]
    reach = (reach.sum(axes, keepdim=True) if axes else reach) + bounds.magnitude[total]
    terms = 2 * prod(contraction.shape) + more
    error = charge(coeff, reach, terms)
    for node in (total, contraction.product, contraction.pairs, *contraction.operands):
        error = error + underflow(terms, bounds.magnitude[node])
    return error
