"""An image that is transformed: every pixel as a function of a few parameters, between two parallel planes.

Over a box of parameters the plane of a pixel is fitted to its values at points of a grid. How far the pixel may be
from the plane is bounded on each of the boxes that the grid cuts the box into, by the mean value theorem: values at the
centre, and the derivatives that the pixel may have there, all in intervals (`krelax.activations.spans`). So planes are
as tight as the grid is fine, and become exact, at a quadratic rate but at kinks, as boxes are cut (Balunovic et al.
2019 fit planes to samples, too, and bound how far they are off by Lipschitz constants).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from krelax.activations.base import Activation, Relaxation, Rule, Support
from krelax.activations.spans import Jet, Span, outward
from krelax.activations.transformations import Transformation, transformed
from krelax.activations.warp import Picture
from krelax.op import Shape
from krelax.watch import tick

# Into how many parts a box is cut along each parameter, by how many these are.
_PARTS = {1: 24, 2: 7, 3: 4, 4: 3}
# Pixels of so many parts are looked at together.
_AT_ONCE = 1 << 20
# Enclosing a pixel in a part takes as long as so many products.
_WORK = 5000
# For the rounding of a support value, relative to the parts that it is made of.
_ROUNDING = 2.0**-46


@dataclass(frozen=True, eq=False)
class Transformed(Activation):
    """Pixels of `picture`, `(channels, height, width)`, after `steps`; then up to `slack` beside that, in the range
    `ends`; and then up to `rounding` beside that, wherever it is.

    Its value is the transformed pixel, without slack, and its relaxation has all of it. The operand has the parameters
    for every pixel, `(channels, height, width, parameters)`, the same for all of them.
    """

    name = "transformed"
    published = True
    uniform = False
    work = 2000.0

    picture: Picture
    steps: tuple[Transformation, ...]
    ends: tuple[float, float] | None = None
    slack: float = 0.0
    rounding: float = 0.0

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0][:-1]

    def forward(self, *inputs: Tensor) -> Tensor:
        z = inputs[0].flatten(1, -2)[:, 0]
        parameters = [p.reshape(-1, 1, 1, 1) for p in z.unbind(-1)]
        found = transformed(self.steps, self.picture, parameters, self.ends)
        return found.expand(len(z), *inputs[0].shape[1:-1])

    def relax(self, lower: Tensor, upper: Tensor) -> Planes:
        return Planes(self, lower, upper)

    def over(self, lower: Tensor, upper: Tensor) -> Jet:
        """Enclosures of the pixels and of their derivatives over boxes of parameters, `(boxes, parameters)`."""
        count = lower.shape[1]
        sides = ([t[:, i].reshape(-1, 1, 1, 1) for i in range(count)] for t in (lower, upper))
        jets = [Jet.parameter(low, high, i, count) for i, (low, high) in enumerate(zip(*sides, strict=True))]
        return transformed(self.steps, self.picture, jets, self.ends)

    def near(self, found: Jet) -> tuple[Jet, Jet]:
        """The least and the largest that a pixel may be, given the transformed one, but for `rounding`."""
        if not self.slack:
            return found, found
        sides = found - self.slack, found + self.slack
        return sides if self.ends is None else (sides[0].clamp(*self.ends), sides[1].clamp(*self.ends))


class _Planes(NamedTuple):
    """`slope . (z - centre) + below <= a <= slope . (z - centre) + above`, and `low <= a <= high`."""

    centre: Tensor
    slope: Tensor
    below: Tensor
    above: Tensor
    low: Tensor
    high: Tensor


class Planes(Relaxation):
    """All between two parallel planes over a box of parameters."""

    reduces = True
    op: Transformed

    def __init__(self, op: Activation, lower: Tensor, upper: Tensor) -> None:
        super().__init__(op, lower, upper)
        faces = self.lower.flatten(1, -2).amin(1), self.upper.flatten(1, -2).amax(1)
        planes = _planes(self.op, *(t.double() for t in faces))
        self._planes = _Planes(*(t.to(lower) for t in planes))
        self._radius = torch.maximum(faces[1] - self._planes.centre, self._planes.centre - faces[0])

    def interval(self) -> tuple[Tensor, Tensor]:
        return self._planes.low, self._planes.high

    def unstable(self) -> Tensor:
        p = self._planes
        return (p.above > p.below).unsqueeze(-1).expand(self.lower.shape)

    def splits(self) -> None:
        return None

    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        p = self._planes
        middle, radius = (_pixels(t, self.lower).unsqueeze(1) for t in (p.centre, self._radius))
        rest = slope - coeff.unsqueeze(-1) * p.slope.unsqueeze(1)
        below, above = p.below.unsqueeze(1), p.above.unsqueeze(1)
        start = torch.where(coeff > 0, below, above)
        step = torch.where(rest >= 0, radius, -radius)
        value = (slope * middle).sum(-1) - coeff * start + (rest.abs() * radius).sum(-1)
        parts = (slope.abs() * (middle.abs() + radius)).sum(-1) + coeff.abs() * (
            start.abs() + (p.slope.abs().unsqueeze(1) * radius).sum(-1)
        )
        a = start + (p.slope.unsqueeze(1) * step).sum(-1)
        unit = _ROUNDING if value.dtype == torch.float64 else 0.0
        return Support(value + unit * parts, middle + step, a)

    def slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        slope = torch.zeros_like(self._planes.slope) if rule is Rule.ZERO else self._planes.slope
        return slope, slope

    def slope_range(self) -> tuple[Tensor, Tensor]:
        return self._planes.slope, self._planes.slope

    def facets(self) -> Iterator[tuple[bool, Tensor]]:
        for lower in (True, False):
            yield lower, self._planes.slope

    def losses(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        width, middle = (
            (self._planes.above - self._planes.below).unsqueeze(-1),
            _pixels(self._planes.centre, self.lower),
        )
        return (width.expand(self.lower.shape),) * 2, (middle.expand(self.lower.shape),) * 2


def _pixels(t: Tensor, like: Tensor) -> Tensor:
    """Parameters `(boxes, parameters)` with axes for pixels."""
    return t.reshape(len(t), *[1] * (like.dim() - 2), -1)


def _planes(op: Transformed, lower: Tensor, upper: Tensor) -> _Planes:
    """Of boxes `(boxes, parameters)`, few at a time."""
    parts = _PARTS.get(lower.shape[1], 2)
    room = max(1, _AT_ONCE // (op.picture.pixels.numel() * parts ** lower.shape[1]))
    found = [_fitted(op, low, high, parts) for low, high in zip(lower.split(room), upper.split(room), strict=True)]
    return _Planes(*(torch.cat(t) for t in zip(*found, strict=True)))


def _fitted(op: Transformed, lower: Tensor, upper: Tensor, parts: int) -> _Planes:
    """The planes of boxes, each cut into so many parts along each parameter."""
    boxes = len(lower)
    tick(_WORK * boxes * op.picture.pixels.numel() * parts ** lower.shape[1])
    first, last = _grid(lower, upper, parts)
    middle = (first / 2 + last / 2).clamp(first, last)
    radius = outward(middle, torch.maximum(last - middle, middle - first)).upper
    cells = middle.shape[1]

    def folded(jet: Jet) -> Jet:
        def fold(s: Span) -> Span:
            shape = (boxes * cells, *op.picture.pixels.shape)
            return Span(*(t.expand(shape).unflatten(0, (boxes, cells)) for t in (s.lower, s.upper)))

        return Jet(fold(jet.value), tuple(None if s is None else fold(s) for s in jet.slopes))

    whole = [folded(j) for j in op.near(op.over(first.flatten(0, 1), last.flatten(0, 1)))]
    points = [folded(j) for j in op.near(op.over(middle.flatten(0, 1), middle.flatten(0, 1)))]
    centre = (lower / 2 + upper / 2).clamp(lower, upper)
    step = middle - centre.unsqueeze(1)
    slope = _fit((points[0].value.lower + points[1].value.upper) / 2, step)
    below = _beside(whole[0], points[0], slope, step, radius)
    above = -_beside(-whole[1], -points[1], -slope, step, radius)
    planes, interval = (outward(low - op.rounding, high + op.rounding) for low, high in (
        (below, above), (whole[0].value.lower.amin(1), whole[1].value.upper.amax(1)),
    ))  # fmt: skip
    return _Planes(centre, slope, planes.lower, planes.upper, interval.lower, interval.upper)


def _grid(lower: Tensor, upper: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """The faces of all parts, `(boxes, parts ** parameters, parameters)`: neighbours share theirs."""
    count, share = lower.shape[1], torch.linspace(0, 1, parts + 1, dtype=lower.dtype, device=lower.device)
    faces = lower.unsqueeze(-1) + share * (upper - lower).unsqueeze(-1)
    faces = faces.clamp(lower.unsqueeze(-1), upper.unsqueeze(-1))
    faces[..., 0], faces[..., -1] = lower, upper
    place = torch.cartesian_prod(*[torch.arange(parts)] * count).reshape(-1, count).to(lower.device)
    axis = torch.arange(count, device=lower.device)
    return faces[:, axis, place], faces[:, axis, place + 1]


def _fit(values: Tensor, step: Tensor) -> Tensor:
    """Slopes of the planes nearest to values `(boxes, cells, *shape)` at a grid, `(boxes, *shape, parameters)`, in
    float32, in which certificates write slopes."""
    weight = step / step.square().sum(1, keepdim=True).clamp(min=torch.finfo(step.dtype).tiny)
    return torch.einsum("bc...,bcp->b...p", values, weight).float().double().nan_to_num(0.0, 0.0, 0.0)


def _beside(whole: Jet, points: Jet, slope: Tensor, step: Tensor, radius: Tensor) -> Tensor:
    """The least that pixels are above a plane through zero, `(boxes, *shape)`: rounded down."""
    dims = [1] * (slope.dim() - 2)
    by_mean, by_range = points.value.lower, whole.value.lower
    for i, derivative in enumerate(whole.slopes):
        s, m, r = slope[..., i].unsqueeze(1), *(t[..., i].reshape(*t.shape[:2], *dims) for t in (step, radius))
        least = torch.zeros_like(s) if derivative is None else derivative.lower
        most = torch.zeros_like(s) if derivative is None else derivative.upper
        off = torch.maximum((least - s).abs(), (most - s).abs()) * r
        by_mean = by_mean - s * m - torch.where(off.isnan(), torch.inf, off)
        by_range = by_range - s * m - s.abs() * r
    found = torch.fmax(by_mean, by_range).amin(1)
    size = points.value.magnitude.amax(1) + (
        slope.abs() * (step.abs() + radius).amax(1).reshape(len(step), *dims, -1)
    ).sum(-1)
    return found - _ROUNDING * (size + found.abs())
