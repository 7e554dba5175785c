"""The results of a data-set run as comma-separated values, for spreadsheets and data frames."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from krelax.report.results import Results

COLUMNS = ("index", "label", "predicted", "verdict", "reason", "margin", "seconds", "certificate", "before")
_BEGINS = ",".join(COLUMNS[:3]).encode()
# Spreadsheets compute cells that begin so.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def spreadsheet(results: Results, before: Results | None = None) -> str:
    """A line of names, and one for each image. What is not known is empty; `before` has verdicts of an earlier run."""
    earlier = {} if before is None else {r["index"]: r["verdict"] for r in before.records}
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS if before is not None else COLUMNS[:-1])
    for record in results.records:
        row = [_cell(record.get(name)) for name in COLUMNS[:-2]] + [_cell(_file(record))]
        table.writerow(row if before is None else [*row, _cell(earlier.get(record["index"]))])
    return text.getvalue()


def is_table(path: Path) -> bool:
    """Whether a file is empty, or begins as such a table does."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(_BEGINS))
    except OSError:  # a folder, for one
        return False
    return begins in {b"", _BEGINS}


def _file(record: Mapping[str, Any]) -> str | None:
    certificate = record.get("certificate")
    return None if certificate is None else str(certificate["file"])


def _cell(value: Any) -> Any:
    """Numbers as they are; a text never begins as a formula does."""
    if not isinstance(value, str):
        return value
    return "'" + value if value.startswith(_FORMULAS) else value
