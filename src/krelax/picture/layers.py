"""Layer by layer: how many neurons each method leaves undecided, and how much of their pre-activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from krelax.bounds.layers import LayerBounds
from krelax.looks import LOOKS
from krelax.picture.geometry import Array
from krelax.picture.style import drawn, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@drawn
def layers(bounds: Mapping[str, LayerBounds], item: int = 0) -> Figure:
    """For each method and activation the number of undecided neurons, and the widths of their intervals, added up:
    decided neurons cost nothing, however wide they are.

    `bounds` is what methods found of one network (`Bounded.known`); `item` chooses the region.
    """
    figure = sheet(9.0, 3.4)
    left, right = figure.subplots(1, 2)
    for name, intervals in bounds.items():
        undecided, width = of_layers(intervals, item)
        for axes, values in ((left, undecided), (right, width)):
            axes.plot(range(1, len(values) + 1), values, "o", **LOOKS[name].line, markersize=4, label=LOOKS[name].label)
    left.set(ylabel="undecided neurons", ylim=(0, None))
    right.set(yscale="log", ylabel="width of undecided, in all")
    for axes in (left, right):
        _count(axes, len(width))
    right.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=2.6)
    return figure


def of_layers(bounds: LayerBounds, item: int = 0) -> tuple[Array, Array]:
    """Numbers and total widths of the undecided neurons of all activations, in order, `(activations,)` each."""
    relaxations = [bounds.relaxations[i] for i in sorted(bounds.relaxations)]
    undecided = [r.unstable()[item] for r in relaxations]
    width = [(r.upper[item] - r.lower[item])[mask].sum() for r, mask in zip(relaxations, undecided, strict=True)]
    return np.array([float(mask.sum()) for mask in undecided]), np.array([float(w) for w in width])


def _count(axes: Axes, layers: int) -> None:
    axes.set(xlabel="activation layer", xlim=(0.8, layers + 0.2))
    axes.set_xticks(range(1, layers + 1))
