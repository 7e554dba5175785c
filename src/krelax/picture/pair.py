"""Two neurons: what is known of them before the activation, and what each relaxation makes of it behind."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from krelax.activations import Activation, LeakyReLU
from krelax.activations.banded import Banded
from krelax.activations.joint import Joint, Together
from krelax.hull import octagon as closed_form
from krelax.looks import BLACK, FAINT, GREY, LOOKS
from krelax.picture.geometry import Array, polygon
from krelax.picture.neuron import RULES, outline
from krelax.picture.style import cross, drawn, number, on, sheet, square

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SETS = ("interval", "zonotope", "planar", "triangle", "hull")
NAMES = ("z_1", "z_2")
SUM = (1.0, 1.0)


@drawn
def pair(joint: Together, names: Sequence[str] = NAMES, direction: Sequence[float] = SUM) -> Figure:
    """One pair on one sheet: its `octagon` and its `projections`."""
    figure = sheet(10.0, 4.1)
    left, right = figure.subplots(1, 2)
    octagon(joint, names, left)
    projections(joint, names, direction, axes=right)
    return figure


@drawn
def octagon(joint: Together, names: Sequence[str] = NAMES, axes: Axes | None = None) -> Figure:
    """The pre-activations of a pair (a `Joint` or `Banded` of one group with k = 2): its octagon, the tight bounds on
    its edges, and the box of its intervals, which is all that relaxations of single neurons see.
    """
    figure, axes = on(axes, 4.6, 4.1)
    tight = tightened(joint)
    corners = polygon(closed_form.points(tight)[:8].numpy())
    lower, upper = _box(tight)
    cross(axes)
    box = np.array([[lower[0], lower[1]], [upper[0], lower[1]], [upper[0], upper[1]], [lower[0], upper[1]]])
    axes.fill(*box.T, fill=False, edgecolor=GREY, linestyle=LOOKS["interval"].dash, linewidth=1.6)
    axes.fill(*corners.T, facecolor=FAINT, edgecolor=BLACK, linewidth=1.8)
    size = max(float(u - l) for l, u in zip(lower, upper, strict=True))
    for row, bound in zip(closed_form.ROWS, tight.tolist(), strict=True):
        _label_edge(axes, corners, row, bound, names, size)
    square(axes, box, 1.9)
    axes.set(xlabel=f"${names[0]}$", ylabel=f"${names[1]}$", title="before the activation")
    return figure


def _label_edge(
    axes: Axes, corners: Array, row: Sequence[int], bound: float, names: Sequence[str], size: float
) -> None:
    """The inequality of an edge beside it, if the edge is long enough to be seen."""
    normal = np.array(row, dtype=float)
    ends = corners[np.abs(corners @ normal - bound) <= 1e-6 * size]
    room = 0.0375 * (4 + len(number(bound))) if row[1] == 0 else 0.15  # words along upright edges need room there
    if len(ends) < 2 or np.linalg.norm(ends[0] - ends[-1]) < room * size:
        return
    at = (ends[0] + ends[-1]) / 2 + 0.03 * size * normal / np.linalg.norm(normal)
    across, along = {-1: "right", 0: "center", 1: "left"}[row[0]], {-1: "top", 0: "center", 1: "bottom"}[row[1]]
    first = row[0] or row[1]  # bounds from below are written as such
    sense, limit = (r"\leq", bound) if first > 0 else (r"\geq", -bound)
    text = rf"${form([first * c for c in row], names)} {sense} {number(limit)}$"
    plain = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    axes.text(
        at[0], at[1], text, ha=across, va=along, fontsize=9, rotation=90 * row[0] if row[1] == 0 else 0, bbox=plain
    )


def form(row: Sequence[float], names: Sequence[str]) -> str:
    """A linear form in words: `z_1 - z_2`."""
    terms: list[str] = []
    for c, name in zip(row, names, strict=True):
        if c:
            size = "" if abs(c) == 1 else number(abs(c)) + r"\,"
            terms.append(("-" if c < 0 else "+" if terms else "") + size + name)
    return "".join(terms)


def pick(joint: Together, group: int, item: int = 0) -> Together:
    """One group of many, for instance of `LayerBounds.groups`."""
    bounds = joint.bounds[item : item + 1, group : group + 1]
    if isinstance(joint, Banded):
        return Banded(joint.op, joint.rows, bounds)
    return Joint(joint.rows, bounds, joint.negative_slopes)


def tightened(joint: Together) -> Tensor:
    """The tight bounds of a single pair, `(8,)`. Raises ValueError for anything but one group with k = 2."""
    if joint.rows.shape[1] != 2 or joint.bounds.shape[:-1].numel() != 1:
        raise ValueError(f"one pair, not groups {tuple(joint.bounds.shape[:-1])} of {joint.rows.shape[1]}")
    return closed_form.tighten(joint.bounds.reshape(8).double())


def _box(tight: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of both members."""
    return -tight[[1, 3]], tight[[6, 4]]


def spanning(joint: Together, name: str) -> Array:
    """Points (z, a), `(n, 2k)`, whose convex hull is a relaxation of one group over its polytope.

    On a sign pattern the lines of single neurons are linear, so what lies between them over the polytope is spanned by
    the vertices of the pattern's part of it, each with every choice of lower and upper line. Of curves many points
    are taken, and of their bands those where the support function is attained.
    """
    if isinstance(joint, Banded) and name == "hull":
        return _attained(joint)
    z, a = _graph(joint)
    if name == "hull":
        return torch.cat([z, a], -1).numpy()
    choices = [torch.stack(a, -1) for a in product(*_between(joint, name, z, a))]
    return torch.cat([torch.cat([z, a], -1) for a in choices]).numpy()


def _graph(joint: Together) -> tuple[Tensor, Tensor]:
    """Points of the graph of a group, `(n, k)` each: those that span the hull, or of curves a grid."""
    if isinstance(joint, Joint):
        z, a = joint.lifted.reshape(-1, 2 * joint.rows.shape[1]).double().chunk(2, -1)
        return z, -a
    assert isinstance(joint, Banded)
    z = torch.from_numpy(np.concatenate([inside(joint), *edges(joint)]))
    return z, joint.op.forward(z)


def inside(joint: Together, count: int = 41) -> Array:
    """A grid of points in the octagon of a pair, `(n, 2)`."""
    tight = tightened(joint)
    axes = [torch.linspace(float(l), float(u), count).double() for l, u in zip(*_box(tight), strict=True)]
    z = torch.cartesian_prod(*axes)
    return z[(z @ joint.rows.double().T <= tight).all(1)].numpy()


def edges(joint: Together, count: int = 61) -> list[Array]:
    """Points along the edges of the octagon of a pair, edge by edge, `(count, 2)` each."""
    corners = polygon(closed_form.points(tightened(joint))[:8].numpy())
    steps = np.linspace(0, 1, count)[:, None]
    return [first + steps * (last - first) for first, last in zip(corners, np.roll(corners, -1, axis=0), strict=True)]


def _attained(joint: Banded, directions: int = 180) -> Array:
    """Where the bands of a pair go furthest in all directions of their post-activations, as (z, a), `(n, 4)`."""
    angle = torch.linspace(0, 2 * torch.pi, directions + 1, dtype=torch.float64)
    coeff = torch.stack([angle.cos(), angle.sin()])[None, None]
    found = joint.to(torch.float64).support(torch.zeros_like(coeff), -coeff)
    return torch.cat([found.z, found.a], 2)[0, 0].mT.numpy()


def _single(joint: Together, i: int) -> Activation:
    """The activation of a member."""
    return joint.op if isinstance(joint, Banded) else LeakyReLU(joint.negative_slopes[i])


def _between(joint: Together, name: str, z: Tensor, a: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each member its least and its largest post-activation at some z, `(n,)` each, by single neurons."""
    ends = []
    for i, (l, u) in enumerate(zip(z.amin(0), z.amax(0), strict=True)):
        relaxation = _single(joint, i).relax(l.reshape(1, 1), u.reshape(1, 1))
        if name == "interval":
            low, high = (t.flatten().expand(len(z)) for t in relaxation.interval())
        else:
            lines = relaxation.lines_by(RULES.get(name, RULES["planar"]))
            below = 0.0 if lines.below is None else lines.below.flatten()
            low, high = lines.lower.flatten() * z[:, i] - below, lines.upper.flatten() * z[:, i] + lines.above.flatten()
        if name == "triangle":
            curved = isinstance(joint, Banded)
            low, high = _hull(_single(joint, i), float(l), float(u), z[:, i]) if curved else (a[:, i], high)
        ends.append((low, high))
    return ends


def _hull(op: Activation, lower: float, upper: float, z: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest post-activation at some z, `(n,)` each, in the convex hull of a graph."""
    corners = outline(op, lower, upper, "triangle")
    first, last = corners[:, 0].argmin(), corners[:, 0].argmax()
    turned = np.roll(corners, -first, axis=0)
    split = (last - first) % len(corners)
    below, above = turned[: split + 1], np.concatenate([turned[split:], turned[:1]])[::-1]
    at = z.numpy()
    return torch.from_numpy(np.interp(at, *below.T)), torch.from_numpy(np.interp(at, *above.T))


def largest(joint: Together, name: str, direction: Sequence[float] = SUM) -> float:
    """The largest `direction . a` that a relaxation of one group allows; of "hull" its support function."""
    if name == "hull":
        coeff = -torch.tensor(direction, dtype=joint.bounds.dtype).reshape(1, 1, -1, 1)
        return float(joint.support(torch.zeros_like(coeff), coeff).value)
    return float((spanning(joint, name)[:, len(direction) :] @ np.array(direction)).max())


@drawn
def projections(
    joint: Together,
    names: Sequence[str] = NAMES,
    direction: Sequence[float] = SUM,
    sets: Sequence[str] = SETS,
    axes: Axes | None = None,
) -> Figure:
    """The post-activations (a1, a2) that each relaxation allows over the same octagon, around the exact ones.

    The legend says how large `direction . a` can get in each. Crosses mark where triangles go furthest and no
    input does, dots where the exact hull of the pair does.
    """
    figure, axes = on(axes, 5.6, 4.1)
    behind = posts(joint, names)
    for part in exact_parts(joint):
        axes.fill(*part.T, facecolor=FAINT, edgecolor=BLACK, linewidth=4.5, joinstyle="round", zorder=2)
    # thinner and thinner, so that sets that coincide can be told apart
    for name, width in zip(sets, np.linspace(4.0, 1.6, len(sets)), strict=True):
        corners = polygon(spanning(joint, name)[:, 2:])
        text = f"{_label(joint, name)}: {number(largest(joint, name, direction))}"
        axes.plot(*np.concatenate([corners, corners[:1]]).T, **LOOKS[name].line, linewidth=width, label=text, zorder=3)
    axes.plot([], [], color=BLACK, linewidth=4.5, label=f"exact: {number(_exact(joint, direction))}")
    for name, mark in (("triangle", "x"), ("hull", "o")):
        if name in sets:
            at = farthest(joint, name, direction)
            axes.plot(*at[2:], mark, color=LOOKS[name].colour, markersize=9, markeredgewidth=2.4, zorder=4)
    axes.set(xlabel=f"${behind[0]}$", ylabel=f"${behind[1]}$", title="behind the activation")
    square(axes, np.concatenate([spanning(joint, name)[:, 2:] for name in ("hull", *sets)]), 1.15)
    title = f"largest ${form(direction, behind)}$"
    axes.legend(title=title, loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=2.6, alignment="left")
    return figure


def _label(joint: Together, name: str) -> str:
    """As in the table, where only hulls of kinks are triangles and only exact hulls have a name."""
    other = {"triangle": "convex hulls", "hull": "pair, by bands"} if isinstance(joint, Banded) else {}
    return other.get(name, LOOKS[name].label)


def posts(joint: Together, names: Sequence[str]) -> list[str]:
    """Names of the post-activations; a pass-through member keeps its own."""
    slopes = joint.negative_slopes or (0.0,) * len(names)
    return [name if s == 1 else name.replace("z", "a") for name, s in zip(names, slopes, strict=True)]


def exact_parts(joint: Together) -> list[Array]:
    """The exact post-activations, sign pattern by sign pattern: polygons, segments and points, `(n, 2)` each. Of curves
    the edges of the octagon, all in one, around them."""
    if isinstance(joint, Banded):
        return [activated(joint, np.concatenate(edges(joint)))]
    points = spanning(joint, "hull")
    signs = [np.array([one, two]) for one in (-1, 1) for two in (-1, 1)]
    parts = [points[(points[:, :2] * s >= 0).all(1), 2:] for s in signs]
    return [polygon(p) for p in parts if len(p)]


def _exact(joint: Together, direction: Sequence[float]) -> float:
    every = [*exact_parts(joint), activated(joint, inside(joint))] if isinstance(joint, Banded) else exact_parts(joint)
    return max(float((part @ np.array(direction)).max()) for part in every)


def farthest(joint: Together, name: str, direction: Sequence[float] = SUM) -> Array:
    """A point (z, a), `(2k,)`, where a relaxation goes furthest: the middle of all such, for "hull" on the graph."""
    points, k = spanning(joint, name), len(direction)
    value = points[:, k:] @ np.array(direction)
    best = points[value >= value.max() - 1e-9 * (1 + np.abs(value).max())]
    middle: Array = np.unique(best.round(9), axis=0).mean(0)
    beside = np.abs(activated(joint, middle[:k]) - middle[k:]).max() > 1e-6
    return best[0] if name == "hull" and beside else middle


def activated(joint: Together, z: Array) -> Array:
    """The post-activations of one group of pre-activations, `(k,)`."""
    if isinstance(joint, Banded):
        return joint.op.forward(torch.from_numpy(z)).numpy()
    a: Array = np.maximum(z, np.array(joint.negative_slopes) * z)
    return a
