"""A bound while it is optimised: how fast it rises, and which bounds it leaves behind."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from krelax.bounds.backward import outputs
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.optimise import Ascent, ascend
from krelax.looks import LOOKS
from krelax.picture.style import drawn, sheet
from krelax.problem.queries import Queries

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Progress:
    """The worst margin at every step, as proposed (in float32, before any rounding is charged), and the seconds from
    the start."""

    values: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)

    def __call__(self, value: Tensor) -> bool:
        """Note the bounds of all margins, `(1, queries)`; nothing is ever done."""
        self.values.append(float(value.amin()))
        self.seconds.append(time.perf_counter() - self.start)
        return False


def watched(instance: Instance, queries: Queries, bounds: LayerBounds, ascent: Ascent) -> Progress:
    """The ascent on the margins of one question over what is known of its region, with its groups if it has any."""
    network = instance.fast_network
    form = outputs(network, queries.rows.to(network.dtype), queries.offsets.to(network.dtype))
    progress = Progress()
    with torch.no_grad():
        ascend(instance, form, bounds.to(network.dtype, instance.network), ascent, progress)
    return progress


@drawn
def progress(runs: Mapping[str, Progress], levels: Mapping[str, float] | None = None, seconds: bool = True) -> Figure:
    """The worst margin against steps, and with `seconds` against time; horizontal lines at the `levels` of methods that
    need no ascent. Above zero the property is proven.
    """
    figure = sheet(9.0 if seconds else 5.6, 3.4)
    panels = figure.subplots(1, 2 if seconds else 1, sharey=True, squeeze=False)[0]
    for axes in panels:
        axes.axhline(0, color=LOOKS["exact"].colour, linewidth=0.8, zorder=0)
        for name, level in (levels or {}).items():
            axes.axhline(level, **LOOKS[name].line, label=LOOKS[name].label)
    for name, run in runs.items():
        panels[0].plot(run.values, **LOOKS[name].line, label=LOOKS[name].label)
        if seconds:
            panels[1].plot(run.seconds, run.values, **LOOKS[name].line, label=LOOKS[name].label)
            panels[1].set_xlabel("seconds")
    panels[0].set(xlabel="step", ylabel="lower bound of the worst margin")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=2.6)
    return figure
