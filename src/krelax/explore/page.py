"""The page, as one file: its style, its modules and its data are written into it."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from typing import Any

from krelax._version import __version__
from krelax.explore import curves, textbook
from krelax.explore.examples import EXAMPLES
from krelax.explore.model import Question, summary
from krelax.looks import LOOKS, Look

_FOLDER = files("krelax") / "explore" / "page"


def page(question: Question, answers: dict[str, Any] | None = None) -> str:
    """The whole page as HTML. With `answers`, everything a page without a server needs; without, it asks its server.

    Modules are written as data URLs under the names they import each other by, so that they also run from a file,
    where browsers load no modules.
    """
    imports = {f"explore/{name.removesuffix('.js')}": _as_url(_read(name)) for name in modules()}
    parts = {
        "style": _read("explore.css"),
        "imports": _json({"imports": imports}),
        "data": _json(_data(question, answers)),
    }
    html = _read("index.html")
    for name, text in parts.items():
        html = html.replace(f"@{name}@", text)
    return html


def modules() -> list[str]:
    """The names of the page's modules."""
    return sorted(file.name for file in _FOLDER.iterdir() if file.name.endswith(".js"))


def _data(question: Question, answers: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "version": __version__,
        "looks": {name: _look(look) for name, look in LOOKS.items()},
        "examples": EXAMPLES,
        "curves": curves.tables(),
        "textbook": textbook.drawing(),
        "question": summary(question),
        "answers": answers,
    }


def _look(look: Look) -> dict[str, Any]:
    """Colour, dashes in units of the line's width, and label."""
    dash = [] if isinstance(look.dash, str) else list(look.dash[1])
    return {"colour": look.colour, "dash": dash, "label": look.label}


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _as_url(text: str) -> str:
    return "data:text/javascript;base64," + base64.b64encode(text.encode()).decode()


def _json(value: Any) -> str:
    """JSON that may stand in HTML."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
