"""Which axis of an input has the channels."""

from __future__ import annotations

import pytest

from krelax.errors import InputError
from krelax.problem.shown import Shown


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 1, 1, 1), Shown(1, 1, 1)),
        ((1, 3, 1, 5), Shown(3, 1, 5)),
        ((1, 3, 5, 1), Shown(1, 3, 5, last=True)),
        ((1, 4, 4, 1), Shown(1, 4, 4, last=True)),
        ((1, 1, 4, 5), Shown(1, 4, 5)),
        ((1, 4, 8, 3), Shown(4, 8, 3)),
        ((1, 6, 8, 3), Shown(3, 6, 8, last=True)),
        ((3, 1, 6, 8), Shown(3, 6, 8)),
        ((784, 1), Shown(1, 28, 28)),
        ((6, 8), Shown(1, 6, 8)),
    ],
)
def test_axes_of_images(shape: tuple[int, ...], expected: Shown) -> None:
    assert Shown.of(shape) == expected


@pytest.mark.parametrize("shape", [(7,), (1, 2, 5, 5), (2, 3, 4, 5)])
def test_other_inputs_are_no_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="no images with 1, 3 or 4 channels"):
        Shown.of(shape)
