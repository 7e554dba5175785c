"""Deciding one question by splitting inputs, in turns with other ways."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from krelax.bounds.boxed import fits, varied
from krelax.bounds.instance import Instance
from krelax.network.graph import Network, products
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.proof.cuts import Cuts
from krelax.proof.log import Conclusion
from krelax.search.boxes import InputSplitting, Splitting
from krelax.search.effort import SearchResult
from krelax.search.margins import Probe
from krelax.search.schedule import Course
from krelax.watch import PRODUCTS, now

# What a batch of boxes costs for each node of a network, beside its products: calls of operators.
_CALLS = 2e-4
# Seconds of passes that are not worth a look at boxes first.
_DEAR = 10.0


def passes(network: Network) -> int:
    """Products of two numbers in backward passes for both bounds of all neurons."""
    nodes = network.nodes
    before = {nodes[i].inputs[0] for i in network.activations()}
    return 2 * sum(prod(nodes[i].shape) * products(nodes[: i + 1]) for i in before)


class Inputs:
    """Boxes, until all are closed, one holds a counterexample, or they cannot be cut any more.

    Boxes are closed one after the other, so the part of the region that is closed tells how far the search has come,
    and how fast that part grows how much of the time it should have.
    """

    proves = True

    def __init__(self, instance: Instance, queries: Queries, effort: Splitting, probe: Probe) -> None:
        self._instance, self._queries, self._effort, self._probe = instance, queries, effort, probe
        self._search: InputSplitting | None = None
        self._course = Course()
        nodes, inputs = instance.network.nodes, len(varied(instance.region))
        # less than a box for each pair of inputs tells nothing of those to come
        self.price = inputs**3 * products(instance.network.nodes) / PRODUCTS + len(nodes) * _CALLS
        self.weight, self.found, self._ended = 1.0, SearchResult(-torch.inf, "timeout"), False

    @staticmethod
    def able(instance: Instance) -> bool:
        """Whether the region is a box, and memory holds what is known of one."""
        return isinstance(instance.region, Box) and fits(instance)

    def joining(self, probe: Probe) -> Inputs:
        """The same search, which shares points and replays with other ways from now on."""
        self._probe = probe
        return self

    @property
    def ahead(self) -> float:
        """Seconds of its own until all of the region is closed, at the pace so far."""
        return self._course.ahead

    @property
    def precedes(self) -> bool:
        """Whether backward passes for all neurons would take longer than a few boxes, and very long."""
        return passes(self._instance.network) / PRODUCTS > max(_DEAR, self.price)

    def precede(self) -> None:
        """Bound the whole region, and then boxes for as long as passes would take for the neurons that it leaves
        undecided."""
        began = now()
        if self._advance(None, 1) and self._search is not None:
            self._advance(self._search.passes * (now() - began), torch.inf)

    def advance(self, seconds: float, patience: float) -> bool:
        """Go on for about so long; says whether there is more to do."""
        return not self._ended and self._advance(seconds, torch.inf)

    def _advance(self, seconds: float | None, rounds: float) -> bool:
        if self._search is None:
            self._search = InputSplitting(self._instance, self._queries, self._effort, self._refutes)
        began = now()
        result = self._search.run(seconds, rounds)
        self.weight = self._course.weight(now() - began, self._search.closed)
        self._show(self._search.least)
        conclusion = self._conclusion(result.cuts) if result.holds and result.cuts is not None else None
        # of boxes that do not hold there is no proof
        margin = result.margin if result.holds or not self._instance.logs else -torch.inf
        self.found = SearchResult(margin, result.reason, self._probe.found if result.violated else None, conclusion)
        self._ended = result.reason != "timeout"
        return not self._ended

    def _show(self, points: Tensor) -> None:
        """Show points of small margin to ways that look for counterexamples."""
        self._probe.points.extend(points)

    def _refutes(self, points: Tensor) -> bool:
        """Whether one of the points ends the search."""
        return self._probe.replays(points)

    def _conclusion(self, cuts: Cuts) -> Conclusion:
        return Conclusion(boxes=cuts)
