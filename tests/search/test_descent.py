"""Descents reach points that several margins have to be met at, in sets so thin that gradient steps pass them by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.marks import at_night_after
from tests.search.asking import Question, answers, check_counterexample, replayed, specification
from tests.search.small import NETWORKS, OUTPUTS
from torch import Tensor

from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS
from krelax.network.graph import Network
from krelax.problem.exact import Floats
from krelax.search.attack import Attack, search
from krelax.search.descent import Descent
from krelax.search.effort import Complete
from krelax.search.lowest import Forms, Lowest, lowest
from krelax.search.pipeline import Plan
from krelax.search.questions import about_specification

Clause = tuple[Floats, Floats]


def slab(y: Floats, width: float, outputs: int = OUTPUTS) -> Clause:
    """Unsafe where the first outputs are within a width of those of `y`."""
    rows = np.eye(len(y))[:outputs]
    return np.concatenate([rows, -rows]), np.concatenate([-y[:outputs], y[:outputs]]) - width


def asked(name: str, width: float, seed: int = 0, outputs: int = OUTPUTS) -> tuple[Network, Question]:
    """A network, and whether its outputs may be those at a secret input."""
    rng = np.random.default_rng(seed)
    network = replayed(NETWORKS[name](rng))
    secret = rng.uniform(-1, 1, (1, *network.input_shape))
    y = network(torch.from_numpy(secret)).flatten().numpy()
    return network, Question(-np.ones_like(secret[0]), np.ones_like(secret[0]), (slab(y, width, outputs),))


def instance_of(network: Network, question: Question) -> tuple[Instance, Any]:
    questions = about_specification(network, specification(network, [question]))
    return Instance.of(network, questions.region), questions.queries


def descended(instance: Instance, queries: Any, seed: int) -> Descent:
    """From a random point, to its end or to a margin that is not positive."""
    share = torch.rand(instance.network.input_shape, generator=torch.Generator().manual_seed(seed)).double()
    start: Tensor = instance.region.lower[0] + share * (instance.region.upper - instance.region.lower)[0]
    with torch.no_grad():
        descent = Descent(instance, queries, 0, start)
        for _ in descent.run():
            if descent.value <= 0:
                break
    return descent


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("width", at_night_after(2, [1e-3, 1e-9, 1e-6]))
def test_thin_sets_are_reached(name: str, width: float) -> None:
    network, question = asked(name, width)
    instance, queries = instance_of(network, question)
    descents = (descended(instance, queries, seed) for seed in range(12))
    best = next((descent for descent in descents if descent.value <= 0), None)
    assert best is not None
    y = network(best.x)
    assert float(queries.margin(queries.values(y[None]))) == pytest.approx(best.value, abs=1e-12)
    assert bool((best.x >= instance.region.lower).all() and (best.x <= instance.region.upper).all())


def test_a_descent_never_goes_up_and_ends() -> None:
    network, question = asked("dense", -1e-3)  # nowhere
    instance, queries = instance_of(network, question)
    for seed in range(3):
        start = torch.full(network.input_shape, 0.3 * seed, dtype=torch.float64)
        with torch.no_grad():
            descent = Descent(instance, queries, 0, start)
            values = [descent.value, *(descent.value for _ in descent.run())]
        assert values == sorted(values, reverse=True)
        assert values[-1] > 0


@pytest.mark.parametrize("name", at_night_after(3, ["dense", "pool", "tanh", "leaky", "residual"]))
def test_thin_sets_are_decided(name: str) -> None:
    network, question = asked(name, 2e-6)
    (outcome,) = answers(network, [question], Plan((METHODS["crown"], Complete())), timeout=600)
    check_counterexample(outcome, network, question)


def test_sums_of_what_margins_lack_reach_further() -> None:
    """Attacks from the same points, with the sum for every second one, and with a clause for each row."""
    network, question = asked("dense", 0.05)
    instance, queries = instance_of(network, question)
    x, margin = search(instance, queries.to(torch.float32), Attack(restarts=8, steps=60))
    assert float(margin) <= 0
    assert float(queries.margin(queries.values(network(x.double())[None]))) <= 1e-6


def test_regions_with_few_numbers_of_the_models_type() -> None:
    """Nine float32 numbers in each input: of the points made of them few are unsafe, and the nearest one is not."""
    rng = np.random.default_rng(3)
    network = replayed(NETWORKS["dense"](rng))
    middle = rng.uniform(0.5, 0.75, network.input_shape).astype(np.float32)
    around = np.spacing(middle).astype(np.float64)
    lower, upper = middle - 4 * around, middle + 4 * around
    y = network(torch.from_numpy(middle.astype(np.float64) + 2.4 * around)[None]).flatten().numpy()
    question = Question(lower, upper, (slab(y, 3e-8, outputs=1),))
    (outcome,) = answers(network, [question], Plan((METHODS["crown"], Complete())), timeout=600)
    check_counterexample(outcome, network, question)


def program(rows: Any, offsets: Any, conditions: Any = (), sides: Any = ()) -> Lowest | None:
    goals = Forms(np.array(rows, dtype=float), np.array(offsets, dtype=float))
    kept = Forms(np.array(conditions, dtype=float).reshape(-1, 2), np.array(sides, dtype=float))
    return lowest(goals, kept, -np.ones(2), np.ones(2), np.inf)


def test_the_largest_form_is_least_between_two_that_rise_in_turn() -> None:
    found = program([[1e6, 0.0], [-1e6, 0.0]], [5e5, 1e5])
    assert found is not None
    assert found.value == pytest.approx(3e5)
    assert found.step[0] == pytest.approx(-0.2)


def test_a_condition_that_holds_back_has_a_price() -> None:
    found = program([[1.0, 0.0], [-1.0, 0.0]], [0.5, 0.1], [[1e3, 0.0], [0.0, 1.0]], [0.0, 0.5])
    assert found is not None
    assert found.value == pytest.approx(0.5)
    assert found.prices[0] > 0 == found.prices[1]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_numbers_that_the_solver_does_not_take(wrong: float) -> None:
    assert program([[1.0, 0.0], [-1.0, 0.0]], [0.5, wrong]) is None
