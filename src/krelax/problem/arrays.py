"""Images and labels in NumPy's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError, no_file
from krelax.problem.raw import Raw, as_pixels

# What arrays of images and of labels are called in archives; the first of each is what krelax itself writes.
IMAGES = ("images", "image", "x", "X", "x_test", "X_test", "data", "inputs", "features")
LABELS = ("labels", "label", "y", "Y", "y_test", "Y_test", "targets", "target")
_NPY = b"\x93NUMPY"
# What is asked for where there is no file of images, and what archives of them hold.
_IMAGES_GIVEN = "a folder of pictures, or an .npz, .npy or .csv file"
_PAIR = "images and labels"
# Words in the names of files of images, and those in the names of their labels.
_BESIDE = (("images", "labels"), ("image", "label"), ("data", "labels"), ("x", "y"), ("X", "Y"), ("X", "y"))


def read_archive(path: Path, needs_labels: bool = True) -> Raw:
    """Images and labels of an `.npz` file. Raises InputError."""
    arrays = read_named(path, (*IMAGES, *LABELS))
    images, labels = (_one_of(arrays, names, path) for names in (IMAGES, LABELS))
    if images is None or (labels is None and needs_labels):
        missing = "images" if images is None else "labels"
        held = ", ".join(sorted(arrays)) or "nothing"
        raise InputError(
            f"{path}: array {missing!r} is missing; the file needs `images` and `labels` (it holds {held}); "
            "labels may be in another file (--labels)"
        )
    return Raw(as_pixels(images, str(path)), labels)


def read_array(path: Path, needs_labels: bool = True) -> Raw:
    """Images of an `.npy` file, with labels of the one beside it. Raises InputError."""
    images = as_pixels(_plain(path), str(path), "the array")
    if not needs_labels:
        return Raw(images, None)
    beside = _beside(path)
    if beside is None:
        raise InputError(
            f"{path}: there are no labels beside it ({_candidates(path)[0].name}); give them with --labels"
        )
    return Raw(images, _plain(beside), notes=(f"{path}: labels from {beside.name}",))


def read_label_array(path: Path) -> NDArray[Any]:
    """Labels in an `.npy` or `.npz` file. Raises InputError."""
    if _begins_with(path, _NPY):
        return _plain(path)
    arrays = read_named(path, (*IMAGES, *LABELS), "a file of labels with --labels", "the labels")
    found = _one_of(arrays, LABELS, path)
    if found is None and len(arrays) == 1:
        (found,) = arrays.values()
    if found is None:
        raise InputError(f"{path}: array 'labels' is missing; save the labels with numpy.save")
    return found


def is_array(path: Path) -> bool:
    """Whether a file is a single array."""
    return path.suffix.lower() == ".npy" and _begins_with(path, _NPY)


def _candidates(path: Path) -> list[Path]:
    """Files in which labels of images in `path` may be: by the same name but for one word, or one more."""
    names = [f"{path.stem}_labels", f"{path.stem}-labels"]
    for images, labels in _BESIDE:
        if images in path.stem:
            head, _, tail = path.stem.rpartition(images)
            names.append(f"{head}{labels}{tail}")
    return [path.with_name(f"{name}.npy") for name in [*names[2:], *names[:2], "labels"]]


def _beside(path: Path) -> Path | None:
    return next((other for other in _candidates(path) if other != path and other.is_file()), None)


def _plain(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except Exception as error:  # zip, zlib and NumPy each raise their own types
        raise InputError(f"{path}: not a plain array ({what_it_is(path, error)})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: not a plain array; save it with numpy.save")
    return array


def _one_of(arrays: dict[str, NDArray[Any]], names: tuple[str, ...], path: Path) -> NDArray[Any] | None:
    """The only array with one of these names, the first name before all others; None if there is none."""
    if names[0] in arrays:
        return arrays[names[0]]
    found = [name for name in names if name in arrays]
    if len(found) > 1:
        raise InputError(f"{path}: arrays {' and '.join(found)} may each be the {names[0]}; call one {names[0]!r}")
    return arrays[found[0]] if found else None


def read_named(
    path: Path, wanted: tuple[str, ...], given: str = _IMAGES_GIVEN, saved: str = _PAIR
) -> dict[str, NDArray[Any]]:
    """The arrays of these names in an `.npz` file, or the only one that there is. Raises InputError, which says what is
    to be given, and what such a file is to hold."""
    if not path.is_file():
        raise no_file(path, given)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
            arrays = {name: archive[name] for name in wanted if name in names}
            if not arrays and len(names) == 1:
                arrays = {names[0]: archive[names[0]]}
    except Exception as error:
        raise InputError(f"{path}: not an .npz file of plain arrays ({what_it_is(path, error, saved)})") from error
    for name, array in arrays.items():
        if names.count(name) > 1:
            raise InputError(f"{path}: array {name!r} is there twice; save the file again with numpy.savez")
        if not isinstance(array, np.ndarray):  # the bytes of what is no .npy file
            raise InputError(f"{path}: {name!r} is not an array; save {saved} with numpy.savez")
    return arrays


def _begins_with(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


def what_it_is(path: Path, error: Exception, saved: str = _PAIR) -> str:
    """What a file is instead, or what is wrong with it. NumPy suggests to unpickle whatever it does not know."""
    try:
        with path.open("rb") as file:
            begin = file.read(512)
    except OSError as unreadable:
        return f"it cannot be read: {unreadable.strerror}"
    for magic, what in _KINDS.items():
        if begin.startswith(magic):
            return what.format(saved=saved)
    if not begin.startswith(b"PK"):
        return _not_a_zip(begin, saved)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return "its arrays hold Python objects; save numbers" if "pickle" in lines[0] else lines[0][:160]


def _not_a_zip(begin: bytes, saved: str) -> str:
    what = "it is no zip archive" if begin else "it is empty"
    if begin and not any(byte < 9 or 13 < byte < 32 for byte in begin):
        what = "it is text with commas, perhaps CSV; call it .csv" if b"," in begin else "it is text"
    return f"{what}; save {saved} with numpy.savez"


_KINDS = {
    _NPY: "it is one plain array (.npy); call it .npy, or save {saved} with numpy.savez",
    b"\x1f\x8b": "it is compressed with gzip; unpack it",
    b"version https://git-lfs": "it is a git-lfs pointer; fetch the file itself with git lfs pull",
    b"\x89HDF": "it is an HDF5 file; save the arrays with numpy.savez",
    b"\x80": "it is a Python pickle, which is not read; save the arrays with numpy.savez",
}
