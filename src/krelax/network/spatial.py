"""Normalisation by neighbours, pools by norms, samples of images, and overlapping blocks added up, built as in
`krelax.network.compose`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from krelax.activations import Activation, Power, Reciprocal, ReciprocalSqrt, Sqrt, Square
from krelax.errors import InputError, UnsupportedError
from krelax.network.compose import absolute, pad, reduce_sum, reshape, scale_shift, transposed_convolution
from krelax.network.constants import Constant
from krelax.network.contractions import along, take
from krelax.network.graph import Builder
from krelax.network.products import multiply

# A sample is not next to halfway between two pixels if it is so far from there.
_APART = 1e-4
# Runtimes make whole numbers of places, which overflow further away.
_FAR = 2.0**20


def power_of(builder: Builder, x: int, exponent: float) -> int:
    """`x ** exponent` by the activation that it is; x itself for 1."""
    kinds: dict[float, Callable[[], Activation]] = {
        2.0: Square, 0.5: Sqrt, -1.0: Reciprocal, -0.5: ReciprocalSqrt,
    }  # fmt: skip
    if exponent == 1:
        return x
    if exponent == 0:
        return scale_shift(builder, x, Constant.of(0.0), Constant.of(1.0))
    return builder.add(kinds[exponent]() if exponent in kinds else Power(exponent), x)


def local_response(builder: Builder, x: int, size: int, alpha: Constant, beta: float, bias: float) -> int:
    """`x / (bias + alpha * s) ** beta`, where s is the sum of squares over `size` channels around each, which lie along
    the second axis."""
    channels = builder.shape(x)[1]
    place = torch.arange(channels)
    away = place[None] - place[:, None]
    near = ((away >= -((size - 1) // 2)) & (away <= size // 2)).double()
    total = along(builder, builder.add(Square(), x), 1, Constant(near))
    base = scale_shift(builder, total, alpha, Constant.of(bias))
    return x if beta == 0 else multiply(builder, x, power_of(builder, base, -beta))


def lp_norm(builder: Builder, x: int, p: float, total: Callable[[int], int]) -> int:
    """The p-th root of what `total` makes of the p-th powers of absolute values."""
    if not p >= 1:
        raise UnsupportedError(f"a norm of order {p:g}; those from 1 on are supported")
    terms = x if p % 2 == 0 else absolute(builder, x)
    return power_of(builder, total(power_of(builder, terms, p)), 1 / p)


def column_blocks(
    builder: Builder,
    x: int,
    image: Sequence[int],
    block: Sequence[int],
    stride: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    dilation: Sequence[int],
) -> int:
    """`(images, channels * block, places)` to `(images, channels, *image)`: blocks are added up where they are."""
    shape, rank = builder.shape(x), len(image)
    kernel = prod(block)
    if len(shape) != 3 or shape[1] % kernel:
        raise InputError(f"blocks of {kernel} entries of a tensor of shape {list(shape)}")
    spans = zip(image, block, stride, before, after, dilation, strict=True)
    counts = [(n + b + a - d * (k - 1) - 1) // s + 1 for n, k, s, b, a, d in spans]
    if prod(counts) != shape[2]:
        raise InputError(f"{shape[2]} blocks where an image of shape {list(image)} has {prod(counts)}")
    channels = shape[1] // kernel
    weight = torch.eye(kernel, dtype=torch.float64).reshape(kernel, 1, *block).repeat(channels, 1, *[1] * rank)
    laid_out = reshape(builder, x, (shape[0], shape[1], *counts))
    zeros = (0,) * rank
    whole = transposed_convolution(
        builder, laid_out, Constant(weight), None, stride=stride, padding=zeros, dilation=dilation,
        output_padding=zeros, groups=channels,
    )  # fmt: skip
    made = builder.shape(whole)[2:]
    rest = [n + b - m for n, b, m in zip(image, before, made, strict=True)]
    return pad(builder, whole, (0, 0, *(-b for b in before)), (0, 0, *rest))


def grid_sample(builder: Builder, x: int, grid: Constant, mode: str, padding: str, corners: bool) -> int:
    """Samples of images `(images, channels, height, width)` at constant places `(images, *places, 2)`, the column
    first, from -1 to 1."""
    shape, places = builder.shape(x), grid.shape
    if len(shape) != 4 or len(places) != 4 or places[0] != shape[0] or places[-1] != 2:
        raise UnsupportedError(f"samples at places {list(places)} of a tensor of shape {list(shape)}")
    if mode not in {"nearest", "linear", "bilinear"} or padding not in {"zeros", "border"}:
        raise UnsupportedError(f"samples of mode {mode} with padding {padding}; use bilinear with zeros or border")
    if bool((grid.value.abs() > _FAR).any()):
        raise UnsupportedError(f"samples at places beyond {_FAR:g}, whose pixels have no number in every runtime")
    taps = [
        _taps(_position(grid[..., 1 - k], n, corners), n, mode == "nearest", padding == "border")
        for k, n in enumerate(shape[2:])
    ]
    index, weight = [], []
    for row, share in taps[0]:
        for column, other in taps[1]:
            index.append(row * shape[3] + column)
            weight.append(share * other)
    flat = torch.stack(index, -1)[:, None]  # (images, 1, *places, taps)
    lead = torch.arange(shape[0] * shape[1]).reshape(*shape[:2], 1, 1, 1) * prod(shape[2:])
    taken = take(builder, x, (lead + flat).numpy().astype(np.int64))
    errors = torch.stack([w.errors() for w in weight], -1)[:, None]
    factor = Constant(torch.stack([w.value for w in weight], -1)[:, None], errors if bool(errors.any()) else None)
    return reduce_sum(builder, scale_shift(builder, taken, factor, None), [4], False)


def _position(grid: Constant, n: int, corners: bool) -> Constant:
    """Places from -1 to 1 as numbers of pixels."""
    moved = grid + Constant.of(1.0)
    half = Constant.of(0.5)
    return moved * Constant.of((n - 1) / 2) if corners else moved * Constant.of(n / 2) - half


def _taps(at: Constant, n: int, nearest: bool, border: bool) -> list[tuple[Tensor, Constant]]:
    """The pixels that samples along an axis are made of, and their shares."""
    if border:
        at = at.maximum(Constant.of(0.0)).minimum(Constant.of(n - 1.0))
    if nearest:
        if bool(((at.value % 1 - 0.5).abs() < _APART).any()):
            raise UnsupportedError("samples halfway between two pixels, of which rounding in float32 chooses one")
        first = at.value.round()
        return [_inside(first, Constant(torch.ones_like(first)), n)]
    first = at.value.floor()
    found = []
    for step in (-1, 0, 1, 2):  # the outer ones only where an error leaves open which are next
        share = (Constant.of(1.0) - abs(at - Constant(first + step))).relu()
        if bool((share.value + share.errors() > 0).any()):
            found.append(_inside(first + step, share, n))
    return found


def _inside(place: Tensor, share: Constant, n: int) -> tuple[Tensor, Constant]:
    """Pixels beyond the image have no share."""
    kept = (place >= 0) & (place < n)
    return place.clamp(0, n - 1).long(), share * Constant(kept.double())
