"""Products of values that depend on the input.

They are made as krelax makes them, all products of one operator in one activation, so that a certificate's activations
have the same numbers.
"""

from __future__ import annotations

from math import prod

import numpy as np

from krelax.certificate.kernel.activations import Power, Product, Square
from krelax.certificate.kernel.activations.power import Reciprocal, Sqrt
from krelax.certificate.kernel.linear import Dense, Index, Pick
from krelax.certificate.kernel.network import Activation
from krelax.certificate.onnx import recognise
from krelax.certificate.onnx.operator import Context, Value, broadcast, check_size, numbers
from krelax.certificate.onnx.tensors import Shape
from krelax.errors import InputError


def products(c: Context, a: Value, b: Value) -> Value:
    """Elementwise products, broadcast; of a value with itself they are squares."""
    if a.node == b.node and a.shape == b.shape:
        return Value(c.builder.add(Activation((a.node,), Square(), prod(a.shape))), a.shape, a.dtype)
    if (known := recognise.gated(c, a, b)) is not None:
        return known
    c.builder.check_gated(a.node, b.node)
    shape = broadcast(a.shape, b.shape)
    first, second = (np.broadcast_to(numbers(x.shape), shape) for x in (a, b))
    return _paired(c, a, first, b, second, shape)


def reciprocal(c: Context, x: Value) -> Value:
    """`1 / x`; of a square root, or of one and an exponential, at once."""
    if (known := recognise.reciprocal(c, x)) is not None:
        return known
    root = c.builder.node(x.node)
    if isinstance(root, Activation) and isinstance(root.rule, Sqrt):
        return Value(c.builder.add(Activation(root.inputs, Power(-0.5), root.size)), x.shape, x.dtype)
    return Value(c.builder.add(Activation((x.node,), Reciprocal(), prod(x.shape))), x.shape, x.dtype)


def contracted(c: Context, a: Value, first: str, b: Value, second: str, result: str) -> Value:
    """Sums of products over all axes but those of the result; the axes of both have labels, and those of size one are
    repeated. What only one operand has is summed up first."""
    each = [_alone(c, x, own, other + result) for x, own, other in ((a, first, second), (b, second, first))]
    every = result + "".join(label for label in each[0][1] if label not in result)
    index = [
        numbers(x.shape)
        .transpose([own.index(label) for label in every if label in own])
        .reshape([x.shape[own.index(label)] if label in own else 1 for label in every])
        for x, own in each
    ]
    shape, count = broadcast(*(i.shape for i in index)), len(result)
    one, two = (np.broadcast_to(i, shape) for i in index)
    found = _paired(c, each[0][0], one, each[1][0], two, shape)
    ones = Dense(np.ones((1, 1, 1, prod(shape[count:]))), prod(shape[:count]))
    return c.affine([found], [ones], shape[:count])


def _alone(c: Context, x: Value, labels: str, others: str) -> tuple[Value, str]:
    """Summed up over the axes that nothing else has."""
    axes = [i for i, label in enumerate(labels) if label not in others]
    kept = "".join(label for label in labels if label in others)
    if not axes:
        return x, kept
    shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    index = np.moveaxis(numbers(x.shape), axes, range(-len(axes), 0)).reshape(*shape, -1)
    ones = Dense(np.ones((1, 1, 1, index.shape[-1])), prod(shape))
    return c.affine([c.moved(index, x)], [ones], shape), kept


def of_matrices(c: Context, a: Value, b: Value) -> Value:
    """Products of stacks of matrices; a vector is one row on the left, and one column on the right."""
    if not a.shape or not b.shape or a.shape[-1] != b.shape[-2:][0]:
        raise InputError(f"a product of shapes {list(a.shape)} and {list(b.shape)}")
    one = numbers(a.shape) if len(a.shape) > 1 else numbers(a.shape)[None]
    two = numbers(b.shape).swapaxes(-1, -2) if len(b.shape) > 1 else numbers(b.shape)[None]
    one, two = one[..., :, None, :], two[..., None, :, :]
    shape = broadcast(one.shape, two.shape)
    every = _paired(c, a, np.broadcast_to(one, shape), b, np.broadcast_to(two, shape), shape)
    summed = c.affine([every], [Dense(np.ones((1, 1, 1, shape[-1])), prod(shape[:-1]))], shape[:-1])
    rows, columns = a.shape[-2:-1], b.shape[-1:] if len(b.shape) > 1 else ()
    return Value(summed.node, (*shape[:-3], *rows, *columns), summed.dtype)


def _paired(c: Context, a: Value, first: Index, b: Value, second: Index, shape: Shape) -> Value:
    """Products of the entries of two values at arrays of their numbers."""
    if a.dtype != b.dtype:
        raise InputError(f"operands of types {a.dtype} and {b.dtype}")
    check_size((*shape, 2))
    none = np.full(shape, -1)
    picks = [
        Pick(np.stack(pair, -1).reshape(-1), prod(x.shape)) for pair, x in (((first, none), a), ((none, second), b))
    ]
    before = c.affine([a, b], picks, (*shape, 2))
    return Value(c.builder.add(Activation((before.node,), Product(), prod(shape))), shape, a.dtype)
