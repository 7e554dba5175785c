"""From candidate to counterexample: the original model decides, in its own type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.search.verdict import Counterexample

Violated = Callable[[NDArray[Any], NDArray[Any]], bool]


def replay(network: Network, candidate: NDArray[Any], violated: Violated) -> Counterexample | None:
    """The candidate, which has numbers of the model's type, as a counterexample if the original model, run on it,
    breaks the property.

    `violated(x, y)` decides exactly, membership of x in the region included.
    """
    if network.replay is None or not np.isfinite(candidate).all():
        return None
    try:
        output = network.replay(candidate)
    except InputError:
        if network.elements.any_whole:  # an index beyond a table: the model has no output there
            return None
        raise
    if not np.isfinite(output).all() or not violated(candidate, output):
        return None
    return Counterexample(candidate, output)
