"""Affine operators as sparse matrices, built sparsely.

A row of a matrix says how one entry of a node is made of entries of the layers before it. Operators that move entries
are followed by handing them numbered entries; only those with weights are known by name. What would multiply matrices
is not folded: `kept` says which affine nodes stay layers of their own, so that on no way between two layers there are
two operators that add up. Elementwise factors are folded, which rounds every weight once for each. Two ways to the same
entry are two terms of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.lanes.plan import Pattern, Whole
from krelax.lanes.products import ROWS
from krelax.network.graph import Network
from krelax.network.linear import Add, Conv, ConvTranspose, Dense, Scale, Sum
from krelax.network.ops import Linear
from krelax.op import Shape

Double = NDArray[np.float64]


class Terms(NamedTuple):
    """Terms of a sum for some rows: `weight` times entry `entry` of a node, `(terms,)` each."""

    row: Whole
    entry: Whole
    weight: Double

    def select(self, chosen: NDArray[np.bool_] | Whole) -> Terms:
        return Terms(self.row[chosen], self.entry[chosen], self.weight[chosen])


class Unmodelled(Exception):
    """A network has something that matrices do not say, or they would be too large."""


def kept(network: Network, top: int) -> list[int]:
    """Affine nodes up to `top` that are layers of their own: those that are read by more than one node, or by one that
    adds up, unless their entries are single entries of layers, times a factor."""
    readers: dict[int, list[int]] = {}
    for i, node in enumerate(network.nodes[: top + 1]):
        for j in node.inputs:
            readers.setdefault(j, []).append(i)
    plain, found = set[int](), []
    for i, node in enumerate(network.nodes[: top + 1]):
        op, mine = node.op, readers.get(i, [])
        single = isinstance(op, Linear) and (op.moves_only or isinstance(op, Scale))
        if not isinstance(op, Linear) or (single and plain.issuperset(node.inputs)):
            plain.add(i)
        elif len(mine) > 1 or any(isinstance(network.nodes[j].op, _ADDING) for j in mine):
            found.append(i)
            plain.add(i)
    return found


_ADDING = (Dense, Conv, ConvTranspose, Sum)


def folded(network: Network, node: int, layers: set[int]) -> tuple[int, int]:
    """How many terms the sums of the operators between an affine node and the layers before it have, all together, and
    how many operators have arithmetic in them."""
    if node in layers:
        return 0, 0
    op = network.nodes[node].op
    assert isinstance(op, Linear)
    parts = [folded(network, j, layers) for j in network.nodes[node].inputs]
    return op.terms + sum(a for a, _ in parts), (not op.moves_only) + sum(b for _, b in parts)


def rows_of(network: Network, node: int, entries: Whole, layers: set[int], most: int) -> dict[int, Terms]:
    """The terms of some entries of an affine node, by the layers that they are entries of. Raises Unmodelled for more
    than `most` terms."""
    if not len(entries):
        return {}
    found: dict[int, list[Terms]] = {}
    waiting = {node: [Terms(np.arange(len(entries)), entries, np.ones(len(entries)))]}
    for i in range(node, -1, -1):
        if i not in waiting:
            continue
        terms = joined(waiting.pop(i))
        if len(terms.row) > most:
            raise Unmodelled
        if i in layers:
            found.setdefault(i, []).append(terms)
            continue
        op, inputs = network.nodes[i].op, network.nodes[i].inputs
        if not isinstance(op, Linear):
            raise Unmodelled
        shapes = [network.nodes[j].shape for j in inputs]
        for j, part in zip(inputs, _behind(op, terms, shapes, network.nodes[i].shape, most), strict=True):
            waiting.setdefault(j, []).append(part)
    return {i: joined(parts) for i, parts in found.items()}


def joined(parts: Sequence[Terms]) -> Terms:
    """All of them."""
    return parts[0] if len(parts) == 1 else Terms(*map(np.concatenate, zip(*parts, strict=True)))


def bias_of(network: Network, node: int, layers: set[int]) -> Tensor:
    """What an affine node is where all layers before it are zero, `(*shape,)`."""
    zero = {i: torch.zeros(1, *network.nodes[i].shape, dtype=network.dtype) for i in layers}
    return _forward(network, node, zero, lambda op, *inputs: op.forward(*inputs))[0]


def sizes_of(network: Network, node: int, largest: dict[int, Tensor]) -> Tensor:
    """The sum of the absolute terms that an affine node is made of, with what the errors of its constants count for,
    for layers as large as they can be, `(*shape,)`."""
    return _forward(network, node, largest, lambda op, *inputs: op.sizes().forward(*inputs))[0]


def _forward(network: Network, node: int, values: dict[int, Tensor], run: Callable[..., Tensor]) -> Tensor:
    if node in values:
        return values[node]
    op = network.nodes[node].op
    inputs = [_forward(network, j, values, run) for j in network.nodes[node].inputs]
    return run(op, *inputs).expand(1, *network.nodes[node].shape)


def _behind(op: Linear, terms: Terms, shapes: list[Shape], shape: Shape, most: int) -> Iterator[Terms]:
    """The same sums in terms of the entries of an operator's inputs, one after the other."""
    match op:
        case Dense():
            yield _many(terms, *_dense(op, terms.entry), most)
        case Conv():
            yield _many(terms, *_windows(op, terms.entry, shapes[0], shape), most)
        case Scale():
            factor = None if op.factor is None else op.factor.expand(shape).flatten().numpy()[terms.entry]
            yield terms if factor is None else terms._replace(weight=terms.weight * factor)
        case Add():
            for sign in op.signs:
                yield Terms(terms.row, terms.entry, terms.weight * sign)
        case ConvTranspose() | Sum():
            yield _pulled(op, terms, shapes[0], shape, most)
        case _ if op.moves_only:
            yield from _moved(op, terms, shapes)
        case _:
            raise Unmodelled


def _many(terms: Terms, entry: Whole, weight: Double, most: int) -> Terms:
    """Every term as the sum of `weight` times `entry`, `(terms, n)` each; no entry is negative but for none."""
    if entry.size > most:
        raise Unmodelled
    row = np.repeat(terms.row, entry.shape[1])
    every = Terms(row, entry.ravel(), (weight * terms.weight[:, None]).ravel())
    return every.select(every.entry >= 0) if bool((entry < 0).any()) else every


def _dense(op: Dense, entry: Whole) -> tuple[Whole, Double]:
    out, width = op.weight.shape
    return (entry // out * width)[:, None] + np.arange(width), op.weight.numpy()[entry % out]


def _windows(op: Conv, entry: Whole, given: Shape, shape: Shape) -> tuple[Whole, Double]:
    """The entries that entries of a convolution see, -1 in its padding."""
    place = np.unravel_index(entry, shape)
    channels = np.arange(op.weight.shape[1]) + (place[1] // (shape[1] // op.groups) * op.weight.shape[1])[:, None]
    index = place[0][:, None] * given[1] + channels  # image and channel
    inside = np.ones_like(index, dtype=np.bool_)
    for axis, kernel in enumerate(op.weight.shape[2:]):
        begin = place[2 + axis] * op.stride[axis] - op.padding[axis]
        at = (begin[:, None] + np.arange(kernel) * op.dilation[axis]).reshape(len(entry), *[1] * (axis + 1), kernel)
        index = index[..., None] * given[2 + axis] + at
        inside = inside[..., None] & (at >= 0) & (at < given[2 + axis])
    weight = op.weight.numpy()[place[1]].reshape(len(entry), -1)
    return np.where(inside, index, -1).reshape(len(entry), -1), weight


def _moved(op: Linear, terms: Terms, shapes: list[Shape]) -> Iterator[Terms]:
    """Entries of operators that move them: each is a copy of one entry of one input, or zero."""
    numbers, first = [], 1
    for shape in shapes:
        numbers.append(torch.arange(first, first + prod(shape), dtype=torch.float64).reshape(1, *shape))
        first += prod(shape)
    source = op.linear(*numbers).flatten().long().numpy()[terms.entry]
    first = 1
    for shape in shapes:
        mine = (source >= first) & (source < first + prod(shape))
        yield Terms(terms.row[mine], source[mine] - first, terms.weight[mine])
        first += prod(shape)


def _pulled(op: Linear, terms: Terms, given: Shape, shape: Shape, most: int) -> Terms:
    """Rows found by pulling unit forms back, some at a time: for operators that are rare."""
    parts, count = [], max(1, min(len(terms.row), most // max(1, prod(given))))
    for begin in range(0, len(terms.row), count):
        some = terms.select(slice(begin, begin + count))  # type: ignore[arg-type]
        unit = torch.zeros(len(some.row), prod(shape), dtype=torch.float64)
        unit[torch.arange(len(some.row)), torch.from_numpy(some.entry)] = 1.0
        (pulled,) = op.adjoint(unit.reshape(-1, *shape), given)
        matrix = pulled.flatten(1).numpy()
        term, entry = np.nonzero(matrix)
        parts.append(Terms(some.row[term], entry, matrix[term, entry] * some.weight[term]))
    return joined(parts) if parts else terms


class Block(NamedTuple):
    """Terms of a matrix, `(terms,)` each: rows, columns, and numbers in the units of proofs and of proposals."""

    row: Whole
    col: Whole
    weight: Double
    scaled: Double


class Matrix(NamedTuple):
    """A matrix with the rows `first` to `last`."""

    first: int
    last: int
    blocks: Sequence[Block]


class Grouped(NamedTuple):
    """The pattern of matrices, and where the numbers of their terms, one after the other, are to be."""

    pattern: Pattern
    position: Whole
    size: int

    def values(self, matrices: Sequence[Matrix], scaled: bool) -> Any:
        """The numbers as they lie in groups, zero where groups are not full; if scaled, in single precision."""
        result = np.zeros(self.size, np.float32 if scaled else np.float64)
        parts = [b.scaled if scaled else b.weight for m in matrices for b in m.blocks]
        result[self.position] = np.concatenate(parts)
        return result


def grouped(matrices: Sequence[Matrix], pad: int) -> Grouped:
    """Rows with the same columns share groups of four. The last rows of groups that are not full are `pad`."""
    parts, offset, positions = [], 0, []
    for m in matrices:
        none = np.zeros(0, np.int64)
        row, col = (np.concatenate([none, *(b[k] for b in m.blocks)]) for k in (0, 1))
        lengths, columns, place, position = _group(m.first, m.last, row, col, pad)
        positions.append(position + offset)
        offset += int(lengths.sum()) * ROWS
        parts.append((lengths, columns, place))
    lengths, columns, place = (np.concatenate([p[k] for p in parts]) for k in range(3))
    first = np.cumsum([0, *(len(p[0]) for p in parts)])
    pattern = Pattern(first, np.concatenate([[0], lengths.cumsum()]), columns.astype(np.int32), place)
    return Grouped(pattern, np.concatenate(positions), offset)


def _group(first: int, last: int, row: Whole, col: Whole, pad: int) -> tuple[Whole, Whole, Whole, Whole]:
    """Lengths of groups, their columns, their rows, and the positions of the terms' numbers."""
    if last == first:
        return (np.zeros(0, np.int64),) * 4
    count = np.bincount(row - first, minlength=last - first)
    order = np.lexsort((col, row))
    sorted_col = col[order]
    begin = np.concatenate([[0], count.cumsum()[:-1]]) if len(count) else count
    same = _same_columns(count, begin, sorted_col)
    by_kind = np.argsort(same, kind="stable")
    kind = same[by_kind]
    new = np.concatenate([[True], kind[1:] != kind[:-1]]) if len(kind) else np.zeros(0, np.bool_)
    rank = np.arange(len(kind)) - np.maximum.accumulate(np.where(new, np.arange(len(kind)), 0))
    leads = rank % ROWS == 0
    group = leads.cumsum() - 1
    leader = by_kind[leads]
    lengths = count[leader]
    starts = np.concatenate([[0], lengths.cumsum()])
    place = np.full(len(leader) * ROWS, pad)
    place[group * ROWS + rank % ROWS] = by_kind + first
    columns = sorted_col[_ranges(begin[leader], lengths)]
    group_of, rank_of = np.empty_like(by_kind), np.empty_like(by_kind)
    group_of[by_kind], rank_of[by_kind] = group, rank % ROWS
    owner = row[order] - first
    inside = np.arange(len(owner)) - begin[owner]
    position = np.empty(len(order), np.int64)
    position[order] = (starts[group_of[owner]] + inside) * ROWS + rank_of[owner]
    return lengths, columns, place, position


def _same_columns(count: Whole, begin: Whole, col: Whole) -> Whole:
    """The first row with the same columns, for each row, `(rows,)`."""
    mixed = (col.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    total = np.concatenate([np.zeros(1, np.uint64), mixed.cumsum(dtype=np.uint64)])
    key = total[begin + count] - total[begin]
    kind = np.unique(np.stack([count.astype(np.uint64), key]), axis=1, return_inverse=True)[1].reshape(-1)
    leader = np.full(kind.max(initial=-1) + 1, len(count))
    np.minimum.at(leader, kind, np.arange(len(count)))
    label: Whole = leader[kind]
    owner = np.repeat(np.arange(len(count)), count)
    differ = owner[col != col[begin[label[owner]] + np.arange(len(col)) - begin[owner]]]
    label[differ] = differ  # their keys are equal by chance
    return label


def _ranges(begin: Whole, length: Whole) -> Whole:
    """`begin[0]`, ... `begin[0] + length[0] - 1`, `begin[1]`, ..."""
    end = length.cumsum()
    return np.arange(end[-1] if len(end) else 0) + np.repeat(begin - (end - length), length)
