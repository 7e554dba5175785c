"""Entries put at constant places of another tensor, or added to those there, built as in `krelax.network.compose`."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.errors import InputError, UnsupportedError
from krelax.network.compose import Operand, add
from krelax.network.constants import Constant
from krelax.network.contractions import choose
from krelax.network.graph import Builder
from krelax.op import Shape

Places = NDArray[np.int64]


def shape_of(builder: Builder, x: Operand) -> Shape:
    return x.shape if isinstance(x, Constant) else builder.shape(x)


def places_of_elements(index: NDArray[np.int64], shape: Shape, axis: int) -> Places:
    """Where each entry goes, as a number of an entry of a tensor: `index` says where along an axis, and the other
    axes stay as they are."""
    inside = all(i == axis or m <= n for i, (m, n) in enumerate(zip(index.shape, shape, strict=True)))
    if not inside or ((index < -shape[axis]) | (index >= shape[axis])).any():
        raise InputError(f"indices of shape {list(index.shape)} for a tensor of shape {list(shape)}")
    grid = [index % shape[axis] if a == axis else place for a, place in enumerate(np.indices(index.shape))]
    return np.asarray(np.ravel_multi_index(tuple(grid), shape), np.int64)


def places_of_blocks(index: NDArray[np.int64], shape: Shape) -> Places:
    """The same where the last axis of `index` says where along the first axes, and what is put there is the rest."""
    depth = index.shape[-1]
    sizes = np.array(shape[:depth])
    if not 1 <= depth <= len(shape) or ((index < -sizes) | (index >= sizes)).any():
        raise InputError(f"indices of shape {list(index.shape)} for a tensor of shape {list(shape)}")
    rows = np.ravel_multi_index(tuple(np.moveaxis(index % sizes, -1, 0)), shape[:depth])
    rest = shape[depth:]
    return np.asarray(rows.reshape(*index.shape[:-1], *[1] * len(rest)) * prod(rest) + _numbers(rest), np.int64)


def _numbers(shape: Shape) -> NDArray[np.int64]:
    return np.arange(prod(shape)).reshape(shape)


def put(builder: Builder, x: Operand, places: Places, updates: Operand) -> int:
    """x with other entries at some places, each named once."""
    shape = shape_of(builder, x)
    if len(np.unique(places)) < places.size:
        raise UnsupportedError("several entries for one place, of which runtimes take different ones")
    _check(builder, places, updates)
    index = _numbers((prod(shape),))
    index[places.reshape(-1)] = prod(shape) + np.arange(places.size)
    return choose(builder, [x, updates], index.reshape(shape))


def added(builder: Builder, x: Operand, places: Places, updates: Operand) -> int:
    """x with entries added at some places."""
    shape, flat = shape_of(builder, x), places.reshape(-1)
    _check(builder, places, updates)
    order = np.argsort(flat, kind="stable")
    nth = np.arange(len(flat)) - np.searchsorted(flat[order], flat[order])  # how often a place came before
    total, zero = x, Constant(torch.zeros(1, dtype=torch.float64))
    for n in range(int(nth.max(initial=-1)) + 1):
        index = np.full(prod(shape), len(flat))
        chosen = order[nth == n]
        index[flat[chosen]] = chosen
        if isinstance(updates, Constant):
            flattened = updates.reshape(-1).moved(lambda t: torch.cat([t, torch.zeros(1).to(t)]))
            more: Operand = flattened[torch.from_numpy(index.reshape(shape))]
        else:
            more = choose(builder, [updates, zero], index.reshape(shape))
        both = isinstance(total, Constant) and isinstance(more, Constant)
        total = total + more if both else add(builder, total, more)  # type: ignore[operator]
    if isinstance(total, Constant):
        raise UnsupportedError("neither operand depends on the input")
    return total


def _check(builder: Builder, places: Places, updates: Operand) -> None:
    if shape_of(builder, updates) != places.shape:
        raise InputError(f"entries of shape {list(shape_of(builder, updates))} for places of {list(places.shape)}")
