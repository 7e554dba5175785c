"""Pictures of what transformations make of images."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krelax
from krelax.network.onnx import load_onnx
from krelax.picture import gallery, planes
from krelax.problem.regions import Transformed
from krelax.search.transformed import Surroundings

Legible = Callable[[Any], list[str]]


def test_images_stand_beside_each_other_with_their_titles(legible: Legible) -> None:
    images = [("as it is", np.eye(4)), ("in colours", np.ones((4, 4, 3)) / 2)]
    figure = gallery(images)
    assert legible(figure) == ["as it is", "in colours"]
    assert [axes.images[0].get_array().shape for axes in figure.axes] == [(4, 4), (4, 4, 3)]
    assert legible(gallery(images[:1])) == ["as it is"]


def test_a_pixel_lies_between_the_planes_of_every_part(legible: Legible) -> None:
    network = load_onnx(Path(str(files("krelax"))) / "data" / "digits_conv.onnx", check=False)
    image = np.random.default_rng(1).random(network.input_shape)
    spec = krelax.read_region("rotate:40")
    assert isinstance(spec, Transformed)
    op = Surroundings(network, image, 0, spec, ends=(Fraction(0), Fraction(1))).op
    figure = planes(op, (0, 1, 2), -40.0, 40.0)
    drawn = legible(figure)
    assert {"one box", "4 boxes", "value of the pixel"} <= set(drawn)
    for axes, count in zip(figure.axes, (1, 4), strict=True):
        assert len(axes.collections) == count
        *sides, value = [np.array(line.get_data(), float) for line in axes.lines]
        assert len(sides) == 2 * count
        for below, above in zip(sides[::2], sides[1::2], strict=True):
            at, pixel = value[:, (value[0] >= below[0, 0]) & (value[0] <= below[0, -1])]
            assert (pixel >= np.interp(at, *below) - 1e-9).all()
            assert (pixel <= np.interp(at, *above) + 1e-9).all()
    assert pytest.approx(value[0, 0]) == -40
