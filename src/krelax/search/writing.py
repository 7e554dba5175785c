"""The certificate of a question, from what its proof chose (`krelax.bounds.ledger`).

For every form the claim that proves most is kept, whichever pass it comes from, so a certificate is smaller than what
was done to find it. Its checker evaluates claims layer by layer, each over the best that is known of the layers before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.bounds.groups import Groups
from krelax.bounds.ledger import (
    MARGINS,
    Case,
    Claim,
    Clips,
    Cuts,
    Key,
    Ledger,
    Noted,
    Numbers,
    Straight,
    keys_of_entries,
)
from krelax.certificate.format import schema as file
from krelax.network.graph import Network
from krelax.problem.queries import Queries
from krelax.problem.region import Ball, Region
from krelax.search.clauses import extended
from krelax.search.contradiction import Assumption
from krelax.search.tables import Collected, Merged, wide


def question(network: Network, region: Region, queries: Queries, ledger: Ledger) -> file.Question:
    """One question about one region, with its proof. `queries` has a batch of one."""
    rows, offsets = (t[0].double().cpu().numpy() for t in (queries.rows, queries.offsets))
    clause = queries.clause[0].cpu().numpy().astype(np.int32)
    asked = file.Question(_region(region), rows, offsets, clause)
    if ledger.boxes is not None:
        asked.boxes = _boxes(ledger.boxes)
        return asked
    margins = len(offsets)
    if ledger.maxima:
        network, margins, asked.maxima = extended(network, queries)[0], queries.clauses, True
        rows, offsets = np.eye(margins), np.zeros(margins)
    writer = _Writer(network, ledger)
    asked.margins = writer.claim(list(range(margins)), ledger.claims.get(MARGINS, {}), len(writer.activations))
    asked.layers = [writer.layer(j) for j in range(len(writer.activations) - 1, -1, -1)][::-1]
    asked.cases = [_case(network, rows[c.margin], offsets[c.margin], c) for c in ledger.cases] or None
    return asked


def _case(network: Network, row: NDArray[np.float64], offset: np.float64, case: Case) -> file.Refutation:
    """A margin proven by contradiction."""
    assumption = Assumption(torch.from_numpy(row), torch.tensor(offset), case.level)
    writer = _Writer(assumption.extend(network), Ledger(), assumed=True)
    steps = [writer.step(node, claims) for node, claims in case.steps if claims]
    if case.claim is None:
        return file.Refutation(case.margin, case.level, steps)
    writer = _Writer(network, Ledger())
    claim = writer.claim([case.margin], {case.margin: case.claim}, len(writer.activations))
    lines = [file.Step(j, c) for j in range(len(writer.activations)) if (c := writer.lines_of(j)) is not None]
    return file.Refutation(case.margin, case.level, steps, claim, lines or None)


def _region(region: Region) -> file.Region:
    lower, upper = (t[0].double().flatten().cpu().numpy() for t in (region.lower, region.upper))
    if isinstance(region, Ball):
        centre = region.centre[0].double().flatten().cpu().numpy()
        return file.Region("l2" if region.p == 2 else "l1", lower, upper, centre, float(region.eps))
    return file.Region("box", lower, upper)


def _boxes(cuts: Cuts) -> file.Boxes:
    """The tree in preorder."""
    order, waiting = [], [0]
    while waiting:
        box = waiting.pop()
        order.append(box)
        if cuts.cut[box] >= 0:
            waiting += [cuts.below[box] + 1, cuts.below[box]]
    cut, at = np.array(cuts.cut, np.int32), np.array(cuts.at)
    return file.Boxes(cut[order], at[order])


@dataclass
class _Writer:
    """Writes layers from the last to the first, so that every layer knows which of its groups are used, `sets`, which
    `lines`, and for which of its neurons a line was `chosen`; all of them by the number of the activation's node, but
    for `lines`, by that of its pre-activation. With `assumed`, paths begin with a split of the network's last neuron,
    and steps use all activations."""

    network: Network
    ledger: Ledger
    assumed: bool = False
    sets: dict[int, list[Groups]] = field(default_factory=dict)
    chosen: dict[int, set[int]] = field(default_factory=dict)
    lines: dict[int, list[Straight]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.activations = self.network.activations()
        self._number = {node: j for j, node in enumerate(self.activations)}
        sizes = [int(np.prod(self.network.nodes[self._source(j)].shape)) for j in range(len(self.activations))]
        self._first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def _source(self, j: int) -> int:
        return self.network.nodes[self.activations[j]].inputs[0]

    def layer(self, j: int) -> file.Layer:
        """What is proven about one pre-activation, and the groups of it that are used."""
        sets = self.sets.get(self.activations[j], [])
        wanted = {key for groups in sets for key in _combinations(groups)}
        claims = self.ledger.best(self._source(j))
        useless = self._useless(j, claims)
        kept = [k for k in claims if isinstance(k, tuple) and (k in wanted or (len(k) == 1 and k[0] not in useless))]
        layer = file.Layer("interval", groups=[_set(groups) for groups in sets])
        if kept:
            claim = self.claim(kept, claims, j)
            claim.forms = _forms(kept)
            layer.claims.append(claim)
        layer.lines = self.lines_of(j)
        return layer

    def step(self, node: int, claims: Mapping[Key, Claim]) -> file.Step:
        """Claims about a pre-activation, under the assumption."""
        claim = self.claim(list(claims), claims, len(self.activations))
        claim.forms = _forms(list(claims))
        return file.Step(next(j for j in range(len(self.activations)) if self._source(j) == node), claim)

    def lines_of(self, j: int) -> file.Lemma | None:
        """The affine bounds of a layer that clips use."""
        lines = self.lines.get(self._source(j))
        return self._straight(lines, j) if lines else None

    def _straight(self, lines: Sequence[Straight], j: int) -> file.Lemma:
        keys: list[Key | None] = []
        proofs: list[Claim] = []
        for straight in lines:
            keys += keys_of_entries(straight.entries.tolist(), [True] * len(straight.entries))
            proofs += [Claim(0.0, ((straight.leaves, np.array([row])),)) for row in range(2 * len(straight.entries))]
        claims: dict[Key, Claim] = dict(enumerate(proofs))
        claim = self.claim(list(claims), claims, j)
        claim.forms = _forms([key for key in keys if key is not None])
        return claim

    def _useless(self, j: int, claims: Mapping[Key, Claim]) -> set[tuple[int, float]]:
        """Lower bounds of ReLUs' inputs that are proven not to be positive. Only lines that were chosen when that was
        not known yet depend on how far below zero they are."""
        node = self.activations[j]
        if self.network.activation(node).leak != 0:
            return set()
        ends = ((key[0], claim.value) for key, claim in claims.items() if isinstance(key, tuple) and len(key) == 1)
        inactive = {entry for (entry, sign), value in ends if sign < 0 and value >= 0}
        return {(entry, 1.0) for entry in inactive - self.chosen.get(node, set())}

    def claim(self, keys: Sequence[Key], claims: Mapping[Key, Claim], before: int) -> file.Lemma:
        """The best claims about some forms as one, with adaptive slopes for those there is none of."""
        trees = [_Tree(claims.get(key, Claim(0.0, ())), self) for key in keys]
        leaves: list[tuple[Noted | None, int]] = [leaf for tree in trees for leaf in tree.leaves]
        last = int(self._first[-1]) - 1 if self.assumed else None
        tree = np.array([n for t in trees for n in t.nodes if n != last], np.int32)
        multipliers = np.concatenate([np.zeros(0, np.float32), *(t.multipliers for t in trees)])
        used = {i for noted, _ in leaves if noted is not None for i in noted.choices}
        crossings = [self._crossing(i, leaves) for i in sorted(used) if self._number[i] < before]
        claim = file.Lemma(tree, multipliers, [c for c in crossings if c is not None])
        if clips := [clip for t in trees for clip in t.clips]:
            claim.level = min(every.level for every, _ in clips)
            self._add_clips(claim, clips)
        return claim

    def _add_clips(self, claim: file.Lemma, used: Sequence[tuple[Clips, int]]) -> None:
        """The multipliers of the clips of a claim, and the lines that they are for."""
        for every in {id(clips): clips for clips, _ in used}.values():
            for source, straight in every.lines.items():
                self.lines.setdefault(source, []).append(straight)
        for crossing in claim.crossings:
            source = self._source(crossing.activation)
            if lines := self.lines.get(source):
                ends = np.cumsum([2 * len(straight.entries) for straight in lines])
                crossing.clips = np.zeros((len(used), ends[-1]), np.uint8)
                for row, (clips, number) in enumerate(used):
                    if source in clips.lines:
                        codes = clips.multipliers[number][source]
                        end = ends[next(n for n, x in enumerate(lines) if x is clips.lines[source])]
                        crossing.clips[row, end - len(codes) : end] = codes

    def neuron(self, node: NDArray[np.int32], entry: NDArray[np.int32]) -> Numbers:
        """Numbers of neurons through all activations."""
        result = np.full(node.shape, -1, np.int64)
        for i in np.unique(node[node >= 0]).tolist():
            result[node == i] = self._first[self._number[i]] + entry[node == i]
        return result

    def _crossing(self, node: int, leaves: Sequence[tuple[Noted | None, int]]) -> file.Choices | None:
        """What leaves, given as rows of tables, chose at one activation."""
        tables = {id(n): (n, n.choices[node]) for n, _ in leaves if n is not None and node in n.choices}
        rows: dict[int, list[int]] = {key: [] for key in tables}
        places: dict[int, list[int]] = {key: [] for key in tables}
        for place, (noted, row) in enumerate(leaves):
            if id(noted) in tables:
                rows[id(noted)].append(row)
                places[id(noted)].append(place)
        crossing, groups = file.Choices(self._number[node]), Collected(len(leaves))
        merged = Merged([c for _, c in tables.values()], len(leaves))
        for key, (_, choices) in tables.items():
            merged.add(choices, np.array(rows[key]), np.array(places[key]))
            for shared in choices.groups:
                groups.add(shared, np.array(rows[key]), np.array(places[key]))
        merged.write(crossing)
        if crossing.entries is not None:
            self.chosen.setdefault(node, set()).update(crossing.entries.tolist())
        crossing.groups = groups.shares(self.sets.setdefault(node, []))
        return crossing if crossing.row is not None or crossing.groups else None


class _Tree:
    """The tree of one form in preorder: nodes, leaves and clips as rows of tables, multipliers on their paths, and the
    numbers of the clips among those of a search."""

    def __init__(self, claim: Claim, writer: _Writer) -> None:
        parts = claim.parts
        self.nodes: list[int] = []
        self.leaves: list[tuple[Noted | None, int]] = []
        self.multipliers = np.zeros(0, np.float32)
        self.clips: list[tuple[Clips, int]] = []
        if not parts:
            self.nodes, self.leaves = [file.LEAF], [(None, 0)]
            return
        depth = max(noted.node.shape[1] for noted, _ in parts)
        paths = [_paths(noted, rows, depth, writer) for noted, rows in parts]
        neuron, side, multiplier = (np.concatenate([p[k] for p in paths]) for k in range(3))
        owners = [(noted, row) for noted, rows in parts for row in rows.tolist()]
        # before every leaf those that it lies behind
        order = np.lexsort(np.where(side == 0, 0, np.where(side > 0, 1, 2)).T[::-1]) if depth else np.arange(len(side))
        length = (side != 0).sum(1)
        common = np.logical_and.accumulate(side[order[1:]] == side[order[:-1]], axis=1).sum(1)  # with the leaf before
        if claim.clips is None and not (common >= length[order[:-1]]).any():
            begin_at, end = np.append(0, common + 1)[:, None], length[order][:, None]
            columns, neuron = np.arange(depth + 1), wide(neuron[order], depth + 1, file.LEAF)
            np.put_along_axis(neuron, end, file.LEAF, 1)
            self.nodes = neuron[(columns >= begin_at) & (columns <= end)].tolist()
            self.leaves = [owners[leaf] for leaf in order.tolist()]
            self.multipliers = multiplier[order][columns[:depth] < end]
            return
        last, found = -1, [self.multipliers]
        for leaf in order.tolist():
            if last >= 0 and np.array_equal(side[leaf, : length[last]], side[last, : length[last]]):
                continue
            begin = int(np.flatnonzero(side[leaf] != side[last])[0]) + 1 if last >= 0 else 0
            for number, at in self._clips_before(claim.clips, owners[leaf], begin):
                assert claim.clips is not None
                self.nodes += [*neuron[leaf, begin:at].tolist(), file.CLIP]
                place = claim.clips.places[number]
                self.leaves.append(place)
                self.clips.append((claim.clips, number))
                found.append(place[0].multiplier[place[1], :at])
                begin = at
            self.nodes += [*neuron[leaf, begin : length[leaf]].tolist(), file.LEAF]
            self.leaves.append(owners[leaf])
            found.append(multiplier[leaf, : length[leaf]])
            last = leaf
        self.multipliers = np.concatenate(found)

    @staticmethod
    def _clips_before(clips: Clips | None, leaf: tuple[Noted, int], begin: int) -> list[tuple[int, int]]:
        """The clips on the way to a leaf, from the first to the last, with so many splits before them or more: their
        numbers, and how many splits are before each."""
        found: list[tuple[int, int]] = []
        noted, row = leaf
        number = -1 if noted.clip is None else int(noted.clip[row])
        while clips is not None and number >= 0:
            noted, row = clips.places[number]
            at = int((noted.node[row] >= 0).sum())
            if at < begin:
                break
            found.append((number, at))
            number = -1 if noted.clip is None else int(noted.clip[row])
        return found[::-1]


def _paths(
    noted: Noted, rows: Numbers, depth: int, writer: _Writer
) -> tuple[Numbers, NDArray[np.int8], NDArray[np.float32]]:
    """Neurons, sides and multipliers of the splits of some leaves, `(leaves, depth)` each."""
    neuron = writer.neuron(noted.node[rows], noted.entry[rows])
    return wide(neuron, depth, -1), wide(noted.side[rows], depth, 0), wide(noted.multiplier[rows], depth, 0)


def _set(groups: Groups) -> file.GroupSet:
    rows = groups.joint.rows.cpu().numpy().astype(np.int8)
    return file.GroupSet(groups.members[0].cpu().numpy().astype(np.int32), rows)


def _combinations(groups: Groups) -> list[Key]:
    """The forms that bound the rows of groups: each row's negative."""
    rows = -groups.joint.rows.cpu().numpy()
    keys: list[Key] = []
    for members in groups.members[0].tolist():
        for row in rows.tolist():
            keys.append(tuple(sorted((i, c) for i, c in zip(members, row, strict=True) if c)))
    return keys


def _forms(keys: Sequence[Key]) -> file.Forms:
    terms = [(form, *term) for form, key in enumerate(keys) if isinstance(key, tuple) for term in key]
    form, entry, coefficient = (np.array(column) for column in zip(*terms, strict=True))
    return file.Forms(form.astype(np.int32), entry.astype(np.int32), coefficient.astype(np.float64))
