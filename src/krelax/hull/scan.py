"""Support values of many directions over given points: the inner loop of every pass with groups."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.hull.jit import COMPILED, kernel


def scan(points: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Largest product of every direction with a group's points, and the first point that attains it.

    `points` `(batch, groups, p, d)`, `direction` `(batch, groups, d, queries)`; both results
    `(batch, groups, queries)`. Not rounded outward. One product that is not a number makes the value none either: a
    maximum over the rest would be no upper bound.
    """
    if not COMPILED or direction.device.type != "cpu":
        value, index = (points @ direction).max(2)
        return value, index
    flat, asked = (t.contiguous().flatten(0, 1) for t in (points, direction))
    value = torch.empty_like(asked[:, 0])
    index = torch.empty(value.shape, dtype=torch.int64)
    _scan(flat.numpy(), asked.numpy(), value.numpy(), index.numpy())
    shape = direction.shape[:2]
    return value.unflatten(0, shape), index.unflatten(0, shape)


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
