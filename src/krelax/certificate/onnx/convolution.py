"""Convolution and pooling, and padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations import Maximum
from krelax.certificate.kernel.linear import Dense, Index, Scale
from krelax.certificate.onnx.activations import activation
from krelax.certificate.onnx.affine import ROUNDED, counted, moved, scaled
from krelax.certificate.onnx.moves import padded
from krelax.certificate.onnx.operator import (
    FLAG,
    INTS,
    Context,
    Tensor,
    Value,
    check_size,
    form,
    integer,
    normal_axes,
    numbers,
    only,
    reads,
    real,
    text,
)
from krelax.certificate.onnx.tensors import Shape
from krelax.errors import InputError, UnsupportedError


def _windows(index: Index, axis: int, places: Index) -> Index:
    """Entries at `places`, `(windows, kernel)`, of an axis, whose last part comes last; -1 beyond its ends."""
    inside = (places >= 0) & (places < index.shape[axis])
    taken = index.take(np.where(inside, places, 0), axis)
    outside = ~inside.reshape(*inside.shape, *[1] * (index.ndim - axis - 1))
    return np.moveaxis(np.where(outside, -1, taken), axis + 1, -1)


_INTEGERS = np.dtype(np.int64), np.dtype(np.int32)
_MODE, _OR_WRAP = text("constant", "reflect", "edge"), text("constant", "reflect", "edge", "wrap")


@reads("Pad", forms=[
    form(7, 1, mode=_MODE, pads=INTS, value=real(0)),
    form(11, 2, 3, mode=_MODE),
    form(18, 2, 4, mode=_MODE),
    form(19, 2, 4, mode=_OR_WRAP),
])  # fmt: skip
def _pad(c: Context) -> Tensor:
    given, pads, axes, shape = c.operand(0), c.integers("pads", 1), c.constant(3, *_INTEGERS), c.shape(0)
    places = range(len(shape)) if axes is None else normal_axes(axes.reshape(-1).tolist(), len(shape), True)
    if pads is None or len(pads) != 2 * len(places) or (axes is not None and axes.ndim != 1):
        raise InputError(f"pads {pads} of {len(places)} axes")
    if not isinstance(given, Value) and given.dtype.kind in "iub" and c.get("mode") == "constant":
        return _padded_integers(c, given, pads, places)
    x, fill = c.value(), (float(c.get("value")) if c.version < 11 else c.scalar(2)) or 0.0
    if c.get("mode") != "constant":
        ends = dict(zip(places, zip(pads, pads[len(places) :], strict=False), strict=False))
        return padded(c, x, *(tuple(ends.get(i, (0, 0))[side] for i in range(len(shape))) for side in (0, 1)))
    index = numbers(shape)
    for axis, before, after in zip(places, pads, pads[len(places) :], strict=False):
        if before + after <= -shape[axis] or min(before, after) <= -shape[axis]:
            raise UnsupportedError(f"pads {before} and {after} of an axis of size {shape[axis]}")
        check_size((*index.shape[:axis], index.shape[axis] + before + after, *index.shape[axis + 1 :]))
        index = _windows(index, axis, np.arange(-before, shape[axis] + after)[:, None])[..., 0]
    zeros = c.moved(index, x)
    if fill == 0:
        return zeros
    return c.affine([zeros], [Scale(np.ones(1))], zeros.shape, np.where(index < 0, fill, 0.0))


def _padded_integers(c: Context, x: NDArray[Any], pads: list[int], places: Sequence[int]) -> Tensor:
    fill = c.constant(2, x.dtype)
    if min(pads, default=0) < 0 or (fill is not None and fill.size != 1):
        raise UnsupportedError(f"pads {pads} of a constant of integers")
    ends = [(0, 0)] * x.ndim
    for axis, before, after in zip(places, pads, pads[len(places) :], strict=False):
        ends[axis] = (before, after)
    return np.pad(x, ends, constant_values=0 if fill is None else fill.item())


def _numbers_of(c: Context, name: str, default: int, count: int, least: int) -> list[int]:
    """An attribute of so many integers, none of them less than the least."""
    given: list[int] | None = c.get(name)
    given = [default] * count if given is None else given
    if len(given) != count or min(given, default=least) < least:
        raise UnsupportedError(f"{name} {given} for a kernel of {count // 2 if name == 'pads' else count} axes")
    return given


def geometry(c: Context, kernel: Sequence[int], shape: Shape) -> list[tuple[Index, int, int]]:
    """For every axis where its windows' entries lie, `(windows, kernel)`, and where its padding begins and ends."""
    rank = len(kernel)
    if len(shape) != rank + 2 or not rank or min(kernel) < 1:
        raise InputError(f"windows of {list(kernel)} over a tensor of shape {list(shape)}")
    strides, dilations = (_numbers_of(c, name, 1, rank, 1) for name in ("strides", "dilations"))
    pads, auto, ceil = _numbers_of(c, "pads", 0, 2 * rank, 0), c.get("auto_pad"), bool(c.get("ceil_mode"))
    if "Pool" in c.call.op and any(p >= k for p, k in zip(pads, [*kernel, *kernel], strict=True)):
        raise UnsupportedError(f"pads {pads} that are not smaller than the kernel {list(kernel)}")
    same = auto.startswith("SAME")
    if (auto != "NOTSET" and (any(pads) or ceil)) or (same and max(dilations) > 1):
        raise UnsupportedError(f"auto_pad {auto} with pads, dilations or ceil_mode")
    result = []
    for n, k, s, d, *ends in zip(shape[2:], kernel, strides, dilations, pads, pads[rank:], strict=False):
        reach = d * (k - 1) + 1
        if same:
            total = (-(-n // s) - 1) * s + reach - n
            if total < 0:
                raise UnsupportedError(f"auto_pad {auto} of windows that leave out entries")
            ends = sorted((total // 2, total - total // 2), reverse=auto == "SAME_LOWER")  # noqa: PLW2901
        before, after = ends
        room = n + before + after - reach
        count = (-(-room // s) if ceil else room // s) + 1
        if room < 0 or (ceil and (count - 1) * s >= n + before):
            raise UnsupportedError(f"windows of {reach} entries on an axis of {n}, or one that begins in its padding")
        check_size((count, k))
        result.append((np.arange(count)[:, None] * s - before + np.arange(k) * d, -before, n + after))
    return result


def _laid_out(index: Index, places: Sequence[Index]) -> Index:
    """Windows over the last axes: `(*lead, *windows, *kernel)`."""
    lead = index.ndim - len(places)
    for axis, table in enumerate(places):
        index = _windows(index, lead + axis, table)
    return index


def _steps(places: Index) -> slice:
    """Places in equal steps as a slice."""
    if not len(places):
        return slice(0)
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    if step < 1 or (np.diff(places) != step).any():
        raise ValueError("places that are not in equal steps")
    return slice(int(places[0]), int(places[-1]) + 1, step)


def convolve(c: Context, x: Value, windows: Sequence[Index], weight: Any, bias: Any) -> Value:
    """Products of windows with `weight`, `(groups, outputs, inputs, *kernel)`, which may be an enclosure."""
    groups, outputs, inputs = weight.shape[:3]
    if x.shape[1] != groups * inputs or not prod(weight.shape):
        raise InputError(f"a convolution of {list(x.shape)} by {list(weight.shape)}")
    if bias is not None and bias.shape != (groups * outputs,):
        raise InputError(f"a bias of shape {list(bias.shape)} for {groups * outputs} channels")
    # For every axis and entry of the kernel where the entries of the windows are, but for those in the padding, and of
    # which windows they are.
    sources, targets = [], []
    for table, n in zip(windows, x.shape[2:], strict=True):
        inside = [np.flatnonzero((column >= 0) & (column < n)) for column in table.T]
        sources.append([_steps(column[i]) for column, i in zip(table.T, inside, strict=True)])
        targets.append([_steps(i) for i in inside])
    after, places = tuple(map(len, windows)), (list(product(*sources)), list(product(*targets)))
    kernels = [
        np.ascontiguousarray(w.reshape(groups, outputs, inputs, -1).transpose(3, 0, 1, 2), np.float64)
        for w in counted(weight)
        if w is not None
    ]
    dense, *sizes = (Dense(w, x.shape[0], x.shape[2:], after, *places) for w in kernels)
    more = {"sizes": tuple(sizes), "fuzz": ROUNDED} if sizes else {}
    bias = None if bias is None else bias.reshape(-1, *[1] * len(after))
    return c.affine([x], [dense], (x.shape[0], groups * outputs, *after), bias, **more)


_AUTO = text("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
_WINDOW = {"auto_pad": _AUTO, "kernel_shape": INTS, "pads": INTS, "strides": INTS}
CONVOLUTION = {**_WINDOW, "dilations": INTS, "group": integer(1)}


def _kernel(c: Context, parts: int) -> Any:
    """The weight of a convolution whose axis `parts` is cut into groups; kernel_shape must be its own."""
    weight, groups = c.factor(1), c.get("group")
    if len(weight.shape) < 3 or len(c.value().shape) != len(weight.shape):
        raise InputError(f"a convolution of {list(c.value().shape)} by {list(weight.shape)}")
    if c.get("kernel_shape") not in (None, list(weight.shape[2:])) or groups < 1 or weight.shape[parts] % groups:
        raise InputError(f"{groups} groups and kernel_shape {c.get('kernel_shape')} for {list(weight.shape)}")
    shape = groups, -1, *weight.shape[1:]
    return moved(weight, lambda w: w.reshape(shape))


@reads("Conv", forms=[form(7, 2, 3, **CONVOLUTION)])
def _conv(c: Context) -> Tensor:
    x, weight = c.value(), _kernel(c, 0)
    windows = [table for table, _, _ in geometry(c, weight.shape[3:], x.shape)]
    return convolve(c, x, windows, weight, c.weight(2, optional=True))


@reads("ConvTranspose", forms=[form(7, 2, 3, **CONVOLUTION, output_padding=INTS, output_shape=INTS)])
def _conv_transpose(c: Context) -> Tensor:
    x, weight = c.value(), _kernel(c, 0)
    kernel, rank = weight.shape[3:], len(weight.shape) - 3
    strides, dilations = (_numbers_of(c, name, 1, rank, 1) for name in ("strides", "dilations"))
    extra = _numbers_of(c, "output_padding", 0, rank, 0)
    windows = []
    for i, (n, k, s, d) in enumerate(zip(x.shape[2:], kernel, strides, dilations, strict=True)):
        before, size = _transposed(c, i, rank, s * (n - 1) + extra[i] + d * (k - 1) + 1, n * s)
        if size < 1 or extra[i] >= s:
            raise UnsupportedError(f"an output of {size} entries, of which output_padding makes {extra[i]}")
        check_size((size, k))
        source = np.arange(size)[:, None] + before - np.arange(k) * d  # in steps of the stride
        windows.append(np.where(source % s == 0, source // s, -1))
    return convolve(c, x, windows, moved(weight, lambda w: w.swapaxes(1, 2)), c.weight(2, optional=True))


def _transposed(c: Context, i: int, rank: int, whole: int, same: int) -> tuple[int, int]:
    """How many entries are left out before an axis of a transposed convolution, and how many there are then."""
    pads, auto, wanted = _numbers_of(c, "pads", 0, 2 * rank, 0), c.get("auto_pad"), c.get("output_shape")
    if wanted is None and not auto.startswith("SAME"):
        if auto == "VALID" and any(pads):
            raise UnsupportedError("auto_pad VALID with pads")
        return pads[i], whole - pads[i] - pads[rank + i]
    if any(pads) or (wanted is not None and len(wanted) not in {rank, rank + 2}):
        raise UnsupportedError(f"output_shape {wanted} or auto_pad {auto} with pads")
    size = same if wanted is None else wanted[i - rank]
    if size > whole:
        raise UnsupportedError(f"an output of {size} entries, more than the kernel reaches")
    lost = whole - size
    return lost // 2 if auto == "SAME_UPPER" else lost - lost // 2, size


_AVERAGE = {**_WINDOW, "count_include_pad": FLAG}


@reads("AveragePool", forms=[
    form(7, 1, **_AVERAGE),
    form(10, 1, **_AVERAGE, ceil_mode=FLAG),
    form(19, 1, **_AVERAGE, ceil_mode=FLAG, dilations=INTS),
])  # fmt: skip
def _average_pool(c: Context) -> Tensor:
    x, kernel = c.value(), c.get("kernel_shape") or []
    if c.get("count_include_pad") and (c.get("ceil_mode") or c.get("auto_pad") != "NOTSET"):
        raise UnsupportedError("count_include_pad with ceil_mode or auto_pad, which readers take differently")
    axes, factor = geometry(c, kernel, x.shape), np.ones(())
    for (places, first, end), n in zip(axes, x.shape[2:], strict=True):
        low, high = (first, end) if c.get("count_include_pad") else (0, n)
        count = ((places >= low) & (places < high)).sum(1)
        if not count.all():
            raise UnsupportedError("a window that lies wholly in the padding")
        factor = np.multiply.outer(factor, 1 / count)
    summed = convolve(c, x, [p for p, _, _ in axes], np.ones((x.shape[1], 1, 1, *kernel)), None)
    return scaled(c, summed, factor, fuzz=ROUNDED)


@reads("MaxPool", forms=[
    form(7, 1, **_WINDOW),
    form(8, 1, **_WINDOW, storage_order=only(0)),
    form(10, 1, **_WINDOW, storage_order=only(0), ceil_mode=FLAG, dilations=INTS),
])  # fmt: skip
def _max_pool(c: Context) -> Tensor:
    x, kernel = c.value(), c.get("kernel_shape") or []
    tables = []
    for (places, _, _), n in zip(geometry(c, kernel, x.shape), x.shape[2:], strict=True):
        inside = (places >= 0) & (places < n)
        if not inside.any(1).all():
            raise UnsupportedError("a window that lies wholly in the padding")
        first = np.take_along_axis(places, inside.argmax(1)[:, None], 1)
        tables.append(np.where(inside, places, first))  # padding never is the maximum
    check_size((*x.shape[:2], *(n for table in tables for n in table.shape)))
    index = _laid_out(numbers(x.shape), tables)
    shape = index.shape[: -len(kernel)]
    if prod(shape) == index.size:
        return c.moved(index.reshape(shape), x)
    z = c.moved(index.reshape(*shape, -1), x)
    return activation(c, z, Maximum(z.shape[-1]), shape)
