"""Operators over windows: padding, convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from krelax.certificate.affine import means
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


def _convolve(c: Context, x: Value, places: Sequence[Index], weight: Floats, bias: Any) -> Value:
    """Products of windows, laid out in groups, with `weight`, `(groups, inputs * kernel, outputs)`."""
    (images, channels), groups, rank = x.shape[:2], len(weight), len(places)
    index = _laid_out(numbers(x.shape), places)
    index = index.reshape(images, groups, channels // groups, *index.shape[2:])
    axes = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    spatial = tuple(len(p) for p in places)
    rows = c.moved(index.transpose(axes), x)
    shape = (groups, images, *spatial, weight.shape[2])
    dense = Dense(np.ascontiguousarray(weight), images * prod(spatial))
    if bias is not None:
        bias = bias.reshape(groups, *[1] * (rank + 1), -1)
    y = c.affine([rows], [dense], shape, bias)
    order = numbers(shape).transpose(1, 0, rank + 2, *range(2, rank + 2))
    return c.moved(order.reshape(images, -1, *spatial), y)


@reads("Conv")
def _conv(c: Context) -> Tensor:
    x, weight, groups = c.value(), c.weight(1), c.get("group", 1)
    if len(x.shape) != weight.ndim or x.shape[1] != weight.shape[1] * groups:
        raise InputError(f"a convolution of {x.shape} by {weight.shape}")
    places = [p for p, _, _ in _geometry(c, weight.shape[2:], x.shape[2:])]
    matrix = weight.reshape(groups, weight.shape[0] // groups, -1).swapaxes(1, 2)
    return _convolve(c, x, places, matrix, c.constant(2))


@reads("ConvTranspose")
def _conv_transpose(c: Context) -> Tensor:
    x, weight, groups = c.value(), c.weight(1), c.get("group", 1)
    kernel, rank = weight.shape[2:], weight.ndim - 2
    stride, dilation = c.get("strides", [1] * rank), c.get("dilations", [1] * rank)
    pads, extra = c.get("pads", [0] * 2 * rank), c.get("output_padding", [0] * rank)
    if c.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in c.call.attributes or x.shape[1] != len(weight):
        raise UnsupportedError("auto_pad and output_shape; export with explicit pads")
    places = []
    for i, (n, k, s, d) in enumerate(zip(x.shape[2:], kernel, stride, dilation, strict=True)):
        size = s * (n - 1) + extra[i] + d * (k - 1) + 1 - pads[i] - pads[rank + i]
        source = np.arange(size)[:, None] + pads[i] - np.arange(k) * d  # in steps of the stride
        places.append(np.where(source % s == 0, source // s, -1))
    split = weight.reshape(groups, -1, *weight.shape[1:])
    matrix = np.moveaxis(split, 2, -1).reshape(groups, -1, weight.shape[1])
    return _convolve(c, x, places, matrix, c.constant(2))


@reads("AveragePool")
def _average_pool(c: Context) -> Tensor:
    x, kernel = c.value(), c.get("kernel_shape")
    rank, factor = len(kernel), np.ones(())
    geometry = _geometry(c, kernel, x.shape[-rank:])
    for (places, first, end), n in zip(geometry, x.shape[-rank:], strict=True):
        low, high = (first, end) if c.get("count_include_pad", 0) else (0, n)
        factor = np.multiply.outer(factor, 1 / ((places >= low) & (places < high)).sum(1))
    index = _laid_out(numbers(x.shape), [p for p, _, _ in geometry])
    shape = index.shape[:-rank]
    return means(c, index.reshape(*shape, -1), factor, shape)


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
