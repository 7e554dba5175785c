"""Windows of nodes: what a window of a node needs of its operands, and the operator that computes it from them.

A window is a box of entries. Operators that work place by place have a smaller one of their kind for it; what a window
of the others needs is everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from krelax.activations import Activation
from krelax.network.graph import Node
from krelax.network.linear import Add, Conv, Dense, Scale, Sum, Within
from krelax.network.ops import Concat, Expand, Gather, Pad, Reshape, Take, Transpose
from krelax.op import Op, Shape

# Begin and end on each of a node's axes.
Window = tuple[tuple[int, int], ...]


class Operand(NamedTuple):
    """What an operator needs of an operand: a window, and zeros before and after it on each axis."""

    window: Window
    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def plain(cls, window: Window) -> Operand:
        """A window without zeros around it."""
        none = (0,) * len(window)
        return cls(window, none, none)


class Local(NamedTuple):
    """How a window is computed, which contains the one that was asked for: by an operator, from windows of operands.
    `constants` are what operators of windows of the same sizes differ by."""

    op: Op
    window: Window
    operands: tuple[Operand, ...]
    constants: bytes = b""


def whole(shape: Shape) -> Window:
    """The window of all entries."""
    return tuple((0, n) for n in shape)


def extents(window: Window) -> Shape:
    """The shape of a window."""
    return tuple(b - a for a, b in window)


def inside(window: Window) -> tuple[Any, ...]:
    """The index of a window in a tensor with an axis before those of the node."""
    return (slice(None), *(slice(a, b) for a, b in window))


def both(one: Window, other: Window) -> Window:
    """The smallest window around two."""
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def local(node: Node, shapes: Sequence[Shape], window: Window) -> Local:
    """How a window of a node is computed from operands of these shapes."""
    found = None
    if window != whole(node.shape):
        rule = next((r for kind, r in _RULES if isinstance(node.op, kind)), None)
        found = None if rule is None else rule(node, shapes, window)
    return found or Local(node.op, whole(node.shape), tuple(Operand.plain(whole(s)) for s in shapes))


def _activation(node: Node, shapes: Sequence[Shape], window: Window) -> Local | None:
    assert isinstance(node.op, Activation)
    if not node.op.uniform:
        return None
    if node.shape == shapes[0]:
        return Local(node.op, window, (Operand.plain(window),))
    if node.shape == shapes[0][:-1]:  # it takes the last axis at once
        return Local(node.op, window, (Operand.plain((*window, (0, shapes[0][-1]))),))
    return None


def _place_by_place(node: Node, shapes: Sequence[Shape], window: Window) -> Local:
    return Local(node.op, window, (Operand.plain(window),) * len(shapes))


def _scale(node: Node, shapes: Sequence[Shape], window: Window) -> Local:
    op, parts = node.op, []
    assert isinstance(op, Scale)

    def cropped(constant: Tensor | None) -> Tensor | None:
        if constant is None or constant.dim() == 0:
            return constant
        sizes, own = constant.shape, window[len(window) - constant.dim() :]
        part = constant[tuple(slice(*w) if n > 1 else slice(None) for n, w in zip(sizes, own, strict=True))]
        if part.shape != sizes:
            parts.append(part.contiguous().cpu().numpy().tobytes())
        return part

    names = ("factor", "shift", "factor_error", "shift_error")
    local_op = replace(op, **{name: cropped(getattr(op, name)) for name in names})
    return Local(local_op, window, (Operand.plain(window),), b"".join(parts))


def _convolution(node: Node, shapes: Sequence[Shape], window: Window) -> Local | None:
    """All channels of some places."""
    op, rank, extent = node.op, len(window) - 2, shapes[0][2:]
    assert isinstance(op, Conv)
    reach, before, after = [], [], []
    geometry = zip(window[2:], extent, op.weight.shape[2:], op.stride, op.padding, op.dilation, strict=True)
    for (a, b), n, k, s, p, d in geometry:
        first, last = a * s - p, (b - 1) * s - p + d * (k - 1) + 1
        if last <= 0 or first >= n:  # it sees padding alone
            return None
        reach.append((max(0, first), min(n, last)))
        before.append(max(0, -first))
        after.append(max(0, last - n))
    images, channels = window[0], (0, shapes[0][1])
    operand = Operand((images, channels, *reach), (0, 0, *before), (0, 0, *after))
    return Local(replace(op, padding=(0,) * rank), (images, (0, node.shape[1]), *window[2:]), (operand,))


def _dense(node: Node, shapes: Sequence[Shape], window: Window) -> Local | None:
    op = node.op
    assert isinstance(op, Dense)
    if op.bias is not None and op.bias.dim() > 1:
        return None
    own, operand = ((*window[:-1], (0, s[-1])) for s in (node.shape, shapes[0]))
    return Local(op, own, (Operand.plain(operand),)) if own != whole(node.shape) else None


def _reshape(node: Node, shapes: Sequence[Shape], window: Window) -> Local | None:
    """Axes that stay as they are keep their windows; the others are taken whole."""
    own, operand = list(whole(node.shape)), list(whole(shapes[0]))
    for before, after in _kept_axes(shapes[0], node.shape):
        own[after] = operand[before] = window[after]
    if tuple(own) == whole(node.shape):
        return None
    return Local(Reshape(extents(tuple(own))), tuple(own), (Operand.plain(tuple(operand)),))


def _kept_axes(before: Shape, after: Shape) -> list[tuple[int, int]]:
    """Pairs of axes, of more than one entry, that a reshape leaves as they are."""
    kept, (i, j) = [], (0, 0)
    one, other = ([(k, n) for k, n in enumerate(shape) if n != 1] for shape in (before, after))
    while i < len(one) and j < len(other):
        if one[i][1] == other[j][1]:
            kept.append((one[i][0], other[j][0]))
            i, j = i + 1, j + 1
            continue
        left, right = one[i][1], other[j][1]  # axes that are split or merged: up to where both are as large
        while left != right:
            if left < right:
                i += 1
                left *= one[i][1]
            else:
                j += 1
                right *= other[j][1]
        i, j = i + 1, j + 1
    return kept


def _transpose(node: Node, shapes: Sequence[Shape], window: Window) -> Local:
    assert isinstance(node.op, Transpose)
    operand = dict(zip(node.op.permutation, window, strict=True))
    return Local(node.op, window, (Operand.plain(tuple(operand[i] for i in range(len(window)))),))


def _gather(node: Node, shapes: Sequence[Shape], window: Window) -> Local:
    op = node.op
    assert isinstance(op, Gather)
    index = op.index[slice(*window[op.axis])]
    first, last = int(index.min()), int(index.max())
    operand = (*window[: op.axis], (first, last + 1), *window[op.axis + 1 :])
    moved = index - first
    return Local(Gather(op.axis, moved), window, (Operand.plain(operand),), moved.cpu().numpy().tobytes())


def _take(node: Node, shapes: Sequence[Shape], window: Window) -> Local | None:
    op = node.op
    assert isinstance(op, Take)
    index = op.index.cpu().numpy()[tuple(slice(*w) for w in window)]
    if not shapes[0] or not index.size:
        return None
    places = np.unravel_index(index, shapes[0])
    operand = tuple((int(p.min()), int(p.max()) + 1) for p in places)
    moved = np.zeros_like(index)
    for place, (a, b) in zip(places, operand, strict=True):
        moved = moved * (b - a) + (place - a)
    result = Take(torch.from_numpy(moved).to(op.index.device))
    return Local(result, window, (Operand.plain(operand),), moved.tobytes())


def _concat(node: Node, shapes: Sequence[Shape], window: Window) -> Local:
    assert isinstance(node.op, Concat)
    axis = node.op.axis

    def along(n: int) -> Window:
        return (*window[:axis], (0, n), *window[axis + 1 :])

    return Local(node.op, along(node.shape[axis]), tuple(Operand.plain(along(s[axis])) for s in shapes))


def _pad(node: Node, shapes: Sequence[Shape], window: Window) -> Local | None:
    assert isinstance(node.op, Pad)
    reach, before, after = [], [], []
    for (a, b), n, zeros in zip(window, shapes[0], node.op.before, strict=True):
        first, last = a - zeros, b - zeros
        if last <= 0 or first >= n:  # padding alone
            return None
        reach.append((max(0, first), min(n, last)))
        before.append(max(0, -first))
        after.append(max(0, last - n))
    none = (0,) * len(window)
    return Local(Pad(none, none), window, (Operand(tuple(reach), tuple(before), tuple(after)),))


def _expand(node: Node, shapes: Sequence[Shape], window: Window) -> Local:
    operand = tuple(w if n > 1 else (0, n) for n, w in zip(shapes[0], window, strict=True))
    return Local(Expand(extents(window)), window, (Operand.plain(operand),))


def _sum(node: Node, shapes: Sequence[Shape], window: Window) -> Local:
    assert isinstance(node.op, Sum)
    axes = node.op.axes
    operand = tuple((0, n) if i in axes else w for i, (n, w) in enumerate(zip(shapes[0], window, strict=True)))
    return Local(node.op, window, (Operand.plain(operand),))


_Rule = Callable[[Node, Sequence[Shape], Window], Local | None]
_RULES: tuple[tuple[type | tuple[type, ...], _Rule], ...] = (
    (Activation, _activation),
    ((Add, Within), _place_by_place),
    (Scale, _scale),
    (Conv, _convolution),
    (Dense, _dense),
    (Reshape, _reshape),
    (Transpose, _transpose),
    (Gather, _gather),
    (Take, _take),
    (Concat, _concat),
    (Pad, _pad),
    (Expand, _expand),
    (Sum, _sum),
)


def entries_of(window: Window) -> int:
    """How many entries a window has."""
    return prod(extents(window))
