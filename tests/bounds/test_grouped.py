"""Groups in the backward pass: their gradient is that of the bound, and alone or in a crowd they are sound."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.bounds.problems import margins
from torch import Tensor

from krelax.activations import LeakyReLU, ReLU
from krelax.activations.joint import Joint
from krelax.bounds.backward import Form, Trace, back_substitute, lower_bound, outputs
from krelax.bounds.groups import Groups
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.optimise import Ascent, ascend, differentiate, initial
from krelax.bounds.relational import bounded
from krelax.bounds.steps import Witness
from krelax.hull.polytope import octahedral_rows
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.problem.region import Box

Choose = Callable[[Instance, LayerBounds], None]
PAIRS = torch.tensor([[[0, 1], [1, 2], [0, 5], [3, 4]]])
TRIPLES = torch.tensor([[[0, 1, 2], [2, 3, 5]]])


def network(rng: np.random.Generator, slope: float = 0.0) -> Network:
    builder, widths = Builder((4,)), (4, 8, 7, 6)
    x = 0
    for n, m in pairwise(widths):
        weight = torch.from_numpy(rng.normal(size=(m, n)) * np.sqrt(2 / n))
        x = builder.add(Dense(weight, torch.from_numpy(rng.normal(size=m) / 4)), x)
        x = builder.add(LeakyReLU(slope) if slope else ReLU(), x)
    return builder.build(builder.add(Dense(torch.from_numpy(rng.normal(size=(3, 6))), None), x))


def group(members: Tensor, size: int, slope: float = 0.0) -> Choose:
    """Put groups on every activation."""

    def choose(instance: Instance, bounds: LayerBounds) -> None:
        for i in bounds.relaxations:
            source = instance.network.nodes[i].inputs[0]
            rows = torch.from_numpy(octahedral_rows(size)).double()
            bounds.groups[i] = (bounded(instance, bounds, source, members, rows, Ascent(2), LeakyReLU(slope)),)

    return choose


CASES = {
    "pairs": (0.0, group(PAIRS, 2)),
    "triples": (0.0, group(TRIPLES, 3)),
    "leaky pairs": (0.1, group(PAIRS, 2, 0.1)),
}
every_case = pytest.mark.parametrize("case", CASES)


def prepared(case: str, seed: int = 0) -> tuple[Instance, Form, LayerBounds]:
    """A network over one box, proposals in float64 too, five margins, CROWN's bounds, and groups."""
    rng = np.random.default_rng(seed)
    slope, choose = CASES[case]
    x = torch.from_numpy(rng.normal(size=(1, 4)) / 2)
    instance = Instance.of(network(rng, slope), Box(x - 0.5, x + 0.5), fast=torch.float64)
    rows, offsets = torch.from_numpy(rng.normal(size=(1, 5, 3))), torch.from_numpy(rng.normal(size=(1, 5)))
    bounds = bound(instance, margins(rows, offsets), METHODS["crown"]).bounds
    choose(instance, bounds)
    return instance, outputs(instance.network, rows, offsets), bounds


def proposed(instance: Instance, form: Form, witness: Witness, bounds: LayerBounds) -> tuple[Tensor, Tensor, Trace]:
    trace = Trace()
    result, _ = back_substitute(instance.network, form, witness, bounds, trace)
    return result.constant + instance.region.minimise(result.coeff[0]), result.coeff[0], trace


@every_case
def test_passes_of_one_witness_do_not_disturb_each_other(case: str) -> None:
    """Steps remember nothing: what going up needs is on the tape of its own way down."""
    instance, form, bounds = prepared(case)
    witness = initial(bounds, list(bounds.relaxations), 5)
    parameters = [p for step in witness.values() for p in step.parameters()]
    other = Form({i: -a.flip(1) for i, a in form.coeff.items()}, form.constant)
    found: list[list[Tensor | None]] = []
    for between in (False, True):
        _, coeff, trace = proposed(instance, form, witness, bounds)
        if between:
            proposed(instance, other, witness, bounds)
        differentiate(instance, coeff, witness, trace)
        found.append([p.gradient for p in parameters])
    for first, second in zip(*found, strict=True):
        assert first is not None
        assert second is not None
        assert torch.equal(first, second)


@every_case
def test_the_gradient_is_that_of_finite_differences(case: str) -> None:
    """In every parameter at once: slopes, shares and tilts. In double precision triples are proven, so the step is
    large enough for the supports' rounding."""
    instance, form, bounds = prepared(case)
    witness = initial(bounds, list(bounds.relaxations), 5)
    parameters = [p for step in witness.values() for p in step.parameters()]
    generator = torch.Generator().manual_seed(1)
    for p in parameters:  # away from the corners
        p.value.mul_(0.8).add_(0.1 * torch.rand(p.value.shape, generator=generator, dtype=p.value.dtype))
    _, coeff, trace = proposed(instance, form, witness, bounds)
    differentiate(instance, coeff, witness, trace)
    gradients = [p.gradient for p in parameters]
    for _ in range(4):
        step = [
            (p.high > p.low) * torch.randn(p.value.shape, generator=generator, dtype=p.value.dtype) for p in parameters
        ]
        ends = []
        for h in (1e-6, -2e-6):
            for p, d in zip(parameters, step, strict=True):
                p.value.add_(d, alpha=h)
            ends.append(proposed(instance, form, witness, bounds)[0].clone())
        for p, d in zip(parameters, step, strict=True):
            p.value.add_(d, alpha=1e-6)
        measured = ((ends[0] - ends[1]) / 2e-6).sum()
        expected = sum((g * d).sum() for g, d in zip(gradients, step, strict=True) if g is not None)
        assert torch.allclose(measured, torch.as_tensor(expected), rtol=1e-4, atol=1e-4)


@every_case
def test_any_shares_and_tilts_are_sound(case: str) -> None:
    """Also shares that add up to more than everything, and negative ones."""
    instance, form, bounds = prepared(case, seed=2)
    generator = torch.Generator().manual_seed(3)
    x = instance.region.lower + torch.rand(4000, 4, generator=generator).double()
    y = instance.network(x)
    truth = (y @ form.coeff[max(form.coeff)][0].T + form.constant[0]).amin(0)
    for size in (0.0, 1.0, 3.0):
        witness = initial(bounds, list(bounds.relaxations), 5)
        for step in witness.values():
            for p in step.parameters()[1:]:
                p.value.add_(size * torch.randn(p.value.shape, generator=generator, dtype=p.value.dtype))
        value = lower_bound(instance.network, instance.region, form, witness, bounds)
        assert (value[0] <= truth).all()


@every_case
def test_groups_gain(case: str) -> None:
    instance, form, bounds = prepared(case, seed=4)
    alone = bounds.copy()
    values = []
    for k in (alone, bounds):
        witness = ascend(instance, form, k, Ascent(80, 0.3, 0.96))
        values.append(lower_bound(instance.network, instance.region, form, witness, k))
    assert (values[1] > values[0] + 1e-3).any()
    assert (values[1] > values[0] - 1e-2).all()


def test_groups_of_one_neuron_are_the_neuron() -> None:
    """k = 1 is the special case: the support over the interval is the triangle's, so nothing is gained or lost."""
    instance, form, layers = prepared("pairs", seed=5)
    for i, relaxation in layers.relaxations.items():
        members = torch.arange(relaxation.lower[0].numel())[None, :, None]
        bounds = torch.stack([-relaxation.lower, relaxation.upper], -1)
        rows = torch.tensor([[-1.0], [1.0]]).double()
        layers.groups[i] = (Groups(members, Joint(rows, bounds, (0.0,))),)
    witness = initial(layers, list(layers.relaxations), 5)
    value = lower_bound(instance.network, instance.region, form, witness, layers)
    layers.groups.clear()
    single = lower_bound(instance.network, instance.region, form, initial(layers, list(layers.relaxations), 5), layers)
    assert torch.allclose(value, single, rtol=1e-9, atol=1e-9)


def test_what_a_method_found_for_one_region_comes_with_its_groups_and_witness() -> None:
    instance, _, _ = prepared("pairs", seed=6)
    queries = margins(torch.eye(3).double()[None], torch.zeros(1, 3).double())
    found = bound(instance, queries, METHODS["krelu"])
    assert found.bounds.groups
    form = outputs(instance.network, queries.rows, queries.offsets)
    again = lower_bound(instance.network, instance.region, form, found.witness, found.bounds)
    assert torch.allclose(again, found.value, rtol=1e-9, atol=1e-9)
