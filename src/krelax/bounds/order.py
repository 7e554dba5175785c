"""Which leaves a round of a branch and bound splits."""

from __future__ import annotations

import torch
from torch import Tensor

from krelax.bounds.leaves import Leaves
from krelax.bounds.tree import Tree

# Room for so many rounds is plenty.
_ROOMY = 8
# So many queries are looked at one after the other.
_FEW = 16


class WorstFirst:
    """Deals leaves of every round out among queries in proportion to their `weight`, `(queries,)`, and takes the worst
    ones of each; its best ones, which are the next to be closed, where there is no room for many more. What a query is
    owed it keeps for later rounds."""

    def __init__(self, weight: Tensor) -> None:
        self._weight, self._owed = weight, torch.zeros_like(weight)

    def choose(self, tree: Tree[Leaves], able: Tensor, leaves: int) -> Tensor:
        """About so many of the rows that are `able`."""
        query, value = (t.index_select(0, able) for t in (tree.open.query, tree.open.value))
        share = torch.zeros_like(self._weight)
        share[query] = self._weight[query]
        self._owed += leaves * share / share.sum().clamp(min=torch.finfo(share.dtype).tiny)
        order = _first(query, value if tree.free >= _ROOMY * leaves else -value, self._owed)
        query = query[order]
        taken = _rank(query, len(share)) < self._owed.floor()[query]
        self._owed -= torch.bincount(query[taken], minlength=len(share))
        return able[order[taken]]


def _first(query: Tensor, value: Tensor, owed: Tensor) -> Tensor:
    """The order of leaves by query, then value: for each query at least as many as it is owed. Where few leaves of a
    few queries are wanted, the others are not sorted."""
    open_ = (owed >= 1).nonzero()[:, 0]
    if len(open_) > _FEW or 4 * float(owed.sum()) > len(query):
        return _by_query(query, value)
    found = [query.new_empty(0)]
    for q in open_.tolist():
        mine = (query == q).nonzero()[:, 0]
        found.append(mine[value[mine].topk(min(int(owed[q]), len(mine)), largest=False)[1]])
    return torch.cat(found)


def _by_query(query: Tensor, value: Tensor) -> Tensor:
    """The order of leaves by query, then value: of one integer for both, in half the time of two sorts."""
    bits = value.float().view(torch.int32)
    return (query << 32).add_(bits ^ ((bits >> 31) & 0x7FFFFFFF)).argsort(stable=True)


def _rank(sorted_labels: Tensor, labels: int) -> Tensor:
    """Position of every entry among those of its label."""
    count = torch.bincount(sorted_labels, minlength=labels)
    first = count.cumsum(0) - count
    return torch.arange(len(sorted_labels), device=count.device) - first[sorted_labels]
