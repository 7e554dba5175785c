"""What the leaves of a proof chose, as plain tables, so that somebody else can evaluate it again.

Slopes are tables as proofs use them, rounded beforehand; shares of groups, and slopes of linear programs, are
written in float32, which changes a bound in its seventh digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.int64]
Number = TypeVar("Number", bound=np.number[Any])


@dataclass(frozen=True, eq=False)
class GroupSet:
    """Groups of neurons in the polytopes `rows @ z <= bounds`: `members`, `(groups, k)`, are entries of the
    pre-activation, `rows`, `(m, k)`, whole numbers, and `bounds`, `(groups, m)`, what the `lemmas`, of the same shape,
    prove (0: the intervals of the members). `slopes`, `(k,)`, are those of the members below zero. With `exponents` e,
    `(groups,)`, polytopes are of z0 and 2^e z1."""

    members: NDArray[np.int32]
    rows: NDArray[np.int8]
    bounds: NDArray[np.float64]
    lemmas: Numbers
    slopes: tuple[float, ...]
    exponents: NDArray[np.int8] | None = None


@dataclass(frozen=True, eq=False)
class Whole:
    """Groups that are all that their members are in: lines are lines of the groups."""

    groups: GroupSet


@dataclass(frozen=True, eq=False)
class Shared:
    """What groups took over: coefficients and slopes of their members, float32, `(leaves, groups, k)`."""

    groups: GroupSet
    coeff: NDArray[np.float32]
    slope: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Parts:
    """What groups take over, int16 `(leaves, groups, k)`, in units of 1 / 32767. A group's part of each coefficient is
    that, times its `share`. A member's slope is that of its own line, times its part, and `tilt` adds so much of the
    sum of the absolute parts of its group."""

    groups: GroupSet
    share: NDArray[np.int16]
    tilt: NDArray[np.int16]

    @classmethod
    def nothing(cls, groups: GroupSet, leaves: int) -> Parts:
        """Of so many leaves that give nothing away."""
        shape = leaves, *groups.members.shape
        return cls(groups, np.zeros(shape, np.int16), np.zeros(shape, np.int16))


# A share of one, as it is written down.
ONE = 32767


def codes(values: Tensor) -> Tensor:
    """Shares and tilts, in [-1, 1], as `Parts` has them."""
    return (values.double() * ONE).round()


@dataclass(frozen=True, eq=False)
class Choices:
    """What the leaves of a proof chose at one activation, each tensor with a row for each leaf.

    `slopes`, of type uint8, are fractions of the range of lower slopes, and `lines`, float32 `(leaves | 1, m, 2)`, both
    slopes, of the neurons at `entries`, `(m,)`; `absolute`, float32, are slopes of all neurons outright. Beside lower
    slopes, `upper`, float32, are those of upper lines, `(m,)` of all leaves, or `(leaves, m)`, negative for none.
    """

    entries: NDArray[np.int32] | None = None
    slopes: NDArray[np.uint8] | None = None
    upper: NDArray[np.float32] | None = None
    lines: NDArray[np.float32] | None = None
    absolute: NDArray[np.float32] | None = None
    groups: tuple[Shared | Parts | Whole, ...] = ()

    @property
    def finite(self) -> bool:
        """Whether all numbers are."""
        shared = (t for s in self.groups if isinstance(s, Shared) for t in (s.coeff, s.slope))
        tables = (t for t in (self.upper, self.lines, self.absolute, *shared) if t is not None)
        return all(bool(np.isfinite(t).all()) for t in tables)

    def among(self, places: NDArray[np.int32], width: int) -> Choices:
        """The same about more neurons, of which these were at `places`; the others are inactive."""
        absolute = self.absolute
        if absolute is not None:
            absolute = np.zeros((len(absolute), width), np.float32)
            absolute[:, places] = self.absolute
        entries = None if self.slopes is None and self.lines is None else places
        return replace(self, entries=entries if self.entries is None else places[self.entries], absolute=absolute)

    @classmethod
    def join(cls, parts: Sequence[Choices], counts: Sequence[int]) -> Choices:
        """Choices of so many leaves about the same neurons, whose groups have shares."""

        def joined(tables: list[NDArray[Number] | None]) -> NDArray[Number] | None:
            present = [t for t in tables if t is not None]
            return np.concatenate(present) if present else None

        first, slopes = parts[0], joined([p.slopes for p in parts])
        upper, tables = first.upper, [(p.slopes, p.upper) for p in parts if p.slopes is not None]
        if any(u is not None and u.ndim == 2 for _, u in tables):
            upper = joined([None if u is None else np.broadcast_to(u, s.shape) for s, u in tables])
        lines = _joined_lines([p.lines for p in parts], counts)
        groups = _joined_groups([p.groups for p in parts], counts)
        return cls(first.entries, slopes, upper, lines, joined([p.absolute for p in parts]), groups)


def _joined_groups(parts: Sequence[tuple[Shared | Parts | Whole, ...]], counts: Sequence[int]) -> tuple[Parts, ...]:
    """Parts of so many leaves each; leaves that know nothing of a set of groups give it nothing."""
    found = [{id(p.groups): p for p in part if isinstance(p, Parts)} for part in parts]
    sets = {key: p.groups for part in found for key, p in part.items()}
    result = []
    for key, groups in sets.items():
        each = [part.get(key) or Parts.nothing(groups, n) for part, n in zip(found, counts, strict=True)]
        result.append(Parts(groups, np.concatenate([p.share for p in each]), np.concatenate([p.tilt for p in each])))
    return tuple(result)


def _joined_lines(parts: Sequence[NDArray[np.float32] | None], counts: Sequence[int]) -> NDArray[np.float32] | None:
    """Lines of so many leaves each: one row, if that does for all of them."""
    here = [(t, n) for t, n in zip(parts, counts, strict=True) if t is not None and n]
    if not here:
        return next((t for t in parts if t is not None), None)
    first = here[0][0]
    if all(len(t) == 1 and np.array_equal(t, first) for t, _ in here):
        return first
    return np.concatenate([np.broadcast_to(t, (n, *t.shape[1:])) for t, n in here])


@dataclass(frozen=True, eq=False)
class LeafTable:
    """Leaves and what was chosen for each: `choices` by activation, and the splits on the way to it, `(leaves,
    depth)`, as activation (-1: none), entry, point, side and multiplier. `clip`, `(leaves,)`: the number of the last
    clip on the way, -1 for none; None if there are none at all."""

    choices: Mapping[int, Choices]
    node: NDArray[np.int32]
    entry: NDArray[np.int32]
    point: NDArray[np.float32]
    side: NDArray[np.int8]
    multiplier: NDArray[np.float32]
    clip: Numbers | None = None

    def __len__(self) -> int:
        return len(self.node)

    @cached_property
    def plain(self) -> bool:
        """Whether certificates can say all this: all numbers are finite in float32."""
        return bool(np.isfinite(self.multiplier).all()) and all(c.finite for c in self.choices.values())

    @classmethod
    def unsplit(cls, choices: Mapping[int, Choices], count: int) -> LeafTable:
        """Leaves without a split, one for each form."""
        kinds = (np.int32, np.int32, np.float32, np.int8, np.float32)
        node, entry, point, side, multiplier = (np.zeros((count, 0), kind) for kind in kinds)
        return cls(choices, node, entry, point, side, multiplier)

    @classmethod
    def join(cls, parts: Sequence[LeafTable]) -> LeafTable:
        """The leaves of one search, which are about the same neurons, one after the other."""
        counts = [len(p) for p in parts]
        choices = {i: Choices.join([p.choices[i] for p in parts], counts) for i in parts[0].choices}
        depth = max(p.node.shape[1] for p in parts)

        def joined(tables: list[NDArray[Number]], free: int) -> NDArray[Number]:
            wide = (np.pad(t, ((0, 0), (0, depth - t.shape[1])), constant_values=free) for t in tables)
            return np.concatenate(list(wide))

        return cls(
            choices,
            joined([p.node for p in parts], -1),
            joined([p.entry for p in parts], 0),
            joined([p.point for p in parts], 0),
            joined([p.side for p in parts], 0),
            joined([p.multiplier for p in parts], 0),
            np.concatenate([np.full(len(p), -1) if p.clip is None else p.clip for p in parts]),
        )

    def among(self, kept: Mapping[int, Tensor], widths: Mapping[int, int]) -> LeafTable:
        """The same about the neurons of a larger network, of which only the entries in `kept` were left. An activation
        has as many neurons there as `widths` says."""
        places = {i: k.cpu().numpy().astype(np.int32) for i, k in kept.items()}
        choices = dict(self.choices)
        entry = self.entry.copy()
        for i in choices.keys() & places.keys():
            choices[i] = choices[i].among(places[i], widths[i])
            entry[self.node == i] = places[i][entry[self.node == i]]
        return replace(self, choices=choices, entry=entry)


# Some leaves: a table and rows of it.
Part = tuple[LeafTable, Numbers]


@dataclass(frozen=True, eq=False)
class AffineBounds:
    """Affine bounds of entries `(m,)` of a pre-activation, and then of their negatives: what each of these leaves
    chose, which has no splits."""

    entries: NDArray[np.int32]
    leaves: LeafTable


@dataclass(frozen=True, eq=False)
class Clips:
    """The clips of a search about margins (`krelax.bounds.clipping`): leaves at which intervals of pre-activations were
    narrowed for all that lies behind them, where the margin is at most `level`.

    Clip n is the leaf `places[n]`, a row of a table, and `multipliers[n]` has those of the `lines` of each node, as
    codes, `(2 m,)`."""

    level: float
    lines: Mapping[int, AffineBounds]
    places: list[tuple[LeafTable, int]]
    multipliers: dict[int, Mapping[int, NDArray[np.uint8]]]
