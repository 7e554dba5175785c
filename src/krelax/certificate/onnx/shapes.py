"""Shape operators, which move entries about.

Most are written once, as functions of arrays: applied to the numbers 0, 1, 2, ... of a tensor's entries they say where
every entry comes from, and applied to a constant they evaluate it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.linear import Map, Pick
from krelax.certificate.onnx.affine import add
from krelax.certificate.onnx.operator import (
    FLAG,
    FLOAT,
    FLOATS,
    INT,
    INTS,
    MANY,
    TENSOR,
    Context,
    Endless,
    Everything,
    Form,
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
    real,
)
from krelax.certificate.onnx.tensors import MOST_AXES
from krelax.errors import InputError, UnsupportedError

_INDICES = np.dtype(np.int64), np.dtype(np.int32)
_FLOATS = np.dtype(np.float32), np.dtype(np.float64)


@reads("Constant", forms=[
    form(7, 0, value=TENSOR),
    form(12, 0, value=TENSOR, value_float=FLOAT, value_floats=FLOATS, value_int=INT, value_ints=INTS),
])  # fmt: skip
def _constant(c: Context) -> Tensor:
    if len(c.call.attributes) != 1:
        raise UnsupportedError(f"{len(c.call.attributes)} values instead of one")
    ((kind, value),) = c.call.attributes.values()
    dtypes = {"float": np.float32, "floats": np.float32, "int": np.int64, "ints": np.int64}
    return np.asarray(value, None if kind == "tensor" else dtypes[kind])


@reads("Shape", forms=[form(7, 1), form(15, 1, start=integer(0), end=INT)])
def _shape(c: Context) -> Tensor:
    return np.array(c.shape(0)[c.get("start") or 0 : c.get("end")], np.int64)


@reads("Identity", forms=[form(7, 1)])
def _identity(c: Context) -> Everything:
    return c.whole(0)


@reads("Dropout", forms=[form(7, 1, 1, 2, ratio=real(0.5)), form(12, 1, 3, 2, seed=INT)])
def _dropout(c: Context) -> Everything:
    training = c.constant(2, np.dtype(np.bool_))
    c.constant(1, *_FLOATS, np.dtype(np.float16))
    if training is not None and training.any():
        raise UnsupportedError("dropout in training; export in evaluation mode")
    return c.whole(0)


def moves(*names: str, forms: Sequence[Form]) -> Callable[[Any], Any]:
    """Register an operator that moves entries about: from a context to a function of arrays."""

    def register(function: Callable[[Context], Callable[[Any], Any]]) -> Any:
        def operator(c: Context) -> Everything | list[Everything]:
            x, move = c.whole(0), function(c)
            if isinstance(x, Hidden):
                raise UnsupportedError("a move of minus infinities, between a mask and its softmax")
            if isinstance(x, Endless):
                result = move(x.numbers)
                every = result if isinstance(result, list) else [result]
                moved: list[Everything] = [Endless(part, x.dtype) for part in every]
                return moved if isinstance(result, list) else moved[0]
            if isinstance(x, Value):
                result = move(numbers(x.shape))
                return [c.moved(r, x) for r in result] if isinstance(result, list) else c.moved(result, x)
            if isinstance(x, Wide):
                result = move(x.numbers)
                errors = None if x.error is None else move(x.error)
                if isinstance(result, list):
                    return [Wide(r, x.dtype, None if errors is None else errors[i]) for i, r in enumerate(result)]
                return Wide(result, x.dtype, errors)
            return move(x)

        return reads(*names, forms=forms)(operator)

    return register


def _rank(c: Context) -> int:
    return len(c.shape(0))


@moves("Reshape", forms=[form(7, 2), form(14, 2, allowzero=FLAG)])
def _reshape(c: Context) -> Callable[[Any], Any]:
    shape, target = c.shape(0), c.integers("", 1)
    if target is None or min(target, default=0) < -1 or target.count(-1) > 1:
        raise InputError(f"a target shape {target}")
    if c.get("allowzero") and 0 in target:
        raise UnsupportedError("allowzero with an axis of size 0")
    if len(target) > MOST_AXES:
        raise UnsupportedError(f"a target shape of {len(target)} axes")
    if any(n == 0 and i >= len(shape) for i, n in enumerate(target)):
        raise InputError(f"a target shape {target} that copies more axes than {list(shape)} has")
    copied = [shape[i] if n == 0 else n for i, n in enumerate(target)]
    known = prod(n for n in copied if n != -1)
    if prod(shape) != known if -1 not in copied else not known or prod(shape) % known:
        raise InputError(f"cannot reshape {list(shape)} to {target}")
    return lambda x: x.reshape(copied)


@moves("Flatten", forms=[form(7, 1, axis=integer(1))])
def _flatten(c: Context) -> Callable[[Any], Any]:
    shape, axis = c.shape(0), c.get("axis")
    if not (-len(shape) if c.version >= 11 else 0) <= axis <= len(shape):
        raise InputError(f"axis {axis} of {len(shape)}")
    axis = axis + len(shape) if axis < 0 else axis
    return lambda x: x.reshape(prod(shape[:axis]), prod(shape[axis:]))


@moves("Squeeze", forms=[form(7, 1, axes=INTS), form(13, 1, 2)])
def _squeeze(c: Context) -> Callable[[Any], Any]:
    axes, shape = c.integers("axes", 1), c.shape(0)
    if axes is None:
        return lambda x: x.squeeze()
    axes = normal_axes(axes, len(shape), c.version >= 11)
    if not axes or any(shape[a] != 1 for a in axes):
        raise UnsupportedError(f"axes {axes} of shape {list(shape)}")
    return lambda x: x.squeeze(tuple(axes))


@moves("Unsqueeze", forms=[form(7, 1, axes=INTS), form(13, 2)])
def _unsqueeze(c: Context) -> Callable[[Any], Any]:
    axes = c.integers("axes", 1)
    if not axes or _rank(c) + len(axes) > MOST_AXES:
        raise UnsupportedError(f"{len(axes or ())} axes more than {_rank(c)}")
    normal = normal_axes(axes, _rank(c) + len(axes), c.version >= 11)
    return lambda x: np.expand_dims(x, tuple(normal))


@moves("Transpose", forms=[form(7, 1, perm=INTS)])
def _transpose(c: Context) -> Callable[[Any], Any]:
    perm = c.get("perm")
    if perm is not None and sorted(perm) != list(range(_rank(c))):
        raise InputError(f"perm {perm} of {_rank(c)} axes")
    return lambda x: x.transpose(perm)


@moves("Gather", forms=[form(7, 2, axis=integer(0))])
def _gather(c: Context) -> Callable[[Any], Any]:
    index, shape = c.constant(1, *_INDICES), c.shape(0)
    if index is None or not shape:
        raise InputError("no indices, or nothing to be gathered")
    (axis,) = normal_axes([c.get("axis")], len(shape), True)
    least = -shape[axis] if c.version >= 11 else 0
    if ((index < least) | (index >= shape[axis])).any():
        raise InputError(f"indices beyond an axis of size {shape[axis]}")
    check_size((*shape[:axis], *index.shape, *shape[axis + 1 :]))
    return lambda x: x.take(index, axis)


@moves("Slice", forms=[form(7, 1, axes=INTS, starts=INTS, ends=INTS), form(10, 3, 5)])
def _slice(c: Context) -> Callable[[Any], Any]:
    shape = c.shape(0)
    starts, ends, axes = (c.integers(n, i, *_INDICES) for i, n in enumerate(("starts", "ends", "axes"), 1))
    steps = c.integers("", 4, *_INDICES) if c.version >= 10 else None
    if starts is None or ends is None:
        raise InputError("no starts or ends")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise InputError(f"starts {starts}, ends {ends}, axes {axes}, steps {steps}")
    places = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, normal_axes(axes, len(shape), c.version >= 10), steps, strict=True):
        if step < 0 and start < -shape[axis]:
            raise UnsupportedError(f"start {start} on an axis of size {shape[axis]}, which readers take differently")
        places[axis] = slice(start, end, step)
    return lambda x: x[tuple(places)]


@moves("Split", forms=[
    form(7, 1, 1, MANY, axis=integer(0), split=INTS),
    form(13, 1, 2, MANY, axis=integer(0)),
    form(18, 1, 2, MANY, axis=integer(0), num_outputs=INT),
])  # fmt: skip
def _split(c: Context) -> Callable[[Any], Any]:
    shape, sizes, parts = c.shape(0), c.integers("split", 1), len(c.call.outputs)
    (axis,) = normal_axes([c.get("axis")], len(shape), True)
    total = shape[axis]
    if sizes is None:
        if c.version < 18 and total % parts:
            raise InputError(f"an axis of size {total} in {parts} equal parts")
        part = -(-total // parts)
        sizes = [min(part, total - i * part) for i in range(parts)]
    elif c.get("num_outputs") is not None:
        raise UnsupportedError("num_outputs with sizes")
    if c.get("num_outputs") not in {None, parts} or (c.version >= 18 and c.get("num_outputs") is None and _sizeless(c)):
        raise UnsupportedError(f"num_outputs {c.get('num_outputs')} for {parts} outputs")
    if len(sizes) != parts or min(sizes) < 1 or sum(sizes) != total:
        raise InputError(f"{parts} parts {sizes} of an axis of size {total}")
    return lambda x: np.split(x, np.cumsum(sizes)[:-1], axis)


def _sizeless(c: Context) -> bool:
    return c.constant(1, _INDICES[0]) is None


@moves("Expand", forms=[form(8, 2)])
def _expand(c: Context) -> Callable[[Any], Any]:
    target = c.integers("", 1)
    if target is None or min(target, default=1) < 1:
        raise UnsupportedError(f"a target shape {target}")
    shape = broadcast(c.shape(0), tuple(target))
    return lambda x: np.broadcast_to(x, shape)


def converted(x: NDArray[Any], to: np.dtype[Any]) -> NDArray[Any]:
    """A constant as another type: the same numbers, without the fraction for integers, or their truth for booleans."""
    if to == np.bool_:
        return x != 0
    if np.can_cast(x.dtype, to, "safe"):
        return x.astype(to)
    whole = np.trunc(x) if x.dtype.kind == "f" and to.kind in "iu" else x
    if to.kind in "iu":
        info, ends = np.iinfo(to), [int(v) for v in (whole.min(initial=0), whole.max(initial=0))]
        if not info.min <= ends[0] <= ends[1] <= info.max:
            raise UnsupportedError(f"a cast of constants to {to} that are out of its range")
        return whole.astype(to)
    with np.errstate(over="ignore"):
        cast = whole.astype(to)
    if not np.isfinite(cast).all() or cast.tolist() != whole.tolist():  # Python compares exactly
        raise UnsupportedError(f"a cast of constants to {to} that rounds; fold it when exporting")
    return cast


@reads("Concat", forms=[form(7, 1, MANY, axis=INT)])
def _concat(c: Context) -> Tensor | Wide:
    operands = [c.given(i) for i in range(len(c.operands))]
    if len({x.dtype for x in operands}) != 1 or c.get("axis") is None:
        raise InputError("operands of several types, or no axis")
    rank = len(operands[0].shape)
    (axis,) = normal_axes([c.get("axis")], rank, True)
    others = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in operands}
    if len(others) != 1 or any(len(x.shape) != rank for x in operands):
        raise InputError(f"operands of shapes {', '.join(str(list(x.shape)) for x in operands)}")
    shape = list(operands[0].shape)
    shape[axis] = sum(x.shape[axis] for x in operands)
    check_size(tuple(shape))
    if any(isinstance(x, Wide) for x in operands):
        return _with_errors(c, operands, axis)
    plain = [c.operand(i) for i in range(len(operands))]
    constants = [x for x in plain if not isinstance(x, Value)]
    return np.concatenate(constants, axis) if len(constants) == len(plain) else joined(c, plain, axis)


def _with_errors(c: Context, operands: Sequence[Tensor | Wide], axis: int) -> Tensor | Wide:
    """Enclosed constants among what is joined: values with zeros in their places, and what is added to that."""
    constants = [x if isinstance(x, Wide) else Wide(_of_constant(x), x.dtype) for x in operands]
    numbers = np.concatenate([x.numbers for x in constants], axis)
    errors = [np.zeros(x.shape) if x.error is None else x.error for x in constants]
    whole = Wide(numbers, operands[0].dtype, np.concatenate(errors, axis))
    if not any(isinstance(x, Value) for x in operands):
        return whole
    placed = joined(c, [x if isinstance(x, Value) else np.zeros(x.shape) for x in operands], axis)
    return add(c, placed, whole, 1)


def _of_constant(x: Tensor) -> NDArray[np.float64]:
    return np.zeros(x.shape) if isinstance(x, Value) else x.astype(np.float64)


def joined(c: Context, operands: Sequence[Tensor], axis: int) -> Value:
    """Values and constants, at least one of the former, one behind the other."""
    values = [x for x in operands if isinstance(x, Value)]
    nothing = [np.full(x.shape, -1) for x in operands]
    maps: list[Map] = []
    for k, x in enumerate(operands):
        if isinstance(x, Value):
            index = np.concatenate([*nothing[:k], numbers(x.shape), *nothing[k + 1 :]], axis)
            maps.append(Pick(index.reshape(-1), prod(x.shape)))
    bias = None
    if len(values) < len(operands):
        bias = np.concatenate([np.zeros(x.shape) if isinstance(x, Value) else x for x in operands], axis)
    return c.affine(values, maps, np.concatenate(nothing, axis).shape, bias)
