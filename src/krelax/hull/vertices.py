"""Vertices of the pieces of small polytopes, found in floating point: a proposal, never a proof."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from krelax.hull import _simplex
from krelax.hull._simplex import INVALID, PIVOT, RAY, TOLERANCE, Shared, Work
from krelax.hull.jit import kernel, spread
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Array, Indices, Polytope

# Bounds are loosened by one to two of these (scaled), each by its own amount, so that no vertex is degenerate.
PERTURBATION = 2.0**-36
# Vertices closer than this (scaled) are taken for one.
SAME = 2.0**-32


@dataclass(frozen=True, eq=False)
class Points:
    """V points (z, a) of the graph of the activation in each of G groups.

    `z` is `(G, V, k)`, `a` `(G, V, m)`. The first `count[g]` points of group g are distinct, the others repeat the
    first; a group without vertices has count 0 and zeros.
    """

    z: Array
    a: Array
    count: Indices


class Search(NamedTuple):
    """Scratch of one thread: visited bases, and where bases and vertices are found again (open addressing)."""

    offsets: Array  # (n,), the perturbation
    objective: Array  # (k,), a generic direction in which to find a first vertex
    names: Indices  # (n,), random numbers; the name of a basis is their exclusive or
    queue: Indices  # (capacity, k), bases
    seen: Indices  # (2 * capacity,), names of bases
    seen_in: Indices  # (2 * capacity,), the search in which an entry of `seen` was made
    known: Indices  # (2 * capacity,), indices of vertices
    known_in: Indices  # (2 * capacity,), the group in which an entry of `known` was made
    slack: Array  # (n,)
    rates: Array  # (k, n), how fast each edge approaches each row


def vertices(polytope: Polytope, pieces: Pieces) -> Points:
    """All vertices of all pieces, with their post-activations: `V` is the largest number of a group.

    Not rigorous: a vertex is found up to rounding and about 1e-10 of the size of the group, and vertices closer than
    that are merged. A maximum over these points proposes; `support` disposes.

    Method: a search along the edges of each piece from the vertex where the dual simplex method ends (Avis and Fukuda
    1992 without the reversal), with bounds perturbed against degeneracy and vertices computed from unperturbed ones.
    The effort grows with the number of vertices: of the order of 100 for k = 3, 1000 for k = 4, 10,000 for k = 5.

    Raises ValueError if pieces and polytope differ in k, or if a box is not finite.
    """
    if pieces.k != polytope.k:
        raise ValueError(f"pieces of {pieces.k} pre-activations cannot split polytopes in {polytope.k}")
    if not (np.isfinite(polytope.lower).all() and np.isfinite(polytope.upper).all()):
        raise ValueError("vertices need a finite box around every polytope")
    capacity = 16 * 8 ** (min(polytope.k, 5) - 1)
    while True:
        found = _vertices(polytope, pieces, capacity)
        if found is not None:
            return found
        capacity *= 4


def _vertices(polytope: Polytope, pieces: Pieces, capacity: int) -> Points | None:
    """The same with room for so many bases per piece and vertices per group, None if that is not enough."""
    shared = _simplex.prepare(polytope, pieces)
    G = polytope.groups
    z, a = np.zeros((G, capacity, pieces.k)), np.zeros((G, capacity, pieces.outputs))
    count = np.zeros(G, dtype=np.int64)

    def chunk(start: int, stop: int) -> None:
        _all_vertices(
            start, stop, shared, polytope.bounds, z, a, count, _simplex.workspace(shared), _search(shared, capacity)
        )

    spread(chunk, G, minimum=max(1, 256 // pieces.count))
    if (count < 0).any():
        return None
    V = int(count.max(initial=1))
    real = (np.arange(V) < count[:, None])[:, :, None]
    return Points(np.where(real, z[:, :V], z[:, :1]), np.where(real, a[:, :V], a[:, :1]), count)


def _search(shared: Shared, capacity: int) -> Search:
    """Scratch for one thread. The random numbers are the same in every call."""
    n, k = shared.rows.shape
    random = np.random.default_rng(0)
    slots = 2 * capacity
    return Search(
        offsets=PERTURBATION * random.uniform(1.0, 2.0, size=(n,)),
        objective=random.uniform(-1.0, 1.0, size=(k,)),
        names=random.integers(2**62, size=(n,)),
        queue=np.zeros((capacity, k), dtype=np.int64),
        seen=np.zeros(slots, dtype=np.int64),
        seen_in=np.full(slots, -1, dtype=np.int64),
        known=np.zeros(slots, dtype=np.int64),
        known_in=np.full(slots, -1, dtype=np.int64),
        slack=np.zeros(n),
        rates=np.zeros((k, n)),
    )


@kernel
def _all_vertices(
    start: int,
    stop: int,
    shared: Shared,
    bounds: Array,
    z: Array,
    a: Array,
    count: Indices,
    work: Work,
    search: Search,
) -> None:
    """Fill `z`, `a` and `count` for groups start to stop; a count of -1 means that the capacity is exceeded."""
    pieces = shared.maps.shape[0]
    for g in range(start, stop):
        scale = _simplex.scale_group(shared, bounds[g], work)
        if scale == INVALID:
            continue
        found = 0 * g
        for piece in range(pieces):
            if found >= 0 and _first_vertex(shared, piece, work, search):
                found = _along_edges(shared, piece, work, search, g, g * pieces + piece, z[g], a[g], found)
        count[g] = found
        factor = math.ldexp(1.0, scale)
        for v in range(found):
            for i in range(z.shape[2]):
                z[g, v, i] *= factor
            for o in range(a.shape[2]):
                a[g, v, o] *= factor


@kernel
def _first_vertex(shared: Shared, piece: int, work: Work, search: Search) -> bool:
    """Set the basis to that of some vertex of the perturbed piece; False if it is empty."""
    units, tight = shared.units, work.tight
    for j in range(tight.shape[0]):
        tight[j] = min(work.bounds[j], shared.caps[piece, j]) + search.offsets[j]
    for i in range(units.shape[1]):
        if tight[units[0, i]] + tight[units[1, i]] < 0.0:
            return False
    _simplex.start(shared, work, search.objective)
    limit = _simplex.ENDURANCE * (units.shape[1] + 1)
    status, _, _ = _simplex.descend(shared, work, search.objective, -math.inf, TOLERANCE, limit)
    return status != RAY


@kernel
def _along_edges(
    shared: Shared,
    piece: int,
    work: Work,
    search: Search,
    group: int,
    number: int,
    z: Array,
    a: Array,
    found: int,
) -> int:
    """Visit every basis of a piece that edges lead to, and add its vertices: how many there are then, -1 if too many.

    `number` tells this search from others that used the same tables.
    """
    k, queue = work.z.shape[0], search.queue
    for j in range(k):
        queue[0, j] = work.basis[j]
    _is_new(search, _name(search, queue[0]), number)
    head, tail = 0, 1
    while head < tail:
        for j in range(k):
            work.basis[j] = queue[head, j]
        head += 1
        _simplex.refactor(shared, work)
        found = _add_vertex(shared, piece, work, search, group, z, a, found)
        if found < 0:
            return -1
        _approach(shared, work, search)
        name = _name(search, work.basis)
        for edge in range(k):
            row = _end_of_edge(search, edge)
            if row >= 0 and _is_new(search, name ^ search.names[work.basis[edge]] ^ search.names[row], number):
                if tail == queue.shape[0]:
                    return -1
                for j in range(k):
                    queue[tail, j] = row if j == edge else work.basis[j]
                tail += 1
    return found


@kernel
def _name(search: Search, basis: Indices) -> int:
    """The name of a basis, whatever the order of its rows."""
    name = search.names[basis[0]]
    for j in range(1, search.queue.shape[1]):
        name ^= search.names[basis[j]]
    return name


@kernel
def _is_new(search: Search, name: int, number: int) -> bool:
    """Whether this search sees the name for the first time; from now on it does not."""
    seen, seen_in = search.seen, search.seen_in
    last = seen.shape[0] - 1  # a power of two less one
    slot = name & last
    while seen_in[slot] == number and seen[slot] != name:
        slot = (slot + 1) & last
    new = seen_in[slot] != number
    seen[slot], seen_in[slot] = name, number
    return new


@kernel
def _approach(shared: Shared, work: Work, search: Search) -> None:
    """Set the slack of every row at the perturbed corner, and how fast it shrinks along every edge."""
    columns, inverse, slack, rates = shared.columns, work.inverse, search.slack, search.rates
    k, n = columns.shape
    for j in range(n):
        slack[j] = work.tight[j]
    for i in range(k):
        x = 0.0
        for j in range(k):
            x += inverse[i, j] * work.tight[work.basis[j]]
        column = columns[i]
        for j in range(n):
            slack[j] -= column[j] * x
        for edge in range(k):
            rate, step = rates[edge], -inverse[i, edge]
            if i == 0:
                for j in range(n):
                    rate[j] = column[j] * step
            else:
                for j in range(n):
                    rate[j] += column[j] * step


@kernel
def _end_of_edge(search: Search, edge: int) -> int:
    """The row at which an edge ends, -1 if it does not (rounding only: pieces are bounded)."""
    slack, rate = search.slack, search.rates[edge]
    end = -1
    nearest, speed = math.inf, 1.0
    for j in range(slack.shape[0]):
        if rate[j] > PIVOT and slack[j] * speed < nearest * rate[j]:
            end, nearest, speed = j, slack[j], rate[j]
    return end


@kernel
def _add_vertex(
    shared: Shared, piece: int, work: Work, search: Search, group: int, z: Array, a: Array, found: int
) -> int:
    """Add the unperturbed corner of the basis unless it is known; the number of vertices then, -1 if too many."""
    if found == z.shape[0]:
        return -1
    k, basis, inverse = z.shape[1], work.basis, work.inverse
    for i in range(k):
        z[found, i] = 0.0
    for j in range(k):
        bound = min(work.bounds[basis[j]], shared.caps[piece, basis[j]])
        for i in range(k):
            z[found, i] += inverse[i, j] * bound
    if _is_known(search.known, search.known_in, z, found, group):
        return found
    for o in range(a.shape[1]):
        y = 0.0
        for i in range(k):
            y += shared.maps[piece, o, i] * z[found, i]
        a[found, o] = y
    return found + 1


@kernel
def _is_known(known: Indices, known_in: Indices, z: Array, index: int, group: int) -> bool:
    """Whether vertex `index` equals an earlier one of the group; from now on it is known.

    Two roundings of one vertex on either side of a cell of the hash may both stay: harmless.
    """
    last = known.shape[0] - 1
    slot = _cell(z, index) & last
    while known_in[slot] == group and not _equal(z, known[slot], index):
        slot = (slot + 1) & last
    new = known_in[slot] != group
    if new:
        known[slot], known_in[slot] = index, group
    return not new


@kernel
def _cell(z: Array, index: int) -> int:
    """A hash of the vertex rounded to multiples of a few `SAME`."""
    mixed = 0
    for i in range(z.shape[1]):
        mixed = (mixed * 1000003 + math.floor(z[index, i] * (0.125 / SAME) + 0.5)) & 0xFFFFFFFFF
        mixed ^= mixed >> 15
    return mixed


@kernel
def _equal(z: Array, u: int, v: int) -> bool:
    """Whether two vertices agree in every coordinate, up to `SAME`."""
    equal = True
    for i in range(z.shape[1]):
        equal = equal and abs(z[u, i] - z[v, i]) <= SAME
    return equal
