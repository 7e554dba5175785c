"""Exact arithmetic for one group: support values and vertices as fractions.

Numbers are anything `fractions.Fraction` takes (floats are taken at their exact value). Standard library only. Made
for k <= 4; nothing here is fast, and nothing here rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import product
from math import gcd, lcm, prod
from typing import Any

Number = Any  # int, float, Fraction, or a NumPy scalar of those
Row = Sequence[Number]
Vertex = tuple[Fraction, ...]


def support(
    rows: Sequence[Row],
    bounds: Row,
    piece_rows: Sequence[Sequence[Row]],
    piece_maps: Sequence[Sequence[Row]],
    slope: Row,
    coeff: Row,
) -> Fraction | None:
    """The exact maximum of slope.z - coeff.a over the graph of a piecewise-linear activation on {z : rows z <= bounds}.

    `rows` is `(m, k)` with the 2k unit rows among them, `piece_rows` is `(p, c, k)` and `piece_maps` `(p, outputs, k)`
    as in `Pieces`, `slope` has k and `coeff` as many entries as there are outputs. None if the polytope is empty.
    """
    matrix, rhs, unit = _integers(rows, bounds)
    c, e = [Fraction(x) for x in slope], [Fraction(x) for x in coeff]
    values = []
    for cuts, maps in zip(piece_rows, piece_maps, strict=True):
        objective = [x - sum(y * Fraction(row[i]) for y, row in zip(e, maps, strict=True)) for i, x in enumerate(c)]
        own, zeros, _ = _integers(cuts, [0] * len(cuts))
        values.append(_maximum([*matrix, *own], [*rhs, *zeros], objective))
    feasible = [value / unit for value in values if value is not None]
    return max(feasible, default=None)


def maximum(rows: Sequence[Row], bounds: Row, objective: Row) -> Fraction | None:
    """The exact maximum of objective.z over {z : rows z <= bounds}, None if that is empty.

    The unit rows must be among `rows`.
    """
    matrix, rhs, unit = _integers(rows, bounds)
    value = _maximum(matrix, rhs, objective)
    return None if value is None else value / unit


def _maximum(matrix: list[list[int]], rhs: list[int], objective: Row) -> Fraction | None:
    """`maximum` for integer rows and bounds.

    The dual simplex method with Bland's rule. The inverse of the basis is kept as its adjugate and its determinant,
    so every division is exact (Edmonds 1967).
    """
    (c,), scale = _common([objective])
    basis = _box_basis(matrix, c)
    k = len(c)
    # adjugate / det is the inverse of the basis rows; columns belong to basis positions, and det > 0 throughout
    signs = [matrix[j][i] for i, j in enumerate(basis)]
    det = abs(prod(signs))
    adjugate = [[det // signs[i] if i == j else 0 for j in range(k)] for i in range(k)]
    while True:
        corner = [sum(adjugate[i][j] * rhs[basis[j]] for j in range(k)) for i in range(k)]  # times det
        entering = _violated(matrix, rhs, corner, det)
        if entering is None:
            return Fraction(_dot(c, corner), det * scale)
        weights = [sum(matrix[entering][i] * adjugate[i][j] for i in range(k)) for j in range(k)]
        leaving = _leaving(c, adjugate, weights, basis)
        if leaving is None:
            return None
        adjugate, det = _replaced(adjugate, det, weights, leaving)
        basis[leaving] = entering


def vertices(rows: Sequence[Row], bounds: Row, piece_rows: Sequence[Row] = ()) -> list[Vertex]:
    """All vertices of the bounded piece {z : rows z <= bounds, piece_rows z <= 0}, exact, in no particular order.

    The double description method (Motzkin et al. 1953; Fukuda and Prodon 1996) on integers: rows are inserted one by
    one into a box that strictly contains the piece. The unit rows must be among `rows`; an empty piece has none.
    """
    matrix, rhs, unit = _integers([*rows, *piece_rows], [*bounds, *[0] * len(piece_rows)])
    k = len(matrix[0])
    radius = max(map(abs, rhs)) + 1
    # homogeneous vertices (z, w) and the set of rows tight at them, one bit each, the 2k box rows first
    found: dict[tuple[int, ...], int] = {}
    for signs in product((-1, 1), repeat=k):
        found[(*[s * radius for s in signs], 1)] = sum(1 << (2 * i + (s > 0)) for i, s in enumerate(signs))
    for j, (row, bound) in enumerate(zip(matrix, rhs, strict=True)):
        found = _cut(found, row, bound, 1 << (2 * k + j))
    return [tuple(Fraction(x, z[-1] * unit) for x in z[:-1]) for z in found]


def _cut(found: dict[tuple[int, ...], int], row: list[int], bound: int, bit: int) -> dict[tuple[int, ...], int]:
    """Intersect a polytope, given by its vertices and their tight rows, with {z : row z <= bound}."""
    slack = {z: bound * z[-1] - _dot(row, z[:-1]) for z in found}
    kept = {z: tight | (bit if slack[z] == 0 else 0) for z, tight in found.items() if slack[z] >= 0}
    outside = [z for z in found if slack[z] < 0]
    inside = [z for z in found if slack[z] > 0]
    for u, v in product(inside, outside):
        common = found[u] & found[v]
        if _adjacent(u, v, common, found):
            mixed = [slack[u] * b - slack[v] * a for a, b in zip(u, v, strict=True)]
            divisor = gcd(*mixed)
            kept[tuple(x // divisor for x in mixed)] = common | bit
    return kept


def _adjacent(u: tuple[int, ...], v: tuple[int, ...], common: int, found: dict[tuple[int, ...], int]) -> bool:
    """Whether u and v span an edge: the smallest face with both, where `common` is tight, has no other vertex."""
    if common.bit_count() < len(u) - 2:
        return False
    return not any(tight & common == common and z not in (u, v) for z, tight in found.items())


def _violated(matrix: list[list[int]], rhs: list[int], corner: list[int], det: int) -> int | None:
    """The first row that corner / det violates."""
    for j, row in enumerate(matrix):
        if _dot(row, corner) > det * rhs[j]:
            return j
    return None


def _leaving(c: list[int], adjugate: list[list[int]], weights: list[int], basis: list[int]) -> int | None:
    """The ratio test: the least multiplier per weight, the first row among equals; None is a dual ray."""
    best: tuple[Fraction, int, int] | None = None
    for position, weight in enumerate(weights):
        if weight > 0:
            multiplier = sum(c[i] * adjugate[i][position] for i in range(len(c)))
            candidate = (Fraction(multiplier, weight), basis[position], position)
            best = candidate if best is None else min(best, candidate)
    return None if best is None else best[2]


def _replaced(adjugate: list[list[int]], det: int, weights: list[int], r: int) -> tuple[list[list[int]], int]:
    """Adjugate and determinant after the row with these weights replaces basis position r."""
    pivot = weights[r]
    updated = [
        [line[j] if j == r else (pivot * line[j] - weights[j] * line[r]) // det for j in range(len(line))]
        for line in adjugate
    ]
    return updated, pivot


def _box_basis(matrix: list[list[int]], c: list[int]) -> list[int]:
    """For each coordinate a row that bounds it in the direction of c: a dual feasible basis."""
    return [next(j for j, row in enumerate(matrix) if _bounds_coordinate(row, i, x >= 0)) for i, x in enumerate(c)]


def _bounds_coordinate(row: list[int], i: int, above: bool) -> bool:
    """Whether the row is a positive multiple of e_i (above) or of -e_i."""
    return (row[i] > 0 if above else row[i] < 0) and sum(map(bool, row)) == 1


def _integers(rows: Sequence[Row], bounds: Row) -> tuple[list[list[int]], list[int], int]:
    """Integer rows and right-hand sides of the same polytope magnified `unit` times; vacuous rows are left out."""
    finite = [(row, bound) for row, bound in zip(rows, bounds, strict=True) if bound != float("inf")]
    scaled = [_common([row]) for row, _ in finite]
    matrix = [line for (line,), _ in scaled]
    (rhs,), unit = _common([[Fraction(b) * scale for (_, b), (_, scale) in zip(finite, scaled, strict=True)]])
    return matrix, rhs, unit


def _common(rows: Iterable[Iterable[Number]]) -> tuple[list[list[int]], int]:
    """The rows times their least common denominator, and that denominator."""
    rows = [list(row) for row in rows]
    if all(x == int(x) for row in rows for x in row):
        return [[int(x) for x in row] for row in rows], 1
    fractions = [[Fraction(x) for x in row] for row in rows]
    scale = lcm(*[x.denominator for row in fractions for x in row])
    return [[int(x * scale) for x in row] for row in fractions], scale


def _dot(u: Iterable[int], v: Iterable[int]) -> int:
    """The scalar product of two integer vectors."""
    return sum(a * b for a, b in zip(u, v, strict=True))
