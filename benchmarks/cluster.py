"""What a cluster gains, and what it costs.

    python benchmarks/cluster.py speed [--images 20] [--timeout 10] [--workers 1 2] [--deterministic]
    python benchmarks/cluster.py overhead [--questions 2000] [--threads 1000] [--seconds 1]

`speed`: images of mnist_6_200 (KRELAX_BENCHMARKS), without a cluster and with so many workers here: seconds, and
whether the verdicts are the same. Where time runs out only --deterministic makes sure of that. `overhead`: tasks that
only sleep, one question each, on threads that stand for workers, with a real journal: CPU time of client, scheduler and
workers for each question, how long the journal takes for a result, and the memory of the client.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from common import benchmark_folder
from krelax.cli.shared import bundled
from krelax.network.onnx import load_onnx
from krelax.problem.images import load_images
from krelax.run import cluster as engine
from krelax.run.certify import CertifyOptions, Summary, certify
from krelax.run.clustered import certify_on
from krelax.run.journal import open_journal


def speed(images: int, timeout: float, workers: list[int], deterministic: bool) -> None:
    """The same images here and on clusters of several sizes."""
    folder = benchmark_folder() / "eran"
    model = folder / "mnist_6_200.onnx"
    network = load_onnx(model, scores=True)
    data = load_images(folder / "mnist_test.npz", network.input_shape, 10)
    options = CertifyOptions(eps=0.015, timeout=timeout, deterministic=deterministic)

    def run(**more: Any) -> Summary:
        return certify(network, data, range(min(images, len(data))), options, **more)

    here = run()
    print(f"without: {here.seconds:.1f} s, {dict(here.counts)}", flush=True)
    for count in workers:
        with engine.connected(f"local:{count}", print) as cluster:
            there = run(decide_images=partial(certify_on, cluster, model, None))
            differ = [i for i in here.verdicts if here.verdicts[i] != there.verdicts[i]]
            print(
                f"{count} workers: {there.seconds:.1f} s, other verdicts: {differ or 'none'}; {cluster.story}",
                flush=True,
            )


def overhead(questions: int, threads: int, seconds: float) -> None:
    """Sleeping tasks: all that takes time is what a cluster costs."""
    import dask
    from distributed import LocalCluster

    model, tasks = bundled("digits_dense.onnx"), iter(range(questions))

    def sleep(held: Any, index: int) -> dict[str, Any]:
        time.sleep(seconds)
        stage = {"name": "crown", "seconds": seconds, "margin": 1.0}
        return {"index": index, "verdict": "holds", "reason": "crown", "margin": 1.0, "stages": [stage] * 3}

    def take() -> engine.Task | None:
        index = next(tasks, None)
        return None if index is None else engine.Task(model, sleep, (index,), index)

    parts = max(1, threads // 250)
    summary = Summary()
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set({"distributed.worker.profile.enabled": False}),  # it looks at every thread, all the time
        LocalCluster(
            n_workers=parts, threads_per_worker=threads // parts, processes=False, dashboard_address="127.0.0.1:0"
        ) as local,
        engine.connected(local.scheduler_address, print) as cluster,
        open_journal(Path(folder, "run.jsonl"), {}, False) as journal,
    ):
        before, began, written = time.process_time(), time.perf_counter(), 0.0
        for _, answer in cluster.results(take):
            assert not isinstance(answer, engine.Failure), answer
            record = answer.value | {"label": 1, "predicted": 1, "seconds": answer.seconds, "worker": answer.worker}
            start = time.perf_counter()
            journal.write(record)
            written += time.perf_counter() - start
            summary.add(record)
        wall, cpu = time.perf_counter() - began, time.process_time() - before
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{questions} questions on {threads} threads: {wall:.1f} s, {questions / wall:.0f} a second")
    print(f"CPU: {1000 * cpu / questions:.2f} ms a question (client, scheduler and workers in one process)")
    print(f"journal: {1e6 * written / questions:.0f} µs a result; memory at most {memory:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    one = commands.add_parser("speed")
    one.add_argument("--images", type=int, default=20)
    one.add_argument("--timeout", type=float, default=10.0)
    one.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    one.add_argument("--deterministic", action="store_true")
    two = commands.add_parser("overhead")
    two.add_argument("--questions", type=int, default=2000)
    two.add_argument("--threads", type=int, default=1000)
    two.add_argument("--seconds", type=float, default=1.0)
    asked = vars(parser.parse_args())
    {"speed": speed, "overhead": overhead}[asked.pop("command")](**asked)


if __name__ == "__main__":
    main()
