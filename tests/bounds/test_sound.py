"""No bound is ever above the truth: against exact minima with no tolerance, and against samples where none exist."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.bounds.problems import CHEAP, DEAR, METHODS, Problem, bounded, problems
from tests.exact import Layer, minimum
from tests.marks import ALIKE, at_night_after
from torch import Tensor

from krelax.activations import LeakyReLU, Max, ReLU, Sigmoid, Tanh
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Conv, Dense
from krelax.network.ops import Reshape, Take
from krelax.problem.region import Box, Region, ball

Make = Callable[[np.random.Generator], Network]
every_method = pytest.mark.parametrize("method", sorted(METHODS))


# --- exact minima ----------------------------------------------------------------------------------------------------


def check_margins(problem: Problem, method: str, value: Tensor, minima: list[list[Fraction]]) -> None:
    for found, exact in zip(value.flatten().tolist(), itertools.chain(*minima), strict=True):
        assert np.isfinite(found), method
        assert Fraction(found) <= exact, f"{method}: {found!r} is above the minimum by {float(Fraction(found) - exact)}"


def check_problem(problem: Problem, methods: Iterable[str]) -> None:
    """Bounds of the margins, and of every pre-activation that a method bounded on the way. No tolerance."""
    minima, exact, places = problem.minima(), problem.pre_activations(), problem.places()
    for method in methods:
        found = problem.bounded(method)
        check_margins(problem, method, found.value, minima)
        for (box, layers), (layer, node) in itertools.product(enumerate(exact), enumerate(places)):
            lower, upper = (t[node][box].tolist() for t in (found.bounds.lower, found.bounds.upper))
            for i, r in enumerate(layers[layer]):
                case = f"{method}: neuron {i} of layer {layer} over box {box}"
                assert Fraction(lower[i]) <= r.low, case
                assert Fraction(upper[i]) >= r.high, case


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems(), dear=st.sampled_from(DEAR))
def test_no_bound_exceeds_the_exact_minimum(problem: Problem, dear: str) -> None:
    check_problem(problem, (*CHEAP, dear))


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems())
def test_no_bound_of_any_method_exceeds_the_exact_minimum(problem: Problem) -> None:
    check_problem(problem, METHODS)


@every_method
def test_branches_do_not_share_what_is_unknown(method: str) -> None:
    """relu(x) - x / 2 - relu(y) over [-1, 1]²: each branch has errors of its own, which must not cancel."""
    builder = Builder((2,))
    first, second = (
        builder.add(ReLU(), builder.add(Dense(torch.tensor([row], dtype=torch.float64)), 0))
        for row in ([1.0, 0.0], [0.0, 1.0])
    )
    line = builder.add(Dense(torch.tensor([[0.5, 0.0]], dtype=torch.float64)), 0)
    network = builder.build(builder.add(Add((1, -1, -1)), first, line, second))
    one = torch.ones(1, 2, dtype=torch.float64)
    found = bounded(network, Box(-one, one), one[:, None, :1], 0.0 * one[:, :1], method)
    assert float(network(torch.tensor([[0.0, 1.0]], dtype=torch.float64))) == -1.0
    assert float(found.value.min()) <= -1.0


@every_method
def test_a_point_has_the_bound_of_its_value(method: str) -> None:
    """Over a box of width zero the bound is the network's value, up to the rounding it charges."""
    rng = np.random.default_rng(1)
    layers = [Layer(rng.normal(size=(6, n)).tolist(), rng.normal(size=6).tolist()) for n in (2, 6, 6)]
    point = rng.normal(size=(4, 2))
    problem = Problem(layers, point, point, np.eye(6), np.zeros(6))
    value, minima = problem.bounded(method).value, problem.minima()
    check_margins(problem, method, value, minima)
    exact = torch.tensor([[float(v) for v in row] for row in minima], dtype=torch.float64)
    assert (exact - value).max() < 1e-11


def convolution_layer(rng: np.random.Generator) -> tuple[Conv, Layer]:
    """A convolution over two positions, and the same map written as a matrix: three channels of three positions."""
    weight, bias = rng.normal(size=(3, 1, 2)), rng.normal(size=3)
    dense = np.zeros((9, 2))
    for channel, place, k in itertools.product(range(3), range(3), range(2)):
        if 0 <= place + k - 1 < 2:
            dense[3 * channel + place, place + k - 1] = weight[channel, 0, k]
    conv = Conv(torch.from_numpy(weight), torch.from_numpy(bias), (1,), (1,), (1,))
    return conv, Layer(dense.tolist(), np.repeat(bias, 3).tolist())


@every_method
@pytest.mark.parametrize("seed", at_night_after(1, range(2)))
def test_convolutions_keep_below_the_exact_minimum(method: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    conv, first = convolution_layer(rng)
    second = Layer(rng.normal(size=(4, 9)).tolist(), rng.normal(size=4).tolist())
    builder = Builder((2,))
    x = builder.add(ReLU(), builder.add(conv, builder.add(Reshape((1, 1, 2)), 0)))
    weight, bias = (torch.tensor(t, dtype=torch.float64) for t in (second.weight, second.bias))
    x = builder.add(ReLU(), builder.add(Dense(weight, bias), builder.add(Reshape((9,)), x)))
    lower, upper = np.array([[-1.0, -0.5]]), np.array([[1.0, 2.0]])
    rows = rng.normal(size=(3, 4))
    region = Box(torch.from_numpy(lower), torch.from_numpy(upper))
    value = bounded(builder.build(x), region, torch.from_numpy(rows)[None], torch.zeros(1, 3).double(), method).value
    for found, row in zip(value[0].tolist(), rows.tolist(), strict=True):
        assert Fraction(found) <= minimum([first, second], row, 0.0, lower[0].tolist(), upper[0].tolist())


# --- samples ---------------------------------------------------------------------------------------------------------


def dense(rng: np.random.Generator, n: int, m: int, scale: float = 1.0) -> Dense:
    weight, bias = scale * rng.normal(size=(m, n)) / np.sqrt(n), rng.normal(size=m)
    return Dense(torch.from_numpy(weight), torch.from_numpy(bias))


def smooth(rng: np.random.Generator) -> Network:
    """Sigmoid, then tanh, steep enough to saturate."""
    builder = Builder((3,))
    x = builder.add(Sigmoid(), builder.add(dense(rng, 3, 8, 4.0), 0))
    x = builder.add(Tanh(), builder.add(dense(rng, 8, 8, 3.0), x))
    return builder.build(builder.add(dense(rng, 8, 4), x))


def pooled(rng: np.random.Generator) -> Network:
    """Maxima over overlapping windows, with one entry twice in a window, between ReLUs."""
    windows = torch.tensor([[0, 1, 2], [2, 3, 3], [4, 5, 6], [6, 7, 0], [1, 5, 3]])
    builder = Builder((3,))
    x = builder.add(ReLU(), builder.add(dense(rng, 3, 8, 2.0), 0))
    x = builder.add(Max(), builder.add(Take(windows), builder.add(dense(rng, 8, 8), x)))
    x = builder.add(ReLU(), builder.add(dense(rng, 5, 6), x))
    return builder.build(builder.add(dense(rng, 6, 4), x))


def mixed(rng: np.random.Generator) -> Network:
    """Every activation in one network, with a pre-activation that two of them share and a residual branch."""
    builder = Builder((3,))
    z = builder.add(dense(rng, 3, 6, 2.0), 0)
    both = builder.add(Add((1, -1)), builder.add(ReLU(), z), builder.add(Tanh(), z))
    x = builder.add(Add((1, 1)), builder.add(LeakyReLU(0.1), builder.add(dense(rng, 6, 6), both)), both)
    x = builder.add(Max(), builder.add(Take(torch.tensor([[0, 1], [2, 3], [4, 5], [5, 0]])), x))
    return builder.build(builder.add(dense(rng, 4, 4), builder.add(Sigmoid(), x)))


def on_the_input(rng: np.random.Generator) -> Network:
    """An activation applied to the input itself, and one right after another."""
    builder = Builder((3,))
    x = builder.add(Tanh(), builder.add(ReLU(), 0))
    x = builder.add(Add((1, 1)), x, 0)
    return builder.build(builder.add(dense(rng, 3, 4), x))


def only_a_maximum(rng: np.random.Generator) -> Network:
    """No constants at all."""
    builder = Builder((3,))
    return builder.build(builder.add(Max(), builder.add(Take(torch.tensor([[0, 1], [1, 2], [0, 2], [2, 2]])), 0)))


NETWORKS = [smooth, pooled, mixed, on_the_input, only_a_maximum]


def box_samples(region: Region, count: int, rng: np.random.Generator) -> Tensor:
    """Corners, points of faces and of the inside: `(batch, count, n)`."""
    lower, upper = region.lower.unsqueeze(1), region.upper.unsqueeze(1)
    share = torch.from_numpy(rng.uniform(size=(len(lower), count, lower.shape[-1])))
    share = torch.where(torch.from_numpy(rng.uniform(size=share.shape) < 0.4), share.round(), share)
    corners = torch.tensor(list(itertools.product([0.0, 1.0], repeat=lower.shape[-1])), dtype=torch.float64)
    share[:, : len(corners)] = corners
    return torch.lerp(lower.expand(share.shape), upper.expand(share.shape), share)


def check_samples(network: Network, region: Region, samples: Tensor, method: str, rng: np.random.Generator) -> None:
    """No margin of any sample is below its bound; 1e-9 is for the network's own evaluation in float64."""
    rows = torch.from_numpy(rng.normal(size=(len(region), 3, 4)))
    value = bounded(network, region, rows, torch.zeros(len(region), 3).double(), method).value
    y = network(samples.flatten(0, 1)).unflatten(0, samples.shape[:2])
    lowest = (y @ rows.transpose(1, 2)).amin(1)
    assert value.isfinite().all()
    assert (value <= lowest + 1e-9 * (1 + lowest.abs())).all(), (lowest - value).min()


UNLIKE = [method for method in DEAR if method not in ALIKE]


def on_networks(*which: int) -> list[tuple[str, Make]]:
    """Methods with networks: those that take no time with all of them, dear ones that are like no others with some, a
    method with others than the one before it, and then the rest."""
    some = [(m, NETWORKS[(i + k) % len(NETWORKS)]) for i, m in enumerate(UNLIKE) for k in which]
    first: list[tuple[str, Make]] = [*product(CHEAP, NETWORKS), *some]
    return first + [pair for pair in product(DEAR, NETWORKS) if pair not in some]


# such a dear method meets every network always: in a box, or in a ball
IN_BOXES, IN_BALLS = on_networks(0, 2, 4), on_networks(1, 3)
ALWAYS = len(CHEAP) * len(NETWORKS)


@pytest.mark.parametrize(("method", "make"), at_night_after(ALWAYS + 3 * len(UNLIKE), IN_BOXES))
def test_no_sample_is_below_the_bound(method: str, make: Make) -> None:
    rng = np.random.default_rng(11)
    network = make(rng)
    middle = torch.from_numpy(rng.normal(size=(3, 3)))
    radius = torch.tensor([[0.0], [0.1], [1.5]], dtype=torch.float64)
    region = Box(middle - radius, middle + radius)
    check_samples(network, region, box_samples(region, 10_000, rng), method, rng)


# --- balls -----------------------------------------------------------------------------------------------------------


def ball_samples(centre: Tensor, eps: float, p: int, count: int, rng: np.random.Generator) -> Tensor:
    """Points of the sphere, its axes and the inside; `(batch, count, n)`."""
    n = centre.shape[-1]
    step = torch.from_numpy(rng.normal(size=(count, n)))
    step[: 2 * n] = torch.cat([torch.eye(n), -torch.eye(n)]).double()
    step = step / torch.linalg.vector_norm(step, ord=p, dim=-1, keepdim=True)
    radius = torch.from_numpy(rng.choice([1.0, 0.999, 0.5], size=(count, 1)))
    radius[: 2 * n] = 1.0
    return centre.unsqueeze(1) + eps * radius * step


# every pair always in one of the norms
NORMED = [(*pair, ("l1", "l2")[(i + j) % 2]) for j in range(2) for i, pair in enumerate(IN_BALLS)]


@pytest.mark.parametrize(("method", "make", "norm"), at_night_after(ALWAYS + 2 * len(UNLIKE), NORMED))
def test_no_sample_of_a_ball_is_below_the_bound(method: str, norm: str, make: Make) -> None:
    """The ball cut by the box [0, 1]^3; samples outside the box are pulled back towards the centre."""
    rng = np.random.default_rng(12)
    network = make(rng)
    centre = torch.tensor([[0.5, 0.5, 0.5], [0.1, 0.9, 0.4]], dtype=torch.float64)
    eps = 0.3
    region = ball(centre, eps, norm)
    samples = ball_samples(centre, eps, 1 if norm == "l1" else 2, 4000, rng)
    samples = samples.clamp(0, 1)  # clamping towards a centre in the box shrinks every step: still in the ball
    check_samples(network, region, samples, method, rng)


@every_method
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_an_affine_network_over_a_ball_has_the_dual_norm_as_its_bound(method: str, norm: str) -> None:
    """min <w, x> + b over the ball is <w, c> + b - eps ||w||_dual."""
    rng = np.random.default_rng(13)
    first, second = dense(rng, 3, 5), dense(rng, 5, 4)
    builder = Builder((3,))
    network = builder.build(builder.add(second, builder.add(first, 0)))
    centre, eps = torch.from_numpy(rng.normal(size=(2, 3))), 0.7
    rows = torch.from_numpy(rng.normal(size=(2, 3, 4)))
    value = bounded(network, ball(centre, eps, norm, clip=None), rows, torch.zeros(2, 3).double(), method).value
    form = rows @ second.weight @ first.weight
    dual = torch.linalg.vector_norm(form, ord=2 if norm == "l2" else torch.inf, dim=-1)
    expected = (rows @ network(centre).unsqueeze(-1))[..., 0] - eps * dual
    assert torch.allclose(value, expected, rtol=0, atol=1e-9)
    assert (value <= expected).all()


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_a_ball_is_no_larger_than_its_box(norm: str) -> None:
    """A linear form is at least as large over the ball as over its bounding box, and its minimum is attained."""
    rng = np.random.default_rng(14)
    centre = torch.from_numpy(rng.uniform(size=(3, 6)))
    region, box = ball(centre, 0.2, norm), ball(centre, 0.2, "linf")
    form = torch.from_numpy(rng.normal(size=(3, 8, 6)))
    lowest, at = region.minimise(form), region.minimiser(form)
    assert (lowest >= box.minimise(form) - 1e-12).all()
    assert torch.allclose((form * at).sum(-1), lowest, rtol=0, atol=1e-12)
