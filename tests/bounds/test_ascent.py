"""Optimised slopes: the hand-written gradient is the derivative of the bound, and following it raises the bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.bounds.problems import margins
from tests.marks import at_night_after
from torch import Tensor

from krelax.activations import LeakyReLU, Max, ReLU, Sigmoid, Tanh
from krelax.bounds.backward import Form, Trace, back_substitute, lower_bound, outputs
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.optimise import Ascent, ascend, differentiate, initial
from krelax.bounds.steps import Witness
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Conv, Dense
from krelax.network.ops import Reshape, Take
from krelax.problem.region import Region, ball

Make = Callable[[np.random.Generator], Network]


def affine(rng: np.random.Generator, n: int, m: int) -> Dense:
    weight = torch.from_numpy(rng.normal(size=(m, n)) * np.sqrt(2 / n))
    return Dense(weight, torch.from_numpy(rng.normal(size=m) / 4))


def dense(rng: np.random.Generator) -> Network:
    builder = Builder((4,))
    x = builder.add(ReLU(), builder.add(affine(rng, 4, 9), 0))
    x = builder.add(LeakyReLU(0.1), builder.add(affine(rng, 9, 8), x))
    x = builder.add(ReLU(), builder.add(affine(rng, 8, 7), x))
    return builder.build(builder.add(affine(rng, 7, 3), x))


def convolution(rng: np.random.Generator) -> Network:
    builder = Builder((4,))
    x = builder.add(Reshape((1, 1, 2, 2)), 0)
    for inside, outside in ((1, 3), (3, 2)):
        weight = torch.from_numpy(rng.normal(size=(outside, inside, 2, 2)))
        conv = Conv(weight, torch.from_numpy(rng.normal(size=outside)), (1, 1), (1, 1), (1, 1))
        x = builder.add(ReLU(), builder.add(conv, x))
    return builder.build(builder.add(affine(rng, 32, 3), builder.add(Reshape((32,)), x)))


def residual(rng: np.random.Generator) -> Network:
    builder = Builder((4,))
    x = builder.add(ReLU(), builder.add(affine(rng, 4, 6), 0))
    for sign in (1, -1):
        branch = builder.add(affine(rng, 6, 6), builder.add(ReLU(), builder.add(affine(rng, 6, 6), x)))
        x = builder.add(ReLU(), builder.add(Add((1, sign)), x, branch))
    return builder.build(builder.add(affine(rng, 6, 3), x))


def smooth(rng: np.random.Generator) -> Network:
    builder = Builder((4,))
    x = builder.add(Sigmoid(), builder.add(affine(rng, 4, 8), 0))
    x = builder.add(Tanh(), builder.add(affine(rng, 8, 6), x))
    return builder.build(builder.add(affine(rng, 6, 3), x))


def pooled(rng: np.random.Generator) -> Network:
    builder = Builder((4,))
    x = builder.add(ReLU(), builder.add(affine(rng, 4, 8), 0))
    windows = torch.tensor([[0, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 0]])
    x = builder.add(Max(), builder.add(Take(windows), builder.add(affine(rng, 8, 8), x)))
    x = builder.add(ReLU(), builder.add(affine(rng, 4, 6), x))
    return builder.build(builder.add(affine(rng, 6, 3), x))


NETWORKS = [dense, convolution, residual, smooth, pooled]
every_network = pytest.mark.parametrize("make", NETWORKS, ids=lambda f: f.__name__)
every_norm = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])


def prepared(make: Make, norm: str = "linf", seed: int = 0, eps: float = 0.4) -> tuple[Instance, Form, LayerBounds]:
    """A network over two regions, proposals in float64 too, five margins, and CROWN's bounds of every node."""
    rng = np.random.default_rng(seed)
    network = make(rng)
    region: Region = ball(torch.from_numpy(rng.normal(size=(2, 4)) / 2), eps, norm, clip=None)
    instance = Instance.of(network, region, fast=torch.float64)
    rows, offsets = torch.from_numpy(rng.normal(size=(2, 5, 3))), torch.from_numpy(rng.normal(size=(2, 5)))
    bounds = bound(instance, margins(rows, offsets), METHODS["crown"]).bounds
    return instance, outputs(instance.network, rows, offsets), bounds


def random_witness(bounds: LayerBounds, queries: int, seed: int) -> Witness:
    """Slopes inside their ranges, away from the ends and different for every query."""
    generator = torch.Generator().manual_seed(seed)
    witness = initial(bounds, list(bounds.relaxations), queries)
    for i, slopes in witness.items():
        low, high = (t.unsqueeze(1) for t in bounds.relaxations[i].slope_range())
        for tensor in (p.value for p in slopes.parameters()):
            share = 0.1 + 0.8 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.copy_(low + share * (high - low))
    return witness


def proposed(instance: Instance, form: Form, bounds: LayerBounds, witness: Witness) -> Tensor:
    """The bound without its charge for rounding: what the ascent climbs."""
    result, _ = back_substitute(instance.network, form, witness, bounds, Trace())
    return result.constant + instance.region.minimise(result.coeff[0])


def written_gradient(instance: Instance, form: Form, bounds: LayerBounds, witness: Witness) -> None:
    """Puts krelax's own gradient into the slopes."""
    trace = Trace()
    result, _ = back_substitute(instance.network, form, witness, bounds, trace)
    differentiate(instance, result.coeff[0], witness, trace)


def free_slopes(witness: Witness) -> list[Tensor]:
    return [p.value for step in witness.values() for p in step.parameters()]


def gradients(witness: Witness) -> list[Tensor]:
    found = [p.gradient for step in witness.values() for p in step.parameters()]
    return [gradient for gradient in found if gradient is not None]


def widths(bounds: LayerBounds, witness: Witness) -> list[Tensor]:
    """How far each of `free_slopes` may move: not at all where the neuron is stable."""
    relaxations = [bounds.relaxations[i] for i in witness]
    ranges = ((r.slope_range(), sum(r.optimised)) for r in relaxations)
    return [(high - low).unsqueeze(1) for (low, high), count in ranges for _ in range(count)]


def copied(bounds: LayerBounds, witness: Witness) -> Witness:
    copy = initial(bounds, list(witness), 5)
    for ours, theirs in zip(free_slopes(copy), free_slopes(witness), strict=True):
        ours.copy_(theirs)
    return copy


@every_network
@every_norm
def test_the_gradient_is_that_of_finite_differences(make: Make, norm: str) -> None:
    """Along random directions, for every query by itself; the bound is smooth around almost every witness."""
    instance, form, bounds = prepared(make, norm)
    witness = random_witness(bounds, 5, seed=1)
    written_gradient(instance, form, bounds, witness)
    slopes, rates = free_slopes(witness), gradients(witness)
    assert any(rate.abs().max() > 0 for rate in rates)
    room = widths(bounds, witness)
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        step = [w * torch.randn(s.shape, generator=generator, dtype=s.dtype) for s, w in zip(slopes, room, strict=True)]
        ends = []
        for h in (1e-6, -1e-6):
            moved = copied(bounds, witness)
            for tensor, direction in zip(free_slopes(moved), step, strict=True):
                tensor.add_(direction, alpha=h)
            ends.append(proposed(instance, form, bounds, moved))
        measured = (ends[0] - ends[1]) / 2e-6
        expected = sum((r * d).flatten(2).sum(2) for r, d in zip(rates, step, strict=True))
        assert torch.allclose(measured, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [dense, convolution, residual, pooled], ids=lambda f: f.__name__)
def test_the_gradient_is_that_of_autograd(make: Make) -> None:
    """Entry by entry, where everything is piecewise linear in each layer's slopes."""
    instance, form, bounds = prepared(make, seed=3)
    ours = random_witness(bounds, 5, seed=4)
    theirs = copied(bounds, ours)
    written_gradient(instance, form, bounds, ours)
    for tensor in free_slopes(theirs):
        tensor.requires_grad_()
    proposed(instance, form, bounds, theirs).sum().backward()
    for a, b in zip(gradients(ours), free_slopes(theirs), strict=True):
        assert torch.allclose(a, b.grad, rtol=1e-9, atol=1e-12)


@every_network
def test_no_steps_leave_the_adaptive_slopes(make: Make) -> None:
    instance, form, bounds = prepared(make)
    witness = ascend(instance, form, bounds, Ascent(0))
    start = initial(bounds, list(bounds.relaxations), 5)
    assert free_slopes(witness)
    for ours, adaptive in zip(free_slopes(witness), free_slopes(start), strict=True):
        assert torch.equal(ours, adaptive)


# every network always, in one of the norms
NORMS = ("linf", "l2", "l1")
NORMED = [(make, NORMS[(i + j) % 3]) for j in range(3) for i, make in enumerate(NETWORKS)]


@pytest.mark.parametrize(("make", "norm"), at_night_after(len(NETWORKS), NORMED))
def test_ascended_slopes_raise_the_bound(make: Make, norm: str) -> None:
    """On average over queries, and by something; a step may lower one bound for a while."""
    gains = []
    for seed in range(3):
        instance, form, bounds = prepared(make, norm, seed)
        network, region = instance.network, instance.region
        witnesses = (ascend(instance, form, bounds, Ascent(steps, 0.3, 0.95)) for steps in (0, 40))
        before, after = (lower_bound(network, region, form, w, bounds) for w in witnesses)
        gains.append((after - before).mean().item())
    assert sum(gains) > 1e-3


@every_network
def test_the_ascent_stops_when_it_is_told(make: Make) -> None:
    instance, form, bounds = prepared(make)
    seen: list[Tensor] = []

    def third_time(values: Tensor) -> bool:
        seen.append(values.clone())
        return len(seen) == 3

    ascend(instance, form, bounds, Ascent(40), third_time)
    assert len(seen) == 3
    start = initial(bounds, list(bounds.relaxations), 5)
    assert torch.allclose(seen[0], proposed(instance, form, bounds, start), rtol=0, atol=1e-12)
    assert not torch.equal(seen[0], seen[2])


@every_network
def test_slopes_stay_in_their_range(make: Make) -> None:
    """Large steps and all: outside its range a lower line no longer passes through the origin."""
    instance, form, bounds = prepared(make)
    for i, slopes in ascend(instance, form, bounds, Ascent(10, 5.0, 1.0)).items():
        low, high = (t.unsqueeze(1) for t in bounds.relaxations[i].slope_range())
        for tensor in (p.value for p in slopes.parameters()):
            assert (tensor >= low).all()
            assert (tensor <= high).all()
