"""The page says what the results say, whatever names they have, and stays small."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from tests.report.runs import pixels, results, subject

from krelax.report import pictures as drawing
from krelax.report.html import element
from krelax.report.page import page
from krelax.report.pictures import MOST_BYTES, Shown, drawn
from krelax.report.results import Point

VOID = {"meta", "link", "img", "input"}
NASTY = """<script>alert("1")</script> & 'x'.onnx"""


class Reader(HTMLParser):
    """Checks that elements nest, and collects what they say."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text.append(data)

    def find(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_row_for_each_image_with_everything_that_is_known() -> None:
    images = pixels(12)
    found = results(images)
    read = Reader(page(found, subject(images, found, links={4: "./proofs/image-4.zip"})))
    rows = read.find("tbody")
    assert [row["data-index"] for row in rows] == [str(i) for i in range(12)]
    for row, record in zip(rows, found.records, strict=True):
        assert {key: row[f"data-{key}"] for key in ("verdict", "reason")} == {
            "verdict": record["verdict"],
            "reason": record["reason"],
        }
        assert float(row["data-margin"] or "nan") == record["margin"]
    words = " ".join(read.text)
    assert "6 holds, 50.0 %" in words
    assert "3 unknown, 25.0 %" in words
    assert f"{found.seconds:.1f} s of work" in words
    assert found.settings["model"] in words
    assert len([i for i in read.find("img") if i["class"] == "large"]) == 3 * 3
    assert len(read.find("svg")) == 2
    assert "interrupted" not in words


def test_what_is_missing_is_said() -> None:
    images = pixels(4)
    found = results(images)
    assert "interrupted: 6 of 10 images have no result" in page(found, subject(images, found, asked=10))
    empty = found.only(set())
    words = Reader(page(empty, subject(images, empty, asked=10))).text
    assert any("10 of 10 images" in text for text in words)


def test_everything_is_escaped() -> None:
    """File names, reasons, certificates: nothing of them becomes markup."""
    images = pixels(4)
    record = dict(results(images).records[0]) | {"reason": NASTY, "certificate": {"file": NASTY}}
    record["stages"] = [{"name": NASTY, "seconds": 0.1, "margin": 1.0}]
    found = type(results(images))(results(images).settings | {"semantics": NASTY}, (record,))
    html = page(found, subject(images, found, model=NASTY, images=NASTY, links={0: NASTY}, made={NASTY: NASTY}))
    read = Reader(html)
    assert len(read.find("script")) == 1
    assert 'alert("1")' not in html
    assert sum(NASTY in text for text in read.text) > 8
    assert element("p", NASTY, title=NASTY).count("<") == 2


def test_nothing_is_asked_of_the_world() -> None:
    images = pixels(8)
    found = results(images)
    read = Reader(page(found, subject(images, found, links={0: "./proofs/image-0.zip"})))
    for tag, attributes in read.tags:
        for name in ("src", "href", "action", "data", "srcset"):
            where = attributes.get(name) or "data:"
            assert where.startswith(("data:", "./proofs/")), (tag, where)
    policy = next(m["content"] for m in read.find("meta") if m.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none';")


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 224, 224)])
def test_a_hundred_images_fit(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one of them refuted, which takes most room, and of noise, which cannot be compressed. What is left out is
    not drawn, which is most of the work."""
    images, draw, drawings = pixels(100, shape), drawing._draw, list[Shown]()

    def counting(*given: Any) -> Shown:
        drawings.append(draw(*given))
        return drawings[-1]

    monkeypatch.setattr(drawing, "_draw", counting)
    found = results(images, (("violated", "attack"),))
    html = page(found, subject(images, found))
    assert len(html.encode()) < 3_000_000
    left_out = re.search(r"Pictures of (\d+) images are left out", html)
    assert (left_out is not None) == (shape[1] > 100)
    assert len(drawings) == (100 if left_out is None else 100 - int(left_out[1]) + 1)


def test_refuted_images_are_pictured_first() -> None:
    images = pixels(60, (3, 96, 96))
    ways = (("holds", "crown"),) * 50 + (("violated", "attack"),) * 10
    pictures = drawn(images, results(images, ways).records, (0.0, 1.0))
    assert set(range(50, 60)) <= set(pictures)
    assert len(pictures) < 60
    assert sum(map(len, pictures.values())) <= MOST_BYTES


def test_inputs_that_are_no_pictures() -> None:
    images = pixels(4, (5,))
    found = results(images)
    read = Reader(page(found, subject(images, found)))
    assert not read.find("img")
    assert "scores of the counterexample" in " ".join(read.text)


def test_the_curve_has_a_line_for_each_method() -> None:
    images = pixels(4)
    found = results(images)
    points = [Point(e, m, s, 0.9) for e, m, s in ((0.01, "crown", 0.8), (0.01, "auto", 0.9), (0.02, "auto", 0.5))]
    html = page(found, subject(images, found, points=points, shared=4))
    assert "certified by CROWN" in html
    assert "certified by auto" in html
    assert "eps 0.02: 50.0 % by auto" in html


def test_a_curve_of_radii_is_a_stair() -> None:
    """Whose corners are at the radii: 0.02 is not certified for half of an image more than 0.03 is."""
    from krelax.report.charts import certified

    points = [Point(0.0, "auto", 1.0, 1.0), Point(0.02, "auto", 1.0, 1.0), Point(0.04, "auto", 0.5, 0.0)]
    for line in Reader(certified(points, steps=True)).find("path"):
        corners = [tuple(map(float, c.split())) for c in str(line["d"]).strip("MZ").split("L")]
        assert all(x == u or y == v for (x, y), (u, v) in itertools.pairwise(corners))


def test_numbers_of_images_are_whole() -> None:
    from krelax.report.axes import counts

    assert counts(2).ticks(4) == [0, 1, 2]
    assert counts(0).ticks(4) == [0, 1]


def test_results_of_older_versions_have_no_stages() -> None:
    images = pixels(4)
    found = results(images)
    older = type(found)(found.settings, tuple({k: v for k, v in r.items() if k != "stages"} for r in found.records))
    read = Reader(page(older, subject(images, older)))
    assert len(read.find("svg")) == 1
    assert not any("Margins" in text for text in read.text)


@pytest.mark.parametrize("margins", [[0.0], [-100.0, -90.0, -5.0], [1e-12], [2.0, 2.0], [-1e30, 3.0]])
def test_margins_of_any_size_are_drawn(margins: list[float]) -> None:
    """Bars stay between the axes, and none of them crosses zero."""
    from krelax.report.axes import BOTTOM, LEFT, RIGHT, TOP
    from krelax.report.charts import margins as histogram

    chart = Reader(histogram([("holds" if m > 0 else "unknown", m) for m in margins]))
    bars = chart.find("rect")
    zero = next(float(line["x1"] or "nan") for line in chart.find("line") if line.get("class") == "zero")
    assert len(bars) > 0
    for bar in bars:
        x, y, width, height = (float(bar[key] or "nan") for key in ("x", "y", "width", "height"))
        assert LEFT <= x <= x + width <= RIGHT
        assert TOP - 1e-6 <= y <= y + height <= BOTTOM + 0.02
        assert height > 0
        assert (x >= zero - 0.02) if bar["style"] == "fill:var(--holds)" else (x + width <= zero)
