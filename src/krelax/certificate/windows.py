"""Operators over windows: padding, convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from krelax.certificate.affine import ROUNDED, scaled
from krelax.certificate.arithmetic import Floats
from krelax.certificate.context import Context, Shape, Tensor, Value, numbers, reads
from krelax.certificate.network import Dense, Index, Scale
from krelax.certificate.nonlinear import activation
from krelax.errors import InputError, UnsupportedError


def _windows(index: Index, axis: int, places: Index) -> Index:
    """Entries at `places`, `(windows, kernel)`, of an axis, whose last part comes last; -1 beyond its ends."""
    inside = (places >= 0) & (places < index.shape[axis])
    taken = index.take(np.where(inside, places, 0), axis)
    outside = ~inside.reshape(*inside.shape, *[1] * (index.ndim - axis - 1))
    return np.moveaxis(np.where(outside, -1, taken), axis + 1, -1)


@reads("Pad")
def _pad(c: Context) -> Tensor:
    x, pads, value = c.value(), c.integers("pads", 1) or [], c.constant(2)
    if c.get("mode", "constant") != "constant" or len(pads) != 2 * len(x.shape):
        raise UnsupportedError("padding of some axes, or not by a constant")
    fill = float(c.get("value", 0.0) if value is None else value.item())
    index = numbers(x.shape)
    for axis, (before, after) in enumerate(zip(pads[: len(x.shape)], pads[len(x.shape) :], strict=True)):
        places = np.arange(-before, index.shape[axis] + after)
        index = _windows(index, axis, places[:, None])[..., 0]
    padded = c.moved(index, x)
    if fill == 0:
        return padded
    return c.affine([padded], [Scale(np.ones(1))], padded.shape, np.where(index < 0, fill, 0.0))


def _geometry(c: Context, kernel: Sequence[int], shape: Shape) -> list[tuple[Index, int, int]]:
    """For every axis where its windows' entries lie, `(windows, kernel)`, and where its padding begins and ends."""
    rank = len(kernel)
    stride, dilation = c.get("strides", [1] * rank), c.get("dilations", [1] * rank)
    pads = c.get("pads", [0] * 2 * rank)
    auto = c.get("auto_pad", "NOTSET")
    result = []
    for n, k, s, d, before, after in zip(shape, kernel, stride, dilation, pads[:rank], pads[rank:], strict=True):
        reach = d * (k - 1) + 1
        if auto.startswith("SAME"):
            total = max((-(-n // s) - 1) * s + reach - n, 0)
            before, after = sorted((total // 2, total - total // 2), reverse=auto == "SAME_LOWER")  # noqa: PLW2901
        room = n + before + after - reach
        count = (-(-room // s) if c.get("ceil_mode", 0) else room // s) + 1
        if c.get("ceil_mode", 0) and (count - 1) * s >= n + before:
            count -= 1  # no window begins in the padding behind
        if count < 1 or s < 1 or d < 1:
            raise InputError(f"a window of {reach} entries on an axis of {n}")
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


def _convolve(c: Context, x: Value, windows: Sequence[Index], weight: Floats, bias: Any) -> Value:
    """Products of windows with `weight`, `(groups, outputs, inputs, *kernel)`."""
    groups, outputs, inputs = weight.shape[:3]
    if len(x.shape) != weight.ndim - 1 or x.shape[1] != groups * inputs or not weight.size:
        raise InputError(f"a convolution of {x.shape} by {weight.shape}")
    # For every axis and entry of the kernel where the entries of the windows are, but for those in the padding, and of
    # which windows they are.
    sources, targets = [], []
    for table, n in zip(windows, x.shape[2:], strict=True):
        inside = [np.flatnonzero((column >= 0) & (column < n)) for column in table.T]
        sources.append([_steps(column[i]) for column, i in zip(table.T, inside, strict=True)])
        targets.append([_steps(i) for i in inside])
    matrices = np.ascontiguousarray(weight.reshape(groups, outputs, inputs, -1).transpose(3, 0, 1, 2), np.float64)
    after = tuple(map(len, windows))
    dense = Dense(matrices, x.shape[0], x.shape[2:], after, list(product(*sources)), list(product(*targets)))
    bias = None if bias is None else bias.reshape(-1, *[1] * len(after))
    return c.affine([x], [dense], (x.shape[0], groups * outputs, *after), bias)


@reads("Conv")
def _conv(c: Context) -> Tensor:
    x, weight, groups = c.value(), c.weight(1), c.get("group", 1)
    windows = [table for table, _, _ in _geometry(c, weight.shape[2:], x.shape[2:])]
    return _convolve(c, x, windows, weight.reshape(groups, -1, *weight.shape[1:]), c.constant(2))


@reads("ConvTranspose")
def _conv_transpose(c: Context) -> Tensor:
    x, weight, groups = c.value(), c.weight(1), c.get("group", 1)
    kernel, rank = weight.shape[2:], weight.ndim - 2
    stride, dilation = c.get("strides", [1] * rank), c.get("dilations", [1] * rank)
    pads, extra = c.get("pads", [0] * 2 * rank), c.get("output_padding", [0] * rank)
    if c.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in c.call.attributes:
        raise UnsupportedError("auto_pad and output_shape; export with explicit pads")
    windows = []
    for i, (n, k, s, d) in enumerate(zip(x.shape[2:], kernel, stride, dilation, strict=True)):
        size = s * (n - 1) + extra[i] + d * (k - 1) + 1 - pads[i] - pads[rank + i]
        source = np.arange(size)[:, None] + pads[i] - np.arange(k) * d  # in steps of the stride
        windows.append(np.where(source % s == 0, source // s, -1))
    return _convolve(c, x, windows, weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2), c.constant(2))


@reads("AveragePool")
def _average_pool(c: Context) -> Tensor:
    x, kernel = c.value(), c.get("kernel_shape")
    rank, factor = len(kernel), np.ones(())
    geometry = _geometry(c, kernel, x.shape[-rank:])
    for (places, first, end), n in zip(geometry, x.shape[-rank:], strict=True):
        low, high = (first, end) if c.get("count_include_pad", 0) else (0, n)
        factor = np.multiply.outer(factor, 1 / ((places >= low) & (places < high)).sum(1))
    summed = _convolve(c, x, [p for p, _, _ in geometry], np.ones((x.shape[1], 1, 1, *kernel)), None)
    return scaled(c, summed, factor, fuzz=ROUNDED)


@reads("MaxPool")
def _max_pool(c: Context) -> Tensor:
    if len(c.call.outputs) > 1:
        raise UnsupportedError("the indices of a maximum")
    x, kernel = c.value(), c.get("kernel_shape")
    tables = []
    for (places, _, _), n in zip(_geometry(c, kernel, x.shape[-len(kernel) :]), x.shape[-len(kernel) :], strict=True):
        inside = (places >= 0) & (places < n)
        if not inside.any(1).all():
            raise UnsupportedError("a window that lies wholly in the padding")
        first = np.take_along_axis(places, inside.argmax(1)[:, None], 1)
        tables.append(np.where(inside, places, first))  # padding never is the maximum
    index = _laid_out(numbers(x.shape), tables)
    shape = index.shape[: -len(kernel)]
    z = c.moved(index.reshape(*shape, -1), x)
    return z if z.shape[-1] == 1 else activation(c, z, "max", shape, window=z.shape[-1])
