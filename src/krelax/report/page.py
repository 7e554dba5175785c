"""The page of a data-set run: one file that needs nothing else, neither a server nor a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import PurePosixPath
from string import Template
from urllib.parse import unquote

from krelax.looks import BLUE, GREY, LOOKS, VERMILION
from krelax.report import charts
from krelax.report.axes import number
from krelax.report.comparison import Comparison, comparison_section
from krelax.report.html import Html, element, join
from krelax.report.pictures import Shown
from krelax.report.results import Point, Record, Results
from krelax.report.table import images_table

COLOURS = {"holds": BLUE, "violated": VERMILION, "unknown": GREY}
MEANING = {
    "holds": "proven: no input of the region changes the class",
    "violated": "refuted: the original model gets an input of the region wrong",
    "unknown": "neither proven nor refuted",
}


@dataclass(frozen=True)
class Subject:
    """What a page is about besides the results: the names of the two files, how many images the second has and how
    many were asked for (None if that is not known), pictures by index, links to certificates by index, the points of
    other radii on `shared` images, how they compare with `before`, the results called so, and facts about the program
    that made it."""

    model: str
    images: str
    count: int
    asked: int | None = None
    pictures: Mapping[int, Shown] = field(default_factory=dict)
    links: Mapping[int, str] = field(default_factory=dict)
    points: Sequence[Point] = ()
    shared: int = 0
    before: str = ""
    compared: Comparison | None = None
    made: Mapping[str, str] = field(default_factory=dict)


def page(results: Results, about: Subject) -> str:
    """The HTML of a report."""
    return Template(file_text("page.html")).substitute(
        _common(results, about),
        script=file_text("page.js"),
        compared=_compared(about, linked=True),
        images=images_table(results, about.pictures, about.links),
        notes=_notes(results, about),
        made=_list(about.made),
    )


def summary(results: Results, about: Subject) -> str:
    """The HTML of one sheet of paper: what a report says without its images."""
    return Template(file_text("summary.html")).substitute(
        _common(results, about), print=file_text("summary.css"), compared=_compared(about, linked=False)
    )


def _common(results: Results, about: Subject) -> dict[str, str]:
    """The parts of both."""
    ball = f"{results.settings['norm']} ball of radius {results.settings['eps']:g}"
    if "region" in results.settings:
        ball = str(results.settings["region"]) + f", and {ball}" * bool(results.settings["eps"])
    seen = f"{len(results.records)} of the {about.count} images of {about.images}"
    return {
        "title": join(f"{about.model} on {about.images}"),
        "style": Template(file_text("page.css")).substitute(COLOURS),
        "subject": join(f"{about.model} on {seen}, {ball}, method {results.settings['method']}"),
        "summary": _summary(results, about),
        "answers": _answers(results),
        "charts": _charts(results, about),
        "settings": _list(_settings(results, about)),
    }


def _compared(about: Subject, linked: bool) -> Html:
    return join() if about.compared is None else comparison_section(about.compared, about.before, linked)


def file_text(name: str) -> str:
    """One of the files that pages are made of."""
    return (files("krelax.report") / name).read_text(encoding="utf-8")


def _summary(results: Results, about: Subject) -> Html:
    """Verdicts in large figures, and what is missing."""
    total = len(results.records)
    tiles = [
        element(
            "div",
            element("b", str(count)),
            element("span", f"{verdict}, {100 * count / max(1, total):.1f} %"),
            element("small", MEANING[verdict]),
            class_=f"tile {verdict}",
        )
        for verdict, count in results.counts.items()
    ]
    if about.asked is not None and total < about.asked:
        missing = f"The run was interrupted: {about.asked - total} of {about.asked} images have no result."
        return join(*tiles, element("p", missing, class_="missing"))
    return join(*tiles)


def _answers(results: Results) -> Html:
    """What gave the verdicts, as bars."""
    most = max((count for *_, count in results.answers), default=1)
    rows = [
        element(
            "tr",
            element("th", f"{verdict}: {reason}", scope="row"),
            element(
                "td",
                element("i", class_=f"bar {verdict}", style=f"width:{100 * count / most:.1f}%"),
                class_="bars",
            ),
            element("td", str(count), class_="number"),
        )
        for verdict, reason, count in results.answers
    ]
    total = len(results.records)
    each = f", {1000 * results.seconds / total:.0f} ms an image" if total else ""
    return join(
        element("table", *rows, class_="answers"), element("p", f"{results.seconds:.1f} s of work{each}", class_="note")
    )


def _charts(results: Results, about: Subject) -> Html:
    """What the data of the run support."""
    figures = []
    if about.points:
        note = f"The same {about.shared} images at every radius. In the grey gap nothing is known."
        figures.append(
            figure("Certified share against the radius", charts.certified(about.points), note, key_of(about.points))
        )
    bounds = results.bounds()
    if bounds:
        name = LOOKS[results.first].label if results.first in LOOKS else results.first
        note = (
            f"What {name}, which looked at all images first, proves of {len(bounds)} of them, and what became of them. "
            "Right of zero the bound is a proof; left of zero it proves nothing, and later stages decide. What is far "
            "below zero is in the first bar."
        )
        figures.append(figure("Margins", charts.margins(bounds), note))
    if results.records:
        note = "How many images were proven (blue), and how many refuted (orange), in at most so many seconds each."
        figures.append(figure("Time", charts.settled(results.records), note))
    return join(*figures)


def figure(title: str, chart: Html, note: str, key: Html | str = "") -> Html:
    return element("figure", element("h3", title), chart, key, element("figcaption", note))


def key_of(points: Sequence[Point]) -> Html:
    """The legend of the curve."""
    items = []
    for colour, dashes, words in charts.key(points):
        line = element("line", x1=0, x2=30, y1=5, y2=5, stroke=colour, stroke_width=2, stroke_dasharray=dashes or None)
        items.append(
            element("li", element("svg", line, viewBox="0 0 30 10", class_="sample", aria_hidden="true"), words)
        )
    return element("ul", *items, class_="key")


def _notes(results: Results, about: Subject) -> Html:
    """What the reader should know besides."""
    notes = []
    left = len(results.records) - len(about.pictures)
    if about.pictures and left:
        notes.append(f"Pictures of {left} images are left out to keep this page small.")
    if about.links:
        first = PurePosixPath(unquote(next(iter(about.links.values()))))
        notes.append(f"Anyone can check a certificate: krelax check {first} --network {about.model}")
    return join(*(element("p", text, class_="note") for text in notes))


def _settings(results: Results, about: Subject) -> dict[str, str]:
    """What was asked, and of which files."""
    names: dict[str, str] = {
        "region": "region",
        "norm": "norm",
        "eps": "radius eps",
        "clip": "range of values",
        "method": "method",
        "timeout": "seconds for an image, at most",
        "device": "device",
        "certificates": "certificates",
        "semantics": "semantics",
    }
    settings: Record = results.settings
    facts = {"network": about.model, "SHA-256 of the network": str(settings["model"])}
    facts |= {"images": about.images, "SHA-256 of the images": str(settings["images"])}
    facts |= {words: _value(settings[name]) for name, words in names.items() if name in settings}
    return facts | {"results begun by": f"krelax {settings['krelax']}"}


def _value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return " to ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return number(value, 12) if isinstance(value, float) else str(value)


def _list(facts: Mapping[str, str]) -> Html:
    return element(
        "dl", *(part for name, value in facts.items() for part in (element("dt", name), element("dd", value)))
    )
