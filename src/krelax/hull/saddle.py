"""The product of two numbers over an octagon: the support function of its graph, in closed form.

`slope . z - coeff z0 z1` is a saddle, so its maximum over a polygon is on the boundary. With one operand fixed it is
linear: nothing between the ends of an edge that is parallel to an axis is larger than both. Along one diagonal it is
concave, along the other convex. So the maximum is at a corner, or at the top of a parabola over one of the two edges
on which it is concave. Over a box only the corners are left, and the hull has McCormick's planes (McCormick 1976).

**Rounding.** Let u = eps / 2, M = max |z_i| over the octagon, and W = M (|slope0| + |slope1| + 2 |coeff| M), all to
first order. Tight bounds are wrong by at most 4 u M, so the ends of edges by at most 8 u M in each coordinate, and the
gradient is at most |slope_i| + |coeff| M: that is 8 u W. The top of a parabola, where it is inside its edge, is found
to within 8 u M along the edge, and a concave function is flat there: a loss of second order. Its line is wrong by at
most 4 u M. The value itself adds four products: 5 u W. In all less than 24 u W = 12 eps W; `ROUNDING` is 32.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ROUNDING", "support"]

ROUNDING = 32.0
"""`exact <= computed + ROUNDING * eps * W`, with W as the module's docstring has it."""

# The order of bounds after z1 changed its sign.
_MIRROR = (2, 1, 0, 4, 3, 7, 6, 5)


def support(bounds: Tensor, slope: Tensor, coeff: Tensor) -> tuple[Tensor, Tensor]:
    """`max slope . z - coeff z0 z1` over octagons with *tight* bounds, in the order of `krelax.hull.octagon.ROWS`.

    `bounds` is `(..., 8)`, `slope` `(..., 2, queries)` and `coeff` `(..., queries)`. Returns the values, `(...,
    queries)`, in double precision at least the maximum, and where they are attained, `(..., 2, queries)`.
    """
    sign = torch.where(coeff < 0, -1.0, 1.0).to(coeff)
    ends = [torch.where(coeff < 0, bounds[..., [j]], bounds[..., [i]]) for i, j in enumerate(_MIRROR)]
    s, t, c = slope[..., 0, :], slope[..., 1, :] * sign, coeff.abs()
    every = torch.stack(_candidates(ends, s, t, c), -3)  # (..., points, 2, queries)
    x, y = every.unbind(-2)
    value, best = (s.unsqueeze(-2) * x + (t.unsqueeze(-2) - c.unsqueeze(-2) * x) * y).max(-2)
    at = every.gather(-3, best[..., None, None, :].expand(*best.shape[:-1], 1, 2, best.shape[-1])).squeeze(-3)
    z = torch.stack([at[..., 0, :], at[..., 1, :] * sign], -2)
    if value.dtype == torch.float64:
        far = torch.stack([e.abs() for e in (ends[1], ends[3], ends[4], ends[6])]).amax(0)
        size = far * (s.abs() + t.abs() + 2 * c * far)
        limits = torch.finfo(value.dtype)
        least = limits.tiny * (1 + s.abs() + t.abs() + c) * (1 + far).square()
        value = value + (ROUNDING * limits.eps * size + least)
    return value, z


def _candidates(sides: list[Tensor], s: Tensor, t: Tensor, c: Tensor) -> list[Tensor]:
    """Where the maximum can be for c >= 0, `(..., 2, queries)` each: four corners, and the tops of the parabolas over
    the edges between the others."""
    mm, mz, mp, zm, zp, pm, pz, pp = sides
    ends = [(pz, pp - pz), (pp - zp, zp), (-mz, mz - mm), (zm - mm, -zm)]
    tops = []
    for shift, low, high in ((mp, -mz, zp - mp), (-pm, pm - zm, pz)):  # z1 = z0 + shift
        top = (s + t - c * shift) / (2 * c).clamp(min=torch.finfo(c.dtype).tiny)
        x = top.clamp(low, high)
        tops.append((x, x + shift))
    return [torch.stack(torch.broadcast_tensors(x, y), -2) for x, y in ends + tops]
