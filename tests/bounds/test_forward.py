"""Quick looks at wide layers behind few inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.bounds.test_cones import conv, drawn
from tests.fuzz.bounds import findings
from tests.marks import at_night_after

from krelax.activations import Max, ReLU, Rule, Sigmoid
from krelax.bounds import asked, cones, forward, intermediate, views
from krelax.bounds.forward import Forward
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds, advance, start
from krelax.bounds.methods import METHODS, bound
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Dense
from krelax.network.ops import Reshape
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.proof.log import DERIVED, ProofLog


def wide() -> Network:
    """Four numbers make an image, on which convolutions work in two branches."""
    builder = Builder((4,))
    image = builder.add(Reshape((1, 2, 12, 12)), builder.add(Dense(drawn(288, 4), drawn(288)), 0))
    first = builder.add(ReLU(), builder.add(conv(2, 4, 3, padding=1), image))
    shared = builder.add(conv(4, 4, 3, padding=1), first)
    second, third = builder.add(Sigmoid(), shared), builder.add(ReLU(), shared)
    both = builder.add(Add((1, 1)), builder.add(conv(4, 4, 1), second), builder.add(conv(4, 4, 3, padding=1), third))
    pooled = builder.add(Max(), builder.add(Reshape((4, 12, 6, 2)), builder.add(ReLU(), both)))
    flat = builder.add(Reshape((288,)), pooled)
    return builder.build(builder.add(Dense(drawn(2, 9)), builder.add(ReLU(), builder.add(Dense(drawn(9, 288)), flat))))


def bounded(network: Network, region: Box, rule: Rule | None, logs: tuple[ProofLog, ...] = ()) -> LayerBounds:
    """Bounds of all layers by quick looks, and by a rule if there is one."""
    instance = Instance(**{**Instance.of(network, region).__dict__, "logs": logs})
    bounds, look = start(region, bool(logs)), Forward(instance)
    for i in range(1, len(network.nodes)):
        if i in network.activations():
            look.tighten(bounds, network.nodes[i].inputs[0])
            if rule is not None:
                intermediate.bound_by_rule(instance, bounds, network.nodes[i].inputs[0], rule)
        advance(network, bounds)
    return bounds


@pytest.mark.parametrize(("room", "rule"), [(64 << 20, None), (64 << 20, Rule.ADAPTIVE), (8 * 2 * 576 * 14, None)])
def test_forms_enclose_values_and_are_tighter_than_intervals(
    monkeypatch: pytest.MonkeyPatch, room: int, rule: Rule | None
) -> None:
    network, x = wide(), drawn(2, 4)
    region = Box(x, x + 0.05)
    plain = bounded(network, region, None)  # where passes are not dear
    monkeypatch.setattr(forward, "_DEAR", 0.0)
    monkeypatch.setattr(forward, "_MANY", 1)
    monkeypatch.setattr(forward, "_BYTES", room)
    found = bounded(network, region, rule)
    share = torch.rand(200, 1, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = network.values((x + 0.05 * share).flatten(0, 1))
    for value, low, high in zip(values, found.lower, found.upper, strict=True):
        inside = value.unflatten(0, (200, 2))
        assert bool(((low <= inside) & (inside <= high)).all())
    last = network.nodes[network.activations()[-1]].inputs[0]
    widths, before = (b.upper[last] - b.lower[last] for b in (found, plain))
    assert bool((widths < 0.9 * before).all())


def test_bounds_have_lemmas_where_proofs_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = wide(), drawn(1, 4)
    monkeypatch.setattr(forward, "_DEAR", 0.0)
    monkeypatch.setattr(forward, "_MANY", 1)
    found = bounded(network, Box(x, x + 0.05), None, (ProofLog(),))
    plain = bounded(network, Box(x, x + 0.05), Rule.ZERO)
    for i in (network.nodes[j].inputs[0] for j in network.activations()[1:]):
        proven = found.lemmas_of(i)[0] > DERIVED
        assert bool((found.lower[i][proven] > plain.lower[i][proven]).any())


def test_margins_that_forms_settle_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = wide(), drawn(1, 4)
    region, rows = Box(x, x + 0.05), drawn(1, 30, 2)
    values = (network.values(x)[-1].flatten(1) @ rows[0].T)[0]
    queries = Queries(rows, torch.where(torch.arange(30) < 20, 80.0, 0.0) - values[None], torch.arange(30)[None], 30)
    crown, instance = METHODS["crown"], replace(Instance.of(network, region), logs=(ProofLog(),))
    every = bound(instance, queries, crown)
    monkeypatch.setattr(forward, "_DEAR", 0.0)
    monkeypatch.setattr(forward, "_MANY", 1)
    passed: list[int] = []
    through = asked.lower_bound  # type: ignore[attr-defined]
    monkeypatch.setattr(
        asked, "lower_bound", lambda *given: passed.append(len(given[2].constant[0])) or through(*given)
    )
    found = bound(instance, queries, crown, stop=True)
    points = x + 0.05 * torch.rand(500, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    lowest = (network.values(points)[-1].flatten(1) @ rows[0].T + queries.offsets).amin(0)
    assert bool((found.value[0] <= lowest).all())
    assert sum(passed) < 30
    assert bool((found.value[0, :20] > 0).all())
    closed = every.value[0] > 0
    assert found.lemmas is not None
    assert bool((found.lemmas[0, closed] > DERIVED).all())
    optimised = bound(instance, queries, METHODS["alpha"], stop=True)
    assert bool((optimised.value[0, 20:] >= found.value[0, 20:]).all())


@pytest.mark.parametrize("seed", at_night_after(2, range(0, 400, 20)))
def test_nothing_is_wrong_where_everything_goes_through_forms_and_cones(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(Forward, "_room", lambda *_: 4 + seed % 32)
    monkeypatch.setattr(cones, "_WORTHWHILE", 1e9)
    monkeypatch.setattr(cones, "_EXTENTS", (1,))
    monkeypatch.setattr(views, "FEW", 0)
    for number in range(seed, seed + 20):
        assert not findings(number)
