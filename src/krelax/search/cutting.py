"""Boxes, and how they are cut."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.bounds.boxed import Bounds
from krelax.bounds.tree import Subproblems
from krelax.problem.region import middle
from krelax.proof.cuts import Cuts

# Inputs that no symbol blames are cut where they are widest.
_WIDTH_COUNTS = 1e-6


@dataclass
class Boxes(Subproblems):
    """Boxes by their faces in the inputs that vary, `(boxes, varied)`. The floor is the best margin proven, that of the
    box it was cut from at first. `number` is that of the tree of cuts, if one is kept."""

    lower: Tensor
    upper: Tensor
    number: Tensor


def score(boxes: Boxes, found: Bounds, whole: Tensor) -> Tensor:
    """How much there is to gain from cutting each input, `(n, varied)`: its blame in the clauses still open. `whole` is
    how wide the region is."""
    pending = ~(found.value > 0)
    blame = torch.nan_to_num((found.blame * pending.unsqueeze(2)).sum(1))
    total = blame.sum(1, keepdim=True)
    share = blame / torch.where(total > 0, total, 1.0)
    return share + _WIDTH_COUNTS * (boxes.upper - boxes.lower) / whole


def cut(
    boxes: Boxes, score: Tensor, times: int, cuts: Cuts | None = None, integers: Tensor | None = None
) -> tuple[Boxes, bool]:
    """Boxes cut in halves across the input of the largest score that has a number between its faces, and the halves
    again, so many times if they can be. As they are, and True, if one of the boxes has none. Notes the cuts. Inputs
    that are `integers`, `(varied,)`, are cut between two of them."""
    for i in range(times if len(boxes) else 0):
        at = middle(boxes.lower, boxes.upper)
        divisible, below, above = (boxes.lower < at) & (at < boxes.upper), at, at
        if integers is not None and bool(integers.any()):
            below = torch.where(integers, at.floor(), at)
            above = torch.where(integers, below + 1, at)
            divisible = torch.where(integers, boxes.lower < boxes.upper, divisible)
        if not bool(divisible.any(1).all()):
            return boxes, i == 0
        axis = torch.where(divisible, score, -1.0).argmax(1)
        across = torch.nn.functional.one_hot(axis, score.shape[1]).bool()
        lower = torch.stack([boxes.lower, torch.where(across, above, boxes.lower)], dim=1)
        upper = torch.stack([torch.where(across, below, boxes.upper), boxes.upper], dim=1)
        number = boxes.number if cuts is None else cuts.split(boxes.number, axis, at.gather(1, axis[:, None])[:, 0])
        numbers = torch.stack([number, number + (cuts is not None)], 1).flatten()
        query, floor = (t.repeat_interleave(2) for t in (boxes.query, boxes.floor))
        boxes = Boxes(query, floor, lower.flatten(0, 1), upper.flatten(0, 1), numbers)
        score = torch.where(across, score / 2, score).repeat_interleave(2, dim=0)
    return boxes, False
