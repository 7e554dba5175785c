"""Forms in boxes to second order: what activations of degree two are beyond their lines.

Such an activation is a line and a product `(z0 - p)(z1 - q)`, which an affine form takes for a symbol of its own. Here
it is remembered as the product of two linear forms of the inputs. A form is then linear, and has a quadratic part Q,
for which any matrix L and any vector v give a bound:

    e^T Q e >= 2 (L v) e - |v|^2 + e^T (Q - L L^T) e ,

because `|L^T e - v|^2` is not negative; and the rest is bounded entry by entry, with all e_i between -1 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats, gamma
from krelax.certificate.kernel.bounds import OVERHEAD
from krelax.certificate.kernel.linear import Index

# Numbers in what is done for one form.
MOST = 1 << 20
# Rounds of the search for the vector.
_ROUNDS = 40


@dataclass(frozen=True, eq=False)
class Beyond:
    """What some entries of an activation are beyond their lines, in some boxes.

    Symbol number `first_symbol + i` stands for `half[:, i]` at most, and is `x y` up to `rest`, where x and y are
    `(boxes, inputs, entries)`, linear in the symbols of the inputs.
    """

    first_symbol: int
    half: Array
    x: Array
    y: Array
    rest: Array

    def select(self, boxes: Index) -> Beyond:
        return Beyond(self.first_symbol, self.half[boxes], self.x[boxes], self.y[boxes], self.rest[boxes])


def lowest(
    ar: Arithmetic, centre: Array, symbols: Array, error: Array, inputs: int, products: Sequence[Beyond]
) -> Floats:
    """Lower bounds `(rows,)` of forms `centre + symbols e`, `(rows,)` and `(rows, symbols)`, up to `error`."""
    linear, alone, count = symbols[:, :inputs], abs(symbols), symbols.shape[1]
    alone[:, np.arange(inputs)] = ar.number(np.zeros((len(symbols), inputs)))
    quadratic, terms = [ar.number(np.zeros((len(symbols), inputs))) for _ in range(inputs)], count + inputs**2
    size = abs(centre) + error + abs(symbols).sum(1)
    for each in products:
        places = each.first_symbol + np.arange(each.half.shape[1])
        places = places[places < count]
        coeff, which = symbols[:, places], np.arange(len(places))
        half, rest = each.half[:, which], each.rest[:, which]
        near = ar.floats(half)
        factor = ar.choice(ar.floats(coeff) / np.where(near > 0, near, np.inf))
        alone[:, places] = abs(factor) * rest + abs(coeff - factor * half)
        x, y = each.x[:, :, which], each.y[:, :, which]
        for i in range(inputs):
            row = (factor * x[:, i])[:, None] * y
            quadratic[i] = quadratic[i] + row.sum(2)
            size = size + abs(row).sum(2).sum(1)
        size, terms = size + (abs(factor) * (rest + half)).sum(1) + abs(coeff).sum(1), terms + len(places)
    value, more = _convex(ar, linear, quadratic)
    value, size = centre + value - alone.sum(1) - error, size + more
    if ar.unit:
        value = value - gamma(4 * terms + OVERHEAD, ar.unit) * size - 8.0 * terms**2 * ar.tiny * (1 + size)
    return ar.down(value)


def _convex(ar: Arithmetic, linear: Array, quadratic: Sequence[Array]) -> tuple[Array, Array]:
    """Lower bounds of `linear e + e^T Q e`, and of the absolute terms that they are made of; the rows of Q are given
    one by one."""
    inputs = len(quadratic)
    matrix = np.stack([ar.floats(row) for row in quadratic], 1) if inputs else np.zeros((len(linear), 0, 0))
    root, vector = _proposed(ar.floats(linear), (matrix + matrix.swapaxes(1, 2)) / 2)
    columns, v = [ar.choice(np.ascontiguousarray(root[:, i])) for i in range(inputs)], ar.choice(vector)
    value = size = (v * v).sum(1)
    value = -value
    for i, c in enumerate(columns):
        slope = linear[:, i] + 2.0 * (c * v).sum(1)
        value, size = value - abs(slope), size + 2.0 * abs(c * v).sum(1)
        for j, d in enumerate(columns[: i + 1]):
            left = quadratic[i][:, j] - (c * d).sum(1)
            if j < i:
                left = left + quadratic[j][:, i] - (c * d).sum(1)
            value = value - abs(left) if j < i else value + ar.minimum(left, ar.number(np.zeros(len(v))))
            size = size + 2.0 * abs(c * d).sum(1)
    return value, size


def _proposed(linear: Floats, matrix: Floats) -> tuple[Floats, Floats]:
    """A root L of the positive part of each matrix, and `L^T e` where the convex function is about smallest: input by
    input, again and again."""
    finite = np.isfinite(matrix.sum((1, 2)) + linear.sum(1)).reshape(-1, 1)
    linear, matrix = np.where(finite, linear, 0.0), np.where(finite[:, :, None], matrix, 0.0)
    values, vectors = np.linalg.eigh(matrix)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
    convex = 2 * root @ root.swapaxes(1, 2)
    steep = np.maximum(np.abs(np.diagonal(convex, axis1=1, axis2=2)), 2.0**-900)
    point, change = np.zeros_like(linear), linear.copy()
    for _ in range(_ROUNDS):
        for i in range(linear.shape[1]):
            new = np.clip(point[:, i] - change[:, i] / steep[:, i], -1.0, 1.0)
            change += (new - point[:, i])[:, None] * convex[:, :, i]
            point[:, i] = new
    return root, (root.swapaxes(1, 2) @ point[:, :, None])[:, :, 0]
