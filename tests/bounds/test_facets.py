"""Ascents over products and softmax: along the slopes that are worth having, with sums of products crossed at once."""

from __future__ import annotations

import pytest
import torch
from tests.bounds.test_contracted import bounded
from torch import Tensor

from krelax.activations import LogSumExp, Product, Rule
from krelax.bounds.backward import Form, Trace, back_substitute, lower_bound, outputs
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.optimise import Ascent, ascend, differentiate, initial
from krelax.bounds.steps import Single, Step, Witness

QUERIES = 5


def posed(name: str) -> tuple[Instance, Form, LayerBounds]:
    """Margins of a network with products of matrices over two regions, proposals in float64, too."""
    network, region, bounds = bounded(name)
    rows = torch.randn(2, QUERIES, bounds.lower[-1][0].numel(), generator=torch.Generator().manual_seed(5)).double()
    form = outputs(network, rows, torch.zeros(2, QUERIES).double())
    return Instance.of(network, region, fast=torch.float64), form, bounds


def drawn(bounds: LayerBounds) -> Witness:
    """Slopes that are worth having, different for every query and away from the ends of their ranges."""
    generator = torch.Generator().manual_seed(6)
    witness = initial(bounds, list(bounds.relaxations), QUERIES)
    for i, step in witness.items():
        low, high = (t.unsqueeze(1) for t in bounds.relaxations[i].slope_range())
        for parameter in step.parameters():
            share = torch.rand(parameter.value.shape, generator=generator, dtype=parameter.value.dtype)
            value = low + (0.3 + 0.4 * share) * (high - low)
            parameter.value.copy_(value if parameter.nearest is None else parameter.nearest(value))
    return witness


def value_of(instance: Instance, form: Form, bounds: LayerBounds, witness: Witness) -> Tensor:
    """What an ascent climbs."""
    result, _ = back_substitute(instance.network, form, witness, bounds, Trace())
    return result.constant + instance.region.minimise(result.coeff[0])


def put_gradients(instance: Instance, form: Form, bounds: LayerBounds, witness: Witness) -> None:
    trace = Trace()
    result, _ = back_substitute(instance.network, form, witness, bounds, trace)
    differentiate(instance, result.coeff[0], witness, trace)


def copied(bounds: LayerBounds, witness: Witness) -> Witness:
    copy = initial(bounds, list(witness), QUERIES)
    for i, step in copy.items():
        for ours, theirs in zip(step.parameters(), witness[i].parameters(), strict=True):
            ours.value.copy_(theirs.value)
    return copy


def leading(op: object, step: Step, lower: bool, draw: Tensor) -> tuple[Tensor, Tensor]:
    """A direction among slopes worth having, and the part of the gradient that moves along it with `draw`."""
    parameter = step.parameters()[0 if lower else 1]
    assert parameter.gradient is not None
    if isinstance(op, Product):
        along = (parameter.high - parameter.low) / 2 * torch.tensor([1.0, 1.0 if lower else -1.0]).double()
        return along * draw[..., :1], parameter.gradient[..., :1] * draw[..., :1]
    if lower:
        level = draw - draw.mean(-1, keepdim=True)
        return level, parameter.gradient * level
    return parameter.value * draw[..., :1], parameter.gradient[..., :1] * draw[..., :1]


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("kind", [Product, LogSumExp])
def test_gradients_along_slopes_worth_having_are_those_of_finite_differences(kind: type, lower: bool) -> None:
    instance, form, bounds = posed("softmax")
    witness = drawn(bounds)
    put_gradients(instance, form, bounds, witness)
    generator, found = torch.Generator().manual_seed(7), False
    for i in bounds.relaxations:
        op = instance.network.nodes[i].op
        if not isinstance(op, kind):
            continue
        shape = witness[i].parameters()[0].value.shape
        draw = torch.randn(shape, generator=generator, dtype=torch.float64)
        direction, part = leading(op, witness[i], lower, draw)
        ends = []
        for h in (1e-6, -1e-6):
            moved = copied(bounds, witness)
            moved[i].parameters()[0 if lower else 1].value.add_(direction, alpha=h)
            ends.append(value_of(instance, form, bounds, moved))
        expected = part.flatten(2).sum(2)
        assert torch.allclose((ends[0] - ends[1]) / 2e-6, expected, rtol=1e-4, atol=1e-5)
        found = found or bool((expected != 0).any())
    assert found


def test_ascents_stay_between_facets_and_among_weights() -> None:
    instance, form, bounds = posed("softmax")
    witness = ascend(instance, form, bounds, Ascent(10, 0.3, 0.95))
    for i, step in witness.items():
        op, (below, above) = instance.network.nodes[i].op, (p.value for p in step.parameters())
        if isinstance(op, Product):
            low, high = (t.unsqueeze(1) for t in bounds.relaxations[i].slope_range())
            for slopes, sign in ((below, 1), (above, -1)):
                place = 2 * (slopes - low) / (high - low) - 1
                assert torch.allclose(place[..., 0], sign * place[..., 1], rtol=0, atol=1e-9)
        elif isinstance(op, LogSumExp):
            assert torch.allclose(below.sum(-1), torch.ones(()).double(), rtol=0, atol=1e-9)


def test_ascents_raise_bounds_of_softmax_and_products() -> None:
    instance, form, bounds = posed("softmax")
    before, after = (
        lower_bound(
            instance.network, instance.region, form, ascend(instance, form, bounds, Ascent(n, 0.3, 0.95)), bounds
        )
        for n in (0, 30)
    )
    assert bool((after > before).all())


@pytest.mark.parametrize("name", ["matmul", "heads", "einsum", "softmax"])
def test_gradients_behind_products_crossed_at_once_are_those_of_all_products(name: str) -> None:
    instance, form, bounds = posed(name)
    found = []
    for copies in (1, QUERIES):
        witness = drawn(bounds)
        for i, relaxation in bounds.relaxations.items():
            if isinstance(instance.network.nodes[i].op, Product):
                lines = relaxation.lines_by(Rule.ADAPTIVE)
                slopes = (t.repeat(1, copies, *[1] * (t.dim() - 2)) for t in (lines.lower, lines.upper))
                witness[i] = Single(relaxation, *slopes, fixed=True)  # type: ignore[misc]
        put_gradients(instance, form, bounds, witness)
        found.append([p.gradient for step in witness.values() for p in step.parameters()])
    assert found[0]
    for at_once, one_by_one in zip(*found, strict=True):
        assert at_once is not None
        assert torch.allclose(at_once, one_by_one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["matmul", "heads", "einsum", "softmax"])
def test_gradients_of_shared_lines_are_the_sums_of_those_of_all_queries(name: str) -> None:
    instance, form, bounds = posed(name)
    products = [i for i in bounds.relaxations if isinstance(instance.network.nodes[i].op, Product)]
    found = []
    for copies in (1, QUERIES):
        witness = drawn(bounds)
        for i in products:
            lines = bounds.relaxations[i].lines_by(Rule.ADAPTIVE)
            slopes = (t.repeat(1, copies, *[1] * (t.dim() - 2)) for t in (lines.lower, lines.upper))
            witness[i] = Single(bounds.relaxations[i], *slopes)
        put_gradients(instance, form, bounds, witness)
        found.append([p.gradient for i in products for p in witness[i].parameters()])
    for together, one_by_one in zip(*found, strict=True):
        assert together is not None
        assert together.shape[1] == 1
        assert torch.allclose(together, one_by_one.sum(1, keepdim=True), rtol=1e-9, atol=1e-9)
