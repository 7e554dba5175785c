"""Networks on which float64 loses every digit: the bound stays below the rational minimum, because it pays for it.

Every family here is also run with nothing charged for rounding, and must then be unsound somewhere: a check that
cannot fail shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from tests.bounds.problems import CHEAP, METHODS, Problem, bounded
from tests.exact import Layer
from tests.marks import ALIKE, at_night_after

from krelax.network.graph import Builder
from krelax.network.linear import Dense
from krelax.problem.region import Box

SEEDS = range(12)
FEW = range(2)  # for methods that take long
every_method = pytest.mark.parametrize("method", sorted(METHODS))


def cancelling_pairs(rng: np.random.Generator) -> Problem:
    """Weights +-1e8 on neurons that are equal up to their last bits, and small ones on the rest."""
    base = rng.normal(size=(10, 2))
    weight = np.concatenate([base, base * (1 + 2.0**-50)])
    bias = np.full(20, 9.0)  # every neuron is active: no relaxation hides what rounding does
    row = np.concatenate([np.full(10, 1e8), np.full(10, -1e8)]) + rng.normal(size=20)
    return Problem([Layer(weight.tolist(), bias.tolist())], *unit_box(), row[None], np.zeros(1))


def long_alternating_sum(rng: np.random.Generator) -> Problem:
    """Two hundred active neurons added up with weights of alternating sign and very different size."""
    size = 10.0 ** rng.uniform(-2, 8, size=100)
    row = np.stack([size, -size], 1).flatten()
    weight = rng.normal(size=(200, 2)) / 10
    return Problem([Layer(weight.tolist(), [3.0] * 200)], *unit_box(), row[None], np.zeros(1))


def biases_one_ulp_apart(rng: np.random.Generator) -> Problem:
    """A large bias taken away again by the next layer, all but its last bit, which the inputs change by a part."""
    large = 10.0 ** rng.uniform(6, 12, size=6)
    ulp = large - np.nextafter(large, 0)
    first = Layer((rng.uniform(-0.4, 0.4, size=(6, 2)) * ulp[:, None]).tolist(), large.tolist())
    second = Layer(np.eye(6).tolist(), (-np.nextafter(large, 0)).tolist())
    return Problem([first, second], *unit_box(), rng.normal(size=(1, 6)), np.zeros(1))


def offset_against_output(rng: np.random.Generator) -> Problem:
    """The margin's own offset cancels the output."""
    layers = [Layer(rng.normal(size=(4, 2)).tolist(), [1e9] * 4)]
    row = rng.normal(size=4)
    return Problem(layers, *unit_box(), row[None], np.array([-1e9 * row.sum()]))


def far_from_the_origin(rng: np.random.Generator) -> Problem:
    """A box of width 1e-4 at distance 1e9: its centre and radius have few correct digits."""
    middle = rng.normal(size=(1, 2)) * 1e9
    weight = rng.normal(size=(6, 2))
    layer = Layer(weight.tolist(), (-(weight @ middle[0])).tolist(), None)
    return Problem([layer], middle - 1e-4, middle + 1e-4, rng.normal(size=(1, 6)), np.zeros(1))


def unit_box() -> tuple[np.ndarray, np.ndarray]:
    return np.full((1, 2), -1.0), np.full((1, 2), 1.0)


FAMILIES = [
    cancelling_pairs,
    long_alternating_sum,
    biases_one_ulp_apart,
    offset_against_output,
    far_from_the_origin,
]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)


def exceeded(family: Callable[[np.random.Generator], Problem], method: str, seeds: Iterable[int] = SEEDS) -> list[int]:
    """The seeds whose bound is above the exact minimum."""
    result = []
    for seed in seeds:
        problem = family(np.random.default_rng(seed))
        value = problem.bounded(method).value.item()
        if Fraction(value) > problem.minima()[0][0]:
            result.append(seed)
    return result


# those that take no time with every family always, others that are like no other with every second one
UNLIKE = sorted(set(METHODS) - ALIKE)
SECOND = [(f, m) for i, f in enumerate(FAMILIES) for j, m in enumerate(UNLIKE) if m in CHEAP or (i + j) % 2]
PAIRED = [*SECOND, *(pair for pair in product(FAMILIES, sorted(METHODS)) if pair not in SECOND)]


@pytest.mark.parametrize(("family", "method"), at_night_after(len(SECOND), PAIRED))
def test_bounds_survive_cancellation(family: Callable[[np.random.Generator], Problem], method: str) -> None:
    assert exceeded(family, method, SEEDS if method in CHEAP else FEW) == []


@every_family
def test_without_the_charge_for_rounding_these_bounds_are_unsound(
    family: Callable[[np.random.Generator], Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("backward", "layers", "rounding"):
        monkeypatch.setattr(f"krelax.bounds.{module}.gamma", lambda terms, dtype: 0.0)
    assert any(exceeded(family, method) for method in ("interval", "crown"))


@every_method
def test_rounding_is_charged_but_not_overcharged(method: str) -> None:
    """On an affine network of ordinary numbers the bound is the minimum but for a few thousand ulps."""
    rng = np.random.default_rng(4)
    problem = Problem(
        [Layer(rng.normal(size=(8, 2)).tolist(), rng.normal(size=8).tolist(), None)],
        *unit_box(),
        rng.normal(size=(5, 8)),
        rng.normal(size=5),
    )
    value, exact = problem.bounded(method).value[0], problem.minima()[0]
    gaps = [float(m - Fraction(v)) for v, m in zip(value.tolist(), exact, strict=True)]
    assert min(gaps) >= 0
    assert max(gaps) < 1e-12


@every_method
@pytest.mark.parametrize("seed", at_night_after(1, range(2)))
def test_a_sum_of_ten_thousand_terms_at_one_point(method: str, seed: int) -> None:
    """A point, so that nothing but summation is in question; the terms cancel to almost nothing."""
    rng = np.random.default_rng(seed)
    terms = 10.0 ** rng.uniform(-8, 8, size=5000)
    last_bits = 1 + 2.0**-52 * rng.integers(-2, 3, size=5000)
    weight = rng.permutation(np.concatenate([terms, -terms * last_bits]))
    builder = Builder((10_000,))
    network = builder.build(builder.add(Dense(torch.from_numpy(weight)[None]), 0))
    point = torch.ones(1, 10_000, dtype=torch.float64)
    one, zero = torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    value = bounded(network, Box(point, point), one, zero, method).value.item()
    assert Fraction(value) <= sum(map(Fraction, weight.tolist()))


def chain(weights: list[float], slope: float | None, row: float, offset: float) -> Problem:
    """One neuron after another: `row * product of the weights * x + offset` over -1 <= x <= 1."""
    layers = [Layer([[w, 0.0]] if i == 0 else [[w]], [0.0], slope) for i, w in enumerate(weights)]
    return Problem(layers, *unit_box(), np.array([[row]]), np.array([offset]))


@every_method
@pytest.mark.parametrize(("slope", "row"), [(None, 1.0), (0.0, -1.0)], ids=["affine", "relu"])
def test_products_that_underflow_do_not_lift_the_bound(method: str, slope: float | None, row: float) -> None:
    """Relative error bounds say nothing of products below the smallest number: coefficients vanish that matter.

    Going backward 1e-163 * 1e-163 becomes zero, and the 1e300 in front of it is forgotten: the true minimum is
    about -9e-27, below zero, and must not be bounded by a positive number.
    """
    problem = chain([1e150, 1e150, 1e-163, 1e-163], slope, row, 1e-27)
    value = problem.bounded(method).value.item()
    assert not value > 0
    assert np.isnan(value) or Fraction(value) <= problem.minima()[0][0]


@every_method
def test_proposals_that_overflow_float32_do_not_spoil_the_bound(method: str) -> None:
    """Slopes may be proposed in a type too small for the network; the bound they cannot improve stays as it was."""
    problem = chain([1e30, 1e30, 1e-30, 1e-30], 0.0, -1.0, 0.5)
    value = problem.bounded(method).value.item()
    assert np.isfinite(value)
    assert Fraction(value) <= problem.minima()[0][0]


@every_method
def test_inputs_as_large_as_weights_are_small_count(method: str) -> None:
    """Coefficients vanish that would have met inputs of 1e200: what is lost is not small."""
    layers = [Layer([[1e-200, 0.0]], [0.0], None), Layer([[1e-150]], [0.0], None), Layer([[1e145]], [0.0], None)]
    side = np.full((1, 2), 1e200)
    problem = Problem(layers, -side, side, np.array([[1.0]]), np.array([1e-6]))
    value = problem.bounded(method).value.item()
    assert not value > 0
    assert value == -np.inf or Fraction(value) <= problem.minima()[0][0]


@every_method
def test_a_bound_that_overflows_is_none(method: str) -> None:
    """The minimum is about -3e308, which no number is below but minus infinity."""
    layers = [Layer([[1.5e308, 0.0], [0.0, 1.5e308]], [0.0, 0.0])]
    problem = Problem(layers, *unit_box(), np.array([[-1.0, -1.0]]), np.zeros(1))
    assert problem.bounded(method).value.item() == -np.inf


@every_method
def test_values_that_overflow_on_the_way_bound_nothing(method: str) -> None:
    """Two neurons of 1e400 that cancel; the bounds of others stay what they are, or there are none."""
    layers = [Layer([[1e200, 0.0], [1e200, 0.0]], [0.0, 0.0]), Layer([[1e200, -1e200]], [1.0]), Layer([[1.0]], [0.5])]
    problem = Problem(layers, *unit_box(), np.array([[1.0]]), np.zeros(1))
    found = problem.bounded(method)
    assert found.value.item() <= 1.5
    for sides in (found.bounds.lower, found.bounds.upper):
        assert not any(bool(side.isnan().any()) for side in sides)
