"""Margins proven by contradiction: where one is not positive, bounds of all layers are narrower.

Only inputs at which a margin is at most a small `level` matter. There every pre-activation z is at least the minimum of
`z + m * (margin - level)` over the whole region, for any multiplier m >= 0 (as Kotha et al. 2023 bound preimages). The
margin becomes one more neuron, behind the outputs, of which every leaf takes the inactive side: the multiplier is that
of a split, and layers are tightened by branching as ever, with relaxations of all layers, not only of those before.
Narrower layers raise the margin, and that narrows the layers: sweeps go on until bounds contradict each other, or the
margin that they prove is positive, or the time is up.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import torch
from torch import Tensor

from krelax.bounds.backward import outputs
from krelax.bounds.branching import Effort
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds, advance, renew
from krelax.bounds.multineuron import bound_weights, neuron_scores
from krelax.bounds.tightening import tighten_layer
from krelax.problem.extensions import Assumption
from krelax.proof.choices import Numbers
from krelax.proof.log import DERIVED, ByCases, Refutation

# Neurons with so much of the score of their layer are tightened.
_MOST = 0.9


class Contradiction:
    """The search for one: what is `bounds`, at first everywhere, narrows with every sweep."""

    def __init__(self, instance: Instance, bounds: LayerBounds, assumption: Assumption) -> None:
        self._base, self._assumption = instance, assumption
        self._steps: list[tuple[int, Numbers]] = []
        self._begin = [log.next for log in instance.logs]
        network = assumption.extend(instance.network)
        fast = network.to(instance.fast_network.dtype, instance.region.lower.device)
        self._instance = replace(instance, network=network, fast_network=fast)
        self._wide = bounds.copy()
        while len(self._wide.lower) < len(network.nodes):
            advance(network, self._wide)

    @property
    def bounds(self) -> LayerBounds:
        """What holds under the assumption, of the network itself."""
        return self._wide.copy(len(self._base.network.nodes))

    def sweep(self, effort: Effort, seconds: float) -> bool:
        """Tighten all layers for about so long, from the last, which the assumption narrows most, to the first; says
        whether bounds contradict each other."""
        network, a = self._base.fast_network, self._assumption
        row, offset = (t.to(network.dtype)[None, None] for t in (a.row, a.offset))
        scores = neuron_scores(self._base, outputs(network, row, offset), self.bounds)
        activations, instance = sorted(scores, reverse=True), self._instance.until(seconds)
        for count, i in enumerate(activations):
            share = instance.share(len(activations) - count)
            if self._tighten(share, network.nodes[i].inputs[0], effort, scores[i]):
                return True
        return False

    def _tighten(self, instance: Instance, node: int, effort: Effort, score: Tensor) -> bool:
        """Tighten one pre-activation, and what comes after it; says whether its bounds contradict each other."""
        network, bounds, before = instance.network, self._wide, self._wide.copy()
        weight = bound_weights(score) * _matters(score)
        contradict = tighten_layer(instance, bounds, node, effort, weight, len(network.nodes) - 1)
        self._steps.append((node, bounds.changed(before, node).cpu().numpy()))
        for i in range(node + 1, len(network.nodes)):
            renew(network, bounds, i)
        return contradict

    def conclude(self, value: float = inf, lemma: int = DERIVED) -> tuple[float, int]:
        """What is proven of the margin, which is at least `value` over what is known, as a lemma says, or else bounds
        contradict each other; and the lemma that says so. No bound counts for more than the level."""
        level = self._assumption.level
        steps = [(node, lemmas) for node, lemmas in self._steps if len(lemmas)]
        numbers = [int(log.append(ByCases(Refutation(level, steps, lemma)))[0]) for log in self._base.logs]
        return min(value, level), numbers[0] if numbers else DERIVED

    def give_up(self) -> None:
        """Nothing came of it: drop the lemmas of all sweeps."""
        for log, begin in zip(self._base.logs, self._begin, strict=True):
            log.forget(begin)


def _matters(score: Tensor) -> Tensor:
    """Which neurons of a layer have most of its score, `(n,)`."""
    order = score.argsort(descending=True)
    before = score[order].cumsum(0) - score[order]
    return torch.zeros_like(score).index_fill_(0, order[before < _MOST * score.sum()], 1.0)
