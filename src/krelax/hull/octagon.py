"""Pairs of neurons: the octagon of their pre-activations and the hull of their graph, in closed form.

A group of two neurons knows ``a · z <= c_a`` for the eight ``a`` in {-1, 0, 1}² without (0, 0), in the order of
`ROWS`. The hull of ``{(z, act(z)) : z in P}`` over this octagon P is spanned by the vertices of the pieces of P
between the axes: the eight vertices of P, the four points where the axes leave P, and the origin, as far as they
exist. Its support function is a maximum over these 13 points.

**Selections instead of decisions.** Whether an axis meets P, or the origin is inside, is never decided. Each of the
13 points is a composition of minima, maxima, sums and differences of the bounds which lies in P whatever P is, and
*is* the crossing or the origin whenever that exists. So the points depend Lipschitz-continuously on the bounds,
rounding moves them by a few units in the last place, and no choice can flip and lose a kink.

**Rounding** (`ROUNDING`). Let u = eps / 2, M_i = max |z_i| over the points, T the exact tight bounds and C the computed
ones; all to first order. Rounding is monotone and keeps signs, so a minimum of rounded numbers is the rounded minimum.

* Unit bounds are one addition of given bounds (halving is exact), so C = fl(T): ``|C - T| <= u |T|``, with the same
  sign. Diagonal bounds are given, or the sum of two unit bounds, C = fl(C_1 + C_2): ``|C - T| <= 2 u (|T_1| + |T_2|)``.
* Crossings and the origin, where they exist: ``|z_i - exact| <= u M_i``. A sum of unit bounds, one of them >= 0,
  never is the smaller bound there, so only given diagonals and unit bounds enter; and no sign changes, so the origin
  is exact.
* Vertices inside a piece, say v = (T_10, T_11 - T_10), are needed for gradients m = slope - coeff (on that piece) in
  the cone of (1, 0) and (1, 1), so ``0 <= m2 <= m1``. The computed one has ``m · z = (m1 - m2) C_10 + m2 (C_11 +
  rounding of z2)``, less than ``m · v`` by at most ``u (m1 M_1 + 2 m2 (M_1 + M_2) + m2 M_2) <= 3 u m · M``. It is in
  the same closed piece: C_10 has the sign of T_10, and z2 that of v2 or it is zero. For if T_11 >= T_10, then the given
  c_11 >= fl(T_10) and C_01 >= 0, hence C_11 >= C_10; and if T_11 <= T_10, then the given c_11 is T_11 and <= fl(T_10),
  or C_01 <= 0, hence C_11 <= C_10. Clamping into the box changes no sign.
* A value adds four products in any order, one of them of three factors, and then the charge: ``5 u W + u W``, where
  ``W = Σ M_i (|slope_i| + |coeff_i|) >= m · M``.

In all ``9 u W = 4.5 eps W`` are missing at most; `ROUNDING` is 8, which leaves plenty for terms of second order.
Needed: P nonempty, no overflow or underflow, matrix products in full precision (no TF32). Values too large by rounding
are harmless; they are so by at most ``ROUNDING eps M Σ (|slope_i| + |coeff_i|)`` with M the larger M_i, because every
coordinate of every point is within 6 u M of a point of P.

**Sides.** In a leaf of branch and bound some z_i are known to be >= 0 or <= 0. The maximum over this part of P is that
over the pieces in it, and those of the 13 computed points that have these signs, zero having both, prove it with the
same `ROUNDING`, because what stands above for an exact point that a piece needs is in the same closed piece. Vertices
see above. Crossings and the origin have the signs of the exact ones, and are exactly zero on an axis: in ``min(C_01,
C_11, C_-11)`` sums of unit bounds, those of the other member >= 0, even rounded are no less than C_01, all other
numbers have exact signs, and clamping into the box changes none.

If no computed point has the signs, no point of P has, and the leaf is infeasible: any number is an upper bound.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ROUNDING", "ROWS", "lift", "points", "tighten"]

ROWS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""The normals of an octagon, in the order of its bounds."""

ROUNDING = 8.0
"""``exact <= computed + ROUNDING * eps * Σ max|z_i| (|slope_i| + |coeff_i|)``; proof in the module's docstring."""


def tighten(bounds: Tensor) -> Tensor:
    """The tight bounds of octagons, ``(..., 8) -> (..., 8)``: each becomes the maximum of its row over P.

    Exact up to rounding when P is not empty (strong closure: Miné, The Octagon Abstract Domain, 2006). By linear
    programming duality a tight bound is the cheapest way to write its row as a nonnegative combination of two rows.
    For e1 these are e1, ((1, 1) + (1, -1)) / 2, (1, 1) + (0, -1) and (1, -1) + (0, 1); for (1, 1) they are (1, 1), e1
    + e2, 2 e1 + (-1, 1) and 2 e2 + (1, -1), of which the last two are sums of *tight* e1 and e2. So one round
    suffices: units first, then diagonals. Bounds may be +inf as long as the unit bounds of the result are finite.
    """
    mm, mz, mp, zm, zp, pm, pz, pp = bounds.unbind(-1)
    left, right = _unit(mz, mm, mp, zp, zm), _unit(pz, pm, pp, zp, zm)
    down, up = _unit(zm, mm, pm, pz, mz), _unit(zp, mp, pp, pz, mz)
    diagonals = (mm.minimum(left + down), mp.minimum(left + up), pm.minimum(right + down), pp.minimum(right + up))
    return torch.stack([diagonals[0], left, diagonals[1], down, up, diagonals[2], right, diagonals[3]], -1)


def _unit(own: Tensor, minus: Tensor, plus: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """Tight bound of ±z_i from the diagonals ±z_i - z_j and ±z_i + z_j and the bounds of z_j and -z_j."""
    return own.minimum((minus + plus) / 2).minimum(minus + above).minimum(plus + below)


def points(bounds: Tensor) -> Tensor:
    """The 13 points that span the hull, ``(..., 13, 2)``, from *tight* bounds ``(..., 8)``.

    First the vertices of P, counterclockwise from the right (repeated where it has fewer), then the upper and lower
    end of its section by z1 = 0, the right and left end of that by z2 = 0, then the origin. Where an axis misses P,
    the section is the one nearest to it; where the origin is outside, another point of P takes its place. All are
    within the box of the bounds, so that a stable member has ``act(z)`` exactly z or 0. For bounds that are
    inconsistent by rounding the points are finite, and as near to those of consistent bounds as the bounds are, up to
    a small factor.
    """
    mm, mz, mp, zm, zp, pm, pz, pp = bounds.unbind(-1)
    t1, t2 = _clamped_zero(-mz, pz), _clamped_zero(-zm, zp)
    high2, low2 = zp.minimum(pp - t1).minimum(mp + t1), -zm.minimum(pm - t1).minimum(mm + t1)
    high1, low1 = pz.minimum(pp - t2).minimum(pm + t2), -mz.minimum(mp - t2).minimum(mm + t2)
    z1 = [pz, pp - zp, zp - mp, -mz, -mz, zm - mm, pm - zm, pz, t1, t1, high1, low1, t1]
    z2 = [pp - pz, zp, zp, mp - mz, mz - mm, -zm, -zm, pz - pm, high2, low2, t2, t2, _clamped_zero(low2, high2)]
    lower, upper = -torch.stack([mz, zm], -1), torch.stack([pz, zp], -1)
    z = torch.stack([torch.stack(z1, -1), torch.stack(z2, -1)], -1)
    return z.maximum(lower.unsqueeze(-2)).minimum(upper.unsqueeze(-2))


def _clamped_zero(lower: Tensor, upper: Tensor) -> Tensor:
    """The number nearest to zero in ``[lower, upper]``."""
    return lower.clamp(min=0).minimum(upper)


def lift(points: Tensor, negative_slopes: Tensor | None = None) -> Tensor:
    """``(z, -act(z))`` of points ``(..., P, 2)``, as ``(..., P, 4)``; support values are its products with (slope,
    coeff).

    ``act(z) = max(z, s z)`` with ``negative_slopes`` s, ``|s| <= 1``, of shape ``(..., 2)``: one per member, 0 (the
    default) for a ReLU, 1 for a pass-through member (the identity). The points contain every kink, so nothing else
    changes.
    """
    activations = (
        points.clamp(min=0) if negative_slopes is None else points.maximum(points * negative_slopes.unsqueeze(-2))
    )
    return torch.cat([points, -activations], -1)
