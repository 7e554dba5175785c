"""`krelax radius`: how robust each image is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from krelax.cli.shared import (
    FILE,
    Asked,
    Range,
    Share,
    ball_options,
    certificate_options,
    check_journal,
    chosen,
    data_options,
    deterministic_option,
    device_option,
    journal_options,
    kept,
    method_option,
    output_option,
    tell,
    timeout_option,
    warn,
    warn_of_obstacle,
)


@click.command(short_help="The largest certified and the smallest refuted radius of each image.")
@click.argument("model", type=FILE)
@click.argument("images", type=FILE)
@ball_options
@click.option(
    "--accuracy", type=Share(), default="1%", show_default=True, metavar="A", help="How near the two radii are to be."
)
@click.option("--region", metavar="SPEC", help="How much of it each image stands, as rotate:45 (see `certify --help`).")
@data_options
@output_option
@click.option("--range", "selection", type=Range(), metavar="A:B", help="Only images A to B - 1.")
@method_option
@timeout_option("Seconds for each image.", default=60.0)
@journal_options
@click.option("--report", type=FILE, metavar="FILE", help="Write a page with the robustness curve to FILE (HTML).")
@click.option("--figure", type=FILE, metavar="FILE", help="Draw the robustness curve (.svg, .png, .pdf).")
@certificate_options
@device_option
@deterministic_option
def radius(model: Path, images: Path, region: str | None, selection: slice | None, **options: Any) -> int:
    """The radius of each of labelled IMAGES for MODEL (ONNX): the largest that is certified, the smallest refuted.

    With --region it is the amount of a transformation, up to that of SPEC: degrees of a rotation, pixels of a
    translation; of several together, or of ranges that are not symmetric, their share.
    """
    from krelax._version import __version__
    from krelax.cli import DONE, SOME_FAILED
    from krelax.cli.printing import certificates_line
    from krelax.errors import failed
    from krelax.network.onnx import load_onnx
    from krelax.picture.robust import shares
    from krelax.picture.style import check_figure, save
    from krelax.problem.regions import transformation
    from krelax.report.radii import lines, write_radii
    from krelax.report.writing import check_output
    from krelax.run.certificates import Certificates
    from krelax.run.journal import digest_of_network
    from krelax.run.progress import Progress
    from krelax.run.radius import RadiusOptions
    from krelax.run.radius import radius as find

    journal, resume, overwrite = (options.pop(name) for name in ("jsonl", "resume", "overwrite"))
    report, figure, output = (options.pop(name) for name in ("report", "figure", "output"))
    about = Asked.taken(options)
    folder, check, semantics = (options.pop(name) for name in ("certificates", "check", "semantics"))
    check_journal(journal, resume, overwrite)
    if report is not None:
        check_output(report)
    if figure is not None:
        check_figure(figure)
    asked = RadiusOptions(**options, scaling=about.scaling, region=None if region is None else transformation(region))
    network = load_onnx(model, output=output, scores=True)
    tell(model, network.notes)
    data = about.load(images, network)
    indices = chosen(selection, len(data))
    settings = {"model": digest_of_network(model), **about.facts(images, data), **kept(folder, check, semantics)}
    settings |= {} if output is None else {"output": output}
    keeper = None if folder is None else Certificates(folder, model, check, semantics, output)
    warn_of_obstacle(keeper)
    with Progress(len(indices), "radii") as bar:

        def seen(record: dict[str, Any]) -> None:
            bar.seen({"verdict": record["reason"]})
            for attempt in record["tries"]:
                warn(f"image {record['index']}", attempt["reason"])

        found = find(network, data, indices, asked, journal=journal, resume=resume, overwrite=overwrite,
                     settings=settings, seen=seen, certificates=keeper)  # fmt: skip
    records = [found[i] for i in indices]
    _print(model, images, region or asked.norm, float(asked.accuracy), records)
    if keeper is not None:
        certificates_line(keeper)
    if report is not None:
        facts = {
            "krelax": __version__,
            "norm": region or asked.norm,
            "method": asked.method,
            "accuracy": float(asked.accuracy),
        }
        write_radii(report, (model.name, images.name), facts, records)
        click.echo(f"  report in {report}")
    if figure is not None:
        save(shares(*lines(records, asked.method), steps=True), figure)
        click.echo(f"  figure in {figure}")
    return SOME_FAILED if any(failed(t["reason"]) for r in records for t in r["tries"]) else DONE


def _print(model: Path, images: Path, norm: str, accuracy: float, records: list[dict[str, Any]]) -> None:
    """A row for each image, and what is in the middle."""
    from statistics import median

    from krelax.cli.printing import so_many, table
    from krelax.report.shown import shown

    def said(value: float | None, up: bool) -> str:
        return "-" if value is None else shown(value, up)

    click.echo(f"{model.name} on {images.name}: {so_many(len(records))}, {norm} radii to {100 * accuracy:g} %")
    rows = [
        (
            str(r["index"]),
            said(r["certified"], up=False),
            said(r["refuted"], up=True),
            r["reason"],
            f"{r['seconds']:.2f}",
        )
        for r in records
    ]
    click.echo(table(("image", "certified", "refuted", "why it ended", "seconds"), rows))
    middle = median(r["certified"] or 0.0 for r in records)
    found = sum(r["reason"] == "found" for r in records)
    click.echo(f"median certified radius {middle:.6g}; {found} of {len(records)} radii found")
