"""Claims read against the network: leaves with the splits on their paths, and tables of the right shapes.

Whatever is out of range or does not fit is Malformed, before anything is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.activations import Ends
from krelax.certificate.arithmetic import Floats
from krelax.certificate.crossing import Choice, Table
from krelax.certificate.format import CLIP, LEAF, Claim, Crossing, Forms, GroupSet, Malformed, Shares
from krelax.certificate.network import Network

# Nodes of trees in a claim.
_MOST_NODES = 1 << 24


@dataclass
class Leaves:
    """The leaves and clips of all trees of a claim. `form`, `(leaves,)`: whose it is. The splits on the path to one, i,
    are those from `start[i]` to `start[i + 1]`: `neuron`, `side` (1 for z >= 0, -1 for z <= 0) and `multiplier`.
    `behind`, `(leaves,)`, is the last clip on the path, -1 for none, and `clips` are the numbers of all clips."""

    form: NDArray[np.int64]
    start: NDArray[np.int64]
    neuron: NDArray[np.int64]
    side: Floats
    multiplier: Floats
    behind: NDArray[np.int64]
    clips: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.form)

    def splits(self, batch: NDArray[np.int64], first: int, last: int) -> Splits:
        """Splits of neurons first to last - 1 in a batch of leaves."""
        count = self.start[batch + 1] - self.start[batch]
        leaf = np.repeat(np.arange(len(batch)), count)
        here = np.arange(len(leaf)) + np.repeat(self.start[batch] - (np.cumsum(count) - count), count)
        mine = (self.neuron[here] >= first) & (self.neuron[here] < last)
        leaf, here = leaf[mine], here[mine]
        return Splits(leaf, self.neuron[here] - first, self.side[here], self.multiplier[here])

    def waves(self) -> list[NDArray[np.int64]]:
        """Numbers of leaves and clips, first those behind no clip, then those behind one, and so on."""
        depth = np.zeros(len(self), np.int64)
        for i in self.clips.tolist():  # before all that is behind them
            depth[i] = depth[self.behind[i]] + 1 if self.behind[i] >= 0 else 0
        depth = np.where(self.behind >= 0, depth[self.behind] + 1, 0)
        return [np.flatnonzero(depth == d) for d in range(int(depth.max(initial=0)) + 1)]


@dataclass
class Splits:
    """Splits of one activation: for each the leaf and the neuron, numbered from 0, side and multiplier."""

    leaf: NDArray[np.int64]
    neuron: NDArray[np.int64]
    side: Floats
    multiplier: Floats

    def cut(self, ends: Ends, leaves: int) -> Ends:
        """The intervals in every leaf, cut at zero."""
        lower, upper = (np.repeat(end.T, leaves, 1).T if len(end) == 1 else end.copy() for end in ends)
        up, down = ((self.leaf[mine], self.neuron[mine]) for mine in (self.side > 0, self.side < 0))
        lower[up], upper[down] = np.maximum(lower[up], 0), np.minimum(upper[down], 0)
        return lower, upper

    def lowered(self, leaves: int) -> Table:
        """By how much the slopes are lowered in every leaf."""
        return self._table(leaves, self.side * self.multiplier, 0.0)

    def own(self, leaves: int, negative_slope: float) -> Table:
        """The slopes of the pieces that the splits leave: the sides decide, not bounds that may be rounded."""
        return self._table(leaves, np.where(self.side > 0, 1.0, negative_slope), np.nan)

    def _table(self, leaves: int, values: Floats, missing: float) -> Table:
        """A number for every split."""
        neurons, place = np.unique(self.neuron, return_inverse=True)
        table = np.full((leaves, len(neurons)), missing)
        table[self.leaf, place] = values
        return Table(neurons, table)


def grow(claim: Claim, forms: int, splittable: NDArray[np.bool_], assumed: int | None = None) -> Leaves:
    """The leaves and clips of a claim of so many forms; `splittable` says which neurons can be split. All paths begin
    with the inactive side of the neuron `assumed`, if there is one."""
    marks = {LEAF} if claim.level is None else {LEAF, CLIP}
    if (claim.multipliers < 0).any() or len(claim.tree) > _MOST_NODES:
        raise Malformed(f"negative multipliers, or more than {_MOST_NODES} nodes")
    starts: list[int] = [0]
    neurons: list[int] = []
    sides: list[int] = []
    owners: list[int] = []
    root = {} if assumed is None else {assumed: -1}
    path = dict(root)
    behind: list[int] = []
    clips: list[int] = []
    around: list[tuple[int, int]] = []  # clips that the path is behind, and the length it had there
    form = 0
    for neuron in claim.tree.tolist():
        if neuron >= 0:
            if neuron >= len(splittable) or not splittable[neuron] or neuron in path:
                raise Malformed(f"neuron {neuron} cannot be split, or is split twice on a path")
            path[neuron] = 1
            continue
        owners.append(form)
        behind.append(around[-1][0] if around else -1)
        neurons += path.keys()
        sides += path.values()
        starts.append(len(neurons))
        if neuron not in marks or form >= forms or len(neurons) > len(claim.multipliers):
            raise Malformed("a tree with more leaves, or longer paths, than the claim has forms or multipliers")
        if neuron == CLIP:
            clips.append(len(owners) - 1)
            around.append((clips[-1], len(path)))
            continue
        if not _backtrack(path):
            form, path = form + 1, dict(root)
        while around and around[-1][1] >= len(path):
            around.pop()
    if path != root or form != forms or len(neurons) != len(claim.multipliers):
        raise Malformed(
            f"{form} trees for {forms} forms, {len(claim.multipliers)} multipliers for {len(neurons)} splits"
        )
    form_of, start, neuron_of, last, clip = (np.array(a, np.int64) for a in (owners, starts, neurons, behind, clips))
    sides_of, multipliers = np.array(sides, np.float64), claim.multipliers.astype(np.float64)
    return Leaves(form_of, start, neuron_of, sides_of, multipliers, last, clip)


def _backtrack(path: dict[int, int]) -> bool:
    """Go on to the second side of the last split that has not been there; False if the tree is complete."""
    while path:
        neuron, side = path.popitem()
        if side > 0:
            path[neuron] = -1
            return True
    return False


def check_crossings(claim: Claim, leaves: int, network: Network, sets: list[list[GroupSet]]) -> None:
    """The crossings of a claim that may use the activations with these sets of groups."""
    numbers = [c.activation for c in claim.crossings]
    if numbers != sorted(set(numbers)) or any(not 0 <= j < len(sets) for j in numbers):
        raise Malformed("crossings of activations that do not come before, or not in order")
    for crossing in claim.crossings:
        _check_tables(crossing, leaves, network)
        for shares in crossing.groups:
            _check_shares(shares, leaves, sets[crossing.activation])


def _check_tables(c: Crossing, leaves: int, network: Network) -> None:
    size = network.size(network.before(c.activation))
    tables = [t for t in (c.slopes, c.lines, c.absolute) if t is not None]
    entries = size if c.entries is None else len(c.entries)
    if c.entries is not None and ((c.entries < 0) | (c.entries >= size)).any():
        raise Malformed("entries out of range")
    if c.slopes is not None and (network.activation(c.activation).kind != "relu" or c.slopes.shape[1] != entries):
        raise Malformed("slopes that do not fit the activation")
    if (c.upper is None) != (c.owner is None):
        raise Malformed("slopes of upper lines that nobody owns, or owners without them")
    if c.upper is not None and c.owner is not None:
        fits = c.slopes is not None and len(c.owner) == len(c.slopes) and c.upper.shape[1] == entries
        if not fits or ((c.owner < 0) | (c.owner >= len(c.upper))).any():
            raise Malformed("slopes of upper lines that do not fit those of lower lines")
    if (c.lines is not None and c.lines.shape[1:] != (entries, 2)) or (
        c.absolute is not None and c.absolute.shape[1] != size
    ):
        raise Malformed("lines or absolute slopes that do not fit the activation")
    if (c.row is None) != (not tables):
        raise Malformed("rows without tables, or tables without rows")
    if c.row is not None and (len(c.row) != leaves or ((c.row < -1) | (c.row >= sum(map(len, tables)))).any()):
        raise Malformed("rows out of range")


def _check_shares(shares: Shares, leaves: int, sets: list[GroupSet]) -> None:
    if not 0 <= shares.set < len(sets):
        raise Malformed("a set of groups that does not exist")
    groups, k = sets[shares.set].members.shape
    if shares.coeff.shape != (leaves, groups, k):
        raise Malformed("shares that do not fit the groups")
    if shares.basis is not None and shares.basis.shape[2:] != (2**k, k + 1):
        raise Malformed("bases that do not fit the groups")


def check_forms(forms: Forms | None, size: int) -> int:
    """Number of forms, whose terms must be in order, each once."""
    if forms is None:
        raise Malformed("a claim without forms")
    form, entry = forms.form.astype(np.int64), forms.entry.astype(np.int64)
    if ((entry < 0) | (entry >= size)).any() or (form < 0).any() or (np.diff(form * size + entry) <= 0).any():
        raise Malformed("terms of forms that are out of range, or not in order")
    numbers = np.unique(form)
    if not np.array_equal(numbers, np.arange(len(numbers))):
        raise Malformed("forms without terms")
    return len(numbers)


def choose(c: Crossing | None, batch: NDArray[np.int64], network: Network, j: int) -> Choice:
    """The choices for a batch of leaves at activation j."""
    result = Choice()
    if c is None or c.row is None:
        return result
    row, every = c.row[batch], np.arange(network.size(network.before(j)))
    entries = every if c.entries is None else c.entries
    if c.slopes is not None:
        t = result.tables["t"] = _rows(c.slopes, row, entries, 255)
        if c.upper is not None and c.owner is not None:
            mine = (row >= 0) & (row < len(c.slopes))
            owner = np.where(mine, c.owner[np.where(mine, row, 0)], -1)
            top = result.tables["top"] = _rows(c.upper, owner, entries)
            t.values[top.values < 0], top.values[top.values < 0] = np.nan, np.nan
        row = row - len(c.slopes)
    if c.lines is not None:
        for name, line in (("lower", c.lines[:, :, 0]), ("upper", c.lines[:, :, 1])):
            result.tables[name] = _rows(line, row, entries)
        row = row - len(c.lines)
    if c.absolute is not None:
        result.tables["absolute"] = _rows(c.absolute, row, every)
    return result


def _rows(table: NDArray[Any], row: NDArray[np.int32], entries: NDArray[Any], parts: int = 1) -> Table:
    """Rows of a table about some entries, in so many parts of one; of NaN where there is none."""
    values = np.full((len(row), len(entries)), np.nan)
    mine = np.flatnonzero((row >= 0) & (row < len(table)))
    values[mine] = table[row[mine]] / parts
    return Table(entries, values)
