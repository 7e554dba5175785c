"""Which entry of an input is which pixel: what regions of images must know."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

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
            long = [isqrt(long[0])] * 2
        if len(long) == 2:
            return cls(1, long[0], long[1])
        if len(long) == 3 and long[0] in _CHANNELS:
            return cls(long[0], long[1], long[2])
        if len(long) == 3 and long[2] in _CHANNELS:
            return cls(long[2], long[0], long[1], last=True)
        raise InputError(
            f"inputs of shape {list(shape)} are no images with 1, 3 or 4 channels; this region is about images"
        )

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
