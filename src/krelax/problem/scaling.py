"""Normalised inputs: images on the scale of pixels for a model that takes `(pixel - mean) / std`, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError
from krelax.problem.exact import Floats, Limit, enclosure

Shape = tuple[int, ...]
# Less is no scale of any input, and float64 might not hold what is divided by it.
_LEAST = Fraction(1, 2**300)


@dataclass(frozen=True)
class Scaling:
    """`mean` and `std` of one number for all inputs, or one for each channel, or for each feature of a vector. A model
    is given `(pixel - mean) / std`, as a function of real numbers. Raises InputError for a `std` that is not positive.
    """

    mean: tuple[Fraction, ...]
    std: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if not self.mean or not self.std:
            raise InputError("mean and std need a number each, or one for each channel")
        if min(self.std) < _LEAST:
            raise InputError(f"std must be positive, got {float(min(self.std))}")

    @property
    def count(self) -> int:
        """For how many channels there are numbers."""
        return max(len(self.mean), len(self.std))

    @property
    def uniform(self) -> Fraction | None:
        """The only std, None where channels have different ones."""
        return self.std[0] if len(set(self.std)) == 1 else None

    def numbers(self, channel: int) -> tuple[Fraction, Fraction]:
        """Mean and std of a channel."""
        return self.mean[channel % len(self.mean)], self.std[channel % len(self.std)]

    def channels(self, shape: Shape) -> NDArray[np.int64]:
        """The channel of every input of a model. Raises InputError if its shape has no axis of so many channels, or
        both of its ends could be that."""
        if self.count == 1:
            return np.zeros(shape, dtype=np.int64)
        if len({1, len(self.mean), len(self.std)} - {1}) > 1:
            raise InputError(f"{len(self.mean)} means and {len(self.std)} stds; give one of each for every channel")
        long = [axis for axis, size in enumerate(shape) if size != 1]
        fits = [axis for axis in {*long[:1], *long[-1:]} if shape[axis] == self.count]
        if len(fits) != 1:
            what = "may be at either end" if fits else "are no axis"
            raise InputError(
                f"mean and std are of {self.count} channels, which {what} of {list(shape)}; "
                "give one number, or one for each channel"
            )
        wide = [self.count if axis == fits[0] else 1 for axis in range(len(shape))]
        return np.broadcast_to(np.arange(self.count).reshape(wide), shape)

    def outward(self, lower: Floats, upper: Floats, shape: Shape) -> tuple[Floats, Floats]:
        """What models are given where pixels lie between float64 numbers, `(batch, *shape)`, enclosed in such."""
        place = self.channels(shape)
        means, stds = (_enclosed([self.numbers(c)[i] for c in range(self.count)]) for i in (0, 1))
        low, high = np.nextafter(lower - means[1][place], -np.inf), np.nextafter(upper - means[0][place], np.inf)
        small, large = stds[0][place], stds[1][place]
        least, most = np.minimum(low / small, low / large), np.maximum(high / small, high / large)
        return np.nextafter(least, -np.inf), np.nextafter(most, np.inf)

    def nearest(self, pixels: NDArray[np.float32], shape: Shape) -> NDArray[np.float32]:
        """What models are given for images `(batch, *shape)`, near the exact numbers in float32."""
        return self.apply(pixels.astype(np.float64), shape).astype(np.float32)

    def apply(self, pixels: Floats, shape: Shape) -> Floats:
        """What models are given for images `(..., *shape)`, near the exact numbers in float64."""
        place = self.channels(shape)
        mean, std = (np.array([float(self.numbers(c)[i]) for c in range(self.count)])[place] for i in (0, 1))
        return np.asarray((pixels - mean) / std, dtype=np.float64)

    def pixels(self, given: Sequence[float], shape: Shape) -> list[float]:
        """The pixels of which a model was given these numbers, rounded to float64: for pictures."""
        place = self.channels(shape).flatten()
        mean, std = (np.array([float(self.numbers(c)[i]) for c in range(self.count)])[place] for i in (0, 1))
        return list((np.asarray(given, dtype=np.float64) * std + mean).tolist())


def _enclosed(numbers: Sequence[Fraction]) -> tuple[Floats, Floats]:
    found = enclosure([Limit.of(number) for number in numbers])
    return found.down, found.up
