"""Tables of text: labels, features of tabular models, radii."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError
from krelax.problem.raw import Raw

LABEL_NAMES = ("label", "labels", "class", "target", "y", "category")
FILE_NAMES = ("file", "filename", "image", "path", "name", "id")


@dataclass(frozen=True)
class Table:
    """The rows of a file with commas (or semicolons, or tabs), as text; `lines` are their numbers in the file."""

    path: Path
    rows: list[list[str]]
    lines: list[int]

    @classmethod
    def read(cls, path: Path) -> Table:
        """Rows of equal length, at least one; empty lines are skipped. Raises InputError, which names the line."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InputError(f"{path}: cannot be read ({reason})") from error
        rows, lines = [], []
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append([cell.strip() for cell in row])
                    lines.append(reader.line_num)
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}") from error
        if not rows:
            raise InputError(f"{path}: there are no rows in this file")
        table = cls(path, rows, lines)
        wrong = next((i for i, row in enumerate(rows) if len(row) != len(rows[0])), None)
        if wrong is not None:
            raise InputError(f"{table.where(wrong)}: has {len(rows[wrong])} columns, the first row {len(rows[0])}")
        return table

    def where(self, row: int) -> str:
        """What messages call a row."""
        return f"{self.path}, line {self.lines[row]}"

    def header(self) -> list[str] | None:
        """The first row, if it is names and no number."""
        return self.rows[0] if not any(_is_number(cell) for cell in self.rows[0]) and len(self.rows) > 1 else None


def _delimiter(text: str) -> str:
    """Commas, or whatever else the first line has most of."""
    first = text.lstrip().partition("\n")[0]
    return max((",", ";", "\t"), key=first.count)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def label_column(
    table: Table, header: Sequence[str] | None, others: Collection[int] = (), wanted: str | None = None
) -> int:
    """The column of the labels: called `wanted`, or called so, or the only one but for `others`. Raises InputError."""
    names = [] if header is None else [name.lower() for name in header]
    if wanted is not None:
        if wanted.lower() not in names:
            raise InputError(f"{table.path}: has no column {wanted!r}; --labels names a file, or a column of the table")
        return names.index(wanted.lower())
    called = [j for j, name in enumerate(names) if name in LABEL_NAMES and j not in others]
    free = [j for j in range(len(table.rows[0])) if j not in others]
    if len(called) == 1 or len(free) == 1:
        return (called or free)[0]
    raise InputError(f"{table.path}: which column has the labels is not clear; call one of them `label`")


def read_labels(table: Table) -> NDArray[np.str_]:
    """The labels of a table that has nothing else, or a column that is called so. Raises InputError."""
    header = table.header()
    if header is None and table.rows[0][0].lower() in (*LABEL_NAMES, *FILE_NAMES):
        header = table.rows[0]
    column = label_column(table, header)
    return np.array([row[column] for row in (table.rows if header is None else table.rows[1:])])


def read_features(table: Table, column: str | None, with_labels: bool = True) -> list[Raw]:
    """Items of numbers, one a row, with the labels in one of the columns; several ways of reading them where there is
    no header, the first column or the last. Raises InputError, which names the row and column."""
    header = table.header()
    if len(table.rows) == 1 and not any(map(_is_number, table.rows[0])):
        raise InputError(f"{table.path}: there are no rows below the names of the columns")
    body = table if header is None else replace(table, rows=table.rows[1:], lines=table.lines[1:])
    places = [f"line {line}" for line in body.lines]
    if not with_labels:
        return [Raw(_numbers(body, header, None), None, places)]
    if header is not None or column is not None:
        chosen = label_column(table, header, (), column)
        return [Raw(_numbers(body, header, chosen), _column(body, chosen), places)]
    ends = (0, len(body.rows[0]) - 1)
    fit = [j for j in ends if all(cell.isascii() and cell.isdigit() for cell in _column(body, j))] or [ends[1]]
    return [Raw(_numbers(body, header, j), _column(body, j), places, column=j) for j in fit]


def _column(body: Table, column: int) -> NDArray[np.str_]:
    return np.array([row[column] for row in body.rows])


def _numbers(body: Table, header: Sequence[str] | None, without: int | None) -> NDArray[np.float32]:
    """The numbers in all columns but one, rounded to float32."""
    columns = [j for j in range(len(body.rows[0])) if j != without]
    result = np.empty((len(body.rows), len(columns)), dtype=np.float32)
    for i, row in enumerate(body.rows):
        for k, j in enumerate(columns):
            try:
                with np.errstate(over="ignore"):
                    result[i, k] = float(row[j])
            except ValueError:
                result[i, k] = np.nan
            if not np.isfinite(result[i, k]):
                name = f"column {j + 1}" + ("" if header is None else f" ({header[j]})")
                raise InputError(f"{body.where(i)}, {name}: {row[j]!r} is not a finite number")
    return result
