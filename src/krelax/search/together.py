"""A few boxes for each of many questions at a time, before any of them is looked at by itself.

Questions about small regions of few inputs are little work each, so that what each costs beside it is what counts. Here
the boxes of hundreds of questions go through the network together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.bounds.boxed import Bounder, Bounds, alike, divisible, fits, varied
from krelax.bounds.instance import Instance
from krelax.bounds.varying import varying
from krelax.problem.queries import Queries
from krelax.problem.region import Box, middle
from krelax.proof.cuts import Cuts
from krelax.search.boxes import Boxes, cut, score

# How many boxes tell how many go through the network at a time.
_FIRST = 4
# So many symbols of neurons: what they would bring, cuts do for less.
_SYMBOLS = 8


@dataclass(frozen=True)
class Together:
    """Effort of a look at many questions, so many `questions` at a time: one with more than `most` open boxes is left
    to others. `name` is that of the stage."""

    questions: int = 1024
    most: int = 16
    name: str = "together"


def groups(instance: Instance, queries: Queries, index: Tensor, effort: Together) -> list[Tensor]:
    """Those of the questions `index` that are worth a look, in groups of which the same inputs vary: so few that there
    may be a box for each pair of them."""
    if len(index) < 2 or not isinstance(instance.region, Box) or not alike(queries):
        return []
    vary, kind = divisible(instance.region.select(index)).unique(dim=0, return_inverse=True)
    parts = (index[kind == k] for k in range(len(vary)) if 0 < int(vary[k].sum()) ** 2 <= effort.most)
    return [part for part in parts if len(part) and fits(instance.select(part[:1]))]


def close(instance: Instance, queries: Queries, effort: Together) -> tuple[Tensor, Cuts]:
    """What is proven of questions that are alike, about regions in which the same inputs vary, `(questions,)`: minus
    infinity where a box is left open. Trees of cuts that prove it, if proofs are recorded.

    Sound: the boxes of each question cover its region.
    """
    numbers, region = torch.arange(len(queries), device=queries.rows.device), instance.region
    free, part = varied(region), varying(instance, varied(region))
    bounder = Bounder(part or instance, queries, _SYMBOLS, None if part is None else len(free))
    lower, upper = (t.flatten(1)[:, free] for t in (region.lower, region.upper))
    whole, margins = upper - lower, torch.full_like(lower[:, 0], torch.inf)
    cuts = Cuts(free.tolist(), len(queries))
    boxes = Boxes(numbers, torch.full_like(margins, -torch.inf), lower, upper, numbers)
    while len(boxes):
        found = _bounds(bounder, boxes)
        boxes.floor = torch.fmax(found.value.amin(1), boxes.floor)
        closed = boxes.floor > 0
        margins.scatter_reduce_(0, boxes.query[closed], boxes.floor[closed], "amin")
        margins[_given_up(boxes.select((~closed).nonzero()[:, 0]), len(margins), effort.most)] = -torch.inf
        left = (~closed & (margins[boxes.query] > -torch.inf)).nonzero()[:, 0]
        boxes, found = boxes.select(left), found.select(left)
        boxes, _ = cut(boxes, score(boxes, found, whole[boxes.query]), 1, cuts)
    return margins, cuts


def _given_up(boxes: Boxes, questions: int, most: int) -> Tensor:
    """Which questions have more open boxes than that, or one that cannot be cut."""
    at = middle(boxes.lower, boxes.upper)
    whole = ~((boxes.lower < at) & (at < boxes.upper)).any(1)
    many = boxes.query.bincount(minlength=questions) > most
    return many.index_fill(0, boxes.query[whole], True)


def _bounds(bounder: Bounder, boxes: Boxes) -> Bounds:
    """What is known of boxes, of which as many go through the network at a time as fit the caches."""
    found, done, size = list[Bounds](), 0, _FIRST
    while done < len(boxes):
        part = slice(done, done + size)
        found.append(bounder.bound(boxes.lower[part], boxes.upper[part], boxes.query[part]))
        done, size = done + size, bounder.at_a_time
    return Bounds.join(found)
