"""A cluster gives the same answers as one machine, whatever happens to its workers and connections."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.exact_cells import least_margin
from tests.run.files import external, images, random_dense, save, specification

from krelax.certificate.check import check
from krelax.certificate.format.archive import read
from krelax.certificate.onnx.model import read_model
from krelax.cli import main
from krelax.errors import InputError, failed
from krelax.network.onnx import load_onnx
from krelax.problem.images import load_images
from krelax.run import cluster as engine
from krelax.run.bench import bench, read_instances
from krelax.run.certificates import Certificates
from krelax.run.certify import CertifyOptions, Summary, certify
from krelax.run.cluster import Cluster, Failure, Task, connected
from krelax.run.clustered import Pace, bench_on, certify_on
from krelax.run.verify import VerifyOptions

pytest.importorskip("distributed")

COUNT = 24
OPTIONS = CertifyOptions(eps=0.1, timeout=20.0)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """That of a scheduler with two workers, processes that are started again when they end. A task with which two of
    them end is given up."""
    import dask

    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), engine._local("local:2", "2") as local:
        yield local.scheduler_address


@pytest.fixture
def cluster(address: str) -> Iterator[Cluster]:
    with connected(address, lambda line: None) as found:
        yield found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with weights in another file, beside images, one of which is misclassified."""
    folder = tmp_path_factory.mktemp("model")
    path = external(folder / "net.onnx", 0.25)
    points = np.random.default_rng(0).random((COUNT, 2), dtype=np.float32)
    labels = load_onnx(path)(torch.from_numpy(points).double()[:, None]).reshape(COUNT, -1).argmax(1).numpy()
    labels[5] = 1 - labels[5]
    images(folder / "data.npz", points, labels)
    return path


def run(model: Path, count: int = COUNT, cluster: Cluster | None = None, **more: Any) -> Summary:
    network = load_onnx(model, scores=True)
    data = load_images(model.parent / "data.npz", network.input_shape, 2)
    if cluster is not None:
        more |= {"decide_images": partial(certify_on, cluster, model, None)}
    return certify(network, data, range(count), OPTIONS, **more)


def given(tasks: list[Task]) -> Callable[[], Task | None]:
    left = iter(tasks)
    return lambda: next(left, None)


def test_the_same_verdicts_and_certificates_as_on_one_machine(cluster: Cluster, model: Path, tmp_path: Path) -> None:
    journal, folder = tmp_path / "run.jsonl", tmp_path / "proofs"
    here = run(model)
    there = run(model, cluster=cluster, journal=journal, certificates=Certificates(folder, model, check=True))
    assert there.verdicts == here.verdicts
    assert {"holds", "violated"} <= set(here.verdicts.values())
    lines = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert sorted(line["index"] for line in lines) == list(range(COUNT))
    held = [line for line in lines if line["verdict"] == "holds"]
    assert {path.name for path in folder.iterdir()} == {line["certificate"]["file"] for line in held}
    for line in held[:3]:
        assert min(check(read(folder / line["certificate"]["file"]), read_model(model))) > 0
    assert all(line["worker"].startswith("tcp://") for line in lines)


def test_a_run_begun_here_goes_on_there(cluster: Cluster, model: Path, tmp_path: Path) -> None:
    journal = tmp_path / "run.jsonl"
    run(model, 10, journal=journal)
    seen: list[dict[str, Any]] = []
    summary = run(model, cluster=cluster, journal=journal, resume=True, seen=seen.append)
    assert summary.resumed == 10
    assert sorted(record["index"] for record in seen) == list(range(10, COUNT))
    assert summary.verdicts == run(model).verdicts


def test_a_list_has_the_same_answers_and_reasons(cluster: Cluster, model: Path, tmp_path: Path) -> None:
    save(random_dense([2, 4, 2]), tmp_path / "net.onnx")
    box = partial(specification, [0, 0], [0.01, 0.01])
    for name, text in (("low", box("(assert (<= Y_0 -100))")), ("any", box("(assert (<= Y_0 100))")), ("bad", "(x")):
        (tmp_path / f"{name}.vnnlib").write_text(text, encoding="utf-8")
    names = ("net.onnx,low", "net.onnx,any", "net.onnx,bad", "missing.onnx,low", "net.onnx,missing", "broken.onnx,low")
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    (tmp_path / "list.csv").write_text("\n".join(f"{name}.vnnlib,{5 + i},open" for i, name in enumerate(names)))
    instances, folder = read_instances(tmp_path / "list.csv"), tmp_path / "proofs"
    here = list(bench(instances, VerifyOptions()))
    there = sorted(bench_on(cluster, instances, VerifyOptions(), folder), key=lambda result: result.instance.index)
    assert [(r.instance, r.answer) for r in there] == [(r.instance, r.answer) for r in here]
    assert [r.reason for r in there if r.answer == "error"] == [r.reason for r in here if r.answer == "error"]
    assert [path.name for path in folder.iterdir()] == ["instance-0.zip"]
    assert there[0].record()["worker"].startswith("tcp://")


def test_a_worker_without_a_question_gets_part_of_another_and_may_be_killed(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, submit, killed = save(random_dense([3, 12, 12, 2], 1), tmp_path / "net.onnx"), Cluster._submit, list[str]()
    rows, sides = torch.tensor([[[1.0, -1.0]]]).double(), (np.full(3, -0.5), np.full(3, 0.5))
    least = float(least_margin(load_onnx(model), *sides, [(rows[0].numpy(), np.zeros(1))]).value)

    def work(held: Any, rows: torch.Tensor, least: float) -> tuple[bool, bool, float]:
        from krelax.bounds.instance import Instance
        from krelax.problem.queries import Queries
        from krelax.problem.region import Box
        from krelax.search import divided
        from krelax.search.boxes import InputSplitting, Splitting
        from krelax.search.exchange import exchange

        network, shared = held.network(None, False), exchange()
        assert shared is not None
        shared._from, divided._LATE = 0.0, 0.5
        side = torch.full((1, *network.input_shape), 0.5, dtype=torch.float64)
        queries = Queries(rows, torch.tensor([[1e-4 - least]]).double(), torch.zeros(1, 1, dtype=torch.int64), 1)
        while not shared.wanted:
            time.sleep(0.01)
        instance = Instance.of(network, Box(-side, side))
        found = InputSplitting(instance, queries, Splitting(batch=8), lambda points: False).run()
        return found.holds, found.violated, found.margin

    def kill(self: Cluster, task: Task, landed: Any, worker: str | None = None) -> None:
        submit(self, task, landed, worker)
        if worker is not None and task.work.__name__ == "search_part" and not killed:
            killed.append(worker)
            os.kill(self._client.run(os.getpid, workers=[worker])[worker], signal.SIGKILL)

    monkeypatch.setattr(Cluster, "_submit", kill)
    ((_, answer),) = cluster.results(given([Task(model, work, (rows, least), None)]))
    assert not isinstance(answer, Failure)
    assert answer.value[:2] == (True, False)
    assert 0 < answer.value[2] <= 1e-4
    assert len(killed) == 1
    assert killed[0] != answer.worker
    assert f"{cluster.story.parts} part" in str(cluster.story)


def test_a_killed_worker_and_a_broken_connection_lose_nothing(cluster: Cluster, model: Path) -> None:
    def work(held: Any, i: int) -> tuple[int, int]:
        time.sleep(0.2)
        return i, os.getpid()

    found = []
    for count, (task, answer) in enumerate(cluster.results(given([Task(model, work, (i,), i) for i in range(16)]))):
        found.append(task.about)
        assert not isinstance(answer, Failure)
        assert answer.value[0] == task.about
        if count == 3:
            os.kill(answer.value[1], signal.SIGKILL)
        if count == 8:
            cluster._client.loop.add_callback(cluster._client.scheduler_comm.comm.abort)
    assert sorted(found) == list(range(16))
    assert cluster.story.reconnected == 1
    assert "1 connection broke" in str(cluster.story)


def test_a_bug_on_a_worker_is_an_internal_error_of_each_image(
    cluster: Cluster, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(held: Any, output: Any, chosen: Any, indices: list[int], *rest: Any) -> Any:
        if 3 in indices:
            raise ZeroDivisionError("so it is")
        from krelax.run.cluster_tasks import certify_images

        return certify_images(held, output, chosen, indices, *rest)

    monkeypatch.setattr("krelax.run.clustered.certify_images", work)
    summary = run(model, cluster=cluster)
    assert sorted(summary.verdicts) == list(range(COUNT))
    assert [i for i, reason in summary.reasons.items() if failed(reason)] == [3]
    assert summary.verdicts[3] == "unknown"


def test_what_is_withdrawn_ends(cluster: Cluster, model: Path, tmp_path: Path) -> None:
    def work(held: Any, i: int) -> int:
        from krelax.watch import cancellation

        if i > 1:
            (tmp_path / f"begun{i}").touch()
            cancellation().wait(60)
            (tmp_path / f"ended{i}").touch()
        return i

    results = cluster.results(given([Task(model, work, (i,), i) for i in range(4)]))
    assert {next(results)[0].about, next(results)[0].about} == {0, 1}
    deadline = time.monotonic() + 120
    while not all((tmp_path / f"begun{i}").exists() for i in (2, 3)):
        cluster._fill(cluster._landing(), lambda: Task(model, work, (len(cluster._flying) + 2,), None))
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cluster.close()
    while not all((tmp_path / f"ended{i}").exists() for i in (2, 3)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_command_line(address: str, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["certify", str(model), str(model.parent / "data.npz"), "--eps", "0.1", "--range", "0:8"]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--jsonl", str(tmp_path / "run.jsonl"), "--cluster", address])
    assert stop.value.code == 0
    out = capfd.readouterr().out
    assert "8 images" in out
    assert "2 workers took part" in out


def test_what_is_no_cluster_is_told_in_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(where: str) -> str:
        with pytest.raises(InputError) as error, connected(where, lambda line: None):
            pass
        return str(error.value)

    monkeypatch.setattr(engine, "_CONNECTS", 0.5)
    assert "tcp://127.0.0.1:9: no scheduler answers" in told("tcp://127.0.0.1:9")
    assert "no scheduler answers" in told("nonsense")
    assert "local:N" in told("local:none")
    monkeypatch.undo()
    monkeypatch.setattr(engine, "__version__", "0.0")
    assert "install the same on both" in told(address)
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install 'krelax[cluster]'" in told("local")


def test_a_scheduler_that_is_gone_ends_the_run(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(engine, "_CONNECTS", 0.5)
    monkeypatch.setattr(engine, "_RETURNS", 0.5)
    with LocalCluster(n_workers=1, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0") as local:
        where, said = local.scheduler_address, list[str]()
        tasks = [Task(model, lambda held, i: time.sleep(0.1), (i,), i) for i in range(1000)]

        def work() -> None:
            with connected(where, said.append) as cluster:
                for count, _ in enumerate(cluster.results(given(tasks))):
                    if count == 2:
                        local.close()

        with pytest.raises(InputError, match="lost, and not there again; results in a --jsonl file are kept"):
            work()
        assert said == [f"the connection to {where} is lost; trying again"]


def test_batches_follow_the_speed() -> None:
    pace = Pace()
    assert pace.size(100, 2) == 4
    assert pace.size(3, 2) == 2
    pace.seen(4, 0.4)
    assert pace.size(100, 2) == 10
    assert pace.size(10_000, 1000) == 10
    assert pace.size(10**6, 1000) == 100
    pace.seen(4, 400.0)
    assert pace.size(100, 2) == 1


def test_what_ends_workers_again_and_again_is_given_up(cluster: Cluster, model: Path) -> None:
    """Last, because nobody needs to wait until other workers are there."""

    def work(held: Any, i: int) -> int:
        if i == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return i

    found = {t.about: a for t, a in cluster.results(given([Task(model, work, (i,), i) for i in range(4)]))}
    assert [i for i, answer in found.items() if isinstance(answer, Failure)] == [1]
    assert isinstance(found[1], Failure)
    assert "2 workers ended while they worked on it" in found[1].reason
    assert failed(found[1].reason)
