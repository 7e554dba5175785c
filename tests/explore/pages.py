"""Pages in a browser, as a reader sees and uses them."""

from __future__ import annotations

from typing import Any

Size = tuple[int, int]
DESK, PHONE = (1280, 900), (390, 844)

# Texts that do not fit where they stand, and canvases on which nothing is drawn.
CLIPPED = """() => [...document.querySelectorAll('main *, header *, nav *')]
    .filter(e => e.checkVisibility() && e.children.length === 0 && e.textContent.trim() && !e.closest('svg, option'))
    .filter(e => getComputedStyle(e).display !== 'inline')
    .filter(e => e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.tagName + ' ' + e.className + ': ' + e.textContent)"""
BLANK = """() => [...document.querySelectorAll('main canvas')].filter(c => c.checkVisibility()).filter(c => {
    const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', {willReadFrequently: true});
    copy.drawImage(c, 0, 0);
    const dots = new Uint32Array(copy.getImageData(0, 0, c.width, c.height).data.buffer);
    return new Set(dots).size < 12;
}).map(c => c.getAttribute('aria-label'))"""


class Seen:
    """A browser's pages, with everything that their consoles said and every address they asked for."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self._contexts: list[Any] = []
        self.complaints: list[str] = []
        self.asked: set[str] = set()

    def open(self, url: str, view: str, size: Size = DESK, scheme: str = "light", offline: bool = False) -> Any:
        """The page with one of its views, ready."""
        viewport = {"width": size[0], "height": size[1]}
        context = self._browser.new_context(viewport=viewport, color_scheme=scheme, offline=offline)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.add(request.url))
        page.goto(f"{url}#{view}")
        page.wait_for_selector("html[data-ready]")
        page.wait_for_selector(f".{view}:not([hidden])")
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def number(page: Any, selector: str) -> float:
    """A number that the page shows, with all its digits."""
    return float(page.get_attribute(selector, "data-value"))


def slide(page: Any, name: str, value: float, view: str = "group") -> None:
    """Move a slider, by its name, and wait until the page has drawn the answer."""
    before = drawn(page, view)
    slider = page.get_by_label(name, exact=True)
    slider.evaluate("(s, v) => { s.value = v; s.dispatchEvent(new Event('input')); }", str(value))
    page.wait_for_function(f"Number(document.querySelector('.{view}').dataset.drawn) > {before}")


def drawn(page: Any, view: str) -> int:
    """How many answers a view has shown."""
    page.wait_for_selector(f".{view}[data-drawn]")
    return int(page.get_attribute(f".{view}", "data-drawn"))
