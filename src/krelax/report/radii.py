"""The page of radii: the robustness curve of a data set, and the radius of each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template
from sys import float_info
from typing import Any

from krelax.errors import InputError
from krelax.report import charts
from krelax.report.html import Html, element, join
from krelax.report.page import COLOURS, figure, file_text, key_of
from krelax.report.results import Point, Record
from krelax.report.shown import shown
from krelax.report.writing import Run, check_digests, check_output, write_text
from krelax.run.journal import digest_of_data, digest_of_network

Row = tuple[float, float]

_MOST_POINTS = 60


def curve(records: Sequence[Record], method: str) -> list[Point]:
    """The certified share of images, and the share that nothing refutes, at the radii where either changes."""
    certified = [r["certified"] or 0.0 for r in records]
    refuted = [float("inf") if r["refuted"] is None else r["refuted"] for r in records]
    radii = sorted({0.0, *certified, *(r for r in refuted if r < float("inf"))})
    step = -(-len(radii) // _MOST_POINTS)
    kept = sorted({*radii[::step], radii[-1]})
    count = len(records)
    return [
        Point(eps, method, sum(c >= eps and c > 0 for c in certified) / count, sum(r > eps for r in refuted) / count)
        for eps in kept
    ]


def lines(records: Sequence[Record], method: str) -> tuple[dict[str, list[Row]], list[Row]]:
    """The curve as figures draw it: the certified share by method, and the share that nothing refutes."""
    points = curve(records, method)
    return {method: [(p.eps, p.certified) for p in points]}, [(p.eps, p.unrefuted) for p in points]


def write_radii(output: Path, names: tuple[str, str], settings: Record, records: Sequence[Record]) -> None:
    """Write the page of radii of some images, found with the settings of a journal, about a model and images called
    so. Raises InputError where it cannot be written."""
    check_output(output)
    points = curve(records, str(settings["method"]))
    title = f"{names[0]} on {names[1]}: radii of {len(records)} images, {settings['norm']}"
    rows = [_row(r) for r in records]
    head = element("tr", *(element("th", name) for name in ("image", "label", "certified", "refuted", "why it ended")))
    note = (
        "The share of images that are proven robust at each radius, and of those that nothing refutes there. "
        "In the grey gap nothing is known."
    )
    body = join(
        element("h1", title),
        element("p", f"Accuracy {100 * settings['accuracy']:g} %, method {settings['method']}."),
        element(
            "div",
            figure("Images against the radius", charts.certified(points, steps=True), note, key_of(points)),
            class_="charts",
        ),
        element("h2", "Images"),
        element("table", element("thead", head), element("tbody", *rows), class_="radii"),
    )
    style = Html(Template(file_text("page.css")).substitute(COLOURS))
    page = join(
        Html("<!doctype html>\n"),
        element(
            "html",
            element("head", Html('<meta charset="utf-8">'), element("title", title), element("style", style)),
            element("body", element("main", body)),
            lang="en",
        ),
    )
    write_text(output, page)


def write_report(output: Path, model: Path, images: Path, run: Run, labels: Sequence[Path] = ()) -> None:
    """As `write_radii`, of the journal of a run about the network and images of two files. Raises InputError if it is
    not of `krelax radius`, or not about these files."""
    name, header, records = run
    check_digests(name, header, {"model": digest_of_network(model), "images": digest_of_data(images, labels)})
    wrong = next((r["index"] for r in records if not _fine(r)), None)
    if wrong is not None:
        raise InputError(f"{name}: the result of image {wrong} is damaged; run `krelax radius` again")
    if not (isinstance(header.get("method"), str) and isinstance(header.get("accuracy"), float)):
        raise InputError(f"{name}: is not of a run of radii; give what `krelax radius --jsonl` wrote")
    asked = {**header, "norm": header.get("region") or header.get("norm")}
    write_radii(output, (model.name, images.name), asked, sorted(records, key=lambda r: int(r["index"])))


def _fine(record: Record) -> bool:
    """Whether a record of a journal can be shown."""
    radii = [record.get(name, -1) for name in ("certified", "refuted")]
    return (
        isinstance(record.get("label"), int)
        and isinstance(record.get("reason"), str)
        and all(r is None or (isinstance(r, int | float) and 0 <= r <= float_info.max) for r in radii)
    )


def _row(record: Record) -> Html:
    def said(value: Any, up: bool) -> str:
        return "none" if value is None else shown(value, up)

    radii = (said(record["certified"], up=False), said(record["refuted"], up=True))
    cells = (str(record["index"]), str(record["label"]), *radii)
    return element("tr", *(element("td", cell) for cell in (*cells, record["reason"])))
