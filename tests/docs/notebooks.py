"""Runs notebooks, whose cells' output stands in them.

    python -m tests.docs.notebooks NOTEBOOK ...

writes that output into them again. Tests run the same cells and compare.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient


def executed(path: Path) -> Any:
    """A notebook as it is when all cells have run, in an empty folder. Raises what a cell raises."""
    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}, coalesce_streams=True)
        client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def texts(notebook: Any) -> list[tuple[str, list[str]]]:
    """The code of each cell, and the texts that it shows."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [(cell.source, [_text(output) for output in cell.outputs]) for cell in cells]


def _text(output: Any) -> str:
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


def main(paths: Sequence[Path]) -> None:
    for path in paths:
        nbformat.write(executed(path), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="+", type=Path)
    main(parser.parse_args().notebooks)
