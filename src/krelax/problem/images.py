"""Labelled images: the data sets that networks are certified on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Images:
    """Images `(n, *input_shape)`, float32 exactly as a model sees them, and labels `(n,)`, int64. `turned` says that
    their channels are at the other end in the file."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    turned: bool = False

    def __len__(self) -> int:
        return len(self.images)


# Where the channels of images of three axes are: in front, or at the end.
LAYOUTS = ("nchw", "nhwc")
_ORDERS = {"nchw": (0, 2, 3, 1), "nhwc": (0, 3, 1, 2)}


def load_images(path: str | Path, input_shape: Shape, classes: int, layout: str | None = None) -> Images:
    """Images and labels from a file.

    Args:
        path: A NumPy `.npz` with `images` and `labels`. Images of type uint8 are divided by 255 in float32, floating
            ones are taken as they are, float64 rounded to float32. Images without channels may be flat, row by row, in
            the file or for the network.
        input_shape: Shape of the network's input, which the axes of the images must have, up to axes of size one.
        classes: How many outputs the network has.
        layout: What the file's layout is, "nchw" or "nhwc". Only with it images of the other one are turned round.

    Returns:
        Images `(n, *input_shape)`, float32, and labels `(n,)`, int64.

    Raises:
        InputError: Anything does not fit.
    """
    path = Path(path)
    found = read_images(path)
    if layout not in {None, *LAYOUTS}:
        raise InputError(f"unknown layout {layout!r}: use {' or '.join(LAYOUTS)}")
    labels, turned = found.labels, _is_turned(found.images.shape[1:], input_shape, layout, path)
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise InputError(f"{path}: label {labels[wrong[0]]} of image {wrong[0]} is not a class 0 to {classes - 1}")
    images = other_layout(found.images, layout) if turned and layout is not None else found.images
    return Images(images.reshape(len(images), *input_shape), labels, turned)


def other_layout(images: NDArray[np.float32], layout: str) -> NDArray[np.float32]:
    """Images of three axes with their channels at the other end."""
    return images.transpose(_ORDERS[layout])


def _is_turned(shape: Shape, input_shape: Shape, layout: str | None, path: Path) -> bool:
    """Whether images of this shape and layout fit the network's input with their channels at the other end, and not as
    they are, axes of size one aside. Raises InputError if they do not fit at all, or both ways."""
    given, wanted = _long(shape), _long(input_shape)
    if layout is not None and len(shape) == len(given) == 3:
        turned = [shape[axis - 1] for axis in _ORDERS[layout][1:]] == wanted
        if turned and given == wanted:
            message = "fit the network's input in both layouts; transpose them yourself, and leave out --layout"
            raise InputError(f"{path}: images of shape {list(shape)} {message}")
        if turned:
            return True
    # rows of pixels without channels have one order only
    flat = sorted((len(given), len(wanted))) == [1, 2] and np.prod(given) == np.prod(wanted)
    if given == wanted or flat:
        return False
    raise InputError(
        f"{path}: images of shape {list(shape)} do not fit the network's input {list(input_shape)}"
        + _remedy(given, wanted, layout)
    )


def _long(shape: Sequence[int]) -> list[int]:
    """A shape without its axes of size one, which change no order."""
    return [n for n in shape if n != 1]


def _remedy(given: list[int], wanted: list[int], layout: str | None) -> str:
    if sorted(given) == sorted(wanted) and len(given) == 3 and layout is None:
        return f"; say with --layout {' or '.join(LAYOUTS)} which one the file has"
    if np.prod(given) == np.prod(wanted):
        return "; give them in the shape and the order of axes that the network takes"
    return ""


def read_images(path: Path) -> Images:
    """Images and labels in the shape that the file gives them, whatever network they are for. Raises InputError."""
    arrays = _read(path)
    images, labels = _pixels(arrays["images"], path), _labels(arrays["labels"], path)
    if len(images) != len(labels):
        raise InputError(f"{path}: {len(images)} images but {len(labels)} labels")
    if not len(images):
        raise InputError(f"{path}: there are no images")
    return Images(images, labels)


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give an .npz file with `images` and `labels`")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
            arrays = {name: archive[name] for name in ("images", "labels") if name in names}
    except Exception as error:  # zip, zlib and NumPy each raise their own types
        raise InputError(f"{path}: not an .npz file of plain arrays ({_what(path, error)})") from error
    missing = {"images", "labels"} - set(arrays)
    if missing:
        raise InputError(f"{path}: array {sorted(missing)[0]!r} is missing; the file needs `images` and `labels`")
    for name, array in arrays.items():
        if names.count(name) > 1:
            raise InputError(f"{path}: array {name!r} is there twice; save the file again with numpy.savez")
        if not isinstance(array, np.ndarray):  # the bytes of what is no .npy file
            raise InputError(f"{path}: {name!r} is not an array; save images and labels with numpy.savez")
    return arrays


def _what(path: Path, error: Exception) -> str:
    """What the file is instead, or what is wrong with it. NumPy suggests to unpickle whatever it does not know."""
    try:
        with path.open("rb") as file:
            begin = file.read(512)
    except OSError as unreadable:
        return f"it cannot be read: {unreadable.strerror}"
    for magic, what in _KINDS.items():
        if begin.startswith(magic):
            return what
    if not begin.startswith(b"PK"):
        return _not_a_zip(begin)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return "its arrays hold Python objects; save numbers" if "pickle" in lines[0] else lines[0][:160]


def _not_a_zip(begin: bytes) -> str:
    what = "it is no zip archive" if begin else "it is empty"
    if begin and not any(byte < 9 or 13 < byte < 32 for byte in begin):
        what = "it is text with commas, perhaps CSV" if b"," in begin else "it is text"
    return f"{what}; save images and labels with numpy.savez"


_KINDS = {
    b"\x93NUMPY": "it is one plain array (.npy); save `images` and `labels` together with numpy.savez",
    b"\x1f\x8b": "it is compressed with gzip; unpack it",
    b"version https://git-lfs": "it is a git-lfs pointer; fetch the file itself with git lfs pull",
    b"\x89HDF": "it is an HDF5 file; save the arrays with numpy.savez",
    b"\x80": "it is a Python pickle, which is not read; save the arrays with numpy.savez",
}


def _pixels(images: NDArray[np.generic], path: Path) -> NDArray[np.float32]:
    if images.ndim < 1:
        raise InputError(f"{path}: `images` must have one axis for the images")
    if images.dtype == np.uint8:
        scaled: NDArray[np.float32] = (images.astype(np.float32) / np.float32(255)).astype(np.float32)
        return scaled
    if images.dtype not in (np.float32, np.float64):
        raise InputError(f"{path}: `images` has type {images.dtype}; use uint8 (0 to 255) or float32")
    with np.errstate(over="ignore"):
        pixels: NDArray[np.float32] = images.astype(np.float32)
    if not np.isfinite(pixels).all():
        raise InputError(f"{path}: `images` holds NaN, infinity or numbers beyond float32")
    return pixels


def _labels(labels: NDArray[np.generic], path: Path) -> NDArray[np.int64]:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path}: `labels` must be a list of integers, got {labels.dtype} {list(labels.shape)}")
    whole = labels.astype(np.int64)
    wrong = np.flatnonzero(whole < 0)
    if len(wrong):
        label = labels[wrong[0]]  # unsigned numbers beyond int64 are negative ones there
        what = "too large for a class" if label > 0 else "negative; classes count from 0"
        raise InputError(f"{path}: label {label} of image {wrong[0]} is {what}")
    return whole
