"""The proof log of one region: every lemma that is proven about it, numbered as they come.

A lemma says that a linear form of a node is at least so much, and which leaves prove that, which together cover the
region. Nothing is taken back and nothing is numbered anew, so whoever keeps a bound keeps the number of its lemma
beside it. Records hold many lemmas each: to write m of them is one step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from krelax.proof.choices import Clips, LeafTable, Numbers
from krelax.proof.cuts import Cuts

# The node of lemmas about margins; their forms have the number of a margin as their only entry.
MARGINS = -1
# In the place of a lemma's number: the checker derives the bound, and no certificate can state it.
DERIVED, UNSTATED = 0, -1

# A form: entries in increasing order with their coefficients.
Key = tuple[tuple[int, float], ...]
# Some leaves: a table and rows of it.
Part = tuple[LeafTable, Numbers]


@dataclass(frozen=True, eq=False)
class Forms:
    """Linear forms of a flattened node: their terms, `(terms,)` each, in order of form, then entry."""

    form: Numbers
    entry: Numbers
    coefficient: NDArray[np.float64]

    @classmethod
    def single(cls, entries: Sequence[int] | Numbers) -> Forms:
        """Entries."""
        entry = np.asarray(entries, np.int64)
        return cls(np.arange(len(entry)), entry, np.ones(len(entry)))

    @classmethod
    def both(cls, entries: Sequence[int] | Numbers) -> Forms:
        """Entries, and then their negatives."""
        entry = np.tile(np.asarray(entries, np.int64), 2)
        return cls(np.arange(len(entry)), entry, np.repeat([1.0, -1.0], len(entry) // 2))

    @classmethod
    def of(cls, rows: Tensor) -> Forms:
        """Rows `(forms, entries)`."""
        table = rows.cpu().double().numpy()
        form, entry = table.nonzero()
        return cls(form, entry, table[form, entry])

    def select(self, numbers: Numbers) -> Forms:
        """Some of them, in that order."""
        begin, end = (np.searchsorted(self.form, numbers + side) for side in (0, 1))
        form = np.repeat(np.arange(len(numbers)), end - begin)
        place = np.arange(len(form)) + (begin - np.cumsum(end - begin) + (end - begin))[form]
        return Forms(form, self.entry[place], self.coefficient[place])

    def key(self, number: int) -> Key:
        """One of them."""
        begin, end = np.searchsorted(self.form, [number, number + 1])
        return tuple(zip(self.entry[begin:end].tolist(), self.coefficient[begin:end].tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Lemma:
    """That a form of a node is at least `value`: `parts` are the leaves that prove it together. A leaf stands for all
    leaves behind it, if there are any. The leaves may lie behind some of the `clips`."""

    node: int
    key: Key
    value: float
    parts: tuple[Part, ...]
    clips: Clips | None = None


@dataclass(frozen=True, eq=False)
class Refutation:
    """That a margin is above `level`, or else: `steps` are the nodes of pre-activations and the lemmas about them that
    hold where it is not, one step after the other, and `lemma` is then about the margin itself, `DERIVED` if bounds
    contradict each other."""

    level: float
    steps: Sequence[tuple[int, Numbers]]
    lemma: int


class Record(Protocol):
    """Lemmas that were proven together."""

    def __len__(self) -> int: ...

    def lemma(self, log: ProofLog, number: int) -> Lemma | Refutation:
        """One of them."""


@dataclass(frozen=True, eq=False)
class ByLeaves:
    """Forms of a node, each of which one leaf proves: a row of a table."""

    node: int
    forms: Forms
    values: NDArray[np.float64]
    leaves: LeafTable
    rows: Numbers

    def __len__(self) -> int:
        return len(self.values)

    def lemma(self, log: ProofLog, number: int) -> Lemma:
        """One of them."""
        part = self.leaves, self.rows[number : number + 1]
        return Lemma(self.node, self.forms.key(number), float(self.values[number]), (part,))


@dataclass(frozen=True, eq=False)
class BySearch:
    """Forms of a node, each of which many leaves of a search prove."""

    node: int
    forms: Forms
    values: NDArray[np.float64]
    parts: Sequence[tuple[Part, ...]]
    clips: Clips | None

    def __len__(self) -> int:
        return len(self.values)

    def lemma(self, log: ProofLog, number: int) -> Lemma:
        """One of them."""
        value, parts = float(self.values[number]), self.parts[number]
        return Lemma(self.node, self.forms.key(number), value, parts, self.clips)


@dataclass(frozen=True, eq=False)
class ByCases:
    """A margin that is above a level, or else."""

    case: Refutation

    def __len__(self) -> int:
        return 1

    def lemma(self, log: ProofLog, number: int) -> Refutation:
        """The only one."""
        return self.case


@dataclass(frozen=True, eq=False)
class Restated:
    """Forms of a node that have the proofs of other lemmas, of which they are another name."""

    node: int
    forms: Forms
    lemmas: Numbers

    def __len__(self) -> int:
        return len(self.lemmas)

    def lemma(self, log: ProofLog, number: int) -> Lemma:
        """One of them."""
        proof = log[int(self.lemmas[number])]
        assert isinstance(proof, Lemma)
        assert proof.clips is None
        return Lemma(self.node, self.forms.key(number), proof.value, proof.parts)


@dataclass(frozen=True, eq=False)
class Conclusion:
    """What a question rests on: for each of its margins a lemma, `DERIVED` if there is none, and for each node of a
    pre-activation those that bound it, by `layers`. Each of the clauses `joint` has one margin, the largest, behind
    those of the others. `boxes` are the cuts of a search that decided it without any of that."""

    margins: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    layers: Mapping[int, Numbers] = field(default_factory=dict)
    joint: tuple[int, ...] = ()
    boxes: Cuts | None = None


class ProofLog:
    """Lemmas by their numbers, from 1 on."""

    def __init__(self, first: int = 1) -> None:
        self.first = self.next = first
        self._records: list[Record] = []
        self._firsts: list[int] = []
        self._lock = Lock()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=Lock())

    def __len__(self) -> int:
        return self.next - self.first

    def __getitem__(self, number: int) -> Lemma | Refutation:
        """A lemma. Raises LookupError for one that is not here."""
        place = bisect_right(self._firsts, number) - 1
        if place < 0 or number - self._firsts[place] >= len(self._records[place]):
            raise LookupError(f"no lemma has the number {number}")
        return self._records[place].lemma(self, number - self._firsts[place])

    def append(self, record: Record) -> Numbers:
        """The numbers of the lemmas of a record."""
        with self._lock:
            first, self.next = self.next, self.next + len(record)
            self._records.append(record)
            self._firsts.append(first)
        return np.arange(first, first + len(record))

    def prove(
        self, node: int, forms: Forms, values: NDArray[np.float64], leaves: LeafTable, rows: Numbers | None = None
    ) -> Numbers:
        """The numbers of lemmas that forms are at least `values`, `(forms,)`, each proven by a row of a table; by
        default by the row of the same number, or the only one. `UNSTATED` if certificates cannot say what leaves chose.
        """
        if not leaves.plain:
            return np.full(len(values), UNSTATED)
        if rows is None:
            rows = np.zeros(len(values), np.int64) if len(leaves) == 1 else np.arange(len(values))
        return self.append(ByLeaves(node, forms, values, leaves, rows))

    def restate(self, lemmas: Numbers, node: int, forms: Forms) -> Numbers:
        """The numbers of lemmas about forms of a node that say what others do, which are not proven behind clips;
        `UNSTATED` where there is no other."""
        return np.where(lemmas > DERIVED, self.append(Restated(node, forms, lemmas)), UNSTATED)

    def forget(self, since: int) -> None:
        """Drop the lemmas from a number on, to which nothing refers. Their numbers are not given again."""
        with self._lock:
            kept = bisect_right(self._firsts, since - 1)
            del self._records[kept:], self._firsts[kept:]

    def tail(self) -> ProofLog:
        """An empty log that goes on where this one ends."""
        return ProofLog(self.next)

    def absorb(self, tail: ProofLog) -> None:
        """Append what was written in a `tail` of this log, while nothing was written here."""
        with self._lock:
            assert tail.first == self.next
            self._records += tail._records
            self._firsts += tail._firsts
            self.next = tail.next
