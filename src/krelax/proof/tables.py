"""What leaves chose at one activation, from the tables of several searches, as the tables of a certificate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.format import schema as file
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Polytope
from krelax.proof.choices import Choices, GroupSet, Number, Numbers, Parts, Shared, Whole


class Merged:
    """Tables of slopes of several lemmas as one, about all entries that any of them is about. Tables without entries
    are about all neurons."""

    def __init__(self, choices: Sequence[Choices], leaves: int) -> None:
        entries, self._width = [c.entries for c in choices if c.entries is not None], 0
        tables = [t for c in choices if c.entries is None for t in (c.slopes, c.lines) if t is not None]
        self._entries = np.unique(np.concatenate(entries)) if entries and not tables else None
        if tables:
            self._width = tables[0].shape[1]
        self._row = np.full(leaves, -1, np.int32)
        self._tables: tuple[list[NDArray[Any]], ...] = ([], [], [])
        self._index: tuple[list[Numbers], ...] = ([], [], [])
        self._places: tuple[list[Numbers], ...] = ([], [], [])
        self._upper: list[NDArray[np.float32]] = []
        self._owner: list[Numbers] = []

    def add(self, choices: Choices, rows: Numbers, places: Numbers) -> None:
        """Rows of one table for the leaves at `places`."""
        for kind, table in enumerate((choices.slopes, choices.lines, choices.absolute)):
            if table is None or not len(rows):
                continue
            first, shared = sum(map(len, self._tables[kind])), len(table) == 1
            chosen = table if shared else table[rows]
            self._tables[kind].append(chosen if kind == 2 else self._wide(choices, chosen, 0))
            self._index[kind].append(np.full(len(rows), first) if shared else np.arange(first, first + len(rows)))
            self._places[kind].append(places)
        if choices.slopes is not None and len(rows):
            assert choices.upper is not None
            once, first = len(choices.slopes) == 1, sum(map(len, self._upper))
            if choices.upper.ndim == 1:
                upper, owner = choices.upper[None], np.full(1 if once else len(rows), first)
            else:
                upper = choices.upper if once else choices.upper[rows]
                owner = np.arange(first, first + len(upper))
            self._owner.append(owner)
            self._upper.append(self._wide(choices, upper, -1))

    def _wide(self, choices: Choices, table: NDArray[Any], missing: float) -> NDArray[Any]:
        """A table with a column for each of the entries."""
        if choices.entries is None:
            return table
        count = self._width if self._entries is None else len(self._entries)
        places = choices.entries if self._entries is None else np.searchsorted(self._entries, choices.entries)
        wide = np.full((len(table), count, *table.shape[2:]), missing, table.dtype)
        wide[:, places] = table
        return wide

    def write(self, crossing: file.Choices) -> None:
        """Put the tables, each row once, into a crossing."""
        first = 0
        found: list[NDArray[Any] | None] = [None, None, None]
        for kind, (tables, index, places) in enumerate(zip(self._tables, self._index, self._places, strict=True)):
            if not tables:
                continue
            table = np.concatenate(tables)
            if kind == 0:
                upper, owner = _distinct(np.concatenate(self._upper))
                owner = owner[np.concatenate(self._owner)]
                both, inverse = _distinct(np.concatenate([owner.astype(np.int32)[:, None].view(np.uint8), table], 1))
                crossing.upper, crossing.owner = upper, both[:, :4].copy().view(np.int32)[:, 0]
                table = both[:, 4:]
            else:
                table, inverse = _distinct(table)
            self._row[np.concatenate(places)] = first + inverse[np.concatenate(index)]
            first += len(table)
            found[kind] = table
        if first:
            crossing.row, crossing.entries = self._row, self._entries
            crossing.slopes, crossing.lines, crossing.absolute = found


def _distinct(table: NDArray[Any]) -> tuple[NDArray[Any], Numbers]:
    """Different rows of a table, as they are in memory, and for each row which of them it is."""
    raw, width = table.tobytes(), table[:1].nbytes
    number: dict[bytes, int] = {}  # sorting long rows takes seven to nine times as long
    inverse = [number.setdefault(raw[i * width : (i + 1) * width], len(number)) for i in range(len(table))]
    first = np.full(len(number), len(table))
    np.minimum.at(first, inverse, np.arange(len(table)))
    return table[first], np.array(inverse, np.int64)


class Collected:
    """What groups take over, collected for all leaves of a lemma; leaves that give a group nothing have zeros."""

    def __init__(self, leaves: int) -> None:
        self._leaves = leaves
        self._found: dict[tuple[int, type], tuple[GroupSet, NDArray[Any], NDArray[Any]]] = {}
        self._whole: dict[int, GroupSet] = {}

    def add(self, taken: Shared | Parts | Whole, rows: Numbers, places: Numbers) -> None:
        """What some leaves gave away. What holds of whole groups holds in all leaves."""
        if isinstance(taken, Whole):
            self._whole[id(taken.groups)] = taken.groups
            return
        one, other = (taken.coeff, taken.slope) if isinstance(taken, Shared) else (taken.share, taken.tilt)
        zeros = [np.zeros((self._leaves, *t.shape[1:]), t.dtype) for t in (one, other)]
        new = taken.groups, zeros[0], zeros[1]
        _, first, second = self._found.setdefault((id(taken.groups), type(taken)), new)
        first[places], second[places] = one[rows], other[rows]

    def shares(self, sets: list[GroupSet]) -> list[file.Shares]:
        """As they are stored, with the bases of their linear programs; groups that are new are added to `sets`."""
        result = [file.Shares(_number(groups, sets)) for groups in self._whole.values()]
        for (_, kind), (groups, first, second) in self._found.items():
            number = _number(groups, sets)
            if kind is Parts:
                result.append(file.Shares(number, share=first, tilt=second))
            else:
                basis = _bases(groups, first, second) if groups.members.shape[1] > 2 else None
                result.append(file.Shares(number, first, second, basis))
        return result


def _number(groups: GroupSet, sets: list[GroupSet]) -> int:
    """Which of the sets these groups are; they become one."""
    if not any(groups is other for other in sets):
        sets.append(groups)
    return next(n for n, other in enumerate(sets) if other is groups)


def _bases(groups: GroupSet, coeff: NDArray[np.float32], slope: NDArray[np.float32]) -> NDArray[np.uint8]:
    from krelax.hull.support import bases  # numba takes a while to import

    polytope = Polytope(groups.rows.astype(np.float64), groups.bounds)
    pieces = Pieces.coordinatewise(groups.slopes, [1.0] * coeff.shape[2])
    found = bases(polytope, pieces, *(t.transpose(1, 0, 2).astype(np.float64) for t in (slope, coeff)))
    return np.ascontiguousarray(found.transpose(1, 0, 2, 3))


def wide(table: NDArray[Number], columns: int, free: int) -> NDArray[Number]:
    """A table with more columns, filled with `free`: `np.pad` takes many times as long for small ones."""
    result = np.full((len(table), columns), free, table.dtype)
    result[:, : table.shape[1]] = table
    return result
