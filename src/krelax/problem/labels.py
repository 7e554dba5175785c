"""Labels as people write them, and the numbers of classes that they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError

Place = Callable[[int], str]

_MOST_SHOWN = 12
_WHOLE = re.compile(r"-?[0-9]{1,29}(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def class_numbers(
    labels: NDArray[Any], where: str, place: Place, names: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], int | None, tuple[str, ...]]:
    """Numbers of classes from whole numbers of any type, one-hot rows, or text.

    Text that is all whole numbers, as `1.0` is, is these numbers. Other text must be among `names`, the classes in
    order; where there are none it is sorted, and must not be numbers. Returns the numbers, `(n,)`, how many classes the
    labels tell of (None if they do not), and what was understood without being told. Raises InputError, which says
    where, for anything else.
    """
    if labels.ndim < 3 and labels.dtype.kind == "f" and _is_exact(labels):
        labels = labels.astype(np.int64)
    if labels.ndim == 2 and labels.shape[1] == 1 and np.issubdtype(labels.dtype, np.integer):
        labels = labels[:, 0]  # a column of numbers, as some data sets have it
    if labels.ndim == 2 and labels.shape[1] > 1:
        return _hot(labels, where, place), labels.shape[1], ()
    if labels.ndim == 1 and labels.dtype.kind in "US":
        return _named([str(label).strip() for label in labels.astype(str)], where, place, names)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        what = f"got {labels.dtype} {list(labels.shape)}"
        raise InputError(f"{where}: `labels` must be a list of integers, {what}; one-hot rows and names do as well")
    return _whole(labels, where, place), None, ()


def _whole(labels: NDArray[Any], where: str, place: Place) -> NDArray[np.int64]:
    whole = labels.astype(np.int64)
    wrong = np.flatnonzero(whole < 0)
    if len(wrong):
        label = labels[wrong[0]]  # unsigned numbers beyond int64 are negative ones there
        what = "too large for a class" if label > 0 else "negative; classes count from 0"
        raise InputError(f"{where}: label {label} of {place(int(wrong[0]))} is {what}")
    return whole


def _hot(labels: NDArray[Any], where: str, place: Place) -> NDArray[np.int64]:
    """Where the one of every row is."""
    if labels.dtype.kind not in "biuf":
        raise InputError(f"{where}: rows of labels must be one-hot numbers, got {labels.dtype}")
    fine = ((labels == 0) | (labels == 1)).all(1) & ((labels == 1).sum(1) == 1)
    if not fine.all():
        wrong = int(np.flatnonzero(~fine)[0])
        raise InputError(f"{where}: the label of {place(wrong)} is not one-hot: a single 1, and otherwise 0")
    return np.asarray((labels == 1).argmax(1), dtype=np.int64)


def _named(
    labels: list[str], where: str, place: Place, names: Sequence[str] | None
) -> tuple[NDArray[np.int64], int | None, tuple[str, ...]]:
    if names is None and all(map(_is_whole, labels)):
        numbers = [int(label.partition(".")[0]) for label in labels]
        wrong = next((i for i, n in enumerate(numbers) if not 0 <= n < 2**63), None)
        if wrong is not None:
            what = "negative; classes count from 0" if numbers[wrong] < 0 else "too large for a class"
            raise InputError(f"{where}: label {labels[wrong]} of {place(wrong)} is {what}")
        return np.array(numbers, dtype=np.int64), None, ()
    number = next((i for i, label in enumerate(labels) if names is None and _NUMBER.fullmatch(label)), None)
    if number is not None:
        what = "a number among names" if not all(map(_NUMBER.fullmatch, labels)) else "no whole number"
        raise InputError(f"{where}: label {labels[number]!r} of {place(number)} is {what}; give the names (--classes)")
    order = sorted(set(labels)) if names is None else list(names)
    numbered = {name: i for i, name in enumerate(order)}
    for i, label in enumerate(labels):
        if label not in numbered:
            raise InputError(f"{where}: label {label!r} of {place(i)} is not one of the classes {_shown(order)}")
    note = (f"{where}: classes by name: {', '.join(f'{i} {name}' for name, i in numbered.items())}",)
    found = np.array([numbered[label] for label in labels], dtype=np.int64)
    return found, len(order), note if names is None else ()


def _is_exact(labels: NDArray[Any]) -> bool:
    """Whether floats are whole numbers that they hold exactly."""
    return bool(((labels == np.rint(labels)) & (np.abs(labels) < 2**53)).all())


def _is_whole(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_SHOWN]) + (", ..." if len(names) > _MOST_SHOWN else "")


def check_classes(labels: NDArray[np.int64], told: int | None, classes: int, where: str, place: Place) -> None:
    """Raises InputError for labels that are no classes of a network with so many outputs."""
    if told is not None and told != classes:
        remedy = "give the names of all classes in the order of the outputs, one a line (--classes)"
        raise InputError(f"{where}: the labels tell of {told} classes, the network of {classes}; {remedy}")
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        first = int(wrong[0])
        raise InputError(f"{where}: label {labels[first]} of {place(first)} is not a class 0 to {classes - 1}")


def read_names(path: Path) -> list[str]:
    """Names of classes, one a line, in the order of a network's outputs. Raises InputError."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: cannot be read ({reason}); give the names of the classes, one a line") from error
    names = [line for line in lines if line]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None or not names:
        what = "holds no names" if not names else f"has the class {twice!r} twice"
        raise InputError(f"{path}: {what}; give the names of the classes, one a line")
    return names
