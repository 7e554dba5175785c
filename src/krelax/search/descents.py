"""Looking for a counterexample in turns with ways of proving that there is none: descents from many points."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.instance import Instance, OutOfTime
from krelax.network.graph import products
from krelax.problem.queries import Queries
from krelax.search.attack import Attack, descend, starts
from krelax.search.blocks import Blocks, moved
from krelax.search.descent import Descent
from krelax.search.effort import SearchResult
from krelax.search.margins import Probe
from krelax.search.straight import jumping
from krelax.watch import PRODUCTS, now

# What a step costs for each node of a network, beside its products: calls of operators.
_CALLS = 1e-4
# Numbers of the model's type that are tried around a point in each input, points made of them, and how many of those
# are replayed.
_AROUND, _POINTS, _REPLAYED = 2, 64, 8
# Margins above zero that rounding may take below, relative to the size of the outputs.
_NEARLY = 1e-6


class Descents:
    """Descents from points that leaves and boxes show, and from those of gradient attacks on random points, for ever.

    It proves nothing, so its share of the time is small. `settled`, `(clauses,)`, says which clauses are proven.
    """

    weight, ahead, proves = 1 / 16, math.inf, False

    def __init__(self, instance: Instance, queries: Queries, settled: Tensor, attack: Attack, probe: Probe) -> None:
        self._instance, self._queries, self._attack, self._probe = instance, queries, attack, probe
        self._settled = settled
        self._steps = self._work()
        passes, nodes = 2 * attack.restarts * attack.steps, len(instance.network.nodes)
        self.price = passes * products(instance.network.nodes) / PRODUCTS + attack.steps * nodes * _CALLS

    @property
    def found(self) -> SearchResult:
        """The counterexample, if there is one."""
        return SearchResult(-torch.inf, "attack", self._probe.found)

    def advance(self, seconds: float, patience: float) -> bool:
        """Go on for about so long."""
        until = now() + seconds
        with suppress(OutOfTime):
            for _ in self._steps:
                if self._probe.found is not None or now() >= until:
                    return True
        return False

    def _work(self) -> Iterator[None]:
        """From one point after the other."""
        attack, fast = self._attack, self._instance.fast_network.dtype
        queries, shown = self._queries.to(fast, self._queries.rows.device), self._probe.points
        for seed in count(attack.seed):
            attack = replace(attack, seed=seed)
            points, margins = descend(self._instance, queries, starts(self._instance, queries, attack), attack)
            yield
            follow = self.move if jumping(self._instance.network) else self.follow
            for i in margins[0].argsort().tolist():
                yield from follow(points[0, i])
                if shown:
                    yield from follow(shown.pop())

    def move(self, x: Tensor) -> Iterator[None]:
        """Move blocks, where functions jump, until many moves bring nothing."""
        fast, attack = self._instance.fast_network.dtype, self._attack
        queries, x, before = self._queries.to(fast, self._queries.rows.device), x.to(fast)[None], torch.inf
        for seed in count(attack.seed):
            x, margin = moved(self._instance, queries, x, Blocks(attack.restarts, attack.steps, seed))
            yield
            if float(margin) <= 0:
                self._probe.replays(x.double())
            if not 0 < float(margin) < before:
                return
            before = float(margin)

    def follow(self, x: Tensor) -> Iterator[None]:
        """Descend from one point, on the clause that is weakest there."""
        instance, queries = self._instance, self._queries
        x = instance.region.project(x.to(instance.region.lower)[None, None])[0]
        clauses = queries.clause_values(queries.values(instance.network(x)[None]))[0, 0]
        descent = Descent(instance, queries, int(torch.where(self._settled, torch.inf, clauses).argmin()), x[0])
        tried = 0.0
        for _ in descent.run():
            yield
            if descent.value < tried or descent.value == tried == 0:
                tried = 2 * descent.value
                self._replay(descent)
        if tried == 0 and descent.value <= _NEARLY * descent.scale:
            self._replay(descent)

    def _replay(self, descent: Descent) -> None:
        """Replay a point, and the best of some around it in the model's type.

        Where a region or an unsafe set is thin, the nearest one need not lie in it.
        """
        x, elements = descent.x.cpu().numpy().astype(np.float64), self._instance.network.elements
        rng = np.random.default_rng(self._attack.seed)
        steps = rng.integers(-_AROUND, _AROUND, size=(_POINTS, *x.shape[1:]), endpoint=True)
        near = elements.rounded(x, "nearest")
        around = torch.from_numpy(near + steps * elements.spacing(near)).to(descent.x)
        around = torch.cat([descent.x, self._instance.region.project(around[None])[0]])
        best = descent.values(around).argsort()[:_REPLAYED]
        self._probe.replays(torch.cat([descent.x, around[best]]))
