"""The triangle linear program: what its multipliers prove is never above the truth, and as much as the program says."""

from __future__ import annotations

import ast
import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from tests.bounds.problems import Problem, margins, problems
from tests.exact import Layer, as_network
from tests.marks import at_night_after
from torch import Tensor

from krelax.activations import LeakyReLU, Max, ReLU, Sigmoid, Tanh
from krelax.bounds import lp
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.lp import Cut, Program, Solution, Status
from krelax.bounds.lp_model import Rows
from krelax.bounds.methods import METHODS, bound
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Conv, Dense
from krelax.network.onnx import load_onnx
from krelax.network.ops import Reshape, Take
from krelax.problem.images import load_images
from krelax.problem.queries import Queries, classification
from krelax.problem.region import Box, ball

BENCHMARKS = Path(os.environ.get("KRELAX_BENCHMARKS", Path(__file__).resolve().parents[3] / "shared" / "benchmarks"))


def instance_of(problem: Problem) -> Instance:
    region = Box(torch.from_numpy(problem.lower), torch.from_numpy(problem.upper))
    return Instance.of(as_network(problem.layers), region)


def proved(program: Program, row: Tensor, offset: float = 0.0) -> tuple[Solution, float]:
    """What the solver says of a form of the output, and what its slopes prove."""
    solution = program.minimise(row, offset)
    shape = program.instance.network.output_shape
    value = program.value(row.reshape(1, *shape), torch.tensor([offset], dtype=torch.float64), solution.slopes)
    return solution, value.item()


def random_problem(seed: int, slope: float = 0.0, skip: bool = False, width: int = 12) -> Problem:
    rng = np.random.default_rng(seed)
    widths = [2, width, width, width]
    layers = [
        Layer((rng.normal(size=(m, n)) / n).tolist(), (0.3 * rng.normal(size=m)).tolist(), slope, skip and n == m)
        for n, m in pairwise(widths)
    ]
    lower = rng.normal(size=(2, 2))
    return Problem(layers, lower, lower + 2.0, rng.normal(size=(2, width)), rng.normal(size=2))


def textbook() -> Program:
    """z1 = u + v, z2 = u - v over [-1, 1]^2."""
    layers = [Layer([[1.0, 1.0], [1.0, -1.0]], [0.0, 0.0])]
    problem = Problem(layers, np.full((1, 2), -1.0), np.ones((1, 2)), np.full((1, 2), -1.0), np.zeros(1))
    return Program(instance_of(problem), problem.bounded("crown").bounds)


# --- soundness -------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems())
def test_no_value_exceeds_the_exact_minimum(problem: Problem) -> None:
    """No tolerance, at any scale of weights, whatever the solver makes of them; with cold and warm solves."""
    instance, bounds = instance_of(problem), problem.bounded("crown").bounds
    for image, minima in enumerate(problem.minima()):
        program = Program(instance, bounds, image)
        for row, offset, exact in zip(problem.rows, problem.offsets, minima, strict=True):
            _, value = proved(program, torch.from_numpy(row), float(offset))
            assert np.isfinite(value)
            assert Fraction(value) <= exact


def corruptions(slopes: dict[int, Tensor], rng: np.random.Generator) -> dict[str, dict[int, Tensor]]:
    noise = {i: torch.from_numpy(rng.normal(size=s.shape)) for i, s in slopes.items()}
    return {
        "noise": {i: s + noise[i] for i, s in slopes.items()},
        "far": {i: 1e9 * noise[i] for i in slopes},
        "sign": {i: -s for i, s in slopes.items()},
        "zero": {i: torch.zeros_like(s) for i, s in slopes.items()},
        "none": {},
        "overflow": {i: 1e308 * noise[i] for i in slopes},
        "infinite": {i: torch.full_like(s, torch.inf) for i, s in slopes.items()},
        "nan": {i: torch.full_like(s, torch.nan) for i, s in slopes.items()},
    }


@pytest.mark.parametrize("seed", at_night_after(1, range(3)))
def test_corrupted_slopes_prove_less_never_more(seed: int) -> None:
    problem = random_problem(seed, slope=[0.0, 0.1, 0.0][seed], skip=seed == 2)
    program = Program(instance_of(problem), problem.bounded("crown").bounds)
    row, offset = torch.from_numpy(problem.rows[0]), float(problem.offsets[0])
    exact, solution = problem.minima()[0][0], program.minimise(row, offset)
    for kind, slopes in corruptions(solution.slopes, np.random.default_rng(seed)).items():
        value = program.value(row[None], torch.tensor([offset], dtype=torch.float64), slopes).item()
        if kind in {"infinite", "nan"}:
            assert value == -np.inf, kind
        else:
            assert value == -np.inf or Fraction(value) <= exact, kind


def dense(rng: np.random.Generator, n: int, m: int) -> Dense:
    return Dense(torch.from_numpy(2 * rng.normal(size=(m, n)) / np.sqrt(n)), torch.from_numpy(rng.normal(size=m)))


def convolutional(rng: np.random.Generator) -> Network:
    """Convolution, maxima over overlapping windows, convolution, and a shift between two affine nodes."""
    builder = Builder((1, 1, 6))
    first, second = (torch.from_numpy(rng.normal(size=s)) for s in ((3, 1, 3), (4, 3, 2)))
    x = builder.add(ReLU(), builder.add(Conv(first, torch.from_numpy(rng.normal(size=3)), (1,), (1,), (1,)), 0))
    windows = torch.arange(18).reshape(3, 6)[:, torch.tensor([[0, 1, 2], [2, 3, 3], [3, 4, 5]])]
    x = builder.add(Max(), builder.add(Take(windows), x))
    x = builder.add(ReLU(), builder.add(Conv(second, None, (1,), (0,), (1,)), builder.add(Reshape((1, 3, 3)), x)))
    return builder.build(builder.add(dense(rng, 5, 4), builder.add(dense(rng, 8, 5), builder.add(Reshape((8,)), x))))


def residual(rng: np.random.Generator) -> Network:
    """Two leaky blocks around a skip, on an input that is flattened first."""
    builder = Builder((1, 1, 6))
    x = builder.add(dense(rng, 6, 6), builder.add(Reshape((6,)), 0))
    for _ in range(2):
        y = builder.add(LeakyReLU(0.1), builder.add(dense(rng, 6, 6), builder.add(ReLU(), x)))
        x = builder.add(Add((1, 1)), x, y)
    return builder.build(builder.add(dense(rng, 6, 4), x))


def smooth(rng: np.random.Generator) -> Network:
    """Sigmoid and tanh of one pre-activation, and a tanh of the input itself."""
    builder = Builder((1, 1, 6))
    x = builder.add(Reshape((6,)), 0)
    z = builder.add(dense(rng, 6, 6), builder.add(Tanh(), x))
    both = builder.add(Add((1, -1)), builder.add(Sigmoid(), z), builder.add(Tanh(), z))
    return builder.build(builder.add(dense(rng, 6, 4), builder.add(ReLU(), builder.add(dense(rng, 6, 6), both))))


def solved(network: Network, radius: float, rng: np.random.Generator) -> tuple[Program, Tensor, Tensor]:
    """A program over a box, five margins, and their least values over samples of the box."""
    middle = torch.from_numpy(rng.normal(size=(1, *network.input_shape)))
    instance = Instance.of(network, Box(middle - radius, middle + radius))
    rows = torch.from_numpy(rng.normal(size=(5, 4)))
    bounds = bound(instance, margins(rows[None], torch.zeros(1, 5).double()), METHODS["crown"]).bounds
    share = torch.from_numpy(rng.uniform(-1, 1, size=(20_000, *network.input_shape)))
    share[::2] = share[::2].sign()
    return Program(instance, bounds), rows, (network(middle + radius * share).flatten(1) @ rows.T).amin(0)


@pytest.mark.parametrize("radius", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("make", [convolutional, residual, smooth], ids=lambda f: f.__name__)
def test_every_kind_of_network_is_bounded(make, radius: float) -> None:
    """No sample is below the value (1e-9 is for the samples' own rounding), and the value of a point is exact."""
    program, rows, least = solved(make(np.random.default_rng(3)), radius, np.random.default_rng(4))
    for row, low in zip(rows, least.tolist(), strict=True):
        solution, value = proved(program, row)
        assert solution.status is Status.OPTIMAL
        assert low - (np.inf if radius else 1e-6) < value <= low + 1e-9


# --- as much as the program says -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slope", "skip"), [(0.0, False), (0.0, True), (0.1, False), (0.1, True)])
def test_the_value_is_the_optimum_which_no_slopes_exceed(slope: float, skip: bool) -> None:
    """Strong duality: the multipliers are optimal slopes, so alpha cannot exceed them over the same bounds."""
    for seed in range(3):
        problem = random_problem(seed, slope, skip)
        alpha, instance = problem.bounded("alpha"), instance_of(problem)
        for image, row in chain.from_iterable([((i, 0), (i, 1)) for i in range(2)]):
            program = Program(instance, alpha.bounds, image)
            solution, value = proved(program, torch.from_numpy(problem.rows[row]), float(problem.offsets[row]))
            assert solution.status is Status.OPTIMAL
            assert value == pytest.approx(solution.objective, rel=1e-6, abs=1e-9)
            assert value >= alpha.value[image, row].item() - 1e-6


@pytest.mark.parametrize("make", [convolutional, residual, smooth], ids=lambda f: f.__name__)
def test_no_kind_of_network_loses(make) -> None:
    """Curves may gain: their support functions are exact, and the program has but a few lines of them."""
    program, rows, _ = solved(make(np.random.default_rng(3)), 0.7, np.random.default_rng(6))
    for row in rows:
        solution, value = proved(program, row)
        assert value >= solution.objective - 1e-6 * abs(solution.objective)
        if make is residual:
            assert value == pytest.approx(solution.objective, rel=1e-6)


def test_any_slopes_of_maxima_are_sound() -> None:
    """Positive and negative coefficients of a maximum over overlapping windows, slopes at random."""
    rng = np.random.default_rng(8)
    program, rows, least = solved(convolutional(rng), 0.7, rng)
    shapes = {i: s.shape for i, s in program.minimise(rows[0]).slopes.items()}
    for _ in range(50):
        slopes = {i: torch.from_numpy(rng.normal(size=(5, *s[1:]))) for i, s in shapes.items()}
        value = program.value(rows, torch.zeros(5), slopes)
        assert (value <= least + 1e-9).all()


def test_triangles_of_the_textbook_example() -> None:
    """Two triangles bound a1 + a2 by 3; the neurons together by 2, which one inequality says."""
    program = textbook()
    row = -torch.ones(2).double()
    assert proved(program, row)[1] == pytest.approx(-3)
    after = program.after(2)
    assert (program.before(2) >= 0).all()
    assert (after.scale == 1).all()
    useful, useless = program.add_rows([Cut(after.column, np.ones(2), 2.0), Cut(after.column[:1], [1.0], 9.0)])
    solution = program.solve()
    assert solution.objective == pytest.approx(-2)
    assert solution.multipliers[useful] > 0.5
    assert program.drop_slack_rows(solution) == [useless]
    assert list(program.solve().multipliers) == [useful]
    program.drop_rows([useful])
    assert program.solve().objective == pytest.approx(-3)
    assert proved(program, -row)[1] == pytest.approx(0, abs=1e-9)


def test_benchmark_network() -> None:
    path = BENCHMARKS / "eran" / "mnist_6_100.onnx"
    if not path.is_file():
        pytest.skip("KRELAX_BENCHMARKS does not hold eran/mnist_6_100.onnx")
    network = load_onnx(str(path))
    data = load_images(path.parent / "mnist_test.npz", network.input_shape, 10)
    labels = torch.from_numpy(data.labels[4:5])
    instance = Instance.of(network, ball(torch.from_numpy(data.images[4:5]).double(), 0.026))
    queries = classification(labels, 10)
    alpha = bound(instance, queries, METHODS["alpha"])
    program = Program(instance, alpha.bounds)
    for k in range(3):
        solution, value = proved(program, queries.rows[0, k])
        assert value == pytest.approx(solution.objective, rel=1e-9)
        assert alpha.value[0, k].item() - 1e-6 <= value <= alpha.value[0, k].item() + 0.05


# --- around it -------------------------------------------------------------------------------------------------------


def proven(program: Program, forms: Tensor) -> Tensor:
    """What the solver's slopes prove of each of the forms `(n, entries)` of the program's last node."""
    slopes = [program.minimise(form).slopes for form in forms]
    together = {i: torch.cat([s[i] for s in slopes]) for i in slopes[0]}
    return program.value(forms, forms.new_zeros(len(forms)), together)


@pytest.mark.parametrize("seed", at_night_after(1, range(3)))
def test_tightened_bounds_hold_and_gain(seed: int) -> None:
    problem = random_problem(seed, skip=seed == 1)
    bounds, node = problem.bounded("crown").bounds, problem.places()[2]
    program = Program(instance_of(problem), bounds, 1, last=node)
    entries = torch.eye(12, dtype=torch.float64)[[0, 3, 7]]
    lower, upper = (sign * proven(program, sign * entries) for sign in (1, -1))
    before = bounds.upper[node][1, [0, 3, 7]] - bounds.lower[node][1, [0, 3, 7]]
    assert (upper - lower < 0.999 * before).any()
    for i, low, high in zip([0, 3, 7], lower.tolist(), upper.tolist(), strict=True):
        exact = problem.pre_activations()[1][2][i]
        assert Fraction(low) <= exact.low
        assert Fraction(high) >= exact.high


def split(bounds: LayerBounds, node: int, entry: int) -> None:
    """Only what lies at or below zero."""
    upper = bounds.upper[node].clone()
    upper[:, entry] = 0.0
    bounds.replace(node, bounds.lower[node], upper, None)


def test_contradictory_splits_prove_the_region_empty() -> None:
    """u + v <= 0 where it is at least 1: the ray says so, and the arithmetic agrees."""
    layers = [Layer([[1.0, 1.0], [1.0, -1.0]], [0.0, 0.0])]
    problem = Problem(layers, np.full((1, 2), 0.5), np.ones((1, 2)), np.ones((1, 2)), np.zeros(1))
    bounds = problem.bounded("crown").bounds
    bounds.replace(1, bounds.lower[1] - 5.0, bounds.upper[1], None)
    split(bounds, 1, 0)
    program = Program(instance_of(problem), bounds, inactive=True)
    solution = program.minimise(torch.ones(2))
    assert solution.status is Status.INFEASIBLE
    nothing = torch.zeros(1, 2).double()
    assert program.value(nothing, nothing[:, 0], solution.slopes).item() > 0.1


def test_bounds_of_inactive_neurons_cut_after_splits() -> None:
    """Where u + v <= 0, u + v is at most 0; without that row it is at most 2."""
    layers = [Layer([[1.0, 1.0], [1.0, 0.0]], [0.0, 0.0]), Layer([[1.0, 1.0]], [0.0], None)]
    problem = Problem(layers, np.full((1, 2), -1.0), np.ones((1, 2)), np.ones((1, 1)), np.zeros(1))
    bounds, row = problem.bounded("crown").bounds, torch.tensor([1.0, 1.0]).double()
    split(bounds, 1, 0)
    found = {}
    for inactive in (False, True):
        program = Program(instance_of(problem), bounds, inactive=inactive)
        solution = program.minimise(-row, node=0)
        found[inactive] = program.value(-row[None], torch.zeros(1).double(), solution.slopes, node=0).item()
    assert found[False] == pytest.approx(-2)
    assert found[True] == pytest.approx(0, abs=1e-9)


def test_a_solve_that_is_cut_short_still_proves_something(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(1)
    program = Program(instance_of(problem), problem.bounded("crown").bounds)
    monkeypatch.setattr(Program, "_run", lambda self, solver: Status.UNFINISHED)
    solution, value = proved(program, torch.from_numpy(problem.rows[0]))
    assert solution.status is Status.UNFINISHED
    assert np.isfinite(value)


def test_rows_with_numbers_out_of_range_say_nothing() -> None:
    """The solver never ends on some of them, and crashes on others."""
    row, index = np.array([0, 0, 1, 2, 3, 4, 5]), np.arange(7)
    value = np.array([1.0, np.nan, 2.0, np.inf, 3.0, -1e15, 1.0])
    lower = np.array([0.0, -np.inf, 0.0, np.nan, 0.0, -1e300])
    clean = Rows.of(row, index, value, lower, np.array([0.0, 1.0, 0.0, np.nan, 0.0, 1.0])).within_range()
    assert clean.value.tolist() == [0, 0, 2, 0, 0, 0, 0]
    assert clean.lower.tolist() == [-np.inf] * 6
    assert clean.upper.tolist() == [np.inf, 1, *[np.inf] * 4]


@pytest.mark.parametrize("size", [1e19, 1e21, 1e300])
def test_programs_with_huge_bounds_are_solved_or_left(size: float) -> None:
    """The second input is a single number, as large as all bounds behind it."""
    builder = Builder((2,))
    z = builder.add(Dense(torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double(), torch.zeros(2).double()), 0)
    region = Box(*(torch.tensor([[x, size]], dtype=torch.float64) for x in (-1.0, 1.0)))
    instance = Instance.of(builder.build(builder.add(ReLU(), z)), region)
    queries = Queries(torch.ones(1, 1, 2).double(), torch.zeros(1, 1).double(), torch.zeros(1, 1).long(), 1)
    program = Program(instance, bound(instance, queries, METHODS["crown"]).bounds)
    for factor in (1.0, 1e20):
        value = proved(program, torch.full((2,), factor, dtype=torch.float64))[1]
        assert value <= factor * size * (1 + 1e-12)


def test_forms_that_overflow_are_bounded() -> None:
    builder = Builder((2,))
    node = 0
    for factor in (1e200, 1e200):
        weight = factor * torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
        node = builder.add(ReLU(), builder.add(Dense(weight, torch.zeros(2).double()), node))
    region = Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double())
    queries = Queries(torch.eye(2).double()[None], torch.ones(1, 2).double(), torch.zeros(1, 2).long(), 1)
    found = bound(Instance.of(builder.build(node), region), queries, METHODS["lp"])
    assert bool((found.value <= 1).all())  # outputs are zero at the origin


def test_programs_solve_side_by_side() -> None:
    problem = random_problem(0, width=20)
    instance, bounds = instance_of(problem), problem.bounded("crown").bounds
    rows = [torch.from_numpy(r) for r in problem.rows]

    def values(image: int) -> list[float]:
        program = Program(instance, bounds, image % 2)
        return [proved(program, row)[1] for row in rows]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(values, range(8)))
    assert together == [values(i) for i in range(8)]


def test_other_regions_are_bounded_by_what_the_multipliers_prove_over_them() -> None:
    """The program sees the bounding box of a ball; its witness is evaluated over the ball itself."""
    problem = random_problem(0)
    bounds = problem.bounded("crown").bounds
    region = ball(torch.zeros(2, 2).double(), 0.1, "l2", None)
    row = torch.from_numpy(problem.rows[:1])
    values = []
    for shape in (region, Box(region.lower, region.upper)):
        program = Program(Instance.of(as_network(problem.layers), shape), bounds)
        solution = program.minimise(row[0])
        values.append(program.value(row, torch.zeros(1).double(), solution.slopes).item())
    assert values[0] > values[1]


def test_the_solver_is_imported_when_it_is_needed() -> None:
    for node in ast.parse(inspect.getsource(lp)).body:
        assert not (isinstance(node, ast.Import | ast.ImportFrom) and "highspy" in ast.unparse(node))
