"""More affine aten operators, and maxima and ReLUs made of what there is: they join `READERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.errors import UnsupportedError
from krelax.network import compose, products
from krelax.network import contractions as of
from krelax.network import interpolation as by
from krelax.network.compose import Operand
from krelax.network.composites import divide
from krelax.network.constants import Constant
from krelax.network.pooling import average_pool, max_over, max_pool
from krelax.network.torch_operators import adaptive_window, pool_rank, reads, scaled, window
from krelax.network.torch_reader import Call


@reads("amax", "amin")
def _amax(c: Call) -> int:
    axes = c["dim"] or range(len(c.input_shape))
    return of.reduce_max(c.builder, c.x, axes, c["keepdim"], 1 if c.name == "amax" else -1)


@reads("max", "min")
def _extremum(c: Call) -> int | list[int]:
    """Of all entries, along an axis (with their places, which are not read), or of two tensors."""
    sign = 1 if c.name == "max" else -1
    if "other" in c.arguments:
        pick = compose.maximum if sign > 0 else compose.minimum
        return pick(c.builder, *c.pair)
    if "dim" not in c.arguments:
        return of.reduce_max(c.builder, c.x, range(len(c.input_shape)), False, sign)
    return [of.reduce_max(c.builder, c.x, [c["dim"]], c["keepdim"], sign)]


@reads("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices")
def _max_pool(c: Call) -> list[int]:
    return [max_pool(c.builder, c.x, window(c))]


@reads("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(c: Call) -> list[int]:
    places = []
    for starts, ends in _parts(c):
        steps = starts[:, None] + np.arange(int((ends - starts).max()))
        places.append(np.where(steps < ends[:, None], steps, starts[:, None]))
    return [max_over(c.builder, c.x, places)]


@reads("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive_average_pool(c: Call) -> int:
    if (uniform := adaptive_window(c)) is not None:
        return average_pool(c.builder, c.x, uniform)
    x, rank = c.x, pool_rank(c)
    first = len(c.input_shape) - rank
    for axis, (starts, ends) in enumerate(_parts(c)):
        place = np.arange(c.input_shape[first + axis])
        inside = (place >= starts[:, None]) & (place < ends[:, None])
        share = Constant.of(torch.from_numpy(ends - starts)).reciprocal().reshape(-1, 1)
        x = of.along(c.builder, x, first + axis, Constant.of(torch.from_numpy(inside * 1.0)) * share)
    return x


def _parts(c: Call) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Where the windows of an adaptive pool begin and end, for every axis."""
    rank = pool_rank(c)
    pairs = zip(c.input_shape[-rank:], c.shape[-rank:], strict=True)
    return [(np.arange(m) * n // m, -(-(np.arange(m) + 1) * n // m)) for n, m in pairs]


@reads("rrelu")
def _rrelu(c: Call) -> int:
    """In evaluation mode the slope is the mean of its range."""
    if c["training"]:
        raise UnsupportedError("random slopes; krelax reads modules in evaluation mode")
    return of.prelu(c.builder, c.x, c.number((c["lower"] + c["upper"]) / 2))


@reads("cumsum", "diff")
def _along_axis(c: Call) -> int:
    axis = c["dim"] % len(c.input_shape)
    matrix = c.run(torch.eye(c.input_shape[axis], dtype=torch.float64), dim=0)
    return of.along(c.builder, c.x, axis, Constant.of(matrix))


@reads("trace")
def _trace(c: Call) -> int:
    n, m = c.input_shape
    diagonal = of.take(c.builder, c.x, np.arange(min(n, m)) * (m + 1))
    return compose.reduce_sum(c.builder, diagonal, [0], False)


@reads("tensordot")
def _tensordot(c: Call) -> int:
    ranks = [len(o.shape if isinstance(o, Constant) else c.builder.shape(o)) for o in c.pair]
    axes = [[a % rank for a in c[name]] for name, rank in zip(("dims_self", "dims_other"), ranks, strict=True)]
    left = [chr(ord("a") + i) for i in range(ranks[0])]
    right = [chr(ord("A") + i) for i in range(ranks[1])]
    for i, j in zip(*axes, strict=True):
        right[j] = left[i]
    kept = [x for i, x in enumerate(left) if i not in axes[0]] + [x for j, x in enumerate(right) if j not in axes[1]]
    return of.einsum(c.builder, f"{''.join(left)},{''.join(right)}->{''.join(kept)}", c.pair)


@reads("addmv", "addbmm")
def _added(c: Call) -> int:
    names = {"addbmm": ("batch1", "batch2"), "addmv": ("mat", "vec")}[c.name]
    product = products.matmul(c.builder, *(c.operand(name) for name in names))
    product = compose.reduce_sum(c.builder, product, [0], False) if c.name == "addbmm" else product
    return compose.add(c.builder, scaled(c, product, c["alpha"]), scaled(c, c.operand("self"), c["beta"]))


@reads("addcmul", "addcdiv")
def _addcmul(c: Call) -> int:
    a, b = c.operand("tensor1"), c.operand("tensor2")
    return compose.add(c.builder, c.operand("self"), scaled(c, _combined(c, a, b, c.name == "addcdiv"), c["value"]))


def _combined(c: Call, a: Operand, b: Operand, divided: bool = False) -> Operand:
    """A product or a quotient, of constants or not."""
    if isinstance(a, Constant) and isinstance(b, Constant):
        return a / b if divided else a * b
    return divide(c.builder, a, b) if divided else products.multiply(c.builder, a, b)


@reads("lerp")
def _lerp(c: Call) -> int:
    """`start + weight * (end - start)`."""
    start, end, weight = c.operand("self"), c.operand("end"), c.operand("weight")
    constant = isinstance(start, Constant) and isinstance(end, Constant)
    away = end - start if constant else compose.add(c.builder, end, start, -1)  # type: ignore[operator]
    return compose.add(c.builder, start, _combined(c, away, weight))


@reads("outer", "kron")
def _outer(c: Call) -> int:
    """Products of all entries of one operand with all of the other."""
    a, b = c.pair
    first, second = c.shape_of(a), c.shape_of(b)
    if c.name == "outer":
        left, right = [*first, 1], [1, *second]
    else:  # along every axis
        rank = max(len(first), len(second))
        left = [m for n in (*[1] * (rank - len(first)), *first) for m in (n, 1)]
        right = [m for n in (*[1] * (rank - len(second)), *second) for m in (1, n)]
    product = _combined(c, _reshaped(c, a, left), _reshaped(c, b, right))
    assert isinstance(product, int)
    return compose.reshape(c.builder, product, c.shape)


def _reshaped(c: Call, x: Operand, shape: Sequence[int]) -> Operand:
    return x.reshape(*shape) if isinstance(x, Constant) else compose.reshape(c.builder, x, shape)


_MATRICES: dict[str, Callable[[by.Axis, by.Positions], Constant]] = {
    "upsample_linear1d": by.linear,
    "upsample_bilinear2d": by.linear,
    "upsample_trilinear3d": by.linear,
    "upsample_bicubic2d": lambda axis, positions: by.cubic(axis, positions, Fraction(-3, 4)),
}


@reads(*_MATRICES)
def _upsample(c: Call) -> int:
    x, rank = c.x, len(c.input_shape) - 2
    factors: Any = c.arguments.get("scale_factors") or [c.arguments.get(n) for n in _factor_names(rank)]
    for place, (n, m, factor) in enumerate(zip(c.input_shape[2:], c.shape[2:], factors, strict=True), start=2):
        scale = Fraction(factor) if factor is not None and factor > 0 else Fraction(m, n)
        axis = by.Axis(n, m, scale)
        positions = by.align_corners(axis) if c["align_corners"] else by.half_pixel(axis)
        c.builder.require(n * m)
        x = of.along(c.builder, x, place, _MATRICES[c.name](axis, positions))
    return x


def _factor_names(rank: int) -> list[str]:
    """What the scales are called in operators that take them one by one."""
    return ["scales"] if rank == 1 else [f"scales_{axis}" for axis in "dhw"[-rank:]]
