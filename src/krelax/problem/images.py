"""Labelled images: the data sets that networks are certified on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError, no_file
from krelax.problem.arrays import is_array, read_archive, read_array, read_label_array
from krelax.problem.labels import check_classes, class_numbers
from krelax.problem.layouts import LAYOUTS, Agreement, Shape, as_channels, long, other_layout, ways
from krelax.problem.pictures import read_pictures
from krelax.problem.raw import Raw
from krelax.problem.tables import Table, read_features, read_labels

_MOST_TRIED = 100
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Images:
    """Images `(n, *input_shape)`, float32 exactly as a model sees them, and labels `(n,)`, int64. `reading` says how a
    file was read where it could have been read otherwise (the layout of images that were turned), and `notes` are lines
    about what was understood without being told."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    reading: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: Sequence[int]) -> Images:
        """Some of the images, with their labels alone."""
        return Images(self.images[list(index)], self.labels[list(index)])


@dataclass(frozen=True, eq=False)
class _Candidate:
    """One way of reading a file, and what would have to be said of it: nothing if there was no choice."""

    images: Images
    says: str = ""
    remedy: str = ""


def load_images(
    path: str | Path,
    input_shape: Shape,
    classes: int,
    layout: str | None = None,
    labels: str | Path | None = None,
    names: Sequence[str] | None = None,
    agree: Agreement | None = None,
) -> Images:
    """Images and labels from a file or a folder.

    Args:
        path: A NumPy `.npz` with `images` and `labels`, an `.npy` with its labels beside it, a `.csv` of features with
            an item in each row, or a folder of PNG and JPEG files. Images of type uint8 are divided by 255 in float32,
            floating ones are taken as they are, float64 rounded to float32. Images without channels may be flat, row
            by row, in the file or for the network.
        input_shape: Shape of the network's input, which the axes of the images must have, up to axes of size one.
        classes: How many outputs the network has.
        layout: What the layout of the images is, "nchw" or "nhwc". Images of the other one are turned round.
        labels: A file of labels, `.csv`, `.npy` or `.npz`, or the name of the column of a `.csv` that has them. Labels
            are integers, one-hot rows, or names. Without it they are in the file, or beside it, and those of a folder
            are in its `labels.csv`, or the names of the folders in it.
        names: The names of the classes in the order of the network's outputs, if labels are names. Without it they are
            sorted.
        agree: Counts the images of some that the network classifies as labelled. With it a layout that is not stated
            is found by trying the labels; without it, it must be stated.

    Returns:
        Images `(n, *input_shape)`, float32, and labels `(n,)`, int64.

    Raises:
        InputError: Anything does not fit.
    """
    return fitted(_read(Path(path), labels), str(path), input_shape, classes, layout, names, agree)


def fitted(
    raws: Sequence[Raw], where: str, input_shape: Shape, classes: int, layout: str | None = None,
    names: Sequence[str] | None = None, agree: Agreement | None = None,
) -> Images:  # fmt: skip
    """As `load_images`, of what a source, called so in messages, may hold."""
    found = list[_Candidate]()
    for raw in raws:
        try:
            found += _candidates(raw, where, input_shape, classes, layout, names)
        except InputError:
            if not found and raw is raws[-1]:
                raise
    if len(found) == 1 and not found[0].says:
        return found[0].images
    if agree is None:
        raise InputError(f"{where}: {found[0].remedy}")
    return _by_trying(found, where, agree, classes)


def read_images(path: Path, labels: str | Path | None = None, reading: Mapping[str, Any] = _NOTHING) -> Images:
    """Images and labels as they are written in a file, whatever network they are for, read as `reading` says."""
    raws = _read(path, labels)
    raw = next((r for r in raws if r.column == reading.get("column")), raws[0])
    images = as_channels(raw.images, reading.get("channels"))
    if reading.get("layout") in LAYOUTS and images.ndim == 4:
        images = other_layout(images, reading["layout"])
    return Images(images, np.zeros(len(images), dtype=np.int64))


def _read(path: Path, labels: str | Path | None) -> list[Raw]:
    """What may be in a file or folder, one way of reading it or several, with the labels that are asked for."""
    if path.is_dir():
        return [_pictures(path, None if labels is None else Path(labels))]
    if path.suffix.lower() == ".csv" and path.is_file():
        if labels is None or not Path(labels).is_file():
            return read_features(Table.read(path), None if labels is None else str(labels))
        return [_labelled(raw, Path(labels)) for raw in read_features(Table.read(path), None, with_labels=False)]
    read = read_array if is_array(path) else read_archive
    return [read(path) if labels is None else _labelled(read(path, needs_labels=False), Path(labels))]


def _pictures(folder: Path, labels: Path | None) -> Raw:
    """Pictures with the labels of a table that lists them, or of arrays in the order of their paths."""
    if labels is None:
        return read_pictures(folder, None)
    if labels.suffix.lower() in {".npy", ".npz"}:
        return _labelled(read_pictures(folder, None, needs_labels=False), labels)
    return read_pictures(folder, Table.read(labels))


def _labelled(raw: Raw, labels: Path) -> Raw:
    """The same items with the labels of a file, in the same order."""
    if not labels.is_file():
        raise no_file(labels, "a file of labels with --labels")
    is_text = labels.suffix.lower() not in {".npy", ".npz"}
    return replace(raw, labels=read_labels(Table.read(labels)) if is_text else read_label_array(labels))


def _candidates(
    raw: Raw, path: str, input_shape: Shape, classes: int, layout: str | None, names: Sequence[str] | None
) -> list[_Candidate]:
    """The ways of giving items to a network of so many classes."""
    assert raw.labels is not None
    if raw.labels.ndim and len(raw.images) != len(raw.labels):
        raise InputError(f"{path}: {len(raw.images)} images but {len(raw.labels)} labels")
    if not len(raw.images):
        raise InputError(f"{path}: there are no images")
    labelled = raw.labelled or path
    numbers, told, notes = class_numbers(raw.labels, labelled, raw.place, names)
    images, reading = raw.images, {} if raw.column is None else {"column": raw.column}
    if raw.layout is not None and layout is None:
        channels = _channels(images.shape[1:], input_shape)
        if channels is not None:
            images, reading = as_channels(images, channels), reading | {"channels": channels}
    shape = images.shape[1:]
    known = ways(shape, input_shape, layout or (raw.layout if len(shape) == 3 else None), path)
    check_classes(numbers, told, classes, labelled, raw.place)
    found = []
    for way in known:
        turned = {} if way.layout is None else {"layout": way.layout}
        taken = Images(way.turned(images, input_shape), numbers, reading | turned, (*raw.notes, *notes))
        found.append(_Candidate(taken, *_words(raw, way.says, input_shape)))
    return found


def _words(raw: Raw, layout: str, input_shape: Shape) -> tuple[str, str]:
    """What is to be said of a reading that is one of several, and how the right one can be stated."""
    if layout:
        remedy = f"say with --layout {' or '.join(LAYOUTS)} which one the file has"
        fit = f"images of shape {list(raw.images.shape[1:])} do not fit the network's input {list(input_shape)}"
        return f"layout {layout}", f"{fit}; {remedy}"
    if raw.column is not None:
        return f"labels from column {raw.column + 1}", "the first column and the last may be labels; give it a header"
    return "", ""


def _channels(shape: Shape, input_shape: Shape) -> int | None:
    """How many channels pictures are to have for a network that takes another number; None if they fit, or cannot."""
    grey, wanted = len(shape) == 2, long(input_shape)
    if grey and len(wanted) == 3 and 3 in {wanted[0], wanted[2]}:
        return 3
    return 1 if not grey and len(wanted) < 3 else None


def _by_trying(found: Sequence[_Candidate], path: str, agree: Agreement, classes: int) -> Images:
    """The reading with which the network classifies most items as labelled, if that is clear. Raises InputError."""
    count = len(found[0].images)
    tried = np.unique(np.linspace(0, count - 1, min(count, _MOST_TRIED)).astype(int))
    right = [agree(c.images.images[tried], c.images.labels[tried]) for c in found]
    order = np.argsort(right)[::-1]
    best, others = int(order[0]), [int(i) for i in order[1:]]
    told = ", ".join(f"{right[i]} with {found[i].says}" for i in map(int, order))
    if right[best] <= len(tried) / classes or any(right[i] == right[best] for i in others):
        words = f"of {len(tried)} items the network classifies as labelled {told}"
        raise InputError(f"{path}: {found[0].remedy}; {words}")
    note = f"{path}: {found[best].says}: the network classifies {right[best]} of {len(tried)} items as labelled"
    note += "".join(f" ({right[i]} with {found[i].says})" for i in others)
    return replace(found[best].images, notes=(*found[best].images.notes, note))
