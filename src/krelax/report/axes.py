"""Axes of small charts: where numbers lie, and which of them are written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from krelax.report.html import Html, element, join

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 42, 330, 10, 168


def number(value: float, digits: int = 3) -> str:
    """So many digits at most, with a real minus sign."""
    return f"{value:.{digits}g}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Axis:
    """Numbers from `low` to `high` between two places; logarithmic if both are positive and `log` is set. An axis of
    `whole` numbers has none between them written at it."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False
    whole: bool = False

    def __call__(self, value: float) -> float:
        scale: Callable[[float], float] = math.log10 if self.log else float
        low, high = scale(self.low), scale(self.high)
        part = (scale(min(max(value, self.low), self.high)) - low) / ((high - low) or 1.0)
        return round(self.begin + (self.end - self.begin) * part, 2)

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers on the axis: powers of ten on a logarithmic one, about `most` on others."""
        if self.log:
            return [10.0**i for i in range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)]
        rough = max((self.high - self.low) / most, 1.0 if self.whole else 0.0)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * f for f in (1, 2, 5, 10) if power * f >= rough * (1 - 1e-9))
        return [i * step for i in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


def across(low: float, high: float, log: bool = False) -> Axis:
    return Axis(low, high, LEFT, RIGHT, log)


def counts(most: int) -> Axis:
    """An axis upwards for whole numbers from 0."""
    return Axis(0, max(most, 1), BOTTOM, TOP, whole=True)


def chart(says: str, x: Axis, y: Axis, xlabel: str, ylabel: str, *marks: Html) -> Html:
    """Marks between two axes; `says` is what readers hear who cannot see it."""
    lines = [element("line", class_="rule", x1=LEFT, x2=RIGHT, y1=y(t), y2=y(t)) for t in y.ticks(4)]
    levels = [element("text", number(t), x=LEFT - 6, y=y(t) + 4, text_anchor="end") for t in y.ticks(4)]
    steps = [element("text", number(t), x=x(t), y=BOTTOM + 16, text_anchor="middle") for t in x.ticks()]
    names = (
        element("text", xlabel, x=(LEFT + RIGHT) / 2, y=HEIGHT - 8, text_anchor="middle"),
        element("text", ylabel, transform=f"translate(11 {(TOP + BOTTOM) / 2}) rotate(-90)", text_anchor="middle"),
    )
    parts = join(*lines, *levels, *steps, *names, *marks)
    return element("svg", parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=says)
