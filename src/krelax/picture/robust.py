"""How robust an image is, and a data set: radii and shares that each method certifies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from krelax.looks import FAINT, LOOKS, stairs
from krelax.picture.geometry import Array
from krelax.picture.style import drawn, number, on, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@drawn
def radius(
    image: Array, perturbed: Array, radii: Mapping[str, float], attacked: float | None = None, says: str = ""
) -> Figure:
    """An image and a perturbed one, `(height, width)` or `(height, width, 3)` with values in [0, 1], beside the radius
    that each method certifies.

    `attacked` is a radius at which an attack succeeded, so that no method can certify it; the perturbed image should be
    that attack's. `says` is what the network says of it.
    """
    figure = sheet(9.0, 2.7)
    one, two, bars = figure.subplots(1, 3, width_ratios=(1, 1, 2.2))
    for axes, pixels, title in ((one, image, "image"), (two, perturbed, says or "perturbed")):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=(), yticks=(), title=title)
        for side in axes.spines.values():
            side.set_visible(True)
    _bars(bars, radii, attacked)
    return figure


def _bars(axes: Axes, radii: Mapping[str, float], attacked: float | None) -> None:
    """One bar for each method, from the top in the order given."""
    for y, (name, value) in enumerate(radii.items()):
        axes.barh(y, value, 0.62, color=LOOKS[name].colour)
        axes.annotate(number(value, 3), (value, y), (4, 0), textcoords="offset points", va="center", fontsize=9)
    most = max([*radii.values(), attacked or 0.0])
    axes.set(ylim=(len(radii) - 0.4, -0.6), xlim=(0, 1.18 * most), xlabel="certified radius")
    axes.set_yticks(range(len(radii)), [LOOKS[name].label for name in radii])
    axes.tick_params(axis="y", length=0)
    if attacked is not None:
        axes.axvline(attacked, **LOOKS["attack"].line)
        axes.set_title(f"an attack succeeds at {number(attacked, 3)}")


_VERDICTS = {"holds": "alpha", "violated": "krelu", "unknown": "interval"}  # whose colours these have


@drawn
def margins(values: Sequence[float], verdicts: Sequence[str]) -> Figure:
    """The margin that is known of each image, from the smallest to the largest, coloured by its verdict; none where
    nothing was bounded."""
    figure = sheet(6.4, 3.2)
    axes = figure.subplots()
    order = np.argsort(np.array(values, dtype=float))
    for verdict, look in _VERDICTS.items():
        place = [i for i, j in enumerate(order) if verdicts[j] == verdict]
        heights = [values[order[i]] for i in place]
        if place:
            axes.bar(place, heights, 1.0, color=LOOKS[look].colour, label=f"{verdict} ({len(place)})")
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set(xlabel="images, by margin", ylabel="lower bound of the margin", yscale="symlog")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
    return figure


@drawn
def shares(
    table: Mapping[str, Sequence[tuple[float, float]]],
    attacked: Sequence[tuple[float, float]] | None = None,
    axes: Axes | None = None,
    steps: bool = False,
) -> Figure:
    """The certified share of a data set against the radius: for each method rows (eps, share between 0 and 1).

    `attacked` has the share that nothing refutes, which bounds every certified share from above; what lies between
    it and the best method is not known. With `steps` rows are of all radii where a share changes, the same for all.
    Without, they are joined by lines.
    """
    figure, axes = on(axes, 6.4, 3.6)
    if attacked is not None:
        best = np.max([np.interp(np.array(attacked)[:, 0], *np.array(rows).T) for rows in table.values()], axis=0)
        below = [(eps, share) for (eps, _), share in zip(attacked, best.tolist(), strict=True)]
        if steps:
            attacked, below = stairs(attacked, after=True), stairs(below, after=False)
        eps, share = np.array(attacked).T
        axes.plot(eps, 100 * share, **LOOKS["attack"].line, label="not refuted")
        outline = np.array([*attacked, *below[::-1]])
        axes.fill(outline[:, 0], 100 * outline[:, 1], color=FAINT, linewidth=0)
    for name, rows in table.items():
        eps, share = np.array(stairs(rows, after=False) if steps else rows).T
        style = LOOKS[name].line | ({} if steps else {"marker": "o", "markersize": 3.5})
        axes.plot(eps, 100 * share, **style, label=f"certified by {LOOKS[name].label}")
    axes.set(xlabel="radius", ylabel="images, %", ylim=(-2, 102))
    axes.set_xlim(left=0.0)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=2.6)
    return figure
