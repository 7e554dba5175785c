"""Labels and images in files of arrays: which array is meant, and what files are instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krelax.errors import InputError
from krelax.problem.arrays import read_label_array, read_named

LABELS = np.array([3, 1, 2])


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "file.npz", **arrays)
    return folder / "file.npz"


@pytest.mark.parametrize("names", [["labels", "images"], ["y"], ["anything"]])
def test_labels_are_found_by_their_name_or_are_all_that_is_there(names: list[str], tmp_path: Path) -> None:
    path = saved(tmp_path, **{name: np.zeros((3, 2)) if name == "images" else LABELS for name in names})
    assert read_label_array(path).tolist() == LABELS.tolist()
    np.save(tmp_path / "alone.npy", LABELS)
    assert read_label_array(tmp_path / "alone.npy").tolist() == LABELS.tolist()


def test_labels_that_may_be_several_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"arrays .* and .* may each be the labels; call one 'labels'"):
        read_label_array(saved(tmp_path, y=LABELS, targets=LABELS))
    with pytest.raises(InputError, match="array 'labels' is missing"):
        read_label_array(saved(tmp_path, one=LABELS, other=LABELS))


def test_what_is_no_array_is_called_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_named(tmp_path / "missing.npz", ("images",))
    np.save(tmp_path / "cut.npy", LABELS)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-4])
    with pytest.raises(InputError, match="not a plain array"):
        read_label_array(tmp_path / "cut.npy")
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    with pytest.raises(InputError, match="not a plain array"):
        read_label_array(tmp_path / "objects.npy")
