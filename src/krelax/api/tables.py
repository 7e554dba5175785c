"""Small tables for terminals and notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any

from krelax.errors import InputError

Rows = Sequence[Sequence[str]]


def as_text(title: str, header: Sequence[str], rows: Rows) -> str:
    """A title, and aligned columns below it."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (header, *rows)]
    return "\n".join([title, *(f"  {line}" for line in lines)])


def as_html(title: str, header: Sequence[str], rows: Rows) -> str:
    """The same for a notebook."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<p>{escape(title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def as_pandas(columns: Mapping[str, Any]) -> Any:
    """A `pandas.DataFrame` of columns. Raises InputError without pandas."""
    try:
        pandas = import_module("pandas")
    except ModuleNotFoundError:
        raise InputError("data frames need pandas: pip install pandas") from None
    return pandas.DataFrame(columns)
