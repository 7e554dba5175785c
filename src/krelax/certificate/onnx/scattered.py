"""Entries put at constant places of another tensor, or added to those there; and truths of one place in many."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from krelax.certificate.kernel.linear import Index
from krelax.certificate.onnx.affine import add
from krelax.certificate.onnx.operator import (
    INT,
    Attribute,
    Context,
    Tensor,
    Value,
    check_size,
    form,
    integer,
    normal_axes,
    numbers,
    reads,
    text,
)
from krelax.certificate.onnx.shapes import joined
from krelax.certificate.onnx.tensors import Shape, element_type
from krelax.errors import InputError, UnsupportedError

_INT64, _INT32, _BOOL = np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.bool_)
_HOW = text("none", "add")


def _index(c: Context, *kinds: Any) -> Index:
    given, shape = c.constant(1, *kinds), c.shape(0)
    if given is None or not shape or not given.ndim:
        raise InputError(f"no indices, or nothing to put at them in a tensor of shape {list(shape)}")
    return given.astype(np.int64)


@reads("Scatter", forms=[form(9, 3, axis=integer(0))])
@reads("ScatterElements", forms=[form(11, 3, axis=integer(0)), form(16, 3, axis=integer(0), reduction=_HOW)])
def _elements(c: Context) -> Tensor:
    """Indices along an axis; the other axes stay as they are."""
    index, shape = _index(c, _INT64, _INT32), c.shape(0)
    (axis,) = normal_axes([c.get("axis")], len(shape), True)
    others = [(m, n) for i, (m, n) in enumerate(zip(index.shape, shape, strict=False)) if i != axis]
    if index.ndim != len(shape) or any(m > n for m, n in others):
        raise InputError(f"indices of shape {list(index.shape)} for a tensor of shape {list(shape)}")
    if ((index < -shape[axis]) | (index >= shape[axis])).any():
        raise InputError(f"indices beyond an axis of size {shape[axis]}")
    places = [index % shape[axis] if i == axis else place for i, place in enumerate(np.indices(index.shape))]
    return _put(c, numbers(shape)[tuple(places)])


@reads("ScatterND", forms=[form(11, 3), form(16, 3, reduction=_HOW)])
def _blocks(c: Context) -> Tensor:
    """The last axis of the indices says where along the first axes; what is put there is the rest."""
    index, shape = _index(c, _INT64), c.shape(0)
    depth = index.shape[-1]
    sizes = np.array(shape[:depth])
    if not 1 <= depth <= len(shape) or ((index < -sizes) | (index >= sizes)).any():
        raise InputError(f"indices of shape {list(index.shape)} for a tensor of shape {list(shape)}")
    return _put(c, numbers(shape)[tuple(np.moveaxis(index % sizes, -1, 0))])


def _put(c: Context, places: Index) -> Tensor:
    data, updates = c.operand(0), c.operand(2)
    if updates.shape != places.shape or data.dtype != updates.dtype:
        raise InputError(f"entries of shape {list(updates.shape)} for places of shape {list(places.shape)}")
    adds, flat, size = c.get("reduction") == "add", places.reshape(-1), prod(data.shape)
    if adds and isinstance(data, Value | np.ndarray):
        return _added(c, data, flat, updates)
    if len(np.unique(flat)) < flat.size:
        raise UnsupportedError("several entries for one place, of which readers take different ones")
    order = np.arange(size)
    order[flat] = size + np.arange(flat.size)
    if not isinstance(data, Value) and not isinstance(updates, Value):
        return np.concatenate([data.reshape(-1), updates.reshape(-1)])[order].reshape(data.shape)
    both = joined(c, [_flat(c, x) for x in (data, updates)], 0)
    return c.moved(order.reshape(data.shape), both)


def _flat(c: Context, x: Tensor) -> Tensor:
    return c.moved(numbers(x.shape).reshape(-1), x) if isinstance(x, Value) else x.reshape(-1)


def _added(c: Context, data: Tensor, flat: Index, updates: Tensor) -> Tensor:
    """In as many rounds as entries belong to one place at most."""
    if not isinstance(data, Value) and not isinstance(updates, Value):
        raise UnsupportedError("sums of constants at places; fold them when exporting")
    total: Any = data if isinstance(data, Value) else data.astype(np.float64)
    seen: dict[int, int] = {}
    turn = np.zeros(len(flat), np.int64)
    for k, place in enumerate(flat.tolist()):
        turn[k] = seen.get(place, 0)
        seen[place] = int(turn[k]) + 1
    for k in range(int(turn.max(initial=-1)) + 1):
        source = np.full(prod(data.shape), -1)
        source[flat[turn == k]] = np.nonzero(turn == k)[0]
        if isinstance(updates, Value):
            more: Any = c.moved(source.reshape(data.shape), updates)
        else:
            given = np.append(updates.reshape(-1).astype(np.float64), 0.0)
            more = given[source].reshape(data.shape)
        total = add(c, total, more, 1)
    found: Tensor = total
    return found


@reads("OneHot", forms=[form(9, 3, axis=integer(-1))])
def _one_hot(c: Context) -> Tensor:
    index, depth, values = c.operand(0), c.operand(1), c.operand(2)
    if isinstance(index, Value) or isinstance(depth, Value) or isinstance(values, Value):
        raise UnsupportedError("places that depend on the input")
    if depth.size != 1 or values.shape != (2,) or (np.trunc(index) != index).any():
        raise InputError("a depth that is not one number, not two values, or places that are not whole")
    count, shape = int(depth.item()), index.shape
    (axis,) = normal_axes([c.get("axis")], len(shape) + 1, True)
    check_size((*shape, count))
    places = index.astype(np.int64)
    places = np.where(places < 0, places + count, places)
    along = [-1 if i == axis else 1 for i in range(len(shape) + 1)]
    hit = np.expand_dims(places, axis) == np.arange(count).reshape(along)
    return np.where(hit, values[1], values[0])


@reads("NonZero", forms=[form(9, 1)])
def _nonzero(c: Context) -> Tensor:
    x = c.operand(0)
    if isinstance(x, Value):
        raise UnsupportedError("places that depend on the input")
    return np.stack(np.nonzero(np.atleast_1d(x))).astype(np.int64)


@reads("EyeLike", forms=[form(9, 1, dtype=INT, k=integer(0))])
def _identity(c: Context) -> Tensor:
    shape: Shape = c.shape(0)
    kind = c.operand(0).dtype if c.get("dtype") is None else element_type(c.get("dtype"))
    if len(shape) != 2:
        raise InputError(f"an identity of shape {list(shape)}")
    return np.eye(*shape, c.get("k")).astype(kind)


@reads("IsNaN", forms=[form(9, 1)])
@reads("IsInf", forms=[form(10, 1, detect_negative=Attribute("int", 1), detect_positive=Attribute("int", 1))])
def _is_no_number(c: Context) -> Tensor:
    """Nothing is, in real arithmetic."""
    c.builder.only_real()
    return np.zeros(c.given(0).shape, np.bool_)
