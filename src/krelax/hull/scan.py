"""Support values of many directions over given points: the inner loop of every pass with groups."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.hull.jit import COMPILED, kernel


def scan(points: Tensor, direction: Tensor, sides: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Largest product of every direction with a group's points, and the first point that attains it.

    `points` `(batch, groups, p, d)`, `direction` `(batch, groups, d, queries)`; both results
    `(batch, groups, queries)`. Not rounded outward. One product that is not a number makes the value none either: a
    maximum over the rest would be no upper bound.

    With `sides` `(batch, groups, k, queries)`, of type int8 and k <= min(d, 15), a point z counts for a query only if
    `side_i * z_i >= 0` in its first k coordinates. Where none does, all do: a larger set, so an upper bound stays one.
    """
    if sides is not None:
        sides = sides.expand(*direction.shape[:2], -1, direction.shape[3])
    if not COMPILED or direction.device.type != "cpu":
        return _largest(points @ direction, None if sides is None else _excluded(points, sides))
    flat, asked = (t.contiguous().flatten(0, 1) for t in (points, direction))
    value = torch.empty_like(asked[:, 0])
    index = torch.empty(value.shape, dtype=torch.int64)
    if sides is None:
        _scan(flat.numpy(), asked.numpy(), value.numpy(), index.numpy())
    else:
        known = sides.contiguous().flatten(0, 1)
        _scan_sides(flat.numpy(), asked.numpy(), known.numpy(), value.numpy(), index.numpy())
    shape = direction.shape[:2]
    return value.unflatten(0, shape), index.unflatten(0, shape)


def _largest(product: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
    """The largest of the products that are not excluded, or of all where those are minus infinity."""
    value, index = product.max(2)
    if excluded is None:
        return value, index
    left, place = product.masked_fill(excluded & ~product.isnan(), -math.inf).max(2)
    none = left == -math.inf
    return left.where(~none, value), place.where(~none, index)


def _excluded(points: Tensor, sides: Tensor) -> Tensor:
    """Which points lie on the wrong side for which queries, `(batch, groups, p, queries)`."""
    excluded = sides.new_zeros((), dtype=torch.bool)
    for z, side in zip(points.unbind(3), sides.unbind(2), strict=False):
        excluded = excluded | (z.unsqueeze(3) * side.unsqueeze(2) < 0)
    return excluded


@kernel
def _scan(
    points: NDArray[np.float64], direction: NDArray[np.float64], value: NDArray[np.float64], index: NDArray[np.int64]
) -> None:
    """Queries innermost: every loop over them is a vector instruction, and a group's numbers stay in the cache."""
    groups, count, dimension = points.shape
    queries = direction.shape[2]
    product = np.empty(queries, dtype=value.dtype)
    for g in range(groups):
        best, place = value[g], index[g]
        for p in range(count):
            for q in range(queries):
                product[q] = points[g, p, 0] * direction[g, 0, q]
            for j in range(1, dimension):
                factor = points[g, p, j]
                for q in range(queries):
                    product[q] += factor * direction[g, j, q]
            for q in range(queries):
                better = p == 0 or product[q] > best[q] or product[q] != product[q]
                best[q] = product[q] if better else best[q]
                place[q] = p if better else place[q]


@kernel
def _scan_sides(
    points: NDArray[np.float64],
    direction: NDArray[np.float64],
    sides: NDArray[np.int8],
    value: NDArray[np.float64],
    index: NDArray[np.int64],
) -> None:
    """As `_scan`; a point is excluded where its signs and those that a query forbids have a bit in common.

    The products have no kernel of their own because a call for every point is dear when there are few queries.
    """
    groups, count, dimension = points.shape
    queries = direction.shape[2]
    product = np.empty(queries, dtype=value.dtype)
    signs, forbidden = np.empty(count, dtype=np.int32), np.empty(queries, dtype=np.int32)
    for g in range(groups):
        _signs(points[g], sides.shape[1], signs)
        _forbidden(sides[g], forbidden)
        best, place = value[g], index[g]
        best[:] = -math.inf
        place[:] = 0
        for p in range(count):
            for q in range(queries):
                product[q] = points[g, p, 0] * direction[g, 0, q]
            for j in range(1, dimension):
                factor = points[g, p, j]
                for q in range(queries):
                    product[q] += factor * direction[g, j, q]
            sign = signs[p]
            for q in range(queries):
                counts = (forbidden[q] & sign) == 0
                better = (counts & (product[q] > best[q])) | (product[q] != product[q])
                best[q] = product[q] if better else best[q]
                place[q] = p if better else place[q]
        for q in range(queries):
            if best[q] == -math.inf:
                best[q], place[q] = _unrestricted(points[g], direction[g, :, q])


@kernel
def _unrestricted(points: NDArray[np.float64], direction: NDArray[np.float64]) -> tuple[float, int]:
    """The same over all points, for one query of which none counts; their products are numbers."""
    best, place = -math.inf, 0
    for p in range(points.shape[0]):
        product = points[p, 0] * direction[0]
        for j in range(1, points.shape[1]):
            product += points[p, j] * direction[j]
        if product > best:
            best, place = product, p
    return best, place


@kernel
def _signs(points: NDArray[np.float64], members: int, signs: NDArray[np.int32]) -> None:
    """Bits 2i and 2i + 1 of a point say whether z_i > 0 and z_i < 0."""
    for p in range(points.shape[0]):
        bits = 0
        for i in range(members):
            bits |= ((1 if points[p, i] > 0 else 0) | (2 if points[p, i] < 0 else 0)) << (2 * i)
        signs[p] = bits


@kernel
def _forbidden(sides: NDArray[np.int8], forbidden: NDArray[np.int32]) -> None:
    """The bits that a point of each query must not have."""
    forbidden[:] = 0
    for i in range(sides.shape[0]):
        for q in range(forbidden.shape[0]):
            forbidden[q] |= ((1 if sides[i, q] < 0 else 0) | (2 if sides[i, q] > 0 else 0)) << (2 * i)
