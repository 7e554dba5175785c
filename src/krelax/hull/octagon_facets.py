"""All facets of the hull of a pair of ReLUs over an octagon, batched.

H = conv{(z, max(z, 0)) : z in P} lies in four dimensions. A facet ``α · z + β · a <= offset`` touches H in four
affinely independent points, and the signs of β say among which of the 13 `points` to look for them:

* β1 > 0: on each side of z2 = 0 the form ``α · z + β · max(z, 0)`` is convex, and its maximisers lift to the hull of
  those among the vertices of P and the two points where the axis z2 = 0 leaves P. Likewise for β2 > 0;
* β = 0: the maximisers are an edge of P, whose lift has three dimensions only if it crosses both axes, in different
  points: a diagonal edge, with its two ends and two crossings;
* otherwise β <= 0: the form is concave, its maximisers are two-dimensional: ``a_i >= 0`` or ``a_i >= z_i``, nothing
  else.

So 354 of the 715 quadruples of points and 4 known rows contain every facet. A quadruple spans a facet if all points
are on one side; the set of points it touches identifies the facet. Two facets never touch comparable sets; hence, of
two candidates that do, the one spanned by the larger simplex is kept: ill-conditioned quadruples lose against better
ones of the same facet.

The enumeration works in float64 on coordinates scaled to [-1, 1], and only proposes. What makes a row sound is its
offset, a `rigorous` support value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from krelax.hull.octagon import points, rigorous, tighten

__all__ = ["Facets", "facets"]

TOUCHING = 1e-13
"""A point touches a hyperplane if it spans less than this volume with it: some hundred units of roundoff."""
SOLID = 1e-9
"""Simplices of less volume (times six) are taken as flat."""

CHUNK = 256
"""Groups at a time on a CPU: few enough for its caches, enough for every operation to be worth two threads."""

TOP, BOTTOM, RIGHT, LEFT = 8, 9, 10, 11
_VERTICES = tuple(range(8))
_EDGES = ((0, 1, TOP, RIGHT), (2, 3, TOP, LEFT), (4, 5, BOTTOM, LEFT), (6, 7, BOTTOM, RIGHT))
_QUADRUPLES = sorted(
    {*combinations((*_VERTICES, TOP, BOTTOM), 4), *combinations((*_VERTICES, RIGHT, LEFT), 4), *_EDGES},
)
_LOWER = ((0, 0, -1, 0), (1, 0, -1, 0), (0, 0, 0, -1), (0, 1, 0, -1))
"""``a_i >= 0`` and ``a_i >= z_i`` as normals over (z, a)."""


class Facets(NamedTuple):
    """Rows ``z · Z + a · A <= offset`` that hold for all pre-activations Z of P and ``A = max(Z, 0)``."""

    z: Tensor
    """``(..., F, 2)``; the largest coefficient of a row over z and a is one in size."""
    a: Tensor
    """``(..., F, 2)``"""
    offset: Tensor
    """``(..., F)``: rigorous upper bounds."""
    valid: Tensor
    """``(..., F)``: groups with fewer rows than F are filled with rows ``0 <= 0``."""


class _Candidates(NamedTuple):
    """Hyperplanes that leave all points of their group on one side, ``(C, ...)``."""

    group: Tensor
    normal: Tensor
    """``(C, 4)``, of length one, outward."""
    size: Tensor
    """Six times the volume of the simplex that spans the hyperplane."""
    touching: Tensor
    """One bit for each of the 13 points."""


def facets(bounds: Tensor) -> Facets:
    """All facets of the hulls over octagons ``bounds (..., 8)`` (tight or not), in the dtype of the bounds.

    Sound whatever happens: each offset bounds the support of the hull over the given bounds from above, rounding
    included. Complete up to resolution: facets whose simplices have less than about 1e-9 of the volume of the box may
    be missing. A hull of lower dimension (a stable neuron, an octagon without interior) gets its facets within its
    affine hull, orthogonal to its equations, and a pair of opposite rows for each equation.

    Leaky units ``a' = max(z, s z) = s z + (1 - s) a`` with s < 1 have the facets with ``a = (a' - s z) / (1 - s)``
    put in.
    """
    corners = points(tighten(bounds.reshape(-1, 8).double()))
    scale = corners.abs().amax(1).repeat(1, 2)
    scaled = torch.cat([corners, corners.clamp(min=0)], -1) / torch.where(scale > 0, scale, 1).unsqueeze(1)
    group, normal = _proposals(scaled)
    normal = normal / torch.where(scale > 0, scale, 1)[group]
    normal = (normal / normal.abs().amax(-1, keepdim=True)).to(bounds.dtype)
    rows, valid = _pad(group, normal, len(corners))
    offset = _round_up(rigorous(corners, rows[..., :2].double(), -rows[..., 2:].double()).value, bounds.dtype)
    shape = (*bounds.shape[:-1], rows.shape[1])
    offset = torch.where(valid, offset, 0)
    return Facets(
        rows[..., :2].reshape(*shape, 2), rows[..., 2:].reshape(*shape, 2), offset.reshape(shape), valid.reshape(shape)
    )


def _round_up(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The next numbers of ``dtype`` above float64 values."""
    rounded = value.to(dtype)
    return torch.where(rounded < value, rounded.nextafter(torch.full_like(rounded, torch.inf)), rounded)


def _proposals(x: Tensor) -> tuple[Tensor, Tensor]:
    """Group ``(R,)`` and normal ``(R, 4)`` of all rows, sorted by group, for scaled lifted points ``(N, 13, 4)``."""
    candidates = _candidates(x, x.new_empty(len(x), 0, 4), _simplices(_QUADRUPLES, x))
    flat = _flat(candidates, len(x))
    solid = _Candidates(*(field[~flat[candidates.group]] for field in candidates))
    parts = [_maximal(solid, len(x)), _lower_rows(x, ~flat), *_flat_rows(x, flat.nonzero().squeeze(1))]
    group, order = torch.cat([group for group, _ in parts]).sort(stable=True)
    return group, torch.cat([normal for _, normal in parts])[order]


def _candidates(x: Tensor, equations: Tensor, subsets: Tensor) -> _Candidates:
    """`_supporting` for some groups at a time: as fits the caches of a CPU, or the memory of a GPU."""
    size = 4096 if x.is_cuda else CHUNK
    parts = [
        _supporting(x[first : first + size], equations[first : first + size], subsets, first)
        for first in range(0, max(len(x), 1), size)
    ]
    return _Candidates(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def _supporting(x: Tensor, equations: Tensor, subsets: Tensor, first: int) -> _Candidates:
    """The hyperplanes through subsets ``(S, 4 - d)`` of points and along ``equations (n, d, 4)`` that support the hull.

    Groups count from ``first``. Of full-dimensional hulls (d = 0) without the rows with β <= 0, β ≠ 0.
    """
    normal, residual = _hyperplanes(x, equations, subsets)
    above, size = residual.amax(1) <= TOUCHING, (normal * normal).sum(1)
    group, subset = ((above | (residual.amin(1) >= -TOUCHING)) & (size > SOLID**2)).nonzero(as_tuple=True)
    size = size[group, subset].sqrt()
    outward = normal[group, :, subset] / torch.where(above[group, subset], size, -size).unsqueeze(-1)
    chosen = _upper(outward) | (equations.shape[1] > 0)
    group, subset = group[chosen], subset[chosen]
    bits = 2 ** torch.arange(x.shape[1], device=x.device)
    touching = ((residual[group, :, subset].abs() <= TOUCHING) * bits).sum(1)
    return _distinct(_Candidates(group + first, outward[chosen], size[chosen], touching))


def _hyperplanes(x: Tensor, equations: Tensor, subsets: Tensor) -> tuple[Tensor, Tensor]:
    """Normals ``(n, 4, S)`` of the hyperplanes, and by how much each point is above them ``(n, 13, S)``, in volume."""
    coordinates = (x.mT.reshape(-1, x.shape[1]) @ subsets).view(len(x), 4, subsets.shape[1])
    base, *edges = coordinates.chunk(4 - equations.shape[1], -1)
    normal = _cross(*edges, *(e.unsqueeze(-1).expand_as(base) for e in equations.unbind(1)))
    return normal, torch.baddbmm((base * normal).sum(1, keepdim=True), x, normal, beta=-1)


def _simplices(subsets: Iterable[tuple[int, ...]], x: Tensor) -> Tensor:
    """Subsets of points as a matrix ``(13, k S)`` from coordinates to those of first points and of the edges there."""
    index = torch.tensor(list(subsets), device=x.device)
    corners = torch.nn.functional.one_hot(index, x.shape[1]).to(x)
    corners[:, 1:] -= corners[:, :1].clone()
    return corners.permute(2, 1, 0).flatten(1)


def _upper(normal: Tensor) -> Tensor:
    """Whether β has a positive component, or is zero."""
    return (normal[:, 2:].amax(-1) > SOLID) | (normal[:, 2:].amin(-1) > -SOLID)


def _cross(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """The vector orthogonal to three vectors of four components (axis 1), six times their simplex in length."""
    (u0, u1, u2, u3), (v0, v1, v2, v3), (w0, w1, w2, w3) = u.unbind(1), v.unbind(1), w.unbind(1)
    m01, m02, m03 = v0 * w1 - v1 * w0, v0 * w2 - v2 * w0, v0 * w3 - v3 * w0
    m12, m13, m23 = v1 * w2 - v2 * w1, v1 * w3 - v3 * w1, v2 * w3 - v3 * w2
    n0, n1 = u1 * m23 - u2 * m13 + u3 * m12, u2 * m03 - u0 * m23 - u3 * m02
    n2, n3 = u0 * m13 - u1 * m03 + u3 * m01, u1 * m02 - u0 * m12 - u2 * m01
    return torch.stack([n0, n1, n2, n3], 1)


def _distinct(candidates: _Candidates) -> _Candidates:
    """Of the candidates of a group that touch the same points, the one spanned by the largest simplex."""
    order = candidates.size.argsort()
    candidates = _Candidates(*(part[order] for part in candidates))
    _, inverse = torch.unique(candidates.group * 2**13 + candidates.touching, return_inverse=True)
    position = torch.arange(len(inverse), device=inverse.device)
    last = torch.zeros_like(position[: int(inverse.max()) + 1 if len(inverse) else 0])
    last = last.scatter_reduce(0, inverse, position, "amax")
    return _Candidates(*(part[last] for part in candidates))


def _maximal(candidates: _Candidates, groups: int) -> tuple[Tensor, Tensor]:
    """Group and normal of the candidates that touch no subset or superset of what a larger simplex touches.

    Candidates are sorted by group.
    """
    fields = torch.stack([candidates.touching.double(), candidates.size], -1)
    table, _ = _pad(candidates.group, fields, groups)
    touching, size = table[..., 0].short(), table[..., 1]
    common = touching.unsqueeze(-1) & touching.unsqueeze(-2)
    comparable = (common == touching.unsqueeze(-1)) | (common == touching.unsqueeze(-2))
    beaten = (comparable & (size.unsqueeze(-1) < size.unsqueeze(-2))).any(-1)
    keep = ~beaten[candidates.group, _position(candidates.group, groups)]
    return candidates.group[keep], candidates.normal[keep]


def _flat(candidates: _Candidates, groups: int) -> Tensor:
    """Which groups have a hull of less than four dimensions: no hyperplane, or one that touches all points."""
    partial = torch.zeros(groups, dtype=torch.bool, device=candidates.group.device)
    partial[candidates.group] = True
    partial[candidates.group[candidates.touching == 2**13 - 1]] = False
    return ~partial


def _lower_rows(x: Tensor, solid: Tensor) -> tuple[Tensor, Tensor]:
    """``a_i >= 0`` and ``a_i >= z_i`` where facets: the points they touch lie on both sides of the other axis."""
    normal = x.new_tensor(_LOWER)
    touching = (x @ normal.T).abs() <= TOUCHING
    other = x[..., [1, 1, 0, 0]] * touching
    group, row = ((other.amax(1) > SOLID) & (other.amin(1) < -SOLID) & solid.unsqueeze(-1)).nonzero(as_tuple=True)
    return group, normal[row]


def _flat_rows(x: Tensor, groups: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of the hulls of lower dimension: facets along their equations, and the equations as pairs."""
    if len(groups) == 0:
        return
    _, values, axes = torch.linalg.svd(x[groups] - x[groups, :1])
    missing = (values <= SOLID).sum(-1).clamp(min=1)
    for d in range(1, 5):
        chosen = (missing == d).nonzero().squeeze(1)
        equations = axes[chosen][:, 4 - d :]
        yield groups[chosen].repeat_interleave(2 * d), torch.cat([equations, -equations], 1).reshape(-1, 4)
        if d < 4:
            subsets = _simplices(combinations(range(x.shape[1]), 4 - d), x)
            group, normal = _maximal(_candidates(x[groups[chosen]], equations, subsets), len(chosen))
            yield groups[chosen][group], normal


def _position(group: Tensor, groups: int) -> Tensor:
    """The place of each row among those of its group; rows are sorted by group."""
    count = torch.bincount(group, minlength=groups)
    return torch.arange(len(group), device=group.device) - (count.cumsum(0) - count)[group]


def _pad(group: Tensor, rows: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Rows ``(R, C)`` sorted by group as ``(groups, F, C)``, padded with zeros, and which are rows ``(groups, F)``."""
    place = _position(group, groups)
    width = int(place.max()) + 1 if len(group) else 0
    table = rows.new_zeros(groups, width, rows.shape[-1])
    table[group, place] = rows
    valid = torch.zeros(groups, width, dtype=torch.bool, device=rows.device)
    valid[group, place] = True
    return table, valid
