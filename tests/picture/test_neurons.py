"""One and two neurons: the numbers shown are the library's, and the figures can be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from tests.marks import at_night_after
from tests.picture.examples import MAXIMUM, PLAIN, ROTATED, joint

from krelax.activations import GELU, Exp, LeakyReLU, Product, Reciprocal, ReLU, Round, Shrink, Sigmoid, Sin, Tanh
from krelax.activations.banded import Banded
from krelax.activations.joint import Joint
from krelax.errors import InputError
from krelax.hull.octagon import ROWS
from krelax.picture import neuron, octagon, pair, product, projections, roofs
from krelax.picture.geometry import area, faces, polygon, within
from krelax.picture.neuron import graph, outline
from krelax.picture.pair import activated, edges, inside, largest, spanning
from krelax.picture.product import room as product_room
from krelax.picture.roof import room

Legible = Callable[[Any], list[str]]
PAIRS = {"rotated": ROTATED, "maximum": MAXIMUM, "plain": PLAIN}
DIRECTIONS = [(1.0, 1.0), (1.0, -1.0), (-0.5, 2.0), (-1.0, -1.0)]


@pytest.mark.parametrize(("name", "wanted"), [("interval", 6.0), ("zonotope", 2.0), ("planar", 1.5), ("triangle", 1.0)])
def test_slack_areas_of_a_relu(name: str, wanted: float) -> None:
    assert area(outline(ReLU(), -1.0, 2.0, name)) == pytest.approx(wanted)


@pytest.mark.parametrize("op", [ReLU(), LeakyReLU(0.1), Sigmoid(), Tanh()], ids=lambda op: type(op).__name__)
@pytest.mark.parametrize("name", ["interval", "zonotope", "planar", "triangle"])
def test_outlines_contain_the_graph_and_respect_the_support_function(op: Any, name: str) -> None:
    corners = outline(op, -1.5, 2.0, name)
    z = torch.linspace(-1.5, 2.0, 50, dtype=torch.float64)
    graph = torch.stack([z, op.forward(z)], -1).numpy()
    assert area(polygon(np.concatenate([corners, graph]))) == pytest.approx(area(corners), abs=1e-4)
    if name == "triangle":
        angle = torch.linspace(0, 6, 40).double()[None, :, None]
        relaxation = op.relax(torch.full((1, 1), -1.5).double(), torch.full((1, 1), 2.0).double())
        value = relaxation.support(angle.cos(), angle.sin()).value.flatten().numpy()
        shown = np.stack([angle.cos().flatten(), -angle.sin().flatten()]).T @ corners.T
        assert shown.max(1) == pytest.approx(value, abs=1e-4)


def test_one_neuron_can_be_read(legible: Legible) -> None:
    texts = legible(neuron(ReLU(), -1.0, 2.0))
    for name, number in (("interval", "6"), ("zonotope", "2"), ("planar (CROWN)", "1.5"), ("triangle", "1")):
        assert f"{name}\nslack area {number}" in texts
    assert "convex hull\nslack area" in " ".join(legible(neuron(Sigmoid(), -2.0, 4.0)))


@pytest.mark.parametrize("op", at_night_after(2, [Sin(), Round(), GELU(), Exp(), Shrink(0.5)]), ids=lambda op: op.name)
def test_curves_and_steps_can_be_read(op: Any, legible: Legible) -> None:
    assert "convex hull\nslack area" in " ".join(legible(neuron(op, -2.2, 2.6)))


def test_steps_are_not_joined() -> None:
    points = graph(Round(), -1.2, 2.7)
    assert np.isnan(points).all(1).sum() == 4  # at -0.5, 0.5, 1.5 and 2.5
    assert not np.isnan(graph(GELU(), -1.2, 2.7)).any()


def test_what_is_no_curve_is_refused() -> None:
    with pytest.raises(InputError, match=r"picture\.product"):
        neuron(Product(), -1.0, 1.0)
    with pytest.raises(InputError, match="no bounds"):
        neuron(Reciprocal(), -1.0, 1.0)


CURVED = Banded(Sigmoid(), torch.tensor(ROWS).double(), torch.tensor([[[6.0, 4, 2, 4, 0, 2, 0, -2]]]).double())
"""z1 = u + v - 2, z2 = u - v - 2 with u, v in [-1, 1], where sigmoids are convex."""


def test_a_pair_of_curves_can_be_read(legible: Legible) -> None:
    texts = " ".join(legible(pair(CURVED)))
    assert "pair, by bands" in texts
    assert "convex hulls" in texts
    with pytest.raises(InputError, match="pairs of ReLUs"):
        roofs(CURVED)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_pair_of_curves_is_between_its_graph_and_single_neurons(direction: tuple[float, float]) -> None:
    graph_ = activated(CURVED, np.concatenate([inside(CURVED), *edges(CURVED)]))
    exact = (graph_ @ direction).max()
    assert exact <= largest(CURVED, "hull", direction)
    assert largest(CURVED, "triangle", direction) <= largest(CURVED, "planar", direction) + 1e-12
    if direction == (1.0, 1.0):
        assert exact == pytest.approx(0.5 + 1 / (1 + np.exp(2)))
        assert largest(CURVED, "hull", direction) < largest(CURVED, "triangle", direction) - 0.1


def test_a_product_can_be_read(legible: Legible) -> None:
    texts = " ".join(legible(product([1.0, 1.0, 1.2, 1.0, 1.5, 1.6, 2.0, 2.2])))
    assert "over a box: volume 8.76" in texts
    with pytest.raises(InputError, match="no two numbers"):
        product([-1.0] * 8)


def test_rooms_of_products() -> None:
    box = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    assert product_room(box) == pytest.approx(8 / 3)  # a tetrahedron in a cube of side 2
    diamond = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert 0 < product_room(diamond) < 8 / 3 / 4


def test_sets_can_share_axes(legible: Legible) -> None:
    figure = octagon(PLAIN)
    figure.clear()
    axes = figure.add_subplot()
    assert neuron(ReLU(), -1.0, 1.5, ("zonotope", "triangle"), axes) is figure
    assert any("triangle, area 0.75" in text for text in legible(figure))


def by_program(pair_: Joint, direction: tuple[float, float]) -> float:
    """The largest form of the post-activations between the triangles of single neurons, over the octagon."""
    rows, limits = [[*row, 0, 0] for row in ROWS], pair_.bounds.flatten().tolist()
    for i, s in enumerate(pair_.negative_slopes):
        lower, upper = -limits[(1, 3)[i]], limits[(6, 4)[i]]
        chord = (max(upper, s * upper) - max(lower, s * lower)) / (upper - lower)
        unit = np.eye(2)[i]
        rows += [[*unit, *-unit], [*s * unit, *-unit], [*-chord * unit, *unit]]
        limits += [0.0, 0.0, max(lower, s * lower) - chord * lower]
    found = linprog([0, 0, *(-d for d in direction)], rows, limits, bounds=(None, None))
    return float(-found.fun)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", PAIRS)
def test_triangles_over_the_octagon_are_the_linear_program(name: str, direction: tuple[float, float]) -> None:
    assert largest(PAIRS[name], "triangle", direction) == pytest.approx(by_program(PAIRS[name], direction))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", PAIRS)
def test_hulls_and_roofs_are_the_support_function(name: str, direction: tuple[float, float]) -> None:
    pair_ = PAIRS[name]
    points = spanning(pair_, "hull")
    assert (points[:, 2:] @ direction).max() == pytest.approx(largest(pair_, "hull", direction))
    solid = np.column_stack([points[:, :2], points[:, 2:] @ direction])
    for side in (1, -1):
        for face in faces(solid, side):
            normal = np.cross(face[1] - face[0], face[2] - face[0])
            normal = normal / normal[2]
            slope = torch.tensor(side * normal[:2]).reshape(1, 1, 2, 1)
            coeff = -side * torch.tensor(direction).double().reshape(1, 1, 2, 1)
            assert float(pair_.support(slope, coeff).value) == pytest.approx(float(side * normal @ face[0]), abs=1e-6)


@pytest.mark.parametrize(("name", "triangle", "exact"), [("rotated", 3.0, 2.0), ("maximum", 1.5, 1.0)])
def test_textbook_numbers(name: str, triangle: float, exact: float, legible: Legible) -> None:
    pair_ = PAIRS[name]
    assert largest(pair_, "triangle") == pytest.approx(triangle)
    assert largest(pair_, "hull") == pytest.approx(exact)
    texts = legible(pair(pair_))
    for label, number in (("triangle", triangle), ("2-ReLU", exact), ("exact", exact)):
        assert f"{label}: {number:g}" in texts
    titles = legible(roofs(pair_))
    assert any(text.startswith(f"triangle: at most {triangle:g},") for text in titles)
    assert any(text.startswith(f"2-ReLU: at most {exact:g},") for text in titles)


def test_volumes_are_those_of_prisms() -> None:
    """Over the square |z1| + |z2| <= 2 both roofs are planes, one above the other, and the floor a pyramid's."""
    assert room(ROTATED, "triangle") - room(ROTATED, "hull") == pytest.approx(8.0)
    assert room(ROTATED, "hull") == pytest.approx(8 / 3)


def test_looser_sets_contain_tighter_ones() -> None:
    for pair_ in PAIRS.values():
        for direction in DIRECTIONS:
            values = [largest(pair_, name, direction) for name in ("hull", "triangle", "planar")]
            assert values == sorted(values)
            others = min(largest(pair_, name, direction) for name in ("zonotope", "interval"))
            assert values[1] <= others * (1 + 2.0**-22)  # upper lines have slopes in float32


OCTAGONS = {
    "wide": [5.0, 4.0, 4.2, 1.0, 0.5, 3.2, 3.0, 3.3],
    "inactive": [3.0, 2.0, 1.0, 1.5, -0.5, 1.6, 0.5, 0.0],
    "small": [0.002, 0.0015, 0.002, 0.001, 0.001, 0.002, 0.0015, 0.002],
    "tall": [4.4, 0.6, 3.8, 4.0, 3.5, 4.5, 0.9, 4.1],
    "large": [3000.0, 2000.0, 3100.0, 1500.0, 1400.0, 3100.0, 2100.0, 3200.0],
}


@pytest.mark.parametrize("name", at_night_after(1, OCTAGONS))
def test_any_octagon_can_be_read(name: str, legible: Legible) -> None:
    pair_ = joint(OCTAGONS[name])
    legible(pair(pair_))
    legible(projections(pair_, direction=(1.0, -1.0)))
    legible(roofs(pair_, direction=(1.0, -1.0)))


def test_more_than_one_pair_is_refused() -> None:
    many = Joint(PLAIN.rows, PLAIN.bounds.expand(1, 2, 8), (0.0, 0.0))
    with pytest.raises(ValueError, match="one pair"):
        octagon(many)


def test_half_planes_give_their_polygon() -> None:
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    normals = np.stack([np.cos(angle), np.sin(angle)], -1)
    square = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    corners = within(normals, (normals @ square.T).max(1))
    assert area(corners) == pytest.approx(4.0)
