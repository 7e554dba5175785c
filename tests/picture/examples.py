"""The textbook examples: two pairs whose triangles allow more than any input reaches."""

from __future__ import annotations

import torch

from krelax.activations.joint import Joint
from krelax.hull.octagon import ROWS


def joint(bounds: list[float], slopes: tuple[float, float] = (0.0, 0.0)) -> Joint:
    """One pair over an octagon whose bounds are in the order of `ROWS`."""
    return Joint(torch.tensor(ROWS).double(), torch.tensor(bounds, dtype=torch.float64).reshape(1, 1, 8), slopes)


ROTATED = joint([2.0] * 8)
"""z1 = u + v, z2 = u - v with u, v in [-1, 1]: at most 2 together, 3 by triangles."""

MAXIMUM = joint([0.0, 1.0, 2.0, 0.0, 1.0, 1.0, 1.0, 1.0], (0.0, 1.0))
"""z = y - x and x itself with x, y in [0, 1]: `x + ReLU(z)` is at most 1, by a triangle 1.5."""

PLAIN = joint([1.4, 1.5, 1.9, 1.0, 1.2, 2.1, 1.8, 2.4])
"""Nothing special."""
