"""Regions that people mean: what may happen to an image, as it is written, and as objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from krelax.activations.transformations import (
    Blur,
    Brightness,
    Contrast,
    Gamma,
    Rotate,
    Saturation,
    Scale,
    Shear,
    Transformation,
    Translate,
    TranslateX,
    TranslateY,
    weight_of,
)
from krelax.errors import InputError

Number = float | Fraction
Interval = tuple[Fraction, Fraction]
# Boxes are cut along each parameter, so many more would take for ever.
MOST_PARAMETERS = 4
_MOST_CHARACTERS = 60
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?(?:/[0-9]{1,12})?")


@dataclass(frozen=True)
class Transformed:
    """All that transformations make of an image while their parameters are in ranges.

    `steps` are done one after the other, and `ranges` has a range for each of their parameters, in their order.
    """

    steps: tuple[Transformation, ...]
    ranges: tuple[Interval, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.ranges) <= MOST_PARAMETERS:
            raise InputError(f"a region of {len(self.ranges)} parameters; combine transformations of 1 to 4 in all")
        moves = [step.of_places for step in self.steps]
        if moves != sorted(moves, reverse=True):
            raise InputError("transformations of places come before those of values: rotate:10+brightness:0.1")
        if len(self.parameters) != len(set(self.parameters)):
            raise InputError("a transformation is there twice; give each once")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return tuple(name for step in self.steps for name in step.parameters)

    def __str__(self) -> str:
        words, ranges = list[str](), iter(self.ranges)
        for step in self.steps:
            called = _spelt(type(step).__name__)
            ends = [(name, *map(_written, next(ranges))) for name in step.parameters]
            own = (f"{name} {low}:{high}" if name != called else f"{low}:{high}" for name, low, high in ends)
            words.append(f"{called} {', '.join(own)}")
        return " + ".join(words)

    @property
    def amount(self) -> Fraction:
        """How much the whole region is: of one transformation to both sides its amount, otherwise 1.

        Raises InputError if there is no image that it leaves as it is.
        """
        for name, usual, (low, high) in zip(self.parameters, self.usual, self.ranges, strict=True):
            if not low <= usual <= high:
                raise InputError(
                    f"the range of {name} does not contain {usual:g}, which changes nothing; give one that does"
                )
        reach = {
            max(high - Fraction(u), Fraction(u) - low) for u, (low, high) in zip(self.usual, self.ranges, strict=True)
        }
        return reach.pop() if len(self.steps) == len(reach) == 1 and reach != {Fraction(0)} else Fraction(1)

    def part(self, amount: Fraction) -> Transformed:
        """The region of less of it: ranges are shorter by as much on both sides of what changes nothing."""
        share = amount / self.amount
        pairs = zip(map(Fraction, self.usual), self.ranges, strict=True)
        return Transformed(
            self.steps, tuple((u - share * (u - low), u + share * (high - u)) for u, (low, high) in pairs)
        )

    def beyond(self, inner: Fraction, outer: Fraction) -> list[Transformed]:
        """Regions that together with the part of the amount `inner` are that of `outer`, which is larger."""
        ranges, wide, found = list(self.part(outer).ranges), self.part(outer).ranges, list[Transformed]()
        for i, (low, high) in enumerate(self.part(inner).ranges):
            for side in ((wide[i][0], low), (high, wide[i][1])):
                if side[0] < side[1]:
                    found.append(Transformed(self.steps, (*ranges[:i], side, *ranges[i + 1 :])))
            ranges[i] = low, high
        return found

    def reached(self, parameters: Sequence[Fraction]) -> Fraction:
        """The least amount whose region has these parameters."""
        shares = [Fraction(0)]
        for value, usual, (low, high) in zip(parameters, map(Fraction, self.usual), self.ranges, strict=True):
            width = high - usual if value > usual else usual - low
            shares.append(abs(value - usual) / width if width else Fraction(0))
        return max(shares) * self.amount

    @property
    def usual(self) -> tuple[float, ...]:
        """The parameters that change nothing."""
        return tuple(step.usual for step in self.steps for _ in step.parameters)


@dataclass(frozen=True)
class Patch:
    """The pixels of one rectangle may have any values, wherever it is in the image."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"patch {self.height} x {self.width}"


@dataclass(frozen=True)
class Pixels:
    """So many pixels may have any values, whichever they are."""

    count: int

    def __str__(self) -> str:
        return f"pixels {self.count}"


@dataclass(frozen=True)
class Categories:
    """Of each group of inputs, given by its first and its last one, one is 1 and the others are 0, whichever it is."""

    groups: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return "categories " + ", ".join(f"{first}-{last}" for first, last in self.groups)


Spec = Transformed | Patch | Pixels | Categories


def _spelt(name: str) -> str:
    """The name of a class of transformations as it is written in a region."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _written(number: Fraction) -> str:
    """A number exactly: a decimal if a short one is the same number."""
    short = f"{float(number):.12g}"
    return short if Fraction(short) == number else str(number)


def read_region(text: str) -> Spec:
    """The region that is written.

    Args:
        text: `NAME:AMOUNT`, or `NAME:LOW:HIGH`; of transformations several with `+` between them.

    Returns:
        The region as an object, one of `Transformed`, `Patch`, `Pixels` and `Categories`.

    Raises:
        InputError: It cannot be read; the message says what can be written.
    """
    if len(text) > 400:
        raise InputError(f"a region of {len(text)} characters; write NAME:AMOUNT, as rotate:10")
    parts = [part.strip().partition(":") for part in text.split("+")]
    alone = next((name for name, _, _ in parts if name in _WHOLE), None)
    if alone is not None and len(parts) > 1:
        raise InputError(f"{_short(text)}: {alone} cannot be combined; only transformations can")
    if alone is not None:
        return _WHOLE[alone](parts[0][2])
    steps, ranges = list[Transformation](), list[Interval]()
    for name, _, amount in parts:
        if name not in _TRANSFORMATIONS:
            known = ", ".join([*_TRANSFORMATIONS, *_WHOLE])
            raise InputError(f"unknown region {_short(name)!r}: use one of {known}")
        step, own = _TRANSFORMATIONS[name](name, amount)
        steps.append(step)
        ranges += [own] * len(step.parameters)
    return Transformed(tuple(steps), tuple(ranges))


def transformation(region: str | Spec) -> Transformed:
    """A transformation that is written, or as an object. Raises InputError for other regions."""
    found = as_region(region)
    if not isinstance(found, Transformed):
        raise InputError(f"{found}: how much of it an image stands is asked of transformations, as rotate:45")
    return found


def as_region(region: str | Spec | None) -> Spec | None:
    """A region as an object. Raises InputError for anything else."""
    if isinstance(region, str):
        return read_region(region)
    if region is not None and not isinstance(region, Transformed | Patch | Pixels | Categories):
        raise InputError(f"region is a {type(region).__name__}; give a text, as 'rotate:10', or a region of krelax")
    return region


_Read = Callable[[str, str], tuple[Transformation, Interval]]


def _about(step: Transformation, middle: int, least: Number = float("-inf")) -> _Read:
    """Of a transformation that does nothing in the middle; parameters must be more than `least`."""

    def read(name: str, amount: str) -> tuple[Transformation, Interval]:
        low, high = _range(name, amount, middle)
        if low <= least:
            raise InputError(f"{name}:{_short(amount)}: {step.parameters[0]} must be above {least}, got {float(low):g}")
        return step, (low, high)

    return read


def _blur(name: str, amount: str) -> tuple[Transformation, Interval]:
    """A blur up to a standard deviation, or between two."""
    ends = _numbers(name, amount)
    low, high = (Fraction(0), ends[0]) if len(ends) == 1 else ends
    if not 0 <= low <= high or high > _MOST_BLURRED:
        raise InputError(f"{name}:{_short(amount)}: standard deviations are from 0 to {_MOST_BLURRED} pixels")
    reach = max(1, -int(-3 * high // 1))
    unit = 10**_DIGITS
    least, most = Fraction(weight_of(float(low))) * unit // 1, -(-Fraction(weight_of(float(high))) * unit // 1)
    return Blur(reach), (Fraction(least, unit), Fraction(most, unit))


_MOST_BLURRED = 4
# Weights are rounded outward to so many decimals: the exact ones of a range are no decimals.
_DIGITS = 9


def _range(name: str, amount: str, middle: int) -> Interval:
    ends = _numbers(name, amount)
    if len(ends) == 1:
        if ends[0] < 0:
            raise InputError(f"{name}:{_short(amount)}: an amount is at least 0; write a range as {name}:LOW:HIGH")
        return middle - ends[0], middle + ends[0]
    if ends[0] > ends[1]:
        raise InputError(f"{name}:{_short(amount)}: the range is empty; write the smaller number first")
    return ends[0], ends[1]


def _numbers(name: str, amount: str) -> tuple[Fraction, ...]:
    parts = [part.strip() for part in amount.split(":")]
    if len(parts) > 2 or not all(len(p) <= _MOST_CHARACTERS and _NUMBER.fullmatch(p) for p in parts):
        given = f"{name}:{_short(amount)}" if amount else f"{name} says no amount"
        raise InputError(f"{given}: write {name}:AMOUNT, or {name}:LOW:HIGH, with numbers")
    try:
        found = tuple(map(_fraction, parts))
    except ZeroDivisionError:
        raise InputError(f"{name}:{_short(amount)}: division by zero") from None
    if any(abs(number) > _LARGEST for number in found):
        raise InputError(f"{name}:{_short(amount)}: numbers are at most {_LARGEST}")
    return found


_LARGEST = 10**6


def _fraction(text: str) -> Fraction:
    whole, _, divisor = text.partition("/")
    return Fraction(whole) / Fraction(divisor or 1)


def _patch(amount: str) -> Patch:
    sizes = _integers(amount, "x")
    if not 1 <= len(sizes) <= 2 or min(sizes) < 1:
        raise InputError(f"patch:{_short(amount)}: write patch:SIZE, or patch:HEIGHTxWIDTH, in pixels")
    return Patch(sizes[0], sizes[-1])


def _pixels(amount: str) -> Pixels:
    found = _integers(amount, ",")
    if len(found) != 1 or found[0] < 1:
        raise InputError(f"pixels:{_short(amount)}: write pixels:COUNT, how many pixels may change")
    return Pixels(found[0])


def _categories(amount: str) -> Categories:
    groups = []
    for part in amount.split(","):
        ends = _integers(part, "-")
        if len(ends) != 2 or not ends[0] < ends[1]:
            raise InputError(f"categories:{_short(amount)}: write categories:FIRST-LAST,..., inputs counted from 0")
        groups.append((ends[0], ends[1]))
    groups.sort()
    if any(first[1] >= second[0] for first, second in pairwise(groups)):
        raise InputError(f"categories:{_short(amount)}: an input is in two groups")
    return Categories(tuple(groups))


def _integers(text: str, between: str) -> list[int]:
    """Whole numbers, none if there is anything else."""
    parts = text.split(between)
    return [int(part) for part in parts] if all(re.fullmatch("[0-9]{1,6}", p) for p in parts) else []


def _short(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


_TRANSFORMATIONS: dict[str, _Read] = {
    "rotate": _about(Rotate(), 0),
    "translate": _about(Translate(), 0),
    "translate-x": _about(TranslateX(), 0),
    "translate-y": _about(TranslateY(), 0),
    "scale": _about(Scale(), 1, 0),
    "shear": _about(Shear(), 0),
    "brightness": _about(Brightness(), 0),
    "contrast": _about(Contrast(), 1),
    "saturation": _about(Saturation(), 1),
    "gamma": _about(Gamma(), 1, 0),
    "blur": _blur,
}
_WHOLE: dict[str, Callable[[str], Spec]] = {"patch": _patch, "pixels": _pixels, "categories": _categories}
NAMES: Sequence[str] = (*_TRANSFORMATIONS, *_WHOLE)
