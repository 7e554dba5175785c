"""Regions of inputs, batched over images: boxes and Lp balls cut by a box.

A region answers two questions: its bounding box, and the minimum of a linear form over it (its support function).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from krelax.errors import InputError


@dataclass(frozen=True, eq=False)
class Region(ABC):
    """A set of inputs for every image of a batch; `lower` and `upper`, `(batch, *shape)`, are its bounding box."""

    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        if self.lower.shape != self.upper.shape or not self.lower.dim():
            shapes = f"{tuple(self.lower.shape)} and {tuple(self.upper.shape)}"
            raise InputError(f"lower and upper bounds of shapes {shapes}; give both as (batch, *input_shape)")
        for end in (self.lower, self.upper):
            if end.is_complex() or not (end.is_floating_point() or bool((end.long().abs() <= _WHOLE).all())):
                raise InputError("regions of complex numbers or integers beyond 2**53 are not supported; give float64")
            if bool(end.isnan().any()):
                raise InputError("some bound of the region is not a number; check the inputs")

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def magnitude(self) -> Tensor:
        """Largest absolute value of each input, `(batch, *shape)`."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    @abstractmethod
    def minimise(self, form: Tensor, slack: float = 0.0) -> Tensor:
        """Lower bound of `<form, x>`, `(batch | 1, queries, *shape) -> (batch, queries)`; exact up to rounding for
        boxes and balls, the better of the two for their intersection. `slack * <|form|, magnitude + FLOOR>` is
        subtracted on the way, which costs less than doing it after. With a slack of `gamma` of twice the number of
        inputs it pays for all relative errors of this very computation; what products lose that underflow is the
        caller's to charge. What overflows is not finite. Without slack the result only proposes."""

    @abstractmethod
    def minimiser(self, form: Tensor) -> Tensor:
        """Where `minimise` attains its value, `(batch, queries, *shape)`."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """A point of the region near `x`, `(batch, points, *shape)`; points inside stay where they are."""

    def moved(self, move: Callable[[Tensor], Tensor]) -> Self:
        """The same regions of inputs that are moved, repeated or left out, as a function of `(batch, *shape)` says."""
        return replace(self, lower=move(self.lower), upper=move(self.upper))

    def select(self, index: Tensor) -> Self:
        """The regions of some images."""
        return replace(self, lower=self.lower[index], upper=self.upper[index])

    def shaped(self, shape: tuple[int, ...]) -> Self:
        """The same regions of inputs of another shape, with as many entries."""
        return replace(self, lower=self.lower.reshape(-1, *shape), upper=self.upper.reshape(-1, *shape))

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Self:
        """The same regions in another type; not rounded outward, so only for proposing witnesses."""
        return replace(self, lower=self.lower.to(device, dtype), upper=self.upper.to(device, dtype))


# Added to magnitudes before they pay for rounding: a relative error of at least 32 units of it is more than what a
# thousand products lose that are too small for double precision. In single precision, which only proposes, it is zero.
FLOOR = 2.0**-960
# Larger integers than this float64 does not hold.
_WHOLE = 2**53
# From this many entries on, a matrix-vector product for each item is faster than a batched dot product.
_LONG = 256


def dot(form: Tensor, x: Tensor) -> Tensor:
    """`<form, x>` over everything but batch and queries: `(b | 1, q, *shape)`, `(b | 1, q | 1, *shape) -> (b, q)`."""
    flat, other = form.flatten(2), x.flatten(2)
    if len(flat) == other.shape[0] == other.shape[1] == 1:  # as in every search: half the time of a `vecdot`
        return flat @ other[0, 0]
    if other.shape[1] == 1 and len(flat) == len(other) and min(flat.shape[1] * 8, flat.shape[2]) >= _LONG:
        return torch.stack([matrix @ vector[0] for matrix, vector in zip(flat, other, strict=True)])
    return torch.linalg.vecdot(flat, other)


def middle(lower: Tensor, upper: Tensor) -> Tensor:
    """A point between the faces, about in the middle; none overflows in between."""
    return torch.add(lower / 2, upper, alpha=0.5).clamp(lower, upper)


def euclidean(flat: Tensor) -> Tensor:
    """Euclidean norms of rows, `(..., n) -> (..., 1)`: within `n + 8` units of rounding of the exact ones; infinite or
    not a number only where entries are, or where the norm itself overflows."""
    length = torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
    least = torch.finfo(flat.dtype).tiny ** 0.45
    if not length.numel():
        return length
    low, high = length.aminmax()
    if float(low) > least and float(high) < 1 / least:  # squares that underflow are too small to matter
        return length
    unsure = ~((length > least) & (length < 1 / least))[..., 0]
    rows = flat[unsure]
    largest = torch.linalg.vector_norm(rows, ord=torch.inf, dim=-1, keepdim=True)
    size = torch.where((largest > 0) & (largest < torch.inf), largest, 1.0)
    length[unsure] = torch.linalg.vector_norm(rows / size, dim=-1, keepdim=True) * size
    return length


def bounding(values: Tensor) -> Tensor:
    """Lower bounds as they count: what is not a number, or has overflowed to either side, is none, minus infinity."""
    return torch.nan_to_num(values, nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)


def _dot(form: Tensor, x: Tensor) -> Tensor:
    return dot(form, x.unsqueeze(1))


@dataclass(frozen=True, eq=False)
class Box(Region):
    """`lower <= x <= upper`, elementwise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool((self.lower > self.upper).any()):
            raise InputError("empty region: some lower bound exceeds its upper bound; check the range of the inputs")

    @cached_property
    def halves(self) -> tuple[Tensor, Tensor]:
        """A centre and a radius that reaches both faces, but for its rounding, `(batch, *shape)`."""
        centre = middle(self.lower, self.upper)
        return centre, torch.maximum(self.upper - centre, centre - self.lower)

    def minimise(self, form: Tensor, slack: float = 0.0) -> Tensor:
        centre, radius = self.halves
        if slack:
            radius = radius + slack * (self.magnitude + FLOOR)
        return _dot(form, centre) - _dot(form.abs(), radius)

    def minimiser(self, form: Tensor) -> Tensor:
        centre, radius = self.halves
        step = torch.copysign(radius.unsqueeze(1), form)
        return torch.sub(centre.unsqueeze(1), step, out=step)

    def project(self, x: Tensor) -> Tensor:
        return x.clamp(self.lower.unsqueeze(1), self.upper.unsqueeze(1))


@dataclass(frozen=True, eq=False)
class Ball(Region):
    """`||x - centre||_p <= eps` with p = 1 or 2, intersected with `lower <= x <= upper`.

    A linear form is bounded by the better of the box and, through the dual norm, the ball.
    """

    centre: Tensor
    eps: float
    p: int

    @property
    def magnitude(self) -> Tensor:
        return torch.maximum(super().magnitude, self.centre.abs() + self.eps)

    def _by_ball(self, form: Tensor, dual: Tensor) -> Tensor:
        """The bound of the ball alone, for forms of dual norms `(batch, queries, 1)`."""
        return _dot(form, self.centre) - self.eps * dual[..., 0]

    def _dual(self, form: Tensor) -> Tensor:
        """Dual norms of forms, `(batch | 1, queries, 1)`."""
        flat = form.flatten(2)
        return euclidean(flat) if self.p == 2 else torch.linalg.vector_norm(flat, ord=torch.inf, dim=2, keepdim=True)

    @cached_property
    def _box(self) -> Box:
        return Box(self.lower, self.upper)

    def minimise(self, form: Tensor, slack: float = 0.0) -> Tensor:
        by_ball, by_box = self._by_ball(form, self._dual(form)), self._box.minimise(form)
        if not slack:
            return torch.maximum(by_ball, by_box)
        # what overflows in one of the two leaves the other
        best = torch.maximum(bounding(by_ball), bounding(by_box))
        return best - slack * _dot(form.abs(), self.magnitude + FLOOR)

    def minimiser(self, form: Tensor) -> Tensor:
        flat, dual = form.flatten(2), self._dual(form)
        if self.p == 2:
            step = flat / torch.where(dual > 0, dual, 1.0)
        else:
            place = flat.abs().argmax(2, keepdim=True)
            step = torch.zeros_like(flat).scatter_(2, place, flat.gather(2, place).sign())
        in_ball = self.centre.unsqueeze(1) - self.eps * step.unflatten(2, form.shape[2:])
        tighter = self._by_ball(form, dual) >= self._box.minimise(form)
        choose = tighter.reshape(*tighter.shape, *[1] * (form.dim() - 2))
        return torch.where(choose, in_ball, self._box.minimiser(form))

    def project(self, x: Tensor) -> Tensor:
        inside = self._box.project(x)
        step = (inside - self.centre.unsqueeze(1)).flatten(2)
        length = euclidean(step) if self.p == 2 else torch.linalg.vector_norm(step, ord=1, dim=2, keepdim=True)
        # moving towards the centre, which lies in the box, leaves neither the box nor the ball
        step = step * torch.where(length > 0, self.eps * (1 - 1e-6) / length, 1.0).clamp(max=1.0)
        return self.centre.unsqueeze(1) + step.unflatten(2, x.shape[2:])

    def moved(self, move: Callable[[Tensor], Tensor]) -> Self:
        return replace(super().moved(move), centre=move(self.centre))

    def select(self, index: Tensor) -> Self:
        return replace(super().select(index), centre=self.centre[index])

    def shaped(self, shape: tuple[int, ...]) -> Self:
        return replace(super().shaped(shape), centre=self.centre.reshape(-1, *shape))

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Self:
        return replace(super().to(dtype, device), centre=self.centre.to(device, dtype))


def ball(centre: Tensor, eps: float, norm: str = "linf", clip: tuple[float, float] | None = (0.0, 1.0)) -> Region:
    """The inputs within a distance of a centre.

    Args:
        centre: The centres, `(batch, *shape)`, of any real type.
        eps: The distance, on the scale of the inputs.
        norm: `linf`, `l2` or `l1`.
        clip: The range of values of an input; None for no range.

    Returns:
        The regions, in float64 whatever type the centres have: nothing of a ball is lost where its faces are rounded.

    Raises:
        InputError: The eps is negative or not finite, the norm unknown, or centres are no finite real numbers or lie
            outside the range.
    """
    if not 0 <= eps < float("inf"):
        raise InputError(f"eps must be a finite number >= 0, got {eps}")
    if norm not in {"linf", "l2", "l1"}:
        raise InputError(f"unknown norm {norm!r}: use linf, l2 or l1")
    centre, eps = _finite(centre), -_below(-eps)
    # outward, so that rounding never makes the region smaller than the ball
    lower, upper = (
        torch.nextafter(end, end.new_tensor(far))
        for end, far in ((centre - eps, -torch.inf), (centre + eps, torch.inf))
    )
    if clip is not None:
        least, most = -_below(-clip[0]), _below(clip[1])
        if not bool(((centre >= least) & (centre <= most)).all()):
            raise InputError(f"inputs lie outside the range {list(clip)}: scale them, or give another range")
        lower, upper = lower.clamp(min=_below(clip[0])), upper.clamp(max=-_below(-clip[1]))
    return Box(lower, upper) if norm == "linf" else Ball(lower, upper, centre, eps, 2 if norm == "l2" else 1)


def _finite(centre: Tensor) -> Tensor:
    """The same points in float64."""
    if not isinstance(centre, Tensor) or centre.is_complex():
        raise InputError("the centre of a ball must be a tensor of real numbers, (batch, *input_shape)")
    if not centre.is_floating_point() and bool((centre.long().abs() > _WHOLE).any()):
        raise InputError("centres of integers beyond 2**53 are not supported; give float64")
    if not bool(centre.isfinite().all()):
        raise InputError("some centre is infinite or not a number; check the inputs")
    return centre.detach().double()


def _below(number: float) -> float:
    """The number, or the float64 next to it from below where it is none: a fraction, or a large integer."""
    near = float(number)
    return math.nextafter(near, -math.inf) if near > number else near
