"""Folders of PNG and JPEG files."""

from __future__ import annotations

import posixpath
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError
from krelax.problem.raw import Raw, as_pixels
from krelax.problem.tables import FILE_NAMES, LABEL_NAMES, Table, label_column

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
_LABELS = "labels.csv"
# Other pictures, which are not left out as if they were none.
_OTHERS = (".gif", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".jp2", ".avif", ".heic")
_FORMATS = ("PNG", "JPEG")
# The last chunk of a PNG, the place of its bits in a channel, and the number of the entry in Exif.
_END, _DEPTH, _ORIENTATION = b"IEND\xaeB`\x82", 24, 0x0112


def read_pictures(folder: Path, labels: Table | None, needs_labels: bool = True) -> Raw:
    """All PNG and JPEG files of a folder, in the order of their paths, or of the rows of a table of labels.

    Without a table, labels are those of `labels.csv` in the folder, or else the names of the folders in it that the
    files lie in. Raises InputError, which names the file or the row.
    """
    every = sorted(path for path in folder.rglob("*") if not path.name.startswith("."))
    files = [path for path in every if path.suffix.lower() in SUFFIXES]
    other = next((path for path in every if path.suffix.lower() in _OTHERS), None)
    if other is not None:
        raise InputError(f"{other}: is neither PNG nor JPEG; save it as PNG, or move it out of the folder")
    if not files:
        raise InputError(f"{folder}: there are no PNG or JPEG files in this folder")
    if labels is None and (folder / _LABELS).is_file():
        labels = Table.read(folder / _LABELS)
    if labels is not None:
        files, names = _listed(folder, files, labels)
    elif needs_labels:
        names = [_class_of(path, folder) for path in files]
    places = [path.relative_to(folder).as_posix() for path in files]
    images = as_pixels(_stacked(files, folder), str(folder))
    found: NDArray[Any] | None = None
    if needs_labels or labels is not None:
        found = np.array(names)
    return Raw(images, found, places, layout="nhwc")


def _class_of(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    if len(parts) < 2:
        raise InputError(
            f"{path}: has no label; put images in a folder for each class, or give a CSV of file and label (--labels)"
        )
    return parts[0]


def _listed(folder: Path, files: Sequence[Path], table: Table) -> tuple[list[Path], list[str]]:
    """The files that a table lists, in its order, and their labels."""
    known = {path.relative_to(folder).as_posix(): path for path in files}
    short: dict[str, Path | None] = {}
    for path in files:  # by less than the path, where that is one file
        for name in {path.relative_to(folder).with_suffix("").as_posix(), path.name, path.stem} - known.keys():
            short[name] = path if short.get(name, path) == path else None
    column, header = _columns_of_files(table, known, short)
    rows = table.rows[1:] if header else table.rows
    label = label_column(table, table.rows[0] if header else None, {column})
    found: dict[Path, str] = {}
    for number, row in enumerate(rows, start=int(header)):
        name = _path(row[column])
        path_of = known.get(name) or short.get(name)
        if path_of is None:
            raise InputError(f"{table.where(number)}: {row[column]!r} is not a file of {folder}, or several of them")
        if path_of in found:
            raise InputError(f"{table.where(number)}: {row[column]!r} is there twice")
        found[path_of] = row[label]
    if not found:
        raise InputError(f"{table.where(0)}: names no file of {folder}; give the file and the label in a row")
    return list(found), list(found.values())


def _columns_of_files(table: Table, known: Mapping[str, Path], short: Mapping[str, Path | None]) -> tuple[int, bool]:
    """The column that names files, and whether there is a row of names above: what that calls files, or the one with
    most names of files, whole ones before all others, so that labels are not taken for files that are called so."""
    names = [cell.lower() for cell in table.rows[0]]
    called = [j for j, name in enumerate(names) if name in FILE_NAMES]
    others = [j for j, name in enumerate(names) if name not in LABEL_NAMES]

    def count(j: int) -> tuple[int, int]:
        cells = [_path(row[j]) for row in table.rows]
        return sum(_is_file(cell, known) for cell in cells), sum(cell in short for cell in cells)

    column = called[0] if len(called) == 1 else max(others or range(len(names)), key=count)
    first = _path(table.rows[0][column])
    title = first not in short and not _is_file(first, known) and table.header() is not None
    return column, bool(called) or len(others) < len(names) or title


def _is_file(name: str, known: Mapping[str, Path]) -> bool:
    return name in known or name.lower().endswith(SUFFIXES)


def _path(cell: str) -> str:
    """A path as it is written in a table, by its shortest name."""
    return posixpath.normpath(cell.replace("\\", "/"))


def _stacked(files: Sequence[Path], folder: Path) -> NDArray[np.uint8]:
    """The pixels of pictures of one size, `(n, height, width)`, or `(n, height, width, 3)` if any has colours."""
    pixels = [_pixels(path) for path in files]
    sizes = {p.shape[:2] for p in pixels}
    if len(sizes) > 1:
        first = pixels[0].shape[:2]
        other = next(i for i, p in enumerate(pixels) if p.shape[:2] != first)
        here, there = (f"{h} x {w}" for h, w in (pixels[other].shape[:2], first))
        raise InputError(f"{files[other]}: is {here} pixels, {files[0].name} is {there}; give images of one size")
    if len({p.ndim for p in pixels}) > 1:  # as colours, grey is red, green and blue alike
        pixels = [p if p.ndim == 3 else np.repeat(p[..., None], 3, axis=2) for p in pixels]
    return np.stack(pixels)


def _pixels(path: Path) -> NDArray[np.uint8]:
    """One picture's bytes, grey `(height, width)` or colours `(height, width, 3)`."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise InputError(f"{path}: reading PNG and JPEG needs Pillow; pip install 'krelax[pictures]'") from error
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(content), formats=_FORMATS) as image:
                if image.format == "PNG":
                    _check(image, content, path)
            with Image.open(BytesIO(content), formats=_FORMATS) as image:
                image.load()
                return _plain(image, path)
    except InputError:
        raise
    except Exception as error:  # Pillow has many types for what a damaged file can be
        told = "" if isinstance(error, UnidentifiedImageError) else str(error).strip()
        reason = (told.splitlines() or ["neither PNG nor JPEG" if content else "empty"])[0][:160]
        raise InputError(f"{path}: is not a picture that can be read ({reason})") from error


def _check(image: Image, content: bytes, path: Path) -> None:
    """Raises InputError, or what Pillow raises, for a PNG of which Pillow would not tell all: that it is damaged behind
    its pixels, has 16 bits in a channel, or is more pictures than one."""
    if getattr(image, "is_animated", False):
        raise InputError(f"{path}: is several pictures, one after the other; save the one that is meant")
    image.verify()
    if _END not in content:
        raise InputError(f"{path}: is not a picture that can be read (cut short)")
    if content[_DEPTH] > 8:
        raise InputError(f"{path}: has {content[_DEPTH]} bits in a channel; save it as 8-bit grey or RGB")


def _plain(image: Image, path: Path) -> NDArray[np.uint8]:
    turned = image.getexif().get(_ORIENTATION, 1)
    if turned != 1:
        what = f"is to be turned or mirrored when it is shown (Exif orientation {turned})"
        raise InputError(f"{path}: {what}, which some programs do and others do not; save it as it is meant")
    if image.mode in {"1", "L"} and "transparency" not in image.info:
        return np.asarray(image.convert("L"), dtype=np.uint8)
    if image.mode in {"1", "L", "P", "PA", "LA", "RGBA", "RGB"}:
        full = np.asarray(image.convert("RGBA"), dtype=np.uint8)
        if (full[..., 3] != 255).any():
            raise InputError(f"{path}: is transparent in places; save it without transparency")
        colours = full[..., :3]
        grey = image.mode in {"1", "L", "LA"} or (image.mode == "P" and (colours == colours[..., :1]).all())
        return colours[..., 0] if grey else colours
    raise InputError(f"{path}: has pixels of the kind {image.mode}; save it as 8-bit grey or RGB")
