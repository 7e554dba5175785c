"""Looking for a counterexample from a good point on, by linear programs.

Gradient steps stop short of sets that are thin, where several margins have to be met at once. A linear program meets
them all: around a point the network is affine, and the program finds where the largest margin of a clause is least. Far
steps cross kinks, beyond which the network is another one. So a step is taken as far as it helps; if that is not far
enough, the kinks that come first become conditions, and the program is exact up to them. A point that is best on its
pieces lies on kinks. Those whose conditions cost something are crossed next, all of them, or one. Where nothing helps
any more, the search ends.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.instance import Instance
from krelax.problem.exact import Floats
from krelax.problem.queries import Queries
from krelax.search.linearised import Kink, Linearised
from krelax.search.lowest import Forms, Lowest, lowest
from krelax.watch import now

# Programs for one step, each with so many more kinks among its conditions.
_ROUNDS, _KINKS = 6, 32
# Parts of a step that are tried, and the part of what the program promises that is enough.
_PARTS, _ENOUGH = tuple(4.0**-i for i in range(6)), 0.1
# What brings a margin less than this part of its way to zero is not worth a step.
_WORTHWHILE = 0.01
# Kinks that are crossed one by one.
_SINGLES = 8
# What a condition must cost, compared with the dearest, to hold a point back.
_PRICED = 1e-6
# The next step may be so many times as long as the last one.
_LONGER = 4.0
# Steps are this much shorter after a failure, and so often.
_SHORTER, _FAILURES = 1 / 8, 4
# A step need not be longer than so many times what it takes to reach zero.
_FAR = 1e4
# Rounding moves margins by this much, relative to the outputs.
_ROUNDED = 1e-7


class Descent:
    """Descends on the largest margin of one clause, from a point `(*input_shape)` of the instance's only region.

    `x` is the best point, `(1, *input_shape)`, and `value` the margin of the clause there.
    """

    def __init__(self, instance: Instance, queries: Queries, clause: int, x: Tensor) -> None:
        self._instance, members = instance, queries.clause[0] == clause
        rows = torch.cat([queries.rows[0, members], queries.offsets[0, members, None]], 1).double().unique(dim=0)
        self._rows, self._offsets = rows[:, :-1], rows[:, -1]
        lower, upper = instance.region.lower, instance.region.upper
        self._half = (upper / 2 - lower / 2).flatten()
        self._varied = (self._half > 0).nonzero()[:, 0]
        self._radius = 1.0
        self.x = x.to(lower)[None]
        self.value = float(self.values(self.x))

    def values(self, x: Tensor) -> Tensor:
        """The largest margin of the clause at points `(n, *input_shape)`."""
        return self._margins(self._instance.network(x)).amax(1)

    @property
    def scale(self) -> float:
        """How large the numbers are that margins are sums of."""
        y = self._instance.network(self.x).flatten().abs()
        return float((self._rows.abs() @ y + self._offsets.abs()).max())

    def run(self) -> Iterator[None]:
        """Descend; pauses after every program, when `x` and `value` may be better than before."""
        failures = 0
        while failures < _FAILURES and len(self._varied):
            before, here = self.value, Linearised.at(self._instance.network, self.x)
            best = yield from self._step(here)
            if best is not None:
                yield from self._cross(here, *best)
            if before > self.value and before - self.value >= _WORTHWHILE * abs(before):
                failures = 0
            else:
                self._radius, failures = self._radius * _SHORTER, failures + 1

    def _step(self, here: Linearised) -> Generator[None, None, tuple[Lowest, list[Kink]] | None]:
        """Take a step from a point on its pieces. If it is the best point on these pieces, returns what the program
        says, and the kinks that are its conditions."""
        start, kinks, goals = self.value, list[Kink](), self._goals(here)
        for _ in range(_ROUNDS):
            found = self._program(here, goals, kinks)
            yield
            if found is None:
                return None
            promised, target = start - found.value, self._target(here, found)
            if promised < _WORTHWHILE * abs(start):
                held = self.value == start
                self._take(target)
                return (found, kinks) if held else None
            crossed = [(way, kink) for way, kink in here.crossed(target, _KINKS) if kink not in kinks]
            self._try(here, target, [way for way, _ in crossed[:1]])
            if start - self.value >= _ENOUGH * promised or not crossed:
                return None
            kinks += [kink for _, kink in crossed]
        return None

    def _cross(self, here: Linearised, best: Lowest, kinks: list[Kink]) -> Iterator[None]:
        """Go on beyond the kinks that hold a point back: all of them, or one."""
        least = _PRICED * best.prices.max(initial=0.0)
        order = [i for i in (-best.prices).argsort() if best.prices[i] > least]
        choices = [order, *([i] for i in order[:_SINGLES] if len(order) > 1)]
        start, there = self.value, here.moved(self.x)
        for chosen in choices if order else ():
            yield from self._step(there.across([kinks[i] for i in chosen]))
            if start - self.value >= _WORTHWHILE * abs(start):
                return

    def _goals(self, here: Linearised) -> tuple[Tensor, Tensor]:
        """Gradients and values of the clause's margins."""
        last, shape = len(here.values) - 1, self._instance.network.output_shape
        gradients = here.gradients(last, self._rows.reshape(-1, *shape))
        return gradients, self._margins(here.values[-1])[0]

    def _program(self, here: Linearised, goals: tuple[Tensor, Tensor], kinks: list[Kink]) -> Lowest | None:
        """Solve the program of one step, in shares of the half-widths within the radius."""
        instance, varied = self._instance, self._varied
        instance.check()
        reach = float((goals[0].abs() * self._half).sum(1).max())
        needed = max(abs(self.value), _ROUNDED * self.scale)
        self._unit = self._half[varied] * min(self._radius, _FAR * needed / reach if reach > 0 else 1.0)
        x, lower, upper = (t.flatten()[varied] for t in (here.values[0], instance.region.lower, instance.region.upper))
        sides = ((lower - x) / self._unit).clamp(-1, 0), ((upper - x) / self._unit).clamp(0, 1)
        conditions = here.conditions(kinks) if kinks else (goals[0][:0], goals[1][:0])
        seconds = np.inf if instance.deadline is None else instance.deadline - now()
        asked, kept = (Forms(_array(r[:, varied] * self._unit), _array(v)) for r, v in (goals, conditions))
        return lowest(asked, kept, _array(sides[0]), _array(sides[1]), seconds)

    def _target(self, here: Linearised, found: Lowest) -> Tensor:
        """Where a step leads, `(1, *input_shape)`."""
        x = here.values[0].flatten().clone()
        x[self._varied] += torch.from_numpy(found.step).to(x) * self._unit
        return self._inside(x.view_as(here.values[0]))

    def _inside(self, x: Tensor) -> Tensor:
        return self._instance.region.project(x[None])[0]

    def _try(self, here: Linearised, target: Tensor, ways: list[float]) -> None:
        """Go to the best point on the way to a target, if it is better than any so far."""
        parts = torch.tensor([*_PARTS, *ways]).to(target)
        x = here.values[0]
        points = self._inside(x + parts.reshape(-1, *[1] * (x.dim() - 1)) * (target - x))
        best = int(self.values(points).argmin())
        before = self.value
        self._take(points[best : best + 1])
        if self.value < before:
            step = ((self.x - x).flatten().abs() / self._half)[self._varied]
            self._radius = min(1.0, _LONGER * float(step.max()))

    def _take(self, x: Tensor) -> None:
        """Go to a point, if it is no worse."""
        value = float(self.values(x))
        if value <= self.value:
            self.x, self.value = x, value

    def _margins(self, y: Tensor) -> Tensor:
        return y.flatten(1) @ self._rows.T + self._offsets


def _array(t: Tensor) -> Floats:
    result: Floats = t.double().cpu().numpy()
    return result
