"""What a rule says of an activation.

The backward pass rests on `coeff act(z) >= slope z - price`, where the price is the support function, the maximum of
`slope z - coeff act(z)` over the interval `lower <= z <= upper`: then any slope will do. Arrays are `(rows, entries)`.
Prices round; they are right up to what the backward pass charges for.
"""

from __future__ import annotations

import copy
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.errors import Rejected
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats

Ends = tuple[Floats, Floats]

# Slopes that nobody chose follow from comparing bounds. What is compared is often equal but for rounding, as where
# intervals are symmetric: so thresholds lie a little, relatively, to the side of that.
ASIDE = 2.0**-20
# Executions in float32 whose numbers stay below do not overflow.
LARGEST_FLOAT32 = 2.0**127
# A unit in the last place of float32, of numbers from one to two; and what computing with it rounds, in relation to it.
_UNIT, _AMPLE = 2.0**-23, 1 + 2.0**-20


class Rule:
    """One activation; a subclass says what is true of it. What stands here is right for most of them.

    `pieces` are the slopes for `z <= 0` and `z >= 0` of an activation that is linear there: then it is split at zero,
    may stand in groups of any size, and has lower lines given by fractions. None for others, which are split anywhere:
    a piece is the same activation over what is left of its interval. Pairs may be of all that are `elementwise`.
    """

    name: ClassVar[str]
    elementwise: ClassVar[bool] = True  # whether it is a function of one entry of its pre-activation
    paired: ClassVar[bool] = False  # whether it is of two entries, which are a group by themselves
    float32: ClassVar[bool] = False  # whether an error of its executions in float32 is known
    vouched: ClassVar[bool] = False  # whether somebody may vouch for one, as functions of a library are vouched for
    units: int | None = None  # by how much executions are off, if somebody vouches for that: see `executing`

    @property
    def pieces(self) -> tuple[float, float] | None:
        return None

    @property
    def obstacle(self) -> str | None:
        """Why nothing is known of its executions in float32; None if their error is known."""
        if self.float32 or self.units is not None:
            return None
        remedy = ": state by how many units in the last place they are off (float32:N)" if self.vouched else ""
        return f"{self.name}, whose executions are not known{remedy}"

    def executing(self, units: int) -> Self:
        """The same where float32 executions of functions are off by at most so many units in the last place, of one or
        of the exact value, whichever is larger."""
        if not self.vouched:
            return self
        rule = copy.copy(self)
        object.__setattr__(rule, "units", units)
        return rule

    @property
    def members(self) -> int:
        """Of how many entries windows are that are split by comparing two of them; 0 if it is split otherwise."""
        return 0

    def without(self, out: NDArray[np.bool_]) -> Rule:
        """The same where entries `out`, `(rows, entries)`, are no larger than one of the others of their window. Only
        with `members`."""
        raise NotImplementedError

    def factors(self, slope: Array) -> tuple[Array, Array] | None:
        """Of an activation of degree two p and q with `act(z) - slope z = (z0 - p)(z1 - q) - p q`, where both operands
        are z if it has one; None for others."""
        return None

    def interval(self, ends: Ends, float32: bool) -> Ends:
        """The range of the activation, as it is or as float32 executes it."""
        raise NotImplementedError

    def undecided(self, ends: Ends) -> NDArray[np.bool_]:
        """Entries of the pre-activation whose bounds matter."""
        return ends[1] > ends[0]

    def linear(self, ends: Ends) -> NDArray[np.bool_]:
        """Entries at which it is z, or 0, all over their intervals, without any rounding."""
        return np.zeros(ends[0].shape, bool)

    def behind(self, coeff: Array) -> Array:
        """For every entry of the pre-activation the coefficient behind the activation."""
        return coeff

    def lines(self, ends: Ends, parallel: bool) -> Ends:
        """Slopes of a lower and of an upper line where nobody chose: "adaptive" ones, or "parallel" ones."""
        raise NotImplementedError

    def chosen(self, lines: Ends, ends: Ends, fraction: Floats, upper: Floats | None) -> Ends:
        """The same with lower lines given by fractions of what is possible, and perhaps upper ones by their slopes, NaN
        where there are none. Only with `pieces`."""
        raise NotImplementedError

    def price(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        """The support function of every neuron, `coeff` being as `behind` makes it."""
        raise NotImplementedError

    def executed(self, ends: Ends) -> Floats | None:
        """How far a float32 execution can be from the activation; None if it does not round. Rejected where it may
        overflow."""
        if self.units is None:
            return None
        lower, upper = self.interval(ends, False)
        largest = np.maximum(np.maximum(abs(lower), abs(upper)), 1.0)
        # where nothing is known of the activation, prices say so
        known = np.isfinite(largest)
        if not (largest[known] < LARGEST_FLOAT32).all():
            raise Rejected(f"float32 executions of a {self.name} may overflow")
        return self.units * _UNIT * _AMPLE * np.where(known, largest, 0.0)

    def reach(self, ends: Ends) -> Floats:
        """How large what coefficients are multiplied with can be."""
        return np.maximum(abs(ends[0]), abs(ends[1]))


def unless_lost(ar: Arithmetic, price: Array, coeff: Array, slope: Array, known: NDArray[np.bool_]) -> Array:
    """Prices where something is `known` of the activation over its interval. Elsewhere there is none, unless nothing is
    asked of it."""
    if known.all():
        return price
    nothing = ~(ar.positive(abs(coeff)) | ar.positive(abs(slope)))
    price = ar.where(known, price, ar.number(np.zeros(())))
    lost = ~(known | nothing)
    return ar.where(lost, ar.number(np.full((), np.inf)), price) if lost.any() else price
