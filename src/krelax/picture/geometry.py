"""Outlines of small point sets, to be drawn: polygons in the plane, and the upper and lower faces of solids."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_TOUCHING = 1e-9  # relative to the size of what is drawn


def polygon(points: Array) -> Array:
    """The corners of the convex hull of `(n, 2)` points, counterclockwise (Andrew's monotone chain)."""
    size = np.ptp(points, axis=0).max(initial=0.0)
    rounded = np.unique(points.round(9) if size == 0 else (points / size).round(9) * size, axis=0)
    if len(rounded) < 3:
        return rounded
    halves = [_chain(rounded, size), _chain(rounded[::-1], size)]
    return np.concatenate([half[:-1] for half in halves])


def _chain(points: Array, size: float) -> Array:
    """One half of the hull, of points in order: left turns only."""
    chain: list[Array] = []
    for p in points:
        while len(chain) > 1 and _turn(chain[-2], chain[-1], p) <= _TOUCHING * size * size:
            chain.pop()
        chain.append(p)
    return np.array(chain)


def _turn(a: Array, b: Array, c: Array) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def area(corners: Array) -> float:
    """The area of a polygon, `(n, 2)`, positive counterclockwise."""
    x, y = corners.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def within(normals: Array, offsets: Array) -> Array:
    """The corners of the polygon `{y : normals @ y <= offsets}`, `(n, 2)` and `(n,)`; normals in all directions."""
    reach = 4 * np.abs(offsets).max() + 1.0
    corners = reach * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    for normal, offset in zip(normals, offsets, strict=True):
        corners = _cut(corners, corners @ normal - offset)
    return corners


def _cut(corners: Array, excess: Array) -> Array:
    """What is left of a polygon where the excess is at most zero."""
    kept: list[Array] = []
    for i, (p, e) in enumerate(zip(corners, excess, strict=True)):
        if e <= 0:
            kept.append(p)
        q, f = corners[(i + 1) % len(corners)], excess[(i + 1) % len(corners)]
        if (e < 0) != (f < 0) and e != f:
            kept.append(p + (q - p) * e / (e - f))
    return np.array(kept).reshape(-1, 2)


def faces(points: Array, side: int) -> list[Array]:
    """The faces of the hull of `(n, 3)` points that are seen from above (side 1) or from below (-1), as corners.

    Every plane through three points with all others on one side is a face: for dozens of points, not for more.
    """
    scale = np.abs(points).max() + 1e-300
    points = np.unique(points.round(9 - int(np.ceil(np.log10(scale)))), axis=0)
    a, b, c = points[np.array(list(combinations(range(len(points)), 3))).reshape(-1, 3).T]
    normal = np.cross(b - a, c - a)
    steep = np.abs(normal[:, 2]) <= 1e3 * _TOUCHING * scale**2
    a, normal = a[~steep], normal[~steep] / normal[~steep, 2:]
    height = (normal @ points.T - (normal * a).sum(1, keepdims=True)) * side
    supporting = height[height.max(1) <= 1e3 * _TOUCHING * scale]
    touched = np.unique(supporting >= -1e3 * _TOUCHING * scale, axis=0)
    return [_lifted(points[on]) for on in touched]


def _lifted(points: Array) -> Array:
    """The corners of coplanar points, in the order of their shadow on the ground."""
    shadow = polygon(points[:, :2])
    nearest = np.linalg.norm(shadow[:, None] - points[None, :, :2], axis=2).argmin(1)
    return points[nearest]


def volume(upper: list[Array], lower: list[Array]) -> float:
    """The volume between two lists of faces over the same ground."""
    return sum(map(_below, upper)) - sum(map(_below, lower))


def _below(face: Array) -> float:
    """The volume between a face and the plane of height zero, from its triangles."""
    triangles = ((face[0], face[i], face[i + 1]) for i in range(1, len(face) - 1))
    return sum(area(np.array([a[:2], b[:2], c[:2]])) * float(a[2] + b[2] + c[2]) / 3 for a, b, c in triangles)
