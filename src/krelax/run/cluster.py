"""Work on many machines: a window of tasks on Dask distributed, whose results come back as they are found.

Nothing of a run is kept on the cluster. At any moment there are as many tasks as workers have threads. What comes back
is handed on, and released there. Tasks of workers that end are begun again by the scheduler. Those that were under way
when the connection broke are begun again by this program, when it is there again.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from krelax._version import __version__
from krelax.errors import InputError, KrelaxError, internal
from krelax.run.cluster_parts import Part, Parts
from krelax.run.cluster_tasks import Answer, Files, Missing, other_version, search_part, serve

# Seconds in which a scheduler must answer, and in which one that was lost must be there again.
_CONNECTS, _RETURNS = 15.0, 300.0
# Seconds until there must be a worker.
_JOINS = 60.0
# Seconds between two looks at who is there, and at what has come back.
_LOOK, _GLANCE = 2.0, 0.005
# Seconds after which what is done, but does not come, is begun again.
_STUCK = 60.0
# Models that the cluster keeps for workers that do not have them yet.
_KEPT = 4

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Task:
    """A piece of work on a model, for `krelax.run.cluster_tasks.serve`, and what it is about."""

    model: Path
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    about: Any


@dataclass(frozen=True)
class Failure:
    """Why a task has no answer: something unforeseen, or workers that ended with it again and again."""

    reason: str


@dataclass
class Story:
    """What happened on a cluster during a run."""

    workers: set[str] = field(default_factory=set)
    threads: int = 0
    lost: int = 0
    reconnected: int = 0
    again: int = 0
    parts: int = 0

    def __str__(self) -> str:
        """In one line."""
        told = [
            (len(self.workers), "took part", "worker"),
            (self.lost, "ended before the run did", "worker"),
            (self.reconnected, "broke", "connection"),
            (self.again, "sent again", "task"),
            (self.parts, "given to workers without a question", "part"),
        ]
        shown = [f"{n} {name}{'s' * (n != 1)} {what}" for n, what, name in told if n or what == "took part"]
        return ", ".join(shown)


class Cluster:
    """Workers of a Dask cluster; `connect` gives a client, again and again."""

    def __init__(self, address: str, connect: Callable[[], Any], say: Say) -> None:
        self._address, self._connect, self._say = address, connect, say
        self._client, self._run, self._number = connect(), secrets.token_hex(4), count()
        self._flying: dict[Any, Task] = {}
        self._done: dict[Any, float] = {}
        self._again: deque[Task] = deque()
        self._parts = Parts()
        self._digests: dict[Path, str] = {}
        self._models: OrderedDict[str, Any] = OrderedDict()
        self._looked, self._present, self._broken = -_LOOK, set[str](), False
        self.story = Story()

    @property
    def threads(self) -> int:
        """How many tasks the workers can do at a time."""
        return max(1, self.story.threads)

    def results(self, take: Callable[[], Task | None]) -> Iterator[tuple[Task, Answer | Failure]]:
        """The answer to each task that `take` gives, as they come, each once. It is asked for one whenever a worker has
        nothing to do, and again when results have come in if it had none. Workers for which there is none get parts of
        the tasks of others.

        Raises InputError that a task raises, and if the scheduler is lost for good.
        """
        landed = self._landing()
        while True:
            if self._look():
                landed = self._landing()
            if self._fill(landed, take):
                return
            self._help(landed)
            batch = landed.next_batch(block=False)
            if not batch:
                time.sleep(_GLANCE)
            for future, value in batch:
                task = self._flying.pop(future, None)
                if task is None:
                    continue
                self._done.pop(future, None)
                answer = self._answer(task, future, value, landed)
                future.release()
                if answer is None:
                    continue
                if isinstance(task.about, Part):
                    self._parts.came(task.about, answer.value if isinstance(answer, Answer) else None)
                else:
                    self._withdraw_parts(future.key)
                    yield task, answer

    def check_model(self, model: Path) -> str:
        """The digest of a model's files. Raises InputError if it cannot be read."""
        if model not in self._digests:
            self._digests[model] = Files.of(model).digest
        return self._digests[model]

    def close(self) -> None:
        """Withdraw what is under way, which ends it soon, and leave."""
        with suppress(Exception):
            if self._flying and self._client.status == "running":
                self._client.cancel(list(self._flying))
        self._flying.clear()
        self._models.clear()
        with suppress(Exception):
            self._client.close(timeout=_CONNECTS)

    def _landing(self) -> Any:
        from distributed import as_completed

        return as_completed(loop=self._client.loop, with_results=True, raise_errors=False)

    def _fill(self, landed: Any, take: Callable[[], Task | None]) -> bool:
        """As many tasks as there are threads: what waits at a worker that is killed would be blamed as well. Whether
        all is done."""
        while self._client.status == "running" and len(self._flying) < self.threads:
            task = self._again.popleft() if self._again else take()
            if task is None:
                return not self._flying
            self.story.reconnected += self._broken
            self._broken = False
            self._submit(task, landed)
        return False

    def _help(self, landed: Any) -> None:
        """Give workers that have no task parts of the tasks of others."""
        if self._client.status != "running" or (len(self._flying) >= self.threads and not self._parts):
            return
        whole = {future.key: task for future, task in self._flying.items() if not isinstance(task.about, Part)}
        self._parts.trade(self._client, whole, self.threads - len(self._flying))
        while len(self._flying) < self.threads and (part := self._parts.next()):
            self.story.parts += 1
            self._submit(Task(whole[part.key].model, search_part, (part.content,), part), landed)

    def _withdraw_parts(self, key: str) -> None:
        """Nobody waits for the parts of a task that has ended."""
        gone = [f for f, task in self._flying.items() if isinstance(task.about, Part) and task.about.key == key]
        for future in gone:
            del self._flying[future]
        if gone:
            self._client.cancel(gone)

    def _submit(self, task: Task, landed: Any, worker: str | None = None) -> None:
        """Send a task; to a `worker` that does not have the model with that model."""
        digest = self.check_model(task.model)
        files = None if worker is None else self._model(task.model, digest)
        place = {} if worker is None else {"workers": [worker], "allow_other_workers": True}
        key = f"krelax-{task.work.__name__}-{self._run}-{next(self._number)}"
        future = self._client.submit(
            serve, __version__, digest, files, task.work, *task.arguments, key=key, pure=False, **place
        )
        self._flying[future] = task
        landed.add(future)

    def _model(self, path: Path, digest: str) -> Any:
        """The files of a model, as a task of their own: the scheduler makes them anew if workers that have them end."""
        known = self._models.get(digest)
        if known is None or known.cancelled():
            files = Files.of(path)
            if files.digest != digest:
                raise InputError(f"{path}: was changed during the run; run again")
            key = f"krelax-model-{self._run}-{digest}-{next(self._number)}"
            self._models[digest] = self._client.submit(_itself, files, key=key, pure=False)
        self._models.move_to_end(digest)
        while len(self._models) > _KEPT:
            self._models.popitem(last=False)
        return self._models[digest]

    def _answer(self, task: Task, future: Any, value: Any, landed: Any) -> Answer | Failure | None:
        """What came of a task; None if it is under way again."""
        if future.status == "finished" and isinstance(value, Missing):
            self._submit(task, landed, value.worker)
            return None
        if future.status == "finished" and isinstance(value, Answer):
            self.story.workers.add(value.worker)
            return value
        if future.status == "error":
            return _failure(value[1])
        self._broken |= getattr(value, "reason", "") == "scheduler-connection-lost"
        self._repeat(task)
        return None

    def _repeat(self, task: Task) -> None:
        if isinstance(task.about, Part):  # the search that gave it still has it
            self._parts.came(task.about, None)
            return
        self.story.again += 1
        self._again.append(task)

    def _look(self) -> bool:
        """Now and then: who is there, and what has been lost. Whether there is another client now."""
        now = time.monotonic()
        if now < self._looked + _LOOK:
            return False
        self._looked = now
        if self._client.status in {"closing", "closed"}:
            self._return()
            return True
        with suppress(OSError, TimeoutError, ValueError):
            self._count(self._client.nthreads() if self._client.status == "running" else None)
        for future in [future for future in self._flying if future.status != "pending"]:
            patience = _STUCK if future.status == "finished" else _LOOK
            if now > self._done.setdefault(future, now) + patience:
                self._broken |= future.cancelled()
                self._repeat(self._flying.pop(future))
        return False

    def _count(self, threads: dict[str, int] | None) -> None:
        """Take into account how many threads each worker has."""
        if threads is None:
            return
        if self._present and not threads:
            self._say("no worker is left; waiting for others")
        self.story.lost += len(self._present - set(threads))
        self._present, self.story.threads = set(threads), sum(threads.values())
        self.story.workers |= self._present

    def _return(self) -> None:
        """Another client, for all that was under way. Raises InputError if the scheduler cannot be reached for long."""
        self._say(f"the connection to {self._address} is lost; trying again")
        for task in self._flying.values():
            self._repeat(task)
        self._parts.forget()
        self._flying.clear()
        self._models.clear()
        deadline = time.monotonic() + _RETURNS
        while True:
            try:
                self._client = self._connect()
                self._broken = True
                return
            except InputError as error:
                if time.monotonic() > deadline:
                    words = "results in a --jsonl file are kept, and --resume goes on from there"
                    raise InputError(f"--cluster {self._address}: lost, and not there again; {words}") from error
            time.sleep(_LOOK)

    def check(self) -> None:
        """Raises InputError unless there are workers, and all of them have this version of krelax."""

        def version() -> str:  # is sent as it is: workers may not have krelax
            try:
                from krelax._version import __version__ as found
            except ImportError:
                found = ""
            return found

        try:
            self._client.wait_for_workers(1, timeout=_JOINS)
            versions = self._client.run(version, on_error="return")
        except (OSError, TimeoutError) as error:
            raise InputError(f"--cluster {self._address}: no worker is there; start some: `dask worker`") from error
        for worker, found in sorted(versions.items()):
            if isinstance(found, str) and found != __version__:
                raise InputError(f"--cluster {self._address}: {other_version(worker, found, __version__)}")


def _itself(files: Files) -> Files:
    """The task whose result is a model."""
    return files


def _failure(error: BaseException) -> Failure:
    """Why a task has no answer. Raises what ends the run."""
    from distributed import KilledWorker

    if isinstance(error, KrelaxError):
        raise error
    if isinstance(error, ImportError):
        raise InputError(f"a worker cannot run krelax ({error}); install it there with all it needs") from error
    if isinstance(error, KilledWorker):
        words = f"{error.allowed_failures + 1} workers ended while they worked on it, perhaps for want of memory"
        return Failure(internal(ChildProcessError(words)))
    return Failure(internal(error))


@contextmanager
def connected(address: str, say: Say) -> Iterator[Cluster]:
    """The cluster at an address: of a scheduler, or in the file that it writes; `local` starts workers here, and
    `local:N` so many. Raises InputError if there is none."""
    try:
        import distributed
    except ImportError as error:
        raise InputError("--cluster needs Dask: pip install 'krelax[cluster]'") from error
    _silence()
    with ExitStack() as stack:
        name, _, number = address.partition(":")
        where: dict[str, Any] = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
        if name == "local":
            where = {"address": stack.enter_context(_local(address, number))}

        def connect() -> Any:
            try:
                return distributed.Client(**where, timeout=_CONNECTS, set_as_default=False, name="krelax")
            except Exception as error:  # of many types, for addresses that are none, and ports where something else is
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                words = "start `dask scheduler`, or give --cluster local"
                raise InputError(f"--cluster {address}: no scheduler answers ({reason}); {words}") from error

        cluster = Cluster(address, connect, say)
        stack.callback(cluster.close)
        cluster.check()
        yield cluster


def _silence() -> None:
    """What Dask has to say of workers that come and go is not for the terminal of a run."""
    for name in ["distributed", *logging.root.manager.loggerDict]:
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _local(address: str, number: str) -> Iterator[Any]:
    """Workers on this machine, each a process with one thread and its share of the memory."""
    import dask
    from dask.system import CPU_COUNT
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    if number and not (number.isascii() and number.isdigit() and 0 < int(number) <= 4096):
        raise InputError(f"--cluster {address}: give local, or local:N with a number of workers")
    workers = int(number or CPU_COUNT)
    memory, before = "distributed.worker.memory", "distributed.nanny.pre-spawn-environ"
    environment = dict(dask.config.get(before, {}))
    # With it, large tensors are given back to the system and fetched again, all the time.
    environment.pop("MALLOC_TRIM_THRESHOLD_", None)
    # Modules are not found in the folder that happens to be current.
    environment["PYTHONSAFEPATH"] = "1"
    settings = {
        # Nothing is kept there that could be written to disk, and no thread is freed by waiting.
        **{f"{memory}.{name}": False for name in ("target", "spill", "pause")},
        "distributed.worker.profile.enabled": False,
        before: environment,
    }
    with dask.config.set(settings), ExitStack() as stack:
        if "PYTHONSAFEPATH" not in os.environ:  # Dask sets it here as well
            stack.callback(os.environ.pop, "PYTHONSAFEPATH", None)
        cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0",
            memory_limit=MEMORY_LIMIT // workers, silence_logs=logging.CRITICAL,
        )  # fmt: skip
        stack.callback(_end, cluster)
        yield cluster


def _end(cluster: Any) -> None:
    with suppress(Exception):
        cluster.close(timeout=_CONNECTS)
