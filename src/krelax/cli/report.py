"""`krelax report`, and the report that `krelax certify` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from krelax.cli.shared import FILE


@click.command(short_help="Make a page of the results of a data-set run.")
@click.argument("results", metavar="RESULTS...", type=FILE, nargs=-1, required=True)
@click.option("--network", "model", type=FILE, required=True, metavar="FILE", help="The ONNX network of the run.")
@click.option("--images", type=FILE, required=True, metavar="PATH", help="Its labelled images, a file or a folder.")
@click.option("--labels", type=FILE, metavar="FILE", help="Its file of labels, if there was one.")
@click.option("--classes", type=FILE, metavar="FILE", help="Its file of names of classes, if there was one.")
@click.option("--output", type=FILE, required=True, metavar="FILE", help="Write the page to FILE (HTML).")
@click.option("--certificates", type=FILE, metavar="DIR", help="The folder of the run's certificates, to link to them.")
def report(
    results: Sequence[Path],
    model: Path,
    images: Path,
    labels: Path | None,
    classes: Path | None,
    output: Path,
    certificates: Path | None,
) -> None:
    """Make a page of RESULTS, what `krelax certify --jsonl` wrote, whether that run has finished or not.

    With results of several radii it has a curve of the certified share, and shows the images of the first. What
    `krelax radius --jsonl` wrote gives the page that its --report does.
    """
    from krelax.errors import InputError
    from krelax.report import radii
    from krelax.report.writing import write_report
    from krelax.run.journal import read_journal

    runs = [(str(path), *read_journal(path)) for path in results]
    beside = [path for path in (labels, classes) if path is not None]
    if any(header.get("kind_of_run") == "radius" for _, header, _ in runs):
        if len(runs) > 1 or certificates is not None:
            raise InputError(f"{results[0]}: results of `krelax radius` make a page alone; give one file, no folder")
        radii.write_report(output, model, images, runs[0], beside)
        click.echo(f"report in {output}")
        return
    write_report(output, model, images, runs, certificates=certificates, labels=beside)
    click.echo(f"report in {output}")


@contextmanager
def reporting(
    output: Path | None,
    model: Path,
    images: Path,
    header: Mapping[str, Any],
    asked: Sequence[int],
    journal: Path | None,
    certificates: Path | None,
    labels: Sequence[Path] = (),
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Write a page about the run that hands its results to what this yields, also if it is interrupted; do nothing
    without an `output`. A `journal` has the results that an earlier run had found, too."""
    if output is None:
        yield lambda record: None
        return
    from krelax.errors import InputError
    from krelax.report.writing import check_output, write_report
    from krelax.run.journal import read_journal

    check_output(output)
    if journal is not None and journal.absolute() == output.absolute():
        raise InputError(f"{output}: cannot be both the --jsonl file and the report; give another file for one of them")
    records: list[Mapping[str, Any]] = []

    def finish() -> None:
        found = (header, records) if journal is None else read_journal(journal)
        write_report(
            output, model, images, [(str(output), *found)], asked=asked, certificates=certificates, labels=labels
        )

    try:
        yield records.append
    except KeyboardInterrupt:
        if records:
            finish()
        raise
    finish()
