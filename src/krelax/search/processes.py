"""Questions searched side by side, in processes.

A search calls thousands of small operators a second, and threads of one interpreter wait for each other around every
one of them: two of them do hardly more than one. So every core gets a helper, another interpreter, which is sent one
question at a time and sends back what it found. It takes as long to start as torch to import; until all are there,
this process searches, too. Models stay here: a helper that wants a point to be replayed asks for it.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeVar

import torch
from torch import Tensor

from krelax.bounds.bounded import Bounded
from krelax.bounds.instance import Instance, OutOfTime, alone
from krelax.bounds.methods import METHODS, bound
from krelax.network.graph import Network
from krelax.problem.queries import Queries
from krelax.proof.log import ProofLog
from krelax.search.channel import UNSENDABLE, Channel
from krelax.search.complete import decide_question
from krelax.search.effort import Complete, SearchResult
from krelax.search.inputs import Inputs
from krelax.search.margins import Confirm
from krelax.search.verdict import Counterexample
from krelax.watch import now

# Decides one question, as `decide_question` does, perhaps without knowing anything about it yet.
Search = Callable[[Instance, Queries, Bounded | None, Confirm, Inputs | None], SearchResult]
# Says when a core is to go on, and whether.
Turn = SimpleQueue[bool]
T = TypeVar("T")

# Seconds between two looks at whether the parent is still there.
_WATCH = 1.0
# Seconds after its deadline in which a helper answers, unless it is stopped or hangs.
_GRACE = 1.0
# A helper finds modules where it is told, and nowhere else.
_BOOT = f"import sys; sys.path[:] = sys.argv[2:]; from {__name__} import serve; serve(int(sys.argv[1]))"


def cpu_seconds() -> float:
    """CPU seconds of this process and of helpers that have ended."""
    return sum(os.times()[:4])


def out_of_memory(error: RuntimeError) -> bool:
    """On a CPU, PyTorch has no type of its own for this."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def search_here(
    effort: Complete,
    instance: Instance,
    queries: Queries,
    found: Bounded | None,
    confirm: Confirm,
    boxes: Inputs | None = None,
) -> SearchResult:
    """Decide one question in this process; want of memory is a reason not to."""
    try:
        with instance.watch():
            return decide_question(
                instance, queries, found or bound(instance, queries, METHODS["crown"]), effort, confirm, boxes
            )
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return SearchResult(-torch.inf, "memory")


def pickled(network: Network, effort: Complete) -> bytes | None:
    """What helpers are sent first; None for networks with operators that cannot be sent."""
    try:
        return pickle.dumps((replace(network, replay=None), effort))
    except UNSENDABLE:
        return None


class _Silent(Exception):
    """A helper has not answered in time: it is stopped, or it hangs."""


def module_path() -> list[str]:
    """Where a helper finds modules: where this process does, but never in the folder that happens to be current, in
    which anybody's files may lie."""
    kept = [entry for entry in sys.path if os.path.isabs(entry)]
    home = str(Path(__file__).resolve().parents[2])
    return kept if home in kept else [*kept, home]


class Helper:
    """Another process that searches one question at a time, for one network. `first` is what `pickled` made."""

    def __init__(self, effort: Complete, first: bytes) -> None:
        self._here, self._first = partial(search_here, effort), first
        self.starts, self.runs = True, False
        mine, theirs = socket.socketpair()
        self._channel = Channel(mine)
        isolated = ["-I", *(["-B"] if sys.dont_write_bytecode else [])]
        with theirs:
            # One thread. Ctrl-C is for this process to handle, and so is stdout.
            self._process = subprocess.Popen(
                [sys.executable, *isolated, "-c", _BOOT, str(theirs.fileno()), *module_path()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def begin(self, cancelled: Event) -> None:
        """Wait while the process `starts`. When it is ready to work it `runs`, until it ends, for whatever reason."""

        def look() -> None:
            if cancelled.is_set():
                raise OutOfTime

        with suppress(EOFError, OSError):
            self._channel.receive(look)
            self._channel.send(self._first, look)
            self._channel.receive(look)
            self.runs = True
        self.starts = False

    def search(
        self, instance: Instance, queries: Queries, found: Bounded | None, confirm: Confirm, boxes: Inputs | None = None
    ) -> SearchResult:
        """Decide one question there, where `boxes` begin anew.

        What is proven is recorded in the log of the instance as if it had been here.

        It is searched here if that fails: the other process may not know operators that were defined in this one. A
        process that has not answered soon after the deadline is ended. Raises OutOfTime if the instance is cancelled,
        and what a search here raises.
        """
        left = None if instance.deadline is None else instance.deadline - now()
        known = found and replace(found, witness={}, tapes={})
        try:
            message = pickle.dumps((instance.region, queries, known, left, [log.tail() for log in instance.logs]))
        except UNSENDABLE:
            return self._here(instance, queries, found, confirm, boxes)
        look = partial(_look, instance)
        try:
            self._channel.send(message, look)
            while isinstance(answer := pickle.loads(self._channel.receive(look)), Tensor):
                self._channel.send(pickle.dumps(confirm(answer)), look)
        except OutOfTime:  # its answer, when it comes, would be taken for that to the next question
            self.runs = False
            self._process.kill()
            raise
        except (EOFError, OSError):
            self.runs = False
            return SearchResult(-torch.inf, "the process that searched it was ended, perhaps for want of memory")
        except _Silent:
            self.runs = False
            self._process.kill()
            return SearchResult(-torch.inf, "timeout")
        if answer is None:
            return self._here(instance, queries, found, confirm, boxes)
        result, tails = answer
        for log, tail in zip(instance.logs, tails, strict=True):
            log.absorb(tail)
        assert isinstance(result, SearchResult)
        return result

    def end(self) -> None:
        """Stop it, whatever it does."""
        self._process.kill()
        self._process.wait()


def _look(instance: Instance) -> None:
    """Whether to wait for an answer about an instance. Raises OutOfTime if it is cancelled, _Silent if it is late."""
    if instance.cancelled.is_set():
        raise OutOfTime
    if instance.deadline is not None and now() > instance.deadline + _GRACE:
        raise _Silent


def serve(descriptor: int) -> None:
    """Work on what comes through a socket until it ends: the main function of a helper."""
    torch.set_num_threads(1)
    channel = Channel(socket.socket(fileno=descriptor))
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()

    def send(message: object) -> None:
        channel.send(pickle.dumps(message))

    def confirm(points: Tensor) -> Counterexample | None:
        send(points)
        answer: Counterexample | None = pickle.loads(channel.receive())
        return answer

    def work(network: Network, effort: Complete, message: bytes) -> tuple[SearchResult, tuple[ProofLog, ...]]:
        region, queries, known, left, logs = pickle.loads(message)
        instance = replace(Instance.of(network, region), logs=tuple(logs)).until(left)
        return search_here(effort, instance, queries, known, confirm), instance.logs

    with suppress(EOFError, OSError):
        send("started")
        first = channel.receive()
        try:
            network, effort = pickle.loads(first)
        except Exception:  # it has operators that are defined elsewhere: the parent manages without
            return
        send("ready")
        while True:
            message = channel.receive()
            try:
                answer = work(network, effort, message)
            except (EOFError, OSError):
                raise
            except Exception:  # whatever it is, it will happen again in the parent, where it can be seen, or not
                answer = None
            send(answer)


def _end_with(parent: int) -> None:
    """Do not outlive a parent that was killed."""
    while os.getppid() == parent:
        time.sleep(_WATCH)
    os._exit(1)


class SideBySide:
    """Searches of several questions about one network, on so many cores. A context manager, which ends what is still
    being searched.

    Where processes cannot be started like here, on Windows and in frozen programs, and for networks that cannot be sent
    to others, one search follows the other.
    """

    def __init__(self, instance: Instance, effort: Complete, cores: int) -> None:
        able = os.name == "posix" and bool(sys.executable) and not getattr(sys, "frozen", False)
        self._cancelled, self._here = instance.cancelled, partial(search_here, effort)
        self.helpers: list[Helper] = []
        first = pickled(instance.network, effort) if able and cores > 1 else None
        if first is not None:
            with suppress(OSError):  # if the system has no room for more processes, fewer will do
                self.helpers += (Helper(effort, first) for _ in range(cores))
        self._lanes: list[tuple[Thread, Turn]] = []

    def __enter__(self) -> SideBySide:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._cancelled.set()
        for helper in self.helpers:
            helper.end()
        for thread, turn in self._lanes:
            turn.put(False)
            thread.join()

    def map(self, work: Callable[[int, Search], T], asked: Sequence[int]) -> Iterator[tuple[int, T]]:
        """What `work` makes of each question, as they come; it is given the question's number and how to search.

        A core takes no other question before the caller is done with what it found, which may be work, too. Raises what
        `work` raises.
        """
        if not self.helpers:
            for i in asked:
                yield i, work(i, self._here)
            return
        waiting, done = deque(asked), SimpleQueue[tuple[int, T, Turn] | BaseException]()

        def take(helper: Helper | None, turn: Turn) -> None:
            """One core's work; without a helper that of this process, until all helpers are there."""
            alone()
            try:
                if helper is not None:
                    helper.begin(self._cancelled)
                goes_on = True
                while goes_on and (helper is not None or any(h.starts for h in self.helpers)):
                    try:
                        i = waiting.popleft()
                    except IndexError:  # nothing is left
                        return
                    search = self._here if helper is None or not helper.runs else helper.search
                    done.put((i, work(i, search), turn))
                    goes_on = turn.get()
            except BaseException as error:  # raised again by who waits for results
                done.put(error)

        for helper in (None, *self.helpers):
            turn = Turn()
            self._lanes.append((Thread(target=take, args=(helper, turn), daemon=True), turn))
        for thread, _ in self._lanes:
            thread.start()
        for _ in asked:
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            i, found, turn = result
            yield i, found
            turn.put(True)
