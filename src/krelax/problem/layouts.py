"""Where the channels of images are, in a file and for a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError

Shape = tuple[int, ...]
# How many of some images, with their labels, a network classifies as labelled.
Agreement = Callable[[NDArray[np.float32], NDArray[np.int64]], int]

# Where the channels of images of three axes are: in front, or at the end.
LAYOUTS = ("nchw", "nhwc")
_ORDERS = {"nchw": (0, 2, 3, 1), "nhwc": (0, 3, 1, 2)}


class Way(NamedTuple):
    """A way of giving images to a network: the layout that they then have in the file, None if nothing is turned; the
    shape of an image before it is turned; and what it says of a layout that nobody has stated."""

    layout: str | None
    shape: Shape
    says: str = ""

    def turned(self, images: NDArray[np.float32], input_shape: Shape) -> NDArray[np.float32]:
        """The images as the network takes them."""
        whole = images.reshape(len(images), *self.shape)
        if self.layout is not None:
            whole = other_layout(whole, self.layout)
        return whole.reshape(len(images), *input_shape)


def other_layout(images: NDArray[np.float32], layout: str) -> NDArray[np.float32]:
    """Images of three axes with their channels at the other end."""
    return images.transpose(_ORDERS[layout])


def long(shape: Sequence[int]) -> list[int]:
    """A shape without its axes of size one, which change no order."""
    return [n for n in shape if n != 1]


def as_channels(images: NDArray[np.float32], channels: int | None) -> NDArray[np.float32]:
    """Pictures, `(n, height, width)` or with three channels behind that, with so many of them, if that changes nothing
    but how they are written; None for what they have."""
    if channels == 3 and images.ndim == 3:
        return np.repeat(images[..., None], 3, axis=3)
    if channels == 1 and images.ndim == 4 and (images == images[..., :1]).all():
        return np.asarray(images[..., 0])
    return images


def ways(shape: Shape, input_shape: Shape, layout: str | None, where: str) -> list[Way]:
    """How images of a shape may be given to a network, one way where their layout is stated or nothing is turned.

    Axes of size one aside, shapes must be the same, or have the channels at the other end; flat images are rows of
    pixels, with their channels at either end. Raises InputError if images do not fit at all.
    """
    if layout not in {None, *LAYOUTS}:
        raise InputError(f"unknown layout {layout!r}: use {' or '.join(LAYOUTS)}")
    given, wanted = long(shape), long(input_shape)
    whole = len(shape) == len(given) == 3
    found = [name for name in LAYOUTS if whole and [shape[axis - 1] for axis in _ORDERS[name][1:]] == wanted]
    if layout in found and given == wanted:
        message = "fit the network's input in both layouts; transpose them yourself, and leave out --layout"
        raise InputError(f"{where}: images of shape {list(shape)} {message}")
    if layout in found:
        return [Way(layout, shape)]
    # rows of pixels without channels have one order only
    flat = sorted((len(given), len(wanted))) == [1, 2] and np.prod(given) == np.prod(wanted)
    if given == wanted or flat:
        return [Way(None, shape)]
    if len(given) == 1 and len(wanted) == 3 and np.prod(given) == np.prod(wanted):
        return _flat(wanted, layout)
    if layout is None and found:
        return [Way(name, shape, name) for name in found]
    raise InputError(
        f"{where}: images of shape {list(shape)} do not fit the network's input {list(input_shape)}"
        + _remedy(given, wanted, layout)
    )


def _flat(wanted: Sequence[int], layout: str | None) -> list[Way]:
    """Rows of pixels with channels: as the network has them, or with the channels at the other end."""
    first, second, third = wanted
    own = "nchw" if first < third else "nhwc"
    other, shape = ("nhwc", (second, third, first)) if own == "nchw" else ("nchw", (third, first, second))
    unsaid = layout is None
    both = {own: Way(None, tuple(wanted), own * unsaid), other: Way(other, shape, other * unsaid)}
    return [both[name] for name in LAYOUTS if layout in {None, name}]


def _remedy(given: list[int], wanted: list[int], layout: str | None) -> str:
    if sorted(given) == sorted(wanted) and len(given) == 3 and layout is not None:
        return f" in the layout {layout}; leave out --layout, or state the file's"
    if np.prod(given) == np.prod(wanted):
        return "; give them in the shape and the order of axes that the network takes"
    return ""
