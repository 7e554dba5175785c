"""The leaves of one search, collected until they prove what it is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.proof.choices import AffineBounds, Clips, LeafTable, Numbers
from krelax.proof.log import UNSTATED, BySearch, Forms, Part, ProofLog


@dataclass(frozen=True, eq=False)
class Proven:
    """Leaves of a search, whose they are, and the numbers of the proofs they inherited, -1 for those of their own."""

    leaves: LeafTable
    query: Numbers
    proof: Numbers

    @classmethod
    def join(cls, parts: Sequence[Proven]) -> Proven:
        """All of them."""
        query, proof = np.concatenate([p.query for p in parts]), np.concatenate([p.proof for p in parts])
        return cls(LeafTable.join([p.leaves for p in parts]), query, proof)


class Leaves:
    """The leaves of one search about `forms` of a node, one for each query."""

    def __init__(self, log: ProofLog, node: int, forms: Forms) -> None:
        self._log, self._node, self._forms = log, node, forms
        self._closed: list[Proven] = []
        self._numbered: list[tuple[LeafTable, int]] = []
        self._clips: Clips | None = None
        self._lock = Lock()

    def number(self, proven: Proven) -> Tensor:
        """Numbers, `(leaves,)`, for proofs that other leaves inherit."""
        with self._lock:
            first, count = len(self._numbered), len(proven.leaves)
            self._numbered += [(proven.leaves, row) for row in range(count)]
        return torch.arange(first, first + count)

    def begin_clips(self, level: float, lines: Mapping[int, AffineBounds]) -> None:
        """From now on leaves may be clips, with such lines."""
        self._clips = Clips(level, lines, self._numbered, {})

    def clip(self, proven: Proven, multipliers: Mapping[int, NDArray[np.uint8]]) -> Tensor:
        """Numbers, `(leaves,)`, of leaves that are clips, with the multipliers of lines, `(leaves, 2 m)`."""
        numbers = self.number(proven)
        assert self._clips is not None
        for row, number in enumerate(numbers.tolist()):
            self._clips.multipliers[number] = {i: codes[row] for i, codes in multipliers.items()}
        return numbers

    def alone(self, proven: Proven, value: Tensor) -> Numbers:
        """The numbers of lemmas, `(leaves,)`, that single leaves prove: that their queries are at least `value`."""
        forms = self._forms.select(proven.query)
        return self._log.prove(self._node, forms, value.cpu().numpy(), proven.leaves)

    def close(self, proven: Proven) -> None:
        """Leaves of queries that are closed."""
        self._closed.append(proven)

    def conclude(self, bound: Tensor, left: Sequence[Proven]) -> Numbers:
        """The numbers of lemmas, `(queries,)`, that queries are at least `bound`, which closed leaves and those left
        prove; `UNSTATED` where it is infinite."""
        numbers, finite = np.full(len(bound), UNSTATED), bound.isfinite().nonzero()[:, 0].cpu().numpy()
        if not len(finite):
            return numbers  # joining what may be a hundred thousand leaves takes seconds
        if self._closed:
            self._closed = [Proven.join(self._closed)]
        every = [tuple(p for proven in (*self._closed, *left) for p in self._parts(proven, q)) for q in finite]
        said = [n for n, parts in enumerate(every) if all(leaves.plain for leaves, _ in parts)]
        queries, values = finite[said], bound.cpu().numpy()[finite[said]]
        record = BySearch(self._node, self._forms.select(queries), values, [every[n] for n in said], self._clips)
        numbers[queries] = self._log.append(record)
        return numbers

    def _parts(self, proven: Proven, query: int) -> Iterator[Part]:
        """The leaves of one query; in the place of those that inherited their proof, the leaf that it is of."""
        mine = proven.query == query
        rows = np.flatnonzero(mine & (proven.proof < 0))
        if len(rows):
            yield proven.leaves, rows
        for number in np.unique(proven.proof[mine & (proven.proof >= 0)]).tolist():
            leaves, row = self._numbered[number]
            yield leaves, np.array([row])
