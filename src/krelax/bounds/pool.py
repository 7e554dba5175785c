"""The leaves that a search has not closed yet: rows of a table that come and go."""

from __future__ import annotations

import torch
from torch import Tensor

from krelax.bounds.leaves import Leaves


class Pool:
    """At most `most` leaves. Rows are numbered from 0 without gaps; dropping some moves others into their places."""

    def __init__(self, leaves: Leaves, most: int) -> None:
        self._table, self._count, self.most = leaves, len(leaves), most

    def __len__(self) -> int:
        return self._count

    @property
    def free(self) -> int:
        """How many leaves there is still room for."""
        return max(0, self.most - self._count)

    @property
    def query(self) -> Tensor:
        return self._table.query[: self._count]

    @property
    def value(self) -> Tensor:
        return self._table.value[: self._count]

    @property
    def branch(self) -> Tensor:
        return self._table.branch[: self._count]

    def rows(self) -> Tensor:
        """The number of every leaf."""
        return torch.arange(self._count, device=self.query.device)

    def take(self, rows: Tensor) -> Leaves:
        """Copies of some leaves."""
        return self._table.select(rows)

    def put(self, rows: Tensor, leaves: Leaves) -> None:
        """Put leaves in the place of those in `rows`."""
        self._table.write(rows, leaves)

    def add(self, leaves: Leaves) -> None:
        """New leaves behind the others."""
        count = self._count + len(leaves)
        self._table = self._table.wide(leaves.neuron.shape[1])
        leaves = leaves.wide(self._table.neuron.shape[1])
        if count > len(self._table):
            self._table = self._table.room(max(count, min(2 * count, self.most)))
        self._table.write(torch.arange(self._count, count, device=self.query.device), leaves)
        self._count = count

    def drop(self, rows: Tensor) -> None:
        """Take leaves out; the last ones move into their places."""
        gone = torch.zeros(self._count, dtype=torch.bool, device=rows.device)
        gone[rows] = True
        left = self._count - len(rows)
        holes, movers = gone[:left].nonzero()[:, 0], (~gone[left:]).nonzero()[:, 0] + left
        if len(holes):
            self._table.write(holes, self._table.select(movers))
        self._count = left
