"""Aten operators that sort, choose the largest, multiply along axes, or put entries at places: they join `READERS`."""

from __future__ import annotations

from typing import Any

import numpy as np

from krelax.errors import UnsupportedError
from krelax.network import compose, orders, scattered, spatial
from krelax.network.compose import Operand
from krelax.network.constants import Constant
from krelax.network.torch_operators import reads
from krelax.network.torch_reader import Branch, Call


@reads("prod")
def _product(c: Call) -> int:
    dim = c.arguments.get("dim")
    axes = range(len(c.input_shape)) if dim is None else [dim % len(c.input_shape)]
    return compose.reshape(c.builder, orders.product_over(c.builder, c.x, axes, False), c.shape)


@reads("cumprod")
def _cumulative_product(c: Call) -> int:
    return orders.cumulative_product(c.builder, c.x, c["dim"] % len(c.input_shape))


@reads("cummax", "cummin")
def _running(c: Call) -> list[int]:
    """The largest of the first entries along an axis, for every number of them."""
    axis, pick = c["dim"] % len(c.input_shape), compose.maximum if c.name == "cummax" else compose.minimum
    parts = [compose.take_slice(c.builder, c.x, axis, [i]) for i in range(c.input_shape[axis])]
    for i in range(1, len(parts)):
        parts[i] = pick(c.builder, parts[i - 1], parts[i])
    return [compose.concat(c.builder, parts, axis) if len(parts) > 1 else parts[0]]


@reads("sort", "topk", "kthvalue", "median", "nanmedian")
def _sorted(c: Call) -> int | list[int]:
    """Entries in order, or some of them; their places are not read."""
    if "dim" not in c.arguments:  # the median of all
        flat = compose.reshape(c.builder, c.x, (c.x_size,))
        ordered = orders.sorted_along(c.builder, flat, 0, False)
        return compose.reshape(c.builder, compose.take_slice(c.builder, ordered, 0, [(c.x_size - 1) // 2]), ())
    axis = c["dim"] % len(c.input_shape)
    ordered = orders.sorted_along(c.builder, c.x, axis, bool(c.arguments.get("descending", c.arguments.get("largest"))))
    n = c.input_shape[axis]
    if c.name == "sort":
        return [ordered]
    places = range(c["k"]) if c.name == "topk" else [c["k"] - 1 if c.name == "kthvalue" else (n - 1) // 2]
    taken = compose.take_slice(c.builder, ordered, axis, places)
    return [compose.reshape(c.builder, taken, c.shape)]


@reads("argmax", "argmin")
def _place(c: Call) -> int:
    sign, x, axis = 1 if c.name == "argmax" else -1, c.x, c["dim"]
    if axis is None:
        x, axis = compose.reshape(c.builder, x, (c.x_size,)), 0
    axis %= len(c.builder.shape(x))
    found = orders.place_of_largest(c.builder, x, axis, False, sign)
    return compose.reshape(c.builder, found, c.shape)


@reads("scatter_add", "index_add")
def _added(c: Call) -> int:
    x, axis = c.operand("self"), c["dim"]
    shape = c.shape_of(x)
    index: Any = c["index"]
    if isinstance(index, Branch):
        raise UnsupportedError("indices that depend on the input")
    axis %= len(shape)
    source = c.operand("src" if c.name == "scatter_add" else "source")
    places = index.numpy()
    if c.name == "index_add":
        wanted = c.shape_of(source)
        places = np.broadcast_to(places.reshape([-1 if a == axis else 1 for a in range(len(shape))]), wanted)
        source = _times(c, source, c["alpha"])
    elif places.shape != c.shape_of(source):
        raise UnsupportedError("more entries than places to add them at")
    return scattered.added(c.builder, x, scattered.places_of_elements(places, shape, axis), source)


def _times(c: Call, x: Operand, factor: float) -> Operand:
    if factor == 1:
        return x
    scale = c.number(factor)
    return x * scale if isinstance(x, Constant) else compose.scale_shift(c.builder, x, scale, None)


@reads("col2im")
def _blocks(c: Call) -> int:
    """Overlapping blocks added up in an image."""
    shape = c.input_shape
    x = compose.reshape(c.builder, c.x, (1,) * (3 - len(shape)) + tuple(shape))
    image, block, stride, padding, dilation = (
        c.sizes(name, 2) for name in ("output_size", "kernel_size", "stride", "padding", "dilation")
    )
    y = spatial.column_blocks(c.builder, x, image, block, stride, padding, padding, dilation)
    return compose.reshape(c.builder, y, c.shape)


@reads("grid_sampler", "grid_sampler_2d")
def _samples(c: Call) -> int:
    modes, paddings = {0: "bilinear", 1: "nearest", 2: "bicubic"}, {0: "zeros", 1: "border", 2: "reflection"}
    mode, padding = modes[c["interpolation_mode"]], paddings[c["padding_mode"]]
    return spatial.grid_sample(c.builder, c.x, c.constant("grid"), mode, padding, bool(c["align_corners"]))
