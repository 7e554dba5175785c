"""Groups of k neurons bounded together: the exact hull of their graph over a polytope (k-ReLU, Singh et al. 2019).

What is known of the pre-activations of a group, `P = {z : a.z <= c_a}` with normals a beyond the unit vectors, is
mapped to what is known of its post-activations by the support function of `conv {(z, act(z)) : z in P}`. Single
neurons see only the projections of P; their best relaxation is the convex barrier of Salman et al. (2019).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from krelax.activations.base import Support
from krelax.hull import octagon
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Polytope

if TYPE_CHECKING:
    from krelax.hull.separate import Hull, Pool

# Where supports are proven, not only proposed.
PROOF = torch.float64


class Together(ABC):
    """A convex superset of the graph of `(batch, groups)` groups of k neurons over what is known of them together: the
    polytopes `rows @ z <= bounds`, `(m, k)` and `(batch, groups, m)`. Of members that are two lines through the origin,
    `negative_slopes` has those below zero, `(k,)`; it is empty for others."""

    rows: Tensor
    bounds: Tensor
    negative_slopes: tuple[float, ...]
    # Whether members' coefficients are shared out among their groups. Otherwise a group is all that its members are in.
    shared: ClassVar[bool] = True

    @property
    def scales(self) -> Tensor | None:
        """Of pairs whose second member is multiplied by a power of two in the polytopes the exponents, `(groups,)`."""
        return None

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Together:
        """The same groups for coefficients of another type; only double precision proves."""

    @abstractmethod
    def select(self, which: Tensor) -> Together:
        """Some of the groups of one region, `(groups,)`."""

    @property
    @abstractmethod
    def magnitude(self) -> Tensor:
        """Largest |z| of each member, `(batch, groups, k)`."""

    @property
    @abstractmethod
    def reach(self) -> Tensor:
        """At least the largest |a| of each member, `(batch, groups, k)`."""

    @abstractmethod
    def support(self, slope: Tensor, coeff: Tensor, sides: Tensor | None = None) -> Support:
        """`max slope . z - coeff . a` over each group; `(batch, groups, k, queries) -> (batch, groups, queries)`.

        In double precision an upper bound of the exact maximum, once the caller adds `octagon.ROUNDING` units of
        rounding of `|slope| * magnitude + |coeff| * reach`. With `sides`, of the same shape and of type int8, perhaps
        over the part of each group's graph where `side_i * z_i >= 0`.
        """

    def hull(self) -> Hull:
        """The groups for separating points from them, if they are shared; with one batch item."""
        raise NotImplementedError

    def points(self) -> Pool | None:
        """Known points of the hulls, if there is an end to them."""
        return None


@dataclass(frozen=True, eq=False)
class Joint(Together):
    """Exact hulls of `(batch, groups)` groups with k members each.

    `rows`, `(m, k)`, are the normals of every group's polytope (for k = 2 those of the octagon, in its order), and
    `bounds`, `(batch, groups, m)`, its right-hand sides. Member i is `a = max(z, negative_slopes[i] * z)`: 0 is a
    ReLU, 1 a pass-through member, which is the identity and adds no piece.
    """

    rows: Tensor
    bounds: Tensor
    negative_slopes: tuple[float, ...]

    def to(self, dtype: torch.dtype) -> Joint:
        return Joint(self.rows.to(dtype), self.bounds.to(dtype), self.negative_slopes)

    def select(self, which: Tensor) -> Joint:
        return replace(self, bounds=self.bounds[:, which])

    @property
    def reach(self) -> Tensor:
        return self.magnitude

    @cached_property
    def magnitude(self) -> Tensor:
        unit = self.rows.abs().sum(1) == 1
        axis = self.rows[unit].abs().argmax(1)
        largest = self.bounds.new_zeros(*self.bounds.shape[:-1], self.rows.shape[1])
        index = axis.expand(*self.bounds.shape[:-1], -1)
        return largest.scatter_reduce(-1, index, self.bounds[..., unit].abs(), "amax")

    @cached_property
    def lifted(self) -> Tensor:
        """The points that span the hulls, `(batch, groups, points, 2k)`, as (z, -a)."""
        slopes = self.bounds.new_tensor(self.negative_slopes)
        return octagon.lift(self._points(), slopes)

    def hull(self) -> Hull:
        from krelax.hull.separate import Exact

        return Exact(self._polytope, self._pieces)

    def points(self) -> Pool:
        from krelax.hull.vertices import vertices

        return vertices(self._polytope, self._pieces)

    def _points(self) -> Tensor:
        if self.rows.shape[1] == 2:
            return octagon.points(octagon.tighten(self.bounds))
        from krelax.hull.vertices import vertices

        points = vertices(self._polytope, self._pieces).z
        return torch.from_numpy(points).to(self.bounds).unflatten(0, self.bounds.shape[:2])

    @cached_property
    def _polytope(self) -> Polytope:
        return Polytope(self.rows.double().cpu().numpy(), self.bounds.flatten(0, 1).double().cpu().numpy())

    @cached_property
    def _pieces(self) -> Pieces:
        return Pieces.coordinatewise(self.negative_slopes, [1.0] * len(self.negative_slopes))

    def support(self, slope: Tensor, coeff: Tensor, sides: Tensor | None = None) -> Support:
        """`max slope . z - coeff . a` over each hull; `(batch, groups, k, queries) -> (batch, groups, queries)`.

        With `sides`, of the same shape and of type int8, over the hull of the part of each group's graph where
        `side_i * z_i >= 0`: in a leaf of branch and bound 1 and -1 say on which side of zero a split member is. An
        infeasible leaf may have any value. For k > 2 the sides of pass-through members are not heeded.

        In double precision an upper bound of the exact maximum once the caller adds `octagon.ROUNDING` units of
        rounding of `(|slope| + |coeff|) * magnitude`. In single precision, k > 2, a proposal from computed vertices.
        """
        if self.rows.shape[1] > 2 and slope.dtype == PROOF:
            return self._proven(slope, coeff, sides)
        from krelax.hull.scan import scan  # numba takes a while to import

        value, index = scan(self.lifted, torch.cat([slope, coeff], 2), self._heeded(sides))
        choice = index.unsqueeze(2).expand(-1, -1, self.lifted.shape[-1], -1)
        z, a = self.lifted.mT.gather(3, choice).chunk(2, 2)
        return Support(value, z, -a)

    def _heeded(self, sides: Tensor | None) -> Tensor | None:
        """The sides that points can tell apart: the vertices of pieces have none on the axis of a pass-through."""
        if sides is None or self.rows.shape[1] == 2 or 1.0 not in self.negative_slopes:
            return sides
        return sides * sides.new_tensor([slope != 1.0 for slope in self.negative_slopes]).unsqueeze(-1)

    def _proven(self, slope: Tensor, coeff: Tensor, sides: Tensor | None) -> Support:
        from krelax.hull.support import support

        flat_slope, flat_coeff = (t.flatten(0, 1).mT.cpu().numpy() for t in (slope, coeff))
        flat_sides = None if sides is None else sides.flatten(0, 1).mT.cpu().numpy()
        found = support(self._polytope, self._pieces, flat_slope, flat_coeff, sides=flat_sides)
        value, z, a = (torch.from_numpy(t).to(slope) for t in (found.value, found.z, found.a))
        shape = slope.shape[:2]
        return Support(value.unflatten(0, shape), z.mT.unflatten(0, shape), a.mT.unflatten(0, shape))
