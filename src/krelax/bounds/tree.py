"""The tree of a branch and bound: a table of its open subproblems, and what its closed ones prove.

A search takes subproblems out of the tree, bounds and splits them, and gives back what came of them. Open, taken and
closed ones cover the whole region at any time, so the tree knows what is proven whenever somebody asks, and a part that
somebody else works on, or that is lost on the way, can never count as proven.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, fields
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor


@dataclass
class Subproblems:
    """Typed columns of a table with a row for each subproblem; subclasses add further ones, which are tensors or lists
    of tensors. `query`: the number of the query that it belongs to. `floor`: a bound of it that is proven, minus
    infinity if there is none."""

    query: Tensor
    floor: Tensor

    def __len__(self) -> int:
        return len(self.query)

    def rows(self) -> Tensor:
        """The number of every row."""
        return torch.arange(len(self), device=self.query.device)

    def tensors(self) -> list[Tensor]:
        """All columns in a fixed order."""
        every = (getattr(self, f.name) for f in fields(self))
        return [t for column in every for t in (column if isinstance(column, list) else [column])]

    def of(self, tensors: Sequence[Tensor]) -> Self:
        """Other subproblems with the same columns, from what their `tensors` gives."""
        each = iter(tensors)
        columns: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, old in columns.items():
            columns[name] = [next(each) for _ in old] if isinstance(old, list) else next(each)
        return type(self)(**columns)

    def select(self, rows: Tensor) -> Self:
        """Copies of some rows."""
        return self.of([t.index_select(0, rows) for t in self.tensors()])

    def write(self, rows: Tensor, new: Self) -> None:
        """Put other subproblems in the place of those in `rows`."""
        for mine, theirs in zip(self.tensors(), new.tensors(), strict=True):
            mine.index_copy_(0, rows, theirs)

    def put(self, first: int, rows: Tensor, new: Self) -> None:
        """Put some rows of other subproblems in the place of those from `first` on."""
        for mine, theirs in zip(self.tensors(), new.tensors(), strict=True):
            torch.index_select(theirs, 0, rows, out=mine[first : first + len(rows)])

    def join(self, other: Self) -> Self:
        """These and then the others."""
        return self.of([torch.cat(pair) for pair in zip(self.tensors(), other.tensors(), strict=True)])

    def room(self, count: int) -> Self:
        """The same with space for `count` in all."""
        larger = [t.new_empty(count, *t.shape[1:]) for t in self.tensors()]
        for mine, theirs in zip(larger, self.tensors(), strict=True):
            mine[: len(theirs)] = theirs
        return self.of(larger)

    def as_wide_as(self, other: Self) -> Self:
        """The same with columns at least as wide as those of others."""
        return self


T = TypeVar("T", bound=Subproblems)


class Came(Protocol):
    """What came of subproblems that were worked on: those that take their place."""

    @property
    def subproblems(self) -> Subproblems: ...


C = TypeVar("C", bound=Came)
# The rows of the parts to be worked on next.
Choose = Callable[[], Sequence[Tensor]]


class Tree(Generic[T]):
    """Open subproblems, at most `most`, in rows numbered from 0 without gaps, and the smallest bounds of closed ones.

    A subproblem is closed when its floor is above the `target`, `(queries,)`, of its query. New ones come behind all
    others; where some are taken out, the last ones move into their places. Sound: `bound` is that of the whole region,
    if `roots` cover it and whatever is absorbed covers what it takes the place of.
    """

    def __init__(self, roots: T, target: Tensor, most: int) -> None:
        self.target, self.most = target, most
        self._closed = torch.full_like(target, torch.inf)
        # columns of roots may share memory, of which those of a table that is written to must not
        self._table, self._count = roots.select(roots.rows()), len(roots)
        # of each query, those open and those taken
        self._left = torch.bincount(roots.query, minlength=len(target))

    def __len__(self) -> int:
        return self._count

    @property
    def free(self) -> int:
        """How many subproblems there is still room for."""
        return max(0, self.most - self._count)

    @property
    def open(self) -> T:
        """The open subproblems, to be looked at: they share the memory of the tree."""
        return self._table.of([t[: self._count] for t in self._table.tensors()])

    @property
    def answered(self) -> Tensor:
        """Queries with no subproblem left, open or taken, `(queries,)`."""
        return self._left == 0

    @property
    def closed(self) -> Tensor:
        """The smallest bound of each query's closed subproblems, `(queries,)`: infinite where there are none, minus
        infinity where some are taken, of which nothing is known."""
        taken = self._left > torch.bincount(self.open.query, minlength=len(self._left))
        return torch.where(taken, -torch.inf, self._closed)

    def bound(self) -> Tensor:
        """What is proven of every query, `(queries,)`: the smallest bound of its subproblems."""
        return self.closed.scatter_reduce(0, self.open.query, self.open.floor, "amin")

    def take(self, rows: Tensor) -> T:
        """Take some out. Whoever does is to `absorb` what comes of them in their place."""
        taken = self._table.select(rows)
        gone = torch.zeros(self._count, dtype=torch.bool, device=rows.device)
        gone[rows] = True
        left = self._count - len(rows)
        holes, movers = gone[:left].nonzero()[:, 0], (~gone[left:]).nonzero()[:, 0] + left
        if len(holes):
            self._table.write(holes, self._table.select(movers))
        self._count = left
        return taken

    def absorb(self, new: T, taken: T) -> T:
        """Put `new` ones in the place of those that were `taken`. Returns those that are closed: the tree keeps no more
        of them than their bounds."""
        shut = new.floor > self.target[new.query]
        closed, still = new.select(shut.nonzero()[:, 0]), (~shut).nonzero()[:, 0]
        self._closed.scatter_reduce_(0, closed.query, closed.floor, "amin")
        self._left += torch.bincount(new.query[still], minlength=len(self._left))
        self._left -= torch.bincount(taken.query, minlength=len(self._left))
        self._append(new, still)
        return closed

    def _append(self, new: T, rows: Tensor) -> None:
        if not self._count:
            self._table, self._count = new.select(rows), len(rows)
            return
        self._table = self._table.as_wide_as(new)
        new = new.as_wide_as(self._table)
        count = self._count + len(rows)
        if count > len(self._table):
            self._table = self._table.room(max(count, min(2 * count, self.most)))
        self._table.put(self._count, rows, new)
        self._count = count

    def grow(
        self, choose: Choose, work: Callable[[T], C], pool: ThreadPoolExecutor | None = None, ahead: int = 0
    ) -> Iterator[tuple[T, C]]:
        """Put in the place of subproblems what `work` makes of them, part by part, side by side where there is a pool.
        Yields, in the order of the parts, those that are closed and what came.

        `choose` says which rows make up the next parts, none where nothing is to be done now. It is asked whenever no
        more than `ahead` parts are worked on, and this ends when none are left. Parts that are not done go back as they
        were. Raises what `work` raises.
        """
        running: deque[tuple[T, Future[C] | None]] = deque()
        try:
            while True:
                if len(running) <= ahead:
                    for part in self.parts(choose()):
                        running.append((part, None if pool is None else pool.submit(work, part)))
                if not running:
                    return
                part, future = running[0]
                came = work(part) if future is None else future.result()
                new = came.subproblems
                assert isinstance(new, type(self._table))
                running.popleft()
                yield self.absorb(new, part), came
        finally:
            wait([future for _, future in running if future is not None and not future.cancel()])
            for part, _ in running:
                self.absorb(part, part)

    def parts(self, rows: Sequence[Tensor]) -> Iterator[T]:
        """Take several parts out, as `take` does one."""
        rows = [r for r in rows if len(r)]
        if rows:
            every, sizes = self.take(torch.cat(rows)), [len(r) for r in rows]
            for columns in zip(*(t.split(sizes) for t in every.tensors()), strict=True):
                yield every.of(columns)


def once(parts: Sequence[Tensor]) -> Choose:
    """Chooses these parts and then no more."""
    waiting = [parts]
    return lambda: waiting.pop() if waiting else ()
