"""Parts of hard questions, for workers that have nothing else to do: carried between the searches that give them and
the workers that search them. Neither questions nor answers are known here. A part whose worker ends is begun again, and
one that is lost is told to the search, which has it as it was."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Container, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

from krelax.run.cluster_tasks import trade

# Seconds between two times that searches are asked for parts.
_ASK = 0.2
# Seconds in which a worker must answer.
_ANSWERS = 5.0


@dataclass(frozen=True)
class Part:
    """A part that the task of a key gave, by its name there."""

    key: str
    name: str
    content: bytes


class Parts:
    """The parts that wait for a worker, and what came of others and waits for those who gave them."""

    def __init__(self) -> None:
        self._waiting = deque[Part]()
        self._came: dict[str, dict[str, bytes | None]] = {}
        self._asked = -_ASK

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiting or self._came)

    def next(self) -> Part | None:
        """One that waits for a worker."""
        return self._waiting.popleft() if self._waiting else None

    def came(self, part: Part, value: bytes | None) -> None:
        """Keep what came of a part for who gave it; None if nothing did."""
        self._came.setdefault(part.key, {})[part.name] = value

    def forget(self, keys: Container[str] = ()) -> None:
        """Drop what belongs to tasks of other keys, which have ended."""
        self._waiting = deque(part for part in self._waiting if part.key in keys)
        self._came = {key: came for key, came in self._came.items() if key in keys}

    def trade(self, client: Any, keys: Collection[str], idle: int) -> None:
        """Now and then: tell tasks of these keys what came of their parts, and ask for more if there are `idle` threads
        for which no part waits."""
        self.forget(keys)
        wanted = idle - len(self._waiting)
        if not keys or (wanted <= 0 and not self._came) or time.monotonic() < self._asked + _ASK:
            return
        self._asked = time.monotonic()
        each = max(0, ceil(wanted / len(keys)))
        with suppress(OSError, TimeoutError, ValueError):  # workers come and go
            for key, worker in _places(client.processing(), keys).items():
                ask = partial(
                    client.run, trade, key, self._came.pop(key, {}), each, workers=[worker], on_error="ignore"
                )
                given = client.sync(ask, callback_timeout=_ANSWERS).get(worker, {})
                self._waiting.extend(Part(key, *part) for part in given.items())


def _places(processing: Mapping[str, Any], keys: Container[str]) -> dict[str, str]:
    """The worker of each task."""
    return {key: worker for worker, some in processing.items() for key in some if key in keys}
