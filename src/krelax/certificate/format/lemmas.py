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
    is split at zero alone, and has lower lines given by fractions), how many groups of how many members each set has,
    whether it is elementwise, how many members windows have that are split by comparing two of them, 0 for none, and
    whether it is of two entries that are a group."""

    size: int
    pieces: bool
    sets: tuple[tuple[int, ...], ...] = ()
    elementwise: bool = True
    members: int = 0
    paired: bool = False


@dataclass(frozen=True, eq=False)
class Leaves:
    """The leaves and clips of all trees of a lemma. `form`, `(leaves,)`: whose it is. The splits on the path to one, i,
    are those from `start[i]` to `start[i + 1]`: `neuron`, `point` p, `side` (1 for z >= p, -1 for z <= p) and
    `multiplier`. Of a member of a window the point is the number of another one, which z is compared with.
    `behind`, `(leaves,)`, is the last clip on the path, -1 for none, and `clips` are the numbers of all clips."""

    form: Index
    start: Index
    neuron: Index
    point: NDArray[np.float64]
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
    kinds = _kinds(lemma, slots, assumed)
    owners, behind, clips, starts = list[int](), list[int](), list[int](), [0]
    splits, sides, most = list[int](), list[int](), len(lemma.multipliers)
    for form, path, clip, mark in _visits(lemma, forms, kinds):
        if mark == CLIP:
            clips.append(len(owners))
        owners.append(form)
        behind.append(clip)
        splits += path.keys()
        sides += path.values()
        starts.append(len(splits))
        if starts[-1] > most:
            raise Malformed("trees with more splits on their paths than the lemma has multipliers")
    if starts[-1] != most:
        raise Malformed(f"{most} multipliers for {starts[-1]} splits")
    _check_choices(lemma, len(owners), slots)
    form_of, start, split, last, clip_of = (np.array(a, np.int64) for a in (owners, starts, splits, behind, clips))
    side, multiplier = np.array(sides, np.float64), lemma.multipliers.astype(np.float64)
    return Leaves(form_of, start, kinds.neuron[split], kinds.point[split], side, multiplier, last, clip_of)


@dataclass(frozen=True, eq=False)
class _Kinds:
    """Splits of a lemma by neuron and point: `number` has for every node of the trees which of them it is, or what it
    is else, and `assumed` is that of the neuron which all paths begin with."""

    number: Index
    neuron: Index
    point: NDArray[np.float64]
    assumed: int | None


def _kinds(lemma: Lemma, slots: Sequence[Slot], assumed: int | None) -> _Kinds:
    """Raises Malformed for neurons that do not exist, and for points that they cannot be split at."""
    at_zero = np.concatenate([np.zeros(0, bool), *(np.full(slot.size, slot.pieces) for slot in slots)])
    number = lemma.tree.astype(np.int64)
    split = number >= 0
    if (number >= len(at_zero)).any():
        raise Malformed("a neuron that does not exist, or comes too late, cannot be split")
    if lemma.points is None:
        if not at_zero[number[split]].all():
            raise Malformed("a neuron that cannot be split at zero alone, without points")
        return _Kinds(number, np.arange(len(at_zero)), np.zeros(len(at_zero)), assumed)
    point = lemma.points + np.float64(0)  # which makes 0 of -0
    if (point[~split] != 0).any() or (point[split][at_zero[number[split]]] != 0).any():
        raise Malformed("points of what is no neuron, or of a neuron that cannot be split but at zero")
    _check_rivals(number[split], point[split], slots)
    pairs = np.stack([number[split], point[split]], 1)
    if assumed is not None:
        pairs = np.append(pairs, [[assumed, 0.0]], 0)
    pairs, inverse = np.unique(pairs, axis=0, return_inverse=True)
    number[split] = inverse.reshape(-1)[: split.sum()]
    first = None if assumed is None else int(inverse.reshape(-1)[-1])
    return _Kinds(number, pairs[:, 0].astype(np.int64), pairs[:, 1], first)


def _check_rivals(number: Index, point: NDArray[np.float64], slots: Sequence[Slot]) -> None:
    """Raises Malformed for members of windows that are compared with what is no other member."""
    members = np.concatenate([np.zeros(0, np.int64), *(np.full(slot.size, slot.members) for slot in slots)])[number]
    place = np.concatenate([np.zeros(0, np.int64), *(np.arange(slot.size) for slot in slots)])[number]
    fits = (point == np.floor(point)) & (point >= 0) & (point < members) & (point != place % members.clip(1))
    if not fits[members > 0].all():
        raise Malformed("members of windows that are compared with what is no other member")


def _visits(lemma: Lemma, forms: int, kinds: _Kinds) -> Iterator[tuple[int, dict[int, int], int, int]]:
    """Leaves and clips in order: the form, the sides of the splits on the path, the last clip, and which of both."""
    marks = {LEAF} if lemma.level is None else {LEAF, CLIP}
    root = {} if kinds.assumed is None else {kinds.assumed: -1}
    around: list[tuple[int, int]] = []  # clips that the path is behind, and the length it had there
    path, form, count = dict(root), 0, 0
    for number in kinds.number.tolist():
        if number >= 0:
            if number in path:
                raise Malformed(f"neuron {kinds.neuron[number]} is split twice at one point on a path")
            path[number] = 1
            continue
        if number not in marks or form >= forms:
            raise Malformed("a tree with more leaves than the lemma has forms, or with clips where none may be")
        yield form, path, around[-1][0] if around else -1, number
        count += 1
        if number == CLIP:
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
        split, side = path.popitem()
        if side > 0:
            path[split] = -1
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
    if slot.paired:
        if given != [[], []] or shares.basis is not None:
            raise Malformed("shares of groups that take over all")
        return
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
