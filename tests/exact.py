"""Exact ground truth for small networks with two inputs: rational arithmetic, no rounding, no krelax bounding code.

A network with piecewise-linear activations is affine on convex polygons. Starting from the box, every polygon is cut
along the zero line of every neuron in turn; on what remains the network is one affine map, whose extremes lie at
vertices. Vertices are integers in homogeneous coordinates `(x w, y w, w)` with `w > 0`, affine maps are integers over
one common denominator, so a sign test is an integer dot product and nothing is ever rounded.

`tests.exact_cells` has the same for other operators and other numbers of inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import NamedTuple

import torch

from krelax.activations import LeakyReLU, ReLU
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Dense

Vertex = tuple[int, int, int]
Row = tuple[int, int, int]  # `a x + b y + c`, up to a denominator kept elsewhere
Point = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class Layer:
    """`act(weight x + bias)`, plus x itself with `skip`.

    `slope` is the activation's slope below zero: 0 for ReLU, None for no activation at all.
    """

    weight: Sequence[Sequence[float]]
    bias: Sequence[float]
    slope: float | None = 0.0
    skip: bool = False


class Range(NamedTuple):
    """Exact smallest and largest value of one pre-activation over the box, and where they are attained."""

    low: Fraction
    high: Fraction
    low_at: Point
    high_at: Point


@dataclass
class _Piece:
    """A convex polygon and the affine map of the network's current layer on it."""

    polygon: list[Vertex]
    rows: list[Row]


def minimum(
    layers: Sequence[Layer], row: Sequence[float], offset: float, lower: Sequence[float], upper: Sequence[float]
) -> Fraction:
    """Exact minimum of `row . y + offset` over the box `lower <= x <= upper`, y the output of `layers`."""
    return ranges([*layers, Layer([list(row)], [offset], None)], lower, upper)[-1][0].low


def ranges(layers: Sequence[Layer], lower: Sequence[float], upper: Sequence[float]) -> list[list[Range]]:
    """Exact range of every pre-activation `weight x + bias` of every layer over the box."""
    pieces = [_Piece(_box(lower, upper), [(1, 0, 0), (0, 1, 0)])]
    denominator = 1
    result = []
    for layer in layers:
        weight, bias, scale = _integers(layer)
        for piece in pieces:
            piece.rows = _affine(weight, bias, denominator, piece.rows) + (piece.rows if layer.skip else [])
        before, denominator = scale, denominator * scale
        count = len(bias)
        result.append([_range(pieces, i, denominator) for i in range(count)])
        slope = Fraction(1 if layer.slope is None else layer.slope)
        if layer.slope is not None:
            pieces = [part for piece in pieces for part in _activate(piece, slope, count)]
            denominator *= slope.denominator
            before *= slope.denominator
        if layer.skip:
            for piece in pieces:
                piece.rows = [_combine(1, a, before, x) for a, x in zip(piece.rows, piece.rows[count:], strict=False)]
    return result


def evaluate(layers: Sequence[Layer], point: Sequence[Fraction | float]) -> list[Fraction]:
    """The network at one point, exactly."""
    x = [Fraction(v) for v in point]
    for layer in layers:
        z = [
            sum((Fraction(w) * v for w, v in zip(row, x, strict=True)), Fraction(b))
            for row, b in zip(layer.weight, layer.bias, strict=True)
        ]
        slope = Fraction(1 if layer.slope is None else layer.slope)
        y = [v if v > 0 else slope * v for v in z]
        x = [a + b for a, b in zip(y, x, strict=True)] if layer.skip else y
    return x


def as_network(layers: Sequence[Layer]) -> Network:
    """The same layers as a krelax network, with float64 constants."""
    builder = Builder((2,))
    x = 0
    for layer in layers:
        weight, bias = (torch.tensor(t, dtype=torch.float64) for t in (layer.weight, layer.bias))
        y = builder.add(Dense(weight, bias), x)
        if layer.slope is not None:
            y = builder.add(ReLU() if layer.slope == 0 else LeakyReLU(layer.slope), y)
        x = builder.add(Add((1, 1)), y, x) if layer.skip else y
    return builder.build(x)


def _box(lower: Sequence[float], upper: Sequence[float]) -> list[Vertex]:
    left, bottom, right, top = (Fraction(v) for v in (*lower, *upper))
    return [_vertex(x, y) for x, y in ((left, bottom), (right, bottom), (right, top), (left, top))]


def _vertex(x: Fraction, y: Fraction) -> Vertex:
    w = lcm(x.denominator, y.denominator)
    return int(x * w), int(y * w), w


def _integers(layer: Layer) -> tuple[list[list[int]], list[int], int]:
    """Weights and biases as integers over one denominator."""
    weight = [[Fraction(w) for w in row] for row in layer.weight]
    bias = [Fraction(b) for b in layer.bias]
    scale = lcm(*(v.denominator for row in weight for v in row), *(b.denominator for b in bias))
    return [[int(w * scale) for w in row] for row in weight], [int(b * scale) for b in bias], scale


def _affine(weight: list[list[int]], bias: list[int], denominator: int, rows: list[Row]) -> list[Row]:
    result = []
    for coefficients, b in zip(weight, bias, strict=True):
        x, y, one = (sum(w * row[k] for w, row in zip(coefficients, rows, strict=True)) for k in range(3))
        result.append((x, y, one + b * denominator))
    return result


def _combine(p: int, first: Row, q: int, second: Row) -> Row:
    a, b, c = (p * f + q * s for f, s in zip(first, second, strict=True))
    return a, b, c


def _value(row: Row, vertex: Vertex) -> int:
    """Value of the affine form at the vertex times its (positive) weight: the sign is exact."""
    return row[0] * vertex[0] + row[1] * vertex[1] + row[2] * vertex[2]


def _activate(piece: _Piece, slope: Fraction, count: int) -> list[_Piece]:
    """Cut a piece along the zero lines of its first `count` rows and apply the activation to them.

    Those rows are then over `slope.denominator` times the denominator they had before; later rows are untouched.
    """
    parts = [piece]
    for i in range(count):
        parts = [new for part in parts for new in _activate_one(part, slope, i)]
    return parts


def _activate_one(piece: _Piece, slope: Fraction, i: int) -> list[_Piece]:
    row = piece.rows[i]
    parts = []
    for polygon, factor in zip(_cut(piece.polygon, row), (slope.denominator, slope.numerator), strict=True):
        if polygon:
            scaled = (factor * row[0], factor * row[1], factor * row[2])
            parts.append(_Piece(polygon, [*piece.rows[:i], scaled, *piece.rows[i + 1 :]]))
    return parts


def _cut(polygon: list[Vertex], row: Row) -> tuple[list[Vertex], list[Vertex]]:
    """The parts of a polygon where the form is >= 0 and <= 0; one of them is empty if no cut is needed."""
    values = [_value(row, v) for v in polygon]
    if min(values) >= 0:
        return polygon, []
    if max(values) <= 0:
        return [], polygon
    above: list[Vertex] = []
    below: list[Vertex] = []
    for i, (p, v) in enumerate(zip(polygon, values, strict=True)):
        q, w = polygon[i - 1], values[i - 1]
        if (v > 0) != (w > 0) and v != 0 and w != 0:
            crossing = _crossing(p, v, q, w)
            above.append(crossing)
            below.append(crossing)
        if v >= 0:
            above.append(p)
        if v <= 0:
            below.append(p)
    return above, below


def _crossing(p: Vertex, at_p: int, q: Vertex, at_q: int) -> Vertex:
    """Where the form vanishes between p and q, which lie on opposite sides."""
    x, y, w = (abs(at_q) * a + abs(at_p) * b for a, b in zip(p, q, strict=True))
    common = gcd(x, y, w)
    return x // common, y // common, w // common


def _range(pieces: list[_Piece], i: int, denominator: int) -> Range:
    at = [(_value(piece.rows[i], v), v) for piece in pieces for v in piece.polygon]
    low = high = at[0]
    for value, v in at[1:]:
        if value * low[1][2] < low[0] * v[2]:
            low = (value, v)
        if value * high[1][2] > high[0] * v[2]:
            high = (value, v)
    values = (Fraction(value, v[2] * denominator) for value, v in (low, high))
    points = ((Fraction(v[0], v[2]), Fraction(v[1], v[2])) for _, v in (low, high))
    return Range(*values, *points)
