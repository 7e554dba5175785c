"""Sums of products with a constant along some axes, and choices between operands, built as in `krelax.network.compose`.

A contraction is what an equation of Einstein's summation says: the axes of both operands have labels, and those that
the result does not have are summed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.activations import LeakyReLU, Max, ReLU
from krelax.errors import InputError, UnsupportedError
from krelax.network import products
from krelax.network.compose import (
    Operand,
    add,
    broadcast,
    concat,
    dense,
    negate,
    reduce_sum,
    reshape,
    scale_shift,
    stacked,
)
from krelax.network.constants import Constant
from krelax.network.graph import Builder
from krelax.network.ops import Take, Transpose, normal_axes


def transpose(builder: Builder, x: int, order: Sequence[int]) -> int:
    """`x` with its axes in another order; no node if that is the order they have."""
    return x if list(order) == list(range(len(order))) else builder.add(Transpose(tuple(order)), x)


def take(builder: Builder, x: int, places: NDArray[np.int64]) -> int:
    """Entries of the flattened `x` at `places`, in their shape; no more than a reshape if that is all of them in
    order."""
    if np.array_equal(places.reshape(-1), np.arange(prod(builder.shape(x)))):
        return reshape(builder, x, places.shape)
    return builder.add(Take(torch.from_numpy(np.ascontiguousarray(places))), x)


def contract(builder: Builder, x: int, labels: str, constant: Constant, others: str, result: str) -> int:
    """The contraction of `x`, whose axes are called `labels`, with a constant whose axes are called `others`.

    Axes of size one of either are repeated. Raises UnsupportedError for a label that an operand has twice.
    """
    if len(set(labels)) < len(labels) or len(set(others)) < len(others) or len(set(result)) < len(result):
        raise UnsupportedError("an axis that an operand has twice; take the diagonal when exporting")
    x, constant = _same_sizes(builder, x, labels, constant, others)
    only = [a for a, label in enumerate(labels) if label not in others and label not in result]
    x, labels = reduce_sum(builder, x, only, False) if only else x, _without(labels, only)
    lost = tuple(a for a, label in enumerate(others) if label not in labels and label not in result)
    total = constant.sum(lost).moved(lambda t: t.squeeze(lost)) if lost else constant
    others = _without(others, lost)
    free = [c for c in labels if c not in others]
    both, summed = (
        [c for c in labels if c in others and c in result],
        [c for c in labels if c not in free + list(result)],
    )
    new = [c for c in others if c not in labels]
    sizes = dict(zip(labels, builder.shape(x), strict=True)) | dict(zip(others, total.shape, strict=True))
    rows, stacks, inner, outputs = ([sizes[c] for c in part] for part in (free, both, summed, new))
    x = transpose(builder, x, [labels.index(c) for c in free + both + summed])
    weight = total.moved(lambda t: t.permute([others.index(c) for c in both + new + summed]))
    weight = weight.reshape(prod(stacks), prod(outputs), prod(inner))
    y = stacked(builder, reshape(builder, x, (prod(rows), prod(stacks), prod(inner))), weight)
    y = reshape(builder, y, (*rows, *stacks, *outputs))
    own = free + both + new
    return transpose(builder, y, [own.index(c) for c in result])


def _without(labels: str, axes: Sequence[int]) -> str:
    return "".join(label for a, label in enumerate(labels) if a not in axes)


def _same_sizes(builder: Builder, x: int, labels: str, constant: Constant, others: str) -> tuple[int, Constant]:
    """Both operands with axes of the same label of the same size."""
    shape, own = builder.shape(x), constant.shape
    if len(shape) != len(labels) or len(own) != len(others):
        raise InputError(f"operands of shapes {list(shape)} and {list(own)} for axes {labels} and {others}")
    sizes: dict[str, int] = {}
    for label, n in (*zip(labels, shape, strict=True), *zip(others, own, strict=True)):
        if n not in {1, sizes.get(label, n)} and sizes[label] != 1:
            raise InputError(f"operands of shapes {list(shape)} and {list(own)} do not fit along {label}")
        sizes[label] = max(n, sizes.get(label, n))
    whole = tuple(sizes[label] for label in others)
    return broadcast(builder, x, [sizes[label] for label in labels]), constant.expand(*whole)


def einsum(builder: Builder, equation: str, operands: Sequence[Operand]) -> int:
    """What an equation of Einstein's summation says of one node, of a node and a constant in either order, or of two
    nodes."""
    shapes = [o.shape if isinstance(o, Constant) else builder.shape(o) for o in operands]
    labels, result = _labels(equation, [len(s) for s in shapes])
    operands, labels = _paired_up(builder, *_without_diagonals(builder, operands, labels), result)
    nodes = [i for i, o in enumerate(operands) if not isinstance(o, Constant)]
    if len(operands) == 2 and isinstance(operands[0], int) and isinstance(operands[1], int):
        return products.contract(builder, operands[0], labels[0], operands[1], labels[1], result)
    if not nodes:
        raise UnsupportedError("a product of constants; compute it before")
    x, other = operands[nodes[0]], Constant.of(1.0) if len(operands) == 1 else operands[1 - nodes[0]]
    assert isinstance(x, int)
    assert isinstance(other, Constant)
    return contract(builder, x, labels[nodes[0]], other, "" if len(operands) == 1 else labels[1 - nodes[0]], result)


def _without_diagonals(
    builder: Builder, operands: Sequence[Operand], labels: Sequence[str]
) -> tuple[list[Operand], list[str]]:
    """Operands that have a label twice by their diagonals, which have it once."""
    found, named = [], []
    for operand, given in zip(operands, labels, strict=True):
        own = "".join(dict.fromkeys(given))
        if own != given:
            shape = operand.shape if isinstance(operand, Constant) else builder.shape(operand)
            sizes = [shape[given.index(label)] for label in own]
            if any(shape[i] != sizes[own.index(label)] for i, label in enumerate(given)):
                raise InputError(f"axes {given} of an operand of shape {list(shape)}")
            grid = np.indices(sizes)
            places = np.asarray(np.ravel_multi_index(tuple(grid[own.index(c)] for c in given), shape), np.int64)
            operand = choose(builder, [operand], places) if isinstance(operand, int) else operand.reshape(-1)[places]  # noqa: PLW2901
        found.append(operand)
        named.append(own)
    return found, named


def _paired_up(
    builder: Builder, operands: list[Operand], labels: list[str], result: str
) -> tuple[list[Operand], list[str]]:
    """At most two operands: the first two of more are multiplied, with the axes that are still needed."""
    while len(operands) > 2:
        later = result + "".join(labels[2:])
        kept = "".join(c for c in dict.fromkeys(labels[0] + labels[1]) if c in later)
        equation = f"{labels[0]},{labels[1]}->{kept}"
        first, second = operands[:2]
        if isinstance(first, Constant) and isinstance(second, Constant):
            product: Operand = _of_constants(first, labels[0], second, labels[1], kept)
        else:
            product = einsum(builder, equation, [first, second])
        operands, labels = [product, *operands[2:]], [kept, *labels[2:]]
    return operands, labels


def _of_constants(a: Constant, first: str, b: Constant, second: str, kept: str) -> Constant:
    every = kept + "".join(c for c in dict.fromkeys(first + second) if c not in kept)
    one, two = (_spread(x, labels, every) for x, labels in ((a, first), (b, second)))
    axes = tuple(range(len(kept), len(every)))
    return (one * two).sum(axes).moved(lambda t: t.squeeze(axes)) if axes else one * two


def _spread(x: Constant, labels: str, every: str) -> Constant:
    """With an axis for every label, of size one for those that it does not have."""
    x = x.moved(lambda t: t.permute([labels.index(c) for c in every if c in labels]))
    sizes = iter(x.shape)
    return x.reshape(*(next(sizes) if c in labels else 1 for c in every))


def _labels(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Labels of the axes of the operands and of the result; the axes of an ellipsis have letters of their own."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        raise InputError(f"equation {equation!r} for {len(ranks)} operands")
    hidden = [rank - len(part.replace("...", "")) for part, rank in zip(parts, ranks, strict=True)]
    if any((n and "..." not in part) or n < 0 for n, part in zip(hidden, parts, strict=True)):
        raise InputError(f"equation {equation!r} for operands of {', '.join(map(str, ranks))} axes")
    most = max(hidden)
    digits = [chr(ord("\u0100") + i) for i in range(most)]
    named = [p.replace("...", "".join(digits[most - n :])) for p, n in zip(parts, hidden, strict=True)]
    if not arrow:
        every = left.replace(",", "").replace(".", "")
        result = "".join(digits) + "".join(sorted(c for c in set(every) if every.count(c) == 1))
    result = result.replace("...", "".join(digits))
    if not set(result) <= set("".join(named)):
        raise InputError(f"equation {equation!r}, whose result has an axis that no operand has")
    return named, result


def along(builder: Builder, x: int, axis: int, weight: Constant) -> int:
    """The product of a matrix `(out, in)` with every vector along an axis of `x`."""
    rank = len(builder.shape(x))
    order = [*(a for a in range(rank) if a != axis), axis]
    y = dense(builder, transpose(builder, x, order), weight)
    return transpose(builder, y, [order.index(a) for a in range(rank)])


def prelu(builder: Builder, x: int, slope: Constant) -> int:
    """`x` where it is positive, and elsewhere `slope * x`: `slope * x + (1 - slope) * relu(x)`.

    One slope in [0, 1] for all entries is a leaky ReLU.
    """
    first = slope.value.reshape(-1)[:1]
    if slope.error is None and bool((slope.value == first).all()) and 0 <= first.item() <= 1:
        shape = np.broadcast_shapes(builder.shape(x), slope.shape)
        return builder.add(LeakyReLU(first.item()), broadcast(builder, x, shape))
    bent = scale_shift(builder, builder.add(ReLU(), x), Constant.of(1.0) - slope, None)
    return add(builder, scale_shift(builder, x, slope, None), bent)


def reduce_max(builder: Builder, x: int, axes: Sequence[int], keepdims: bool, sign: int = 1) -> int:
    """Largest entries over `axes`, for `sign` -1 the smallest ones (no axes at all leave `x`)."""
    shape = builder.shape(x)
    reduced = normal_axes(axes, len(shape)) if axes else ()
    kept = tuple(n for i, n in enumerate(shape) if i not in reduced)
    if prod(shape[a] for a in reduced) > 1:
        x = transpose(builder, x, [*(a for a in range(len(shape)) if a not in reduced), *reduced])
        x = reshape(builder, x, (*kept, prod(shape[a] for a in reduced)))
        x = builder.add(Max(), x) if sign > 0 else negate(builder, builder.add(Max(), negate(builder, x)))
    return reshape(builder, x, [1 if i in reduced else n for i, n in enumerate(shape)] if keepdims else kept)


def where(builder: Builder, mask: NDArray[np.bool_], x: Operand, y: Operand) -> int:
    """Entries of `x` where a constant mask is true, of `y` elsewhere; all three are broadcast."""
    shapes = [mask.shape, *(o.shape if isinstance(o, Constant) else builder.shape(o) for o in (x, y))]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        raise InputError(f"shapes {', '.join(map(str, shapes))} do not broadcast to one another") from None
    builder.require(2 * prod(shape))
    for kept, operand in ((mask, y), (~mask, x)):
        if isinstance(operand, Constant) and bool((operand.value == -inf).all()):
            zero = Constant.of(0.0)
            numbers = where(builder, mask, *((x, zero) if operand is y else (zero, y)))
            return builder.hide(numbers, np.broadcast_to(kept, shape))
    both = [o.expand(*shape) if isinstance(o, Constant) else broadcast(builder, o, shape) for o in (x, y)]
    return choose(builder, both, np.where(mask, 0, 1) * prod(shape) + np.arange(prod(shape)).reshape(shape))


def choose(builder: Builder, operands: Sequence[Operand], places: NDArray[np.int64]) -> int:
    """Entries of the flattened operands, one behind the other, at `places`, in their shape; constants that nothing
    takes are left out."""
    flat = [
        o.reshape(-1) if isinstance(o, Constant) else reshape(builder, o, (prod(builder.shape(o)),)) for o in operands
    ]
    joined = flat[0] if len(flat) == 1 else concat(builder, flat, 0)
    assert isinstance(joined, int)
    return take(builder, joined, places)
