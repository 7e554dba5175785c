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
@click.option(
    "--before", type=FILE, metavar="FILE", help="Compare with FILE, results of another network on these images."
)
@click.option(
    "--fail-on-regression", is_flag=True, help="Exit code 1 if an image held --before and is not known to now."
)
@click.option("--summary", type=FILE, metavar="FILE", help="Write one page to print to FILE, too (HTML).")
@click.option("--csv", "table", type=FILE, metavar="FILE", help="Write a row for each image to FILE, too (CSV).")
def report(
    results: Sequence[Path],
    model: Path,
    images: Path,
    labels: Path | None,
    classes: Path | None,
    output: Path,
    certificates: Path | None,
    before: Path | None,
    fail_on_regression: bool,
    summary: Path | None,
    table: Path | None,
) -> int:
    """Make a page of RESULTS, what `krelax certify --jsonl` wrote, whether that run has finished or not.

    With results of several radii it has a curve of the certified share, and shows the images of the first, which are
    compared with those --before. Exit code 1 with --fail-on-regression if any image held there, and does not now or
    has no result now. What `krelax radius --jsonl` wrote gives the page that its --report does.
    """
    from krelax.cli import DISAGREEMENT, DONE
    from krelax.errors import InputError
    from krelax.report import radii
    from krelax.report.writing import write_report
    from krelax.run.journal import read_journal

    if fail_on_regression and before is None:
        raise InputError("--fail-on-regression needs earlier results; give them with --before")
    check_files(output, summary, table, [*results, *([] if before is None else [before])])
    runs = [(str(path), *read_journal(path)) for path in results]
    beside = [path for path in (labels, classes) if path is not None]
    if any(header.get("kind_of_run") == "radius" for _, header, _ in runs):
        if len(runs) > 1 or any(given is not None for given in (certificates, before, summary, table)):
            message = "results of `krelax radius` make a page alone; give one file and nothing beside"
            raise InputError(f"{results[0]}: {message}")
        radii.write_report(output, model, images, runs[0], beside)
        click.echo(f"report in {output}")
        return DONE
    earlier = None if before is None else (str(before), *read_journal(before))
    compared = write_report(
        output,
        model,
        images,
        runs,
        certificates=certificates,
        labels=beside,
        before=earlier,
        sheet=summary,
        table=table,
    )
    click.echo("\n".join(f"{what} in {path}" for what, path in _written(output, summary, table)))
    if compared is not None:
        click.echo(str(compared))
    worse = compared is not None and (compared.lost or compared.missing)
    return DISAGREEMENT if fail_on_regression and worse else DONE


def _written(output: Path, summary: Path | None, table: Path | None) -> list[tuple[str, Path]]:
    files = (("report", output), ("summary", summary), ("table", table))
    return [(what, path) for what, path in files if path is not None]


def check_files(output: Path, summary: Path | None, table: Path | None, results: Sequence[Path]) -> None:
    """Raises InputError where one file would be written twice, results be lost, or a table be written over another
    kind of file."""
    from krelax.errors import InputError
    from krelax.report.spreadsheet import is_table

    paths = [path.absolute() for _, path in _written(output, summary, table)]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise InputError(f"{path}: cannot hold two things; give another file for one of them")
        if path in {other.absolute() for other in results}:
            raise InputError(f"{path}: holds results, and would be lost; give another file for the page")
    if table is not None and table.exists() and not is_table(table):
        raise InputError(f"{table}: exists and is not a table of results; give another file for it")


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
