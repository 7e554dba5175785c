"""A browser for the tests of pages: one for all of them, because playwright runs once in a process.

Bugs are raised in tests, and do not become reasons of answers.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("KRELAX_TRACEBACK", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before any test imports it
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """By day random examples are the same each time, so that a change is what changes the outcome; by night they are
    new ones."""
    settings.register_profile("day", derandomize=True)
    if config.option.markexpr != "slow":
        settings.load_profile("day")


def pytest_collection_finish() -> None:
    """What is there before the first test stays: the collector need not look at millions of objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["torch", "kernels"])
def both_evaluators(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Leaves are bounded by torch, and then, in a second run of the test, by compiled kernels wherever they can."""
    from krelax.hull.jit import COMPILED
    from krelax.lanes.ready import Kernels

    kernels = Kernels("1" if request.param == "kernels" else "0")
    if request.param == "kernels" and not COMPILED:
        pytest.skip("kernels need a compiler")
    monkeypatch.setattr("krelax.bounds.lanes.kernels", lambda: kernels)
    return str(request.param)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; tests are skipped where it or playwright is missing."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no chromium on this machine, which the tests of pages need")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=found, args=list(QUIET))
        yield chromium
        chromium.close()
