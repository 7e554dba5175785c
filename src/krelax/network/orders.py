"""Sorting, places of the largest, and products along an axis, built as in `krelax.network.compose`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from krelax.activations import ReLU, Step
from krelax.network.compose import add, concat, dense, reduce_sum, reshape, scale_shift, take_slice
from krelax.network.constants import Constant
from krelax.network.contractions import transpose
from krelax.network.graph import Builder
from krelax.network.products import multiply

_Pairs = list[tuple[int, int]]


def sorted_along(builder: Builder, x: int, axis: int, descending: bool) -> int:
    """The entries along an axis in order, by a network of comparisons: each pair becomes `b + relu(a - b)` and
    `a - relu(a - b)`.

    Reference: Batcher, "Sorting networks and their applications", 1968 (merging of odd and even places).
    """
    n = builder.shape(x)[axis]
    for pairs in comparisons(n):
        firsts, seconds = (np.array(side) for side in zip(*pairs, strict=True))
        others = np.setdiff1d(np.arange(n), [*firsts, *seconds])
        a, b = take_slice(builder, x, axis, firsts), take_slice(builder, x, axis, seconds)
        more = builder.add(ReLU(), add(builder, a, b, -1))
        large, small = add(builder, b, more), add(builder, a, more, -1)
        parts = [large, small] if descending else [small, large]
        parts += [take_slice(builder, x, axis, others)] if len(others) else []
        joined = concat(builder, parts, axis)
        x = take_slice(builder, joined, axis, np.argsort(np.concatenate([firsts, seconds, others])))
    return x


def comparisons(n: int) -> list[_Pairs]:
    """Rounds of disjoint pairs of places, which sort n entries if each pair is put in order, round after round."""
    return [pairs for p in _halves(n) for k in _steps(p) if (pairs := list(_round(n, p, k)))]


def _halves(n: int) -> Iterator[int]:
    p = 1
    while p < n:
        yield p
        p *= 2


def _steps(p: int) -> Iterator[int]:
    while p >= 1:
        yield p
        p //= 2


def _round(n: int, p: int, k: int) -> Iterator[tuple[int, int]]:
    for j in range(k % p, n - k, 2 * k):
        for i in range(min(k, n - j - k)):
            if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                yield i + j, i + j + k


def winners(builder: Builder, x: int, sign: int = 1, last: bool = False) -> int:
    """One where an entry is the largest along the last axis (the smallest for `sign` -1), zero elsewhere: of several
    the first, or the last. An entry is if it wins against all others."""
    shape = builder.shape(x)
    n = shape[-1]
    if n == 1:
        return scale_shift(builder, x, Constant.of(0.0), Constant.of(1.0))
    builder.require(2 * n * (n - 1))
    won = []
    for strictly in (True, False):  # against those that come first where entries are equal, and against the others
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j and (j < i) == (strictly != last)]
        mine, theirs = (take_slice(builder, x, len(shape) - 1, [pair[k] for pair in pairs]) for k in (0, 1))
        more, less = (mine, theirs) if sign > 0 else (theirs, mine)
        truths = builder.add(Step(0.0 if strictly else 1.0), add(builder, more, less, -1))
        count = torch.zeros(n, len(pairs), dtype=torch.float64)
        count[[i for i, _ in pairs], range(len(pairs))] = 1
        won.append(dense(builder, truths, Constant(count)))
    total = add(builder, won[0], won[1])
    return builder.add(ReLU(), scale_shift(builder, total, None, Constant.of(2.0 - n)))


def place_of_largest(builder: Builder, x: int, axis: int, keepdims: bool, sign: int = 1, last: bool = False) -> int:
    """The place of the largest entry along an axis, or of the smallest."""
    shape = builder.shape(x)
    order = [*(a for a in range(len(shape)) if a != axis), axis]
    won = winners(builder, transpose(builder, x, order), sign, last)
    places = Constant.of(torch.arange(float(shape[axis])))
    found = reduce_sum(builder, scale_shift(builder, won, places, None), [len(shape) - 1], False)
    kept = [1 if a == axis else n for a, n in enumerate(shape) if keepdims or a != axis]
    return reshape(builder, found, kept)


def product_over(builder: Builder, x: int, axes: Sequence[int], keepdims: bool) -> int:
    """Products over some axes, of halves of what is left again and again."""
    shape = builder.shape(x)
    for axis in axes:
        while (n := builder.shape(x)[axis]) > 1:
            half = n // 2
            pair = [take_slice(builder, x, axis, range(i * half, (i + 1) * half)) for i in (0, 1)]
            rest = [take_slice(builder, x, axis, [n - 1])] if n % 2 else []
            y = multiply(builder, *pair)
            x = concat(builder, [y, *rest], axis) if rest else y
    return reshape(builder, x, [1 if a in axes else n for a, n in enumerate(shape) if keepdims or a not in axes])


def cumulative_product(builder: Builder, x: int, axis: int) -> int:
    """Products of the first entries along an axis, for every number of them."""
    parts = [take_slice(builder, x, axis, [i]) for i in range(builder.shape(x)[axis])]
    for i in range(1, len(parts)):
        parts[i] = multiply(builder, parts[i - 1], parts[i])
    return concat(builder, parts, axis) if len(parts) > 1 else x
