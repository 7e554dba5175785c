"""Networks, searches and data sets: what is drawn is what the library found."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from krelax.activations import ReLU, Sigmoid
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.multineuron import MultiNeuron
from krelax.bounds.optimise import Ascent
from krelax.certificate.format.schema import Lemma
from krelax.errors import InputError
from krelax.hull.grouping import Grouping
from krelax.looks import LOOKS
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.picture import certified, layers, neuron, progress, radius, reachable, sampled, save, shares, tree, trees
from krelax.picture import watched as watch
from krelax.picture.layers import of_layers
from krelax.picture.tree import bounds
from krelax.problem.queries import Queries
from krelax.problem.region import Box

Legible = Callable[[Any], list[str]]


def small(widths: tuple[int, ...] = (2, 6, 6, 2), seed: int = 5) -> Network:
    """A random network of ReLUs."""
    generator = torch.Generator().manual_seed(seed)
    builder, node = Builder((widths[0],)), 0
    for n, m in pairwise(widths):
        weight = torch.randn(m, n, generator=generator, dtype=torch.float64)
        node = builder.add(Dense(weight, torch.randn(m, generator=generator, dtype=torch.float64)), node)
        node = builder.add(ReLU(), node) if len(builder.build(node).nodes) < 2 * len(widths) - 2 else node
    return builder.build(node)


def on_square(network: Network) -> Instance:
    """A network over a square."""
    return Instance.of(network, Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double()))


def asking(*rows: list[float], offset: float = 0.0) -> Queries:
    """Margins of outputs."""
    count = len(rows)
    offsets, clause = torch.full((1, count), offset).double(), torch.arange(count)[None]
    return Queries(torch.tensor([rows], dtype=torch.float64), offsets, clause, count)


def example() -> Network:
    """`ReLU(u + v) + ReLU(u - v)`."""
    builder = Builder((2,))
    z = builder.add(Dense(torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double(), None), 0)
    return builder.build(builder.add(Dense(torch.ones(1, 2).double(), None), builder.add(ReLU(), z)))


def test_the_textbook_numbers_are_those_of_the_bounds() -> None:
    """What `pair` and `roofs` show of one pair is what methods prove of the network."""
    instance, query = on_square(example()), asking([-1.0])
    joint = replace(METHODS["alpha"], multi_neuron=(MultiNeuron(Grouping(2), outer=Ascent(1000, 0.3, 0.997)),))
    assert -float(bound(instance, query, METHODS["lp"]).value) == pytest.approx(3.0, abs=1e-6)
    assert -float(bound(instance, query, joint).value) == pytest.approx(2.0, abs=2e-3)


def test_outlines_hold_every_sample(legible: Legible) -> None:
    instance = on_square(small())
    points = sampled(instance, 2000)
    outlines = {name: certified(instance, METHODS[name]) for name in ("interval", "zonotope", "crown", "alpha")}
    angle = torch.arange(48).double() * (2 * torch.pi / 48)
    normals = torch.stack([angle.cos(), angle.sin()], -1)
    for name, corners in outlines.items():
        found = bound(instance, asking(*(-normals).tolist()), METHODS[name]).value[0].numpy()
        excess = (normals.numpy() @ corners.T).max(1) + found
        assert (excess <= 1e-9 * np.abs(found).max()).all(), "a corner outside of a half-plane"
        touched = np.abs(normals.numpy() @ corners.T + found[:, None]) <= 1e-9 * np.abs(found).max()
        assert (touched.sum(0) >= 2).all(), "a corner that half-planes do not make"
        assert (normals.numpy() @ points.T <= -found[:, None]).all()
    texts = legible(reachable(points, outlines))
    assert any(text.startswith("zonotope: ") for text in texts)


def test_layers_show_what_is_undecided(legible: Legible) -> None:
    instance, query = on_square(small((2, 8, 8, 8, 2))), asking([1.0, -1.0])
    bounds = {name: bound(instance, query, METHODS[name]).bounds for name in ("interval", "zonotope", "crown", "alpha")}
    for intervals in bounds.values():
        undecided, width = of_layers(intervals)
        inner = [r for _, r in sorted(intervals.relaxations.items())]
        assert undecided.tolist() == [float(((r.lower < 0) & (r.upper > 0)).sum()) for r in inner]
        assert (width >= 0).all()
    figure = layers(bounds)
    legible(figure)
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert drawn["CROWN"].tolist() == of_layers(bounds["crown"])[0].tolist()


def test_progress_shows_every_step(legible: Legible) -> None:
    instance, query = on_square(small()), asking([1.0, -1.0], [0.0, 1.0])
    alpha = bound(instance, query, METHODS["alpha"])
    run = watch(instance, query, alpha.bounds, Ascent(30, 0.5, 0.9))
    assert len(run.values) == len(run.seconds) == 30
    run.seconds[:] = [0.01 * (i + 1) for i in range(30)]  # what is drawn does not depend on the machine
    assert run.values[0] <= max(run.values) <= float(alpha.value.amin()) + 1e-3
    figure = progress({"alpha": run}, {"crown": float(bound(instance, query, METHODS["crown"]).value.amin())})
    legible(figure)
    assert figure.axes[0].lines[-1].get_ydata().tolist() == pytest.approx(run.values)
    legible(progress({"alpha": run}, seconds=False))


def claim(*tree_: int) -> Lemma:
    """A claim with this tree and nothing else."""
    return Lemma(np.array(tree_, np.int32), np.zeros(0, np.float32))


def test_trees_are_read_in_preorder() -> None:
    one, two = trees(claim(3, -1, 5, -1, -1, -1))
    assert [node.neuron for node in one] == [3, -1, 5, -1, -1]
    assert [node.path for node in one] == [(), ((3, 1),), ((3, -1),), ((3, -1), (5, 1)), ((3, -1), (5, -1))]
    assert [node.parent for node in one] == [-1, 0, 0, 2, 2]
    assert [node.place for node in one] == [0.75, 0.0, 1.5, 1.0, 2.0]
    assert [node.neuron for node in two] == [-1]


def test_clips_are_no_nodes_of_a_tree() -> None:
    with_clips, without = (
        list(trees(claim(*t))) for t in ((-2, 3, -2, -2, -1, 5, -2, -1, -1, -1), (3, -1, 5, -1, -1, -1))
    )
    assert with_clips == without


def test_bounds_rise_from_the_root_and_are_sound(legible: Legible) -> None:
    instance, query = on_square(small()), asking([1.0, -1.0], [0.0, 1.0])
    layers = bound(instance, query, METHODS["alpha"]).bounds
    unstable = [i for i, u in enumerate(layers.relaxations[2].unstable()[0].tolist()) if u]
    (nodes,) = trees(claim(unstable[0], unstable[1], -1, -1, unstable[1], -1, -1))
    values = bounds(instance, query, 0, layers, nodes, Ascent(50, 0.3, 0.95))
    for node, value in zip(nodes[1:], values[1:], strict=True):
        assert value >= values[node.parent]
    margins = sampled(instance, 5000) @ np.array([1.0, -1.0])
    assert min(values[i] for i, node in enumerate(nodes) if node.neuron < 0) <= margins.min()
    texts = legible(tree(nodes, values))
    assert str(unstable[1]) in texts
    legible(tree(nodes))


def test_bounds_in_trees_are_for_relus_only() -> None:
    builder = Builder((2,))
    node = builder.add(Dense(torch.eye(2, dtype=torch.float64), None), 0)
    instance, query = on_square(builder.build(builder.add(Sigmoid(), node))), asking([1.0, -1.0])
    layers = bound(instance, query, METHODS["crown"]).bounds
    with pytest.raises(ValueError, match="ReLU"):
        bounds(instance, query, 0, layers, next(trees(claim(-1))), Ascent(1))


@pytest.mark.parametrize("depth", [0, 1, 3, 6])
def test_full_trees_can_be_read(depth: int, legible: Legible) -> None:
    def full(level: int) -> list[int]:
        return [-1] if level == depth else [100 + level, *full(level + 1), *full(level + 1)]

    (nodes,) = trees(claim(*full(0)))
    legible(tree(nodes))
    legible(tree(nodes, np.array([float(len(node.path)) - 2.5 for node in nodes])))


def test_radii_are_the_bars(legible: Legible) -> None:
    image = np.random.default_rng(0).random((8, 8))
    radii = {"interval": 0.00234, "crown": 0.0492, "krelu": 0.057}
    figure = radius(image, 1 - image, radii, 0.083, "attacked: a 3")
    texts = legible(figure)
    bars: Any = figure.axes[2].patches
    assert [bar.get_width() for bar in bars] == list(radii.values())
    assert {"0.00234", "0.0492", "0.057", "an attack succeeds at 0.083", "attacked: a 3"} <= set(texts)
    legible(radius(np.random.default_rng(0).random((32, 32, 3)), np.zeros((32, 32, 3)), radii))


def test_shares_are_percent(legible: Legible) -> None:
    table = {"interval": [(0.0, 1.0), (0.1, 0.0)], "alpha": [(0.0, 1.0), (0.1, 0.55)]}
    figure = shares(table, [(0.0, 1.0), (0.1, 0.8)])
    legible(figure)
    drawn = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert drawn["certified by alpha"] == pytest.approx([100, 55])
    assert drawn["not refuted"] == pytest.approx([100, 80])


def test_steps_claim_no_more_than_what_is_known_at_radii(legible: Legible) -> None:
    """Between two radii what is certified is what the larger one has, and what is refuted what the smaller one has."""
    figure = shares({"alpha": [(0.0, 1.0), (0.1, 0.5)]}, [(0.0, 1.0), (0.1, 0.8)], steps=True)
    legible(figure)
    drawn = [list(zip(*map(list, line.get_data()), strict=True)) for line in figure.axes[0].lines]
    assert (0.0, 50) in drawn[1]
    assert (0.1, 100) in drawn[0]
    assert figure.axes[0].get_xlim()[0] == 0


def test_lines_of_the_table_are_all_different() -> None:
    sets = {"planar": "crown", "triangle": "lp", "hull": "krelu"}
    for one, two in sets.items():
        assert (LOOKS[one].colour, LOOKS[one].dash) == (LOOKS[two].colour, LOOKS[two].dash)
    methods = {name: (look.colour, look.dash) for name, look in LOOKS.items() if name not in sets}
    assert len(set(methods.values())) == len(methods)
    assert set(METHODS) <= set(methods)


@pytest.mark.parametrize(("ending", "begins"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_figures_are_saved_by_their_ending(ending: str, begins: bytes, tmp_path: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # which are about packages that figures are made with
        save(neuron(ReLU(), -1.0, 2.0), tmp_path / f"figure.{ending}")
    assert (tmp_path / f"figure.{ending}").read_bytes().startswith(begins)


def test_saving_twice_gives_the_same_file(tmp_path: Any) -> None:
    for name in ("one.svg", "two.svg"):
        save(neuron(ReLU(), -1.0, 2.0), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    with pytest.raises(InputError, match=r"\.svg"):
        save(neuron(ReLU(), -1.0, 2.0), tmp_path / "figure.gif")


def test_without_matplotlib_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(InputError, match="pip install"):
        neuron(ReLU(), -1.0, 2.0)
