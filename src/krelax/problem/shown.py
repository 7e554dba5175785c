"""Which entry of an input is which pixel: what regions of images must know."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, prod

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Shown:
    """An input of a model as an image: `(channels, height, width)`, channels first or `last`."""

    channels: int
    height: int
    width: int
    last: bool = False

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Shown:
        """Of inputs of a shape, in which axes of size one do not count. Raises InputError if they are no image."""
        long = [n for n in shape if n != 1]
        if len(long) == 1 and isqrt(long[0]) ** 2 == long[0]:
            return cls(1, isqrt(long[0]), isqrt(long[0]))
        found = cls._of_axes(shape) or cls._of_axes((1, *long))
        if found is None:
            raise InputError(
                f"inputs of shape {list(shape)} are no images with 1, 3 or 4 channels; this region is about images"
            )
        return found

    @classmethod
    def _of_axes(cls, shape: tuple[int, ...]) -> Shown | None:
        """Of the last three axes: channels are in front where both ends may be, but where there is one at the end."""
        if len(shape) < 3 or prod(shape[:-3]) != 1:
            return None
        first, second, third = shape[-3:]
        if first in _CHANNELS and (third != 1 or first == 1):
            return cls(first, second, third)
        return cls(third, first, second, last=True) if third in _CHANNELS else None

    def picture(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """One input as an image, channels first."""
        found = x.astype(np.float64)
        if self.last:
            return found.reshape(self.height, self.width, self.channels).transpose(2, 0, 1)
        return found.reshape(self.channels, self.height, self.width)

    def flat(self, picture: NDArray[np.generic]) -> NDArray[np.generic]:
        """Images `(..., channels, height, width)` as inputs, flattened."""
        turned = np.moveaxis(picture, -3, -1) if self.last else picture
        return np.ascontiguousarray(turned).reshape(*picture.shape[:-3], -1)
