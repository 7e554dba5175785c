"""The charts of a report, as SVG inside the page; text and rules have the page's colours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

from krelax.looks import GREY, LOOKS, Dash, stairs
from krelax.report.axes import BOTTOM, TOP, Axis, across, chart, counts, number
from krelax.report.html import Html, element
from krelax.report.results import VERDICTS, Point, Record

BINS = 24


def margins(bounds: Sequence[tuple[str, float]]) -> Html:
    """How many images have which margin, stacked by verdict. What is far below zero is in the first bar.

    Zero is between two bars, so that none of them mixes proofs with other bounds; a bound of exactly zero is no proof.
    """
    values = [margin for _, margin in bounds]
    high = max(*values, 0.0)
    reach = min(max(-min(values), 0.0), 2 * max(high, median(map(abs, values))))
    size = (high + reach) / (BINS - 2) or 1.0
    below = math.ceil(reach / size) + 1
    table = {verdict: [0] * BINS for verdict in VERDICTS}
    for verdict, margin in bounds:
        table[verdict][min(max(math.ceil(margin / size) - 1 + below, 0), BINS - 1)] += 1
    x, y = across(-below * size, (BINS - below) * size), counts(max(map(sum, zip(*table.values(), strict=True))))
    bars = [bar for i in range(BINS) for bar in _stack(i, table, x, y)]
    zero = element("line", class_="zero", x1=x(0), x2=x(0), y1=TOP, y2=BOTTOM)
    says = f"Histogram of {len(values)} lower bounds from {number(min(values))} to {number(max(values))}"
    return chart(says, x, y, "lower bound of the smallest margin", "images", *bars, zero)


def _stack(i: int, table: dict[str, list[int]], x: Axis, y: Axis) -> Iterator[Html]:
    """One bar of the histogram."""
    size, below = (x.high - x.low) / BINS, 0
    left, right = x(x.low + i * size), x(x.low + (i + 1) * size)
    for verdict, heights in table.items():
        top, bottom = y(below + heights[i]), y(below)
        if heights[i]:
            width, height = round(right - left - 1, 2), round(bottom - top, 2)
            yield element("rect", x=left, y=top, width=width, height=height, style=f"fill:var(--{verdict})")
        below += heights[i]


def settled(records: Sequence[Record]) -> Html:
    """How many images are proven, and how many refuted, in how many seconds each."""
    most = max(*(r["seconds"] for r in records), 1e-3)
    times = {v: sorted(r["seconds"] for r in records if r["verdict"] == v) for v in ("holds", "violated")}
    x = across(1e-3, 10 ** math.ceil(math.log10(most) + 1e-9), log=True)
    y = counts(max(map(len, times.values())))
    lines = [_steps(found, x, y, verdict) for verdict, found in times.items() if found]
    says = "; ".join(f"{len(found)} images {verdict}" for verdict, found in times.items())
    return chart(f"Images settled against seconds: {says}", x, y, "seconds for an image, at most", "images", *lines)


def _steps(values: Sequence[float], x: Axis, y: Axis, verdict: str) -> Html:
    """A line that rises by one at each value."""
    path = f"M{x(x.low)} {y(0)}" + "".join(f"H{x(value)}V{y(i)}" for i, value in enumerate(values, 1)) + f"H{x(x.high)}"
    return element("path", d=path, class_="line", style=f"stroke:var(--{verdict})")


def certified(points: Sequence[Point], steps: bool = False) -> Html:
    """The share of images that each method certifies, against the radius, below the share that nothing refutes: at some
    radii, joined by lines, or, as `steps`, at all radii where one of them changes."""
    x, y = across(0.0, max(p.eps for p in points) or 1.0), Axis(0, 100, BOTTOM, TOP)
    unrefuted = sorted({p.eps: p.unrefuted for p in points}.items())
    best = sorted({p.eps: max(q.certified for q in points if q.eps == p.eps) for p in points}.items())
    rows = {m: [(p.eps, p.certified) for p in points if p.method == m] for m in dict.fromkeys(p.method for p in points)}
    if steps:
        unrefuted, best = stairs(unrefuted, after=True), stairs(best, after=False)
        rows = {method: stairs(line, after=False) for method, line in rows.items()}
    area = _line(unrefuted, x, y) + _line(best[::-1], x, y).replace("M", "L", 1) + "Z"
    marks = [element("path", d=area, class_="gap"), _drawn(unrefuted, x, y, "attack", dots=not steps)]
    marks += [_drawn(line, x, y, method, dots=not steps) for method, line in rows.items()]
    says = "; ".join(f"eps {p.eps:g}: {100 * p.certified:.1f} % by {p.method}" for p in points)
    return chart(f"Certified share against the radius. {says}", x, y, "radius eps", "images, %", *marks)


def key(points: Sequence[Point]) -> list[tuple[str, str, str]]:
    """What the lines of `certified` mean: colour, dashes and words."""
    methods = dict.fromkeys(p.method for p in points)
    words = {"attack": "not refuted"} | {m: f"certified by {LOOKS[m].label}" for m in methods if m in LOOKS}
    return [(_colour(name), _dashes(LOOKS[name].dash), text) for name, text in words.items()]


def _drawn(rows: Sequence[tuple[float, float]], x: Axis, y: Axis, method: str, dots: bool) -> Html:
    dash = _dashes(LOOKS[method].dash) if method in LOOKS else None
    line = element("path", d=_line(rows, x, y), class_="line", stroke=_colour(method), stroke_dasharray=dash or None)
    marked = rows if dots else []
    circles = [element("circle", cx=x(eps), cy=y(100 * share), r=2.6, fill=_colour(method)) for eps, share in marked]
    return element("g", line, *circles)


def _colour(method: str) -> str:
    """Black is what the page writes with."""
    colour = LOOKS[method].colour if method in LOOKS else GREY
    return "currentColor" if colour == "#000000" else colour


def _dashes(dash: Dash) -> str:
    """A line style of the table for SVG, where a line is 2 units wide."""
    return "" if isinstance(dash, str) else " ".join(f"{2 * part:g}" for part in dash[1])


def _line(rows: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{x(eps)} {y(100 * share)}" for eps, share in rows)
