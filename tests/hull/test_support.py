"""Support values are upper bounds in exact arithmetic, exact to rounding, and monotone in effort."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from tests.hull.oracles import exact
from tests.hull.random_polytopes import random_directions, random_polytopes
from tests.marks import at_night_after

from krelax.hull import jit
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Polytope, octahedral_rows, pair_rows
from krelax.hull.support import NO_ROW, bases, support

# What is added against underflow, many orders of magnitude below any number here.
UNDERFLOW = 1e-250
BOX = np.concatenate([np.eye(2), -np.eye(2)])


def exact_support(polytope, pieces, g, slope, coeff):
    return exact.support(
        polytope.rows.tolist(),
        polytope.bounds[g].tolist(),
        pieces.rows.tolist(),
        pieces.maps.tolist(),
        slope.tolist(),
        coeff.tolist(),
    )


def magnitude(polytope, pieces, slope, coeff):
    """|slope|.|z| + |coeff|.|a| at most, over the boxes: `(G, D)`."""
    reach = np.maximum(abs(polytope.lower), abs(polytope.upper))[:, None]
    return (abs(slope) * reach).sum(-1) + (abs(coeff) * (abs(pieces.maps).max(0) @ reach[..., None])[..., 0]).sum(-1)


def check_exactly(polytope, pieces, seed):
    """Sound with tolerance zero, and within 1e-12, in rational arithmetic."""
    slope, coeff = random_directions(np.random.default_rng(seed), polytope.groups, pieces.k, pieces.outputs)
    found = support(polytope, pieces, slope, coeff)
    size = magnitude(polytope, pieces, slope, coeff)
    assert np.isfinite(found.value).all()
    for g in range(polytope.groups):
        true, value = exact_support(polytope, pieces, g, slope[g, 0], coeff[g, 0]), Fraction(found.value[g, 0])
        assert true is None or true <= value, f"group {g}: unsound by {float(true - value)}"
        slack = float(value - true) if true is not None else 0.0
        assert slack <= 1e-12 * size[g, 0] + UNDERFLOW, f"group {g}: loose by {slack}"


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("family", ["zono", "wralu"])
def test_equals_the_maximum_over_the_vertices(hull_data, family, k):
    data, known, D = hull_data(f"{family}_k{k}"), hull_data(f"ref_{family}_k{k}"), hull_data(f"directions_k{k}")["D"]
    polytope, slope, coeff = Polytope(data["A"], data["B"]), D[None, :, :k], -D[None, :, k:]
    found = support(polytope, Pieces.relu(k), slope, coeff)
    for g, (start, stop) in enumerate(zip(known["off"], known["off"][1:], strict=False)):
        vertices = known["V"][start:stop]
        values = vertices @ slope[0].T - np.maximum(vertices, 0) @ coeff[0].T
        np.testing.assert_allclose(found.value[g], values.max(0), rtol=1e-9, atol=1e-12)
    attained = (slope * found.z).sum(-1) - (coeff * found.a).sum(-1)
    np.testing.assert_allclose(attained, found.value, rtol=1e-9, atol=1e-11)
    assert (found.z @ polytope.rows.T <= polytope.bounds[:, None] + 1e-12).all()


@pytest.mark.parametrize(
    ("k", "rows", "count"),
    [
        (1, octahedral_rows, 32),
        (2, octahedral_rows, 64),
        (3, octahedral_rows, 32),
        (4, pair_rows, 16),
        (4, octahedral_rows, 8),
    ],
)
@pytest.mark.parametrize("times", at_night_after(1, (1, 25)))
def test_sound_in_exact_arithmetic(k, rows, count, times):
    check_exactly(random_polytopes(k, rows(k), count * times, seed=2), Pieces.relu(k), seed=3)


@pytest.mark.parametrize(
    "pieces",
    [
        Pieces.coordinatewise([0.01, 1.0, 0.0], [1.0, 1.0, 1.0]),
        Pieces.coordinatewise([-1.0, 0.3, 2.0], [1.0, 0.3, -0.7]),
        Pieces.maximum(3),
    ],
    ids=["leaky and pass-through", "absolute value and others", "maximum"],
)
def test_other_activations(pieces):
    check_exactly(random_polytopes(3, octahedral_rows(3), 16, seed=4), pieces, seed=5)
    # here the rows of a maximum are not among those of the polytope
    boxes = random_polytopes(3, np.concatenate([np.eye(3), -np.eye(3)]), 16, seed=6)
    check_exactly(boxes, pieces, seed=7)


def test_a_pass_through_makes_the_maximum_of_two_exact():
    # z = (x2, x1 - x2) for x in [0, 1]^2, where max(x1, x2) = x2 + relu(x1 - x2) is at most 1, by triangles 1.5
    rows = octahedral_rows(2)
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, -1.0], [1.0, 0.0]])
    polytope = Polytope(rows, (corners @ rows.T).max(0)[None])
    found = support(polytope, Pieces.coordinatewise([1, 0], [1, 1]), np.zeros((1, 1, 2)), -np.ones((1, 1, 2)))
    assert 1.0 <= found.value[0, 0] <= 1.0 + 1e-13


def test_two_relus_of_a_rotated_square():
    polytope = Polytope(octahedral_rows(2), np.full((1, 8), 2.0))
    found = support(polytope, Pieces.relu(2), np.zeros((1, 1, 2)), -np.ones((1, 1, 2)))
    assert 2.0 <= found.value[0, 0] <= 2.0 + 1e-13


@pytest.mark.parametrize("k", [2, 4])
def test_stopping_early_is_sound_and_effort_pays(k):
    polytope, pieces = random_polytopes(k, octahedral_rows(k), 400, seed=8), Pieces.relu(k)
    slope, coeff = random_directions(np.random.default_rng(9), 400, k, k)
    steps = [support(polytope, pieces, slope, coeff, pivots=n).value for n in (0, 1, 2, 4, 8, 16)]
    final = support(polytope, pieces, slope, coeff).value
    slack = 1e-13 * magnitude(polytope, pieces, slope, coeff)
    for before, after in zip(steps, [*steps[1:], final], strict=True):
        assert (after <= before + slack).all()
    assert (steps[0] > final + slack).mean() > 0.3
    assert np.isfinite(steps).all()


def test_directions_broadcast_over_groups():
    polytope, pieces = random_polytopes(3, pair_rows(3), 20, seed=10), Pieces.relu(3)
    slope, coeff = np.random.default_rng(0).normal(size=(2, 1, 7, 3))
    once = support(polytope, pieces, slope, np.repeat(coeff, 20, axis=0))
    each = [support(polytope.select(slice(g, g + 1)), pieces, slope, coeff).value[0] for g in range(20)]
    assert np.array_equal(once.value, each)


def test_an_empty_polytope_is_below_everything_in_its_box():
    polytope = Polytope(octahedral_rows(2), np.array([[1, 1, 1, 1, 1, 1, 1, -3]]))
    assert support(polytope, Pieces.relu(2), np.ones((1, 1, 2)), np.ones((1, 1, 2))).value[0, 0] < -4


def test_what_is_not_finite_gives_infinity_and_never_nan():
    bounds = np.ones((3, 4))
    bounds[0, 0], bounds[1, 3] = np.nan, np.inf
    slope = np.zeros((3, 3, 2))
    slope[2, 0, 1], slope[2, 1, 0] = np.nan, -np.inf
    value = support(Polytope(BOX, bounds), Pieces.relu(2), slope, np.zeros((3, 3, 2))).value
    assert (value[:2] == np.inf).all()
    assert value[2].tolist() == [np.inf, np.inf, 0.0]


def test_rows_without_a_bound_do_nothing():
    rows = octahedral_rows(2)
    loose = np.where(np.count_nonzero(rows, axis=1) == 1, 1.0, np.inf)[None]
    slope, coeff = np.random.default_rng(1).normal(size=(2, 1, 9, 2))
    both = [
        support(p, Pieces.relu(2), slope, coeff).value for p in (Polytope(rows, loose), Polytope(BOX, np.ones((1, 4))))
    ]
    np.testing.assert_allclose(*both, rtol=1e-13)  # type: ignore[call-overload]


def test_numbers_at_the_ends_of_the_range():
    for bound, factor in [(1e-300, 1e-300), (1e300, 1e300), (1e300, 1e-300), (5e-324, 1.0), (0.0, 1.0)]:
        polytope, slope = Polytope(BOX, np.full((1, 4), bound)), np.full((1, 1, 2), factor)
        value = support(polytope, Pieces.relu(2), slope, 0 * slope).value[0, 0]
        true = 2 * Fraction(bound) * Fraction(factor)
        assert value == np.inf or Fraction(value) >= true
        assert (value == np.inf) == (true > Fraction(np.finfo(float).max))


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="unit row"):
        Polytope(np.eye(2), np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"\(m, k\) and \(G, m\)"):
        Polytope(BOX, np.ones((1, 3)))
    with pytest.raises(ValueError, match="slope is"):
        support(Polytope(BOX, np.ones((3, 4))), Pieces.relu(2), np.ones((2, 1, 2)), np.ones((3, 1, 2)))
    with pytest.raises(ValueError, match="cannot split"):
        support(Polytope(BOX, np.ones((3, 4))), Pieces.relu(3), np.ones((3, 1, 2)), np.ones((3, 1, 3)))


def test_threads_do_not_disturb_each_other(monkeypatch):
    monkeypatch.setattr(jit, "threads", lambda: 2)
    polytope, pieces = random_polytopes(3, octahedral_rows(3), 2000, seed=11), Pieces.relu(3)
    slope, coeff = random_directions(np.random.default_rng(12), 2000, 3, 3)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: support(polytope, pieces, slope, coeff), range(8)))
    alone = support(polytope.select(slice(0, 100)), pieces, slope[:100], coeff[:100])
    assert all(np.array_equal(found[0].value, other.value) for other in found)
    assert np.array_equal(found[0].value[:100], alone.value)


WITHOUT_NUMBA = """
import os
import numpy as np
from tests.hull.random_polytopes import random_directions, random_polytopes
from krelax.hull import jit
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import octahedral_rows
from krelax.hull.support import NO_ROW, bases, support
from krelax.hull.vertices import vertices
assert jit.COMPILED == (os.environ.get("KRELAX_NUMBA") != "0")
polytope, pieces = random_polytopes(3, octahedral_rows(3), 16, seed=13), Pieces.relu(3)
found = support(polytope, pieces, *random_directions(np.random.default_rng(14), 16, 3, 3))
points = vertices(polytope.select(slice(0, 4)), pieces)
print(repr([x.tolist() for x in (found.value, found.z, points.z, points.a)]))
"""


def test_plain_python_computes_the_same(capsys):
    pytest.importorskip("numba")
    assert_plain_python_prints_the_same(WITHOUT_NUMBA, capsys)


def assert_plain_python_prints_the_same(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As this process, in which kernels are compiled."""
    environment = {**os.environ, "KRELAX_NUMBA": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    capsys.readouterr()
    exec(compile(code, "code", "exec"), {})
    assert capsys.readouterr().out == run.stdout


def test_importing_krelax_does_not_import_numba():
    command = [sys.executable, "-c", "import krelax, sys; assert 'numba' not in sys.modules"]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("k", [2, 3, 4])
def test_bases_prove_the_support_function(k: int) -> None:
    """For every piece: multipliers solved for exactly, at least zero, prove no more than the maximum; or emptiness."""
    rng = np.random.default_rng(k)
    rows = octahedral_rows(k)
    points = rng.normal(0.3, 1, (6, 5, k))
    polytope = Polytope(rows, np.einsum("mk,gpk->gpm", rows, points).max(1))
    pieces = Pieces.relu(k)
    slope, coeff = rng.normal(0, 1, (2, 6, 4, k))
    value, found = support(polytope, pieces, slope, coeff).value, bases(polytope, pieces, slope, coeff)
    empty = 0
    for g, d, piece in np.ndindex(6, 4, 2**k):
        sign = np.where(piece >> np.arange(k) & 1, 1.0, -1.0)
        every = np.concatenate([rows, -np.diag(sign)])
        bounds = np.concatenate([polytope.bounds[g], np.zeros(k)])
        c = slope[g, d] - coeff[g, d] * (sign > 0)
        basis, last = found[g, d, piece, :k], found[g, d, piece, k]
        if basis[0] == NO_ROW:
            low = np.where(sign > 0, polytope.lower[g].clip(0), polytope.lower[g])
            high = np.where(sign > 0, polytope.upper[g], polytope.upper[g].clip(max=0))
            assert (low > high).any() or np.maximum(c * low, c * high).sum() <= value[g, d] + 1e-9
            continue
        y = np.linalg.solve(every[basis].T, c)
        assert (y >= -1e-9).all()
        if last == NO_ROW:
            assert y @ bounds[basis] <= value[g, d] + 1e-9
            continue
        empty += 1
        weight = np.linalg.solve(every[basis].T, every[last])
        assert (weight <= 1e-9).all()
        assert bounds[last] - weight @ bounds[basis] < 0
    assert empty > 0 or k < 4  # where a basis alone does not show it
