"""The certificate of a question: what can be reached backwards from the lemmas that it rests on.

Bounds of a layer keep their best lemmas, whichever pass they come from, so a certificate is smaller than what was done
to find it. Its checker evaluates lemmas layer by layer, each over the best that is known of the layers before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.certificate.format import schema as file
from krelax.network.graph import Network
from krelax.problem.extensions import Assumption, with_maxima
from krelax.problem.queries import Queries
from krelax.problem.region import Ball, Region
from krelax.proof.choices import AffineBounds, Clips, GroupSet, LeafTable, Numbers
from krelax.proof.cuts import Cuts
from krelax.proof.log import DERIVED, MARGINS, Conclusion, Forms, Key, Lemma, ProofLog, Refutation
from krelax.proof.tables import Collected, Merged, wide

Rows = NDArray[Any]
Owner = tuple[LeafTable, int]  # a table, and which of its leaves


def question(
    network: Network, region: Region, queries: Queries, log: ProofLog, conclusion: Conclusion
) -> file.Question:
    """One question about one region, with its proof. `queries` has a batch of one."""
    if conclusion.joint or (conclusion.boxes is not None and conclusion.boxes.weights):
        queries = queries.distinct()[0]
    rows, offsets = (t[0].double().cpu().numpy() for t in (queries.rows, queries.offsets))
    clause = queries.clause[0].cpu().numpy().astype(np.int32)
    asked = file.Question(_region(region), rows, offsets, clause)
    if conclusion.boxes is not None:
        asked.boxes = _boxes(conclusion.boxes)
        return asked
    if conclusion.joint:
        asked.joint = np.array(conclusion.joint, np.int32)
        network, queries = with_maxima(network, queries.to(torch.float64), conclusion.joint)
    writer = _Writer(network, log)
    margins = [log[n] if n > DERIVED else None for n in conclusion.margins.tolist()]
    asked.margins = writer.together(
        [None if isinstance(m, Refutation) else m for m in margins], len(writer.activations)
    )
    asked.layers = [writer.layer(j, conclusion) for j in range(len(writer.activations) - 1, -1, -1)][::-1]
    cases = ((k, m) for k, m in enumerate(margins) if isinstance(m, Refutation))
    asked.cases = [_case(network, log, k, _assumed(queries, k, m.level), m) for k, m in cases] or None
    return asked


def _assumed(queries: Queries, margin: int, level: float) -> Assumption:
    row, offset = (t[0, margin].double().cpu() for t in (queries.rows, queries.offsets))
    return Assumption(row, offset, level)


def _case(network: Network, log: ProofLog, margin: int, assumption: Assumption, case: Refutation) -> file.Refutation:
    """A margin, given by its number, proven by contradiction."""
    writer = _Writer(assumption.extend(network), log, assumed=True)
    steps = [writer.step(node, lemmas.tolist()) for node, lemmas in case.steps]
    if case.lemma == DERIVED:
        return file.Refutation(margin, case.level, steps)
    writer, last = _Writer(network, log), log[case.lemma]
    assert isinstance(last, Lemma)
    stated = writer.together([last], len(writer.activations))
    lines = [file.Step(j, c) for j in range(len(writer.activations)) if (c := writer.lines_of(j)) is not None]
    return file.Refutation(margin, case.level, steps, stated, lines or None)


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
    weights = [cuts.weights[box] for box in order if box in cuts.weights]
    return file.Boxes(cut[order], at[order], np.stack(weights) if weights else None, cuts.width)


@dataclass
class _Writer:
    """Writes layers from the last to the first, so that every layer knows which of its groups are used, `sets`, which
    `lines`, and for which of its neurons a line was `chosen`; all of them by the number of the activation's node, but
    for `lines`, by that of its pre-activation. With `assumed`, paths begin with a split of the network's last neuron,
    and steps use all activations."""

    network: Network
    log: ProofLog
    assumed: bool = False
    sets: dict[int, list[GroupSet]] = field(default_factory=dict)
    chosen: dict[int, set[int]] = field(default_factory=dict)
    lines: dict[int, list[AffineBounds]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.activations = self.network.activations()
        self._number = {node: j for j, node in enumerate(self.activations)}
        sizes = [int(np.prod(self.network.nodes[self._source(j)].shape)) for j in range(len(self.activations))]
        self._first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def _source(self, j: int) -> int:
        return self.network.nodes[self.activations[j]].inputs[0]

    def layer(self, j: int, conclusion: Conclusion) -> file.Layer:
        """What is proven about one pre-activation, and the groups of it that are used."""
        sets = self.sets.get(self.activations[j], [])
        combinations = (g.lemmas[g.lemmas > DERIVED].tolist() for g in sets)
        ends = self._best(conclusion.layers.get(self._source(j), np.zeros(0, np.int64)).tolist())
        useless = self._useless(j, ends)
        ends = {key: lemma for key, lemma in ends.items() if key[0] not in useless}
        lemmas = [*ends.values(), *self._best(n for numbers in combinations for n in numbers).values()]
        layer = file.Layer("interval", groups=[_set(groups) for groups in sets])
        if lemmas:
            layer.claims.append(self._about(lemmas, j))
        layer.lines = self.lines_of(j)
        return layer

    def _best(self, numbers: Iterable[int]) -> dict[Key, Lemma]:
        """Of lemmas, given by their numbers, those that say most of each form."""
        best: dict[Key, Lemma] = {}
        for number in numbers:
            lemma = self.log[number]
            assert isinstance(lemma, Lemma)
            if lemma.key not in best or lemma.value > best[lemma.key].value:
                best[lemma.key] = lemma
        return best

    def _about(self, lemmas: Sequence[Lemma], before: int) -> file.Lemma:
        """Lemmas about a pre-activation."""
        stated = self.together(lemmas, before)
        stated.forms = _forms([lemma.key for lemma in lemmas])
        return stated

    def step(self, node: int, numbers: Sequence[int]) -> file.Step:
        """Lemmas about a pre-activation, under the assumption."""
        stated = self._about(list(self._best(numbers).values()), len(self.activations))
        return file.Step(next(j for j in range(len(self.activations)) if self._source(j) == node), stated)

    def lines_of(self, j: int) -> file.Lemma | None:
        """The affine bounds of a layer that clips use."""
        lines = self.lines.get(self._source(j))
        return self._straight(lines, j) if lines else None

    def _straight(self, lines: Sequence[AffineBounds], j: int) -> file.Lemma:
        lemmas = []
        for straight in lines:
            forms, leaves = Forms.both(straight.entries.astype(np.int64)), straight.leaves
            parts = (((leaves, np.array([row])),) for row in range(2 * len(straight.entries)))
            lemmas += [Lemma(self._source(j), forms.key(row), 0.0, part) for row, part in enumerate(parts)]
        return self._about(lemmas, j)

    def _useless(self, j: int, ends: Mapping[Key, Lemma]) -> set[tuple[int, float]]:
        """Lower bounds of ReLUs' inputs that are proven not to be positive. Only lines that were chosen when that was
        not known yet depend on how far below zero they are."""
        node = self.activations[j]
        if self.network.activation(node).leak != 0:
            return set()
        inactive = {entry for ((entry, sign),), lemma in ends.items() if sign < 0 and lemma.value >= 0}
        return {(entry, 1.0) for entry in inactive - self.chosen.get(node, set())}

    def together(self, lemmas: Sequence[Lemma | None], before: int) -> file.Lemma:
        """Lemmas as one, with adaptive slopes for forms that have none."""
        trees = [_Tree(Lemma(MARGINS, (), 0.0, ()) if lemma is None else lemma, self) for lemma in lemmas]
        leaves: list[tuple[LeafTable | None, int]] = [leaf for tree in trees for leaf in tree.leaves]
        last = int(self._first[-1]) - 1 if self.assumed else None
        tree = np.array([n for t in trees for n in t.nodes], np.int32)
        here = tree != last
        points = (
            np.concatenate([np.zeros(0, np.float32), *(t.points for t in trees)])[here] if self._bent(tree) else None
        )
        multipliers = np.concatenate([np.zeros(0, np.float32), *(t.multipliers for t in trees)])
        used = {i for noted, _ in leaves if noted is not None for i in noted.choices}
        crossings = [self._crossing(i, leaves) for i in sorted(used) if self._number[i] < before]
        stated = file.Lemma(tree[here], multipliers, [c for c in crossings if c is not None])
        stated.points = points if self._bent(tree) else None
        if clips := [clip for t in trees for clip in t.clips]:
            stated.level = min(every.level for every, _ in clips)
            self._add_clips(stated, clips)
        return stated

    def _bent(self, tree: NDArray[np.int32]) -> bool:
        """Whether a tree splits neurons that are not linear on both sides of zero."""
        owners = np.unique(np.searchsorted(self._first, tree[tree >= 0], side="right") - 1)
        return any(self.network.activation(self.activations[j]).leak is None for j in owners.tolist())

    def _add_clips(self, stated: file.Lemma, used: Sequence[tuple[Clips, int]]) -> None:
        """The multipliers of the clips of a certificate's lemma, and the lines that they are for."""
        for every in {id(clips): clips for clips, _ in used}.values():
            for source, straight in every.lines.items():
                self.lines.setdefault(source, []).append(straight)
        for crossing in stated.crossings:
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

    def _crossing(self, node: int, leaves: Sequence[tuple[LeafTable | None, int]]) -> file.Choices | None:
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
    """The tree of one form in preorder: nodes and the points of their splits, leaves and clips as rows of tables,
    multipliers on their paths, and the numbers of the clips among those of a search."""

    def __init__(self, lemma: Lemma, writer: _Writer) -> None:
        parts = lemma.parts
        self.nodes: list[int] = []
        self.leaves: list[tuple[LeafTable | None, int]] = []
        self.multipliers = self.points = np.zeros(0, np.float32)
        self.clips: list[tuple[Clips, int]] = []
        if not parts:
            self.nodes, self.leaves, self.points = [file.LEAF], [(None, 0)], np.zeros(1, np.float32)
            return
        depth = max(noted.node.shape[1] for noted, _ in parts)
        paths = [_paths(noted, rows, depth, writer) for noted, rows in parts]
        neuron, point, side, multiplier = (np.concatenate([p[k] for p in paths]) for k in range(4))
        owners = [(noted, row) for noted, rows in parts for row in rows.tolist()]
        # before every leaf those that it lies behind
        order = np.lexsort(np.where(side == 0, 0, np.where(side > 0, 1, 2)).T[::-1]) if depth else np.arange(len(side))
        length = (side != 0).sum(1)
        common = np.logical_and.accumulate(side[order[1:]] == side[order[:-1]], axis=1).sum(1)  # with the leaf before
        if lemma.clips is None and not (common >= length[order[:-1]]).any():
            self._all_at_once(order, length, common, neuron, point, multiplier, owners)
        else:
            self._one_by_one(order, length, (neuron, point, side, multiplier), owners, lemma.clips)

    def _all_at_once(
        self, order: Rows, length: Rows, common: Rows, neuron: Rows, point: Rows, multiplier: Rows, owners: list[Owner]
    ) -> None:
        """Trees without clips, of which no leaf lies below another: every leaf adds what its path does not share with
        the leaf before."""
        depth = neuron.shape[1]
        begin_at, end = np.append(0, common + 1)[:, None], length[order][:, None]
        columns, neuron = np.arange(depth + 1), wide(neuron[order], depth + 1, file.LEAF)
        np.put_along_axis(neuron, end, file.LEAF, 1)
        mine = (columns >= begin_at) & (columns <= end)
        self.nodes, self.points = neuron[mine].tolist(), wide(point[order], depth + 1, 0)[mine]
        self.leaves = [owners[leaf] for leaf in order.tolist()]
        self.multipliers = multiplier[order][columns[:depth] < end]

    def _one_by_one(
        self, order: Rows, length: Rows, paths: tuple[Rows, ...], owners: list[Owner], clips: Clips | None
    ) -> None:
        """Any trees: leaves below others are left out, and clips stand on the paths where they were made."""
        neuron, point, side, multiplier = paths
        last, found, points = -1, [self.multipliers], list[float]()
        for leaf in order.tolist():
            if last >= 0 and np.array_equal(side[leaf, : length[last]], side[last, : length[last]]):
                continue
            begin = int(np.flatnonzero(side[leaf] != side[last])[0]) + 1 if last >= 0 else 0
            for number, at in self._clips_before(clips, owners[leaf], begin):
                assert clips is not None
                self.nodes += [*neuron[leaf, begin:at].tolist(), file.CLIP]
                points += [*point[leaf, begin:at].tolist(), 0.0]
                place = clips.places[number]
                self.leaves.append(place)
                self.clips.append((clips, number))
                found.append(place[0].multiplier[place[1], :at])
                begin = at
            self.nodes += [*neuron[leaf, begin : length[leaf]].tolist(), file.LEAF]
            points += [*point[leaf, begin : length[leaf]].tolist(), 0.0]
            self.leaves.append(owners[leaf])
            found.append(multiplier[leaf, : length[leaf]])
            last = leaf
        self.multipliers, self.points = np.concatenate(found), np.array(points, np.float32)

    @staticmethod
    def _clips_before(clips: Clips | None, leaf: Owner, begin: int) -> list[tuple[int, int]]:
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
    noted: LeafTable, rows: Numbers, depth: int, writer: _Writer
) -> tuple[Numbers, NDArray[np.float32], NDArray[np.int8], NDArray[np.float32]]:
    """Neurons, points, sides and multipliers of the splits of some leaves, `(leaves, depth)` each."""
    neuron = writer.neuron(noted.node[rows], noted.entry[rows])
    point, side = wide(noted.point[rows], depth, 0), wide(noted.side[rows], depth, 0)
    return wide(neuron, depth, -1), point, side, wide(noted.multiplier[rows], depth, 0)


def _set(groups: GroupSet) -> file.GroupSet:
    return file.GroupSet(groups.members, groups.rows, groups.exponents)


def _forms(keys: Sequence[Key]) -> file.Forms:
    terms = [(form, *term) for form, key in enumerate(keys) for term in key]
    form, entry, coefficient = (np.array(column) for column in zip(*terms, strict=True))
    return file.Forms(form.astype(np.int32), entry.astype(np.int32), coefficient.astype(np.float64))
