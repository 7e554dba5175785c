"""Products whose operands are bounded together: the exact hull of the graph over an octagon.

What is known of the sum and of the difference of both operands cuts corners off their box, and with them what
McCormick's planes lose: half of it, where both are sums of many terms that have nothing to do with each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from krelax.activations.base import Activation, Relaxation, Support
from krelax.activations.joint import Together
from krelax.activations.product import Bilinear
from krelax.hull import octagon, saddle


@dataclass(frozen=True, eq=False)
class Operands(Together):
    """The operands of `(batch, groups)` products, each pair over an octagon.

    An octagon is one of z0 and 2^e z1, with `exponents` e, `(groups,)`, so that both are about as wide: `rows`,
    `(8, 2)`, are its normals, in their order, and `bounds`, `(batch, groups, 8)`, the right-hand sides.
    """

    rows: Tensor
    bounds: Tensor
    exponents: Tensor

    # For what members are below zero: they are no lines.
    negative_slopes = ()
    shared = False

    def to(self, dtype: torch.dtype) -> Operands:
        """The same products for coefficients of another type."""
        return replace(self, rows=self.rows.to(dtype), bounds=self.bounds.to(dtype))

    def select(self, which: Tensor) -> Operands:
        """Some of the products of one region."""
        return replace(self, bounds=self.bounds[:, which], exponents=self.exponents[which])

    @property
    def scales(self) -> Tensor:
        return self.exponents

    @cached_property
    def _scale(self) -> Tensor:
        """What the second operand is divided by, `(groups, 1)`."""
        return powers(-self.exponents).unsqueeze(-1).to(self.bounds)

    @cached_property
    def _tight(self) -> Tensor:
        return octagon.tighten(self.bounds)

    @cached_property
    def magnitude(self) -> Tensor:
        """Largest |z| of each operand, `(batch, groups, 2)`."""
        first, second = (self.bounds[..., pair].abs().amax(-1) for pair in ([1, 6], [3, 4]))
        return torch.stack([first, second * self._scale[:, 0]], -1)

    @property
    def reach(self) -> Tensor:
        """Largest |a| of each product, `(batch, groups, 1)`."""
        return self.magnitude.prod(-1, keepdim=True)

    def support(self, slope: Tensor, coeff: Tensor, sides: Tensor | None = None) -> Support:
        """`max slope . z - coeff a` over each product, `(batch, groups, 2, queries)` and `(batch, groups, 1, queries)
        -> (batch, groups, queries)`. In double precision an upper bound, rounding included. Sides are not heeded."""
        scaled = torch.stack([slope[:, :, 0], slope[:, :, 1] * self._scale], 2)
        value, z = saddle.support(self._tight, scaled, coeff[:, :, 0] * self._scale)
        z = torch.stack([z[:, :, 0], z[:, :, 1] * self._scale], 2)
        return Support(value, z, z.prod(2, keepdim=True))


def powers(exponents: Tensor) -> Tensor:
    """Powers of two, exactly, in double precision."""
    return torch.from_numpy(np.ldexp(1.0, exponents.cpu().numpy()))


class Saddle(Bilinear):
    """The convex hull of products over a box, and of those at `places`, `(groups,)`, over octagons."""

    def __init__(self, op: Activation, lower: Tensor, upper: Tensor, places: Tensor, joint: Operands) -> None:
        super().__init__(op, lower, upper)
        self._places, self._joint = places, joint

    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        found = super().support(slope, coeff)
        shape = found.value.shape
        slopes = slope.expand(found.z.shape).flatten(2, -2)[:, :, self._places]
        coeffs = coeff.expand(shape).flatten(2)[:, :, self._places]
        here = self._joint.support(slopes.permute(0, 2, 3, 1), coeffs.permute(0, 2, 1).unsqueeze(2))
        value, z = found.value.flatten(2), found.z.flatten(2, -2)
        own, alone = here.value.transpose(1, 2), value[:, :, self._places]
        better = own < alone  # not where either is no number
        value = value.index_copy(2, self._places, torch.where(better, own, alone))
        at = torch.where(better.unsqueeze(-1), here.z.permute(0, 3, 1, 2), z[:, :, self._places])
        z = z.index_copy(2, self._places, at)
        return Support(value.view(shape), z.view(found.z.shape), z.prod(-1).view(shape))


def within(relaxation: Relaxation, members: Tensor, joint: Together) -> Saddle:
    """The relaxation of products, of which those with operands `members`, `(groups, 2)`, are in octagons."""
    assert isinstance(joint, Operands)
    return Saddle(relaxation.op, relaxation.lower, relaxation.upper, members[:, 0] // 2, joint)
