"""Runs the Python blocks of pages, whose printed output stands in the block of text behind each.

    python -m tests.docs.snippets PAGE ...

writes that output into the pages again, and the figures that their code saves beside them. Tests run the same blocks
and compare.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

SNIPPET = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)

Say = Callable[[str, str], str]


def run(page: Path, say: Say) -> str:
    """The page with the output of its blocks replaced by what `say(printed, written)` makes of it.

    Blocks share a namespace. They run on one thread, in the current folder.
    """
    namespace: dict[str, object] = {}

    def replaced(found: re.Match[str]) -> str:
        code, written = found[1], found[2] or ""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            above = "\n" * found.string.count("\n", 0, found.start(1))  # so that errors name lines of the page
            exec(compile(above + code, str(page), "exec"), namespace)
        output = say(printed.getvalue(), written)
        return f"```python\n{code}```\n" + (f"\n```text\n{output}```\n" if output else "")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return SNIPPET.sub(replaced, page.read_text(encoding="utf-8"))
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    """Write what blocks print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    for page in [path.absolute() for path in parser.parse_args().pages]:
        with TemporaryDirectory() as folder, contextlib.chdir(folder):
            page.write_text(run(page, lambda printed, _: printed), encoding="utf-8")
            for figure in Path().glob("*.svg"):
                shutil.copy(figure, page.parent)


if __name__ == "__main__":
    main()
