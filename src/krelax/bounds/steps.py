"""How the backward pass crosses an activation: `<coeff, a> >= <slopes, z> - price` on its relaxation.

A step is the witness at one activation: slopes it may choose freely, and what they cost. Whatever a step's numbers are,
its price is a value of a support function, so crossing is sound. Going up again, a step turns primal points before the
activation into primal points after it, which by Danskin's theorem are the derivatives of the bound. A step remembers
nothing of a crossing: what going up needs is on a tape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from krelax.activations import Lines, Relaxation, Rule
from krelax.activations.triangle import Triangle
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import written
from krelax.problem.region import dot
from krelax.proof.choices import Choices

# Multipliers are of the size of coefficients, whose unit is that of the query: they move faster than slopes in [0, 1].
MULTIPLIER_STEP = 1.0


@dataclass
class Relaxed:
    """What is left of coefficients `(batch, queries, *shape of a)` behind an activation.

    `slopes`, `(batch, queries, *shape of z)`, are the coefficients on its pre-activation, and `price`, `(batch,
    queries)`, is to be subtracted. `absolute`, of the same shape, bounds the sum of the absolute terms that `price` is
    made of beyond `|slopes| * |z|` and `|coeff| * |a|`, for the rounding error. `tape` is for the step that made it, on
    the way up or when its choices are asked for.
    """

    slopes: Tensor
    price: Tensor
    absolute: Tensor | None = None
    tape: Any = None


# What the steps of a pass have on tape, by activation.
Tapes = dict[int, Any]


@dataclass
class Parameter:
    """A tensor of a witness to be optimised in place, kept between `low` and `high`; `scale` multiplies its steps, and
    if they are `relative`, so does the distance from low to high. `nearest` gives the values that are worth having."""

    value: Tensor
    low: Tensor
    high: Tensor
    scale: float
    relative: bool = False
    gradient: Tensor | None = None
    nearest: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def slope(cls, value: Tensor, low: Tensor, high: Tensor, step: float | None, share: float = 1.0) -> Parameter:
        """Slopes of lines of a relaxation with such a `step`, which move by a share of it."""
        return cls(value, low, high, share * (1.0 if step is None else step), step is None)


class Step(ABC):
    """The witness at one activation, bound to the relaxation it is evaluated over.

    `wants_a_visit` says whether to cross the activation even if nothing of the form arrives there. Coefficients and
    points that a step is given are contiguous: affine operators may leave them in any layout.
    """

    relaxation: Relaxation
    wants_a_visit = False

    @abstractmethod
    def backward(self, coeff: Tensor) -> Relaxed:
        """Cross the activation downwards."""

    @abstractmethod
    def forward(self, coeff: Tensor, before: Tensor, tape: Any) -> Tensor:
        """Cross it upwards, with the tape of the way down: the derivative of the bound with respect to `coeff`, given
        that with respect to the slopes, `before`; fills in the gradients of the parameters."""

    @abstractmethod
    def over(self, bounds: LayerBounds, node: int) -> Self:
        """The same witness over the relaxations of `bounds`, in their type, with numbers that can be written down."""

    @abstractmethod
    def choices(self, region: int, tape: Any) -> Choices:
        """What the step chose for all queries of one region of the batch, with the tape of their evaluation; what is
        the same for all of them, such as lines of a rule, may be there once. Nothing of groups if there is no tape,
        because no coefficients arrived at them."""

    def parameters(self) -> list[Parameter]:
        """What can be optimised."""
        return []

    def shared(self) -> Lines | None:
        """The lines of every neuron by itself, if all queries have the same; None for any other step."""
        return None


class SingleNeuron(Step):
    """A step in which every neuron pays for itself, and which can give part of its coefficients away to groups."""

    @abstractmethod
    def slopes_at(self, places: Tensor, coeff: Tensor) -> Tensor:
        """The slopes of the lines that coefficients `(1, m, queries)` of some entries choose by their sign."""

    @abstractmethod
    def add_gradient(self, places: Tensor, coeff: Tensor, along: Tensor) -> None:
        """Add to the gradients of the slopes those of slopes taken over by `slopes_at`, `(1, m, queries)`."""

    def sides_at(self, places: Tensor) -> Tensor | None:
        """On which sides of zero entries are taken to lie, `(1, m, queries)`: 1, -1, or 0 for both; None if all do."""
        return None


class Single(SingleNeuron):
    """Every neuron alone: two lines with the given slopes, each `(batch, queries | 1, *shape)`.

    The positive part of the coefficients takes the lower line, the negative part the upper one. `fixed` slopes are not
    optimised.
    """

    def __init__(
        self, relaxation: Relaxation, lower: Tensor, upper: Tensor, lines: Lines | None = None, fixed: bool = False
    ) -> None:
        self.relaxation, self._fixed = relaxation, fixed
        self._lines = relaxation.lines(lower, upper) if lines is None else lines
        both = [(lower, relaxation.optimised[0] and not fixed), (upper, relaxation.optimised[1] and not fixed)]
        self._lower, self._upper = (
            Parameter.slope(t, *self._range(), relaxation.step) if free else None for t, free in both
        )
        for parameter, lies_below in ((self._lower, True), (self._upper, False)):
            if parameter is not None:
                parameter.nearest = partial(relaxation.nearest, lower=lies_below)

    def _range(self) -> tuple[Tensor, Tensor]:
        low, high = self.relaxation.slope_range()
        return low.unsqueeze(1), high.unsqueeze(1)

    @property
    def slopes(self) -> tuple[Tensor, Tensor]:
        """Slopes of the lower and the upper lines."""
        return self._lines.lower, self._lines.upper

    def parameters(self) -> list[Parameter]:
        return [p for p in (self._lower, self._upper) if p is not None]

    def over(self, bounds: LayerBounds, node: int) -> Single:
        relaxation = bounds.relaxations[node]
        dtype = relaxation.lower.dtype
        lower, upper = relaxation.rounded(self._lines.lower.to(dtype)), written(self._lines.upper.to(dtype))
        return Single(relaxation, lower, upper, fixed=self._fixed)

    def choices(self, region: int, tape: Lines | None) -> Choices:
        lower, upper = (t[region].flatten(1) for t in (self._lines.lower, self._lines.upper))
        triangle = self.relaxation.triangle()
        if triangle is not None and triangle.writable(lower):
            entries = triangle.unstable()[region].flatten().nonzero()[:, 0]
            return slope_choices(triangle, entries, lower[:, entries], upper[0, entries])
        both = torch.stack(torch.broadcast_tensors(lower, upper), -1)
        if True not in self.relaxation.optimised and bool((both == both[:1]).all()):
            both = both[:1]
        return Choices(lines=both.float().cpu().numpy())

    def shared(self) -> Lines | None:
        alone = self._lines.lower.shape[1] == self._lines.upper.shape[1] == 1
        return self._refreshed() if alone else None

    def backward(self, coeff: Tensor) -> Relaxed:
        lines = self._refreshed()
        positive = coeff.clamp(min=0)
        negative = coeff - positive
        price = -dot(negative, lines.above)
        if lines.below is not None:
            price = price + dot(positive, lines.below)
        positive, negative = self.relaxation.behind(positive), self.relaxation.behind(negative)
        return Relaxed(torch.addcmul(positive * lines.lower, negative, lines.upper), price, tape=lines)

    def forward(self, coeff: Tensor, before: Tensor, tape: Lines) -> Tensor:
        behind = self.relaxation.behind(coeff)
        if self._lower is not None:
            gradient = behind.clamp(min=0) * (before if tape.lower_at is None else before - tape.lower_at)
            self._lower.gradient = self.relaxation.along(gradient, tape.lower, True)
        if self._upper is not None:
            gradient = behind.clamp(max=0) * (before if tape.upper_at is None else before - tape.upper_at)
            self._upper.gradient = self.relaxation.along(gradient, tape.upper, False)
        return self._follow(coeff, before, tape)

    def learn(self, lower: Tensor, upper: Tensor) -> None:
        """Take gradients with respect to both slopes, where it was not this step that crossed the activation."""
        for parameter, gradient, slope, below in (
            (self._lower, lower, self._lines.lower, True),
            (self._upper, upper, self._lines.upper, False),
        ):
            if parameter is not None:
                parameter.gradient = self.relaxation.along(gradient, slope, below)

    def slopes_at(self, places: Tensor, coeff: Tensor) -> Tensor:
        lower, upper = (columns(t, places) for t in (self._lines.lower, self._lines.upper))
        return torch.lerp(upper, lower, _positive(coeff))

    def add_gradient(self, places: Tensor, coeff: Tensor, along: Tensor) -> None:
        positive = _positive(coeff)
        for parameter, share in ((self._lower, positive), (self._upper, 1 - positive)):
            if parameter is not None and parameter.gradient is not None:
                parameter.gradient.flatten(2).index_add_(2, places, (along * share).transpose(1, 2))

    def _refreshed(self) -> Lines:
        """The lines of the slopes as they are now, recomputing only what changes when slopes are optimised."""
        old = self._lines
        if self._upper is not None or (self._lower is not None and old.below is not None):
            return self.relaxation.lines(old.lower, old.upper)
        return old

    def _follow(self, coeff: Tensor, q: Tensor, lines: Lines) -> Tensor:
        """The point on the line that the sign of the coefficient chose."""
        positive = _positive(coeff)
        if self.relaxation.reduces:
            along = (torch.lerp(lines.upper, lines.lower, positive.unsqueeze(-1)) * q).sum(-1)
        else:
            along = torch.lerp(lines.upper, lines.lower, positive).mul_(q)
        below = lines.above.new_zeros(()) if lines.below is None else -lines.below
        return along.add_(torch.lerp(lines.above, below, positive))


def slope_choices(relaxation: Triangle, entries: Tensor, lower: Tensor, upper: Tensor) -> Choices:
    """Slopes of lower lines, `(queries, m)`, and of upper ones, `(m,)`, of the undecided neurons `entries`."""
    slopes = relaxation.fractions(lower).to(torch.uint8).cpu().numpy()
    return Choices(entries.to(torch.int32).cpu().numpy(), slopes, upper.float().cpu().numpy())


def columns(x: Tensor, places: Tensor) -> Tensor:
    """Entries of `(1, queries, *shape)` with the queries last: `(1, m, queries)`."""
    return x.flatten(2).index_select(2, places).transpose(1, 2).contiguous()


def _positive(coeff: Tensor) -> Tensor:
    """A mask of floats: `where` is ten times slower than arithmetic with one."""
    return torch.gt(coeff, 0, out=torch.empty_like(coeff))


Witness = dict[int, Step]


def over(witness: Mapping[int, Step], bounds: LayerBounds) -> Witness:
    """The same witness over other bounds of the same network, or in another type."""
    return {i: step.over(bounds, i) for i, step in witness.items()}


def choices(
    witness: Mapping[int, Step], region: int = 0, tapes: Mapping[int, Any] = MappingProxyType({})
) -> dict[int, Choices]:
    """What the steps of a witness chose for all queries of one region of a batch, with the tapes of their evaluation,
    which those without groups need not."""
    return {i: step.choices(region, tapes.get(i)) for i, step in witness.items()}


def by_rule(bounds: LayerBounds, rule: Rule) -> Witness:
    """The lines of a closed-form rule at every activation bounded so far, shared by all queries."""
    steps: Witness = {}
    for i, relaxation in bounds.relaxations.items():
        lines = relaxation.lines_by(rule)
        steps[i] = Single(relaxation, lines.lower, lines.upper, lines)
    return steps
