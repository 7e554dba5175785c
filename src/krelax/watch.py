"""The clock of a piece of work. Long operations look at it between their parts, and are given up when it has run out.

Most work looks at the deadline of its instance before each of its steps. A single step on a large network takes
seconds, though: one backward pass, one evaluation. These call `tick` at every node. They do not know of any deadline;
whoever has one watches the thread that works for it.

The clock shows seconds, or counts work: then what depends on it does not depend on how fast a machine is, or how busy.
So every `tick` says how much work it stands for, in products of two numbers, roughly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Over = Callable[[], bool]

# Products of two numbers in a second, roughly: as operators on small tensors make them, and in large ones.
PRODUCTS, _AT_BEST = 1e9, 5e9
# Seconds that a step takes beside its products, and a look at the clock: without the latter, a loop that waits for a
# moment might wait for ever where work is counted.
_STEP, _LOOK = 8e-5, 1e-6


class OutOfTime(Exception):
    """The time for a piece of work has passed; what was computed for it so far is dropped."""


class _Here(threading.local):
    """Says, for a thread, whether its work is to be given up, how much there was, and what cancels it. None where
    nobody has a deadline, where time is not counted as work, or where nobody can cancel it."""

    over: Over | None = None
    worked: float | None = None
    cancelled: threading.Event | None = None


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


@contextmanager
def cancelled_by(event: threading.Event) -> Iterator[None]:
    """Instances that this thread begins are cancelled when the event is set, as if their time had passed."""
    before, _here.cancelled = _here.cancelled, event
    try:
        yield
    finally:
        _here.cancelled = before


def cancellation() -> threading.Event:
    """The event that cancels what this thread does: its own, if nobody else can cancel it."""
    return _here.cancelled or threading.Event()


def now() -> float:
    """The clock, in seconds from some moment on: of time, or of work where that is `counted`."""
    if _here.worked is None:
        return time.perf_counter()
    _here.worked += _LOOK
    return _here.worked


@contextmanager
def counted(counts: bool = True) -> Iterator[None]:
    """While this lasts, the clock of this thread counts its work, if that is wanted. It must work alone then."""
    before, _here.worked = _here.worked, 0.0 if counts else _here.worked
    try:
        yield
    finally:
        _here.worked = before


def counts_work() -> bool:
    """Whether the clock of this thread counts work."""
    return _here.worked is not None


def tick(products: float = 0.0) -> None:
    """A step of so many products begins. Raise OutOfTime if the work of this thread is to be given up."""
    if _here.worked is not None:
        _here.worked += _STEP + products / _AT_BEST
    look()


def look() -> None:
    """Raise OutOfTime if the work of this thread is to be given up."""
    over = _here.over
    if over is not None and over():
        raise OutOfTime
