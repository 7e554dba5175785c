"""The table of a report's images: a row for each, and below it what is known of the image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from krelax.report.axes import number
from krelax.report.html import Html, element, join
from krelax.report.pictures import Shown, picture
from krelax.report.results import NUMBER, VERDICTS, Record, Results

COLUMNS = {
    "index": "image",
    "label": "label",
    "predicted": "predicted",
    "verdict": "verdict",
    "reason": "by",
    "margin": "margin",
    "seconds": "seconds",
}
SCORES = 5


def images_table(results: Results, pictures: Mapping[int, Shown], links: Mapping[int, str]) -> Html:
    """Controls and table; each image is one `tbody`, so that its two rows stay together."""
    heads = [
        element("th", element("button", words, type="button", data_key=name), scope="col", class_=name)
        for name, words in COLUMNS.items()
    ]
    bodies = [_body(r, pictures.get(r["index"]), links.get(r["index"])) for r in results.records]
    return join(_controls(results), element("table", element("thead", element("tr", *heads)), *bodies, id="images"))


def _controls(results: Results) -> Html:
    """What is shown."""
    counts = results.counts
    boxes = [
        element(
            "label",
            element("input", type="checkbox", name="verdict", value=verdict, checked=True),
            f" {verdict} ({counts[verdict]})",
        )
        for verdict in VERDICTS
        if counts[verdict]
    ]
    reasons = dict.fromkeys(reason for _, reason, _ in results.answers)
    labels = sorted({r["label"] for r in results.records})
    return element(
        "form",
        element("fieldset", element("legend", "Show"), *boxes),
        element("label", "by ", _choice("reason", reasons)),
        element("label", "label ", _choice("label", map(str, labels))),
        element("button", "open all", type="button", id="all"),
        element("output", f"{len(results.records)} images", id="shown", aria_live="polite"),
        id="controls",
    )


def _choice(name: str, values: Iterable[str]) -> Html:
    options = [element("option", "all", value="")]
    return element("select", *options, *(element("option", v, value=v) for v in values), name=name)


def _body(record: Record, shown: Shown | None, link: str | None) -> Html:
    index = record["index"]
    data = {f"data_{name}": record.get(name) for name in COLUMNS}
    cells = {name: _cell(name, record) for name in COLUMNS}
    thumb = picture(shown.image, "", "thumb") if shown else ""
    button = element("button", str(index), type="button", aria_expanded="false", aria_controls=f"detail-{index}")
    cells["index"] = join(thumb, button)
    row = element("tr", *(element("td", cell, class_=name) for name, cell in cells.items()), class_="image")
    below = element("td", _detail(record, shown, link), colspan=len(COLUMNS))
    detail = element("tr", below, class_="detail", id=f"detail-{index}")
    return element("tbody", row, detail, id=f"image-{index}", **data)


def _cell(name: str, record: Record) -> str:
    value = record.get(name)
    if value is None:
        return "–"
    if name == "verdict":
        return element("span", str(value), class_=f"dot {value}")
    if name == "margin":
        return number(value, 4)
    return f"{value:.2f}" if name == "seconds" else str(value)


def _detail(record: Record, shown: Shown | None, link: str | None) -> Html:
    """What every stage found, the counterexample, the certificate."""
    parts: list[str] = [_pictures(record, shown)] if shown and shown.counterexample else []
    if record.get("counterexample"):
        parts.append(_scores(record))
    if record.get("stages"):
        parts.append(_stages(record))
    if record.get("certificate"):
        parts.append(_certificate(record["certificate"], link))
    return element("div", *parts or ["nothing had to be computed"], class_="parts")


def _pictures(record: Record, shown: Shown) -> Html:
    trio = (
        (shown.image, f"image {record['index']}, predicted {record['predicted']}"),
        (shown.counterexample, f"counterexample, predicted {_rival(record)}"),
        (shown.change, shown.legend),
    )
    return element(
        "div",
        *(element("figure", picture(source, words, "large"), element("figcaption", words)) for source, words in trio),
        class_="trio",
    )


def _rival(record: Record) -> int:
    """The class that the counterexample is taken for; its score is at least that of the label."""
    scores = record["counterexample"]["y"]
    return max((i for i in range(len(scores)) if i != record["label"]), key=scores.__getitem__)


def _scores(record: Record) -> Html:
    """The largest scores of the original model at the counterexample, the label's among them."""
    scores = record["counterexample"]["y"]
    best = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept = [i for i in best if i in best[:SCORES] or i == record["label"]]
    rows = [(f"{i} (label)" if i == record["label"] else str(i), number(scores[i], 5)) for i in kept]
    return _facts("scores of the counterexample", ("class", "score"), rows)


def _stages(record: Record) -> Html:
    """What was tried, and what it proved."""
    rows = [
        (stage["name"], "–" if stage.get("margin") is None else number(stage["margin"], 4), f"{stage['seconds']:.3f}")
        for stage in record["stages"]
    ]
    return _facts("stages", ("stage", "margin proven", "seconds"), rows)


def _certificate(written: Record, link: str | None) -> Html:
    name = written["file"]
    rows = [("file", element("a", name, href=link) if link else name)]
    for key, words in (
        ("bytes", "bytes"),
        ("checked", "margin that the checker found"),
        ("check_seconds", "seconds to check"),
    ):
        if isinstance(written.get(key), NUMBER):
            rows.append((words, number(written[key], 8 if key == "bytes" else 4)))
    return _facts("certificate", (), rows)


def _facts(title: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Html:
    """A small table."""
    head = element("tr", *(element("th", words, scope="col") for words in heads)) if heads else ""
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    return element("table", element("caption", title), head, *body, class_="facts")
