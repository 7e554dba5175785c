"""Takes the pictures of `krelax explore` for the documentation again.

    python docs/screenshots.py PAGE.html

The page is one that `krelax explore --export PAGE.html` wrote. Needs Chromium and playwright; pictures are written to
docs/figures as PNG.
"""

from __future__ import annotations

import argparse
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent / "figures"
LARGEST = 150_000  # bytes of a picture
DESK, NARROW, PHONE = (1120, 800), (860, 800), (390, 1200)


def group(page: Page) -> None:
    """The first textbook example."""


def three(page: Page) -> None:
    """Three neurons."""
    page.get_by_role("combobox").select_option("3")


def network(page: Page) -> None:
    """The small network with the groups that prove it."""
    for neuron in ("00", "01", "02", "11", "12"):
        page.locator(f'[data-neuron="{neuron}"]').click()
    page.mouse.move(0, 0)


def ladder(page: Page) -> None:
    """Every method."""


PICTURES: dict[str, tuple[Callable[[Page], None], tuple[int, int], str, str]] = {
    "explore-group": (group, DESK, "light", "html"),
    "explore-three": (three, PHONE, "dark", ""),
    "explore-network": (network, NARROW, "light", ".small"),
    "explore-ladder": (ladder, NARROW, "light", ".ladder .panel"),
}


def take(browser: Any, address: str, name: str) -> bytes:
    """One picture: of a part of the page, of all of it, or of what a window shows."""
    prepare, (width, height), scheme, part = PICTURES[name]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(f"{address}#{prepare.__name__.replace('three', 'group')}")
    page.wait_for_selector("html[data-ready]")
    prepare(page)
    page.wait_for_timeout(500)
    whole = part == "html"
    picture: bytes = page.locator(part).screenshot() if part and not whole else page.screenshot(full_page=whole)
    page.close()
    return picture


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, metavar="PAGE.html")
    address = parser.parse_args().page.resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in PICTURES:
            path = FOLDER / f"{name}.png"
            with Image.open(io.BytesIO(take(browser, address, name))) as picture:
                few = picture.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
                few.save(path, optimize=True)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
            assert path.stat().st_size <= LARGEST, f"{path} is too large"
        browser.close()


if __name__ == "__main__":
    main()
