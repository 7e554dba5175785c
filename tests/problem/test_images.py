"""Images reach the network exactly as its float32 input, or not at all."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.marks import at_night_after

from krelax.cli.shared import bundled
from krelax.errors import InputError
from krelax.problem.images import Images, load_images

SHAPE = (1, 2, 3)
BYTES = np.arange(36, dtype=np.uint8).reshape(6, 2, 3) * 7
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Images]:
    """Write arrays and read them as inputs of shape `SHAPE` with three classes."""

    def write_and_load(save: Callable[..., None] = np.savez, **arrays: Any) -> Images:
        save(tmp_path / "data.npz", **{"images": BYTES, "labels": LABELS} | arrays)
        return load_images(tmp_path / "data.npz", SHAPE, 3)

    return write_and_load


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_bytes_are_scaled_in_float32(load: Callable[..., Images], save: Callable[..., None]) -> None:
    """As frameworks do it: one float32 division, so that every pixel is the float32 nearest to k / 255."""
    data = load(save)
    assert (data.images.dtype, data.images.shape, len(data)) == (np.float32, (6, *SHAPE), 6)
    np.testing.assert_array_equal(data.images.flatten(), (BYTES.flatten() / 255).astype(np.float32))


def test_every_byte_is_the_nearest_float32(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=np.arange(256, dtype=np.uint8)[:, None], labels=np.zeros(256, int))
    found = load_images(tmp_path / "data.npz", (1,), 2).images.flatten()
    np.testing.assert_array_equal(found, (np.arange(256) / 255).astype(np.float32))
    assert (found.min(), found.max()) == (0, 1)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floating_images_are_taken_as_they_are(load: Callable[..., Images], kind: type) -> None:
    given: Any = np.random.default_rng(0).normal(size=(6, *SHAPE)).astype(kind) * 100
    data = load(images=given)
    assert data.images.dtype == np.float32
    np.testing.assert_array_equal(data.images, given.astype(np.float32))


@pytest.mark.parametrize("shape", [(6, 6), (6, 1, 2, 3), (6, 2, 3), (6, 1, 1, 6), (6, 2, 3, 1)])
def test_axes_of_size_one_and_flat_images(load: Callable[..., Images], shape: tuple[int, ...]) -> None:
    data = load(images=BYTES.reshape(shape))
    np.testing.assert_array_equal(data.images, load().images)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, np.uint64])
def test_labels_of_any_integer_type(load: Callable[..., Images], kind: type) -> None:
    data = load(labels=LABELS.astype(kind))
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == LABELS.tolist()


def test_other_arrays_are_ignored(load: Callable[..., Images]) -> None:
    assert len(load(names=np.array(["a", "b"]), labels_of_old=np.array([object()], dtype=object))) == 6


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": BYTES.astype(np.int16)}, "type int16; use uint8"),
        ({"images": BYTES.astype(">c8")}, "type complex64|type >c8"),
        ({"images": BYTES > 3}, "type bool"),
        ({"images": np.zeros((6, 0), np.float32)}, "do not fit"),
        ({"images": np.full((6, 6), np.nan)}, "NaN"),
        ({"images": np.full((6, 6), 1e39)}, "float32"),
        ({"labels": LABELS > 0}, "list of integers, got bool"),
        ({"labels": LABELS + 0.5}, "got float64"),
        ({"labels": LABELS + 1}, "label 3 of image 2 is not a class 0 to 2"),
        ({"labels": np.full(6, 2**64 - 1, np.uint64)}, f"label {2**64 - 1} of image 0 is too large"),
        ({"labels": LABELS[:5]}, "6 images but 5 labels"),
        ({"labels": np.array(3)}, "list of integers"),
    ],
)
def test_what_does_not_fit_is_named(load: Callable[..., Images], arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(**arrays)
    assert "data.npz: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("step", at_night_after(1, [4, 1]))
def test_damaged_files_are_input_errors(tmp_path: Path, step: int) -> None:
    """Whatever byte is wrong, every fourth by day: either the archive is refused or its contents are what was written
    or fit anyway."""
    path = tmp_path / "data.npz"
    np.savez_compressed(path, images=BYTES, labels=LABELS)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), step):
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]):
            path.write_bytes(content)
            try:
                assert len(load_images(path, SHAPE, 3)) == 6
            except InputError as error:
                refused += "\n" not in str(error)
    assert refused > len(whole) / step


def test_bundled_images() -> None:
    data = load_images(bundled("digits_test.npz"), (1, 1, 8, 8), 10)
    assert len(data) == 360
    assert set(data.labels.tolist()) == set(range(10))


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("images.npy", b"pixels"), ("labels.npy", npy(LABELS))], "'images' is not an array"),
        ([("images.npy", npy(BYTES)), ("labels.npy", b"")], "'labels' is not an array"),
        ([("images.npy", npy(BYTES)), ("images", npy(BYTES + 1)), ("labels.npy", npy(LABELS))], "'images' is there tw"),
        ([("images.npy", npy(BYTES)), ("labels.npy", npy(LABELS)), ("labels", npy(LABELS))], "'labels' is there twice"),
    ],
)
def test_entries_that_are_no_arrays_or_are_there_twice(
    tmp_path: Path, entries: list[tuple[str, bytes]], words: str
) -> None:
    """NumPy gives the bytes of the one, and the last of the others."""
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as file:
        for name, content in entries:
            file.writestr(name, content)
    with pytest.raises(InputError, match=words):
        load_images(tmp_path / "data.npz", SHAPE, 3)
