"""What transformations make of an image, and between which planes pixels are taken to lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from krelax.activations.base import Rule
from krelax.activations.transformed import Transformed
from krelax.looks import LOOKS
from krelax.picture.geometry import Array
from krelax.picture.style import drawn, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 400


@drawn
def gallery(images: Sequence[tuple[str, Array]]) -> Figure:
    """Images `(height, width)` or `(height, width, 3)` with values in [0, 1], side by side with their titles."""
    figure = sheet(1.25 * len(images), 1.6)
    for axes, (title, pixels) in zip(np.atleast_1d(figure.subplots(1, len(images))), images, strict=True):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=(), yticks=())
        axes.set_title(title, fontsize=8)
        for side in axes.spines.values():
            side.set_visible(True)
    return figure


@drawn
def planes(
    op: Transformed, pixel: tuple[int, int, int], low: float, high: float, parts: Sequence[int] = (1, 4)
) -> Figure:
    """A pixel, `(channel, row, column)`, as a function of the only parameter of a transformation, and the lines
    that it is proven to lie between over the whole range, and over equal parts of it."""
    figure = sheet(4.2 * len(parts), 2.9)
    shape = (*op.picture.pixels.shape, 1)
    at = torch.linspace(low, high, _POINTS, dtype=torch.float64)
    value = op.forward(at.reshape(-1, 1, 1, 1, 1).expand(-1, *shape))[:, *pixel]
    for axes, count in zip(np.atleast_1d(figure.subplots(1, len(parts), sharey=True)), parts, strict=True):
        faces = torch.linspace(low, high, count + 1, dtype=torch.float64)
        sides = (t.reshape(-1, 1, 1, 1, 1).expand(-1, *shape) for t in (faces[:-1], faces[1:]))
        lines = op.relax(*sides).lines_by(Rule.ADAPTIVE)
        assert lines.below is not None
        for i in range(count):
            x = faces[i : i + 2]
            slope = lines.lower[i, 0, *pixel, 0]
            ends = (slope * x - lines.below[i, 0, *pixel], slope * x + lines.above[i, 0, *pixel])
            axes.fill_between(x, *ends, alpha=0.25, color=LOOKS["crown"].colour, linewidth=0)
            for end in ends:
                axes.plot(x, end, color=LOOKS["crown"].colour, linewidth=1)
        axes.plot(at, value, color="black", linewidth=1.4)
        title = "one box" if count == 1 else f"{count} boxes"
        axes.set(xlabel=op.steps[0].parameters[0], title=title)
    figure.axes[0].set_ylabel("value of the pixel")
    return figure
