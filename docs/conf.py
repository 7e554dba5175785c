"""The documentation as a site: `make docs`."""

from __future__ import annotations

import re
from typing import Any

import krelax

_FIELD = re.compile("^(Sound|Complete|Reference): ")

project = "krelax"
author = "the authors of krelax"
project_copyright = "the authors of krelax, Apache-2.0"
version = release = krelax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinx-mathjax-offline"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build"]

# Notebooks hold their output; tests compare it with what they print.
nb_execution_mode = "off"
default_role = "code"  # single backticks in docstrings
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True

html_css_files = ["krelax.css"]
html_theme = "furo"
html_title = "krelax"
html_static_path = ["_static"]
html_extra_path = ["_build/extra"]
html_theme_options = {"source_directory": "docs/", "navigation_with_keys": True}


def _inside(app: Any, page: str, source: list[str]) -> None:
    """Pages of the repository's root that are pages of the site."""
    source[0] = source[0].replace("](../PERFORMANCE.md", "](performance.md")
    source[0] = source[0].replace("](../../PERFORMANCE.md", "](../performance.md")


def _said(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """What docstrings say of soundness, completeness and sources, as fields."""
    lines[:] = [_FIELD.sub(r":\1: ", line) for line in lines]


def setup(app: Any) -> None:
    app.connect("source-read", _inside)
    app.connect("autodoc-process-docstring", _said)
