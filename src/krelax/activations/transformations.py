"""Transformations of images: what every pixel becomes, as a function of a few parameters.

Each is written once, for numbers (`Tensor`) and for intervals with derivatives (`Jet`) alike. Images are `(points,
channels, height, width)`, parameters `(points, 1, 1, 1)`. Those of places come first: rows and columns of the pixels'
centres are counted from the centre of the image, rows downwards, and the new image has at a place what the old one has
where the place comes from. Several are one map of places, so the image is interpolated once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, pi
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from krelax.activations.spans import Jet, Span
from krelax.activations.warp import Picture

N = TypeVar("N", Tensor, Jet)

# Pi over 180, enclosed: the division is rounded.
_DEGREE = Span(*(torch.tensor(pi / 180 * (1 + s * 2.0**-50), dtype=torch.float64) for s in (-1, 1)))
# What a colour is worth as a grey one (ITU-R BT.601).
_GREY = (0.299, 0.587, 0.114)


class Transformation(ABC):
    """One transformation; `parameters` are the names of its parameters, `usual` their values where it does nothing."""

    parameters: ClassVar[tuple[str, ...]]
    usual: ClassVar[float] = 0.0
    of_places: ClassVar[bool] = False


class OfPlaces(Transformation):
    """One that moves places."""

    of_places = True

    @abstractmethod
    def source(self, x: N, y: N, p: Sequence[N]) -> tuple[N, N]:
        """Where in the old image the place `(x, y)` of the new one comes from: to the right, and down."""


class OfValues(Transformation):
    """One that changes values; the result is moved into the range of values, if there is one."""

    @abstractmethod
    def apply(self, image: N, p: Sequence[N], original: Tensor) -> N:
        """The new image, from one that may be transformed already, and the one that all began with."""


@dataclass(frozen=True)
class Rotate(OfPlaces):
    """By an angle in degrees, counterclockwise."""

    parameters = ("angle",)

    def source(self, x: N, y: N, p: Sequence[N]) -> tuple[N, N]:
        angle = _degrees(p[0])
        cos, sin = angle.cos(), angle.sin()
        return cos * x - sin * y, sin * x + cos * y


@dataclass(frozen=True)
class Translate(OfPlaces):
    """By so many pixels to the right, and down."""

    parameters = ("right", "down")

    def source(self, x: N, y: N, p: Sequence[N]) -> tuple[N, N]:
        return x - p[0], y - p[1]


@dataclass(frozen=True)
class TranslateX(OfPlaces):
    """By so many pixels to the right."""

    parameters = ("right",)

    def source(self, x: N, y: N, p: Sequence[N]) -> tuple[N, N]:
        return x - p[0], y


@dataclass(frozen=True)
class TranslateY(OfPlaces):
    """By so many pixels down."""

    parameters = ("down",)

    def source(self, x: N, y: N, p: Sequence[N]) -> tuple[N, N]:
        return x, y - p[0]


@dataclass(frozen=True)
class Scale(OfPlaces):
    """By a factor: larger than one makes what is shown larger."""

    parameters, usual = ("factor",), 1.0

    def source(self, x: N, y: N, p: Sequence[N]) -> tuple[N, N]:
        inverse = p[0].reciprocal()
        return x * inverse, y * inverse


@dataclass(frozen=True)
class Shear(OfPlaces):
    """Rows move to the right by so much of how far they are below the centre."""

    parameters = ("shear",)

    def source(self, x: N, y: N, p: Sequence[N]) -> tuple[N, N]:
        return x - p[0] * y, y


@dataclass(frozen=True)
class Brightness(OfValues):
    """A number is added to all values."""

    parameters = ("brightness",)

    def apply(self, image: N, p: Sequence[N], original: Tensor) -> N:
        return image + p[0]


@dataclass(frozen=True)
class Contrast(OfValues):
    """Differences from the mean value of the original image are multiplied."""

    parameters, usual = ("contrast",), 1.0

    def apply(self, image: N, p: Sequence[N], original: Tensor) -> N:
        mean = float(original.double().mean())
        return (image - mean) * p[0] + mean


@dataclass(frozen=True)
class Saturation(OfValues):
    """Differences of the three colours from the grey of the pixel are multiplied."""

    parameters, usual = ("saturation",), 1.0

    def apply(self, image: N, p: Sequence[N], original: Tensor) -> N:
        parts = [_channel(image, i) * _GREY[i] for i in range(3)]
        grey = parts[0] + parts[1] + parts[2]
        return (image - grey) * p[0] + grey


@dataclass(frozen=True)
class Gamma(OfValues):
    """Values, from 0 to 1, are raised to a power."""

    parameters, usual = ("gamma",), 1.0

    def apply(self, image: N, p: Sequence[N], original: Tensor) -> N:
        return _power(image, p[0])


@dataclass(frozen=True)
class Blur(OfValues):
    """A Gaussian of `2 * reach + 1` pixels along either axis. The parameter is the weight of a neighbour, with that of
    the pixel itself for one: of one at distance d it is the power d * d. For a standard deviation s it is
    `exp(-1 / (2 s s))`. Outside of the image all is zero."""

    reach: int
    parameters = ("blur",)

    def apply(self, image: N, p: Sequence[N], original: Tensor) -> N:
        powers = [p[0]]
        for distance in range(2, self.reach + 1):
            square = powers[-1]
            for _ in range(2 * distance - 1):
                square = square * p[0]
            powers.append(square)
        total = p[0] * 2.0 + 1.0
        for power in powers[1:]:
            total = total + power * 2.0
        inverse = total.reciprocal()
        for axis in (2, 3):
            blurred = image
            for distance, power in enumerate(powers, start=1):
                blurred = blurred + (_moved(image, axis, distance) + _moved(image, axis, -distance)) * power
            image = blurred * inverse
        return image


def _degrees(angle: N) -> N:
    """Degrees in radians."""
    return angle.times(_DEGREE) if isinstance(angle, Jet) else angle * (pi / 180)


def _channel(image: N, number: int) -> N:
    """One channel."""

    def move(t: Tensor) -> Tensor:
        return t[:, number : number + 1]

    return image.moved(move) if isinstance(image, Jet) else move(image)


def _moved(image: N, axis: int, by: int) -> N:
    """The image moved along an axis, with zeros behind it."""

    def move(t: Tensor) -> Tensor:
        size = t.shape[axis]
        if abs(by) >= size:
            return torch.zeros_like(t)
        zeros = torch.zeros_like(t.narrow(axis, 0, abs(by)))
        kept = t.narrow(axis, max(0, -by), size - abs(by))
        return torch.cat([zeros, kept] if by > 0 else [kept, zeros], axis)

    return image.moved(move) if isinstance(image, Jet) else move(image)


def _power(image: N, exponent: N) -> N:
    """Values of at least zero to a positive power: `exp(exponent * log(value))`, and zero of zero."""
    if isinstance(image, Tensor):
        assert isinstance(exponent, Tensor)
        base = image.clamp(min=torch.finfo(image.dtype).tiny)
        return torch.where(image > 0, base**exponent, image * 0.0)
    assert isinstance(exponent, Jet)
    base = image.value.clamp(0.0, torch.inf)
    logs = base.rising(torch.log)  # minus infinity of zero
    value = (exponent.value * logs).rising(torch.exp)
    value = Span(torch.where(base.lower == 0, 0.0, value.lower), torch.where(base.upper == 0, 0.0, value.upper))
    by_base = exponent.value * ((exponent.value - Span.of(1.0)) * logs).rising(torch.exp)
    by_exponent = _entropy(base, exponent.value)
    slopes = []
    for through_base, through_exponent in zip(image.slopes, exponent.slopes, strict=True):
        first = None if through_base is None else through_base * by_base
        second = None if through_exponent is None else through_exponent * by_exponent
        slopes.append(second if first is None else first if second is None else first + second)
    return Jet(value, tuple(slopes))


def _entropy(base: Span, exponent: Span) -> Span:
    """`base ** exponent * log(base)`, the derivative of a power by its exponent, for bases of at least zero: it falls
    from zero down to `-1 / (e * exponent)` at `exp(-1 / exponent)`, and rises from there."""
    low = torch.zeros_like(base.lower + exponent.lower)
    high = low - torch.inf
    for b in (base.lower, base.upper):
        for e in (exponent.lower, exponent.upper):
            logs = b.log()
            end = torch.where(b > 0, logs * (e * logs).exp(), 0.0)
            low, high = torch.minimum(low, end), torch.maximum(high, end)
    valley = (-exponent.reciprocal()).rising(torch.exp)
    inside = (base.lower <= valley.upper) & (base.upper >= valley.lower)
    deepest = -(exponent.reciprocal().upper / 2.718281828459)
    low = torch.where(inside, torch.minimum(low, deepest), low)
    slack = 2.0**-40 * (1 + low.abs())  # more than rounding
    return Span(low - slack, high + slack)


def transformed(
    steps: Sequence[Transformation], picture: Picture, parameters: Sequence[N], ends: tuple[float, float] | None
) -> N:
    """The image that transformations make of a picture, one after the other.

    Args:
        steps: What is done; those of places come first.
        picture: The image.
        parameters: All parameters in the order of the steps, `(points, 1, 1, 1)`.
        ends: The range of values.

    Returns:
        The images, `(points, channels, height, width)`.
    """
    given, own = list(parameters), list[Sequence[N]]()
    for step in steps:
        own.append(given[: len(step.parameters)])
        given = given[len(step.parameters) :]
    image = _warped(steps, picture, own, parameters[0])
    for step, p in zip(steps, own, strict=True):
        if isinstance(step, OfValues):
            image = step.apply(image, p, picture.pixels)
            image = image if ends is None else image.clamp(*ends)
    return image


def _warped(steps: Sequence[Transformation], picture: Picture, own: Sequence[Sequence[N]], any_one: N) -> N:
    """The image with its places moved: the last step says first where a place comes from."""
    high, wide = picture.pixels.shape[1:]
    moves = [(s, p) for s, p in zip(steps, own, strict=True) if isinstance(s, OfPlaces)]
    if not moves:
        return _constant(picture.pixels[None], any_one)
    y, x = _constant(_counted(high).reshape(1, 1, -1, 1), any_one), _constant(_counted(wide)[None, None, None], any_one)
    for step, p in reversed(moves):
        x, y = step.source(x, y, p)
    row, column = y + (high - 1) / 2, x + (wide - 1) / 2
    if isinstance(row, Jet):
        assert isinstance(column, Jet)
        return picture.over(row, column)
    return picture.at(row, column)


def _constant(number: Tensor, like: N) -> N:
    """Numbers of float64 as something of the kind of a parameter."""
    return Jet.constant(number, len(like.slopes)) if isinstance(like, Jet) else number.to(like)


def _counted(size: int) -> Tensor:
    """The centres of so many pixels, counted from the middle."""
    return torch.arange(size, dtype=torch.float64) - (size - 1) / 2


def weight_of(deviation: float) -> float:
    """The parameter of a blur of a standard deviation."""
    return exp(-1 / (2 * deviation * deviation)) if deviation > 0 else 0.0
