"""Products of two branches: elementwise, and of matrices. Built as in `krelax.network.compose`.

Both operands lie beside each other along a new last axis, which `Product` removes. A product of matrices is all
products of their numbers, and then sums of them.
"""

from __future__ import annotations

from math import prod

from krelax.activations import Product, Square
from krelax.errors import InputError, UnsupportedError
from krelax.network import compose, recognise
from krelax.network.compose import Operand, broadcast, reduce_sum, reshape
from krelax.network.constants import Constant
from krelax.network.graph import Builder
from krelax.network.ops import Concat, Transpose
from krelax.network.recognise import plain
from krelax.op import Shape

# Of numbers that depend on the input, in one operator: a pass holds two coefficients for each, of every query.
MOST_PRODUCTS = 1 << 22


def multiply(builder: Builder, a: Operand, b: Operand) -> int:
    """`a * b`, elementwise; at least one operand is a node. A product of a node with itself is a square, and one with a
    function of it may be a function of one number (`krelax.network.recognise`)."""
    if isinstance(a, Constant):
        a, b = b, a
    if isinstance(a, Constant):
        raise UnsupportedError("both operands are constants; fold them before importing")
    if isinstance(b, Constant):
        return compose.scale_shift(builder, a, b, None)
    if plain(builder, a) == plain(builder, b) and builder.shape(a) == builder.shape(b):
        return builder.add(Square(), a)
    if (known := recognise.gated(builder, a, b)) is not None:
        return known
    shape = compose.joint_shape(builder.shape(a), builder.shape(b))
    return _products(builder, a, b, shape)


def matmul(builder: Builder, a: Operand, b: Operand) -> int:
    """Matrix product as NumPy defines it, of stacks of matrices and of vectors, too; at least one operand is a node."""
    if isinstance(a, Constant) or isinstance(b, Constant):
        return compose.matmul(builder, a, b)
    first, second = builder.shape(a), builder.shape(b)
    if not first or not second or first[-1] != second[-2:][0]:
        raise InputError(f"product of shapes {first} and {second}")
    rows, columns = first[-2:-1], second[-1:] if len(second) > 1 else ()
    lead = compose.joint_shape(first[:-2], second[:-2])
    inner = first[-1]
    if len(second) > 1:
        rank = len(second)
        b = builder.add(Transpose((*range(rank - 2), rank - 1, rank - 2)), b)
    one = reshape(builder, a, (*first[:-2], *rows, *(1 for _ in columns), inner))
    two = reshape(builder, b, (*second[:-2], *(1 for _ in rows), *columns, inner))
    products = _products(builder, one, two, (*lead, *rows, *columns, inner))
    return reduce_sum(builder, products, (-1,), False)


def contract(builder: Builder, a: int, first: str, b: int, second: str, result: str) -> int:
    """Sums of products over all axes but those of the result; the axes of both nodes have labels, each once, and those
    of size one are repeated. What only one operand has is summed up first."""
    operands = []
    for x, labels, others in ((a, first, second), (b, second, first)):
        if len(labels) != len(builder.shape(x)) or len(set(labels)) < len(labels):
            raise UnsupportedError(f"axes {labels} of an operand of shape {list(builder.shape(x))}")
        alone = [i for i, label in enumerate(labels) if label not in others and label not in result]
        summed = reduce_sum(builder, x, alone, False) if alone else x
        operands.append((summed, "".join(label for label in labels if label in others or label in result)))
    every = result + "".join(c for c in operands[0][1] if c not in result)
    one, two = (_aligned(builder, x, labels, every) for x, labels in operands)
    shape = compose.joint_shape(builder.shape(one), builder.shape(two))
    return reduce_sum(builder, _products(builder, one, two, shape), range(len(result), len(every)), False)


def _aligned(builder: Builder, x: int, labels: str, every: str) -> int:
    """The node with an axis for every label, of size one for those that it does not have."""
    order = [labels.index(label) for label in every if label in labels]
    if order != list(range(len(order))):
        x = builder.add(Transpose(tuple(order)), x)
    sizes = iter(builder.shape(x))
    return reshape(builder, x, [next(sizes) if label in labels else 1 for label in every])


def _products(builder: Builder, a: int, b: int, shape: Shape) -> int:
    """Products of two nodes that are repeated to a shape."""
    require(builder, prod(shape))
    pair = (reshape(builder, broadcast(builder, x, shape), (*shape, 1)) for x in (a, b))
    return builder.add(Product(), builder.add(Concat(len(shape)), *pair))


def require(builder: Builder, count: int) -> None:
    """Raises UnsupportedError for more products in one operator than there is room for."""
    if count > MOST_PRODUCTS:
        most = f"at most {MOST_PRODUCTS} are supported in one operator"
        raise UnsupportedError(f"{count} products of numbers that depend on the input; {most}")
    builder.require(4 * count)
