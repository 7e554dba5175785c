"""Groups to begin with in the second view: bounds whose hulls say something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from krelax.hull.polytope import octahedral_rows


def _linear(matrix: Sequence[Sequence[float]]) -> list[float]:
    """The octahedral bounds of `z = matrix @ x` over the box [-1, 1]^n."""
    rows = octahedral_rows(len(matrix)) @ np.array(matrix, dtype=float)
    bounds: list[float] = np.abs(rows).sum(1).tolist()
    return bounds


def _example(name: str, story: str, bounds: list[float], slopes: list[float], names: list[str]) -> dict[str, Any]:
    return {"name": name, "story": story, "bounds": bounds, "slopes": slopes, "names": names}


EXAMPLES: tuple[dict[str, Any], ...] = (
    _example(
        "Two that share inputs",
        "z₁ = u + v and z₂ = u − v with u and v between −1 and 1. Both cannot be large together.",
        _linear([[1, 1], [1, -1]]),
        [0, 0],
        ["z₁", "z₂"],
    ),
    _example(
        "The maximum of two inputs",
        "max(x, y) = x + ReLU(y − x) with x and y between 0 and 1. The second member, x itself, passes through.",
        [0.0, 1.0, 2.0, 0.0, 1.0, 1.0, 1.0, 1.0],
        [0, 1],
        ["z", "x"],
    ),
    _example(
        "A pair as networks have them",
        "No symmetry: the sum and the difference are known a little better than from z₁ and z₂ alone.",
        [1.4, 1.5, 1.9, 1.0, 1.2, 2.1, 1.8, 2.4],
        [0, 0],
        ["z₁", "z₂"],
    ),
    _example(
        "Three that share inputs",
        "z₁ = u + v + w, z₂ = u − v − w, z₃ = −u + v − w: the sums of two and of three are known, too.",
        _linear([[1, 1, 1], [1, -1, -1], [-1, 1, -1]]),
        [0, 0, 0],
        ["z₁", "z₂", "z₃"],
    ),
    _example(
        "Three in a ring",
        "z₁ = u − v, z₂ = v − w and z₃ = w − u add up to zero. Sums of two bring the hull to 3 only, "
        "the sum of all three to 2.",
        _linear([[1, -1, 0], [0, 1, -1], [-1, 0, 1]]),
        [0, 0, 0],
        ["z₁", "z₂", "z₃"],
    ),
)
