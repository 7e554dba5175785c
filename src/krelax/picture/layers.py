"""Layer by layer: how wide the intervals are that each method proves, and how many neurons it leaves undecided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from krelax.bounds.intervals import Intervals
from krelax.picture.geometry import Array
from krelax.picture.style import LOOKS, drawn, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@drawn
def layers(known: Mapping[str, Intervals], item: int = 0) -> Figure:
    """For each method the mean width of the intervals of every activation, and the number of undecided neurons.

    `known` is what methods found of one network (`Bounded.known`); `item` chooses the region.
    """
    figure = sheet(9.0, 3.4)
    left, right = figure.subplots(1, 2)
    for name, intervals in known.items():
        width, undecided = of_layers(intervals, item)
        for axes, values in ((left, width), (right, undecided)):
            axes.plot(range(1, len(values) + 1), values, "o", **LOOKS[name].line, markersize=4, label=LOOKS[name].label)
    left.set(yscale="log", ylabel="mean width of pre-activations")
    right.set(ylabel="undecided neurons", ylim=(0, None))
    for axes in (left, right):
        _count(axes, len(width))
    right.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=2.6)
    return figure


def of_layers(known: Intervals, item: int = 0) -> tuple[Array, Array]:
    """Mean widths and numbers of undecided neurons of all activations, in order, `(activations,)` each."""
    relaxations = [known.relaxations[i] for i in sorted(known.relaxations)]
    width = [float((r.upper[item] - r.lower[item]).mean()) for r in relaxations]
    return np.array(width), np.array([float(r.unstable()[item].sum()) for r in relaxations])


def _count(axes: Axes, layers: int) -> None:
    axes.set(xlabel="activation layer", xlim=(0.8, layers + 0.2))
    axes.set_xticks(range(1, layers + 1))
