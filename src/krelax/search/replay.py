"""From candidate to counterexample: the original model decides, in float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from krelax.network.graph import Network
from krelax.search.verdict import Counterexample

Violated = Callable[[NDArray[np.float32], NDArray[np.float32]], bool]


def inside(x: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float32]:
    """The float32 points nearest to `x` that lie in the box, wherever the box holds a float32 at all."""
    point = x.astype(np.float32)
    point = np.where(point.astype(np.float64) < lower, np.nextafter(point, np.float32(np.inf)), point)
    return np.where(point.astype(np.float64) > upper, np.nextafter(point, np.float32(-np.inf)), point)


def replay(network: Network, candidate: NDArray[np.float32], violated: Violated) -> Counterexample | None:
    """The candidate as a counterexample if the original model, run on it in float32, breaks the property.

    `violated(x, y)` decides exactly, membership of x in the region included.
    """
    if network.replay is None:
        return None
    output = network.replay(candidate)
    if not np.isfinite(output).all() or not violated(candidate, output):
        return None
    return Counterexample(candidate, output)
