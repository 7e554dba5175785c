"""What is chosen at one activation in every leaf of a branch and bound, and the step that it makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from krelax.activations import Relaxation, Rule
from krelax.activations.maximum import Maximum
from krelax.activations.triangle import Triangle
from krelax.bounds.compared import Compared, Comparisons
from krelax.bounds.curved import Curved, Pieces, worth_at, worth_splitting
from krelax.bounds.grouped import Grouped, Shares, even, membership
from krelax.bounds.groups import Groups
from krelax.bounds.rounding import written
from krelax.bounds.split import Narrowed, Split
from krelax.bounds.steps import Single, Step, slope_choices
from krelax.proof.choices import Choices, Parts, codes


class Splits(NamedTuple):
    """The splits at one activation: leaves and columns of their tables, and the neurons, points, sides and
    multipliers."""

    row: Tensor
    column: Tensor
    neuron: Tensor
    point: Tensor
    side: Tensor
    multiplier: Tensor


class Site(ABC):
    """An activation: what is optimised there in every leaf, as `tensors` tensors with a row for each leaf, and the step
    that they make."""

    tensors: int

    @abstractmethod
    def roots(self, leaves: int) -> list[Tensor]:
        """Where optimisation starts."""

    @abstractmethod
    def step(self, rows: Sequence[Tensor], splits: Splits, leaves: int) -> Step:
        """The step of so many leaves."""

    @abstractmethod
    def keep(self, step: Step, rows: Sequence[Tensor]) -> None:
        """Write what has been optimised back."""

    @abstractmethod
    def choices(self, rows: Sequence[Tensor], splits: Splits, leaves: int, proving: Relaxation) -> Choices:
        """What so many leaves chose for single neurons, as it is evaluated over the relaxation that proves."""


class Unsplit(Site):
    """An activation that is never split, whose steps share the memory of the rows."""

    def __init__(self, relaxation: Relaxation) -> None:
        self._relaxation = relaxation
        self.tensors = sum(relaxation.optimised)

    def _pair(self) -> Iterator[tuple[Tensor, bool]]:
        return zip(self._relaxation.slopes(Rule.ADAPTIVE), self._relaxation.optimised, strict=True)

    def roots(self, leaves: int) -> list[Tensor]:
        return [s.expand(leaves, *s.shape[1:]).clone() for s, free in self._pair() if free]

    def step(self, rows: Sequence[Tensor], splits: Splits, leaves: int) -> Step:
        every = iter(rows)
        lower, upper = (next(every).unsqueeze(0) if free else s.unsqueeze(1) for s, free in self._pair())
        return Single(self._relaxation, lower, upper)

    def keep(self, step: Step, rows: Sequence[Tensor]) -> None:
        pass

    def choices(self, rows: Sequence[Tensor], splits: Splits, leaves: int, proving: Relaxation) -> Choices:
        every, leaves = iter(rows), leaves if rows else 1
        both = (next(every) if free else s.expand(leaves, *s.shape[1:]) for s, free in self._pair())
        return Choices(lines=torch.stack([t.flatten(1) for t in both], -1).float().cpu().numpy())


class Fixed(Site):
    """An activation whose lines are the same in all leaves: those of a rule, or what is `settled` before there are
    leaves."""

    tensors = 0

    def __init__(self, relaxation: Relaxation) -> None:
        self._relaxation = relaxation
        self.settle(*(s.unsqueeze(1) for s in relaxation.slopes(Rule.ADAPTIVE)))

    def settle(self, lower: Tensor, upper: Tensor) -> None:
        """From now on the slopes are these, `(1, 1, *shape)`."""
        lower, upper = self._relaxation.rounded(lower), written(upper)
        self.fixed = Single(self._relaxation, lower, upper, fixed=True)

    def free(self) -> Single:
        """A step whose slopes, still the same for all queries, can be optimised."""
        lower, upper = self.fixed.slopes
        return Single(self._relaxation, lower.clone(), upper.clone())

    def roots(self, leaves: int) -> list[Tensor]:
        return []

    def step(self, rows: Sequence[Tensor], splits: Splits, leaves: int) -> Step:
        return self.fixed

    def keep(self, step: Step, rows: Sequence[Tensor]) -> None:
        pass

    def choices(self, rows: Sequence[Tensor], splits: Splits, leaves: int, proving: Relaxation) -> Choices:
        lower, upper = (t[0].flatten(1) for t in self.fixed.slopes)
        return Choices(lines=torch.stack([lower, upper], -1).float().cpu().numpy())


class Splittable(Site):
    """Neurons that can be split, `first` the number of the first one."""

    first: int
    relaxation: Relaxation

    @property
    def count(self) -> int:
        """Number of neurons."""
        return self.relaxation.lower[0].numel()

    def worth(self, splits: Splits, leaves: int) -> Tensor:
        """What splitting neurons next may be worth in so many leaves, `(leaves, neurons)`."""
        found = worth_splitting(self.relaxation)
        worth = (found.lower + found.upper).flatten(1).repeat(leaves, 1)
        worth[splits.row, splits.neuron - self.first] = self.worth_again(splits, leaves)
        return worth

    def worth_again(self, splits: Splits, leaves: int) -> Tensor:
        """The same of the neurons that are split, `(splits,)`."""
        return torch.zeros_like(splits.point)

    def pieces(self, splits: Splits) -> Pieces:
        """The splits of some leaves, by the entries of the activation."""
        return Pieces(splits.row * self.count + splits.neuron - self.first, splits.point, splits.side)

    def cut(self, relaxation: Relaxation, splits: Splits) -> Relaxation:
        """What a relaxation becomes in one leaf."""
        return self.pieces(splits).over(relaxation, 1)

    def points(self, neuron: Tensor, row: Tensor, splits: Splits, leaves: int) -> Tensor:
        """Where some of so many leaves, `row`, best split one of their neurons, `(m,)` each."""
        return torch.zeros_like(neuron, dtype=self.relaxation.lower.dtype)


class Kinked(Splittable):
    """Neurons that are split at their kink, some of them in groups.

    The rows are lower slopes of undecided neurons, then shares and tilts of each set of groups, then both ends of the
    leaves' own intervals of neurons that clips narrow.
    """

    relaxation: Triangle

    def __init__(self, relaxation: Triangle, groups: Sequence[Groups], first: int) -> None:
        self.relaxation, self.first = relaxation, first
        self._undecided = relaxation.unstable().flatten().nonzero()[:, 0]
        self._groups = groups
        self.tensors = 1 + 2 * len(groups)
        self.narrowed: Tensor | None = None
        self._members, self._places = membership(groups)
        self._shared: tuple[Triangle, tuple[Tensor, Tensor, Tensor]] | None = None

    @property
    def undecided(self) -> Tensor:
        """The neurons with a slope in every leaf."""
        return self._undecided

    @property
    def groups(self) -> Sequence[Groups]:
        """The sets of groups that the neurons are in."""
        return self._groups

    def roots(self, leaves: int) -> list[Tensor]:
        slopes = self.relaxation.slopes(Rule.ADAPTIVE)[0].flatten(1)[:, self._undecided]
        shares = [t.flatten().expand(leaves, -1) for s in even(self._groups, 1) for t in (s.share.value, s.tilt.value)]
        return [t.clone() for t in (slopes.expand(leaves, -1), *shares)]

    def step(self, rows: Sequence[Tensor], splits: Splits, leaves: int) -> Step:
        slopes, *shared = rows[: 1 + 2 * len(self._groups)]
        place = splits.row * self.count + splits.neuron - self.first
        own = self.intervals(rows)
        alone = Split(self.relaxation, self._spread(slopes), place, splits.side, splits.multiplier, own)
        if not self._groups:
            return alone
        pairs = zip(shared[::2], shared[1::2], self._groups, self._places, strict=True)
        shares = [Shares(g, p, *(_queries_last(t, g) for t in (share, tilt))) for share, tilt, g, p in pairs]
        return Grouped(alone, self._members, shares)

    def narrow(self, neurons: Tensor) -> None:
        """From now on leaves have intervals of some undecided neurons of their own."""
        self.narrowed, self.tensors = neurons, self.tensors + 2

    def intervals(self, rows: Sequence[Tensor]) -> Narrowed | None:
        """The intervals of leaves that are their own."""
        return None if self.narrowed is None else Narrowed(self.narrowed, *rows[-2:])

    def _spread(self, slopes: Tensor) -> Tensor:
        """Slopes of undecided neurons among those of all, `(1, leaves, *shape)`."""
        every = self.relaxation.slopes(Rule.ADAPTIVE)[0]
        spread = every.flatten(1).expand(len(slopes), -1).clone()
        spread.scatter_(1, self._undecided.expand(len(slopes), -1), slopes)
        return spread.reshape(1, len(slopes), *every.shape[1:])

    def keep(self, step: Step, rows: Sequence[Tensor]) -> None:
        slopes, *shared = rows[: 1 + 2 * len(self._groups)]
        single = alone(step)
        assert isinstance(single, Split)
        slopes.copy_(single.slope.value[0].flatten(1).index_select(1, self._undecided))
        if isinstance(step, Grouped):
            every = (p.value for s in step.shares for p in (s.share, s.tilt))
            for row, value in zip(shared, every, strict=True):
                row.copy_(value[0].flatten(0, 1).T)

    def choices(self, rows: Sequence[Tensor], splits: Splits, leaves: int, proving: Relaxation) -> Choices:
        """Both lines of every neuron that is undecided for proposals: what is decided for proofs has its own."""
        own, triangle = self.intervals(rows), proving.triangle()
        assert triangle is not None
        each = triangle if own is None else own.over(triangle)
        low, high, upper = self._lines_of(each) if own is None else self._undecided_of(each)
        lower = torch.clamp(rows[0].to(low), low, high)
        found = slope_choices(each, self._undecided, lower, upper[0] if own is None else upper)
        return replace(found, groups=tuple(self._parts(rows)))

    def _parts(self, rows: Sequence[Tensor]) -> Iterator[Parts]:
        """What each set of groups takes over, of those that it is some of."""
        for n, groups in enumerate(self._groups):
            share, tilt = (t.unflatten(1, (-1, groups.members.shape[2])) for t in rows[1 + 2 * n : 3 + 2 * n])
            stated, which = groups.origin
            parts = Parts.nothing(stated, len(share))
            parts.share[:, which.cpu().numpy()] = codes(share).cpu().numpy()
            parts.tilt[:, which.cpu().numpy()] = codes(tilt).cpu().numpy()
            yield parts

    def _undecided_of(self, each: Triangle) -> tuple[Tensor, Tensor, Tensor]:
        """Ranges of lower slopes, and upper slopes, of undecided neurons, `(leaves | 1, undecided)`."""
        low, high, upper = (t.flatten(1)[:, self._undecided] for t in (*each.slope_range(), each.chord()))
        return low, high, upper

    def _lines_of(self, each: Triangle) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the relaxation that all leaves share, computed once: it is asked for with every closed leaf."""
        shared = self._shared  # threads may ask side by side
        if shared is None or shared[0] is not each:
            shared = self._shared = each, self._undecided_of(each)
        return shared[1]


class Anywhere(Splittable):
    """Neurons that are split at any point, and again. The rows are the slopes of lines that are worth optimising."""

    def __init__(self, relaxation: Relaxation, first: int) -> None:
        self.relaxation, self.first = relaxation, first
        self.tensors = sum(relaxation.optimised)

    def roots(self, leaves: int) -> list[Tensor]:
        both = zip(self.relaxation.slopes(Rule.ADAPTIVE), self.relaxation.optimised, strict=True)
        return [s.expand(leaves, *s.shape[1:]).clone() for s, free in both if free]

    def step(self, rows: Sequence[Tensor], splits: Splits, leaves: int) -> Curved:
        """It shares the memory of the rows. Lines that are not optimised are those of the leaves' own intervals."""
        pieces, every, lines = self.pieces(splits), iter(rows), list(self.relaxation.optimised)
        fixed = [] if all(lines) else pieces.over(self.relaxation, leaves).slopes(Rule.ADAPTIVE)
        lower, upper = ((next(every) if free else fixed[k]).unsqueeze(0) for k, free in enumerate(lines))
        return Curved(self.relaxation, lower, upper, pieces, splits.multiplier)

    def keep(self, step: Step, rows: Sequence[Tensor]) -> None:
        pass

    def choices(self, rows: Sequence[Tensor], splits: Splits, leaves: int, proving: Relaxation) -> Choices:
        return self.step(rows, splits, leaves).choices(0, None)

    def points(self, neuron: Tensor, row: Tensor, splits: Splits, leaves: int) -> Tensor:
        """Where some of so many leaves, `row`, best split one of their neurons, `(m,)` each."""
        own = self.pieces(splits).over(self.relaxation, leaves)
        found = worth_at(own, neuron - self.first + row * self.count * (len(own.lower) > 1))
        return torch.where(found.lower > found.upper, found.at_lower, found.at_upper)

    def worth_again(self, splits: Splits, leaves: int) -> Tensor:
        pieces = self.pieces(splits)
        found = pieces.worth(pieces.over(self.relaxation, leaves))
        return found.lower + found.upper


class Windows(Splittable):
    """Windows whose members are compared, of which nothing is optimised but multipliers. A split of the member i at the
    point j has z_i >= z_j on one side, and z_i <= z_j on the other."""

    relaxation: Maximum
    tensors = 0

    def __init__(self, relaxation: Maximum, first: int) -> None:
        self.relaxation, self.first, self.size = relaxation, first, relaxation.lower.shape[-1]

    def roots(self, leaves: int) -> list[Tensor]:
        return []

    def step(self, rows: Sequence[Tensor], splits: Splits, leaves: int) -> Compared:
        return Compared(self.relaxation, self._comparisons(splits), splits.multiplier, leaves)

    def _comparisons(self, splits: Splits) -> Comparisons:
        entry, base = splits.neuron - self.first, splits.row * self.count
        rival = entry - entry % self.size + splits.point.long()
        up = splits.side > 0
        winner, loser = torch.where(up, entry, rival), torch.where(up, rival, entry)
        return Comparisons(splits.row, base + winner, base + loser, splits.column, self.size)

    def keep(self, step: Step, rows: Sequence[Tensor]) -> None:
        pass

    def choices(self, rows: Sequence[Tensor], splits: Splits, leaves: int, proving: Relaxation) -> Choices:
        relaxation = proving.window()
        assert relaxation is not None
        return Compared(relaxation, self._comparisons(splits), splits.multiplier, leaves).choices(0, None)

    def worth(self, splits: Splits, leaves: int) -> Tensor:
        return self.step((), splits, leaves).worth().expand(leaves, -1)

    def cut(self, relaxation: Relaxation, splits: Splits) -> Relaxation:
        window, comparisons = relaxation.window(), self._comparisons(splits)
        assert window is not None
        if not len(comparisons):
            return relaxation
        among = torch.ones_like(window.lower, dtype=torch.bool)
        among.view(-1, self.size)[comparisons.windows] = comparisons.among
        return window.among(among)

    def points(self, neuron: Tensor, row: Tensor, splits: Splits, leaves: int) -> Tensor:
        return self.step((), splits, leaves).rivals(neuron - self.first, row).to(self.relaxation.lower.dtype)


def alone(step: Step) -> Split | Curved | Compared:
    """The part of a step that is about single neurons, or windows."""
    single = step.alone if isinstance(step, Grouped) else step
    assert isinstance(single, Split | Curved | Compared)
    return single


def _queries_last(rows: Tensor, groups: Groups) -> Tensor:
    """Rows `(leaves, groups * members)` as `(1, groups, members, leaves)`."""
    return rows.T.contiguous().unflatten(0, (groups.members.shape[1], -1)).unsqueeze(0)
