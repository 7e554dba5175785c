"""Cutting planes: what their multipliers prove is never above the truth, and as much as the program says."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from tests.bounds.problems import Problem, margins, problems
from tests.exact import Layer, as_network
from tests.marks import at_night_after

from krelax.bounds.backward import Form, lower_bound, outputs
from krelax.bounds.bounded import Bounded
from krelax.bounds.cutting import Cutter, Cutting, Separator, bound_by_cutting
from krelax.bounds.instance import Instance
from krelax.bounds.lp import Program, bound_by_lp
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.multineuron import MultiNeuron, bound_layers
from krelax.bounds.multipliers import Cuts, Multipliers
from krelax.bounds.optimise import Ascent
from krelax.bounds.steps import Step
from krelax.errors import InputError
from krelax.hull.grouping import Grouping
from krelax.network.onnx import load_onnx
from krelax.problem.images import load_images
from krelax.problem.queries import Queries, classification
from krelax.problem.region import Box, ball

BENCHMARKS = Path(os.environ.get("KRELAX_BENCHMARKS", Path(__file__).resolve().parents[3] / "shared" / "benchmarks"))
SHORT = Ascent(6, 0.5, 0.8)
MULTI_NEURON = MultiNeuron(Grouping(neurons=12), inner=SHORT, combinations=SHORT)
EVERYTHING = Cutting(rounds=30, tolerance=1e-9, gain=0.0)


def grouped(problem: Problem, image: int = 0, size: int = 2) -> tuple[Instance, Queries, Bounded]:
    """One region, its margins, and bounds with groups of all unstable neurons in every layer."""
    region = Box(torch.from_numpy(problem.lower), torch.from_numpy(problem.upper))
    index = torch.tensor([image])
    instance = Instance.of(as_network(problem.layers), region).select(index)
    queries = margins(*(torch.from_numpy(t)[None] for t in (problem.rows, problem.offsets)))
    assert MULTI_NEURON.grouping is not None
    multi_neuron = replace(MULTI_NEURON, grouping=replace(MULTI_NEURON.grouping, size=size))
    return instance, queries, with_groups(instance, bound(instance, queries, METHODS["crown"]), multi_neuron)


def with_groups(instance: Instance, found: Bounded, multi_neuron: MultiNeuron) -> Bounded:
    """Groups of the largest triangles of every layer, and no bound of the margins yet."""
    triangles = {i: t for i, r in found.bounds.relaxations.items() if (t := r.triangle()) is not None}
    scores = {i: t.height()[0].flatten() for i, t in triangles.items()}
    with torch.no_grad():
        bounds = bound_layers(instance, found.bounds, scores, multi_neuron)
    return Bounded(torch.full_like(found.value, -torch.inf), bounds)


def random_problem(seed: int, slope: float = 0.0, skip: bool = False) -> Problem:
    rng = np.random.default_rng(seed)
    layers = [
        Layer((rng.normal(size=(m, n)) / n**0.5).tolist(), (0.1 * rng.normal(size=m)).tolist(), slope, skip and n == m)
        for n, m in pairwise([2, 8, 8, 8])
    ]
    lower = 0.3 * rng.normal(size=(1, 2)) - 1.0
    return Problem(layers, lower, lower + 2.0, rng.normal(size=(3, 8)), rng.normal(size=3))


def turned(weight: list[list[float]], bias: list[float], rows: list[list[float]]) -> Problem:
    """Two neurons over [-1, 1]^2, and forms of them."""
    square = np.ones((1, 2))
    return Problem([Layer(weight, bias)], -square, square, np.array(rows), np.zeros(len(rows)))


TEXTBOOK = turned([[1.0, 1.0], [1.0, -1.0]], [0.0, 0.0], [[-1.0, -1.0]])


# --- soundness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems(depth=3, width=6, batch=1))
def test_no_value_exceeds_the_exact_minimum(problem: Problem, size: int) -> None:
    """No tolerance, at any scale of weights."""
    instance, queries, found = grouped(problem, size=size)
    value = bound_by_cutting(instance, queries, found).value
    for proven, exact in zip(value[0].tolist(), problem.minima()[0], strict=True):
        assert np.isfinite(proven)
        assert Fraction(proven) <= exact


def corrupted(step: Multipliers, kind: str, rng: np.random.Generator) -> Multipliers:
    """A step with other multipliers of its cuts."""
    assert step.multipliers is not None
    noise = torch.from_numpy(rng.normal(size=step.multipliers.shape))
    multipliers = {
        "wrong signs": -step.multipliers,
        "noise": step.multipliers + noise,
        "huge": 1e12 * noise,
        "overflow": 1e308 * noise,
        "infinite": torch.full_like(noise, torch.inf),
        "nan": torch.full_like(noise, torch.nan),
    }[kind]
    return Multipliers(step.relaxation, step.slopes, step.cuts, multipliers)


@cache
def cut_off(seed: int) -> tuple[Problem, Instance, Queries, Bounded]:
    """A random problem, bounded with cuts."""
    problem = random_problem(seed, [0.0, 0.1, 0.0][seed], seed == 2)
    instance, queries, found = grouped(problem)
    return problem, instance, queries, bound_by_cutting(instance, queries, found)


@pytest.mark.parametrize("kind", ["wrong signs", "noise", "huge", "overflow", "infinite", "nan"])
@pytest.mark.parametrize("seed", at_night_after(2, [0, 2, 1]))
def test_corrupted_multipliers_prove_less_never_more(seed: int, kind: str) -> None:
    problem, instance, queries, cut = cut_off(seed)
    rng = np.random.default_rng(seed)
    steps: dict[int, Step] = {}
    for i, step in cut.witness.items():
        assert isinstance(step, Multipliers)
        steps[i] = step if step.cuts is None else corrupted(step, kind, rng)
    assert any(isinstance(s, Multipliers) and s.cuts is not None for s in steps.values())
    form = outputs(instance.network, queries.rows, queries.offsets)
    value = lower_bound(instance.network, instance.region, form, steps, cut.bounds)
    for proven, exact in zip(value[0].tolist(), problem.minima()[0], strict=True):
        if kind in {"infinite", "nan"}:
            assert proven == -np.inf
        else:
            assert proven == -np.inf or Fraction(proven) <= exact


def test_cuts_of_activations_that_the_form_does_not_reach_count() -> None:
    """A form of the input alone, u + v <= 2: with a cut of the first pre-activation, u + v <= 1."""
    instance, _, found = grouped(TEXTBOOK)
    one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    cut = Cuts(torch.tensor([[0]]), one, zero, one[0], -torch.ones(1, dtype=torch.int64))
    slopes = torch.tensor([[[1.0, 0.0]]]).double()
    (node,) = found.bounds.relaxations
    form = Form({0: -torch.ones(1, 1, 2).double()}, zero)
    for multiplier, least in ((one, -1), (zero, -2)):
        witness = {node: Multipliers(found.bounds.relaxations[node], multiplier * slopes, cut, multiplier)}
        value = lower_bound(instance.network, instance.region, form, witness, found.bounds)
        assert value.item() == pytest.approx(least)
        assert value.item() <= least


def test_negative_multipliers_count_as_zero() -> None:
    """Taken at its word, minus one times the true but loose u + v <= 9 would prove u + v >= 9."""
    instance, _, found = grouped(TEXTBOOK)
    one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    (node,) = found.bounds.relaxations
    cut = Cuts(torch.tensor([[0]]), one, zero, 9 * one[0], -torch.ones(1, dtype=torch.int64))
    step = Multipliers(found.bounds.relaxations[node], torch.tensor([[[-1.0, 0.0]]]).double(), cut, -one)
    form = Form({0: torch.ones(1, 1, 2).double()}, zero)
    assert lower_bound(instance.network, instance.region, form, {node: step}, found.bounds).item() <= -2


# --- as much as the program says -------------------------------------------------------------------------------------


def test_the_textbook_example() -> None:
    """Triangles bound a1 + a2 by 3, the pair by 2."""
    instance, queries, found = grouped(TEXTBOOK)
    assert bound_by_lp(instance, queries, found).value.item() == pytest.approx(-3)
    assert bound_by_cutting(instance, queries, found).value.item() == pytest.approx(-2, abs=1e-9)


@pytest.mark.parametrize("weight", [[[1.0, 1.0], [1.0, -1.0]], [[0.5, 0.0], [0.0, 2.0]], [[1.0, 0.0], [1.0, 0.0]]])
@pytest.mark.parametrize("bias", [[0.0, 0.0], [0.25, -0.5]])
def test_two_neurons_of_an_octagon_are_exact(weight: list[list[float]], bias: list[float]) -> None:
    """Where all that can be true of two pre-activations is an octagon, the hull is the convex hull of the network."""
    rows = np.random.default_rng(1).normal(size=(8, 2)).tolist()
    problem = turned(weight, bias, rows)
    value = bound_by_cutting(*grouped(problem), cutting=EVERYTHING).value
    for proven, exact in zip(value[0].tolist(), problem.minima()[0], strict=True):
        assert proven == pytest.approx(float(exact), abs=1e-6)
        assert Fraction(proven) <= exact


@pytest.mark.parametrize("seed", at_night_after(1, range(3)))
@pytest.mark.parametrize(("slope", "skip", "size"), [(0.0, False, 2), (0.0, True, 3), (0.1, False, 2), (0.1, True, 3)])
def test_the_value_is_the_objective_and_no_less_than_without_cuts(
    slope: float, skip: bool, size: int, seed: int
) -> None:
    instance, queries, found = grouped(random_problem(seed, slope, skip), size=size)
    without = bound_by_lp(instance, queries, found).value
    value = bound_by_cutting(instance, queries, found, cutting=EVERYTHING).value
    assert (value >= without - 1e-7).all()
    assert (value > without + 1e-3).any()
    cutter = Cutter(Program(instance, found.bounds), EVERYTHING)
    for k, proven in enumerate(value[0].tolist()):
        objective = cutter.minimise(queries.rows[0, k], float(queries.offsets[0, k])).objective
        assert proven == pytest.approx(objective, rel=1e-6, abs=1e-6)


def test_rows_of_the_pre_activations_alone_are_found() -> None:
    """z = (2, 2) is in the box of the textbook example but not in its octagon, whatever the post-activations."""
    instance, _, found = grouped(TEXTBOOK)
    program = Program(instance, found.bounds)
    (node,) = found.bounds.groups
    separator = Separator(program, node, found.bounds.groups[node][0])
    x = np.zeros(len(program.model.lower))
    x[separator.columns[0]] = 2.0
    violated = separator.separate(x, 1e-6)
    (cut,) = violated.rows()
    assert np.dot(cut.values, x[cut.columns]) > cut.upper + 0.5
    for z in np.array([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0], [0.0, 0.0]]):
        assert np.dot(cut.values, [*z, *z.clip(0)]) <= cut.upper


def test_cuts_stay_for_the_next_margins_and_are_dropped_when_there_are_many() -> None:
    instance, queries, found = grouped(random_problem(0))
    best = bound_by_cutting(instance, queries, found, cutting=EVERYTHING).value
    few = bound_by_cutting(instance, queries, found, cutting=replace(EVERYTHING, room=5, count=2)).value
    assert torch.allclose(few, best, atol=0.05)
    cutter = Cutter(Program(instance, found.bounds), EVERYTHING)
    first, second = (cutter.minimise(row, 0.0) for row in queries.rows[0, :2])
    assert set(first.multipliers) <= set(second.multipliers)


def test_nothing_is_done_for_what_is_settled() -> None:
    instance, queries, found = grouped(random_problem(0))
    settled = Bounded(torch.full_like(found.value, 99.0), found.bounds)
    after = bound_by_cutting(instance, queries, settled, stop=True)
    assert torch.equal(after.value, settled.value)
    assert all(isinstance(s, Multipliers) and not s.slopes.any() for s in after.witness.values())


@pytest.mark.parametrize("method", [bound_by_lp, bound_by_cutting])
def test_regions_are_bounded_one_at_a_time(method) -> None:
    problem = random_problem(0)
    region = Box(torch.from_numpy(problem.lower).expand(2, 2), torch.from_numpy(problem.upper).expand(2, 2))
    _, queries, found = grouped(problem)
    with pytest.raises(InputError, match="one region"):
        method(Instance.of(as_network(problem.layers), region), queries, found)


@pytest.mark.slow
def test_benchmark_network() -> None:
    """A picture's worst margin, of which PRIMA's multi-neuron relaxation proves -12.72: few pairs, better bounds."""
    path = BENCHMARKS / "eran" / "mnist_6_100.onnx"
    if not path.is_file():
        pytest.skip("KRELAX_BENCHMARKS does not hold eran/mnist_6_100.onnx")
    network = load_onnx(str(path))
    data = load_images(path.parent / "mnist_test.npz", network.input_shape, 10)
    instance = Instance.of(network, ball(torch.from_numpy(data.images[4:5]).double(), 0.026))
    every = classification(torch.from_numpy(data.labels[4:5]), 10)
    queries = margins(every.rows[:, 7:8], every.offsets[:, 7:8])
    found = with_groups(instance, bound(instance, queries, METHODS["alpha"]), MultiNeuron(Grouping(neurons=40)))
    without = bound_by_lp(instance, queries, found).value.item()
    value = bound_by_cutting(instance, queries, found).value.item()
    assert without < -7
    assert value > without + 0.5
