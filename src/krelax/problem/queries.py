"""Questions about outputs, batched: linear margins grouped into clauses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from krelax.errors import InputError


@dataclass(frozen=True, eq=False)
class Queries:
    """Margins `rows @ y + offsets` of the flattened output y, for every region of a batch.

    A clause is a set of margins of which one positive member suffices; the property holds where every clause has a
    positive margin. Shapes: rows `(batch, queries, outputs)`, offsets and clause `(batch, queries)`, clause numbers
    run from 0 to `clauses - 1`. (An unsafe set is a union of polyhedra; each polyhedron is one clause.)
    """

    rows: Tensor
    offsets: Tensor
    clause: Tensor
    clauses: int

    def __len__(self) -> int:
        return len(self.rows)

    def clause_values(self, values: Tensor) -> Tensor:
        """Best member of every clause: `(batch, ..., queries) -> (batch, ..., clauses)`."""
        start = values.new_full((*values.shape[:-1], self.clauses), -torch.inf)
        return start.scatter_reduce(-1, self._index(values), values, "amax")

    def clause_sums(self, values: Tensor) -> Tensor:
        """Sum over the members of every clause: `(batch, ..., queries) -> (batch, ..., clauses)`."""
        return values.new_zeros(*values.shape[:-1], self.clauses).scatter_add(-1, self._index(values), values)

    def _index(self, values: Tensor) -> Tensor:
        return self.clause.reshape(len(self), *[1] * (values.dim() - 2), -1).expand(values.shape)

    def margin(self, values: Tensor) -> Tensor:
        """Margin of the property, `(batch, ..., queries) -> (batch, ...)`: positive where it holds."""
        return self.clause_values(values).amin(-1)

    def values(self, y: Tensor) -> Tensor:
        """The margins at outputs `(batch, points, *output_shape)`: `(batch, points, queries)`."""
        return y.flatten(2) @ self.rows.transpose(1, 2) + self.offsets.unsqueeze(1)

    def lowered(self, by: Tensor) -> Queries:
        """The same margins less numbers `(batch,)`: they are positive where the margins are larger."""
        return replace(self, offsets=self.offsets - by.to(self.offsets)[:, None])

    def distinct(self) -> tuple[Queries, Tensor]:
        """A question about one region without members that have the row of another one in their clause: the largest
        offset stays. Also which of the margins each of those left is."""
        keys = torch.cat([self.clause[0, :, None].to(self.rows.dtype), self.rows[0]], 1)
        kind = keys.unique(dim=0, return_inverse=True)[1]

        def leaders(order: Tensor) -> Tensor:  # the first of each kind
            by_kind = order[kind[order].argsort(stable=True)]
            new = kind[by_kind].diff(prepend=kind.new_full((1,), -1)) != 0
            return by_kind[new]

        first, best = (
            leaders(torch.arange(len(kind), device=kind.device)),
            leaders(self.offsets[0].argsort(descending=True)),
        )
        place = first.argsort()
        first, best = first[place], best[place]
        return replace(
            self, rows=self.rows[:, first], offsets=self.offsets[:, best], clause=self.clause[:, first]
        ), best

    def select(self, index: Tensor) -> Queries:
        """The questions about some of the regions."""
        return replace(self, rows=self.rows[index], offsets=self.offsets[index], clause=self.clause[index])

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Queries:
        """The same questions in another type."""
        rows, offsets = (t.to(device, dtype) for t in (self.rows, self.offsets))
        return replace(self, rows=rows, offsets=offsets, clause=self.clause.to(device))


def classification(labels: Tensor, classes: int) -> Queries:
    """The question whether the label's output is larger than every other one.

    Args:
        labels: One for each region, `(batch,)`.
        classes: How many outputs the network has.

    Returns:
        Margins y[label] - y[other], `(batch, classes - 1, classes)`: a clause for each other class, in increasing
        order.

    Raises:
        InputError: Labels are not whole numbers from 0 to `classes - 1`.
    """
    if labels.dim() != 1 or labels.is_floating_point() or bool(((labels < 0) | (labels >= classes)).any()):
        raise InputError(f"labels must be a vector of whole numbers from 0 to {classes - 1}, one for each region")
    labels = labels.long()
    every = torch.arange(classes).expand(len(labels), classes)
    others = every[every != labels[:, None]].reshape(len(labels), classes - 1)
    rows = torch.zeros(len(labels), classes - 1, classes, dtype=torch.float64)
    rows.scatter_(2, others.unsqueeze(2), -1.0)
    rows.scatter_(2, labels[:, None, None].expand(-1, classes - 1, 1), 1.0)
    offsets = torch.zeros(len(labels), classes - 1, dtype=torch.float64)
    clause = torch.arange(classes - 1).expand(len(labels), -1)
    return Queries(rows, offsets, clause, classes - 1)
