"""Two neurons in three dimensions: a linear form of their post-activations over their octagon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from krelax.activations.joint import Joint, Together
from krelax.errors import InputError
from krelax.looks import BLACK, FAINT, LOOKS, PALE
from krelax.picture.geometry import Array, faces, volume
from krelax.picture.pair import NAMES, SUM, activated, farthest, form, largest, posts, spanning
from krelax.picture.style import drawn, number, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETS = ("triangle", "hull")


@drawn
def roofs(
    joint: Together, names: Sequence[str] = NAMES, direction: Sequence[float] = SUM, sets: Sequence[str] = SETS
) -> Figure:
    """The slice (z1, z2, direction . a) of relaxations of a pair, side by side: a roof over a floor.

    The floor of both is the graph itself where the form is convex. A vertical line marks where the roof is
    highest, and what the graph has there; the titles say how high and how much room there is below the roof. Raises
    InputError for pairs of curves, whose roofs have no corners.
    """
    if not isinstance(joint, Joint):
        raise InputError("roofs are of pairs of ReLUs; picture.pair draws pairs of curves")
    figure = sheet(4.6 * len(sets), 4.0)
    solids = {name: _solid(joint, name, direction) for name in sets}
    everything = np.concatenate(list(solids.values()))
    for i, (name, points) in enumerate(solids.items(), start=1):
        axes = figure.add_subplot(1, len(sets), i, projection="3d")
        _draw(axes, points, name)
        _mark(axes, joint, name, direction)
        frame(axes, everything, names, form(direction, posts(joint, names)))
        height, inside = largest(joint, name, direction), room(joint, name, direction)
        axes.set_title(f"{LOOKS[name].label}: at most {number(height)}, volume {number(inside)}", y=0.98)
    return figure


def _solid(joint: Joint, name: str, direction: Sequence[float]) -> Array:
    """Points of the slice that span it, `(n, 3)`."""
    points = spanning(joint, name)
    return np.column_stack([points[:, :2], points[:, 2:] @ np.array(direction)])


def room(joint: Joint, name: str, direction: Sequence[float] = SUM) -> float:
    """The volume of the slice (z1, z2, direction . a) of a relaxation."""
    points = _solid(joint, name, direction)
    return volume(faces(points, 1), faces(points, -1))


def _draw(axes: Any, points: Array, name: str) -> None:
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    look = LOOKS[name]
    floor = Poly3DCollection(faces(points, -1), facecolor=FAINT, edgecolor=BLACK, linewidth=0.8, alpha=0.7)
    roof = Poly3DCollection(faces(points, 1), facecolor=look.colour, edgecolor=look.colour, linewidth=1.4, alpha=0.4)
    for faces_, order in ((floor, 1), (roof, 2)):
        faces_.set_zorder(order)
        axes.add_collection3d(faces_)


def _mark(axes: Any, joint: Joint, name: str, direction: Sequence[float]) -> None:
    """From the highest point of the roof down to the graph."""
    z = farthest(joint, name, direction)
    top = float(z[2:] @ np.array(direction))
    ground = float(activated(joint, z[:2]) @ np.array(direction))
    axes.plot([z[0]] * 2, [z[1]] * 2, [ground, top], color=BLACK, linewidth=1.4, zorder=3)
    axes.plot(*z[:2], top, "x" if top > ground + 1e-9 else "o", color=LOOKS[name].colour, markersize=8, zorder=4)
    axes.plot(*z[:2], ground, "o", color=BLACK, markersize=4, zorder=4)


def frame(axes: Any, points: Array, names: Sequence[str], height: str) -> None:
    """Axes around points `(n, 3)`, and what they are called."""
    low, high = points.min(0), points.max(0)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    axes.set_xlabel(f"${names[0]}$", labelpad=7)
    axes.set_ylabel(f"${names[1]}$", labelpad=7)
    axes.set_zlabel(f"${height}$", rotation=90)
    axes.view_init(elev=16, azim=-65)
    axes.set_box_aspect((1, 1, 0.8), zoom=0.92)
    for axis, prune in ((axes.xaxis, "upper"), (axes.yaxis, "lower"), (axes.zaxis, None)):
        axis.set_major_locator(_locator(prune))
        axis.set_rotate_label(False)
        axis.pane.set_facecolor("white")
        axis.pane.set_edgecolor(PALE)


def _locator(prune: str | None) -> Any:
    """A few round ticks, none where two axes meet."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4, steps=[1, 2, 5, 10], prune=prune)
