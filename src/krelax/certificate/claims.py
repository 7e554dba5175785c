"""Claims read against the network: leaves with the splits on their paths, and tables of the right shapes.

Whatever is out of range or does not fit is Malformed, before anything is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.arithmetic import Floats
from krelax.certificate.format import Claim, Crossing, Forms, GroupSet, Malformed, Shares
from krelax.certificate.network import Network
from krelax.certificate.steps import Tables, adaptive


@dataclass
class Leaves:
    """The leaves of all trees of a claim. `form`, `(leaves,)`: whose leaf it is. The splits on the path to leaf i are
    those from `start[i]` to `start[i + 1]`: `neuron`, `side` (1 for z >= 0, -1 for z <= 0) and `multiplier`."""

    form: NDArray[np.int64]
    start: NDArray[np.int64]
    neuron: NDArray[np.int64]
    side: Floats
    multiplier: Floats

    def __len__(self) -> int:
        return len(self.form)

    def splits(self, leaves: range, first: int, last: int) -> tuple[Any, Any, Any, Any]:
        """Splits of neurons first to last - 1 in some leaves, next to each other: the leaf and the neuron, both counted
        from their first ones, side and multiplier."""
        here = slice(self.start[leaves.start], self.start[leaves.stop])
        leaf = np.repeat(np.arange(len(leaves)), np.diff(self.start[leaves.start : leaves.stop + 1]))
        mine = (self.neuron[here] >= first) & (self.neuron[here] < last)
        return leaf[mine], self.neuron[here][mine] - first, self.side[here][mine], self.multiplier[here][mine]


def grow(claim: Claim, forms: int, splittable: NDArray[np.bool_]) -> Leaves:
    """The leaves of a claim of so many forms; `splittable` says which neurons can be split."""
    if (claim.multipliers < 0).any():
        raise Malformed("negative multipliers")
    starts: list[int] = [0]
    neurons: list[int] = []
    sides: list[int] = []
    owners: list[int] = []
    path: dict[int, int] = {}
    form = 0
    for neuron in claim.tree.tolist():
        if neuron >= 0:
            if neuron >= len(splittable) or not splittable[neuron] or neuron in path:
                raise Malformed(f"neuron {neuron} cannot be split, or is split twice on a path")
            path[neuron] = 1
            continue
        owners.append(form)
        neurons += path.keys()
        sides += path.values()
        starts.append(len(neurons))
        if neuron != -1 or form >= forms or len(neurons) > len(claim.multipliers):
            raise Malformed("a tree with more leaves, or longer paths, than the claim has forms or multipliers")
        form += not _backtrack(path)
    if path or form != forms or len(neurons) != len(claim.multipliers):
        raise Malformed(
            f"{form} trees for {forms} forms, {len(claim.multipliers)} multipliers for {len(neurons)} splits"
        )
    form_of, start, neuron_of = (np.array(a, np.int64) for a in (owners, starts, neurons))
    return Leaves(form_of, start, neuron_of, np.array(sides, np.float64), claim.multipliers.astype(np.float64))


def _backtrack(path: dict[int, int]) -> bool:
    """Go on to the second side of the last split that has not been there; False if the tree is complete."""
    while path:
        neuron, side = path.popitem()
        if side > 0:
            path[neuron] = -1
            return True
    return False


def check_crossings(claim: Claim, leaves: int, network: Network, before: int, sets: list[list[GroupSet]]) -> None:
    """The crossings of a claim that may use the activations before one, and their sets of groups."""
    numbers = [c.activation for c in claim.crossings]
    if numbers != sorted(set(numbers)) or any(not 0 <= j < before for j in numbers):
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
    if shares.basis is not None and shares.basis.shape[2] != 2**k:
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


def tables(c: Crossing | None, leaves: range, network: Network, j: int, lower: Floats, upper: Floats) -> Tables:
    """The choices for some leaves at activation j, over the intervals of its pre-activation."""
    node, size = network.activation(j), lower.shape[1]
    result = Tables(adaptive(node, lower, upper))
    if c is None or c.row is None:
        return result
    row, entries = c.row[leaves.start : leaves.stop], slice(None) if c.entries is None else c.entries
    if c.slopes is not None:
        mine = (row >= 0) & (row < len(c.slopes))
        result.t = np.broadcast_to(result.t, (len(leaves), size)).copy()
        fraction = c.slopes[row[mine]] / 255
        result.t[np.flatnonzero(mine)[:, None], np.arange(size)[entries]] = (
            node.negative_slope + (1 - node.negative_slope) * fraction
        )
    row = row - (0 if c.slopes is None else len(c.slopes))
    if c.lines is not None:
        mine = (row >= 0) & (row < len(c.lines))
        pair = np.full((2, len(leaves), size), np.nan)
        pair[:, np.flatnonzero(mine)[:, None], np.arange(size)[entries]] = np.moveaxis(c.lines[row[mine]], 2, 0)
        result.lines = (pair[0], pair[1])
        row = row - len(c.lines)
    if c.absolute is not None:
        mine = row >= 0
        result.absolute = np.full((len(leaves), size), np.nan)
        result.absolute[mine] = c.absolute[row[mine]]
    return result
