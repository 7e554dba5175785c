"""Sums of products with constants over some axes: matrix products, cumulative sums, Einstein's summation."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.kernel.linear import Dense
from krelax.certificate.onnx.affine import ROUNDED, counted, held, matrix, moved
from krelax.certificate.onnx.operator import (
    FLAG,
    MANY,
    Attribute,
    Context,
    Tensor,
    Value,
    broadcast,
    check_size,
    form,
    normal_axes,
    numbers,
    reads,
)
from krelax.certificate.onnx.products import contracted as of_two
from krelax.certificate.onnx.products import of_matrices
from krelax.certificate.onnx.tensors import Shape
from krelax.errors import InputError, UnsupportedError


@reads("MatMul", forms=[form(7, 2)])
def _matmul(c: Context) -> Tensor:
    a, b = c.given(0), c.given(1)
    if isinstance(a, Value) and isinstance(b, Value):
        return of_matrices(c, a, b)
    first = isinstance(c.given(0), Value)
    x, weight = (c.value(0), c.factor(1)) if first else (c.value(1), c.factor(0))
    if len(weight.shape) > 2:
        return _each(c, x, weight, first)
    if first:
        return _stacked(c, x, weight)
    turned_weight = moved(weight, lambda w: w.T)
    if len(x.shape) < 2:
        return _stacked(c, x, turned_weight)
    turned = _stacked(c, c.moved(numbers(x.shape).swapaxes(-1, -2), x), turned_weight)
    return turned if len(weight.shape) == 1 else c.moved(numbers(turned.shape).swapaxes(-1, -2), turned)


def _stacked(c: Context, x: Value, weight: Any) -> Value:
    """`x @ weight`; a vector is a matrix of one column, an axis that the product does not have."""
    if len(weight.shape) != 1:
        return matrix(c, x, weight)
    y = matrix(c, x, moved(weight, lambda w: w[:, None]))
    return Value(y.node, y.shape[:-1], y.dtype)


def _each(c: Context, x: Value, weight: Any, first: bool) -> Value:
    """A product with a stack of constant matrices; the axes before the last two are broadcast."""
    left, right = (x.shape, weight.shape) if first else (weight.shape, x.shape)
    if not left or not right or left[-1] != right[-2 if len(right) > 1 else -1]:
        raise InputError(f"a product of shapes {list(left)} and {list(right)}")
    lead = "".join(chr(ord("a") + i) for i in range(max(len(left), len(right)) - 2))
    rows, columns = "X"[: len(left) - 1], "Z"[: len(right) - 1]
    first_labels = lead[len(lead) - max(len(left) - 2, 0) :] + rows + "Y"
    second_labels = lead[len(lead) - max(len(right) - 2, 0) :] + "Y" + columns
    own, other = (first_labels, second_labels) if first else (second_labels, first_labels)
    return contracted(c, x, own, weight, other, lead + rows + columns)


@reads("CumSum", forms=[form(11, 2, exclusive=FLAG, reverse=FLAG)])
def _cumulative(c: Context) -> Tensor:
    given = c.constant(1, np.dtype(np.int64), np.dtype(np.int32))
    if given is None or given.size != 1:
        raise InputError("no axis")
    (axis,) = normal_axes([int(given.item())], len(c.shape(0)), True)
    plain = c.operand(0)
    if not isinstance(plain, Value) and plain.dtype.kind in "iu":
        return _of_integers(c, plain, axis)
    x = c.value()
    n = x.shape[axis]
    check_size((n, n))
    row, column = np.indices((n, n))
    before = row - column if not c.get("reverse") else column - row
    matrix = np.asarray(before > 0 if c.get("exclusive") else before >= 0, np.float64)
    labels = "".join(chr(ord("a") + i) for i in range(len(x.shape)))
    return contracted(c, x, labels, matrix, f"Z{labels[axis]}", labels.replace(labels[axis], "Z"))


def _of_integers(c: Context, x: NDArray[Any], axis: int) -> Tensor:
    turned = np.flip(x.astype(object), axis) if c.get("reverse") else x.astype(object)
    sums = np.cumsum(turned, axis) - (turned if c.get("exclusive") else 0)
    return held(np.asarray(np.flip(sums, axis) if c.get("reverse") else sums, object), x.dtype)


@reads("Einsum", forms=[form(12, 1, MANY, equation=Attribute("string"))])
def _einsum(c: Context) -> Tensor:
    """The first two operands of more are multiplied, with the axes that are still needed, again and again."""
    parts, result = _labels(c.get("equation") or "", [len(c.shape(i)) for i in range(len(c.operands))])
    operands: list[Value | Floats] = []
    for i, labels in enumerate(parts):
        x, parts[i] = _diagonal(c, c.value(i) if isinstance(c.operand(i), Value) else c.weight(i), labels)
        operands.append(x)
    while len(operands) > 2:
        later = result + "".join(parts[2:])
        kept = "".join(label for label in dict.fromkeys(parts[0] + parts[1]) if label in later)
        product = _multiplied(c, operands[0], parts[0], operands[1], parts[1], kept)
        operands, parts = [product, *operands[2:]], [kept, *parts[2:]]
    if len(operands) == 1:
        operands, parts = [*operands, np.ones(())], [*parts, ""]
    return _multiplied(c, operands[0], parts[0], operands[1], parts[1], result)


def _diagonal(c: Context, x: Value | Floats, labels: str) -> tuple[Any, str]:
    """An operand that has a label twice by its diagonal, which has it once."""
    own = "".join(dict.fromkeys(labels))
    if own == labels:
        return x, labels
    sizes = [x.shape[labels.index(label)] for label in own]
    if any(n != sizes[own.index(label)] for n, label in zip(x.shape, labels, strict=True)):
        raise InputError(f"axes {labels} of an operand of shape {list(x.shape)}")
    grid = np.indices(sizes)
    places = tuple(grid[own.index(label)] for label in labels)
    return (c.moved(numbers(x.shape)[places], x) if isinstance(x, Value) else x[places]), own


def _multiplied(c: Context, a: Value | Floats, first: str, b: Value | Floats, second: str, result: str) -> Value:
    """Sums of products of two operands, of which one at least is a value."""
    if isinstance(a, Value):
        return (
            of_two(c, a, first, b, second, result)
            if isinstance(b, Value)
            else contracted(c, a, first, b, second, result)
        )
    if isinstance(b, Value):
        return contracted(c, b, second, a, first, result)
    raise UnsupportedError("a product of constants beside others; fold it when exporting")


def _labels(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """A letter for every axis of the operands and of the result."""
    text = equation.replace(" ", "")
    left, arrow, result = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks) or any(
        p.count(".") not in {0, 3} or ("." in p) != ("..." in p) for p in (*parts, result)
    ):
        raise InputError(f"equation {equation!r} for {len(ranks)} operands")
    hidden = [rank - len(p.replace("...", "")) for p, rank in zip(parts, ranks, strict=True)]
    if any(n < 0 or (n and "..." not in p) for n, p in zip(hidden, parts, strict=True)):
        raise InputError(f"equation {equation!r} for operands of {ranks} axes")
    more = "".join(chr(0x3B1 + i) for i in range(max(hidden)))
    whole_parts = [p.replace("...", more[len(more) - n :]) for p, n in zip(parts, hidden, strict=True)]
    if not arrow:
        letters = [x for p in parts for x in p.replace("...", "")]
        result = more + "".join(sorted(x for x in set(letters) if letters.count(x) == 1))
    result = result.replace("...", more)
    if len(set(result)) < len(result) or not set(result) <= set("".join(whole_parts)):
        raise UnsupportedError(f"equation {equation!r}, whose result has an axis twice, or one that no operand has")
    return whole_parts, result


def contracted(c: Context, x: Value, labels: str, weight: Any, others: str, result: str) -> Value:
    """Sums of products over the axes that the result does not have: `(rows, groups, inputs)` by matrices of groups."""
    sizes: dict[str, int] = {}
    for label, n in (*zip(labels, x.shape, strict=True), *zip(others, weight.shape, strict=True)):
        if n != 1 and sizes.get(label, 1) not in {1, n}:
            raise InputError(f"shapes {list(x.shape)} and {list(weight.shape)}, which do not fit")
        sizes[label] = max(n, sizes.get(label, 1))
    if lost := set(others) - set(labels) - set(result):
        raise UnsupportedError(
            f"a sum over axes {', '.join(sorted(lost))} of the constant alone; fold it when exporting"
        )
    rows = [k for k in labels if k in result and k not in others]
    groups = [k for k in labels if k in result and k in others]
    inputs, outputs = [k for k in labels if k not in result], [k for k in others if k not in labels]

    def size(part: list[str]) -> Shape:
        return tuple(sizes[k] for k in part)

    check_size((prod(size(groups)), prod(size(outputs)), prod(size(inputs))))
    own = broadcast(x.shape, size(list(labels)))
    index = np.broadcast_to(numbers(x.shape), own).transpose([labels.index(k) for k in rows + groups + inputs])

    def laid_out(numbers_of: Floats) -> Dense:
        every = groups + outputs + inputs
        matrix = np.broadcast_to(numbers_of, size(list(others))).transpose(
            [others.index(k) for k in every if k in others]
        )
        matrix = np.broadcast_to(matrix.reshape([1 if k not in others else sizes[k] for k in every]), size(every))
        matrix = matrix.reshape(1, prod(size(groups)), prod(size(outputs)), prod(size(inputs)))
        return Dense(np.ascontiguousarray(matrix, np.float64), prod(size(rows)))

    dense, *besides = (laid_out(w) for w in counted(weight) if w is not None)
    more = {"sizes": tuple(besides), "fuzz": ROUNDED} if besides else {}
    y = c.affine([c.moved(index.reshape(-1), x)], [dense], size(rows + groups + outputs), **more)
    order = rows + groups + outputs
    return c.moved(numbers(y.shape).transpose([order.index(k) for k in result]), y)
