"""Complete verification by splitting inputs: a region is cut into boxes until every one is bounded to hold.

For networks with few inputs this is the simplest search that ends: bounds converge to the network as boxes shrink, so
a property that holds with a positive margin is proven after finitely many cuts (Wang et al. 2018, ReluVal).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.bounds.boxed import Bounder
from krelax.bounds.instance import Instance
from krelax.problem.queries import Queries
from krelax.problem.region import Box

Confirm = Callable[[Tensor], bool]


@dataclass(frozen=True)
class Splitting:
    """Effort of a search over boxes: how many are bounded at a time, and how many may wait."""

    batch: int = 256
    waiting: int = 4_000_000
    name: str = "boxes"


@dataclass(frozen=True)
class Found:
    """What a search over boxes found.

    `margin` is a proven lower bound of the property's margin over the whole region; `holds` says that every box has
    been closed, `violated` that a candidate was confirmed; otherwise `reason` says why the search ended. `boxes` were
    bounded.
    """

    margin: float
    holds: bool = False
    violated: bool = False
    reason: str = ""
    boxes: int = 0


@dataclass
class _Pool:
    """Boxes that wait, and the best margin proven for each: that of the box it was cut from."""

    lower: Tensor
    upper: Tensor
    margin: Tensor

    def take(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Remove the last boxes: the deepest, so that few wait."""
        rest = max(0, len(self.margin) - count)
        taken = self.lower[rest:], self.upper[rest:], self.margin[rest:]
        self.lower, self.upper, self.margin = self.lower[:rest], self.upper[:rest], self.margin[:rest]
        return taken

    def put(self, lower: Tensor, upper: Tensor, margin: Tensor) -> None:
        self.lower = torch.cat([self.lower, lower])
        self.upper = torch.cat([self.upper, upper])
        self.margin = torch.cat([self.margin, margin])


def split_inputs(instance: Instance, queries: Queries, effort: Splitting, confirm: Confirm) -> Found:
    """Decide one question about one box by splitting inputs.

    `confirm` replays candidates `(n, *input_shape)`, float64, in the original model. Sound: boxes cover the region and
    each is closed by proven bounds. Ends at the instance's deadline.
    """
    region = instance.region
    pool = _Pool(region.lower, region.upper, torch.full((1,), -torch.inf, dtype=torch.float64))
    closed, boxes = float("inf"), 0
    bounder = Bounder(instance.network, queries)
    every = queries
    with torch.no_grad():
        while len(pool.margin):
            reason = "timeout" if instance.expired() else "memory" if len(pool.margin) > effort.waiting else ""
            if reason:
                return Found(min(closed, float(pool.margin.min())), reason=reason, boxes=boxes)
            lower, upper, before = pool.take(effort.batch)
            bounds = bounder.bound(Box(lower, upper))
            boxes += len(lower)
            clauses = every.clause_values(bounds.value.unsqueeze(0))[0]
            margin = torch.fmax(clauses.amin(1), before)
            score = (bounds.blame * ~(clauses[:, queries.clause[0], None] > 0)).sum(1)
            done = margin > 0
            if bool(done.any()):
                closed = min(closed, float(margin[done].min()))
            open_ = ~done
            if not bool(open_.any()):
                continue
            lower, upper, margin = lower[open_], upper[open_], margin[open_]
            points = (lower + (upper - lower) / 2).clamp(lower, upper)
            candidates = queries_margin(instance, queries, points) <= 0
            if bool(candidates.any()) and confirm(points[candidates]):
                return Found(min(closed, float(margin.min())), violated=True, reason="boxes", boxes=boxes)
            cut = _halves(lower, upper, score[open_])
            if cut is None:
                return Found(float(margin.min()), reason="a box cannot be split further", boxes=boxes)
            pool.put(*cut, margin.repeat(2))
    return Found(closed, holds=True, reason="boxes", boxes=boxes)


def queries_margin(instance: Instance, queries: Queries, points: Tensor) -> Tensor:
    """Margins of the property at points `(n, *input_shape)`, not rounded outward."""
    return queries.margin(queries.values(instance.network(points).unsqueeze(0)))[0]


def _halves(lower: Tensor, upper: Tensor, score: Tensor) -> tuple[Tensor, Tensor] | None:
    """Every box cut in two across the input of the largest score; None if one has no float between its faces."""
    low, high = lower.flatten(1), upper.flatten(1)
    middle = low + (high - low) / 2
    divisible = (middle > low) & (middle < high)
    if not bool(divisible.any(1).all()):
        return None
    axis = torch.where(divisible, score.flatten(1).nan_to_num(0.0, posinf=1e300), -1.0).argmax(1, keepdim=True)
    at = middle.gather(1, axis)
    first, second = high.scatter(1, axis, at), low.scatter(1, axis, at)
    shape = (-1, *lower.shape[1:])
    return torch.cat([low, second]).reshape(shape), torch.cat([first, high]).reshape(shape)


__all__ = ["Confirm", "Found", "Splitting", "split_inputs"]
