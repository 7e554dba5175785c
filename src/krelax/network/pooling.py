"""Pools: the largest or the mean entry of windows over the last axes. Built as in `krelax.network.compose`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.activations import Max
from krelax.errors import InputError, UnsupportedError
from krelax.network.compose import convolution, pad_last, reshape, scale_shift
from krelax.network.constants import Constant
from krelax.network.graph import Builder
from krelax.network.ops import Take
from krelax.op import Shape


@dataclass(frozen=True)
class Window:
    """How a pooling window moves: one number for each pooled axis, which are the last axes of the operand."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil: bool = False

    def places(self, shape: Shape) -> list[NDArray[np.int64]]:
        """For each axis, the position on it of every entry of every window, `(windows, kernel)`.

        Positions outside the axis lie in the padding.
        """
        starts = (self._starts(axis, size) for axis, size in enumerate(shape))
        steps = (np.arange(k) * d for k, d in zip(self.kernel, self.dilation, strict=True))
        return [start[:, None] + step for start, step in zip(starts, steps, strict=True)]

    def padded(self, shape: Shape) -> list[tuple[int, int]]:
        """Half-open range of positions of each axis with its padding."""
        return [(-b, n + a) for n, b, a in zip(shape, self.before, self.after, strict=True)]

    def count(self, axis: int, size: int) -> int:
        """How many windows there are along one axis of `size` entries."""
        stride, before = self.stride[axis], self.before[axis]
        room = size + before + self.after[axis] - self.dilation[axis] * (self.kernel[axis] - 1) - 1
        count = (-(-room // stride) if self.ceil else room // stride) + 1
        if self.ceil and (count - 1) * stride >= size + before:
            count -= 1  # a window may not start in the padding behind
        if count < 1:
            raise InputError(f"pooling window larger than the padded axis of {size} entries")
        return count

    def _starts(self, axis: int, size: int) -> NDArray[np.int64]:
        """First position of every window along one axis of `size` entries."""
        return np.arange(self.count(axis, size)) * self.stride[axis] - self.before[axis]


def max_pool(builder: Builder, x: int, window: Window) -> int:
    """Largest entry of each window over the last axes; padding never wins."""
    shape, rank = builder.shape(x), len(window.kernel)
    lead, spatial = shape[:-rank], shape[-rank:]
    _require_room(builder, lead, spatial, window)
    return max_over(builder, x, [_inside(p, n) for p, n in zip(window.places(spatial), spatial, strict=True)])


def max_over(builder: Builder, x: int, axes: Sequence[NDArray[np.int64]]) -> int:
    """Largest entry of each window over the last axes, which is at the places `(windows, kernel)` of every axis."""
    shape, rank = builder.shape(x), len(axes)
    lead, spatial = shape[:-rank], shape[-rank:]
    flat = np.arange(prod(lead)).reshape(-1, 1)  # (windows, entries) over the axes so far
    for places, size in zip(axes, spatial, strict=True):
        grid = flat[:, None, :, None] * size + places[None, :, None, :]
        flat = grid.reshape(len(flat) * len(places), -1)
    index = torch.from_numpy(flat.reshape(*lead, *(len(p) for p in axes), -1))
    if index.shape[-1] == 1:
        return builder.add(Take(index[..., 0]), x)
    return builder.add(Max(), builder.add(Take(index), x))


def _require_room(builder: Builder, lead: Shape, spatial: Shape, window: Window) -> None:
    """Raises InputError for more windows, or larger ones, than there is room for."""
    counts = [window.count(axis, size) for axis, size in enumerate(spatial)]
    builder.require(prod(lead) * prod(counts) * prod(window.kernel))


def _inside(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Positions with those in the padding replaced by the window's first valid one, so the maximum stays."""
    valid = (places >= 0) & (places < size)
    _require_entries(valid)
    first = np.take_along_axis(places, valid.argmax(axis=1)[:, None], axis=1)
    return np.where(valid, places, first)


def _require_entries(valid: NDArray[np.bool_]) -> None:
    if not valid.any(axis=1).all():
        raise UnsupportedError("a pooling window that lies wholly in the padding")


def average_pool(
    builder: Builder, x: int, window: Window, *, count_padding: bool = False, divisor: int | None = None
) -> int:
    """Mean of each window over the last axes (one to three).

    The mean is over the entries of `x`, with `count_padding` also over the padding asked for (never over what
    `ceil` adds); `divisor` replaces the number of entries.
    """
    shape, rank = builder.shape(x), len(window.kernel)
    lead, spatial = shape[:-rank], shape[-rank:]
    _require_room(builder, lead, spatial, window)
    axes = window.places(spatial)
    # Windows overrun the padding (ceil) or stop short of it: pad or crop to exactly what they cover.
    reach = [int(p.max()) + 1 - n for p, n in zip(axes, spatial, strict=True)]
    x = pad_last(builder, reshape(builder, x, (prod(lead), 1, *spatial)), window.before, reach)
    if divisor is None:
        counts = _counts(axes, window.padded(spatial) if count_padding else [(0, n) for n in spatial])
    else:
        counts = np.full((), divisor)
    share = Constant.of(torch.from_numpy(counts)).reciprocal()
    # one number of entries: in the kernel; several: after it
    uniform = counts.size > 0 and bool((counts == counts.flat[0]).all())
    kernel = share.reshape(-1)[:1] if uniform else Constant.of(torch.ones(1, dtype=torch.float64))
    weight = kernel.reshape(*[1] * (rank + 2)).expand(1, 1, *window.kernel)
    zeros = (0,) * rank
    x = convolution(builder, x, weight, None, stride=window.stride, before=zeros, after=zeros, dilation=window.dilation)
    x = x if uniform else scale_shift(builder, x, share, None)
    return reshape(builder, x, (*lead, *(len(p) for p in axes)))


def _counts(axes: Sequence[NDArray[np.int64]], counted: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """For every window how many of its entries lie in the half-open `counted` range of each axis."""
    result = np.ones((), dtype=np.int64)
    for places, (first, end) in zip(axes, counted, strict=True):
        valid = (places >= first) & (places < end)
        _require_entries(valid)
        result = np.multiply.outer(result, valid.sum(axis=1))
    return result
