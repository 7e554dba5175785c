"""What proofs chose, noted as bounds are proven, so that somebody else can evaluate it again.

A claim is about one form: its leaves, and what was chosen for each of them, slopes and shares of groups. Its value only
tells the ledger which claim proves most. Slopes are noted as proofs use them, rounded beforehand; shares of groups, and
slopes of linear programs, are noted in float32, which changes a bound in its seventh digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.bounds.groups import Groups

Numbers = NDArray[np.int64]
Number = TypeVar("Number", bound=np.number[Any])

# A form of a flattened node: entries in increasing order with their coefficients. Margins have their numbers instead.
Key = tuple[tuple[int, float], ...] | int
# The node of a ledger's claims about margins.
MARGINS = -1


@dataclass(frozen=True, eq=False)
class Shared:
    """What groups took over: coefficients and slopes of their members, float32, `(leaves, groups, k)`."""

    groups: Groups
    coeff: NDArray[np.float32]
    slope: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Choices:
    """What the leaves of a claim chose at one activation, each tensor with a row for each leaf.

    `slopes`, of type uint8, are fractions of the range of lower slopes, and `lines`, float32 `(leaves | 1, m, 2)`, both
    slopes, of the neurons at `entries`, `(m,)`; `absolute`, float32, are slopes of all neurons outright. Beside lower
    slopes, `upper`, float32, are those of upper lines, `(m,)` of all leaves, or `(leaves, m)`, negative for none.
    """

    entries: NDArray[np.int32] | None = None
    slopes: NDArray[np.uint8] | None = None
    upper: NDArray[np.float32] | None = None
    lines: NDArray[np.float32] | None = None
    absolute: NDArray[np.float32] | None = None
    groups: tuple[Shared, ...] = ()

    @property
    def finite(self) -> bool:
        """Whether all numbers are."""
        shared = (t for s in self.groups for t in (s.coeff, s.slope))
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
        """Choices of so many leaves about the same neurons, without groups."""

        def joined(tables: list[NDArray[Number] | None]) -> NDArray[Number] | None:
            present = [t for t in tables if t is not None]
            return np.concatenate(present) if present else None

        first, slopes = parts[0], joined([p.slopes for p in parts])
        upper, tables = first.upper, [(p.slopes, p.upper) for p in parts if p.slopes is not None]
        if any(u is not None and u.ndim == 2 for _, u in tables):
            upper = joined([None if u is None else np.broadcast_to(u, s.shape) for s, u in tables])
        lines = _joined_lines([p.lines for p in parts], counts)
        return cls(first.entries, slopes, upper, lines, joined([p.absolute for p in parts]))


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
class Noted:
    """Leaves and what was chosen for each: `choices` by activation, and the splits on the way to it, `(leaves,
    depth)`, as activation (-1: none), entry, side and multiplier. `clip`, `(leaves,)`: the number of the last clip on
    the way, -1 for none; None if there are none at all."""

    choices: Mapping[int, Choices]
    node: NDArray[np.int32]
    entry: NDArray[np.int32]
    side: NDArray[np.int8]
    multiplier: NDArray[np.float32]
    clip: Numbers | None = None

    def __len__(self) -> int:
        return len(self.node)

    @cached_property
    def plain(self) -> bool:
        """Whether certificates can say all this: no group has pass-through members, of which they know nothing, and all
        numbers are finite in float32."""
        if not all(s.groups.through is None for c in self.choices.values() for s in c.groups):
            return False
        return bool(np.isfinite(self.multiplier).all()) and all(c.finite for c in self.choices.values())

    @classmethod
    def unsplit(cls, choices: Mapping[int, Choices], count: int) -> Noted:
        """Leaves without a split, one for each form."""
        kinds = (np.int32, np.int32, np.int8, np.float32)
        node, entry, side, multiplier = (np.zeros((count, 0), kind) for kind in kinds)
        return cls(choices, node, entry, side, multiplier)

    @classmethod
    def join(cls, parts: Sequence[Noted]) -> Noted:
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
            joined([p.side for p in parts], 0),
            joined([p.multiplier for p in parts], 0),
            np.concatenate([np.full(len(p), -1) if p.clip is None else p.clip for p in parts]),
        )

    def among(self, kept: Mapping[int, Tensor], widths: Mapping[int, int]) -> Noted:
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
Part = tuple[Noted, Numbers]


@dataclass(frozen=True, eq=False)
class Straight:
    """Affine bounds of entries `(m,)` of a pre-activation, and then of their negatives: what each of these leaves
    chose, which has no splits."""

    entries: NDArray[np.int32]
    leaves: Noted


@dataclass(frozen=True, eq=False)
class Clips:
    """The clips of a search about margins (`krelax.bounds.clipping`): leaves at which intervals of pre-activations were
    narrowed for all that lies behind them, where the margin is at most `level`.

    Clip n is the leaf `places[n]`, a row of a table, and `multipliers[n]` has those of the `lines` of each node, as
    codes, `(2 m,)`."""

    level: float
    lines: Mapping[int, Straight]
    places: list[tuple[Noted, int]]
    multipliers: dict[int, Mapping[int, NDArray[np.uint8]]]


@dataclass(frozen=True, eq=False)
class Claim:
    """The best that is known of one form: its value, and the leaves that prove it together. A leaf stands for all
    leaves behind it, if there are any. The leaves may lie behind some of the `clips`."""

    value: float
    parts: tuple[Part, ...]
    clips: Clips | None = None


@dataclass(frozen=True, eq=False)
class Entries:
    """Bounds of entries `index`, `(n,)`, of a node and of their negatives, `values`, `(2 n,)`, that one leaf proves."""

    index: Numbers
    values: NDArray[np.float64]
    leaf: Noted


@dataclass(frozen=True, eq=False)
class Case:
    """A margin, given by its number, that is above `level` or else: `steps`, one after the other, with the node of a
    pre-activation and the claims about it that they prove where the margin is not; and then the `claim` of the margin,
    none if bounds contradict each other."""

    margin: int
    level: float
    steps: Sequence[tuple[int, Mapping[Key, Claim]]]
    claim: Claim | None


@dataclass
class Ledger:
    """Claims about one region: for each node, or for `MARGINS`, the best for each form, and what single leaves prove
    of `entries` of a node. `boxes` are the cuts of the search that decided the question, if it cut the region into
    boxes. With `maxima`, claims about margins are about the largest margin of each clause; so are `cases`."""

    claims: dict[int, dict[Key, Claim]] = field(default_factory=dict)
    entries: dict[int, list[Entries]] = field(default_factory=dict)
    boxes: Cuts | None = None
    maxima: bool = False
    cases: list[Case] = field(default_factory=list)

    def begin_maxima(self, node: int, members: Sequence[int]) -> None:
        """From now on margins are those of clauses. Claims about single ones are about the entries of the maxima's
        pre-activation, `node`, of which `members` says whose margin they are; what lies behind clips is not."""
        if self.maxima:
            return
        self.maxima = True
        single = self.claims.pop(MARGINS, {})
        own = self.claims.setdefault(node, {})
        for entry, margin in enumerate(members):
            claim = single.get(margin)
            if claim is not None and claim.clips is None:
                own[((entry, 1.0),)] = claim

    def proven(self, node: int, entries: int) -> Tensor:
        """Lower bounds of the entries of a node that claims about them prove, `(entries,)`; minus infinity for none."""
        found = torch.full((entries,), -torch.inf, dtype=torch.float64)
        for key, claim in self.claims.get(node, {}).items():
            if isinstance(key, tuple) and len(key) == 1 and key[0][1] == 1.0:
                found[key[0][0]] = claim.value
        return found

    def note(self, node: int, keys: Sequence[Key | None], values: Tensor, leaves: Noted) -> None:
        """Bounds `values`, `(forms,)`, of forms of a node, each proven by the leaf of the same number."""
        for row, (key, value) in enumerate(zip(keys, values.tolist(), strict=True)):
            if key is not None:
                self.note_parts(node, key, value, ((leaves, np.array([row])),))

    def note_entries(self, node: int, index: Tensor, values: Tensor, leaf: Noted) -> None:
        """Bounds of entries `index`, `(n,)`, of a node, and then of their negatives, all proven by one leaf."""
        self.entries.setdefault(node, []).append(Entries(index.cpu().numpy(), values.cpu().numpy(), leaf))

    def better(self, node: int, lower: Tensor, upper: Tensor) -> dict[Key, Claim]:
        """The claims about single entries of a node that say more than its bounds, `(entries,)`."""
        known = {1.0: lower.tolist(), -1.0: (-upper).tolist()}
        entries = {key: key[0] for key in self.claims.get(node, {}) if isinstance(key, tuple) and len(key) == 1}
        found = {key: self.claims[node][key] for key in entries}
        return {key: claim for key, claim in found.items() if claim.value > known[entries[key][1]][entries[key][0]]}

    def best(self, node: int) -> dict[Key, Claim]:
        """The best claim about each form of a node."""
        found: dict[Key, Claim] = {}
        for noted in self.entries.get(node, []):
            part = ((noted.leaf, np.array([0])),)
            keys = keys_of_entries(noted.index.tolist(), [True] * len(noted.index))
            for key, value in zip(keys, noted.values.tolist(), strict=True):
                if key is not None and noted.leaf.plain and (key not in found or value > found[key].value):
                    found[key] = Claim(value, part)
        for key, claim in self.claims.get(node, {}).items():
            if key not in found or claim.value >= found[key].value:
                found[key] = claim
        return found

    def note_parts(
        self, node: int, key: Key, value: float, parts: tuple[Part, ...], clips: Clips | None = None
    ) -> None:
        """A bound of one form, proven by leaves that cover the region. What a certificate cannot say is left out."""
        claims = self.claims.setdefault(node, {})
        before = claims.get(key)
        if value > -np.inf and all(leaves.plain for leaves, _ in parts) and (before is None or value > before.value):
            claims[key] = Claim(value, parts, clips)


@dataclass(frozen=True, eq=False)
class Proven:
    """Leaves of a search, whose they are, and the numbers of the proofs they inherited, -1 for those of their own."""

    leaves: Noted
    query: Numbers
    proof: Numbers

    @classmethod
    def join(cls, parts: Sequence[Proven]) -> Proven:
        """All of them."""
        query, proof = np.concatenate([p.query for p in parts]), np.concatenate([p.proof for p in parts])
        return cls(Noted.join([p.leaves for p in parts]), query, proof)


class Notes:
    """The leaves of one search, collected until a query is proven: `names` are the node that queries are about, and the
    key of each."""

    def __init__(self, ledger: Ledger, names: tuple[int, Sequence[Key | None]]) -> None:
        self._ledger, (self._node, self._keys) = ledger, names
        self._closed: list[Proven] = []
        self._numbered: list[tuple[Noted, int]] = []
        self._clips: Clips | None = None
        self._lock = Lock()

    def number(self, proven: Proven) -> Tensor:
        """Numbers, `(leaves,)`, for proofs that other leaves inherit."""
        with self._lock:
            first, count = len(self._numbered), len(proven.leaves)
            self._numbered += [(proven.leaves, row) for row in range(count)]
        return torch.arange(first, first + count)

    def begin_clips(self, level: float, lines: Mapping[int, Straight]) -> None:
        """From now on leaves may be clips, with such lines."""
        self._clips = Clips(level, lines, self._numbered, {})

    def clip(self, proven: Proven, multipliers: Mapping[int, NDArray[np.uint8]]) -> Tensor:
        """Numbers, `(leaves,)`, of leaves that are clips, with the multipliers of lines, `(leaves, 2 m)`."""
        numbers = self.number(proven)
        assert self._clips is not None
        for row, number in enumerate(numbers.tolist()):
            self._clips.multipliers[number] = {i: codes[row] for i, codes in multipliers.items()}
        return numbers

    def alone(self, proven: Proven, value: Tensor) -> None:
        """Leaves each of which covers the whole region."""
        self._ledger.note(self._node, [self._keys[q] for q in proven.query], value, proven.leaves)

    def close(self, proven: Proven) -> None:
        """Leaves of queries that are closed."""
        self._closed.append(proven)

    def conclude(self, bound: Tensor, left: Sequence[Proven]) -> None:
        """Note the bounds `(queries,)` that closed leaves and those left prove; infinite where they do not."""
        if not bool(bound.isfinite().any()):
            return  # joining what may be a hundred thousand leaves takes seconds
        if self._closed:
            self._closed = [Proven.join(self._closed)]
        parts = [*self._closed, *left]
        for query in bound.isfinite().nonzero()[:, 0].tolist():
            key = self._keys[query]
            if key is not None:
                leaves = tuple(part for proven in parts for part in self._parts(proven, query))
                self._ledger.note_parts(self._node, key, float(bound[query]), leaves, self._clips)

    def _parts(self, proven: Proven, query: int) -> Iterator[Part]:
        """The leaves of one query; in the place of those that inherited their proof, the leaf that it is of."""
        mine = proven.query == query
        rows = np.flatnonzero(mine & (proven.proof < 0))
        if len(rows):
            yield proven.leaves, rows
        for number in np.unique(proven.proof[mine & (proven.proof >= 0)]).tolist():
            leaves, row = self._numbered[number]
            yield leaves, np.array([row])


class Cuts:
    """A tree of boxes: for each box by its number the input that it is cut at (-1: none), where, and the number of the
    part below; that above has the next one. Box 0 is the region. `inputs` are the inputs that vary."""

    def __init__(self, inputs: Sequence[int]) -> None:
        self.cut: list[int] = [-1]
        self.at: list[float] = [0.0]
        self.below: list[int] = [-1]
        self._inputs, self._lock = inputs, Lock()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=Lock())

    def split(self, boxes: Tensor, axis: Tensor, at: Tensor) -> Tensor:
        """Cut boxes, `(n,)`, in two across one of the inputs that vary; the numbers of the parts below."""
        with self._lock:
            first = len(self.cut)
            for box, i, x in zip(boxes.tolist(), axis.tolist(), at.tolist(), strict=True):
                self.cut[box], self.at[box], self.below[box] = self._inputs[i], x, len(self.cut)
                self.cut += [-1, -1]
                self.at += [0.0, 0.0]
                self.below += [-1, -1]
        return torch.arange(first, first + 2 * len(boxes), 2, device=boxes.device)


def keys_of_entries(index: Iterable[int], valid: Iterable[bool]) -> list[Key | None]:
    """Keys of entries and then of their negatives; None for what is not valid."""
    pairs = list(zip(index, valid, strict=True))
    return [((i, sign),) if ok else None for sign in (1.0, -1.0) for i, ok in pairs]


def keys_of_rows(rows: Tensor) -> list[Key | None]:
    """Keys of forms given as rows `(forms, entries)` over a flattened node."""
    rows = rows.cpu()  # read number by number
    place = [row.nonzero()[:, 0] for row in rows]
    return [tuple(zip(p.tolist(), row[p].tolist(), strict=True)) for row, p in zip(rows, place, strict=True)]
