"""Rounding to a grid, built as in `krelax.network.compose`: what quantised models are made of.

A grid has steps of a `scale`, its `zero` is a whole number, and its numbers go from `low` to `high`. It is rounded to
in real arithmetic: a runtime that computes the quotient in float32 may be on another side of a jump where it is as near
to one as that rounds. Bounds are right for either side of the jump itself.
"""

from __future__ import annotations

import torch

from krelax.activations import Quantise
from krelax.errors import InputError, UnsupportedError
from krelax.network.compose import scale_shift
from krelax.network.constants import Constant
from krelax.network.graph import Builder


def quantise(
    builder: Builder, x: int, scale: Constant, zero: Constant, limits: tuple[int, int], shifted: bool = False
) -> int:
    """Whole numbers `min(max(round(x / scale) + zero, low), high)`. Scales and zeros broadcast with `x`. If it is
    `shifted`, the zero is added before it is rounded, which matters where two numbers are as near."""
    check_scale(scale)
    low, high = map(float, limits)
    first = float(zero.value.reshape(-1)[0])
    if shifted:
        first = 0.0
    away = zero + Constant.of(-first)
    if not shifted and bool((away.value % 2 != 0).any()):
        raise UnsupportedError("zero points of channels that differ by odd numbers")
    shift = away if bool((away.value != 0).any()) else None
    z = scale_shift(builder, x, scale.reciprocal(), shift)
    found = builder.add(Quantise(low - first, high - first), z)
    return scale_shift(builder, found, None, Constant.of(first)) if first else found


def dequantise(builder: Builder, x: int, scale: Constant, zero: Constant) -> int:
    """`(x - zero) * scale`."""
    check_scale(scale)
    whole = scale_shift(builder, x, None, -zero) if bool((zero.value != 0).any()) else x
    return scale_shift(builder, whole, scale, None)


def on_grid(x: Constant, scale: Constant, zero: Constant, limits: tuple[int, int], shifted: bool = False) -> Constant:
    """The whole numbers of a constant, as `quantise` makes them."""
    check_scale(scale)
    quotient = x / scale
    found = rounded(quotient + zero) if shifted else rounded(quotient) + zero
    return Constant(found.value.clamp(*map(float, limits)))


def rounded(x: Constant) -> Constant:
    """The nearest whole numbers of a constant. Raises UnsupportedError where its error leaves two."""
    ends = [(x.value + side * x.errors()).round() for side in (-1, 1)]
    if not torch.equal(*ends):
        raise UnsupportedError("a computed constant halfway between two whole numbers; round it before exporting")
    return Constant(ends[0])


def check_scale(scale: Constant) -> None:
    """Raises InputError for a scale that is not positive."""
    if not bool((scale.value > scale.errors()).all()):
        raise InputError("quantisation to a grid whose scale is not positive")
