"""The clock of a piece of work. Long operations look at it between their parts, and are given up when it has run out.

Most work looks at the deadline of its instance before each of its steps. A single step on a large network takes
seconds, though: one backward pass, one evaluation. These call `tick` at every node. They do not know of any deadline;
whoever has one watches the thread that works for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Over = Callable[[], bool]


class OutOfTime(Exception):
    """The time for a piece of work has passed; what was computed for it so far is dropped."""


class _Here(threading.local):
    """Says, for a thread, whether its work is to be given up. None where nobody has a deadline."""

    over: Over | None = None


_here = _Here()


@contextmanager
def watched(over: Over | None) -> Iterator[None]:
    """What this thread does is given up at the next `tick` after `over` has become true; None for never."""
    before, _here.over = _here.over, over
    try:
        yield
    finally:
        _here.over = before


def current() -> Over | None:
    """What this thread watches, for another one that works for it."""
    return _here.over


def watch_too(over: Over | None) -> None:
    """From now on this thread watches the same as another one."""
    _here.over = over


def tick() -> None:
    """Raise OutOfTime if the work of this thread is to be given up."""
    over = _here.over
    if over is not None and over():
        raise OutOfTime
