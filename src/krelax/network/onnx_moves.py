"""ONNX operators that only move entries about: where each one comes from, for activations and constants alike.

A move is the shape of the result and a function of arrays. Applied to the positions of an activation's entries it says
where each comes from, and applied to a constant it evaluates it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError, UnsupportedError
from krelax.network import onnx_geometry as geometry
from krelax.network.onnx_reader import Reader
from krelax.op import Shape

Move = tuple[Shape, Callable[[NDArray[Any]], NDArray[Any]]]
MOVES: dict[str, Callable[[Reader], Move]] = {}


def _moves(*names: str) -> Callable[[Callable[[Reader], Move]], Callable[[Reader], Move]]:
    def register(function: Callable[[Reader], Move]) -> Callable[[Reader], Move]:
        MOVES.update(dict.fromkeys(names, function))
        return function

    return register


@_moves("Tile")
def _tile(r: Reader) -> Move:
    repeats, shape = r.integers("", 1), r.shape()
    if repeats is None or len(repeats) != len(shape) or min(repeats, default=0) < 0:
        raise InputError(f"repeats {repeats} of shape {list(shape)}")
    return tuple(n * m for n, m in zip(shape, repeats, strict=True)), lambda a: np.tile(a, repeats)


def _indices(r: Reader, position: int, sizes: Any) -> NDArray[np.int64]:
    """Constant indices counted from the front; `sizes` are those of the axes that they are about."""
    index = r.given(position).integers.astype(np.int64)
    if ((index < -sizes) | (index >= sizes)).any():
        raise InputError(f"indices beyond a tensor of shape {list(r.shape())}")
    return np.where(index < 0, index + sizes, index)


@_moves("GatherND")
def _gather_nd(r: Reader) -> Move:
    shape, given = r.shape(), r.given(1).shape
    batch = r.attribute("batch_dims") or 0
    last = given[-1] if given else 0
    if (
        not 0 <= batch < min(len(shape), len(given))
        or shape[:batch] != given[:batch]
        or not 1 <= last <= len(shape) - batch
    ):
        raise InputError(f"indices of shape {list(given)} for a tensor of shape {list(shape)}")
    index = _indices(r, 1, np.array(shape[batch : batch + last]))
    lead, rest = prod(shape[:batch]), shape[batch + last :]
    flat = index.reshape(lead, -1, last)

    def move(a: NDArray[Any]) -> NDArray[Any]:
        own = a.reshape(lead, *shape[batch:])
        return own[np.arange(lead)[:, None], *np.moveaxis(flat, -1, 0)].reshape(*given[:-1], *rest)

    return (*given[:-1], *rest), move


@_moves("GatherElements")
def _gather_elements(r: Reader) -> Move:
    shape, given = r.shape(), r.given(1).shape
    axis = r.axis(r.attribute("axis"), len(shape))
    inside = (m <= n for i, (n, m) in enumerate(zip(shape, given, strict=False)) if i != axis)
    if len(given) != len(shape) or not all(inside):
        raise InputError(f"indices of shape {list(given)} for a tensor of shape {list(shape)}")
    index = _indices(r, 1, shape[axis])
    window = tuple(slice(None) if i == axis else slice(m) for i, m in enumerate(given))
    return given, lambda a: np.take_along_axis(a[window], index, axis)


@_moves("DepthToSpace", "SpaceToDepth")
def _blocks(r: Reader) -> Move:
    shape, size = r.shape(), r.attribute("blocksize")
    if len(shape) != 4 or size is None or size < 1:
        raise InputError(f"blocks of {size} of a tensor of shape {list(shape)}, which is no image")
    n, c, h, w = shape
    if r.node.op_type == "SpaceToDepth":
        if h % size or w % size:
            raise InputError(f"an image of {h} x {w} in blocks of {size}")
        split = (n, c, h // size, size, w // size, size)
        result = (n, c * size * size, h // size, w // size)
        return result, lambda a: a.reshape(split).transpose(0, 3, 5, 1, 2, 4).reshape(result)
    if c % (size * size):
        raise InputError(f"{c} channels in blocks of {size} x {size}")
    depth, result = c // (size * size), (n, c // (size * size), h * size, w * size)
    if r.attribute("mode") in {None, "DCR"}:
        return result, lambda a: a.reshape(n, size, size, depth, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(result)
    if r.attribute("mode") != "CRD":
        raise InputError(f"mode {r.attribute('mode')!r}")
    return result, lambda a: a.reshape(n, depth, size, size, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(result)


_PADDING = {"edge": "edge", "reflect": "reflect", "wrap": "wrap"}


def padding(r: Reader) -> Move:
    """Padding by what is in the tensor."""
    mode, shape = r.attribute("mode"), r.shape()
    before, after = geometry.padding(r)
    if mode not in _PADDING:
        raise InputError(f"padding of mode {mode!r}")
    for n, *ends in zip(shape, before, after, strict=True):
        most = {"edge": max(ends), "reflect": n - 1, "wrap": n}[mode]
        if min(ends) < 0 or max(ends) > most:
            raise UnsupportedError(f"pads {ends} of mode {mode} on an axis of size {n}; pad in smaller steps")
    pads = list(zip(before, after, strict=True))
    result = tuple(n + b + e for n, (b, e) in zip(shape, pads, strict=True))
    known: Any = _PADDING[mode]
    return result, lambda a: np.pad(a, pads, mode=known)


@_moves("Compress")
def _compress(r: Reader) -> Move:
    shape, axis = r.shape(), r.attribute("axis")
    flat = axis is None
    axis, size = (0, prod(shape)) if flat else (place := r.axis(axis, len(shape)), shape[place])
    mask = r.given(1).integers.astype(bool)
    if mask.ndim != 1 or len(mask) > size:
        raise InputError(f"a condition of shape {list(mask.shape)} for an axis of size {size}")
    index = np.flatnonzero(mask)
    result = (len(index),) if flat else (*shape[:axis], len(index), *shape[axis + 1 :])
    return result, lambda a: (a.reshape(-1) if flat else a).take(index, axis)
