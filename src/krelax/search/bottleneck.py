"""Deciding one question by cutting what goes through a bottleneck of the network, in turns with other ways."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from krelax.bounds.boxed import varied
from krelax.bounds.instance import Instance
from krelax.bounds.layers import advance, start
from krelax.network.bottleneck import behind, bottleneck
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.proof.cuts import Cuts
from krelax.proof.log import Conclusion
from krelax.search.boxes import Splitting
from krelax.search.inputs import Inputs
from krelax.search.margins import Probe


class Bottleneck(Inputs):
    """Boxes of the few numbers that everything behind depends on, instead of the inputs that they are made of.

    What holds for all of these numbers between their bounds holds for those that inputs lead to. Where it does not
    hold, inputs need not lead there: the search ends without an answer.
    """

    @classmethod
    def of(cls, instance: Instance, queries: Queries, effort: Splitting, probe: Probe) -> Bottleneck | None:
        """None where the region is no box, no bottleneck has fewer entries than inputs vary, or memory does not hold a
        box of it."""
        node = bottleneck(instance.network, len(varied(instance.region)))
        if node is None or not isinstance(instance.region, Box):
            return None
        bounds = start(instance.region)
        for _ in range(node):
            advance(instance.network, bounds)
        narrow = Instance.of(behind(instance.network, node), Box(bounds.lower[node], bounds.upper[node]))
        narrow = replace(narrow, deadline=instance.deadline, cancelled=instance.cancelled, logs=instance.logs)
        return cls(narrow, queries, effort, probe) if cls.able(narrow) else None

    def _show(self, points: Tensor) -> None:
        """They are no inputs."""

    def _refutes(self, points: Tensor) -> bool:
        """Whether the property fails at one of these values of the bottleneck."""
        queries = self._queries
        margins = queries.margin(queries.values(self._instance.network(points.to(queries.rows))[None]))
        return bool((margins <= 0).any())

    def _conclusion(self, cuts: Cuts) -> Conclusion:
        cuts.width = self._instance.region.lower[0].numel()
        return Conclusion(boxes=cuts)
