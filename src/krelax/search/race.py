"""Which of several networks that are the same function boxes decide faster: a race on small parts of the region.

Bounds of the whole region say little of that. They are bad in any case, and those of boxes count, which differ in what
one costs, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from krelax.bounds.boxed import varied
from krelax.bounds.instance import Instance
from krelax.network.graph import Network
from krelax.problem.queries import Queries
from krelax.problem.region import Box, middle
from krelax.search.boxes import InputSplitting, Splitting
from krelax.search.inputs import Inputs
from krelax.watch import now

# Parts of the region's width that are raced on, the larger ones last, which tell most.
_PARTS = (1 / 8, 1 / 4, 1 / 2)
# Boxes decide little where more inputs vary.
_MOST_INPUTS = 32
# Seconds of the first slice of time.
_SLICE = 0.02


def fastest(networks: Sequence[Network], region: Box, queries: Queries, seconds: float) -> Network | None:
    """The network about which boxes decide one question soonest in the largest middle part of the region that any of
    them decides in about so many seconds; None if none does. A region and `queries` of one question, both of float64.
    """
    if not len(varied(region)) or len(varied(region)) > _MOST_INPUTS:
        return None
    began, best = now(), None
    for part in _PARTS:  # which are harder each time, so that most of the time is the last one's
        won = _winner(networks, region, queries, part, began + 2 * part * seconds)
        if won is None:
            return best
        best = networks[won]
    return best


def _winner(networks: Sequence[Network], region: Box, queries: Queries, part: float, until: float) -> int | None:
    """The number of the network that is done with the middle part of the region in the least time, in turns of equal
    and growing time; None if none is when the time is over."""
    centre = middle(region.lower, region.upper)
    lower, upper = centre - part * (centre - region.lower), centre + part * (region.upper - centre)
    runners: dict[int, InputSplitting] = {}
    for i, network in enumerate(networks):
        box = Box(*(t.reshape(1, *network.input_shape) for t in (lower, upper)))
        instance = Instance.of(network, box)
        if Inputs.able(instance):
            runners[i] = InputSplitting(instance, queries, Splitting(), _nowhere)
    spent, slice_ = dict.fromkeys(runners, 0.0), _SLICE
    best: tuple[float, int] | None = None
    while runners and best is None and now() < until:
        for i, runner in list(runners.items()):
            before = now()
            result = runner.run(min(slice_, until - before) if best is None else best[0] - spent[i])
            spent[i] += now() - before
            if result.holds:
                best = (spent[i], i) if best is None else min(best, (spent[i], i))
            elif result.reason != "timeout":
                del runners[i]
        slice_ *= 2
    return None if best is None else best[1]


def _nowhere(points: Tensor) -> bool:
    """No counterexample is looked for."""
    return False
