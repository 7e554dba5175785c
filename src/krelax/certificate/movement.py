"""Operators that move entries about.

Most are written once, as functions of arrays: applied to the numbers 0, 1, 2, ... of a tensor's entries they say where
every entry comes from, and applied to a constant they evaluate it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from krelax.certificate.context import Context, Tensor, Value, numbers, reads
from krelax.certificate.network import Map, Pick
from krelax.errors import InputError, UnsupportedError


@reads("Constant")
def _constant(c: Context) -> Tensor:
    return np.asarray(c.call.attributes["value"])


@reads("Shape")
def _shape(c: Context) -> Tensor:
    x = c.operands[0]
    assert x is not None
    return np.array(x.shape[c.get("start", 0) : c.get("end")], np.int64)


@reads("Identity", "Dropout")
def _identity(c: Context) -> Tensor:
    if c.call.op == "Dropout" and (training := c.constant(2)) is not None and training.any():
        raise UnsupportedError("dropout in training")
    x = c.operands[0]
    assert x is not None
    return x


def moves(*names: str) -> Callable[[Any], Any]:
    """Register an operator that moves entries about: from a context to a function of arrays."""

    def register(function: Callable[[Context], Callable[[Any], Any]]) -> Any:
        def operator(c: Context) -> Tensor | list[Tensor]:
            x, move = c.operands[0], function(c)
            if isinstance(x, Value):
                result = move(numbers(x.shape))
                return [c.moved(r, x) for r in result] if isinstance(result, list) else c.moved(result, x)
            return move(x)

        return reads(*names)(operator)

    return register


@moves("Reshape")
def _reshape(c: Context) -> Callable[[Any], Any]:
    target = c.integers("shape", 1) or []

    def move(x: Any) -> Any:
        copied = [x.shape[i] if n == 0 and not c.get("allowzero", 0) else n for i, n in enumerate(target)]
        return x.reshape(copied)

    return move


@moves("Flatten")
def _flatten(c: Context) -> Callable[[Any], Any]:
    axis = c.get("axis", 1)
    return lambda x: x.reshape(prod(x.shape[:axis]), -1)


@moves("Squeeze")
def _squeeze(c: Context) -> Callable[[Any], Any]:
    axes = c.integers("axes", 1)
    return lambda x: x.squeeze(None if axes is None else tuple(axes))


@moves("Unsqueeze")
def _unsqueeze(c: Context) -> Callable[[Any], Any]:
    axes = tuple(c.integers("axes", 1) or ())
    return lambda x: np.expand_dims(x, axes)


@moves("Transpose")
def _transpose(c: Context) -> Callable[[Any], Any]:
    return lambda x: x.transpose(c.get("perm"))


@moves("Gather")
def _gather(c: Context) -> Callable[[Any], Any]:
    index = c.weight(1).astype(np.int64)
    return lambda x: x.take(index, c.get("axis", 0))


@moves("Slice")
def _slice(c: Context) -> Callable[[Any], Any]:
    starts, ends = c.integers("starts", 1) or [], c.integers("ends", 2) or []
    axes, steps = c.integers("axes", 3) or range(len(starts)), c.integers("steps", 4) or [1] * len(starts)

    def move(x: Any) -> Any:
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            x = x.take(range(x.shape[axis])[start:end:step], axis)
        return x

    return move


@moves("Split")
def _split(c: Context) -> Callable[[Any], Any]:
    axis, sizes, parts = c.get("axis", 0), c.integers("split", 1), len(c.call.outputs)

    def move(x: Any) -> Any:
        size = -(-x.shape[axis] // parts)
        ends = np.cumsum(sizes) if sizes else np.arange(1, parts + 1) * size
        if sizes and (len(sizes) != parts or ends[-1] != x.shape[axis]):
            raise InputError(f"parts {sizes} of an axis of size {x.shape[axis]}")
        return np.split(x, ends[:-1], axis)

    return move


@moves("Expand")
def _expand(c: Context) -> Callable[[Any], Any]:
    target = tuple(c.integers("shape", 1) or ())
    return lambda x: np.broadcast_to(x, np.broadcast_shapes(x.shape, target))


@reads("Cast")
def _cast(c: Context) -> Tensor:
    x, kind = c.operands[0], c.get("to")
    if isinstance(x, Value):
        if kind not in {1, 11}:
            raise UnsupportedError("a cast that rounds")
        return x
    return c.weight(0).astype(np.float64 if kind in {1, 11} else np.int64)


@reads("Concat")
def _concat(c: Context) -> Tensor:
    operands, axis = [x for x in c.operands if x is not None], c.get("axis", 1)
    if not any(isinstance(x, Value) for x in operands):
        return np.concatenate(operands, axis)  # type: ignore[arg-type]
    values = [x for x in operands if isinstance(x, Value)]
    nothing = [np.full(x.shape, -1) for x in operands]
    maps: list[Map] = []
    for k, x in enumerate(operands):
        if isinstance(x, Value):
            index = np.concatenate([*nothing[:k], numbers(x.shape), *nothing[k + 1 :]], axis)
            maps.append(Pick(index.reshape(-1), prod(x.shape)))
    shape = np.concatenate(nothing, axis).shape
    bias = None
    if len(values) < len(operands):
        bias = np.concatenate([np.zeros(x.shape) if isinstance(x, Value) else x for x in operands], axis)
    return c.affine(values, maps, shape, bias)
