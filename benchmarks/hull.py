"""The hull of k neurons: exactness, soundness, speed, and what relaxations leave of the gap to it.

    python benchmarks/hull.py [--quick] [--all]

Prints tables in Markdown. `--quick` takes few samples, `--all` every group and direction for the gaps (else 20 groups
and 50 directions of each family). Times are microseconds per group, or per cut, of a batch: CPU seconds of all threads
together, and wall seconds, best of three.

The gap of a relaxation M is the mean over directions of (M - E) / (T - E), where E, M and T are the maxima over the
exact hull, over P, the triangles and the rows of M, and over P and the triangles.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from common import benchmark_folder
from krelax.hull._gauge import cheapest
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Array, Polytope, octahedral_rows
from krelax.hull.rows import Rows
from krelax.hull.separate import separate, starting_points
from krelax.hull.support import support
from krelax.hull.vertices import Points, vertices

FAMILIES = ("wralu", "zono")
TIMED = 10_000  # groups in a batch whose time is taken

# Median ms per group, and gap, of other codes on the same groups (wralu, zono): from the README of the data.
PEERS = """| k | other code | ms a group | gap |
|---|---|---|---|
| 2 | PRIMA | .38 / .26 | .090 / .109 |
| 2 | WraLU plus | .35 | .022 |
| 2 | exact, cddlib | 1.79 / 1.69 | 0 |
| 3 | PRIMA | 1.06 / 1.18 | .102 / .080 |
| 3 | WraLU plus | .63 | .0175 |
| 3 | exact, cddlib | 3519 / 2465 | 0 |
| 4 | PRIMA | 27 / 23 | .074 / .088 |
| 4 | WraLU plus | 9.2 | .025 |
"""


@dataclass(frozen=True, eq=False)
class Family:
    """Groups of one benchmark file: `lower` and `upper` are `(G, k)`, `directions` `(D, 2k)` over (z, a)."""

    polytope: Polytope
    lower: Array
    upper: Array
    directions: Array
    pieces: Pieces

    @property
    def k(self) -> int:
        return self.pieces.k


@cache
def family(name: str, k: int) -> Family:
    """A benchmark family of ReLU groups."""
    folder = benchmark_folder() / "hull"
    data, directions = np.load(folder / f"{name}_k{k}.npz"), np.load(folder / f"directions_k{k}.npz")["D"]
    return Family(Polytope(data["A"], data["B"]), data["lb"], data["ub"], directions, Pieces.relu(k))


def reference(folder: Path, name: str, k: int) -> Iterator[Array]:
    """The vertices (z, a) of each group's hull, from rational arithmetic."""
    data = np.load(folder / "hull" / f"ref_{name}_k{k}.npz")
    for start, stop in zip(data["off"][:-1], data["off"][1:], strict=True):
        z = data["V"][start:stop]
        yield np.concatenate([z, np.maximum(z, 0.0)], axis=1)


def exactness() -> None:
    """Largest difference between support values and those of the reference vertices, relative to the group's size."""
    print("## Exactness of the support function\n\n| k | family | values | above the exact one by at most | below |")
    print("|---|---|---|---|---|")
    for k in (2, 3, 4):
        for name in FAMILIES:
            groups = family(name, k)
            c, d = groups.directions[None, :, :k], -groups.directions[None, :, k:]
            found = support(groups.polytope, groups.pieces, c, d).value
            known = [(v @ groups.directions.T).max(axis=0) for v in reference(benchmark_folder(), name, k)]
            size = np.abs(groups.polytope.bounds).max(axis=1, keepdims=True)
            excess = (found - np.stack(known)) / size
            print(f"| {k} | {name} | {excess.size} | {excess.max():.1e} | {max(-excess.min(), 0.0):.1e} |")


def soundness(count: int) -> None:
    """Rows and support values that are below the exact maximum, in rational arithmetic without tolerance."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the polytopes and fractions of the tests
    from tests.hull.oracles import exact
    from tests.hull.random_polytopes import random_polytopes

    print(f"\n## Soundness on {count} random polytopes, rational arithmetic\n\n| k | polytopes | rows | unsound |")
    print("|---|---|---|---|")
    for k, share in ((2, 0.7), (3, 0.28), (4, 0.02)):
        polytope, pieces = random_polytopes(k, octahedral_rows(k), int(count * share), 1), Pieces.relu(k)
        rows = some_rows(polytope, pieces, k)
        unsound = checked = 0
        for g, r in np.argwhere(rows.valid):
            bounds = polytope.bounds[g].tolist()
            sides = pieces.rows.tolist(), pieces.maps.tolist()
            row = rows.z[g, r].tolist(), (-rows.a[g, r]).tolist()
            most = exact.support(polytope.rows.tolist(), bounds, *sides, *row)
            unsound += most is not None and most > exact.Fraction(float(rows.offset[g, r]))
            checked += 1
        print(f"| {k} | {polytope.groups} | {checked} | {unsound} |")


def some_rows(polytope: Polytope, pieces: Pieces, seed: int) -> Rows:
    """For every group a random supporting row, and separated rows with and without a pool."""
    random = np.random.default_rng(seed)
    z, a = random.normal(size=(2, polytope.groups, 1, polytope.k))
    every = np.ones((polytope.groups, 1), dtype=bool)
    pool = vertices(polytope, pieces)
    size = np.abs(polytope.bounds).max(axis=1, keepdims=True)
    x, y = size * random.uniform(-1.0, 1.0, (2, polytope.groups, polytope.k))
    parts = [
        Rows(z, a, support(polytope, pieces, z, -a).value, every),
        separate(polytope, pieces, x, y),
        separate(polytope, pieces, pool.z[:, 0], pool.a[:, 0] + 0.1 * np.abs(y), pool),
    ]
    return Rows(*(np.concatenate([getattr(p, name) for p in parts], axis=1) for name in ("z", "a", "offset", "valid")))


def timed(run: Callable[[], object], count: int, repeat: int = 3) -> str:
    """CPU and wall microseconds for each of `count` items, best of `repeat`."""
    best = [float("inf")] * 2
    run()
    for _ in range(repeat):
        began = time.process_time(), time.perf_counter()
        run()
        best = [min(best[0], time.process_time() - began[0]), min(best[1], time.perf_counter() - began[1])]
    return " | ".join(f"{1e6 * seconds / count:.1f}" for seconds in best)


def speed(quick: bool) -> None:
    """Microseconds per group, or per cut."""
    print("\n## Speed\n\n| what | k | CPU µs | wall µs |\n|---|---|---|---|")
    for k in (2, 3, 4, 5):
        for what, run, count in tasks(k, TIMED // 20 if quick else TIMED):
            print(f"| {what} | {k} | {timed(run, count)} |", flush=True)


def tasks(k: int, count: int) -> Iterator[tuple[str, Callable[[], object], int]]:
    """What is timed: its name, the call, and how many items it handles."""
    groups = family("wralu", k)
    base, pieces = groups.polytope, groups.pieces
    many = base.select(np.arange(count if k < 5 else count // 10) % base.groups)
    few = base.select(np.arange(min(many.groups, 10 ** (6 - k))) % base.groups)
    random = np.random.default_rng(0)
    slope, coeff = random.normal(size=(2, many.groups, 1, k))
    yield "support", lambda: support(many, pieces, slope, coeff), many.groups
    if k == 5:
        return
    yield "starting points, once per group", lambda: starting_points(few, pieces), few.groups
    yield "vertices, once per group", lambda: vertices(few, pieces), few.groups
    known = vertices(base, pieces)
    x = optima(groups, random.integers(0, len(groups.directions), many.groups))
    pool = chosen(known, np.arange(many.groups) % base.groups)
    yield "separate, per cut, vertices known", lambda: separate(many, pieces, x[:, :k], x[:, k:], pool), many.groups
    start = starting_points(many, pieces)
    yield (
        "separate, per cut, starting points known",
        lambda: separate(many, pieces, x[:, :k], x[:, k:], start),
        many.groups,
    )
    yield "separate, per cut, nothing known", lambda: separate(many, pieces, x[:, :k], x[:, k:]), many.groups


def chosen(points: Points, index: slice | np.ndarray) -> Points:
    """The points of some groups."""
    return Points(points.z[index], points.a[index], points.count[index])


def optima(groups: Family, direction: np.ndarray) -> Array:
    """Maximisers over P and the triangles, one for each chosen direction, the groups in turn: `(count, 2k)`."""
    inside = hull_centres(groups)
    systems = [triangles(groups, g) for g in range(groups.polytope.groups)]
    index = [i % groups.polytope.groups for i in range(len(direction))]
    return np.stack(
        [maximiser(*systems[g], groups.directions[d], inside[g]) for g, d in zip(index, direction, strict=True)]
    )


def hull_centres(groups: Family) -> Array:
    """A point inside the hull of every group."""
    known = vertices(groups.polytope, groups.pieces)
    return np.concatenate([known.z, known.a], axis=2).mean(axis=1)


def triangles(groups: Family, g: int) -> tuple[Array, Array]:
    """P and the triangles of group g as rows and bounds over (z, a)."""
    lower, upper, one, none = groups.lower[g], groups.upper[g], np.eye(groups.k), np.zeros((groups.k, groups.k))
    slope = upper / (upper - lower)
    left = np.concatenate([groups.polytope.rows, none, one, -np.diag(slope)])
    right = np.concatenate([0.0 * groups.polytope.rows, -one, -one, one])
    bounds = np.concatenate([groups.polytope.bounds[g], np.zeros(2 * groups.k), -slope * lower])
    return np.hstack([left, right]), bounds


def maximiser(rows: Array, bounds: Array, objective: Array, inside: Array) -> Array:
    """Where objective.x is largest in {x : rows x <= bounds}: the multipliers of the dual linear program."""
    norms = np.linalg.norm(rows, axis=1)
    slack = np.maximum(bounds - rows @ inside, 0.0) / norms
    x = np.empty(len(objective))
    if cheapest(np.ascontiguousarray((rows / norms[:, None]).T), slack, objective, 5000, x) < 0:
        raise ArithmeticError("the linear program of a gap was not solved")
    return x + inside


def gaps(count: int, directions: int) -> None:
    """Mean gaps of one to three separated facets for each direction."""
    print(f"\n## Gaps, {count} groups and {directions} directions of each family\n")
    print("| k | family | 1 cut | 2 cuts | 3 cuts |\n|---|---|---|---|---|")
    for k in (2, 3, 4):
        for name in FAMILIES:
            print(f"| {k} | {name} | {' | '.join(gap_row(name, k, count, directions))} |", flush=True)
    print(f"\n{PEERS}")


def gap_row(name: str, k: int, count: int, directions: int) -> list[str]:
    """The cells of one row of the table."""
    groups = family(name, k)
    known = vertices(groups.polytope, groups.pieces)
    tops = [(v @ groups.directions.T).max(axis=0) for v in reference(benchmark_folder(), name, k)]
    shares = []
    for g in range(count):
        for d in range(directions):
            cell = shares_left(groups, known, g, d, float(tops[g][d]))
            shares += [cell] if cell else []
    return [f"{mean:.5f}" for mean in np.mean(shares, axis=0)]


def shares_left(groups: Family, known: Points, g: int, d: int, top: float) -> list[float]:
    """What one, two and three cuts leave of the gap in one direction; [] if there is none."""
    inside = np.concatenate([known.z[g], known.a[g]], axis=1).mean(axis=0)
    objective, (rows, bounds) = groups.directions[d], triangles(groups, g)
    x = maximiser(rows, bounds, objective, inside)
    start = float(objective @ x)
    if start <= top + 1e-6 * (1.0 + abs(top)):
        return []
    values = []
    polytope, k = groups.polytope.select(slice(g, g + 1)), groups.k
    pool = chosen(known, slice(g, g + 1))
    for _ in range(3):
        rows, bounds = extended(rows, bounds, separate(polytope, groups.pieces, x[None, :k], x[None, k:], pool))
        x = maximiser(rows, bounds, objective, inside)
        values.append(objective @ x)
    return [float((value - top) / (start - top)) for value in values]


def extended(rows: Array, bounds: Array, extra: Rows) -> tuple[Array, Array]:
    """A system of inequalities with the valid rows of the first group added."""
    valid = extra.valid[0]
    new = np.concatenate([extra.z[0][valid], extra.a[0][valid]], axis=1)
    return np.vstack([rows, new]), np.concatenate([bounds, extra.offset[0][valid]])


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few samples")
    parser.add_argument("--all", action="store_true", help="all groups and directions for the gaps")
    options = parser.parse_args()
    exactness()
    soundness(400 if options.quick else 20_000)
    speed(options.quick)
    gaps(*((100, 200) if options.all else (5, 20) if options.quick else (20, 50)))


if __name__ == "__main__":
    main()
