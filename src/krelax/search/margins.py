"""Branching on the margins of a question, and looking for counterexamples where it is worst."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from krelax.bounds.backward import outputs
from krelax.bounds.bounded import Bounded
from krelax.bounds.branching import Branching, Effort
from krelax.bounds.instance import Instance
from krelax.problem.queries import Queries
from krelax.proof.log import MARGINS, UNSTATED, Forms
from krelax.search.attack import Attack, best, descend
from krelax.search.verdict import Counterexample
from krelax.watch import now

Confirm = Callable[[Tensor], Counterexample | None]

# Points are attacked on the first, second, fourth, ... occasion, and on every one of so many.
_OFTEN = 32
_FEW = 32


class Refuted(Exception):
    """A counterexample was replayed."""

    def __init__(self, found: Counterexample) -> None:
        super().__init__()
        self.found = found


class Margins:
    """A search on the margins of the clauses that are still open. `found` is what is known of all."""

    def __init__(self, instance: Instance, queries: Queries, found: Bounded, effort: Effort, probe: Probe) -> None:
        self.found = found
        settled = queries.clause_values(found.value)[0] > 0
        self._index = (~settled[queries.clause[0]]).nonzero()[:, 0]
        exact, fast = (
            outputs(n, *(t[:, self._index].to(n.dtype) for t in (queries.rows, queries.offsets)))
            for n in (instance.network, instance.fast_network)
        )
        start = found.value[0, self._index]
        task = queries.clause[0, self._index].unique(return_inverse=True)[1]
        target, names = torch.zeros_like(start), (MARGINS, Forms.single(self._index.cpu().numpy()))
        self._instance, self._start = instance, min([0.0, *start.tolist()])
        self._readings = [0.0]
        self.seconds, self.is_done = 0.0, False
        self._search = Branching(
            instance, found.bounds, (exact, fast), effort, start, target, task=task, probe=probe.show, names=names
        )

    def run(self, seconds: float, whole: bool = True) -> None:
        """Go on for so long. A turn may have several parts: all but the last are not `whole`."""
        began = now()
        proved = self._search.run(None if seconds == torch.inf else seconds)
        spent = now() - began
        self.seconds += spent
        self.is_done = spent < seconds
        if whole or self.is_done:
            self._readings.append(self.progress())
        value, lemmas = self.found.value.index_copy(1, self._index, proved.value[None]), None
        if proved.lemmas is not None:
            none = torch.full_like(value, UNSTATED, dtype=torch.int64)
            lemmas = none.index_copy(1, self._index, proved.lemmas[None])
        self.found = self.found.improved(value, lemmas)

    def worst(self) -> float:
        """The bound of the worst leaf, as proposed."""
        return self._search.worst()

    def progress(self) -> float:
        """How far the worst leaf has come on the way from the worst margin to zero."""
        return 1 - self.worst() / self._start if self._start < 0 else 1.0

    def is_on_course(self, doublings: float, judged: int = 0) -> bool:
        """Whether so many further doublings of the time would do, after turns that doubled it each, if every one
        brought what the last one did, and the time left is enough for them. With fewer leaves than
        `judged` it counts as on course. A search that did not use its time has nothing left to do."""
        if self.is_done or self._instance.expired():
            return False
        if self._search.leaves < judged:
            return True
        before, last = self._readings[-2:]
        deadline = self._instance.deadline
        left = torch.inf if deadline is None else deadline - now()
        doublings = min(doublings, math.log2(1 + max(0.0, left) / self.seconds))
        return last + (last - before) * doublings >= 1


class Probe:
    """Looks for counterexamples around the points where bounds of bad leaves are attained, less and less often.

    `points`, `(*input_shape)` each, are the best ones of late.
    """

    def __init__(self, instance: Instance, queries: Queries, attack: Attack, confirm: Confirm) -> None:
        self._instance, self._attack, self._confirm = instance, attack, confirm
        self._queries = queries.to(instance.fast_network.dtype, queries.rows.device)
        self._shown = 0
        self.points = deque[Tensor](maxlen=_FEW)
        self.found: Counterexample | None = None

    def show(self, points: Tensor) -> None:
        """Descend from some of the points, `(n, *input_shape)`; few ones are at least looked at on every occasion.

        Raises Refuted if that leads to a counterexample.
        """
        self._shown += 1
        rarely = bool(self._shown & (self._shown - 1) and self._shown % _OFTEN)
        if not len(points) or (rarely and len(points) > _FEW):
            return
        attack = replace(self._attack, steps=0) if rarely else self._attack
        x, margin = best(*descend(self._instance, self._queries, points[None, :_FEW], attack))
        self.points.append(x[0])
        if float(margin) <= 0 and self.replays(x.double()) and self.found is not None:
            raise Refuted(self.found)

    def replays(self, points: Tensor) -> bool:
        """Whether one of the candidates, `(n, *input_shape)`, is a counterexample."""
        self.found = self.found or self._confirm(points)
        return self.found is not None
