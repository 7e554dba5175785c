"""How much floating point can have changed a bound: a priori error bounds, valid for any order of summation.

A sum of n products computed in floating point differs from the exact one by at most `gamma_n * sum |products|` with
`gamma_n = n u / (1 - n u)` and u the unit roundoff, whatever the order and with or without fused operations (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1). Pushing those errors on to the values they multiply
gives one dot product per node: `gamma * <|coefficients|, magnitudes>`, where the magnitude of a node bounds the sum
of absolute terms in it. Products that underflow escape a relative bound. Where they are coefficients, `underflow` adds
what they can lose; where they are values that coefficients multiply, magnitudes do, to which `FLOOR` is added first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from krelax.problem.region import FLOOR, bounding, dot

__all__ = ["below", "bounding", "charge", "gamma", "gradual_underflow", "underflow"]

# Terms added for everything that is not a long sum: slopes, intercepts, scalar additions, and the rounding of the
# error bound itself.
_OVERHEAD = 64
# A margin for the rounding of magnitudes and of the error terms themselves.
_INFLATION = 1.01


def underflow(terms: int, magnitude: Tensor) -> Tensor:
    """What `terms` products, each too small to be represented, can lose against values of the given magnitudes.

    `magnitude` is `(batch, *shape)`, the result `(batch, 1)`. Subnormal numbers may be flushed to zero.
    """
    return 2 * terms * torch.finfo(magnitude.dtype).tiny * (1 + magnitude.flatten(1).sum(1, keepdim=True))


def gamma(terms: int, dtype: torch.dtype) -> float:
    """Relative error of a sum of `terms` products in `dtype`, with room for the short operations around it."""
    unit = torch.finfo(dtype).eps / 2
    share = (terms + _OVERHEAD) * unit
    if share >= 0.5:  # float32 and millions of terms: no bound
        return float("inf")
    return _INFLATION * share / (1 - share)


def charge(coeff: Tensor, magnitude: Tensor, terms: int) -> Tensor:
    """What rounding can change of `<coeff, node>`, `(batch, queries)`, for a node whose entries are made of at most
    `terms` terms with absolute sums of at most `magnitude`, `(batch, *shape)`; products in those may underflow, too."""
    return gamma(terms, coeff.dtype) * dot(coeff.abs(), (magnitude + FLOOR).unsqueeze(1))


@contextmanager
def gradual_underflow() -> Iterator[None]:
    """This thread computes with subnormal numbers, as everything charged for rounding supposes.

    A program may have told its processor to take them for zero, as `torch.set_flush_denormal` and libraries compiled
    for speed do. Threads started inside inherit what holds here. On GPUs double precision always has them.
    """
    flushes = sys.float_info.min / 2 == 0
    if flushes:
        torch.set_flush_denormal(False)
    try:
        yield
    finally:
        if flushes:
            torch.set_flush_denormal(True)


def below(values: Tensor) -> Tensor:
    """The nearest float32 numbers that are not larger."""
    near = values.float()
    down = torch.nextafter(near, near.new_tensor(-torch.inf))
    return torch.where(near.double() > values, down, near)


def written(values: Tensor) -> Tensor:
    """The numbers that are written down for these, in their type: the nearest of float32; beyond its range themselves.

    What is proven with them is what somebody who reads them can prove.
    """
    near = values.float().to(values.dtype)
    return torch.where(near.isinf(), values, near)
