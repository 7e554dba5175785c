"""The last resort where a limit of time is not kept because what is under way cannot be interrupted."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

# Seconds after the limit. Almost all work ends by itself before that.
_GRACE = 1.25
# Whoever ends the process holds it for ever: limits of one command may pass at the same moment.
_ending = threading.Lock()


class Patience:
    """Says `last_words` and ends the process with `code` if a limit in seconds has passed for some time. A context
    manager: the limit counts from its beginning, and there is no such end after it, nor one without a limit.

    Compilers and solvers do not look at a clock between their steps, and threads cannot be ended. What the process was
    about to find is lost, but nothing wrong is said: the answer is that there was no time.
    """

    def __init__(self, limit: float | None, last_words: Callable[[], None], code: int) -> None:
        self._last_words, self._code = last_words, code
        self._lock, self._over = threading.Lock(), False
        self._timer: threading.Timer | None = None
        if limit is not None and limit < threading.TIMEOUT_MAX:
            self._timer = threading.Timer(limit + _GRACE, self._end)
            self._timer.daemon = True

    def __enter__(self) -> Patience:
        if self._timer is not None:
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # if the end has begun, it is not disturbed
            self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        with self._lock:
            if self._over:
                return
            _ending.acquire()
            self._last_words()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(self._code)
