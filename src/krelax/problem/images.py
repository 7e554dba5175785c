"""Labelled images: the data sets that networks are certified on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Images:
    """Images `(n, *input_shape)`, float32 exactly as a model sees them, and labels `(n,)`, int64."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)


def load_images(path: str | Path, input_shape: Shape, classes: int) -> Images:
    """Images and labels for a network with inputs of `input_shape` and `classes` outputs.

    The file is a NumPy `.npz` with `images` and `labels`. Integer images (uint8) are scaled by 1/255; floating ones
    are taken as they are. Images may lack axes of size one. Raises InputError for anything that does not fit.
    """
    path = Path(path)
    found = read_images(path)
    images, labels = found.images, found.labels
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise InputError(f"{path}: label {labels[wrong[0]]} of image {wrong[0]} is not a class 0 to {classes - 1}")
    if images[0].size != np.prod(input_shape):
        raise InputError(
            f"{path}: images of shape {list(images.shape[1:])} do not fit the network's input {list(input_shape)}"
        )
    return Images(images.reshape(len(images), *input_shape), labels)


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
            arrays = {name: archive[name] for name in ("images", "labels") if name in archive}
    except Exception as error:  # zip, zlib and NumPy each raise their own types
        raise InputError(f"{path}: not an .npz file of plain arrays ({_first_line(error)})") from error
    missing = {"images", "labels"} - set(arrays)
    if missing:
        raise InputError(f"{path}: array {sorted(missing)[0]!r} is missing; the file needs `images` and `labels`")
    return arrays


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


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
        raise InputError(f"{path}: label {whole[wrong[0]]} of image {wrong[0]} is negative; classes count from 0")
    return whole
