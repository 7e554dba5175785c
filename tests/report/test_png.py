"""Pictures hold the pixels that they were given."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from krelax.report.png import arranged, difference, form, png, shades

Image = pytest.importorskip("PIL.Image")  # comes with matplotlib


def read(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (3, 5), (7, 4, 3)])
def test_pixels_survive(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(read(png(pixels)), pixels)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((1, 8, 8), (8, 8)),
        ((8, 8, 1), (8, 8)),
        ((784,), (28, 28)),
        ((1, 3072), (3, 32, 32)),
        ((3, 32, 32), (3, 32, 32)),
        ((32, 32, 3), (32, 32, 3)),
        ((5,), None),
        ((4,), None),
        ((10,), None),
        ((2, 8, 8), None),
        ((3, 3, 3, 3), None),
    ],
)
def test_which_inputs_are_pictures(shape: tuple[int, ...], wanted: tuple[int, ...] | None) -> None:
    assert form(shape) == wanted


def test_colours_come_last() -> None:
    values = np.arange(12.0)
    assert arranged(values, (3, 2, 2)).tolist() == values.reshape(3, 2, 2).transpose(1, 2, 0).tolist()
    assert arranged(values, (2, 2, 3)).tolist() == values.reshape(2, 2, 3).tolist()


def test_shades_stay_in_range() -> None:
    assert shades(np.array([[-1.0, 0.0, 0.5, 1.0, 9.0]]), 0, 1).tolist() == [[0, 0, 128, 255, 255]]
    assert shades(np.array([[2.0]]), 2, 2).tolist() == [[0]]


def test_the_sign_of_a_change_is_its_colour() -> None:
    change, size = difference(np.array([[-0.1, 0.0, 0.05, 0.1]]))
    assert size == pytest.approx(0.1)
    less, none, half, more = change[0].tolist()
    assert none == [255, 255, 255]
    assert less[2] > less[0]  # blue
    assert more[0] > more[2]  # red
    assert np.array(half) == pytest.approx((np.array(none) + np.array(more)) / 2, abs=1)
    same, size = difference(np.zeros((2, 2, 3)))
    assert (size, np.unique(same).tolist()) == (0.0, [128])
