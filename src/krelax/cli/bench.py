"""`krelax bench`: a list of instances, with the expected answers held against ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from krelax.cli.clusters import cluster_option, on_cluster
from krelax.cli.shared import (
    FILE,
    certificate_options,
    check_journal,
    deterministic_option,
    device_option,
    journal_options,
    kept,
    method_option,
    timeout_option,
    warn,
)

if TYPE_CHECKING:
    from krelax.run.bench import Instance, Result
    from krelax.run.cluster import Cluster


@click.command(short_help="Verify a list of instances.")
@click.argument("instances", type=FILE)
@timeout_option("Seconds for each instance, instead of the list's own.")
@journal_options
@certificate_options
@method_option
@device_option
@deterministic_option
@cluster_option
@click.option("--junit", type=FILE, metavar="FILE", help="Write the results as JUnit XML to FILE, too, in the end.")
def bench(
    instances: Path,
    timeout: float | None,
    jsonl: Path | None,
    resume: bool,
    overwrite: bool,
    certificates: Path | None,
    check: bool,
    semantics: str,
    method: str,
    device: str,
    deterministic: bool,
    cluster: str | None,
    junit: Path | None,
) -> int:
    """Verify every line of INSTANCES (columns onnx, vnnlib, timeout_s, expected).

    Exit code 1 if any answer contradicts the expected one, 3 if any instance ended in an error, 0 otherwise.
    """
    from krelax.cli import DISAGREEMENT, DONE, SOME_FAILED
    from krelax.errors import InputError
    from krelax.run.bench import FIELDS, read_instances
    from krelax.run.journal import digest, digest_of_all, open_journal
    from krelax.run.verify import VerifyOptions

    check_journal(jsonl, resume, overwrite)
    if junit is not None:
        _check_junit(junit, jsonl, instances)
    listed = read_instances(instances, timeout)
    settings = {"instances": digest(instances), "timeout": timeout, "method": method, "device": device}
    settings |= kept(certificates, check, semantics) | ({"deterministic": True} if deterministic else {})
    if jsonl is not None:
        settings["files"] = digest_of_all([p for i in listed for p in i.files.values()], [i.vnnlib for i in listed])
    counts: Counter[str] = Counter()
    seconds = 0.0
    with (
        _reporting(junit, instances, listed) as note,
        open_journal(jsonl, settings, resume, FIELDS, overwrite) as journal,
        on_cluster(cluster) as workers,
    ):
        for index, record in journal.done.items():
            if index not in range(len(listed)):
                raise InputError(f"{jsonl}: has a result of instance {index} of {len(listed)}; give another file")
            counts.update(_counted(record))
            note(record)
        remaining = [i for i in listed if i.index not in journal.done]
        options = VerifyOptions(method, None, device, deterministic=deterministic)
        for result in _spread(workers)(remaining, options, certificates, check, semantics):
            record = result.record()
            journal.write(record)
            note(record)
            counts.update(_counted(record))
            seconds += result.seconds
            click.echo(_line(result, len(listed)))
            warn(f"instance {result.instance.index}", result.reason)
    click.echo(_totals(counts, len(listed), seconds))
    if workers is not None:
        click.echo(str(workers.story))
    if counts["disagree"]:
        return DISAGREEMENT
    return SOME_FAILED if counts["error"] else DONE


@contextmanager
def _reporting(
    output: Path | None, name: Path, listed: Sequence[Instance]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Write JUnit XML about the results that are handed to what this yields, also if the run is interrupted."""
    records: dict[int, Mapping[str, Any]] = {}

    def note(record: Mapping[str, Any]) -> None:
        records[record["index"]] = record

    try:
        yield note
    finally:
        if output is not None and records:
            from krelax.report.junit import junit
            from krelax.report.writing import write_text

            missing = [(i.onnx.name, i.vnnlib.name) for i in listed if i.index not in records]
            write_text(output, junit(name.name, records.values(), missing))


def _check_junit(path: Path, *others: Path | None) -> None:
    """Raises InputError where a file of results cannot be written, or would replace something that is none."""
    from krelax.errors import InputError
    from krelax.report.junit import is_junit

    if path.absolute() in {other.absolute() for other in others if other is not None}:
        raise InputError(f"{path}: is the list or the --jsonl file, too; give another file for --junit")
    if not path.parent.is_dir():
        raise InputError(f"{path}: cannot be written; give a file in a folder that exists for --junit")
    if path.exists() and not is_junit(path):
        raise InputError(f"{path}: exists and is not JUnit XML; give another file for --junit")


def _spread(workers: Cluster | None) -> Callable[..., Iterator[Result]]:
    """Where instances are worked on."""
    from krelax.run.bench import bench as bench_here

    if workers is None:
        return bench_here
    from krelax.run.clustered import bench_on

    return partial(bench_on, workers)


def _counted(record: Mapping[str, Any]) -> list[str]:
    """Which totals a result counts for."""
    contradicts = {record["answer"], record["expected"]} == {"sat", "unsat"}
    return [str(record["answer"]), *(["disagree"] if contradicts else [])]


def _totals(counts: Counter[str], total: int, seconds: float) -> str:
    """The last line: how many instances have which answer."""
    return (
        f"solved {counts['sat'] + counts['unsat']} of {total}: {counts['unsat']} unsat, {counts['sat']} sat; "
        f"{counts['unknown']} unknown, {counts['timed-out']} timed-out, {counts['error']} error; "
        f"{counts['disagree']} disagree; {seconds:.1f} s"
    )


def _line(result: Result, total: int) -> str:
    """One row of the live table; an exclamation mark in front of a contradiction."""
    instance = result.instance
    mark = "!" if result.disagrees else " "
    where = f"{instance.shown.removesuffix('.onnx')}  {instance.vnnlib.name.split('.vnnlib')[0]}"
    count = f"{instance.index + 1:>4}/{total}"
    return (
        f"{mark}{count}  {result.answer:<9}  expected {instance.expected:<6}{result.seconds:8.2f} s  {where}"
        f"  ({result.reason})"
    )
