"""What a reader sees of a figure: its texts and where they stand."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from krelax.looks import BLACK, FAINT, GREY, PALE
from krelax.picture import LOOKS, save

OWN = {look.colour.lower() for look in LOOKS.values()} | {c.lower() for c in (BLACK, GREY, PALE, FAINT)}


def texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Every text as it is drawn, with the box around it in dots."""
    found = []
    draw = Text.draw

    def noted(text: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
        draw(text, renderer, *args, **kwargs)
        if text.get_visible() and text.get_text().strip():
            found.append((text.get_text(), text.get_window_extent(renderer)))

    with monkeypatch.context() as patched:
        patched.setattr(Text, "draw", noted)
        figure.draw_without_rendering()  # which settles the layout
        found.clear()
        FigureCanvasAgg(figure).draw()
    return found


def check(figure: Figure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Renders without a warning, nothing clipped, no text on another, no colour but those of the table;
    the texts."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # which are about packages that figures are made with
        save(figure, tmp_path / "figure.svg")
        drawn = texts(figure, monkeypatch)
    width, height = figure.bbox.size
    for text, box in drawn:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, f"{text!r} is clipped: {box} in {width} x {height}"
    for (one, a), (two, b) in itertools.combinations(drawn, 2):
        across, along = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, along) <= 1, f"{one!r} overlaps {two!r}"
    assert colours(figure) <= OWN
    return [text for text, _ in drawn]


def colours(figure: Figure) -> set[str]:
    """The colours of all lines."""
    from matplotlib.colors import to_hex
    from matplotlib.lines import Line2D

    axes = {child for a in figure.axes for child in a.lines}
    return {to_hex(line.get_color()) for line in axes if isinstance(line, Line2D)}
