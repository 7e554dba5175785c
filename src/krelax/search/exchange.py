"""Parts of a search's tree that others may take: what lies between a search and whoever has nothing else to do.

Somebody asks for parts, from another thread. The search gives some of what is open, when it next looks, and counts it
as open until it knows what came of it. Whoever works on a part for some seconds gives back what it closed, and what it
left. Parts and what came of them are bytes here, and each has a name that no other has ever had.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from krelax.watch import counts_work

# Seconds after which a question is hard enough to be divided.
_HARD = 2.0


class Exchange:
    """What a search gives and gets. `hard` are the seconds for which nothing is given."""

    def __init__(self, hard: float = _HARD) -> None:
        self._lock, self._wanted, self._from = threading.Lock(), 0, time.monotonic() + hard
        self._given: dict[str, bytes] = {}
        self._came: dict[str, bytes | None] = {}

    def trade(self, came: dict[str, bytes | None], wanted: int) -> dict[str, bytes]:
        """For others: hand in what came of parts, None if nothing did, and say how many further ones are wanted. Parts
        that were given since the last time."""
        with self._lock:
            given, self._given = self._given, {}
            self._came |= came
            self._wanted = max(0, wanted - len(given))
            return given

    @property
    def wanted(self) -> int:
        """For the search: how many parts to give."""
        return self._wanted if time.monotonic() > self._from else 0

    def give(self, part: bytes) -> str:
        """For the search: give a part. Its name."""
        name = secrets.token_hex(16)
        with self._lock:
            self._given[name] = part
            self._wanted = max(0, self._wanted - 1)
        return name

    def came(self, name: str) -> tuple[bytes | None] | None:
        """For the search: what came of a part, once; None where it is not there yet."""
        with self._lock:
            return (self._came.pop(name),) if name in self._came else None


class _Here(threading.local):
    exchange: Exchange | None = None


_here = _Here()


@contextmanager
def shared_by(exchange: Exchange) -> Iterator[None]:
    """Searches that this thread begins give parts to whoever asks there."""
    before, _here.exchange = _here.exchange, exchange
    try:
        yield
    finally:
        _here.exchange = before


def exchange() -> Exchange | None:
    """Where this thread's searches give parts; nowhere, if answers must not depend on who has time."""
    return None if counts_work() else _here.exchange
