"""Small pictures as PNG, without a library for images."""

from __future__ import annotations

import base64
import struct
import zlib
from math import isqrt, prod

import numpy as np
from numpy.typing import NDArray

from krelax.looks import BLUE, VERMILION

Pixels = NDArray[np.uint8]
Numbers = NDArray[np.floating]


def form(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """How to look at an input of some shape: `(height, width)`, or with colours `(height, width, 3)` or
    `(3, height, width)`. None if it is no picture. Flat inputs are pictures where they could be square ones."""
    sizes = tuple(n for n in shape if n != 1)
    if len(sizes) == 1:
        side = isqrt(sizes[0])
        colour = isqrt(sizes[0] // 3)
        if side > 3 and side * side == sizes[0]:
            return side, side
        return (3, colour, colour) if colour > 3 and 3 * colour * colour == sizes[0] else None
    if len(sizes) == 2:
        return sizes
    return sizes if len(sizes) == 3 and 3 in (sizes[0], sizes[2]) else None


def arranged(values: Numbers, shape: tuple[int, ...]) -> Numbers:
    """Values in one of the shapes that `form` gives, colours last."""
    assert values.size == prod(shape)
    picture = values.reshape(shape)
    return np.moveaxis(picture, 0, -1) if len(shape) == 3 and shape[2] != 3 else picture


def shades(picture: Numbers, low: float, high: float) -> Pixels:
    """Grey, or colours, from `low` to `high`."""
    span = high - low if high > low else 1.0
    scaled: Pixels = (255 * ((picture - low) / span).clip(0, 1)).round().astype(np.uint8)
    return scaled


def difference(change: Numbers) -> tuple[Pixels, float]:
    """A change, and the size that has full colour: white is none, blue is less, red is more. In pictures with colours
    grey is none, and each colour has its own change."""
    size = float(np.abs(change).max())
    part = change / size if size else change
    if change.ndim == 3:
        return shades(part, -1, 1), size
    ends = np.where(part[..., None] < 0, _rgb(BLUE), _rgb(VERMILION))
    mixed: Pixels = (255 + np.abs(part)[..., None] * (ends - 255)).round().astype(np.uint8)
    return mixed, size


def _rgb(colour: str) -> Numbers:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)


def png(pixels: Pixels) -> bytes:
    """A PNG file of pixels `(height, width)` or `(height, width, 3)`."""
    height, width = pixels.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # no filter
    kind = 2 if pixels.ndim == 3 else 0
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def address(pixels: Pixels) -> str:
    """A picture as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
