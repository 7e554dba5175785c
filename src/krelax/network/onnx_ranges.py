"""What the narrower element types of ONNX hold: whole numbers up to their ends, and those of half precision."""

from __future__ import annotations

from math import prod

import torch

from krelax.activations import Quantise
from krelax.errors import UnsupportedError
from krelax.network.compose import broadcast, concat, dense, reshape, scale_shift
from krelax.network.constants import Constant
from krelax.network.graph import Builder
from krelax.network.linear import Within
from krelax.network.onnx_reader import FLOATS, Kind
from krelax.network.onnx_schema import kind_name

# The least and the largest number that is let pass of every type. Of the largest types fewer numbers are, which floats
# can tell apart.
ENDS: dict[int, tuple[float, float]] = {
    **{getattr(Kind, f"INT{n}"): (-(2.0 ** (n - 1)), 2.0 ** (n - 1) - 1) for n in (8, 16, 32)},
    **{getattr(Kind, f"UINT{n}"): (0.0, 2.0**n - 1) for n in (8, 16, 32)},
    Kind.INT64: (-(2.0**62), 2.0**62),
    Kind.UINT64: (0.0, 2.0**32 - 1),
}
# Floating-point types, and those of numbers that they hold.
_HELD: dict[int, set[int]] = {
    Kind.FLOAT16: {Kind.BOOL, Kind.INT8, Kind.UINT8},
    Kind.BFLOAT16: {Kind.BOOL, Kind.INT8, Kind.UINT8},
    Kind.FLOAT: {Kind.FLOAT16, Kind.BFLOAT16},
    Kind.DOUBLE: {Kind.FLOAT16, Kind.BFLOAT16, Kind.FLOAT},
}
_LARGEST_HALF = 65504.0
# The least normal number of float16 is two to the first of these; each interval from one power of two to the next has
# so many numbers.
_FIRST, _LAST, _NUMBERS = -14, 15, 1024.0
_MOST_HALVES = 1 << 16


def holds(kind: int, source: int) -> bool:
    """Whether a type has all numbers of another one, but for what is lost of large whole numbers in float32, which is
    rounding like that of any operator."""
    if kind in FLOATS:
        return source in _HELD[kind] or (source not in FLOATS and kind in {Kind.FLOAT, Kind.DOUBLE})
    if source == Kind.BOOL:
        return True
    if kind not in ENDS or source not in ENDS:
        return False
    (low, high), (least, most) = ENDS[kind], ENDS[source]
    return low <= least and most <= high


def within(builder: Builder, x: int, kind: int) -> int:
    """Whole numbers `x` that are computed in a type, of which no bound is known where it might not hold them."""
    if kind not in ENDS:
        raise UnsupportedError(f"arithmetic of {kind_name(kind)}")
    low, high = ENDS[kind]
    middle = Constant.of((low + high) / 2)
    moved = scale_shift(builder, x, None, -middle) if middle.value else x
    # a quarter more, which no whole number needs, is for the rounding of bounds
    kept = builder.add(Within((high - low) / 2 + 0.25), moved)
    return scale_shift(builder, kept, None, middle) if middle.value else kept


def within_half(builder: Builder, x: int) -> int:
    """Numbers that float16 has no infinity for, up to rounding; of others nothing is known."""
    return builder.add(Within(_LARGEST_HALF), x)


def to_half(builder: Builder, x: int) -> int:
    """The nearest numbers of float16, of two the even one: numbers of a grid between one power of two and the next, and
    in all other intervals one of their ends, which add up to it."""
    shape, count = builder.shape(x), _LAST - _FIRST + 1
    if prod(shape) * (2 * count + 1) > _MOST_HALVES:
        raise UnsupportedError(f"a cast of {prod(shape)} numbers to float16, which rounds; let it compute in float32")
    x = reshape(builder, within_half(builder, x), (*shape, 1))
    steps = 2.0 ** torch.arange(_FIRST - 10, _LAST - 9, dtype=torch.float64)
    large = scale_shift(builder, broadcast(builder, x, (*shape, count)), Constant(1 / steps), None)
    above = builder.add(Quantise(_NUMBERS, 2 * _NUMBERS), large)
    below = builder.add(Quantise(-2 * _NUMBERS, -_NUMBERS), large)
    small = builder.add(Quantise(-_NUMBERS, _NUMBERS), scale_shift(builder, x, Constant(1 / steps[:1]), None))
    parts = concat(builder, [small, above, below], len(shape))
    weight = Constant(torch.cat([steps[:1], steps, steps])[None])
    return reshape(builder, dense(builder, parts, weight), shape)
