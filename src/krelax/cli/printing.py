"""What the commands print: progress on stderr when it is a terminal, results on stdout."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from krelax.run.certify import CertifyOptions, Summary

_PATIENCE = 2.0  # seconds before a progress bar appears


class Progress:
    """A progress bar with the counts of verdicts so far; silent unless stderr is a terminal and the run is long."""

    def __init__(self, total: int, title: str) -> None:
        self._total, self._title = total, title
        self._done: dict[str, int] = {}
        self._began = time.perf_counter()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def seen(self, record: dict[str, Any]) -> None:
        """Count a result."""
        verdict = str(record.get("verdict") or record.get("answer"))
        self._done[verdict] = self._done.get(verdict, 0) + 1
        if self._bar is None and time.perf_counter() - self._began > _PATIENCE:
            self._start()
        if self._bar is not None:
            words = "  ".join(f"{count} {name}" for name, count in sorted(self._done.items()))
            self._bar.update(0, completed=sum(self._done.values()), words=words)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        if console.is_terminal:
            columns = (TextColumn(self._title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, TextColumn("{task.fields[words]}"), console=console, transient=True)
            self._bar.add_task("", total=self._total, words="")
            self._bar.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns: the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def _why_unknown(summary: Summary) -> str:
    """The reasons of what is unknown, the commonest first; those that differ in their particulars with an example."""
    reasons = [summary.reasons[index] for index, verdict in summary.verdicts.items() if verdict == "unknown"]
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        kinds.setdefault(reason.partition(": ")[0], []).append(reason)
    told = [f"{len(kind)} {kind[0]}" for kind in sorted(kinds.values(), key=len, reverse=True)]
    return ": " + ", ".join(told) if told else ""


def certify_summary(model: Path, images: Path, options: CertifyOptions, summary: Summary) -> None:
    """The outcome of a data-set run."""
    total, counts = len(summary.verdicts), summary.counts
    wrong = sum(1 for reason in summary.reasons.values() if reason == "misclassified")
    by: dict[str, int] = {}
    for index, verdict in summary.verdicts.items():
        if verdict == "holds":
            by[summary.reasons[index]] = by.get(summary.reasons[index], 0) + 1
    how = ", ".join(f"{count} by {name}" for name, count in by.items())
    rows = [
        ("holds", "proven robust against any adversary" + (f": {how}" if how else "")),
        ("violated", f"a counterexample was replayed ({wrong} misclassified as they are)"),
        ("unknown", "neither proven nor refuted" + _why_unknown(summary)),
    ]
    largest = max(options.eps) if isinstance(options.eps, tuple) else options.eps
    ball = f"{options.norm} ball of radius {float(largest):g}" + " at most" * isinstance(options.eps, tuple)
    click.echo(f"{model.name} on {images.name}: {total} images, {ball}, method {options.method}")
    for name, meaning in rows:
        count = counts.get(name, 0)
        click.echo(f"  {name:<9}{count:>6}  {100 * count / total:5.1f} %   {meaning}")
    fresh = total - summary.resumed
    each = f", {1000 * summary.seconds / fresh:.1f} ms an image" if fresh else ""
    click.echo(f"  {summary.seconds:.2f} s{each}" + (f"; {summary.resumed} resumed" if summary.resumed else ""))
