"""Sums of products over boxes, to second order: what linear relaxations of the products lose is bounded as a whole.

A product of two affine forms is an affine form and a quadratic one. A line for each product pays for the quadratic part
of each, but in a sum these may cancel, or be convex together, as in `x^T P x` with a positive definite P, whatever the
signs in P are. So what a product's symbol stands for is kept, as a product of two linear forms of the inputs, and
margins are bounded from below by

    c + g e + e^T Q e - rest  >=  c - |v|^2 + (g + 2 L v) e + e^T (Q - L L^T) e - rest ,    |e_i| <= 1 ,

for any matrix L and any vector v. L L^T is taken to be the positive part of Q, and v to be `L^T e` where the convex
function `g e + |L^T e|^2` is smallest. What is left is bounded entry by entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.activations import Relaxation
from krelax.bounds.forms import Band, Form, half_widths
from krelax.bounds.rounding import bounding, gamma
from krelax.watch import tick

# Products of numbers that the decomposition of one box may take.
_MOST = 1 << 20
# Sweeps over the inputs when the convex part is minimised.
_SWEEPS = 24
# An eigenvalue decomposition takes as long as so many products for the cube of its size.
DECOMPOSING = 50
# Room for the rounding of a few operations on numbers that only have to be large enough.
_UP = 1 + 2.0**-40


@dataclass(frozen=True, eq=False)
class Products:
    """The entries of an activation of degree two in some boxes. `half * e`, with the symbol e that its number `symbol`,
    `(boxes, entries)`, says (-1 for none), is `(first e)(second e)` up to `rest`; the factors are linear in the symbols
    of the inputs alone, `(boxes, varied, entries)`."""

    symbol: Tensor
    half: Tensor
    first: Tensor
    second: Tensor
    rest: Tensor

    @classmethod
    def of(
        cls, operand: Form, spread: Tensor, relaxation: Relaxation, band: Band, before: int, room: int, varied: int
    ) -> Products | None:
        """What an activation adds to its band, if it is of degree two, and its factors are not too many numbers. The
        first of its symbols, of which there is `room` for so many, is number `before`."""
        points = relaxation.op.factors(band.slope)
        if points is None or not varied:
            return None
        half = half_widths(band, room)[0].flatten(1)
        if varied * varied * (varied + half.shape[1]) > _MOST:
            return None
        inexact = half > 0
        symbol = torch.where(inexact, inexact.cumsum(1) + (before - 1), -1)
        own = operand.symbols[:, :varied]
        around = spread + gamma(operand.symbols.shape[1], spread.dtype) * (operand.centre.abs() + spread)
        parts = [(own, around, operand.centre, operand.error)] * 2
        if relaxation.reduces:
            parts = [(own[..., i], around[..., i], operand.centre[..., i], operand.error[..., i]) for i in (0, 1)]
        factors = [linear.flatten(2) for linear, *_ in parts]
        sizes = [f.abs().sum(1) for f in factors]
        others = [
            ((centre - at).abs() + (whole - size.reshape(whole.shape)).clamp(min=0) + error).flatten(1)
            for (_, whole, centre, error), at, size in zip(parts, points, sizes, strict=True)
        ]
        at, middle = points[0].flatten(1) * points[1].flatten(1), ((band.above - band.below) / 2).flatten(1)
        shift = (at + middle).abs() + gamma(8, half.dtype) * (at.abs() + middle.abs())
        lost = gamma(varied, half.dtype) * (sizes[0] + others[0]) * (sizes[1] + others[1])
        rest = others[0] * sizes[1] + others[1] * sizes[0] + others[0] * others[1] + shift + lost
        return cls(symbol, half, factors[0], factors[1], _UP * rest + torch.finfo(rest.dtype).tiny)

    def select(self, index: Tensor) -> Products:
        """Those of some boxes."""
        return Products(*(t[index] for t in (self.symbol, self.half, self.first, self.second, self.rest)))


@dataclass(frozen=True, eq=False)
class Rows:
    """Affine forms, each over a box of its own: `centre` and `error` `(rows,)`, `symbols` `(rows, symbols)`."""

    centre: Tensor
    symbols: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class Lowest:
    """Proven lower bounds `value`, `(rows,)`; and proposals: `slopes`, how the minorant changes from the centre to the
    face of each input, and `blame`, which input makes the bound how loose, `(rows, varied)`."""

    value: Tensor
    slopes: Tensor
    blame: Tensor


def lowest(rows: Rows, products: Sequence[Products], shares: Tensor, sweeps: int = _SWEEPS) -> Lowest:
    """Bounds of forms over boxes in which products are known as `products`; `shares`, `(rows, symbols, varied)`, are
    those of the inputs in the symbols. Everything has a row for each form."""
    varied, count = shares.shape[2], rows.symbols.shape[1]
    tick(len(rows.centre) * varied**3 * DECOMPOSING)
    linear, alone = rows.symbols[:, :varied], torch.nn.functional.pad(rows.symbols.abs(), (0, 1))
    alone[:, :varied] = 0
    curvature = linear.new_zeros(len(linear), varied, varied)
    size, terms = alone.sum(1), count + varied * varied
    for each in products:
        there = (each.symbol >= 0) & (each.symbol < count)
        symbol = torch.where(there, each.symbol, count)
        coeff = torch.where(there, rows.symbols.gather(1, symbol.clamp(max=count - 1)), 0.0)
        factor = coeff / torch.where(there, each.half, 1.0)
        curvature = curvature + (factor.unsqueeze(1) * each.first) @ each.second.mT
        alone = alone.scatter(1, symbol, factor.abs() * each.rest)
        alone[:, count] = 0
        both = each.first.abs().sum(1) * each.second.abs().sum(1) + each.rest
        size, terms = size + (factor.abs() * both).sum(1), terms + each.half.shape[1]
    return _bounded(rows, linear, (curvature + curvature.mT) / 2, alone[:, :count], size, terms, shares, sweeps)


def _bounded(
    rows: Rows,
    linear: Tensor,
    curvature: Tensor,
    alone: Tensor,
    size: Tensor,
    terms: int,
    shares: Tensor,
    sweeps: int,
) -> Lowest:
    """The bound of the module's first lines; `size` bounds the absolute terms that the curvature and what symbols stand
    for `alone` were made of."""
    root = _positive_root(curvature)
    point = _least(linear, root, sweeps)
    at = (root.mT @ point.unsqueeze(2)).squeeze(2)
    slopes = linear + 2 * (root @ at.unsqueeze(2)).squeeze(2)
    left = curvature - root @ root.mT
    diagonal = left.diagonal(dim1=1, dim2=2)
    lost = left.abs().sum(2) - diagonal.abs() + (-diagonal).clamp(min=0)
    value = rows.centre - slopes.abs().sum(1) - at.square().sum(1) - lost.sum(1) - alone.sum(1) - rows.error
    steep = root.abs()
    size = size + rows.centre.abs() + rows.error + rows.symbols.abs().sum(1) + alone.sum(1)
    size = size + (steep @ steep.mT).sum((1, 2)) + 2 * (steep @ at.abs().unsqueeze(2)).sum((1, 2)) + at.square().sum(1)
    charged = gamma(2 * terms, value.dtype) * size + torch.finfo(value.dtype).tiny * 8 * terms * terms * (1 + size)
    missed = (slopes.abs() + slopes * point).clamp(min=0)
    blame = lost + missed + (alone.unsqueeze(1) @ shares[:, : alone.shape[1]]).squeeze(1)
    return Lowest(bounding(value - charged), slopes, blame)


def _positive_root(curvature: Tensor) -> Tensor:
    """A root of the positive part of symmetric matrices, or nearly so. A proposal."""
    given = torch.where(curvature.isfinite().all(2, keepdim=True).all(1, keepdim=True), curvature, 0.0)
    values, vectors = torch.linalg.eigh(given)
    return vectors * values.clamp(min=0).sqrt().unsqueeze(1)


def _least(linear: Tensor, root: Tensor, sweeps: int) -> Tensor:
    """Where `linear e + |root^T e|^2` is about smallest in the unit box: one input after the other, again and again."""
    matrix = 2 * root @ root.mT
    steep = matrix.diagonal(dim1=1, dim2=2).clamp(min=torch.finfo(linear.dtype).tiny)
    point, change = torch.zeros_like(linear), linear.clone()
    for _ in range(sweeps):
        for i in range(linear.shape[1]):
            new = (point[:, i] - change[:, i] / steep[:, i]).clamp(-1, 1)
            change = change + (new - point[:, i]).unsqueeze(1) * matrix[:, :, i]
            point[:, i] = new
    return torch.nan_to_num(point)
