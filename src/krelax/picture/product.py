"""The product of two numbers: its saddle, and the convex hull of it over a box and over an octagon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from krelax.errors import InputError
from krelax.hull import octagon as closed_form
from krelax.looks import BLACK, LOOKS
from krelax.picture.geometry import Array, faces, polygon, volume
from krelax.picture.pair import NAMES
from krelax.picture.roof import frame
from krelax.picture.style import drawn, number, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Points of an edge on which the product is a parabola, and lines of the saddle.
_EDGE, _LINES = 9, 13


@drawn
def product(bounds: Sequence[float], names: Sequence[str] = NAMES) -> Figure:
    """The saddle `z1 * z2` and its convex hull: over the box of both operands, and over their octagon.

    `bounds` are those of the octagon in the order of `krelax.hull.octagon.ROWS`. The hull over the box is spanned by
    four corners (McCormick's planes are its faces), that over the octagon by its edges: through every point inside
    goes a line on the saddle. The titles say how much room the hulls have. Raises InputError for an empty octagon.
    """
    corners = _corners(bounds)
    low, high = corners.min(0), corners.max(0)
    box = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    figure = sheet(9.2, 4.2)
    for i, (title, base) in enumerate((("a box", box), ("an octagon", corners)), start=1):
        axes = figure.add_subplot(1, 2, i, projection="3d")
        inside = _draw(axes, base, "triangle" if base is box else "hull")
        frame(axes, _lifted(box), names, rf"{names[0]}\,{names[1]}")
        axes.set_title(f"over {title}: volume {number(inside)}", y=0.98)
    return figure


def spanning(corners: Array) -> Array:
    """Points (z1, z2, z1 z2), `(n, 3)`, that span the hull over a polygon, up to the curves of its slanted edges."""
    edges = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    along = [first + np.linspace(0, 1, _EDGE)[:-1, None] * (last - first) for first, last in edges]
    straight = [((edge[1] - edge[0]) == 0).any() for edge in along]
    return _lifted(np.concatenate([edge[:1] if flat else edge for edge, flat in zip(along, straight, strict=True)]))


def room(corners: Array) -> float:
    """The volume of the hull over a polygon."""
    points = spanning(corners)
    return volume(faces(points, 1), faces(points, -1))


def _corners(bounds: Sequence[float]) -> Array:
    tight = closed_form.tighten(torch.tensor(bounds, dtype=torch.float64).reshape(8))
    if bool((tight + tight.flip(0) < 0).any()):
        raise InputError("no two numbers have these bounds")
    return polygon(closed_form.points(tight)[:8].numpy())


def _lifted(z: Array) -> Array:
    return np.column_stack([z, z.prod(1)])


def _draw(axes: Any, base: Array, name: str) -> float:
    """The hull, and in it the saddle by lines on it; the volume of the hull."""
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    look, points = LOOKS[name], spanning(base)
    floor, roof = faces(points, -1), faces(points, 1)
    for sides, alpha in ((floor, 0.18), (roof, 0.28)):
        axes.add_collection3d(Poly3DCollection(sides, facecolor=look.colour, edgecolor="none", alpha=alpha))
    for operand in (0, 1):
        for at in np.linspace(base[:, operand].min(), base[:, operand].max(), _LINES):
            ends = _section(base, operand, float(at))
            axes.plot(*_lifted(ends).T, color=BLACK, linewidth=0.7)
    rim = spanning(base)
    axes.plot(*np.concatenate([rim, rim[:1]]).T, color=BLACK, linewidth=1.8)
    return volume(roof, floor)


def _section(base: Array, operand: int, at: float) -> Array:
    """The two ends of what a line with one operand fixed has of a polygon, `(2, 2)`."""
    found = []
    for first, last in zip(base, np.roll(base, -1, axis=0), strict=True):
        if min(first[operand], last[operand]) <= at <= max(first[operand], last[operand]):
            run = last[operand] - first[operand]
            found += [first, last] if run == 0 else [first + (at - first[operand]) / run * (last - first)]
    ends = np.array(found)
    return ends[[ends[:, 1 - operand].argmin(), ends[:, 1 - operand].argmax()]]
