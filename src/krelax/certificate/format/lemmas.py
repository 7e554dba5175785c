"""Lemmas read against the network: trees as leaves with the splits on their paths, and choices of the right shapes.

Whatever is out of range or does not fit is Malformed, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.errors import Malformed
from krelax.certificate.format.schema import CLIP, LEAF, Choices, Forms, Lemma, Shares

Index = NDArray[np.int64]

# Nodes of trees in a lemma.
_MOST_NODES = 1 << 24


@dataclass(frozen=True)
class Slot:
    """What choices at an activation must fit: how many entries its pre-activation has, whether it has pieces (then it
    can be split, and has lower lines given by fractions), and how many groups of how many members each set has."""

    size: int
    pieces: bool
    sets: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class Leaves:
    """The leaves and clips of all trees of a lemma. `form`, `(leaves,)`: whose it is. The splits on the path to one, i,
    are those from `start[i]` to `start[i + 1]`: `neuron`, `side` (1 for z >= 0, -1 for z <= 0) and `multiplier`.
    `behind`, `(leaves,)`, is the last clip on the path, -1 for none, and `clips` are the numbers of all clips."""

    form: Index
    start: Index
    neuron: Index
    side: NDArray[np.float64]
    multiplier: NDArray[np.float64]
    behind: Index
    clips: Index

    def __len__(self) -> int:
        return len(self.form)

    def waves(self) -> list[Index]:
        """Numbers of leaves and clips, first those behind no clip, then those behind one, and so on."""
        depth = np.zeros(len(self), np.int64)
        for i in self.clips.tolist():  # before all that is behind them
            depth[i] = depth[self.behind[i]] + 1 if self.behind[i] >= 0 else 0
        depth = np.where(self.behind >= 0, depth[self.behind] + 1, 0)
        return [np.flatnonzero(depth == d) for d in range(int(depth.max(initial=0)) + 1)]


def leaves_of(lemma: Lemma, forms: int, slots: Sequence[Slot], assumed: int | None = None) -> Leaves:
    """The leaves and clips of a lemma about so many forms, which may choose at the activations of `slots`, and split
    them. All paths begin with the side `z <= 0` of the neuron `assumed`, if there is one."""
    if (lemma.multipliers < 0).any() or len(lemma.tree) > _MOST_NODES:
        raise Malformed(f"negative multipliers, or more than {_MOST_NODES} nodes")
    splittable = np.concatenate([np.zeros(0, bool), *(np.full(slot.size, slot.pieces) for slot in slots)])
    owners, behind, clips, starts = list[int](), list[int](), list[int](), [0]
    neurons, sides, most = list[int](), list[int](), len(lemma.multipliers)
    for form, path, clip, mark in _visits(lemma, forms, splittable, assumed):
        if mark == CLIP:
            clips.append(len(owners))
        owners.append(form)
        behind.append(clip)
        neurons += path.keys()
        sides += path.values()
        starts.append(len(neurons))
        if starts[-1] > most:
            raise Malformed("trees with more splits on their paths than the lemma has multipliers")
    if starts[-1] != most:
        raise Malformed(f"{most} multipliers for {starts[-1]} splits")
    _check_choices(lemma, len(owners), slots)
    form_of, start, neuron, last, clip_of = (np.array(a, np.int64) for a in (owners, starts, neurons, behind, clips))
    side, multiplier = np.array(sides, np.float64), lemma.multipliers.astype(np.float64)
    return Leaves(form_of, start, neuron, side, multiplier, last, clip_of)


def _visits(
    lemma: Lemma, forms: int, splittable: NDArray[np.bool_], assumed: int | None
) -> Iterator[tuple[int, dict[int, int], int, int]]:
    """Leaves and clips in order: the form, the sides of the neurons on the path, the last clip, and which of both."""
    marks = {LEAF} if lemma.level is None else {LEAF, CLIP}
    root = {} if assumed is None else {assumed: -1}
    around: list[tuple[int, int]] = []  # clips that the path is behind, and the length it had there
    path, form, count = dict(root), 0, 0
    for neuron in lemma.tree.tolist():
        if neuron >= 0:
            if neuron >= len(splittable) or not splittable[neuron] or neuron in path:
                raise Malformed(f"neuron {neuron} cannot be split, or is split twice on a path")
            path[neuron] = 1
            continue
        if neuron not in marks or form >= forms:
            raise Malformed("a tree with more leaves than the lemma has forms, or with clips where none may be")
        yield form, path, around[-1][0] if around else -1, neuron
        count += 1
        if neuron == CLIP:
            around.append((count - 1, len(path)))
            continue
        if not path or not _backtrack(path):
            form, path = form + 1, dict(root)
        while around and around[-1][1] >= len(path):
            around.pop()
    if path != root or form != forms:
        raise Malformed(f"{form} trees for {forms} forms")


def _backtrack(path: dict[int, int]) -> bool:
    """Go on to the second side of the last split that has not been there; False if the tree is complete."""
    while path:
        neuron, side = path.popitem()
        if side > 0:
            path[neuron] = -1
            return True
    return False


def _check_choices(lemma: Lemma, leaves: int, slots: Sequence[Slot]) -> None:
    numbers = [c.activation for c in lemma.crossings]
    if numbers != sorted(set(numbers)) or any(not 0 <= j < len(slots) for j in numbers):
        raise Malformed("choices at activations that do not come before, or not in order")
    for choices in lemma.crossings:
        slot = slots[choices.activation]
        _check_tables(choices, leaves, slot)
        for shares in choices.groups:
            _check_shares(shares, leaves, slot)


def _check_tables(c: Choices, leaves: int, slot: Slot) -> None:
    tables = [t for t in (c.slopes, c.lines, c.absolute) if t is not None]
    entries = slot.size if c.entries is None else len(c.entries)
    if c.entries is not None and ((c.entries < 0) | (c.entries >= slot.size)).any():
        raise Malformed("entries out of range")
    if c.slopes is not None and (not slot.pieces or c.slopes.shape[1] != entries):
        raise Malformed("slopes that do not fit the activation")
    if (c.upper is None) != (c.owner is None):
        raise Malformed("slopes of upper lines that nobody owns, or owners without them")
    if c.upper is not None and c.owner is not None:
        fits = c.slopes is not None and len(c.owner) == len(c.slopes) and c.upper.shape[1] == entries
        if not fits or ((c.owner < 0) | (c.owner >= len(c.upper))).any():
            raise Malformed("slopes of upper lines that do not fit those of lower lines")
    if (c.lines is not None and c.lines.shape[1:] != (entries, 2)) or (
        c.absolute is not None and c.absolute.shape[1] != slot.size
    ):
        raise Malformed("lines or absolute slopes that do not fit the activation")
    if (c.row is None) != (not tables):
        raise Malformed("rows without tables, or tables without rows")
    if c.row is not None and (len(c.row) != leaves or ((c.row < -1) | (c.row >= sum(map(len, tables)))).any()):
        raise Malformed("rows out of range")


def _check_shares(shares: Shares, leaves: int, slot: Slot) -> None:
    if not 0 <= shares.set < len(slot.sets):
        raise Malformed("a set of groups that does not exist")
    groups, k = slot.sets[shares.set]
    kinds = (shares.coeff, shares.slope), (shares.share, shares.tilt)
    given = [[t.shape for t in kind if t is not None] for kind in kinds]
    if [[], [(leaves, groups, k)] * 2] != sorted(given, key=len):
        raise Malformed("shares that do not fit the groups, or of both kinds or none")
    if shares.basis is not None and (not given[0] or shares.basis.shape[2:] != (2**k, k + 1)):
        raise Malformed("bases that do not fit the groups")


def forms_of(forms: Forms | None, size: int) -> int:
    """How many forms of so many entries there are, whose terms must be in order, each once."""
    if forms is None:
        raise Malformed("a lemma without forms")
    form, entry = forms.form.astype(np.int64), forms.entry.astype(np.int64)
    if ((entry < 0) | (entry >= size)).any() or (form < 0).any() or (np.diff(form * size + entry) <= 0).any():
        raise Malformed("terms of forms that are out of range, or not in order")
    numbers = np.unique(form)
    if not np.array_equal(numbers, np.arange(len(numbers))):
        raise Malformed("forms without terms")
    return len(numbers)
