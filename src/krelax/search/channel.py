"""Messages between two processes. Neither side waits for ever on one that has stopped to answer."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable

# Seconds between two looks at whether waiting is still worthwhile.
_PATIENCE = 0.1
# Bytes in front of a message that say how long it is.
_HEAD = 8
_AT_ONCE = 1 << 20
# What pickling raises for classes and functions that are defined inside others.
UNSENDABLE = (pickle.PicklingError, AttributeError, TypeError)


def _for_ever() -> None:
    """Waiting is always worthwhile."""


class Channel:
    """One end of a stream of messages, each a sequence of bytes.

    While nothing moves, `look` is called several times a second: what it raises ends the wait. A message may then have
    been sent or read in part, so the channel is of no further use. Raises EOFError where the other side has gone, and
    OSError where the system refuses.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.settimeout(_PATIENCE)

    def send(self, message: bytes, look: Callable[[], None] = _for_ever) -> None:
        """Hand a message over."""
        for part in (len(message).to_bytes(_HEAD, "little"), message):
            left = memoryview(part)
            while left:
                try:
                    left = left[self._end.send(left[:_AT_ONCE]) :]
                except TimeoutError:
                    look()

    def receive(self, look: Callable[[], None] = _for_ever) -> bytes:
        """The next message."""
        return self._read(int.from_bytes(self._read(_HEAD, look), "little"), look)

    def close(self) -> None:
        """Nothing more is said."""
        self._end.close()

    def _read(self, size: int, look: Callable[[], None]) -> bytes:
        parts: list[bytes] = []
        while size:
            try:
                part = self._end.recv(min(size, _AT_ONCE))
            except TimeoutError:
                look()
                continue
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
