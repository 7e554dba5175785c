"""Notebooks run, and show what stands in them."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from tests.docs.notebooks import executed, texts

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
SECONDS = re.compile(r"[0-9.]+ s\b")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_shows_what_stands_in_it(path: Path) -> None:
    written, shown = texts(nbformat.read(path, as_version=4)), texts(executed(path))
    assert len(written) > 5
    for (code, before), (_, after) in zip(written, shown, strict=True):
        assert [SECONDS.sub("", text) for text in after] == [SECONDS.sub("", text) for text in before], code
