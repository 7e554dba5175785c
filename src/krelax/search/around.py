"""Regions around images, exactly as they are asked about: what is in them, and what encloses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.elements import Elements
from krelax.errors import InputError, UnsupportedError
from krelax.problem.exact import Floats, Limit, Numbers, enclosure, within
from krelax.problem.region import Ball, Box, Region, ball
from krelax.problem.scaling import Scaling

Number = float | Fraction
# One radius for all inputs, or one for each.
Radius = Fraction | tuple[Fraction, ...]
_POWERS = {"l1": 1, "l2": 2}

# Boxes of so many questions are remembered, which are asked for again and again while one is being searched.
_REMEMBERED = 64


@dataclass(frozen=True, eq=False)
class Around:
    """The inputs of a model within a radius of each of some images, and in a range.

    `images`, `(n, *shape)`, are float32, on the scale of pixels: the model is given what `scaling` makes of that (None:
    the pixels themselves). `radii` has a radius for each image. Those of `linf` may differ from input to input. Raises
    InputError for images that are not in the range, and balls that are none for the model.
    """

    images: NDArray[np.float32]
    radii: tuple[Radius, ...]
    norm: str = "linf"
    ends: tuple[Fraction, Fraction] | None = None
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        for radius in set(self.radii):
            self._check(radius)
        if self.norm != "linf" and self.scaling is not None and self.scaling.uniform is None:
            raise UnsupportedError(
                f"{self.norm} balls of pixels are ellipsoids for a model whose channels have different stds; "
                "give one std, or --norm linf"
            )
        if self.norm != "linf" and self.norm not in _POWERS:
            raise InputError(f"unknown norm {self.norm!r}: use linf, l2 or l1")

    def _check(self, radius: Radius) -> None:
        several = isinstance(radius, tuple)
        if several and self.norm != "linf":
            raise InputError(f"radii of their own for inputs need the norm linf, not {self.norm}")
        if isinstance(radius, tuple) and len(radius) != self.images[0].size:
            raise InputError(f"{len(radius)} radii for {self.images[0].size} inputs; give one for each, or one for all")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return self.images.shape[1:]

    def given(self) -> NDArray[Any]:
        """What the model is given for the images themselves, `(n, *shape)`, in float32."""
        return self.images if self.scaling is None else self.scaling.nearest(self.images, self.shape)

    def region(self) -> Region:
        """An enclosure of the regions, in the model's inputs."""
        limits = self._range()
        scalar = self.radii[0]
        centre = torch.tensor(self.images, dtype=torch.float64)
        if self.scaling is None and isinstance(scalar, Fraction) and all(r == scalar for r in self.radii):
            return ball(centre, outward(scalar, up=True), self.norm, limits)
        lower, upper = self._pixels_outward(limits)
        if self.scaling is not None:
            lower, upper = self.scaling.outward(lower, upper, self.shape)
        box = Box(torch.from_numpy(lower), torch.from_numpy(upper))
        return box if self.norm == "linf" else self._ball(box)

    def _pixels_outward(self, limits: tuple[float, float] | None) -> tuple[Floats, Floats]:
        """Float64 numbers around the pixels that are asked about."""
        pixels = self.images.astype(np.float64)
        steps = np.stack([np.broadcast_to(self._reach(r), self.shape) for r in self.radii])
        lower, upper = np.nextafter(pixels - steps, -np.inf), np.nextafter(pixels + steps, np.inf)
        return (lower, upper) if limits is None else (np.maximum(lower, limits[0]), np.minimum(upper, limits[1]))

    def _reach(self, radius: Radius) -> Floats:
        """A radius rounded up, as an array that fits one image."""
        if isinstance(radius, Fraction):
            return np.array(outward(radius, up=True))
        return enclosure([Limit.of(r) for r in radius]).up.reshape(self.shape)

    def _ball(self, box: Box) -> Region:
        """Balls in a box, of one radius: around the nearest float64 centres, larger by how far these may be off."""
        assert isinstance(self.radii[0], Fraction)
        if any(radius != self.radii[0] for radius in self.radii):
            raise UnsupportedError(f"{self.norm} balls of several radii at a time; ask about one radius")
        std = Fraction(1) if self.scaling is None or self.scaling.uniform is None else self.scaling.uniform
        pixels = self.images.astype(np.float64)
        low, high = (pixels, pixels) if self.scaling is None else self.scaling.outward(pixels, pixels, self.shape)
        centre = np.clip(low / 2 + high / 2, box.lower.numpy(), box.upper.numpy())
        off = float((high - low).reshape(len(low), -1).sum(1).max()) * (1 + 1e-9)  # no norm is more than the sum
        eps = outward(self.radii[0] / std + Fraction(off), up=True)
        return Ball(box.lower, box.upper, torch.from_numpy(centre), eps, _POWERS[self.norm])

    def _range(self) -> tuple[float, float] | None:
        """The range of pixels, rounded outward. Raises InputError for images that are not in it."""
        if self.ends is None:
            return None
        least, most = outward(self.ends[0], up=True), outward(self.ends[1], up=False)
        pixels = self.images.astype(np.float64)
        outside = (pixels < least) | (pixels > most)
        if bool(outside.any()):
            shown = [float(end) for end in self.ends]
            first = int(np.argwhere(outside)[0][0])
            found = float(pixels[first][outside[first]][0])
            raise InputError(
                f"inputs lie outside the range {shown} (image {first} has {found:.6g}): scale them, "
                "or give another range"
            )
        return outward(self.ends[0], up=False), outward(self.ends[1], up=True)

    def _box_of(self, i: int) -> tuple[Floats, Floats]:
        """The least and the largest float64 inputs whose pixels are within the radius of image i, and the range."""
        radius, size = self.radii[i], self.images[i].size
        channels = np.zeros(self.shape, int) if self.scaling is None else self.scaling.channels(self.shape)
        step = np.arange(size) if isinstance(radius, tuple) else np.zeros(size, int)
        values, code = np.unique(self.images[i], return_inverse=True)
        count = int(channels.max(initial=0)) + 1
        codes, place = np.unique(
            (step * len(values) + code.reshape(-1)) * count + channels.flatten(), return_inverse=True
        )
        sides: list[list[Fraction]] = [[], []]
        for number in codes.tolist():
            pixel, channel = Fraction(float(values[number // count % len(values)])), number % count
            eps = radius[number // count // len(values)] if isinstance(radius, tuple) else radius
            low, high = pixel - eps, pixel + eps
            if self.ends is not None:
                low, high = max(low, self.ends[0]), min(high, self.ends[1])
            mean, std = (Fraction(0), Fraction(1)) if self.scaling is None else self.scaling.numbers(channel)
            sides[0].append((low - mean) / std)
            sides[1].append((high - mean) / std)
        least, most = (enclosure([Limit.of(v) for v in side]) for side in sides)
        return least.up[place].reshape(self.shape), most.down[place].reshape(self.shape)

    @cached_property
    def box(self) -> Callable[[int], tuple[Floats, Floats]]:
        """The least and the largest float64 numbers of region i."""
        return lru_cache(_REMEMBERED)(self._box_of)

    def contains(self, i: int, x: NDArray[Any]) -> bool:
        """Whether a model's input is in region i, decided exactly."""
        least, most = self.box(i)
        return bool(((least <= x) & (x <= most)).all()) and (self.norm == "linf" or self._within(i, x))

    def _within(self, i: int, x: NDArray[Any]) -> bool:
        radius, p = self.radii[i], _POWERS[self.norm]
        assert isinstance(radius, Fraction)
        if self.scaling is None:
            return within(x, self.images[i], radius, p)
        steps = [abs(step) for step in self.steps(i, x)]
        return sum(steps) <= radius if p == 1 else sum(step * step for step in steps) <= radius * radius

    def steps(self, i: int, x: NDArray[Any]) -> list[Fraction]:
        """By how much the pixels of a model's input differ from those of image i, exactly."""
        own = [Fraction(v) for v in self.images[i].flatten().tolist()]
        given = [Fraction(v) for v in x.flatten().tolist()]
        if self.scaling is None:
            return [a - b for a, b in zip(given, own, strict=True)]
        numbers = [self.scaling.numbers(c) for c in range(self.scaling.count)]
        places = self.scaling.channels(self.shape).flatten().tolist()
        return [a * numbers[c][1] + numbers[c][0] - b for a, b, c in zip(given, own, places, strict=True)]

    def nearest(self, i: int, x: Floats, elements: Elements) -> NDArray[Any] | None:
        """A point of region i near x, in the types of inputs; None where its box holds none."""
        numbers = Numbers.of(*self.box(i), elements)
        point = numbers.nearest(x)
        if point is None or self.norm == "linf" or self.contains(i, point):
            return point
        radius = self.radii[i]
        assert isinstance(radius, Fraction)
        std = None if self.scaling is None else self.scaling.uniform
        return numbers.nearest(self._towards(i, x, float(radius / (std or 1)), elements))

    def _towards(self, i: int, x: Floats, radius: float, elements: Elements) -> Floats:
        """A point of the ball near `x`, of numbers of these types: moved towards the centre, which is in the box as
        well, and rounded towards it, so that no step grows."""
        centre = self.images[i].astype(np.float64)
        if self.scaling is not None:
            low, high = self.scaling.outward(centre[None], centre[None], self.shape)
            centre = (low / 2 + high / 2)[0]
        step = x - centre
        norm = float(np.linalg.norm(step.flatten(), ord=_POWERS[self.norm]))
        aim = centre + step * min(1.0, radius * (1 - 1e-9) / norm if norm > 0 else 0.0)
        near = elements.rounded(aim, "nearest")
        too_far = np.abs(near - centre) > np.abs(aim - centre)
        closer = np.where(aim > centre, elements.rounded(aim, "down"), elements.rounded(aim, "up"))
        return np.where(too_far, closer, near)


def exact(number: Number) -> Fraction:
    """A number as it is: a float is its binary value."""
    return number if isinstance(number, Fraction) else Fraction(float(number))


def outward(number: Fraction, up: bool) -> float:
    """The float64 next to a number, on one side."""
    found = enclosure([Limit.of(number)])
    return float((found.up if up else found.down)[0])


def radii_of(eps: Number | Sequence[Number], count: int) -> tuple[Radius, ...]:
    """The radius of each of so many images, the same for all. Raises InputError for one that is none."""
    numbers = eps if isinstance(eps, Sequence) else (eps,)
    for number in numbers:
        if not 0 <= number < float("inf"):
            raise InputError(f"eps must be a finite number >= 0, got {float(number)}")
    found = tuple(map(exact, numbers))
    return (found if isinstance(eps, Sequence) else found[0],) * count
