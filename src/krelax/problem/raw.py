"""What lies in a file or folder of labelled images, before a network is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError


@dataclass(frozen=True, eq=False)
class Raw:
    """Images `(n, *shape)`, float32, as a source gives them, and their labels as they are written: numbers, one-hot
    rows or text; None where there are none. `places` name the items in messages: files or rows; without them items are
    counted. `layout` is that of the images where it is known, `column` that of the labels in a table where it could be
    another one, and `notes` say what was understood without being told. `labelled` is what messages call the labels
    where they are not with the images.
    """

    images: NDArray[np.float32]
    labels: NDArray[Any] | None
    places: Sequence[str] = ()
    layout: str | None = None
    column: int | None = None
    notes: tuple[str, ...] = ()
    labelled: str | None = None

    def place(self, index: int) -> str:
        """What messages call an item."""
        return self.places[index] if self.places else f"image {index}"


def as_pixels(images: NDArray[np.generic], where: str, what: str = "`images`") -> NDArray[np.float32]:
    """Images of bytes divided by 255 in float32; floating ones as they are, rounded to float32. Raises InputError for
    other types, and for what is not finite."""
    if images.ndim < 1:
        raise InputError(f"{where}: {what} must have one axis for the images")
    if images.dtype == np.uint8:
        scaled: NDArray[np.float32] = (images.astype(np.float32) / np.float32(255)).astype(np.float32)
        return scaled
    if images.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
        raise InputError(f"{where}: {what} has type {images.dtype}; use uint8 (0 to 255) or float32")
    with np.errstate(over="ignore"):
        pixels: NDArray[np.float32] = images.astype(np.float32)
    finite = np.isfinite(pixels)
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        raise InputError(f"{where}: {what} holds NaN, infinity or numbers beyond float32 (first in image {row})")
    return pixels
