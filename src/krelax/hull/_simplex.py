"""The maximum of a linear form over one piece of one group: a dual simplex method, and its rigorous value.

Every vector of multipliers y >= 0 bounds a piece {z : rows z <= b}, because for all z in it

    c.z  =  y.(rows z) + (c - rows^T y).z  <=  y.b + sum_i |c - rows^T y|_i * max |z_i| ,

so the simplex method may stop anywhere, and its rounding errors only loosen the bound. What rounding can cost in the
evaluation of the right-hand side itself is added a priori (`_rigorous`).

Groups and directions are scaled by powers of two, which is exact, so that the largest |z_i| and the largest
coefficient are about 1; tolerances are absolute numbers after that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from krelax.hull.jit import kernel
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Array, Indices, Polytope

UNIT = 2.0**-53
# What underflow can cost in a handful of operations on scaled numbers, flushing to zero included, and much more.
TINY = 1e-280
# A row is violated, and a piece worth another pivot, by more than this (scaled; rounding noise is a tenth of it).
TOLERANCE = 1e-14
# Weights below this are zeros spoilt by rounding: no pivot on them.
PIVOT = 1e-9
# A bound below this proves no less when it is raised to this, and then nothing overflows.
LEAST = -1e30
# Exponents are clamped here, so that scale factors are finite and not subnormal; and what stands for a bad input.
LARGEST_EXPONENT = 1000
INVALID = 9999
# Pivots, per variable, until Bland's rule replaces the largest violation, and until a piece is left as it is.
PATIENCE, ENDURANCE = 12, 60
REFACTOR = 40

OPTIMAL, STOPPED, RAY = 0, 1, 2


class Shared(NamedTuple):
    """What all groups have in common: n rows (those of the polytopes and of the pieces), p pieces, q outputs."""

    rows: Array  # (n, k)
    columns: Array  # (k, n), the same
    weights: Array  # (n,), one over the norm of the row
    caps: Array  # (p, n), 0 where the row bounds the piece with right-hand side 0, infinity elsewhere
    maps: Array  # (p, q, k)
    signs: Array  # (p, k), 1 where the piece has z_i >= 0, -1 where z_i <= 0, 0 if either
    units: Indices  # (2, k), where -e_i and e_i are


class Work(NamedTuple):
    """Scratch of one thread: the group, the direction, the piece at hand."""

    bounds: Array  # (n,), of the group
    reach: Array  # (k,), max |z_i|
    objective: Array  # (p, k), c of every piece
    size: Array  # (p, k), the sum of the absolute terms of c
    box: Array  # (p,), upper bounds of the pieces
    tight: Array  # (n,), bounds of the piece
    excess: Array  # (n,), rows z - bounds
    basis: Indices  # (k + 1,), rows of the basis; the last entry is the entering row of a dual ray, or -1
    inverse: Array  # (k, k), of the basis: columns belong to its rows
    matrix: Array  # (k, k), the basis itself while it is inverted
    y: Array  # (k + 1,), multipliers of the basis, the last 0
    ray: Array  # (k + 1,), multipliers moved along a dual ray
    weight: Array  # (k,), the entering row as a combination of the basis
    z: Array  # (k,), the corner of the basis


def prepare(polytope: Polytope, pieces: Pieces) -> Shared:
    """All distinct rows of polytopes and pieces; a piece tightens the bounds of its own rows to 0."""
    index = {tuple(row): j for j, row in reversed(list(enumerate(polytope.rows.tolist())))}
    own = [[tuple(row) for row in cuts if any(row)] for cuts in pieces.rows.tolist()]
    added = list(dict.fromkeys(row for cuts in own for row in cuts if row not in index))
    index.update({row: len(polytope.rows) + j for j, row in enumerate(added)})
    rows = np.concatenate([polytope.rows, np.reshape(added, (-1, polytope.k))])
    caps = np.full((pieces.count, len(rows)), np.inf)
    for piece, cuts in enumerate(own):
        caps[piece, [index[row] for row in cuts]] = 0.0
    norms = np.linalg.norm(rows, axis=1)
    weights = 1.0 / np.where(norms > 0.0, norms, 1.0)
    signs = (caps[:, polytope.units[0]] == 0.0) - 1.0 * (caps[:, polytope.units[1]] == 0.0)
    # layouts are types, for each of which kernels are compiled
    signs = np.ascontiguousarray(signs)
    return Shared(rows, np.ascontiguousarray(rows.T), weights, caps, pieces.maps, signs, polytope.units)


def workspace(shared: Shared) -> Work:
    """Scratch for one thread."""
    (n, k), p = shared.rows.shape, len(shared.maps)
    zeros = np.zeros
    return Work(
        bounds=zeros(n),
        reach=zeros(k),
        objective=zeros((p, k)),
        size=zeros((p, k)),
        box=zeros(p),
        tight=zeros(n),
        excess=zeros(n),
        basis=zeros(k + 1, dtype=np.int64),
        inverse=zeros((k, k)),
        matrix=zeros((k, k)),
        y=zeros(k + 1),
        ray=zeros(k + 1),
        weight=zeros(k),
        z=zeros(k),
    )


@kernel
def scale_group(shared: Shared, raw: Array, work: Work) -> int:
    """Set `bounds` and `reach`, scaled; the exponent of the scale, or INVALID where the box is not finite."""
    units, k, m = shared.units, shared.units.shape[1], raw.shape[0]
    largest = 0.0
    for i in range(k):
        l, u = raw[units[0, i]], raw[units[1, i]]
        if not (math.isfinite(l) and math.isfinite(u)):
            return INVALID
        largest = max(largest, abs(l), abs(u))
    scale = exponent(largest)
    factor = math.ldexp(1.0, -scale)
    for j in range(work.bounds.shape[0]):
        b = raw[j] * factor if j < m else math.inf
        work.bounds[j] = LEAST if b < LEAST else b
    for i in range(k):
        work.reach[i] = max(abs(work.bounds[units[0, i]]), abs(work.bounds[units[1, i]]))
    return scale


@kernel
def exponent(x: float) -> int:
    """The power of two next above x >= 0, clamped."""
    return min(max(math.frexp(x)[1], -LARGEST_EXPONENT), LARGEST_EXPONENT)


@kernel
def gamma(terms: int) -> float:
    """The relative error of a sum of `terms` products, with room for its own rounding (Higham 2002, section 3.1)."""
    return 1.01 * terms * UNIT / (1.0 - terms * UNIT)


@kernel
def piece_bound(shared: Shared, work: Work, piece: int, threshold: float, limit: int) -> tuple[int, float]:
    """Status and rigorous bound of one piece; one of at most `threshold` is not improved any further."""
    tight, cap, c = work.tight, shared.caps[piece], work.objective[piece]
    for j in range(tight.shape[0]):
        tight[j] = min(work.bounds[j], cap[j])
    start(shared, work, c)
    tolerance = TOLERANCE
    limit = min(limit, ENDURANCE * (c.shape[0] + 1))
    while True:
        status, limit, excess = descend(shared, work, c, threshold, tolerance, limit)
        if status != RAY:
            work.basis[c.shape[0]] = -1
            return status, _rigorous(shared, work, piece, work.y)
        _along_ray(work, threshold, excess)
        bound = _rigorous(shared, work, piece, work.ray)
        if bound <= threshold:
            return STOPPED, bound
        # too near to feasible for a proof: take it for feasible
        tolerance = max(tolerance, excess)


@kernel
def start(shared: Shared, work: Work, c: Array) -> None:
    """The corner of the box that maximises c.z: a dual feasible basis of unit rows."""
    for i in range(c.shape[0]):
        side = 1 if c[i] > 0.0 else 0
        sign = 1.0 if c[i] > 0.0 else -1.0
        for j in range(c.shape[0]):
            work.inverse[i, j] = 0.0
        work.basis[i] = shared.units[side, i]
        work.inverse[i, i] = sign
        work.y[i] = abs(c[i])
        work.z[i] = sign * work.tight[work.basis[i]]


@kernel
def descend(
    shared: Shared, work: Work, c: Array, threshold: float, tolerance: float, limit: int
) -> tuple[int, int, float]:
    """Dual simplex pivots until the corner is feasible, the value is below `threshold`, or the dual is unbounded.

    Returns the status, how many of the `limit` pivots are left, and the violation of the row that enters a dual ray.
    """
    k, excess = c.shape[0], work.excess
    pivots = 0
    while _value(work) > threshold:
        bland = pivots > PATIENCE * (k + 1)
        entering = _entering(shared, work, tolerance, bland)
        if entering < 0:
            return OPTIMAL, limit - pivots, 0.0
        if pivots >= limit:
            break
        leaving = _leaving(shared, work, entering, bland)
        if leaving < 0:
            work.basis[k] = entering
            return RAY, limit - pivots, excess[entering]
        _pivot(work, entering, leaving)
        pivots += 1
        if pivots % REFACTOR == 0:
            refactor(shared, work)
        _corner(work, c)
    return STOPPED, limit - pivots, 0.0


@kernel
def _value(work: Work) -> float:
    """The dual value y.b of the basis."""
    value = 0.0
    for j in range(work.z.shape[0]):
        value += work.y[j] * work.tight[work.basis[j]]
    return value


@kernel
def _entering(shared: Shared, work: Work, tolerance: float, bland: bool) -> int:
    """The row whose hyperplane the corner is farthest beyond (Bland: the first violated), -1 if there is none."""
    columns, excess, z = shared.columns, work.excess, work.z
    n = excess.shape[0]
    for j in range(n):
        excess[j] = columns[0, j] * z[0] - work.tight[j]
    for i in range(1, z.shape[0]):
        column, x = columns[i], z[i]
        for j in range(n):
            excess[j] += column[j] * x
    entering = -1
    farthest = 0.0
    for j in range(n):
        if excess[j] > tolerance:
            distance = excess[j] * shared.weights[j]
            if distance > farthest:
                entering, farthest = j, distance
                if bland:
                    return j
    return entering


@kernel
def _leaving(shared: Shared, work: Work, entering: int, bland: bool) -> int:
    """The ratio test: the position whose multiplier reaches zero first, -1 if none does; sets `weight`.

    Among equals the largest weight is the safest pivot; with Bland's rule the first row.
    """
    k = work.z.shape[0]
    row = shared.rows[entering]
    leaving = -1
    least = math.inf
    for j in range(k):
        w = 0.0
        for i in range(k):
            w += row[i] * work.inverse[i, j]
        work.weight[j] = w
        if w <= PIVOT:
            continue
        ratio = max(work.y[j], 0.0) / w
        if leaving >= 0 and abs(ratio - least) <= TOLERANCE:
            first = work.basis[j] < work.basis[leaving] if bland else w > work.weight[leaving]
            if not first:
                continue
        elif ratio > least:
            continue
        leaving, least = j, min(ratio, least)
    return leaving


@kernel
def _pivot(work: Work, entering: int, leaving: int) -> None:
    """Replace one row of the basis, and update its inverse."""
    k = work.z.shape[0]
    inverse, weight = work.inverse, work.weight
    work.basis[leaving] = entering
    for i in range(k):
        x = inverse[i, leaving] / weight[leaving]
        for j in range(k):
            inverse[i, j] -= weight[j] * x
        inverse[i, leaving] = x


@kernel
def _corner(work: Work, c: Array) -> None:
    """Set the corner and the multipliers of the basis."""
    k = c.shape[0]
    for j in range(k):
        work.y[j] = 0.0
    for i in range(k):
        x = 0.0
        for j in range(k):
            x += work.inverse[i, j] * work.tight[work.basis[j]]
            work.y[j] += c[i] * work.inverse[i, j]
        work.z[i] = x


@kernel
def refactor(shared: Shared, work: Work) -> None:
    """Compute the inverse of the basis afresh from its rows, by Gauss-Jordan elimination with partial pivoting."""
    k = work.z.shape[0]
    matrix, inverse = work.matrix, work.inverse
    for j in range(k):
        for i in range(k):
            matrix[j, i] = shared.rows[work.basis[j], i]
            inverse[j, i] = 1.0 if i == j else 0.0
    for i in range(k):
        largest = i
        for j in range(i + 1, k):
            if abs(matrix[j, i]) > abs(matrix[largest, i]):
                largest = j
        for l in range(k):
            matrix[i, l], matrix[largest, l] = matrix[largest, l], matrix[i, l]
            inverse[i, l], inverse[largest, l] = inverse[largest, l], inverse[i, l]
        pivot = matrix[i, i]
        for j in range(k):
            share = matrix[j, i] / pivot if j != i else 0.0
            for l in range(k):
                matrix[j, l] -= share * matrix[i, l]
                inverse[j, l] -= share * inverse[i, l]
        for l in range(k):
            matrix[i, l] /= pivot
            inverse[i, l] /= pivot


@kernel
def _along_ray(work: Work, threshold: float, excess: float) -> None:
    """Set `ray` so far along the dual ray that the value is below the threshold, with room for rounding."""
    k = work.z.shape[0]
    length = 2.0 * (_value(work) - threshold + 1.0) / excess
    for j in range(k):
        work.ray[j] = max(work.y[j] - length * work.weight[j], 0.0)
    work.ray[k] = length


@kernel
def _rigorous(shared: Shared, work: Work, piece: int, y: Array) -> float:
    """An upper bound of c.z over the piece in real arithmetic, from multipliers of the basis.

    Those that are negative or not finite, which a basis spoilt by rounding can give, are taken for 0.
    `magnitude` is the sum of all absolute terms, those of c twice; no term takes part in more roundings than are
    counted: outputs + 1 in c, k + 3 in a residual, 2k + 3 in the sum.
    """
    k, c, size = work.z.shape[0], work.objective[piece], work.size[piece]
    total = magnitude = heaviness = 0.0
    for j in range(k + 1):
        if 0.0 < y[j] < math.inf:
            term = y[j] * work.tight[work.basis[j]]
            total += term
            magnitude += abs(term)
            heaviness += y[j]
    for i in range(k):
        residual, terms = c[i], 2.0 * size[i]
        for j in range(k + 1):
            if 0.0 < y[j] < math.inf:
                term = y[j] * shared.rows[work.basis[j], i]
                residual -= term
                terms += abs(term)
        total += abs(residual) * work.reach[i]
        magnitude += terms * work.reach[i]
    bound = total + gamma(3 * k + shared.maps.shape[1] + 16) * magnitude + TINY * (1.0 + heaviness)
    return bound if bound < math.inf else math.inf  # what is not a number proves nothing
