"""Regions of inputs, batched over images: boxes and Lp balls cut by a box.

A region answers two questions: its bounding box, and the minimum of a linear form over it (its support function).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
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

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def magnitude(self) -> Tensor:
        """Largest absolute value of each input, `(batch, *shape)`."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    @abstractmethod
    def minimise(self, form: Tensor, slack: float = 0.0) -> Tensor:
        """Lower bound of `<form, x>`, `(batch | 1, queries, *shape) -> (batch, queries)`; exact up to rounding for
        boxes and balls, the better of the two for their intersection. `slack * <|form|, magnitude>` is subtracted
        on the way, which costs less than doing it after."""

    @abstractmethod
    def minimiser(self, form: Tensor) -> Tensor:
        """Where `minimise` attains its value, `(batch, queries, *shape)`."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """A point of the region near `x`, `(batch, points, *shape)`; points inside stay where they are."""

    def select(self, index: Tensor) -> Self:
        """The regions of some images."""
        return replace(self, lower=self.lower[index], upper=self.upper[index])

    def shaped(self, shape: tuple[int, ...]) -> Self:
        """The same regions of inputs of another shape, with as many entries."""
        return replace(self, lower=self.lower.reshape(-1, *shape), upper=self.upper.reshape(-1, *shape))

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Self:
        """The same regions in another type; not rounded outward, so only for proposing witnesses."""
        return replace(self, lower=self.lower.to(device, dtype), upper=self.upper.to(device, dtype))


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


def _dot(form: Tensor, x: Tensor) -> Tensor:
    return dot(form, x.unsqueeze(1))


@dataclass(frozen=True, eq=False)
class Box(Region):
    """`lower <= x <= upper`, elementwise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool((self.lower > self.upper).any()):
            raise InputError("empty region: some lower bound exceeds its upper bound; check the range of the inputs")

    def minimise(self, form: Tensor, slack: float = 0.0) -> Tensor:
        centre = (self.lower + self.upper) / 2
        radius = torch.maximum(self.upper - centre, centre - self.lower) + slack * self.magnitude
        return _dot(form, centre) - _dot(form.abs(), radius)

    def minimiser(self, form: Tensor) -> Tensor:
        centre, radius = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2
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

    def _radius(self) -> float:
        return self.eps * (1 + 4 * torch.finfo(self.centre.dtype).eps)

    def _by_ball(self, form: Tensor) -> Tensor:
        dual = torch.linalg.vector_norm(form.flatten(2), ord=2 if self.p == 2 else torch.inf, dim=2)
        return _dot(form, self.centre) - self._radius() * dual

    def _box(self) -> Box:
        return Box(self.lower, self.upper)

    def minimise(self, form: Tensor, slack: float = 0.0) -> Tensor:
        best = torch.maximum(self._by_ball(form), self._box().minimise(form))
        return best - slack * _dot(form.abs(), self.magnitude) if slack else best

    def minimiser(self, form: Tensor) -> Tensor:
        flat = form.flatten(2)
        if self.p == 2:
            step = flat / torch.linalg.vector_norm(flat, dim=2, keepdim=True).clamp(min=1e-30)
        else:
            place = flat.abs().argmax(2, keepdim=True)
            step = torch.zeros_like(flat).scatter_(2, place, flat.gather(2, place).sign())
        in_ball = self.centre.unsqueeze(1) - self.eps * step.unflatten(2, form.shape[2:])
        box = self._box()
        tighter = self._by_ball(form) >= box.minimise(form)
        choose = tighter.reshape(*tighter.shape, *[1] * (form.dim() - 2))
        return torch.where(choose, in_ball, box.minimiser(form))

    def project(self, x: Tensor) -> Tensor:
        inside = self._box().project(x)
        step = (inside - self.centre.unsqueeze(1)).flatten(2)
        norm = torch.linalg.vector_norm(step, ord=self.p, dim=2, keepdim=True)
        # moving towards the centre, which lies in the box, leaves neither the box nor the ball
        step = step * (self.eps * (1 - 1e-6) / norm.clamp(min=1e-30)).clamp(max=1.0)
        return self.centre.unsqueeze(1) + step.unflatten(2, x.shape[2:])

    def select(self, index: Tensor) -> Self:
        return replace(super().select(index), centre=self.centre[index])

    def shaped(self, shape: tuple[int, ...]) -> Self:
        return replace(super().shaped(shape), centre=self.centre.reshape(-1, *shape))

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Self:
        return replace(super().to(dtype, device), centre=self.centre.to(device, dtype))


def ball(centre: Tensor, eps: float, norm: str = "linf", clip: tuple[float, float] | None = (0.0, 1.0)) -> Region:
    """The inputs within `eps` of `centre`, `(batch, *shape)`, in norm `linf`, `l2` or `l1`, clipped to a range.

    Raises InputError for an eps that is negative or not finite, an unknown norm, and centres outside the range.
    """
    if not 0 <= eps < float("inf"):
        raise InputError(f"eps must be a finite number >= 0, got {eps}")
    if norm not in {"linf", "l2", "l1"}:
        raise InputError(f"unknown norm {norm!r}: use linf, l2 or l1")
    # outward, so that rounding never makes the region smaller than the ball
    lower, upper = (
        torch.nextafter(end, end.new_tensor(far))
        for end, far in ((centre - eps, -torch.inf), (centre + eps, torch.inf))
    )
    if clip is not None:
        if bool(((centre < clip[0]) | (centre > clip[1])).any()):
            raise InputError(f"inputs lie outside the range {list(clip)}: scale them, or give another range")
        lower, upper = lower.clamp(min=clip[0]), upper.clamp(max=clip[1])
    return Box(lower, upper) if norm == "linf" else Ball(lower, upper, centre, eps, 2 if norm == "l2" else 1)
