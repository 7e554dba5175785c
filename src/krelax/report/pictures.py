"""Pictures of the images of a run, as far as a page can hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from krelax.problem.scaling import Scaling
from krelax.report.axes import number
from krelax.report.html import Html, element
from krelax.report.png import address, arranged, difference, form, shades
from krelax.report.results import Record

MOST_BYTES = 2_000_000  # of all pictures of a page


@dataclass(frozen=True)
class Shown:
    """Pictures of one image as addresses: itself, and its counterexample with the change and what its colours mean."""

    image: str
    counterexample: str = ""
    change: str = ""
    legend: str = ""

    def __len__(self) -> int:
        return len(self.image) + len(self.counterexample) + len(self.change)


def drawn(
    images: NDArray[np.float32],
    records: Sequence[Record],
    clip: Sequence[float] | None,
    scaling: Scaling | None = None,
) -> dict[int, Shown]:
    """Pictures by index, of refuted images first, until the page is full; none if the inputs are no pictures.
    Counterexamples are what `scaling` makes of pictures."""
    shape = form(images.shape[1:])
    if shape is None:
        return {}
    low, high = clip or (float(images.min()), float(images.max()))
    found, room = {}, MOST_BYTES
    for record in sorted(records, key=lambda r: "counterexample" not in r):
        found_x = record.get("counterexample", {}).get("x")
        if found_x is not None and scaling is not None:
            found_x = scaling.pixels(found_x, images.shape[1:])
        shown = _draw(images[record["index"]], shape, found_x, low, high)
        room -= len(shown)
        if room < 0:
            break
        found[record["index"]] = shown
    return found


def _draw(
    image: NDArray[np.float32], shape: tuple[int, ...], found: Sequence[float] | None, low: float, high: float
) -> Shown:
    original = arranged(image.astype(np.float64), shape)
    picture = address(shades(original, low, high))
    if found is None:
        return Shown(picture)
    other = arranged(np.array(found, dtype=np.float64), shape)
    change, size = difference(other - original)
    legend = f"difference, grey is none, full colour is ±{number(size)}"
    if change.shape != original.shape:
        legend = f"difference, blue {number(-size)} to red {number(size)}"
    return Shown(picture, address(shades(other, low, high)), address(change), legend)


def picture(source: str, says: str, class_: str) -> Html:
    return element("img", src=source, alt=says, class_=class_, loading="lazy")
