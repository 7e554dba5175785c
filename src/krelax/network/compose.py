"""Operators that models have and krelax builds from simpler ones; every importer writes them through here.

Each function appends nodes to a `Builder` and returns the index of the last. Constants are float64 tensors,
shapes and axes are those of the nodes (without the evaluation batch), and broadcasting follows NumPy. What
cannot be built raises `UnsupportedError`; the importer, which knows the operator's name, adds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from krelax.errors import InputError, UnsupportedError
from krelax.network.activations import Max, ReLU
from krelax.network.graph import Builder
from krelax.network.linear import Add, Conv, Dense, Scale, Sum
from krelax.network.ops import Concat, Expand, Gather, Pad, Reshape, Shape, Take, Transpose, normal_axes

Operand = int | Tensor
"""A node of the builder, or a constant."""

# Exporters write this for "no bound"; as an offset it would swamp x.
_UNBOUNDED = float(np.finfo(np.float32).max)


def reshape(builder: Builder, x: int, shape: Sequence[int]) -> int:
    """`x` in another shape of the same size; no node if it has that shape already."""
    target = tuple(int(n) for n in shape)
    return x if builder.shape(x) == target else builder.add(Reshape(target), x)


def _joint_shape(*shapes: Shape) -> Shape:
    """The shape that all `shapes` broadcast to."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise InputError(f"shapes {', '.join(map(str, shapes))} do not broadcast to one another") from None


def broadcast(builder: Builder, x: int, shape: Sequence[int]) -> int:
    """`x` repeated to `shape`, to which it must broadcast; new axes come in front."""
    target = tuple(int(n) for n in shape)
    given = builder.shape(x)
    x = reshape(builder, x, (1,) * (len(target) - len(given)) + given)
    return x if builder.shape(x) == target else builder.add(Expand(target), x)


def take_slice(builder: Builder, x: int, axis: int, index: Sequence[int] | range | Tensor) -> int:
    """Entries `index` along `axis`; both may count from the end. No node if that is all of them in order."""
    axis %= len(builder.shape(x))
    size = builder.shape(x)[axis]
    places = torch.as_tensor(index if isinstance(index, Tensor) else list(index), dtype=torch.int64) % size
    if torch.equal(places, torch.arange(size)):
        return x
    return builder.add(Gather(axis, places), x)


def concat(builder: Builder, operands: Sequence[Operand], axis: int) -> int:
    """Operands joined along `axis`, at least one of them a node."""
    nodes = [o for o in operands if not isinstance(o, Tensor)]
    if len(nodes) == len(operands):
        return builder.add(Concat(axis), *nodes)
    shapes = [tuple(o.shape) if isinstance(o, Tensor) else builder.shape(o) for o in operands]
    shape = Concat(axis).shape(*shapes)
    shift = torch.zeros(shape, dtype=torch.float64)
    parts, start = [], 0
    for operand, size in zip(operands, (s[axis] for s in shapes), strict=True):
        if isinstance(operand, Tensor):
            shift.narrow(axis, start, size).copy_(operand)
        else:
            before, after = (
                [n if a == axis else 0 for a in range(len(shape))] for n in (start, shape[axis] - start - size)
            )
            parts.append(pad(builder, operand, before, after))
        start += size
    total = builder.add(Add((1,) * len(parts)), *parts) if len(parts) > 1 else parts[0]
    return scale_shift(builder, total, None, shift)


def scale_shift(builder: Builder, x: int, factor: Tensor | None, shift: Tensor | None) -> int:
    """`x * factor + shift`; `x` is repeated where a constant has a larger shape."""
    constants = [c for c in (factor, shift) if c is not None]
    if not constants:
        return x
    shape = _joint_shape(builder.shape(x), *(tuple(c.shape) for c in constants))
    return builder.add(Scale(factor, shift), broadcast(builder, x, shape))


def negate(builder: Builder, x: int) -> int:
    """`-x`."""
    return builder.add(Scale(torch.tensor(-1.0, dtype=torch.float64)), x)


def add(builder: Builder, a: Operand, b: Operand, sign: int = 1) -> int:
    """`a + sign * b` for `sign` +1 or -1; at least one operand is a node."""
    if isinstance(b, Tensor):
        return scale_shift(builder, _node(a), None, sign * b)
    if isinstance(a, Tensor):
        return scale_shift(builder, b if sign > 0 else negate(builder, b), None, a)
    shape = _joint_shape(builder.shape(a), builder.shape(b))
    branches = (broadcast(builder, a, shape), broadcast(builder, b, shape))
    return builder.add(Add((1, sign)), *branches)


def _node(operand: Operand) -> int:
    if isinstance(operand, Tensor):
        raise UnsupportedError("both operands are constants; fold them before importing")
    return operand


def maximum(builder: Builder, a: Operand, b: Operand) -> int:
    """Larger of two operands, elementwise: `b + relu(a - b)`."""
    if isinstance(a, Tensor):
        a, b = b, a
    return add(builder, builder.add(ReLU(), add(builder, a, b, -1)), b)


def minimum(builder: Builder, a: Operand, b: Operand) -> int:
    """Smaller of two operands, elementwise: `a - relu(a - b)`, or `b - relu(b - a)` for a constant `a`."""
    if isinstance(a, Tensor):
        a, b = b, a
    return add(builder, a, builder.add(ReLU(), add(builder, a, b, -1)), -1)


def absolute(builder: Builder, x: int) -> int:
    """`|x| = relu(x) + relu(-x)`."""
    return builder.add(Add((1, 1)), builder.add(ReLU(), x), builder.add(ReLU(), negate(builder, x)))


def clip(builder: Builder, x: int, low: float | None, high: float | None) -> int:
    """`min(max(x, low), high)`; None, an infinity or the largest float32 is no bound.

    The two ReLUs follow one another rather than being summed: the second then sees the bounds of what the first
    lets through, and every relaxation keeps `low <= clip(x) <= high`.
    """
    if high is not None and high < _UNBOUNDED and low is not None:
        low = min(low, high)  # the upper bound wins, as in ONNX and PyTorch
    if low is not None and low > -_UNBOUNDED:
        x = maximum(builder, x, torch.tensor(low, dtype=torch.float64))
    if high is not None and high < _UNBOUNDED:
        bound = torch.tensor(high, dtype=torch.float64)
        x = add(builder, bound, builder.add(ReLU(), add(builder, bound, x, -1)), -1)
    return x


def hard_sigmoid(builder: Builder, x: int, slope: float = 1 / 6, offset: float = 0.5) -> int:
    """`min(max(slope * x + offset, 0), 1)`."""
    constants = (torch.tensor(c, dtype=torch.float64) for c in (slope, offset))
    return clip(builder, scale_shift(builder, x, *constants), 0.0, 1.0)


def reduce_sum(builder: Builder, x: int, axes: Sequence[int], keepdims: bool) -> int:
    """Sum over `axes` (negative ones count from the end; none at all leaves `x`)."""
    shape = builder.shape(x)
    reduced = normal_axes(axes, len(shape)) if axes else ()
    if reduced:
        x = builder.add(Sum(reduced, prod(shape[a] for a in reduced)), x)
    kept = tuple(n for i, n in enumerate(builder.shape(x)) if keepdims or i not in reduced)
    return reshape(builder, x, kept)


def reduce_mean(builder: Builder, x: int, axes: Sequence[int], keepdims: bool) -> int:
    """Mean over `axes`."""
    total = reduce_sum(builder, x, axes, keepdims)
    count = prod(builder.shape(x)) / prod(builder.shape(total))
    return builder.add(Scale(torch.tensor(1 / count, dtype=torch.float64)), total)


def batch_norm(
    builder: Builder,
    x: int,
    *,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    eps: float,
) -> int:
    """Normalisation by fixed statistics, one per entry of axis 1; all constants are `(channels,)`."""
    factor = (var + eps).rsqrt() if weight is None else weight / (var + eps).sqrt()
    shift = -mean * factor if bias is None else bias - mean * factor
    channel = (-1, *[1] * (len(builder.shape(x)) - 2))
    return scale_shift(builder, x, factor.reshape(channel), shift.reshape(channel))


def matmul(builder: Builder, a: Operand, b: Operand) -> int:
    """Matrix product of a node and a constant matrix or vector, in either order."""
    if isinstance(b, Tensor):
        return _times(builder, _node(a), b)
    if not isinstance(a, Tensor):
        raise UnsupportedError(
            "product of two branches that both depend on the input; only products with constants are affine"
        )
    if len(builder.shape(b)) == 1:
        return _times(builder, b, a if a.dim() == 1 else a.mT)
    b = swap_last(builder, b)
    return _times(builder, b, a) if a.dim() == 1 else swap_last(builder, _times(builder, b, a.mT))


def swap_last(builder: Builder, x: int) -> int:
    """`x` with its last two axes exchanged."""
    rank = len(builder.shape(x))
    return builder.add(Transpose((*range(rank - 2), rank - 1, rank - 2)), x)


def _times(builder: Builder, x: int, constant: Tensor) -> int:
    """`x @ constant` for a vector, a matrix, or a matrix with leading axes of size one."""
    if constant.dim() == 1:
        product = builder.add(Dense(constant[None]), x)
        return reshape(builder, product, builder.shape(x)[:-1])
    if prod(constant.shape[:-2]) != 1:
        raise UnsupportedError(f"product with a stack of constant matrices, shape {tuple(constant.shape)}")
    product = builder.add(Dense(constant.reshape(constant.shape[-2:]).T.contiguous()), x)
    leading = max(0, constant.dim() - max(len(builder.shape(x)), 2))
    return reshape(builder, product, (1,) * leading + builder.shape(product))


def pad(builder: Builder, x: int, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> int:
    """`x` with `before` and `after` entries of `value` added on each axis; negative counts crop."""
    if not any(before) and not any(after):
        return x
    frame = torch.zeros(builder.shape(x), dtype=torch.float64)
    x = builder.add(Pad(tuple(before), tuple(after)), x)
    if value == 0:
        return x
    pairs = [int(p) for pair in zip(reversed(before), reversed(after), strict=True) for p in pair]
    return builder.add(Scale(None, F.pad(frame, pairs, value=value)), x)


def _pad_last(builder: Builder, x: int, before: Sequence[int], after: Sequence[int]) -> int:
    """Zero padding of the last axes, as many as `before` has."""
    lead = (0,) * (len(builder.shape(x)) - len(before))
    return pad(builder, x, (*lead, *before), (*lead, *after))


def convolution(
    builder: Builder,
    x: int,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> int:
    """Convolution of `(images, channels, *spatial)`; zeros are put `before` and `after` each axis."""
    padding = tuple(before)
    if padding != tuple(after):
        x = _pad_last(builder, x, before, after)
        padding = (0,) * len(padding)
    return builder.add(Conv(weight, bias, tuple(stride), padding, tuple(dilation), groups), x)


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

    def _starts(self, axis: int, size: int) -> NDArray[np.int64]:
        """First position of every window along one axis of `size` entries."""
        stride, before = self.stride[axis], self.before[axis]
        room = size + before + self.after[axis] - self.dilation[axis] * (self.kernel[axis] - 1) - 1
        count = (-(-room // stride) if self.ceil else room // stride) + 1
        if self.ceil and (count - 1) * stride >= size + before:
            count -= 1  # a window may not start in the padding behind
        if count < 1:
            raise UnsupportedError(f"pooling window larger than the padded axis of {size} entries")
        return np.arange(count) * stride - before


def max_pool(builder: Builder, x: int, window: Window) -> int:
    """Largest entry of each window over the last axes; padding never wins."""
    shape, rank = builder.shape(x), len(window.kernel)
    lead, spatial = shape[:-rank], shape[-rank:]
    axes = [_inside(p, n) for p, n in zip(window.places(spatial), spatial, strict=True)]
    flat = np.arange(prod(lead)).reshape(-1, 1)  # (windows, entries) over the axes so far
    for places, size in zip(axes, spatial, strict=True):
        grid = flat[:, None, :, None] * size + places[None, :, None, :]
        flat = grid.reshape(len(flat) * len(places), -1)
    index = torch.from_numpy(flat.reshape(*lead, *(len(p) for p in axes), -1))
    if index.shape[-1] == 1:
        return builder.add(Take(index[..., 0]), x)
    return builder.add(Max(), builder.add(Take(index), x))


def _inside(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Positions with those in the padding replaced by the window's first valid one, so the maximum stays."""
    valid = (places >= 0) & (places < size)
    _require_entries(valid)
    first = np.take_along_axis(places, valid.argmax(axis=1)[:, None], axis=1)
    return np.where(valid, places, first)


def _require_entries(valid: NDArray[np.bool_]) -> None:
    if not valid.any(axis=1).all():
        raise UnsupportedError("a pooling window lies wholly in the padding")


def average_pool(
    builder: Builder, x: int, window: Window, *, count_padding: bool = False, divisor: int | None = None
) -> int:
    """Mean of each window over the last axes (one to three).

    The mean is over the entries of `x`, with `count_padding` also over the padding asked for (never over what
    `ceil` adds); `divisor` replaces the number of entries.
    """
    shape, rank = builder.shape(x), len(window.kernel)
    lead, spatial = shape[:-rank], shape[-rank:]
    axes = window.places(spatial)
    # Windows overrun the padding (ceil) or stop short of it: pad or crop to exactly what they cover.
    reach = [int(p.max()) + 1 - n for p, n in zip(axes, spatial, strict=True)]
    x = _pad_last(builder, reshape(builder, x, (prod(lead), 1, *spatial)), window.before, reach)
    weight = torch.full((1, 1, *window.kernel), 1 / (divisor or prod(window.kernel)), dtype=torch.float64)
    x = builder.add(Conv(weight, None, window.stride, (0,) * rank, window.dilation), x)
    if divisor is None:
        counted = window.padded(spatial) if count_padding else [(0, n) for n in spatial]
        x = _recount(builder, x, axes, counted)
    return reshape(builder, x, (*lead, *(len(p) for p in axes)))


def _recount(builder: Builder, x: int, axes: Sequence[NDArray[np.int64]], counted: Sequence[tuple[int, int]]) -> int:
    """`x` times kernel size over the number of entries in the half-open `counted` range of each axis."""
    factor = np.ones(())
    for places, (first, end) in zip(axes, counted, strict=True):
        valid = (places >= first) & (places < end)
        _require_entries(valid)
        factor = np.multiply.outer(factor, places.shape[1] / valid.sum(axis=1))
    return x if (factor == 1).all() else scale_shift(builder, x, torch.from_numpy(factor), None)
