"""The page in a browser, from a file: it sorts, filters and opens rows, by mouse and keyboard, and asks for nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.runs import pixels, results, subject

from krelax.report.page import page
from krelax.report.results import Point

COUNT = 24
CLIPPED = """() => [...document.querySelectorAll("h1,h2,h3,p,td,th,dd,dt,button,label,figcaption,b,span,small,text")]
    .filter((e) => {
        const box = e.getBoundingClientRect();
        return box.width > 0 && (box.left < -0.5 || box.right > innerWidth + 0.5 || e.scrollWidth > e.clientWidth + 1
            && getComputedStyle(e).display !== "inline" && e.namespaceURI.endsWith("xhtml"));
    }).map((e) => e.textContent)"""

Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """A page of some results in a window of some size; that nothing was logged or asked for is checked at the end."""
    images = pixels(COUNT)
    found = results(images)
    points = [Point(0.03, "auto", 0.75, 0.9), Point(0.06, "auto", 0.5, 0.75)]
    links = {0: "./proofs/image-0.zip"}
    path = tmp_path / "report & more.html"
    path.write_text(page(found, subject(images, found, points=points, shared=COUNT, links=links)), encoding="utf-8")
    complaints: list[str] = []
    contexts = []

    def open_page(width: int = 1200, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: complaints.append(request.url) if _strange(request, path) else None)
        tab.goto(path.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _strange(request: Any, path: Path) -> bool:
    return request.url != path.as_uri() and not request.url.startswith("data:")


def shown(tab: Any, key: str = "index") -> list[str]:
    """What visible rows have, from the top."""
    return tab.eval_on_selector_all("#images > tbody:not([hidden])", f"rows => rows.map(r => r.dataset.{key})")


def test_columns_sort_both_ways(opened: Open) -> None:
    tab = opened()
    assert shown(tab) == [str(i) for i in range(COUNT)]
    for key in ("margin", "seconds", "label"):
        button = tab.locator(f"#images thead button[data-key={key}]")
        button.click()
        up = [float(value) for value in shown(tab, key)]
        assert up == sorted(up)
        assert button.locator("..").get_attribute("aria-sort") == "ascending"
        button.focus()
        tab.keyboard.press("Enter")
        down = [float(value) for value in shown(tab, key)]
        assert down == sorted(down, reverse=True)
        assert tab.locator("[aria-sort]").count() == 1
    tab.locator("button[data-key=verdict]").click()
    assert shown(tab, "verdict") == sorted(shown(tab, "verdict"))


def test_rows_are_filtered(opened: Open) -> None:
    tab = opened()
    tab.get_by_role("checkbox", name="holds").uncheck()
    assert set(shown(tab, "verdict")) == {"violated", "unknown"}
    assert tab.locator("#shown").text_content() == "12 of 24 images"
    tab.locator("select[name=reason]").select_option("attack")
    assert set(shown(tab, "reason")) == {"attack"}
    tab.locator("select[name=label]").select_option("2")
    assert set(shown(tab, "label")) == {"2"}
    tab.locator("select[name=label]").select_option("")
    tab.locator("select[name=reason]").select_option("")
    tab.get_by_role("checkbox", name="holds").check()
    assert len(shown(tab)) == COUNT


def test_rows_open_by_keyboard_and_mouse(opened: Open) -> None:
    tab = opened()
    row, detail = tab.locator("#image-2"), tab.locator("#detail-2")
    button = row.locator("button")
    assert not detail.is_visible()
    button.focus()
    tab.keyboard.press("Enter")
    assert detail.is_visible()
    assert button.get_attribute("aria-expanded") == "true"
    assert detail.locator("img").count() == 3
    assert detail.locator("img").first.evaluate("image => image.complete && image.naturalWidth") == 8
    row.locator("td.verdict").click()
    assert not detail.is_visible()
    tab.locator("#all").click()
    assert tab.locator("tr.detail:visible").count() == COUNT
    tab.locator("#all").click()
    assert tab.locator("tr.detail:visible").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_clipped_on_a_phone(opened: Open, scheme: str) -> None:
    tab = opened(390, 844, color_scheme=scheme)
    tab.locator("#all").click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.evaluate(CLIPPED) == []
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_without_scripts_everything_is_open(opened: Open) -> None:
    tab = opened(java_script_enabled=False)
    assert tab.locator("tr.detail:visible").count() == COUNT


def test_a_printed_page_has_no_controls(opened: Open) -> None:
    tab = opened(color_scheme="dark")
    tab.emulate_media(media="print")
    assert not tab.locator("#controls").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(tab.pdf()) > 10_000
