"""Progress of a run, on stderr or in a notebook."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

_PATIENCE = 2.0  # seconds before a progress bar appears


class Progress:
    """A progress bar with the counts of verdicts so far; silent unless the run is long, and stderr is a terminal or the
    program a notebook. It can be `shown` never."""

    def __init__(self, total: int, title: str, shown: bool = True) -> None:
        self._total, self._title, self._shown = total, title, shown
        self._done: dict[str, int] = {}
        self._began = time.perf_counter()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def seen(self, record: dict[str, Any]) -> None:
        """Count a result."""
        verdict = str(record.get("verdict") or record.get("answer"))
        self._done[verdict] = self._done.get(verdict, 0) + 1
        if self._shown and self._bar is None and time.perf_counter() - self._began > _PATIENCE:
            self._start()
        if self._bar is not None:
            words = "  ".join(f"{count} {name}" for name, count in sorted(self._done.items()))
            self._bar.update(0, completed=sum(self._done.values()), words=words)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        if console.is_terminal or console.is_jupyter:
            columns = (TextColumn(self._title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, TextColumn("{task.fields[words]}"), console=console, transient=True)
            self._bar.add_task("", total=self._total, words="")
            self._bar.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
