"""Windows of convolutional layers, and what they see of a network."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod

import pytest
import torch
from tests.marks import at_night_after
from torch import Tensor

from krelax.activations import LeakyReLU, Max, ReLU, Rule, Sigmoid, Square
from krelax.activations.transformations import Rotate
from krelax.activations.transformed import Transformed
from krelax.activations.warp import Picture
from krelax.bounds import intermediate, views
from krelax.bounds.cones import cones, entries
from krelax.bounds.instance import Instance
from krelax.bounds.intermediate import loose
from krelax.bounds.layers import LayerBounds, advance, start
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.optimise import Ascent
from krelax.bounds.seen import seen
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Conv, Dense, Scale
from krelax.network.ops import Concat, Gather, Reshape, Take, Transpose
from krelax.network.pooling import Window, average_pool, max_pool
from krelax.problem.queries import Queries
from krelax.problem.region import Box, Region, ball
from krelax.proof.log import ProofLog

DRAWN = torch.Generator().manual_seed(4)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=DRAWN, dtype=torch.float64)


def conv(
    given: int, made: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> Conv:
    weight = drawn(made, given // groups, kernel, kernel) / kernel
    return Conv(weight, drawn(made), (stride,) * 2, (padding,) * 2, (dilation,) * 2, groups)


def residual(start: str = "image") -> tuple[Network, int]:
    """A network of many kinds of layers, and the node that sees most of them; it starts with an image, with a vector,
    or with what is made of a few numbers."""
    builder = Builder({"image": (1, 2, 15, 12), "vector": (2 * 15 * 12,), "made": (4,)}[start])
    image = (
        0 if start != "made" else builder.add(ReLU(), builder.add(Dense(drawn(2 * 15 * 12, 4), drawn(2 * 15 * 12)), 0))
    )
    image = image if start == "image" else builder.add(Reshape((1, 2, 15, 12)), image)
    stem = builder.add(Scale(drawn(2, 1, 1), drawn(2, 1, 1)), image)
    first = builder.add(LeakyReLU(0.1), builder.add(conv(2, 4, 3, padding=1), stem))
    deeper = builder.add(Sigmoid(), builder.add(conv(4, 4, 3, padding=2, dilation=2, groups=2), first))
    both = builder.add(Add((1, -1)), builder.add(conv(4, 4, 1), deeper), first)
    last = builder.add(conv(4, 2, 2, stride=2), builder.add(ReLU(), both))
    out = builder.add(ReLU(), last)
    end = builder.add(Reshape((prod(builder.shape(out)),)), out)
    return builder.build(builder.add(Dense(drawn(3, prod(builder.shape(out)))), end)), last


def pooled() -> tuple[Network, int]:
    """A network with a pool of windows that overlap, gathers, joined channels and means, and the node before its last
    activation."""
    builder = Builder((1, 2, 14, 14))
    first = builder.add(ReLU(), builder.add(conv(2, 3, 3, padding=1), 0))
    window = Window((3, 3), (2, 2), (1, 1), (1, 1), (1, 1))
    largest = max_pool(builder, first, window)
    mean = average_pool(builder, first, window)
    every = builder.add(Concat(1), largest, mean)
    turned = builder.add(Transpose((0, 1, 3, 2)), builder.add(Gather(1, torch.tensor([5, 0, 2, 2])), every))
    wide = builder.add(Take(torch.arange(196).reshape(1, 4, 7, 7).repeat_interleave(2, 2)), turned)
    last = builder.add(conv(4, 2, 3, stride=2), builder.add(ReLU(), builder.add(conv(4, 4, 1), wide)))
    end = builder.add(Reshape((prod(builder.shape(last)),)), builder.add(ReLU(), last))
    return builder.build(builder.add(Dense(drawn(3, prod(builder.shape(end)))), end)), last


def turned() -> Network:
    """A convolution of an image that its input rotates, in units of 300 degrees: each pixel is another function."""
    builder = Builder((1,))
    shape = (1, 11, 11)
    op = Transformed(Picture(torch.rand(shape, generator=DRAWN, dtype=torch.float64)), (Rotate(),))
    angles = builder.add(Reshape((*shape, 1)), builder.add(Dense(torch.full((121, 1), 300.0, dtype=torch.float64)), 0))
    image = builder.add(Reshape((1, *shape)), builder.add(op, angles))
    edges = replace(conv(1, 2, 3, padding=1), bias=None)
    return builder.build(builder.add(ReLU(), builder.add(edges, image)))


@pytest.fixture(autouse=True)
def _cones_of_small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are worth it in larger ones. What a test draws does not depend on those before it."""
    DRAWN.manual_seed(4)
    monkeypatch.setattr("krelax.bounds.cones._FIXED", 0.0)


def region(network: Network, norm: str = "linf") -> Region:
    centre = torch.rand(2, *network.input_shape, generator=DRAWN, dtype=torch.float64)
    return ball(centre, 0.3 if norm == "l2" else 0.02, norm, (0.0, 1.0))


@pytest.mark.parametrize("begin", ["image", "vector", "made", "pooled"])
def test_a_cone_computes_what_the_network_does(begin: str) -> None:
    network, node = pooled() if begin == "pooled" else residual(begin)
    x = drawn(2, *network.input_shape)
    values, found = network.values(x), cones(network, node)
    assert len(found) > 1
    covered = torch.zeros(network.nodes[node].shape, dtype=torch.int64).flatten()
    for cone in found:
        inputs = cone.gathered(values[cone.origin[0]], cone.origin[0])
        assert inputs[0].numel() < x[0].numel() or begin == "made"
        torch.testing.assert_close(cone.network(inputs), cone.gathered(values[node], node), rtol=1e-12, atol=1e-12)
        for numbers in entries(network.nodes[node].shape, [place[node] for place in cone.places]):
            covered[numbers] += 1
    assert bool((covered == 1).all())


RULES = (Rule.ADAPTIVE, Rule.PARALLEL, Rule.ZERO)
PAIRS = list(product(enumerate(("image", "vector", "made")), enumerate(("linf", "l1", "l2"))))
# each of these always
CROSSED = sorted(
    ((begin, norm, RULES[(i + j + k) % 3]) for k in range(3) for (i, begin), (j, norm) in PAIRS),
    key=lambda c: (
        c not in (("image", "l2", Rule.ZERO), ("vector", "linf", Rule.PARALLEL), ("made", "l1", Rule.ADAPTIVE))
    ),
)


@pytest.mark.parametrize(
    ("begin", "norm", "rule"),
    [*at_night_after(3, CROSSED), ("pooled", "linf", Rule.ADAPTIVE), ("turned", "linf", Rule.ADAPTIVE)],
)
def test_bounds_through_cones_are_those_of_whole_passes(
    monkeypatch: pytest.MonkeyPatch, begin: str, norm: str, rule: Rule
) -> None:
    network = {"pooled": lambda: pooled()[0], "turned": turned}.get(begin, lambda: residual(begin)[0])()
    instance = Instance.of(network, region(network, norm))

    def bounded() -> LayerBounds:
        bounds = start(instance.region)
        for i in range(1, len(network.nodes)):
            if i in network.activations():
                intermediate.bound_by_rule(instance, bounds, network.nodes[i].inputs[0], rule)
            advance(network, bounds)
        return bounds

    through = bounded()
    monkeypatch.setattr(views, "cones", lambda *_: [])
    for one, other in zip(through.lower + through.upper, bounded().lower + bounded().upper, strict=True):
        # slopes are rounded to float32, so that bounds that differ by nothing else may round them differently
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("network", [residual()[0], pooled()[0]], ids=["residual", "pooled"])
def test_ascents_through_cones_are_those_through_the_network(monkeypatch: pytest.MonkeyPatch, network: Network) -> None:
    """And what they choose is written down for the whole network, where it proves the same."""
    asked = region(network).select(torch.tensor([0]))
    instance = replace(Instance.of(network, asked, torch.float64), logs=(ProofLog(),))
    queries = Queries(torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3).double(), torch.arange(3)[None], 3)
    few = replace(METHODS["alpha"], inner=Ascent(6, 0.5, 0.9), outer=Ascent(10, 0.5, 0.9))
    found = bound(instance, queries, few)
    monkeypatch.setattr(views, "cones", lambda *_: [])
    other = bound(replace(instance, logs=(ProofLog(),)), queries, few)
    torch.testing.assert_close(found.value, other.value, rtol=1e-5, atol=1e-5)
    for one, whole in zip(found.bounds.lower, other.bounds.lower, strict=True):
        torch.testing.assert_close(one, whole, rtol=1e-4, atol=1e-4)


def test_what_moves_undecided_activations_is_bounded_by_intervals() -> None:
    network, _ = pooled()
    instance = Instance.of(network, region(network))
    bounds = start(instance.region)
    for _ in network.nodes[1:]:
        advance(network, bounds)
    first, second = network.activations()[:2]
    windows, before = network.nodes[second].inputs[0], network.nodes[first].inputs[0]
    undecided = (bounds.lower[before] < 0) & (bounds.upper[before] > 0)
    inner = loose(instance, bounds, first)
    assert bool(loose(instance, bounds, before).all())
    assert not bool((inner & undecided).any())
    # a ReLU that is active moves a number that no pass has bounded
    assert bool(inner[bounds.lower[before] > 0].all())
    assert bool(loose(instance, bounds, windows).any()) == bool(inner.any())


def test_maxima_are_more_than_what_they_move() -> None:
    builder = Builder((6,))  # the difference of two maxima is bounded better together
    maxima = builder.add(Max(), builder.add(Reshape((2, 3)), 0))
    network = builder.build(builder.add(ReLU(), maxima))
    instance = Instance.of(network, Box(-torch.ones(1, 6).double(), torch.ones(1, 6).double()))
    bounds = start(instance.region)
    for _ in network.nodes[1:]:
        advance(network, bounds)
    assert bool(loose(instance, bounds, maxima).all())


def test_what_active_neurons_move_is_bounded_by_passes() -> None:
    """The difference of two numbers that are nearly the same is small, and so is the square of its ReLU."""
    builder = Builder((1,))
    two = builder.add(Dense(torch.tensor([[10.0], [9.9]]).double()), 0)
    one = builder.add(Dense(torch.tensor([[1.0, -1.0]]).double(), torch.tensor([30.0]).double()), two)
    square = builder.add(Square(), builder.add(ReLU(), one))
    network = builder.build(square)
    instance = Instance.of(network, Box(-torch.ones(1, 1).double(), torch.ones(1, 1).double()))
    queries = Queries(torch.ones(1, 1, 1).double(), torch.zeros(1, 1).double(), torch.zeros(1, 1).long(), 1)
    assert float(bound(instance, queries, METHODS["crown"]).value) > 890


def test_many_parts_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places and entries in parts that hold few of them each."""
    network, _ = residual()
    instance = Instance.of(network, region(network))
    monkeypatch.setattr(views, "chunk_queries", lambda *_: 70)
    monkeypatch.setattr(views, "FEW", 3)
    test_bounds_through_cones_are_those_of_whole_passes(monkeypatch, "image", "linf", Rule.ADAPTIVE)
    assert len(instance.region) == 2


def test_no_cones_where_windows_see_everything_or_operators_mix_places(monkeypatch: pytest.MonkeyPatch) -> None:
    network, node = residual()
    assert cones(network, node)
    assert not cones(network, len(network.nodes) - 1)  # dense
    monkeypatch.undo()
    small = Builder((1, 1, 6, 6))
    deep = small.add(conv(1, 1, 5, padding=2), small.add(ReLU(), small.add(conv(1, 1, 5, padding=2), 0)))
    assert not cones(small.build(deep), deep)
    mixed = Builder((1, 1, 40, 40))
    windows = mixed.add(Take(torch.randperm(1600, generator=DRAWN).reshape(1, 1, 20, 20, 4)), 0)
    last = mixed.add(conv(1, 1, 3), mixed.add(Max(), windows))
    assert not cones(mixed.build(last), last)


def test_what_rows_see_is_where_gradients_are_not_zero() -> None:
    network, node = residual()
    builder = Builder(network.input_shape)
    for n in network.nodes[1 : node + 1]:
        builder.add(n.op, *n.inputs)
    network = builder.build(node)
    outputs = prod(network.output_shape)
    rows = torch.zeros(1, 2, outputs, dtype=torch.float64)
    rows[0, 0, 7] = rows[0, 1, outputs // 2] = 1.0
    found = seen(network, rows)
    x = drawn(1, *network.input_shape).requires_grad_(True)
    y = network(x).flatten()
    (gradient,) = torch.autograd.grad(y[7] + 3 * y[outputs // 2], x)
    assert torch.equal(found[0], gradient.flatten() != 0)
    # a stride of two leaves the last of 15 rows out
    assert int(seen(network, torch.ones(1, 1, outputs, dtype=torch.float64))[node - 1].sum()) == 4 * 14 * 12
    whole, _ = residual()
    assert set(seen(whole, torch.ones(1, 1, 3, dtype=torch.float64))) == set(range(4, node))


def test_what_is_not_seen_keeps_its_intervals() -> None:
    """And what is seen is bounded as if everything were."""
    network, node = residual()
    x = region(network).lower[:1]
    instance = Instance.of(network, Box(x, x + 0.05))
    source = network.nodes[network.activations()[1]].inputs[0]
    bounds = []
    for mask in ({}, {source: torch.arange(prod(network.nodes[source].shape)) % 3 == 0}):
        asked = Instance(**{**instance.__dict__, "seen": mask})
        known = start(instance.region)
        for _ in range(source):
            advance(network, known)
        interval = known.lower[source].flatten()
        intermediate.bound_by_rule(asked, known, source, Rule.ADAPTIVE)
        bounds.append(known.lower[source].flatten())
    picked = torch.arange(len(bounds[0])) % 3 == 0
    torch.testing.assert_close(bounds[0][picked], bounds[1][picked], rtol=1e-9, atol=1e-9)
    assert torch.equal(bounds[1][~picked], interval[~picked])
    assert bool((bounds[0][~picked] > interval[~picked]).any())
    assert node > source
