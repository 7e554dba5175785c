"""Data sets and lists on a cluster: which tasks they are cut into, and what becomes of the answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from pathlib import Path

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.problem.images import Images
from krelax.run.bench import Instance, Result, bench
from krelax.run.certificates import Certificates
from krelax.run.certify import CertifyOptions, Seen, predictions, record_of
from krelax.run.cluster import Cluster, Failure, Task
from krelax.run.cluster_tasks import Answer, Proving, certify_images, verify_instance
from krelax.run.verify import VerifyOptions
from krelax.search.pipeline import Plan
from krelax.search.verdict import Outcome, Verdict

# Seconds that a task should take, at least; and how many in a second one scheduler and one client easily keep up with.
_SECONDS, _RATE = 1.0, 100.0
# Images of the first tasks, when nobody knows how long they take, and of any task.
_FIRST, _MOST = 4, 512


class Pace:
    """How many images make a task of about a second: as many as earlier ones let expect."""

    def __init__(self) -> None:
        self._each: float | None = None

    def seen(self, count: int, seconds: float) -> None:
        """A task of so many images took so long."""
        each = seconds / max(1, count)
        self._each = each if self._each is None else (self._each + each) / 2

    def size(self, left: int, threads: int) -> int:
        """How many of the images that are left: no more than each thread's share."""
        wanted = float(_FIRST) if self._each is None else max(_SECONDS, threads / _RATE) / max(self._each, 1e-6)
        return max(1, min(int(wanted), _MOST, ceil(left / threads)))


class _Images:
    """The images of a run: first in batches without complete searches, and then each that is left, alone, with the
    whole plan. Where images take about a second even so, or answers must not depend on time, each is alone at once."""

    def __init__(
        self, cluster: Cluster, model: Path, output: str | None, network: Network, images: Images, wanted: list[int],
        options: CertifyOptions, plan: Plan, certificates: Certificates | None,
    ) -> None:  # fmt: skip
        self._cluster, self._model, self._output = cluster, model, output
        self._network, self._images = network, images
        self._options, self._certificates = options, certificates
        self._fresh, self._hard, self._pace = deque(wanted), deque[int](), Pace()
        self._searches = plan != plan.quick

    def take(self) -> Task | None:
        """The next task."""
        if self._fresh:
            size = 1 if self._options.deterministic else self._pace.size(len(self._fresh), self._cluster.threads)
            return self._task([self._fresh.popleft() for _ in range(size)], quick=size > 1)
        return self._task([self._hard.popleft()], quick=False) if self._hard else None

    def _task(self, indices: list[int], quick: bool) -> Task:
        proving = Proving.of(self._certificates)
        arguments = (self._output, self._images.select(indices), indices, self._options, quick, proving)
        return Task(self._model, certify_images, arguments, (indices, quick and self._searches))

    def took(self, task: Task, answer: Answer | Failure, keep: Seen) -> None:
        """Keep what a task has settled. What it left open, or failed on together with others, is asked again alone."""
        indices, quick = task.about
        if isinstance(answer, Failure):
            self._failed(indices, answer.reason, keep)
            return
        if len(indices) > 1:
            self._pace.seen(len(indices), answer.seconds)
        for record, proof in answer.value:
            if quick and record["verdict"] == Verdict.UNKNOWN:
                self._hard.append(record["index"])
                continue
            if proof is not None and self._certificates is not None:
                self._certificates.keep(record["certificate"]["file"], proof)
            keep(record | {"worker": answer.worker})

    def _failed(self, indices: list[int], reason: str, keep: Seen) -> None:
        if len(indices) > 1:
            self._hard.extend(indices)
            return
        chosen = self._images.select(indices)
        predicted = int(predictions(self._network, chosen, self._options.scaling)[0])
        keep(record_of(indices[0], int(chosen.labels[0]), predicted, Outcome(Verdict.UNKNOWN, reason)))


def certify_on(
    cluster: Cluster, model: Path, output: str | None, network: Network, images: Images, wanted: list[int],
    options: CertifyOptions, plan: Plan, keep: Seen, certificates: Certificates | None,
) -> None:  # fmt: skip
    """As `krelax.run.certify.decide_here`, on the workers of a cluster. `network` is what is read from `model`, which
    has this `output`."""
    work = _Images(cluster, model, output, network, images, wanted, options, plan, certificates)
    for task, answer in cluster.results(work.take):
        work.took(task, answer, keep)


def bench_on(
    cluster: Cluster,
    instances: list[Instance],
    options: VerifyOptions,
    certificates: Path | None = None,
    check: bool = False,
    semantics: str = "real",
) -> Iterator[Result]:
    """As `krelax.run.bench.bench`, on the workers of a cluster, each instance a task, those with the longest limits
    first. Results come in the order in which they are found. Questions about several networks are decided here."""
    Plan.of(options.method)
    waiting, here = deque(sorted(instances, key=lambda instance: -instance.timeout)), list[Instance]()
    keepers = {i.index: Certificates(certificates, i.onnx, check, semantics) for i in instances if certificates}

    def take() -> Task | None:
        while waiting:
            instance = waiting.popleft()
            if instance.named:
                here.append(instance)
                continue
            try:
                arguments = (instance, instance.vnnlib.read_bytes(), options, Proving.of(keepers.get(instance.index)))
                cluster.check_model(instance.onnx)
            except (InputError, OSError, ValueError):
                here.append(instance)
                continue
            return Task(instance.onnx, verify_instance, arguments, instance)
        return None

    for task, answer in cluster.results(take):
        if isinstance(answer, Failure):
            yield Result(task.about, "error", answer.reason, 0.0)
            continue
        result, proof = answer.value
        if proof is not None:
            path = keepers[task.about.index].keep(result.certificate.path.name, proof)
            result = replace(result, certificate=replace(result.certificate, path=path))
        yield replace(result, worker=answer.worker)
    # which says what is wrong with those that cannot be read
    yield from bench(here, options, certificates, check, semantics)
