"""Two outputs of a network: what inputs reach, and the outline that each method certifies around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.instance import Instance
from krelax.bounds.methods import Method, bound
from krelax.looks import BLACK, LOOKS
from krelax.picture.geometry import Array, area, within
from krelax.picture.style import drawn, number, on
from krelax.problem.queries import Queries

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@drawn
def reachable(
    points: Array, outlines: Mapping[str, Array], names: Sequence[str] = ("y_1", "y_2"), axes: Axes | None = None
) -> Figure:
    """Outputs that inputs of the region reach, `(n, 2)`, and for each method the corners of an outline around all of
    them, as `certified` finds it. The legend says how large the areas are.
    """
    figure, axes = on(axes, 6.2, 4.1)
    axes.plot(*points.T, ".", color=BLACK, markersize=1.2, rasterized=True, label="reached by samples")
    for name, corners in outlines.items():
        text = f"{LOOKS[name].label}: {number(area(corners))}"
        axes.plot(*np.concatenate([corners, corners[:1]]).T, **LOOKS[name].line, label=text)
    axes.set(xlabel=f"${names[0]}$", ylabel=f"${names[1]}$")
    axes.legend(title="area", loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=2.6, markerscale=5)
    return figure


def certified(instance: Instance, method: Method, outputs: tuple[int, int] = (0, 1), directions: int = 48) -> Array:
    """The corners, `(n, 2)`, of a polygon that contains two outputs for every input of the one region: one bound for
    each direction, evenly spread.
    """
    angle = torch.arange(directions, dtype=torch.float64) * (2 * torch.pi / directions)
    normals = torch.stack([angle.cos(), angle.sin()], -1)
    rows = torch.zeros(1, directions, prod(instance.network.output_shape), dtype=torch.float64)
    rows[0, :, list(outputs)] = -normals
    clause = torch.zeros(1, directions, dtype=torch.int64)
    found = bound(instance, Queries(rows, torch.zeros(1, directions).double(), clause, 1), method)
    return within(normals.numpy(), -found.value[0].numpy())


def sampled(instance: Instance, count: int, outputs: tuple[int, int] = (0, 1), seed: int = 0) -> Array:
    """Two outputs at `count` inputs of the one region, drawn at random, `(count, 2)`."""
    region, generator = instance.region, torch.Generator().manual_seed(seed)
    share = torch.rand(1, count, *region.lower.shape[1:], generator=generator, dtype=torch.float64)
    low, high = region.lower.unsqueeze(1), region.upper.unsqueeze(1)
    x: Tensor = region.project(low + share * (high - low))[0]
    y: Array = instance.network(x).flatten(1)[:, list(outputs)].numpy()
    return y
