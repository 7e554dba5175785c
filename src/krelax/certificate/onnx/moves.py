"""More operators that move entries about: tiles, gathers, blocks of pixels, triangles, choices by a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from krelax.certificate.onnx.operator import (
    INT,
    ON,
    Context,
    Endless,
    Everything,
    Hidden,
    Tensor,
    Value,
    Wide,
    broadcast,
    check_size,
    form,
    integer,
    normal_axes,
    numbers,
    reads,
    text,
)
from krelax.certificate.onnx.shapes import joined, moves
from krelax.errors import InputError, UnsupportedError

_BOOL, _INT64, _INT32 = np.dtype(np.bool_), np.dtype(np.int64), np.dtype(np.int32)


@moves("Tile", forms=[form(7, 2)])
def _tile(c: Context) -> Callable[[Any], Any]:
    repeats, shape = c.integers("", 1), c.shape(0)
    if repeats is None or len(repeats) != len(shape) or min(repeats, default=1) < 1:
        raise UnsupportedError(f"repeats {repeats} of shape {list(shape)}")
    check_size(tuple(n * m for n, m in zip(shape, repeats, strict=True)))
    return lambda x: np.tile(x, repeats)


@moves("GatherND", forms=[form(11, 2), form(12, 2, batch_dims=integer(0))])
def _gather_nd(c: Context) -> Callable[[Any], Any]:
    index, shape, batch = c.constant(1, _INT64), c.shape(0), c.get("batch_dims") or 0
    if index is None or not index.ndim or not 0 <= batch < min(len(shape), index.ndim):
        raise InputError(f"indices for a tensor of shape {list(shape)}")
    length = index.shape[-1]
    if index.shape[:batch] != shape[:batch] or not 1 <= length <= len(shape) - batch:
        raise InputError(f"indices of shape {list(index.shape)} for a tensor of shape {list(shape)}")
    result = (*index.shape[:-1], *shape[batch + length :])
    check_size(result)
    sizes = np.array(shape[batch : batch + length])
    if ((index < -sizes) | (index >= sizes)).any():
        raise InputError(f"indices beyond a tensor of shape {list(shape)}")
    stacks, wanted = prod(shape[:batch]), (index % sizes).reshape(prod(shape[:batch]), -1, length)

    def move(x: Any) -> Any:
        whole = x.reshape(stacks, *shape[batch:])
        return np.stack([whole[n][tuple(wanted[n].T)] for n in range(stacks)]).reshape(result)

    return move


@moves("GatherElements", forms=[form(11, 2, axis=integer(0))])
def _gather_elements(c: Context) -> Callable[[Any], Any]:
    index, shape = c.constant(1, _INT64, _INT32), c.shape(0)
    if index is None or index.ndim != len(shape) or not shape:
        raise InputError(f"indices for a tensor of shape {list(shape)}")
    (axis,) = normal_axes([c.get("axis")], len(shape), True)
    n = shape[axis]
    if ((index < -n) | (index >= n)).any():
        raise InputError(f"indices beyond an axis of size {n}")
    if any(i != axis and m > k for i, (m, k) in enumerate(zip(index.shape, shape, strict=True))):
        raise InputError(f"indices of shape {list(index.shape)} for a tensor of shape {list(shape)}")
    check_size(index.shape)
    places = [index % n if i == axis else place for i, place in enumerate(np.indices(index.shape))]
    return lambda x: x[tuple(places)]


@moves("DepthToSpace", forms=[form(7, 1, blocksize=INT), form(11, 1, blocksize=INT, mode=text("DCR", "CRD"))])
def _depth_to_space(c: Context) -> Callable[[Any], Any]:
    shape, b = c.shape(0), c.get("blocksize") or 0
    if len(shape) != 4 or b < 1 or shape[1] % (b * b):
        raise InputError(f"blocks of {b} of a tensor of shape {list(shape)}")
    _, channels, height, width = shape
    depth = channels // (b * b)
    made, y, z = np.indices((depth, height * b, width * b))
    block = y % b * b + z % b
    source = made * b * b + block if c.get("mode") == "CRD" else block * depth + made
    return lambda x: x[:, source, y // b, z // b]


@moves("SpaceToDepth", forms=[form(7, 1, blocksize=INT)])
def _space_to_depth(c: Context) -> Callable[[Any], Any]:
    shape, b = c.shape(0), c.get("blocksize") or 0
    if len(shape) != 4 or b < 1 or shape[2] % b or shape[3] % b:
        raise InputError(f"blocks of {b} of a tensor of shape {list(shape)}")
    _, channels, height, width = shape
    made, y, z = np.indices((channels * b * b, height // b, width // b))
    block = made // channels
    return lambda x: x[:, made % channels, y * b + block // b, z * b + block % b]


@moves("Compress", forms=[form(9, 2, axis=INT)])
def _compress(c: Context) -> Callable[[Any], Any]:
    mask, shape, axis = c.constant(1, _BOOL), c.shape(0), c.get("axis")
    if axis is not None:
        (axis,) = normal_axes([axis], len(shape), c.version >= 11)
    if mask is None or mask.ndim != 1 or len(mask) > (prod(shape) if axis is None else shape[axis]):
        raise InputError(f"a condition for a tensor of shape {list(shape)}")
    return lambda x: np.compress(mask, x, axis)


@reads("Trilu", forms=[form(14, 1, 2, upper=ON)])
def _triangle(c: Context) -> Tensor:
    shape, k = c.shape(0), c.constant(1, _INT64)
    if len(shape) < 2 or (k is not None and k.size != 1):
        raise InputError(f"a triangle of a tensor of shape {list(shape)}")
    row, column = np.indices(shape[-2:])
    beyond = column - row - (0 if k is None else k.item())
    kept = np.broadcast_to(beyond >= 0 if c.get("upper") else beyond <= 0, shape)
    x = c.operand(0)
    if isinstance(x, Value):
        return c.moved(np.where(kept, numbers(shape), -1), x)
    return np.where(kept, x, np.zeros((), x.dtype))


def chosen(c: Context) -> Everything:
    """Entries of two tensors by constant truths; where one is minus infinity a value is hidden."""
    mask, both = c.constant(0, _BOOL), [c.whole(1), c.whole(2)]
    if mask is None or both[0].dtype != both[1].dtype:
        raise InputError("no condition, or operands of several types")
    endless = [isinstance(x, Endless) for x in both]
    values = [isinstance(x, Value) for x in both]
    if any(endless) and any(values):
        return _hidden(c, mask, both)
    if any(isinstance(x, Endless | Wide) for x in both) and not any(values):
        return _of_constants(mask, both)
    return _taken(c, mask, c.operand(1), c.operand(2))


def _hidden(c: Context, mask: Any, both: Sequence[Everything]) -> Hidden:
    place = 0 if isinstance(both[0], Endless) else 1
    mine, other = both[place], both[1 - place]
    if not isinstance(mine, Endless) or not isinstance(other, Value) or np.isfinite(mine.numbers).any():
        raise UnsupportedError("minus infinity in a choice beside other numbers")
    zero = np.zeros((), other.dtype)
    y = _taken(c, mask, zero, other) if place == 0 else _taken(c, mask, other, zero)
    assert isinstance(y, Value)
    shape = broadcast(y.shape, mine.shape)
    if shape != y.shape:
        raise UnsupportedError("a choice that minus infinity repeats")
    return Hidden(y, np.broadcast_to(mask if place else ~mask, shape))


def _of_constants(mask: Any, both: Sequence[Everything]) -> Everything:
    numbers, errors = [], []
    for x in both:
        if isinstance(x, Value | Hidden):
            raise UnsupportedError("a choice by constants alone")
        numbers.append(x.numbers if isinstance(x, Endless | Wide) else x.astype(np.float64))
        error = x.error if isinstance(x, Wide) else None
        errors.append(np.zeros(x.shape) if error is None else error)
    found, kind = np.where(mask, *numbers), both[0].dtype
    return Wide(found, kind, np.where(mask, *errors)) if np.isfinite(found).all() else Endless(found, kind)


def _taken(c: Context, mask: Any, a: Tensor, b: Tensor) -> Tensor:
    shape = broadcast(mask.shape, a.shape, b.shape)
    if not isinstance(a, Value) and not isinstance(b, Value):
        return np.where(mask, a, b)
    both = [
        c.moved(np.broadcast_to(numbers(x.shape), shape).reshape(-1), x)
        if isinstance(x, Value)
        else np.broadcast_to(x, shape).reshape(-1)
        for x in (a, b)
    ]
    place = np.arange(prod(shape)).reshape(shape)
    return c.moved(np.where(np.broadcast_to(mask, shape), place, place + prod(shape)), joined(c, both, 0))


def padded(c: Context, x: Value, before: Sequence[int], after: Sequence[int]) -> Value:
    """Padding by entries of the tensor, one axis after the other."""
    mode, index = c.get("mode"), numbers(x.shape)
    for axis, (n, b, a) in enumerate(zip(x.shape, before, after, strict=True)):
        if min(b, a) < 0 or max(b, a) > {"reflect": n - 1, "wrap": n}.get(mode, max(b, a)):
            raise UnsupportedError(f"pads {b} and {a} of mode {mode} of an axis of size {n}")
        check_size((*index.shape[:axis], n + b + a, *index.shape[axis + 1 :]))
        place = np.arange(-b, n + a)
        if mode == "edge":
            place = place.clip(0, n - 1)
        elif mode == "wrap":
            place = place % n
        else:
            place = n - 1 - abs(n - 1 - abs(place))
        index = index.take(place, axis)
    return c.moved(index, x)
