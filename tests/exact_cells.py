"""Exact ground truth for small networks of any piecewise-linear operators with any number of inputs.

As in `tests.exact`, a network is affine on convex polytopes: starting from the box, every polytope is cut where the
largest piece of an activation changes, and extremes lie at vertices. Every float is an integer over a power of two, and
a network keeps such numbers such; vertices are integers in homogeneous coordinates. Nothing is ever rounded, and no
krelax bounding code is used. Made for a handful of free inputs and neurons; a box may also be a single point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import product
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from krelax.activations import LeakyReLU, Max, ReLU
from krelax.network.graph import Network
from krelax.network.linear import Add, Conv, ConvTranspose, Dense, Scale, Sum
from krelax.network.ops import Concat, Expand, Gather, Pad, Reshape, Take, Transpose
from krelax.op import Op

Digits = NDArray[np.object_]
Vertex = tuple[int, ...]
Corners = dict[Vertex, int]  # vertices of a polytope, and which of its inequalities are tight, one bit each
Clause = tuple[Any, Any]  # rows `(m, outputs)` and offsets `(m,)`, as floats


class Least(NamedTuple):
    """The smallest value of something over a box, and an input, flattened, where it is attained."""

    value: Fraction
    at: tuple[Fraction, ...]


class Forms(NamedTuple):
    """Affine forms: `digits[k] / 2**shift` holds the coefficients of variable k, and of the constant for the last k."""

    digits: Digits
    shift: int


def least_margin(network: Network, lower: Any, upper: Any, clauses: Sequence[Clause]) -> Least:
    """Exact minimum of a property's margin over the box of inputs `lower <= x <= upper`.

    The margin is the smallest over `clauses` of the largest entry of `rows @ y + offsets`, y the flattened output.
    The box may be a point. Raises NotImplementedError for operators that are not known to be piecewise linear.
    """
    corners, x = whole_box(np.asarray(lower, float), np.asarray(upper, float))
    values = _clause_values(_cells(network, corners, x), clauses)
    value, at = min(values, key=lambda found: found[0])
    return Least(value, tuple(_at(x, at)))


def count_cells(network: Network, lower: Any, upper: Any) -> int:
    """Number of polytopes that `least_margin` looks at, before clauses cut them further."""
    return len(_cells(network, *whole_box(np.asarray(lower, float), np.asarray(upper, float))))


def _clause_values(cells: list[tuple[Corners, Forms]], clauses: Sequence[Clause]) -> Iterator[tuple[Fraction, Vertex]]:
    """Value of every clause at every vertex of the polytopes on which the whole clause is affine."""
    for (corners, y), (rows, offsets) in product(cells, clauses):
        members = _dense(Forms(y.digits.reshape(len(y.digits), -1), y.shift), rows, offsets)
        for part, row in _maximal(corners, members.digits.T):
            for vertex in part:
                yield Fraction(_dot(row, vertex), vertex[-1] << members.shift), vertex


def whole_box(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> tuple[Corners, Forms]:
    """Corners of the box in its free coordinates, and the inputs as forms of those."""
    (both, shift), free = _digits(np.stack([lower, upper])), np.flatnonzero(lower < upper)
    both = both.reshape(2, -1)
    ends = both[:, free]
    corners = {
        (*(ends[up, i] for i, up in enumerate(ups)), 1 << shift): sum(1 << (2 * i + up) for i, up in enumerate(ups))
        for ups in product((0, 1), repeat=len(free))
    }
    digits = np.zeros((len(free) + 1, lower.size), dtype=object)
    digits[range(len(free)), free] = 1 << shift
    digits[-1] = np.where(lower.flatten() < upper.flatten(), 0, both[0])
    return corners, Forms(digits.reshape(-1, *lower.shape), shift)


def _cells(network: Network, corners: Corners, x: Forms) -> list[tuple[Corners, Forms]]:
    """Polytopes that cover the given one, and the network's outputs on each."""
    found = [(corners, [x])]
    for node in network.nodes[1:]:
        found = [
            (part, [*values, y])
            for corners, values in found
            for part, y in _through(node.op, corners, [values[i] for i in node.inputs])
        ]
    return [(corners, values[-1]) for corners, values in found]


def _through(op: Op, corners: Corners, operands: list[Forms]) -> list[tuple[Corners, Forms]]:
    """The operator on a polytope on which its operands are affine, cut until its result is."""
    match op:
        case ReLU():
            return _largest(corners, np.stack([0 * operands[0].digits, operands[0].digits]), operands[0].shift)
        case LeakyReLU():
            (slope, one), shift = _digits([op.negative_slope, 1.0])
            z = operands[0]
            return _largest(corners, np.stack([slope * z.digits, one * z.digits]), z.shift + shift)
        case Max():
            return _largest(corners, np.moveaxis(operands[0].digits, -1, 0), operands[0].shift)
    return [(corners, affine(op, operands))]


def affine(op: Op, operands: list[Forms]) -> Forms:
    """An affine operator on affine forms. Raises NotImplementedError for others."""
    for kind, rule in _RULES.items():
        if isinstance(op, kind) and getattr(op, "groups", 1) == 1:
            return rule(op, operands)
    raise NotImplementedError(f"no exact arithmetic for {type(op).__name__}")


def _scaled(op: Scale, operands: list[Forms]) -> Forms:
    factor, shift = _digits(1.0 if op.factor is None else op.factor)
    return _plus(Forms(operands[0].digits * factor, operands[0].shift + shift), op.shift)


def _added(op: Add, operands: list[Forms]) -> Forms:
    shift = max(o.shift for o in operands)
    terms = [sign * _magnified(o, shift) for sign, o in zip(op.signs, operands, strict=True)]
    return Forms(sum(terms[1:], terms[0]), shift)


def _joined(op: Concat, operands: list[Forms]) -> Forms:
    shift = max(o.shift for o in operands)
    return Forms(np.concatenate([_magnified(o, shift) for o in operands], axis=op.axis + 1), shift)


def _moving(move: Callable[[Any, Digits], Digits]) -> Callable[[Any, list[Forms]], Forms]:
    """The rule of an operator that only moves or adds up digits, `(variables + 1, *shape)`."""
    return lambda op, operands: Forms(move(op, operands[0].digits), operands[0].shift)


def _dense(x: Forms, weight: Any, bias: Any) -> Forms:
    digits, shift = _digits(weight)
    return _plus(Forms(x.digits @ digits.T, x.shift + shift), bias)


def _convolution(x: Forms, op: Conv) -> Forms:
    """One window after the other; operands are `(1, channels, *spatial)`."""
    weight, shift = _digits(op.weight)
    shape = op.shape(x.digits.shape[1:])
    result = np.zeros((len(x.digits), *shape), dtype=object)
    for place, tap in product(np.ndindex(*shape[2:]), np.ndindex(*weight.shape[2:])):
        geometry = zip(place, tap, op.stride, op.dilation, op.padding, x.digits.shape[3:], strict=True)
        source = [(p * s + t * d - before, size) for p, t, s, d, before, size in geometry]
        if all(0 <= at < size for at, size in source):
            seen = x.digits[:, 0, :, *(at for at, _ in source)]
            result[:, 0, :, *place] += seen @ weight[:, :, *tap].T
    bias = None if op.bias is None else op.bias.reshape(-1, *[1] * len(op.stride))
    return _plus(Forms(result, x.shift + shift), bias)


def _transposed_convolution(x: Forms, op: ConvTranspose) -> Forms:
    """What every entry adds to the window it is spread over."""
    weight, shift = _digits(op.weight)
    shape = op.shape(x.digits.shape[1:])
    result = np.zeros((len(x.digits), *shape), dtype=object)
    for place, tap in product(np.ndindex(*x.digits.shape[3:]), np.ndindex(*weight.shape[2:])):
        geometry = zip(place, tap, op.stride, op.dilation, op.padding, shape[2:], strict=True)
        target = [(p * s + t * d - before, size) for p, t, s, d, before, size in geometry]
        if all(0 <= at < size for at, size in target):
            result[:, 0, :, *(at for at, _ in target)] += x.digits[:, 0, :, *place] @ weight[:, :, *tap]
    bias = None if op.bias is None else op.bias.reshape(-1, *[1] * len(op.stride))
    return _plus(Forms(result, x.shift + shift), bias)


def _padded(digits: Digits, op: Pad) -> Digits:
    """Zeros around, or entries cut off where a number is negative."""
    pads = list(zip(op.before, op.after, strict=True))
    cropped = digits[:, *(slice(max(0, -b), n - max(0, -a)) for (b, a), n in zip(pads, digits.shape[1:], strict=True))]
    result = np.zeros((len(digits), *op.shape(digits.shape[1:])), dtype=object)
    result[:, *(slice(max(0, b), n - max(0, a)) for (b, a), n in zip(pads, result.shape[1:], strict=True))] = cropped
    return result


_RULES: dict[type[Op], Callable[[Any, list[Forms]], Forms]] = {
    Dense: lambda op, operands: _dense(operands[0], op.weight, op.bias),
    Conv: lambda op, operands: _convolution(operands[0], op),
    ConvTranspose: lambda op, operands: _transposed_convolution(operands[0], op),
    Scale: _scaled,
    Add: _added,
    Concat: _joined,
    Reshape: _moving(lambda op, x: x.reshape(-1, *op.target)),
    Take: _moving(lambda op, x: x.reshape(len(x), -1)[:, op.index.numpy()]),
    Transpose: _moving(lambda op, x: x.transpose(0, *(p + 1 for p in op.permutation))),
    Gather: _moving(lambda op, x: x.take(op.index.numpy(), axis=op.axis + 1)),
    Expand: _moving(lambda op, x: np.broadcast_to(x, (len(x), *op.target))),
    Sum: _moving(lambda op, x: x.sum(axis=tuple(a + 1 for a in op.axes), keepdims=True)),
    Pad: _moving(lambda op, x: _padded(x, op)),
}


def _plus(x: Forms, constant: Any) -> Forms:
    """The forms plus floats that broadcast to their shape."""
    if constant is None:
        return x
    digits, shift = _digits(constant)
    common = max(x.shift, shift)
    result = _magnified(x, common)
    result[-1] += digits << (common - shift)
    return Forms(result, common)


def _magnified(x: Forms, shift: int) -> Digits:
    return x.digits << (shift - x.shift)


def _digits(values: Any) -> tuple[Digits, int]:
    """Floats as integers over one power of two, `digits / 2**shift`."""
    flat = np.asarray(values, dtype=np.float64)
    ratios = [v.as_integer_ratio() for v in flat.flatten().tolist()]
    shift = max((below.bit_length() for _, below in ratios), default=1) - 1
    digits = np.array([(above << shift) // below for above, below in ratios], dtype=object)
    return digits.reshape(flat.shape), shift


def _largest(corners: Corners, pieces: Digits, shift: int) -> list[tuple[Corners, Forms]]:
    """The entrywise largest of `pieces`, `(pieces, variables + 1, *shape)`, each on a polytope where it is affine."""
    rows = pieces.reshape(*pieces.shape[:2], -1)
    parts: list[tuple[Corners, list[Digits]]] = [(corners, [])]
    for i in range(rows.shape[2]):
        parts = [(part, [*chosen, row]) for before, chosen in parts for part, row in _maximal(before, rows[:, :, i])]
    return [(part, Forms(np.stack(chosen, 1).reshape(pieces.shape[1:]), shift)) for part, chosen in parts]


def _maximal(corners: Corners, rows: Digits) -> list[tuple[Corners, Digits]]:
    """Cut a polytope into parts on each of which one of the forms is the largest."""
    parts = [(corners, rows[0])]
    for row in rows[1:]:
        parts = [
            new for part, best in parts for new in zip(halves(part, row - best), (row, best), strict=True) if new[0]
        ]
    return parts


def halves(corners: Corners, row: Digits) -> tuple[Corners, Corners]:
    """The parts of a polytope where the form is >= 0 and <= 0; one of them is empty if no cut is needed."""
    values = {v: _dot(row, v) for v in corners}
    if min(values.values()) >= 0:
        return corners, {}
    if max(values.values()) <= 0:
        return {}, corners
    new = 1 << max(tight.bit_length() for tight in corners.values())
    shared = {v: tight | new for v, tight in corners.items() if values[v] == 0}
    inside, outside = ([v for v in corners if sign * values[v] > 0] for sign in (1, -1))
    for u, v in product(inside, outside):
        if _is_edge(u, v, corners):
            mixed = [values[u] * b - values[v] * a for a, b in zip(u, v, strict=True)]
            common = gcd(*mixed)
            shared[tuple(m // common for m in mixed)] = corners[u] & corners[v] | new
    return {u: corners[u] for u in inside} | shared, {v: corners[v] for v in outside} | shared


def _is_edge(u: Vertex, v: Vertex, corners: Corners) -> bool:
    """Whether the smallest face with two vertices, given by what is tight at both, has no other one."""
    common = corners[u] & corners[v]
    if common.bit_count() < len(u) - 2:
        return False
    return not any(tight & common == common and w not in (u, v) for w, tight in corners.items())


def _at(x: Forms, vertex: Vertex) -> Iterator[Fraction]:
    for row in x.digits.reshape(len(x.digits), -1).T:
        yield Fraction(_dot(row, vertex), vertex[-1] << x.shift)


def _dot(row: Iterable[int], vertex: Vertex) -> int:
    return sum(a * b for a, b in zip(row, vertex, strict=True))
