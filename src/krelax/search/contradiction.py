"""Margins proven by contradiction: where one is not positive, bounds of all layers are narrower.

Only inputs at which a margin is at most a small `level` matter. There every pre-activation z is at least the minimum of
`z + m * (margin - level)` over the whole region, for any multiplier m >= 0 (as Kotha et al. 2023 bound preimages). The
margin becomes one more neuron, behind the outputs, of which every leaf takes the inactive side: the multiplier is that
of a split, and layers are tightened by branching as ever, with relaxations of all layers, not only of those before.
Narrower layers raise the margin, and that narrows the layers: sweeps go on until bounds contradict each other, or the
margin that they prove is positive, or the time is up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from krelax.activations import ReLU
from krelax.bounds.backward import outputs
from krelax.bounds.branching import Effort
from krelax.bounds.instance import Instance
from krelax.bounds.intervals import Intervals, advance, renew
from krelax.bounds.ledger import Case, Claim, Key, Ledger
from krelax.bounds.multineuron import influence, worth
from krelax.bounds.tightening import tighten_layer
from krelax.network.compose import reshape
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense

# Neurons with so much of the influence of their layer are tightened.
_MOST = 0.9


@dataclass(frozen=True, eq=False)
class Assumption:
    """That the margin `row @ y + offset`, `(outputs,)` and a number, is at most `level`, which is positive."""

    row: Tensor
    offset: Tensor
    level: float

    def extend(self, network: Network) -> Network:
        """The network with one more neuron, which is inactive where the assumption holds. Nodes keep their numbers."""
        builder = Builder(network.input_shape)
        for node in network.nodes[1:]:
            builder.add(node.op, *node.inputs, name=node.name)
        flat = reshape(builder, len(network.nodes) - 1, self.row.shape)
        bias = torch.nextafter(self.offset - self.level, self.offset.new_tensor(-torch.inf))
        return builder.build(builder.add(ReLU(), builder.add(Dense(self.row[None], bias[None]), flat)))


class Contradiction:
    """The search for one: what is `known`, at first everywhere, narrows with every sweep."""

    def __init__(self, instance: Instance, known: Intervals, assumption: Assumption) -> None:
        self._base, self._assumption = instance, assumption
        self._steps: list[tuple[int, dict[Key, Claim]]] = []
        network = assumption.extend(instance.network)
        fast = network.to(instance.fast_network.dtype, instance.region.lower.device)
        self._instance = replace(instance, network=network, fast_network=fast)
        self._wide = Intervals(list(known.lower), list(known.upper), list(known.magnitude), dict(known.relaxations))
        while len(self._wide.lower) < len(network.nodes):
            advance(network, self._wide)

    @property
    def known(self) -> Intervals:
        """What holds under the assumption, of the network itself."""
        wide, count = self._wide, len(self._base.network.nodes)
        sides = (wide.lower[:count], wide.upper[:count], wide.magnitude[:count])
        return Intervals(*sides, {i: r for i, r in wide.relaxations.items() if i < count})

    def sweep(self, effort: Effort) -> bool:
        """Tighten all layers, from the last, which the assumption narrows most, to the first; says whether bounds
        contradict each other."""
        network, a = self._base.fast_network, self._assumption
        row, offset = (t.to(network.dtype)[None, None] for t in (a.row, a.offset))
        scores = influence(self._base, outputs(network, row, offset), self.known)
        activations = sorted(scores, reverse=True)
        for count, i in enumerate(activations):
            share = self._instance.share(len(activations) - count)
            if self._tighten(share, network.nodes[i].inputs[0], effort, scores[i]):
                return True
        return False

    def _tighten(self, instance: Instance, node: int, effort: Effort, score: Tensor) -> bool:
        """Tighten one pre-activation, and what comes after it; says whether its bounds contradict each other."""
        network, known, ledger = instance.network, self._wide, Ledger()
        before = known.lower[node].flatten(), known.upper[node].flatten()
        noting = replace(instance, ledgers=(ledger,) if instance.ledgers else ())
        contradict = tighten_layer(noting, known, node, effort, worth(score) * _matters(score), len(network.nodes) - 1)
        self._steps.append((node, ledger.better(node, *before)))
        for i in range(node + 1, len(network.nodes)):
            renew(network, known, i)
        return contradict

    def conclude(self, margin: int, value: float = inf, claim: Claim | None = None) -> float:
        """Note the proof of a margin, given by its number: that it is at least `value` over what is known, with the
        claim of that, or that bounds contradict each other. What it proves: no bound counts for more than the level."""
        for ledger in self._base.ledgers:
            ledger.cases.append(Case(margin, self._assumption.level, self._steps, claim))
        return min(value, self._assumption.level)


def _matters(score: Tensor) -> Tensor:
    """Which neurons of a layer have most of its influence, `(n,)`."""
    order = score.argsort(descending=True)
    before = score[order].cumsum(0) - score[order]
    return torch.zeros_like(score).index_fill_(0, order[before < _MOST * score.sum()], 1.0)
