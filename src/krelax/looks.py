"""How methods look: the one table of colours and line styles, for figures and pages alike.

The colours are those of Okabe and Ito (2008), which people with any colour vision tell apart; methods that share a
colour, or have shades of one, are of one family and differ in their line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

BLACK, GREY, ORANGE, GREEN = "#000000", "#7F7F7F", "#E69F00", "#009E73"
SKY, BLUE, VERMILION, PURPLE = "#56B4E9", "#0072B2", "#D55E00", "#CC79A7"
RUST, MAROON = "#9F3A00", "#5C1A00"  # vermilion for more neurons, darker and darker
SOLID, DASHED, DOTTED, MIXED = "-", (0.0, (5.0, 2.0)), (0.0, (1.2, 1.6)), (0.0, (6.0, 2.0, 1.2, 2.0))
PALE, FAINT = "#BBBBBB", "#E3E3E3"  # lines that only guide the eye, and the inside of exact sets

Dash = str | tuple[float, tuple[float, ...]]


@dataclass(frozen=True)
class Look:
    """Colour, line style and name of a method, or of a set of the same kind."""

    colour: str
    dash: Dash
    label: str

    @property
    def line(self) -> dict[str, Any]:
        """As keywords of a line."""
        return {"color": self.colour, "linestyle": self.dash}


LOOKS: dict[str, Look] = {
    "exact": Look(BLACK, SOLID, "exact"),
    "interval": Look(GREY, DOTTED, "interval"),
    "zonotope": Look(ORANGE, MIXED, "zonotope"),
    "fast-lin": Look(ORANGE, DOTTED, "Fast-Lin"),
    "fixed0": Look(GREEN, DOTTED, "fixed slope 0"),
    "fixed1": Look(GREEN, MIXED, "fixed slope 1"),
    "crown-ibp": Look(SKY, DASHED, "CROWN-IBP"),
    "crown": Look(GREEN, DASHED, "CROWN"),
    "alpha": Look(SKY, SOLID, "alpha"),
    "lp": Look(BLUE, DASHED, "triangle LP"),
    "krelu": Look(VERMILION, SOLID, "2-ReLU"),
    "krelu3": Look(RUST, DASHED, "3-ReLU"),
    "krelu4": Look(MAROON, DOTTED, "4-ReLU"),
    "lp-krelu": Look(VERMILION, MIXED, "2-ReLU LP"),
    "split": Look(PURPLE, SOLID, "split"),
    "auto": Look(PURPLE, DASHED, "auto"),
    "attack": Look(BLACK, DOTTED, "attack"),
    # sets, by the methods that live on them
    "planar": Look(GREEN, DASHED, "planar (CROWN)"),
    "triangle": Look(BLUE, DASHED, "triangle"),
    "hull": Look(VERMILION, SOLID, "2-ReLU"),
}


def stairs(rows: Sequence[tuple[float, float]], after: bool) -> list[tuple[float, float]]:
    """Corners of a curve that changes at radii only, given by its values there: right after each, or not before."""
    corners = list(rows[:1])
    for (before, value), (radius, next_value) in pairwise(rows):
        level = value if after else next_value
        corners += [(before, level), (radius, level)]
    return [*corners, *rows[-1:]]
