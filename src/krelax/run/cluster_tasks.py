"""What a worker of a cluster does: one task at a time, on one core, with models that it keeps between them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from krelax._version import __version__
from krelax.bounds.instance import alone, limit_memory
from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.network.onnx_file import files_beside
from krelax.problem.images import Images
from krelax.run.bench import Instance, Result, verified
from krelax.run.certificates import Certificates
from krelax.run.certify import CertifyOptions, decide_chosen
from krelax.run.verify import VerifyOptions
from krelax.search.boxes import work_on
from krelax.search.exchange import Exchange, shared_by
from krelax.search.pipeline import Plan
from krelax.watch import cancelled_by

# Models that a worker keeps, at least: one for each of its threads, and one more.
_KEPT = 4
# Seconds between two looks at whether anybody still wants what is being computed.
_LOOK = 0.5
# The part of a worker's memory that bounds and searches may fill. The rest is for the program itself.
_PART = 0.75


@dataclass(frozen=True, eq=False)
class Files:
    """The files of a model, the model's own first, by their names in its folder."""

    contents: Mapping[str, bytes]

    @classmethod
    def of(cls, model: Path) -> Files:
        """Raises InputError if the model's own file cannot be read. What is missing beside it is missed by whoever
        reads the network."""
        try:
            found = {model.name: model.read_bytes()}
        except (OSError, ValueError) as error:
            raise InputError(f"{model}: cannot be read ({error})") from error
        for path in files_beside(model):
            name = os.path.relpath(path, model.parent)
            if path.is_file() and not name.startswith(os.pardir):
                found[name] = path.read_bytes()
        return cls(found)

    @property
    def digest(self) -> str:
        """Of the names and what they hold."""
        parts = [f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in self.contents.items()]
        return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()

    def unpack(self, folder: Path) -> Path:
        """Write the files to a folder; the path of the model."""
        for name, content in self.contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder / next(iter(self.contents))


class Held:
    """A model that a worker has in a folder of its own, and the networks that were read from it."""

    def __init__(self, files: Files, folder: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="krelax-", dir=folder))
        self.path = files.unpack(self._folder)
        self._networks: dict[tuple[str | None, bool], Network] = {}

    def network(self, output: str | None, scores: bool) -> Network:
        """As `load_onnx`, which reads it once."""
        if (output, scores) not in self._networks:
            self._networks[output, scores] = load_onnx(self.path, output=output, scores=scores)
        return self._networks[output, scores]

    def forget(self) -> None:
        """Read it anew when it is needed again."""
        self._networks.clear()

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self._folder, ignore_errors=True)


_held: OrderedDict[str, Held] = OrderedDict()
_lock = Lock()


def _found(digest: str, files: Files | None, worker: Any) -> Held | None:
    """The model of this digest, from `files` if they are given and it is not there."""
    with _lock:
        if digest not in _held and files is not None:
            _held[digest] = Held(files, Path(worker.local_directory))
            while len(_held) > max(_KEPT, worker.state.nthreads + 1):
                _held.popitem(last=False)[1].remove()
        if digest in _held:
            _held.move_to_end(digest)
        return _held.get(digest)


@dataclass(frozen=True)
class Missing:
    """A worker that does not have the model yet."""

    worker: str


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of a task, which worker found it, and the seconds that it took."""

    worker: str
    value: Any
    seconds: float


def serve(
    version: str, digest: str, files: Files | None, work: Callable[..., Any], *arguments: Any
) -> Answer | Missing:
    """Do a piece of `work`, on the model of this digest and these arguments. Raises InputError on a worker with another
    version of krelax, and what the work raises."""
    from distributed import get_worker

    worker = get_worker()
    if version != __version__:
        raise InputError(other_version(worker.address, __version__, version))
    held = _found(digest, files, worker)
    if held is None:
        return Missing(worker.address)
    alone()
    most = worker.memory_manager.memory_limit
    limit_memory(int(_PART * most / worker.state.nthreads) if most else None)
    began = time.perf_counter()
    with _while_wanted(worker), _giving(worker.get_current_task()):
        value = work(held, *arguments)
    return Answer(worker.address, value, time.perf_counter() - began)


def other_version(worker: str, theirs: str, ours: str) -> str:
    """That a worker cannot be used, or answers would depend on where they were found."""
    return f"worker {worker} has krelax {theirs or 'not at all'}, this program is {ours}; install the same on both"


@contextmanager
def _while_wanted(worker: Any) -> Iterator[None]:
    """Cancel the work soon after the client has withdrawn its task, or has gone: threads cannot be ended."""
    from distributed import Reschedule

    key, cancelled, dropped, done = worker.get_current_task(), Event(), Event(), Event()

    def look() -> None:
        while not done.wait(_LOOK):
            task = worker.state.tasks.get(key)
            if task is None or task.state not in {"executing", "long-running"}:
                dropped.set()
                cancelled.set()
                return

    Thread(target=look, daemon=True).start()
    try:
        with cancelled_by(cancelled):
            yield
    finally:
        done.set()
    if dropped.is_set():  # what was found until then is not the answer
        raise Reschedule


# What tasks give others, by their keys.
_exchanges: dict[str, Exchange] = {}


@contextmanager
def _giving(key: str) -> Iterator[None]:
    """Let a task's searches give parts of their trees to those who ask for them."""
    _exchanges[key] = Exchange()
    try:
        with shared_by(_exchanges[key]):
            yield
    finally:
        del _exchanges[key]


def trade(key: str, came: dict[str, bytes | None], wanted: int) -> dict[str, bytes]:
    """As `krelax.search.exchange.Exchange.trade`, with the task of this key; nothing where that is not here."""
    found = _exchanges.get(key)
    return {} if found is None else found.trade(came, wanted)


def search_part(held: Held, part: bytes) -> bytes:
    """What comes of a part of another task's search."""
    return work_on(part)


@dataclass(frozen=True)
class Proving:
    """Which certificates are wanted."""

    check: bool
    semantics: str

    @classmethod
    def of(cls, certificates: Certificates | None) -> Proving | None:
        return None if certificates is None else cls(certificates.check, certificates.semantics)

    def keeper(self, folder: str, model: Path, output: str | None) -> Certificates:
        """Where they are written on the worker."""
        return Certificates(Path(folder), model, self.check, self.semantics, output)


def certify_images(
    held: Held, output: str | None, images: Images, indices: Sequence[int], options: CertifyOptions, quick: bool,
    proving: Proving | None,
) -> list[tuple[dict[str, Any], bytes | None]]:  # fmt: skip
    """The records of images, as `decide_chosen` finds them, and the certificates of those that hold. If it is to be
    `quick`, there is no complete search."""
    plan = Plan.of(options.method)
    found: list[tuple[dict[str, Any], bytes | None]] = []
    with tempfile.TemporaryDirectory(dir=held.path.parent) as folder:
        keeper = None if proving is None else proving.keeper(folder, held.path, output)

        def keep(record: dict[str, Any]) -> None:
            written = record.get("certificate")
            found.append((record, None if written is None else Path(folder, written["file"]).read_bytes()))

        network = held.network(output, scores=True)
        decide_chosen(network, images, indices, options, plan.quick if quick else plan, keep, keeper)
    return found


def verify_instance(
    held: Held, instance: Instance, query: bytes, options: VerifyOptions, proving: Proving | None
) -> tuple[Result, bytes | None]:
    """What comes of an instance, whose property is in `query`, and its certificate if it holds."""
    with tempfile.TemporaryDirectory(dir=held.path.parent) as folder:
        keeper = None if proving is None else proving.keeper(folder, held.path, None)
        here = replace(instance, onnx=held.path, vnnlib=Path(folder, instance.vnnlib.name))
        here.vnnlib.write_bytes(query)
        result = verified(here, lambda path, scores: held.network(None, scores), options, keeper)
        if result.answer == "error":
            held.forget()
        content = None if result.certificate is None else result.certificate.path.read_bytes()
    reason = result.reason.replace(str(here.vnnlib), str(instance.vnnlib)).replace(str(here.onnx), str(instance.onnx))
    outcome = None if result.outcome is None else replace(result.outcome, proofs=(), system=None)
    return replace(result, instance=instance, reason=reason, outcome=outcome), content
