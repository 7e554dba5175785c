"""Nodes of a network as affine functions of its inputs, in exact numbers, where activations have their pieces fixed."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.network.graph import Network
from krelax.network.linear import Within
from krelax.network.ops import Linear, one_hot

# Entries of a matrix that is written out.
MOST_ENTRIES = 40_000
_MOST_BITS = 1500


class TooLarge(Exception):
    """What cannot be written out in exact numbers, or would take too long."""


@dataclass(frozen=True, eq=False)
class Forms:
    """Functions `(rows[:, :-1] @ x + rows[:, -1]) * 2**exponent`; `rows`, `(functions, inputs + 1)`, are integers."""

    rows: NDArray[Any]
    exponent: int

    def row(self, number: int) -> tuple[dict[int, Fraction], Fraction]:
        """The factors of one function, and its constant."""
        scale = Fraction(2) ** self.exponent
        *factors, constant = self.rows[number]
        return {i: factor * scale for i, factor in enumerate(factors) if factor}, constant * scale


def integers(numbers: NDArray[np.float64]) -> tuple[NDArray[Any], int]:
    """Numbers as integers times a power of two. Raises TooLarge where these would be huge."""
    mantissas, exponents = np.frexp(numbers)
    used = exponents[numbers != 0]
    least = int(used.min()) - 53 if used.size else 0
    if used.size and int(used.max()) - least > _MOST_BITS:
        raise TooLarge
    whole = (mantissas * 2.0**53).astype(np.int64).astype(object)
    return whole * np.array([1 << max(int(e) - 53 - least, 0) for e in exponents.flat], object).reshape(
        whole.shape
    ), least


def inputs(count: int) -> Forms:
    """The inputs themselves."""
    rows = np.zeros((count, count + 1), dtype=object)
    rows[:, :count] = np.eye(count, dtype=np.int64).astype(object)
    return Forms(rows, 0)


def matrices(network: Network, node: int) -> list[tuple[NDArray[Any], int]]:
    """The matrix of an affine node for each of its inputs, and the column of its constant, as integers.

    A column is what the operator makes of a unit vector: products with one and sums with zeros, which are exact.
    Raises TooLarge for those that are not exactly the model's, or have too many entries. Of a `Within` it is right up
    to its limit.
    """
    op, size = network.nodes[node].op, prod(network.nodes[node].shape)
    if not isinstance(op, Linear) or not (op.is_exact or isinstance(op, Within)):
        raise TooLarge
    shapes = [network.nodes[i].shape for i in network.nodes[node].inputs]
    if size * max(map(prod, shapes)) > MOST_ENTRIES:
        raise TooLarge
    result = []
    zeros = [torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes]
    for place, shape in enumerate(shapes):
        unit = one_hot(torch.arange(prod(shape)), shape, torch.float64)
        given = [unit if i == place else z.expand(len(unit), *z.shape[1:]) for i, z in enumerate(zeros)]
        result.append(integers(op.linear(*given).reshape(len(unit), size).T.numpy()))
    bias = op.constant()
    shift = torch.zeros(size, dtype=torch.float64) if bias is None else bias.expand(network.nodes[node].shape).flatten()
    result.append(integers(shift.numpy().reshape(size, 1)))
    return result


def applied(found: list[tuple[NDArray[Any], int]], given: list[Forms]) -> Forms:
    """An affine node of forms, by its matrices."""
    *parts, (shift, exponent) = found
    pieces = [(matrix.dot(forms.rows), by + forms.exponent) for (matrix, by), forms in zip(parts, given, strict=True)]
    column = np.zeros_like(pieces[0][0])
    column[:, -1:] = shift
    pieces.append((column, exponent))
    least = min(by for _, by in pieces)
    if max(by for _, by in pieces) - least > 2 * _MOST_BITS:
        raise TooLarge
    total = sum(rows * (1 << (by - least)) for rows, by in pieces)
    return Forms(np.asarray(total, dtype=object), least)
