"""A few boxes for each of many questions at a time, before any of them is looked at by itself.

Questions about small regions of few inputs are little work each, so that what each costs beside it is what counts. Here
the boxes of hundreds of questions go through the network together.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from krelax.bounds.boxed import Bounder, Bounds, alike, divisible, fits
from krelax.bounds.instance import Instance
from krelax.bounds.varying import alike as same_part
from krelax.bounds.varying import varying
from krelax.problem.queries import Queries
from krelax.problem.region import Box, middle
from krelax.proof.cuts import Cuts
from krelax.search.cutting import Boxes, cut, score

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


@dataclass(frozen=True, eq=False)
class Trees:
    """The trees of cuts of questions: in which table, the place there, and which inputs of the question are cut."""

    places: dict[int, tuple[Cuts, int, list[int]]] = field(default_factory=dict)

    def tree(self, question: int) -> Cuts:
        """The tree of one question."""
        cuts, place, inputs = self.places[question]
        return cuts.tree(place, inputs)


def groups(instance: Instance, queries: Queries, index: Tensor, effort: Together) -> list[Tensor]:
    """Those of the questions `index` that are worth a look, in groups of which as many inputs vary: so few that there
    may be a box for each pair of them. Those of which the same vary are neighbours."""
    if len(index) < 2 or not isinstance(instance.region, Box) or not alike(queries):
        return []
    vary, kind = divisible(instance.region.select(index)).unique(dim=0, return_inverse=True)
    order = kind.argsort(stable=True)
    count = vary.sum(1)[kind[order]]
    parts = (index[order[count == n]] for n in count.unique().tolist() if 0 < n**2 <= effort.most)
    return [part for part in parts if fits(instance.select(part[:1]))]


@dataclass(frozen=True, eq=False)
class _Kind:
    """Questions `index` that are about one network; `free`, `(questions, inputs)`, are the inputs of the question that
    vary, and the first `count` ones of the network, if not all that do."""

    instance: Instance
    index: Tensor
    free: Tensor
    count: int | None


def _kinds(instance: Instance) -> list[_Kind]:
    """The questions, of which as many inputs vary, by what varies of the network: where it is the same function of
    other inputs, it is one."""
    found = defaultdict[bytes, list[_Kind]](list)
    vary, kind = divisible(instance.region).unique(dim=0, return_inverse=True)
    for k, mask in enumerate(vary):
        index, free = (kind == k).nonzero()[:, 0], mask.nonzero()[:, 0]
        some = instance.select(index)
        part = varying(some, free)
        mine = _Kind(part or some, index, free.expand(len(index), -1), None if part is None else len(free))
        found[b"" if part is None else same_part(part)].append(mine)
    whole = found.pop(b"", [])
    return whole + [_joined(kinds) for kinds in found.values()]


def _joined(kinds: list[_Kind]) -> _Kind:
    """Questions about networks that are the same."""
    regions = [k.instance.region for k in kinds]
    lower, upper = (torch.cat([getattr(r, side) for r in regions]) for side in ("lower", "upper"))
    instance = replace(kinds[0].instance, region=Box(lower, upper))
    index, free = (torch.cat([getattr(k, name) for k in kinds]) for name in ("index", "free"))
    return _Kind(instance, index, free, kinds[0].count)


def close(instance: Instance, queries: Queries, effort: Together) -> tuple[Tensor, Trees]:
    """What is proven of questions that are alike, about regions in which as many inputs vary, `(questions,)`: minus
    infinity where a box is left open. Trees of cuts that prove it, if proofs are recorded.

    Sound: the boxes of each question cover its region.
    """
    margins, trees = queries.rows.new_full((len(queries),), -torch.inf), Trees()
    for kind in _kinds(instance):
        sides = (side.flatten(1)[kind.index] for side in (instance.region.lower, instance.region.upper))
        lower, upper = (side.gather(1, kind.free) for side in sides)
        bounder = Bounder(kind.instance, queries.select(kind.index), _SYMBOLS, kind.count)
        margins[kind.index], cuts = _close(bounder, lower, upper, effort)
        inputs = kind.free.tolist()
        trees.places.update((i, (cuts, place, inputs[place])) for place, i in enumerate(kind.index.tolist()))
    return margins, trees


def _close(bounder: Bounder, lower: Tensor, upper: Tensor, effort: Together) -> tuple[Tensor, Cuts]:
    """The same of questions about one network, over what varies of their regions, `(questions, inputs)`."""
    numbers = torch.arange(len(lower), device=lower.device)
    whole, margins = upper - lower, torch.full_like(lower[:, 0], torch.inf)
    cuts = Cuts(range(lower.shape[1]), len(lower))
    boxes = Boxes(numbers, torch.full_like(margins, -torch.inf), lower, upper, numbers)
    size = _FIRST
    while len(boxes):
        found = _bounds(bounder, boxes, size)
        size = bounder.at_a_time
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


def _bounds(bounder: Bounder, boxes: Boxes, size: int) -> Bounds:
    """What is known of boxes, of which so many go through the network first, and then as many as fit the caches."""
    found, done = list[Bounds](), 0
    while done < len(boxes):
        part = slice(done, done + size)
        found.append(bounder.bound(boxes.lower[part], boxes.upper[part], boxes.query[part]))
        done, size = done + size, bounder.at_a_time
    return Bounds.join(found)
