"""One neuron, and a group of two or three: the numbers of the first two views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from krelax.activations import Relaxation, Rule
from krelax.activations.joint import Joint
from krelax.errors import InputError
from krelax.explore.curves import CURVES
from krelax.hull.envelope import upper_envelope
from krelax.hull.polytope import octahedral_rows
from krelax.picture.geometry import Array, area, polygon
from krelax.picture.neuron import RULES, outline
from krelax.picture.pair import activated, farthest, largest, spanning

SINGLE = ("interval", "zonotope", "planar", "triangle")
_LARGEST = 1e6  # bounds beyond this are not for looking at
_INSIDE = 1e-9  # relative to the size of a group
# Weights that favour no direction: how far a phantom is moved inwards so that one face lies above it, and whither.
_INWARD, _UNEVEN = 1e-3, np.array([0.31, 0.17, 0.07])


def neuron(lower: float, upper: float, slope: float, activation: str = "ReLU") -> dict[str, Any]:
    """The sets of an activation of `CURVES` over `lower <= z <= upper`: corners, area and, between two lines, the
    lines, each as slope and intercept; "alpha" has the lower line with the given slope, as far as that may go. Raises
    InputError for an empty interval, an unknown activation, or values too large to look at.
    """
    numbers([lower, upper, slope], 3)
    if activation not in CURVES:
        raise InputError(f"unknown activation {activation!r}: use one of {', '.join(CURVES)}")
    if not lower < upper:
        raise InputError(f"an interval from {lower:g} to {upper:g} is empty: l must be below u")
    op, ends = CURVES[activation].op, torch.tensor([lower, upper], dtype=torch.float64)
    relaxation = op.relax(ends[None, :1], ends[None, 1:])
    numbers([float(t) for t in relaxation.interval()], 2)
    found = {name: _set(outline(op, lower, upper, name)) for name in SINGLE}
    for name, rule in RULES.items():
        low, high = (float(t) for t in relaxation.slopes(rule))
        found[name] |= _lines(relaxation, low, high)
    low, high = (float(t) for t in relaxation.slope_range())
    chosen = _lines(relaxation, min(max(slope, low), high), float(relaxation.slopes(Rule.ADAPTIVE)[1]))
    corners = [[z, s * z + c] for z in (lower, upper) for s, c in (chosen["lower"], chosen["upper"])]
    found["alpha"] = _set(polygon(np.array(corners))) | chosen
    return {"sets": found}


def _set(corners: Array) -> dict[str, Any]:
    return {"corners": corners.tolist(), "area": area(corners) if len(corners) > 2 else 0.0}


def _lines(relaxation: Relaxation, low: float, high: float) -> dict[str, Any]:
    """The lower and the upper line with these slopes."""
    lines = relaxation.lines(*(torch.full((1, 1, 1), t, dtype=torch.float64) for t in (low, high)))
    below = 0.0 if lines.below is None else -float(lines.below)
    return {"lower": [low, below], "upper": [high, float(lines.above)]}


def group(bounds: Sequence[float], slopes: Sequence[float], direction: Sequence[float]) -> dict[str, Any]:
    """What relaxations know of `direction . a` for one group of two or three members.

    `bounds` are those of the octahedral rows in their order, 8 or 26; `slopes` are 0 for a ReLU and 1 for a
    pass-through member. `points` (z, a) span the exact hull, `phantom` is where triangles go furthest, and `facet` the
    inequality `direction . a <= slope . z + offset` of the hull that lowers it most. Raises InputError for anything
    else; where no z satisfies the bounds, says only that it is empty.
    """
    k = len(direction)
    if k not in {2, 3} or len(bounds) != 3**k - 1 or len(slopes) != k:
        raise InputError("a group has two or three members, with a slope and a weight each, and 8 or 26 bounds")
    numbers([*bounds, *direction], len(bounds) + k)
    if any(s not in {0, 1} for s in slopes):
        raise InputError("the slope of a member is 0 for a ReLU, or 1 for a pass-through member")
    joint = _joint(bounds, slopes)
    points = np.unique(spanning(joint, "hull").round(12), axis=0)
    excess = points[:, :k] @ joint.rows.numpy().T - np.array(bounds)
    if excess.max() > _INSIDE * (1 + np.abs(points).max()):
        return {"empty": True}
    phantom = farthest(joint, "triangle", direction)
    values = {name: largest(joint, name, direction) for name in (*SINGLE, "hull")}
    return {
        "empty": False,
        "points": points.tolist(),
        "largest": values,
        "phantom": phantom.tolist(),
        "real": activated(joint, phantom[:k]).tolist(),
        "best": farthest(joint, "hull", direction).tolist(),
        "facet": _facet(joint, points, phantom, np.array(direction)),
    }


def _joint(bounds: Sequence[float], slopes: Sequence[float]) -> Joint:
    rows = torch.from_numpy(octahedral_rows(len(slopes)))
    right = torch.tensor(bounds, dtype=torch.float64).reshape(1, 1, -1)
    return Joint(rows, right, tuple(float(s) for s in slopes))


def _facet(joint: Joint, points: Array, phantom: Array, direction: Array) -> dict[str, Any]:
    """The face of the hull above the phantom, with an offset that is proven, and what it allows there."""
    k = len(direction)
    z = points[:, :k]
    slope, _ = upper_envelope(z, points[:, k:] @ direction, _inwards(z, phantom[:k]))
    given = [torch.from_numpy(-t).reshape(1, 1, k, 1) for t in (slope, direction)]
    offset = float(joint.support(*given).value)
    return {"slope": (slope + 0.0).tolist(), "offset": offset, "at": float(slope @ phantom[:k]) + offset}


def _inwards(z: Array, at: Array) -> Array:
    """A point a little nearer to the middle of points `(n, k)`, where ties between faces are rare."""
    size = np.ptp(z, axis=0)
    weight = 1 + ((z - z.min(0)) / np.where(size > 0, size, 1.0)) @ _UNEVEN[: z.shape[1]]
    inside: Array = at + _INWARD * (weight @ z / weight.sum() - at)
    return inside


def numbers(values: Sequence[float], count: int) -> None:
    """Raise InputError unless there are so many finite numbers of moderate size."""
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if len(values) != count or not plain or not all(abs(v) <= _LARGEST for v in values):
        raise InputError(f"{count} numbers of at most {_LARGEST:g} in size are needed")
