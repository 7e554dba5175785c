"""Normalisation by neighbours and by norms, pools by norms, samples of images, and overlapping blocks added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod

import numpy as np

from krelax.certificate.kernel.activations import Power, Square
from krelax.certificate.kernel.activations.power import Sqrt
from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.kernel.linear import Dense, Index
from krelax.certificate.onnx.activations import absolute, activation
from krelax.certificate.onnx.affine import ROUNDED, add, computed, scaled, summed
from krelax.certificate.onnx.contraction import contracted
from krelax.certificate.onnx.convolution import convolve, geometry
from krelax.certificate.onnx.curves import power_of
from krelax.certificate.onnx.operator import (
    FLAG,
    INTS,
    Attribute,
    Context,
    Tensor,
    Value,
    Wide,
    broadcast,
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
from krelax.certificate.onnx.products import products, reciprocal
from krelax.certificate.onnx.tensors import Shape
from krelax.errors import InputError, UnsupportedError

# Samples closer than this to halfway between two pixels may be taken for either.
_APART = 1e-4
# Runtimes make whole numbers of places, which overflow further away.
_FAR = 2.0**20


def _act(c: Context, x: Value, rule: Square | Sqrt | Power) -> Value:
    return activation(c, x, rule, x.shape)


@reads("LRN", forms=[form(7, 1, alpha=real(0.0001), beta=real(0.75), bias=real(1.0), size=integer(0))])
def _local_response(c: Context) -> Tensor:
    """`x / (bias + alpha / size * s) ** beta`, where s is the sum of squares over `size` channels around each."""
    x, size = c.value(), c.get("size")
    if len(x.shape) < 2 or size < 1:
        raise InputError(f"a normalisation by {size} channels of a tensor of shape {list(x.shape)}")
    channel, beta = np.arange(x.shape[1]), float(c.get("beta"))
    away = channel[None] - channel[:, None]
    near = np.asarray((away >= -((size - 1) // 2)) & (away <= size // 2), np.float64)
    labels = "".join(chr(ord("a") + i) for i in range(len(x.shape)))
    total = contracted(c, _act(c, x, Square()), labels, near, "Zb", labels.replace("b", "Z"))
    c.builder.only_real()
    share = computed(float(c.get("alpha")) / size, c.get("alpha") == 0)
    base = scaled(c, total, share, float(c.get("bias")), fuzz=ROUNDED)
    return x if beta == 0 else products(c, x, _inverse_power(c, base, beta))


def _inverse_power(c: Context, x: Value, exponent: float) -> Value:
    """As krelax has it, the reciprocal of a root at once."""
    return power_of(c, x, -exponent)


def _norm(c: Context, x: Value, order: float, total: Callable[[Value], Value]) -> Value:
    """The root of what `total` makes of powers of absolute values."""
    if not order >= 1:
        raise UnsupportedError(f"a norm of order {order:g}")
    c.builder.only_real()
    terms = x if order % 2 == 0 else absolute(c, x)
    return power_of(c, total(power_of(c, terms, order)), 1 / order)


@reads("GlobalLpPool", forms=[form(7, 1, p=integer(2))])
def _global_norm_pool(c: Context) -> Tensor:
    x = c.value()
    if len(x.shape) < 3:
        raise InputError(f"a pool of a tensor of shape {list(x.shape)}")
    shape = (*x.shape[:2], *[1] * (len(x.shape) - 2))
    return _norm(c, x, float(c.get("p")), lambda t: summed(c, t, list(range(2, len(x.shape))), shape))


_POOL = {"auto_pad": text("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), "kernel_shape": INTS, "pads": INTS,
         "strides": INTS, "p": integer(2)}  # fmt: skip


@reads("LpPool", forms=[form(7, 1, **_POOL), form(18, 1, **_POOL, ceil_mode=FLAG, dilations=INTS)])
def _norm_pool(c: Context) -> Tensor:
    x, kernel = c.value(), c.get("kernel_shape")
    if not kernel:
        raise InputError("no kernel_shape")
    places = [table for table, _, _ in geometry(c, kernel, x.shape)]
    ones = np.ones((x.shape[1], 1, 1, *kernel))
    return _norm(c, x, float(c.get("p")), lambda t: convolve(c, t, places, ones, None))


@reads("MeanVarianceNormalization", forms=[form(9, 1, axes=Attribute("ints", [0, 2, 3]))])
def _mean_variance(c: Context) -> Tensor:
    """Less the mean, divided by the deviation and 1e-9."""
    x = c.value()
    axes = normal_axes(c.get("axes"), len(x.shape), True)
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    centred = add(c, x, summed(c, x, sorted(axes), kept, True), -1)
    deviation = _act(c, summed(c, _act(c, centred, Square()), sorted(axes), kept, True), Sqrt())
    c.builder.only_real()
    return products(c, centred, reciprocal(c, scaled(c, deviation, 1.0, np.array(float(np.float32(1e-9))))))


@reads("RMSNormalization", forms=[form(23, 2, axis=integer(-1), epsilon=real(1e-5), stash_type=only(1))])
def _root_mean_square(c: Context) -> Tensor:
    x, weight, epsilon = c.value(), c.weight(1), float(c.get("epsilon"))
    (axis,) = normal_axes([c.get("axis")], len(x.shape), True)
    if broadcast(weight.shape, x.shape) != x.shape or epsilon < 0:
        raise InputError(f"a scale of shape {list(weight.shape)}, or a negative epsilon")
    kept = (*x.shape[:axis], *[1] * (len(x.shape) - axis))
    square = summed(c, _act(c, x, Square()), list(range(axis, len(x.shape))), kept, True)
    return scaled(c, products(c, x, _act(c, scaled(c, square, 1.0, epsilon), Power(-0.5))), weight)


_SAMPLES = {"align_corners": FLAG, "padding_mode": text("zeros", "border")}


@reads("GridSample", forms=[
    form(16, 2, **_SAMPLES, mode=text("bilinear", "nearest")), form(20, 2, **_SAMPLES, mode=text("linear", "nearest")),
])  # fmt: skip
def _samples(c: Context) -> Tensor:
    """Pixels by their shares, which are one less the distance, at constant places from -1 to 1, the column first."""
    x, grid = c.value(), c.weight(1)
    if len(x.shape) != 4 or grid.ndim != 4 or grid.shape[0] != x.shape[0] or grid.shape[-1] != 2:
        raise UnsupportedError(f"samples at places {list(grid.shape)} of a tensor of shape {list(x.shape)}")
    if (np.abs(grid) > _FAR).any():
        raise UnsupportedError(f"samples at places beyond {_FAR:g}, whose pixels have no number in every runtime")
    taps = [_taps(c, grid[..., 1 - k], n) for k, n in enumerate(x.shape[2:])]
    pixel, share, error = [], [], []
    for (row, by, off), (column, other, rest) in product(*taps):
        pixel.append(row * x.shape[3] + column)
        share.append(by * other)
        error.append(by * rest + other * off + off * rest + 2.0**-52 * by * other)
    lead = np.arange(prod(x.shape[:2])).reshape(*x.shape[:2], 1, 1, 1) * prod(x.shape[2:])
    taken = c.moved(lead + np.stack(pixel, -1)[:, None], x)
    errors = np.stack(error, -1)[:, None] * (1 + 2.0**-40)
    c.builder.only_real()
    parts = scaled(c, taken, Wide(np.stack(share, -1)[:, None], x.dtype, errors))
    return summed(c, parts, [4], parts.shape[:-1])


def _taps(c: Context, grid: Floats, n: int) -> list[tuple[Index, Floats, Floats]]:
    """Pixels along an axis, their shares, and the errors of those."""
    at = (grid + 1) * ((n - 1) / 2) if c.get("align_corners") else (grid + 1) * (n / 2) - 0.5
    error = 2.0**-50 * (np.abs(at) + n)
    if c.get("padding_mode") == "border":
        at = at.clip(0, n - 1)
    if c.get("mode") == "nearest":
        if (np.abs(at % 1 - 0.5) < _APART).any():
            raise UnsupportedError("samples halfway between two pixels, of which rounding chooses one")
        place = np.rint(at)
        inside = (place >= 0) & (place < n)
        return [(place.clip(0, n - 1).astype(np.int64), inside.astype(np.float64), np.zeros_like(at))]
    found: list[tuple[Index, Floats, Floats]] = []
    for step in (-1, 0, 1, 2):
        place = np.floor(at) + step
        inside = (place >= 0) & (place < n)
        share = np.maximum(1 - np.abs(at - place), 0)
        off = np.where(inside & (np.abs(at - place) < 1 + error), error, 0.0)
        if (share + off).any():
            found.append((place.clip(0, n - 1).astype(np.int64), share * inside, off))
    return found


_BLOCKS = {"dilations": INTS, "pads": INTS, "strides": INTS}


@reads("Col2Im", forms=[form(18, 3, **_BLOCKS)])
def _blocks(c: Context) -> Tensor:
    """`(images, channels * block, places)` to images: every entry of a block is added where it belongs."""
    x, image, block = c.value(), c.integers("", 1) or [], c.integers("", 2) or []
    rank = len(image)
    stride, dilation = (c.get(name) or [1] * rank for name in ("strides", "dilations"))
    pads = c.get("pads") or [0] * 2 * rank
    sizes = {len(block), len(stride), len(dilation), len(pads) // 2}
    if sizes != {rank} or rank not in {1, 2, 3} or len(pads) % 2 or min([*image, *block, *stride, *dilation]) < 1:
        raise InputError(f"blocks of shape {block} of an image of shape {image}")
    spans = zip(image, block, stride, dilation, pads[:rank], pads[rank:], strict=True)
    counts = [(n + b + a - d * (k - 1) - 1) // s + 1 for n, k, s, d, b, a in spans]
    if len(x.shape) != 3 or x.shape[1] % prod(block) or x.shape[2] != prod(counts):
        raise InputError(f"blocks of shape {block}, {counts} of them, of a tensor of shape {list(x.shape)}")
    whole = numbers(x.shape).reshape(x.shape[0], x.shape[1] // prod(block), *block, *counts)
    return _added(c, x, whole, (image, block, counts, stride, dilation, pads[:rank]))


def _added(c: Context, x: Value, whole: Index, spans: Sequence[Sequence[int]]) -> Value:
    """For each place in a block the entries that belong to a pixel, or none, side by side; and then their sums."""
    image, block, counts, stride, dilation, before = spans
    layers = []
    for offset in product(*(range(k) for k in block)):
        layer = np.moveaxis(whole, range(2, 2 + len(block)), range(len(block)))[tuple(offset)]
        for axis, (n, m, s, d, b, o) in enumerate(zip(image, counts, stride, dilation, before, offset, strict=True)):
            start = np.arange(n) + b - o * d
            fits = (start % s == 0) & (start >= 0) & (start // s < m)
            taken = layer.take(np.where(fits, start // s, 0), axis + 2)
            layer = np.where(fits.reshape([-1 if i == axis + 2 else 1 for i in range(layer.ndim)]), taken, -1)
        layers.append(layer)
    index = np.stack(layers, -1)
    check_size(index.shape)
    shape: Shape = index.shape[:-1]
    ones = Dense(np.ones((1, 1, 1, len(layers))), prod(shape))
    return c.affine([c.moved(index, x)], [ones], shape)
