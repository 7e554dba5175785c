"""What every activation says of itself: the contract, and the lines every method is made of.

An activation is an operator that knows its relaxation over an interval: a convex superset R of the graph
`{(z, a) : a = act(z), lower <= z <= upper}`. All that bounding asks of it is its support function

    sigma(slope, coeff) = max { slope * z - coeff * a : (z, a) in R },

because `coeff * a >= slope * z - sigma(slope, coeff)` holds on R for EVERY slope (design of the primer, section
"one framework"; for k = 1 it is the Lagrangian dual of Salman et al. 2019). A method is a rule for choosing slopes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor

from krelax.op import Op, Shape
from krelax.watch import tick

if TYPE_CHECKING:
    from krelax.activations.maximum import Maximum
    from krelax.activations.triangle import Triangle

# Rules decide by comparing bounds, and others are to decide the same. What is compared is often equal but for rounding,
# as where intervals are symmetric: so the threshold is a little, relatively, to the side of that.
ASIDE = 2.0**-20
# How far an activation is from its chord is known up to so many units of rounding.
_NOISE = 64
# Finding where to split a neuron takes as long as crossing it so many times.
_SPLITTING = 20


class Rule(StrEnum):
    """Published closed-form choices of slopes; each is sound for every activation."""

    ZERO = "zero"  # interval bound propagation: forget the pre-activation
    PARALLEL = "parallel"  # one slope for both sides: DeepZ, Fast-Lin
    ADAPTIVE = "adaptive"  # smaller area: DeepPoly, CROWN
    FIXED_0 = "fixed0"  # flattest admissible lower line
    FIXED_1 = "fixed1"  # steepest admissible lower line


@dataclass(frozen=True)
class Support:
    """Value of a support function and a point `(z, a)` of the relaxation that attains it, which is its gradient. Of an
    upper bound that nothing attains it is the gradient alone, and may lie outside of the relaxation."""

    value: Tensor
    z: Tensor
    a: Tensor


@dataclass(frozen=True)
class Lines:
    """Two lines around an activation: `lower * z - below <= a <= upper * z + above` on the whole relaxation.

    Shapes broadcast to `(batch, queries, *shape)` with `shape` that of z. Sound because the intercepts are support
    values, `below = sigma(lower, 1)` and `above = sigma(-upper, -1)`; None where the lower line passes through the
    origin. `lower_at` and `upper_at` are pre-activations where the lines touch the relaxation (None: at the origin).
    """

    lower: Tensor
    upper: Tensor
    below: Tensor | None
    above: Tensor
    lower_at: Tensor | None = None
    upper_at: Tensor | None = None


class Splits(NamedTuple):
    """Where to split neurons for the sake of their lower lines, how much nearer to the activation these will be in the
    worse piece, and the same for upper lines; `(batch, *shape)` each. What gains nothing is not worth a split."""

    at_lower: Tensor
    lower: Tensor
    at_upper: Tensor
    upper: Tensor


@dataclass(frozen=True, eq=False)
class Activation(Op):
    """A non-linear operator with one operand: what it computes, and what is true of it over an interval.

    Elementwise, unless its relaxations say that they reduce. `name` is what krelax calls it, in its table and in what
    it prints.
    """

    name: ClassVar[str]
    published: ClassVar[bool] = False  # whether bounds of layers by closed-form slopes replace those by intervals
    jumps: ClassVar[bool] = False  # whether descents need what `smeared` says
    steep: ClassVar[bool] = False  # whether they get further by it, though it does not jump
    paired: ClassVar[bool] = False  # whether it is of two numbers that are a group by themselves
    uniform: ClassVar[bool] = True  # whether every entry is the same function of its operand, wherever it is
    rising: ClassVar[bool] = False  # whether no result falls where operands rise
    work: ClassVar[float] = 500.0  # products of two numbers that crossing one neuron takes as long as

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    @property
    def leak(self) -> float | None:
        """For an activation that is `max(z, leak * z)` the slope below zero, from 0 to 1; None for any other.

        Groups of neurons with a leak have any size, and exact hulls, which are spanned by such pieces. Others of one
        number are in pairs, by bands around their graphs.
        """
        return None

    def piece(self, z: Tensor) -> Tensor | None:
        """For an activation that is the largest of some linear forms of z: the slopes of the form that is largest at
        z, `(batch, *shape)`. None for any other."""
        return None

    def factors(self, slope: Tensor) -> tuple[Tensor, Tensor] | None:
        """For an activation of degree two what is left of it beyond a line: p and q, `(batch, *shape)`, with
        `a - slope * z = (z0 - p)(z1 - q) - p q`. Both factors are of z itself if z is one number. None for any other.
        """
        return None

    def smeared(self, z: Tensor, width: Tensor) -> Tensor:
        """Something with a gradient that goes on where the function jumps: ramps, so wide to either side of a jump. A
        proposal."""
        return self.forward(z)

    @abstractmethod
    def relax(self, lower: Tensor, upper: Tensor) -> Relaxation:
        """Its single-neuron relaxation over `lower <= z <= upper`, both `(batch, *shape)`."""


class Relaxation(ABC):
    """A convex superset of the graph of the activation `op` over `lower <= z <= upper`, both `(batch, *shape)`.

    `reduces` says whether the activation removes the last axis of z (a maximum over windows): its coefficients then
    have one axis less than its slopes. `optimised` says for the lower and the upper line whether its slope is worth
    optimising, and `step` how large its range is, as a scale for step sizes; None if slopes have ranges of their own.
    `derived` is the rule by which the checker of certificates chooses slopes where a certificate names none. Bounds,
    and with them all that is made of them, are laid out row by row, whatever the operators before the activation do
    with their axes.
    """

    reduces = False
    optimised = (False, False)
    step: float | None = 1.0
    derived = Rule.ADAPTIVE

    def __init__(self, op: Activation, lower: Tensor, upper: Tensor) -> None:
        self.op = op
        self.lower = lower.contiguous()
        self.upper = upper.contiguous()
        self._by_rule: dict[Rule, Lines] = {}
        self._splits: Splits | None = None

    def over(self, lower: Tensor, upper: Tensor) -> Relaxation:
        """The relaxation of the same activation over other bounds."""
        return self.op.relax(lower, upper)

    @property
    def magnitude(self) -> Tensor:
        """Largest |z| in the interval, `(batch, *shape)`."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    @abstractmethod
    def interval(self) -> tuple[Tensor, Tensor]:
        """Bounds on the post-activation, rounding included."""

    @abstractmethod
    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        """`max slope * z - coeff * a` over the relaxation; `(batch, queries, *shape)`, not rounded outward.

        The caller accounts for rounding: the error is at most 8 units in the last place of
        `|slope| * max |z| + |coeff| * max |a|`.
        """

    @abstractmethod
    def slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        """Slopes of a lower and an upper line by `rule`, `(batch, *shape)` each."""

    @abstractmethod
    def slope_range(self) -> tuple[Tensor, Tensor]:
        """Interval in which optimised slopes are kept, `(batch, *shape)` each."""

    def along(self, gradient: Tensor, slope: Tensor, lower: bool) -> Tensor:
        """The gradient of bounds with respect to slopes of lower or upper lines, `(batch, queries, *shape of z)`, led
        along the slopes that are worth having: those of lines that meet the relaxation in more than a point. Others
        lie on both sides of a kink, where steps of an ascent get nowhere. Of one number all slopes are."""
        return gradient

    def nearest(self, slope: Tensor, lower: bool) -> Tensor:
        """Slopes that are worth having, near others, `(batch, queries, *shape of z)`; the tensor itself if all are."""
        return slope

    def triangle(self) -> Triangle | None:
        """The relaxation as a triangle, of which searches split neurons at the kink; None if it is none."""
        return None

    def window(self) -> Maximum | None:
        """The relaxation as one of windows, whose members searches compare; None if it is none."""
        return None

    def splits(self) -> Splits | None:
        """Where to split neurons, and what that is worth; None if they cannot be split.

        A piece is relaxed as the same activation `over` what is left of its interval, so curved activations can be
        split anywhere. This takes what is best for the worse piece: where the line is farthest from the activation, or
        one of the `candidates`.
        """
        if self._splits is None:
            tick(_SPLITTING * self.op.work * self.lower.numel())
            losses, (lower, upper) = self.losses()
            points = [z.clamp(self.lower, self.upper) for z in (lower, upper, *self._candidates())]
            pieces = [(self.over(self.lower, p).losses()[0], self.over(p, self.upper).losses()[0]) for p in points]
            gains = [[(losses[k] - torch.maximum(*(t[k] for t in p))).clamp(min=0) for p in pieces] for k in (0, 1)]
            (low, first), (high, second) = (torch.stack(g).max(0) for g in gains)
            every = torch.stack(points)
            at_lower, at_upper = (every.gather(0, which[None])[0] for which in (first, second))
            self._splits = Splits(at_lower, low, at_upper, high)
        return self._splits

    def _candidates(self) -> list[Tensor]:
        """Points at which it may be good to split, whatever the line, `(batch, *shape)` each."""
        return []

    def losses(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """How far the best lower and upper lines may be from the activation, what rounding might account for left out,
        and where they are: `(batch, *shape)` each. A proposal.

        Of what is convex or concave one line is the chord, and the other a tangent, which loses nothing where it
        touches.
        """
        width, ends = self.upper - self.lower, [self.op.forward(z) for z in (self.lower, self.upper)]
        chord = ((ends[1] - ends[0]) / torch.where(width > 0, width, 1.0)).nan_to_num(0.0, 0.0, 0.0)
        one = torch.ones_like(chord).unsqueeze(1)
        above, below = (self.support(-s * chord.unsqueeze(1), -s * one) for s in (1, -1))
        start = (ends[0] - chord * self.lower).nan_to_num()
        found = self._noticed(above.value[:, 0] - start, chord), self._noticed(below.value[:, 0] + start, chord)
        return found, (above.z[:, 0], below.z[:, 0])

    def _noticed(self, loss: Tensor, slope: Tensor) -> Tensor:
        """What a line of such a slope loses, if it is more than rounding."""
        noise = _NOISE * torch.finfo(loss.dtype).eps * (1 + slope.abs() * self.magnitude)
        return torch.where(loss > noise, loss, 0.0)

    def rounded(self, slope: Tensor) -> Tensor:
        """Slopes of lower lines as proofs use them, short enough to be written down: of float32."""
        return slope.float().to(slope)

    def beyond(self) -> Tensor:
        """How far from zero each number is for sure on one side of all that the activation does with it there, as far
        as that depends on others, `(batch, *shape)`."""
        return torch.zeros_like(self.lower)

    def unstable(self) -> Tensor:
        """Where the relaxation is not exact, `(batch, *shape of z)`: only there slopes matter."""
        return self.upper > self.lower

    def lines(self, lower: Tensor, upper: Tensor) -> Lines:
        """Sound lines with the given slopes, `(batch, queries, *shape)`: the intercepts are support values."""
        one = torch.ones_like(lower[..., 0] if self.reduces else lower)
        below = self.support(lower, one)
        one = torch.ones_like(upper[..., 0] if self.reduces else upper)
        above = self.support(-upper, -one)
        return Lines(lower, upper, below.value, above.value, below.z, above.z)

    def lines_by(self, rule: Rule) -> Lines:
        """Lines with the slopes of `rule`, shared by all queries: `(batch, 1, *shape)`."""
        if rule not in self._by_rule:
            lower, upper = self.slopes(rule)
            self._by_rule[rule] = self.lines(lower.unsqueeze(1), upper.unsqueeze(1))
        return self._by_rule[rule]

    def box_lines(self) -> tuple[Lines, Lines]:
        """Adaptive lines, and parallel ones for zonotopes, where many boxes are bounded and no slope is written down;
        `(batch, 1, *shape)`."""
        parallel = self.lines_by(Rule.PARALLEL)
        if not torch.equal(parallel.lower, parallel.upper):
            parallel = self.lines(parallel.upper, parallel.upper)
        return self.lines_by(Rule.ADAPTIVE), parallel

    def facets(self) -> Iterator[tuple[bool, Tensor]]:
        """What linear programs know of the activation: lines, each a lower one or not, with slopes `(batch, *shape)`.

        Of a piecewise-linear activation these are the facets of the hull, of a curved one lines that surround it.
        """
        for lower in (True, False):
            for rule in (Rule.FIXED_0, Rule.FIXED_1, Rule.ADAPTIVE):
                yield lower, self.slopes(rule)[0 if lower else 1]

    def behind(self, coeff: Tensor) -> Tensor:
        """Coefficients of the activation, with an axis of one where its pre-activations have another one."""
        return coeff.unsqueeze(-1) if self.reduces else coeff

    def matters(self) -> Tensor:
        """Which pre-activations the value can depend on at all, `(batch, *shape of z)`."""
        return torch.ones_like(self.lower, dtype=torch.bool)
