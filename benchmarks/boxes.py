"""Splitting inputs on a list of competition instances: how many boxes it takes, and how fast they are bounded.

    python benchmarks/boxes.py [--list acasxu] [--timeout 60] [--only I ...] [--batch N]

An attack comes first, as in the pipeline. One line for each instance: number, network, property, expected answer,
answer, boxes, boxes for each second of CPU time, CPU seconds, seconds, reason.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from functools import partial

import torch
from torch import Tensor

from common import benchmark_folder
from krelax import load_onnx, read_vnnlib
from krelax.bounds.instance import Instance, one_core_each
from krelax.network.graph import Network
from krelax.run.bench import Instance as Line
from krelax.run.bench import read_instances
from krelax.search.attack import Attack, search
from krelax.search.boxes import BoxResult, InputSplitting, Splitting
from krelax.search.questions import about_specification
from krelax.search.replay import replay


def decide(network: Network, line: Line, effort: Splitting, deadline: float) -> list[BoxResult]:
    """What became of the questions of an instance; the last one is violated or open if any is."""
    questions, found = about_specification(network, read_vnnlib(line.vnnlib)), []
    for i in torch.arange(len(questions)).split(1):
        instance = Instance.of(network, questions.region.select(i), deadline=deadline)
        queries = questions.queries.select(i)
        near, violated = partial(questions.candidate, network, int(i)), partial(questions.violated, int(i))

        def confirm(points: Tensor) -> bool:
            candidates = (near(x) for x in points.double().numpy())  # noqa: B023
            return any(x is not None and replay(network, x, violated) is not None for x in candidates)  # noqa: B023

        with torch.no_grad(), one_core_each(instance.region.lower.device):
            point = search(instance, queries.to(torch.float32), Attack())[0]
        if confirm(point):
            return [*found, BoxResult(-torch.inf, violated=True, reason="attack")]
        found.append(InputSplitting(instance, queries, effort, confirm).run())
        if not found[-1].holds:
            break
    return found


def report(line: Line, found: list[BoxResult], cpu: float, seconds: float) -> str:
    """Print the line of an instance; returns its answer."""
    last = found[-1]
    answer = "unsat" if last.holds else "sat" if last.violated else "unknown"
    boxes = sum(f.boxes for f in found)
    note = " DISAGREES" if {answer, line.expected} == {"sat", "unsat"} else ""
    print(
        f"{line.index:4} {line.onnx.stem:36} {line.vnnlib.name.split('.vnnlib')[0]:28} {line.expected:6} {answer:8}"
        f"{boxes:8} {boxes / cpu:7.0f}/s {cpu:7.2f} {seconds:7.2f}  {last.reason}{note}",
        flush=True,
    )
    return answer


def main() -> None:
    """Print the lines and their sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", default="acasxu", help="name of a benchmark")
    parser.add_argument("--timeout", type=float, help="seconds for each instance (default: what the list says)")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of instances")
    parser.add_argument("--batch", type=int, default=Splitting.batch)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    total = [0.0, 0.0]
    for line in read_instances(benchmark_folder() / "vnncomp" / options.list / "instances.csv", options.timeout):
        if options.only and line.index not in options.only:
            continue
        network = load_onnx(line.onnx)
        cpu, began = time.process_time(), time.perf_counter()
        found = decide(network, line, Splitting(batch=options.batch), began + line.timeout)
        spent = time.process_time() - cpu, time.perf_counter() - began
        counts[report(line, found, *spent)] += 1
        total = [a + b for a, b in zip(total, spent, strict=True)]
    print(f"{options.list}: {dict(counts)}, {total[0]:.1f} s of CPU time, {total[1]:.1f} s")


if __name__ == "__main__":
    main()
