"""Products of values that depend on the input.

They are made as krelax makes them, all products of one operator in one activation, so that a certificate's activations
have the same numbers.
"""

from __future__ import annotations

from math import prod

import numpy as np

from krelax.certificate.kernel.activations import Product
from krelax.certificate.kernel.linear import Dense, Index, Pick
from krelax.certificate.kernel.network import Activation
from krelax.certificate.onnx.graph import Shape
from krelax.certificate.onnx.operator import Context, Value, broadcast, check_size, numbers
from krelax.errors import InputError


def products(c: Context, a: Value, b: Value) -> Value:
    """Elementwise products, broadcast."""
    shape = broadcast(a.shape, b.shape)
    first, second = (np.broadcast_to(numbers(x.shape), shape) for x in (a, b))
    return _paired(c, a, first, b, second, shape)


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
