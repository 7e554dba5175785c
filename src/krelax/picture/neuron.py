"""One neuron: what each relaxation knows of `a = act(z)` over an interval of z, whatever the activation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from krelax.activations import Activation, Relaxation, Rule
from krelax.activations.steps import Jumping
from krelax.errors import InputError
from krelax.looks import BLACK, LOOKS, Look
from krelax.picture.geometry import Array, area, polygon
from krelax.picture.style import cross, drawn, number, on, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SETS = ("interval", "zonotope", "planar", "triangle")
# Points of a curve, and of steps; steps rise faster than this between two of them.
_CURVED, _STEPPED, _STEEP = 401, 2001, 8.0
RULES = {"zonotope": Rule.PARALLEL, "planar": Rule.ADAPTIVE}


@drawn
def neuron(op: Activation, lower: float, upper: float, sets: Sequence[str] = SETS, axes: Axes | None = None) -> Figure:
    """The (z, a) plane of one neuron with `lower <= z <= upper`: each set around the graph, and its area.

    One panel for each of the `sets` ("interval", "zonotope", "planar", "triangle"), or all of them on `axes`. The graph
    itself has no area, so the area of a set is all slack. Raises InputError for activations of several numbers, and
    for an interval on which one has no bounds, as that of the reciprocal around zero.
    """
    _check(op, lower, upper)
    shapes = {name: outline(op, lower, upper, name) for name in sets}
    if axes is not None:
        figure, _ = on(axes, 0, 0)
        _draw(axes, op, lower, upper, shapes)
        axes.legend(loc="upper left")
        return figure
    figure = sheet(2.45 * len(sets), 2.9)
    panels = figure.subplots(1, len(sets), sharex=True, sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, sets, strict=True):
        _draw(panel, op, lower, upper, {name: shapes[name]})
        panel.set_title(f"{_look(op, name).label}\nslack area {number(area(shapes[name]))}")
    panels[0].set_ylabel("post-activation $a$")
    panels[-1].legend(handles=panels[-1].lines[-1:], loc="lower right", handlelength=1.2)
    _frame(panels, np.concatenate(list(shapes.values())))
    return figure


def _check(op: Activation, lower: float, upper: float) -> None:
    ends = torch.tensor([[lower], [upper]], dtype=torch.float64)
    if not lower < upper:
        raise InputError(f"an interval from {lower:g} to {upper:g} is empty: lower must be below upper")
    relaxation = op.relax(*(t.expand(1, 2) for t in ends))
    if relaxation.reduces:
        raise InputError(f"{op.name} is of several numbers; a product of two is drawn by picture.product")
    if not all(bool(t.isfinite().all()) for t in relaxation.interval()):
        raise InputError(f"{op.name} has no bounds for z from {lower:g} to {upper:g}")


def outline(op: Activation, lower: float, upper: float, name: str) -> Array:
    """The corners of one of the sets, counterclockwise, `(n, 2)` as (z, a)."""
    ends = torch.tensor([lower, upper], dtype=torch.float64)
    relaxation = op.relax(ends[None, :1], ends[None, 1:])
    if name == "triangle":
        return _by_support(relaxation)
    below, above = _interval(relaxation) if name == "interval" else _band(relaxation, RULES[name], ends)
    z = ends.expand(2, 2)
    return polygon(torch.stack([z, torch.stack([below, above])], -1).reshape(4, 2).numpy())


def _interval(relaxation: Relaxation) -> tuple[Tensor, Tensor]:
    """Lower and upper bound at both ends, the same at both."""
    below, above = relaxation.interval()
    return below[0].expand(2), above[0].expand(2)


def _band(relaxation: Relaxation, rule: Rule, z: Tensor) -> tuple[Tensor, Tensor]:
    """The two lines of a rule at some z, `(n,)`."""
    lines = relaxation.lines_by(rule)
    below = 0.0 if lines.below is None else lines.below.flatten()
    return lines.lower.flatten() * z - below, lines.upper.flatten() * z + lines.above.flatten()


def _by_support(relaxation: Relaxation, directions: int = 720) -> Array:
    """The relaxation itself, from the points where its support function is attained, in directions that are spread
    evenly where width and height are the same."""
    low, high = relaxation.interval()
    angle = torch.linspace(0, 2 * torch.pi, directions + 1, dtype=torch.float64)[None, :, None]
    height, width = (high - low).clamp(min=1e-9), (relaxation.upper - relaxation.lower).clamp(min=1e-9)
    found = relaxation.support(angle.cos() * height, -angle.sin() * width)
    return polygon(torch.stack([found.z.flatten(), found.a.flatten()], -1).numpy())


def _look(op: Activation, name: str) -> Look:
    """As in the table, where only the hull of a kink is a triangle."""
    look = LOOKS[name]
    return look if op.leak is not None or name != "triangle" else Look(look.colour, look.dash, "convex hull")


def _draw(axes: Axes, op: Activation, lower: float, upper: float, shapes: dict[str, Array]) -> None:
    cross(axes)
    for name, corners in shapes.items():
        look = _look(op, name)
        closed = np.concatenate([corners, corners[:1]])
        axes.fill(*corners.T, color=look.colour, alpha=0.18, linewidth=0)
        axes.plot(*closed.T, **look.line, label=f"{look.label}, area {number(area(corners))}")
    axes.plot(*graph(op, lower, upper).T, color=BLACK, linewidth=2.2, label="exact", solid_capstyle="round")
    axes.set(xlabel="pre-activation $z$")
    zero = (0.0,) if lower < 0 < upper else ()
    axes.set_xticks((lower, *zero, upper), [number(t) for t in (lower, *zero, upper)])


def graph(op: Activation, lower: float, upper: float) -> Array:
    """Points (z, a) of the graph, `(n, 2)`, to be joined by lines; where it jumps there is one that is no number."""
    jumps = isinstance(op, Jumping)
    ends = torch.tensor([lower, upper, 0.0], dtype=torch.float64).clamp(lower, upper)
    z = torch.cat([torch.linspace(lower, upper, _STEPPED if jumps else _CURVED).double(), ends]).unique()
    points = torch.stack([z, op.forward(z)], -1).numpy()
    if not jumps:
        return points
    across, along = np.abs(np.diff(points, axis=0)).T
    broken = np.flatnonzero(along > _STEEP * across) + 1
    return np.insert(points, broken, np.nan, axis=0)


def _frame(panels: Sequence[Axes], points: Array) -> None:
    """A margin around everything that is drawn."""
    low, high = points.min(0), points.max(0)
    margin = 0.08 * (high - low)
    for panel in panels:
        panel.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
