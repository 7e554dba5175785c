"""`krelax difference`: how far two networks are apart around each image."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from krelax.cli.shared import (
    FILE,
    Asked,
    Exact,
    Range,
    Share,
    check_journal,
    chosen,
    data_options,
    deterministic_option,
    device_option,
    journal_options,
    kept,
    method_option,
    proof_options,
    region_options,
    tell,
    timeout_option,
    warn,
)


@click.command(short_help="How far the outputs of two networks are apart around each image.")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.argument("images", type=FILE)
@region_options
@click.option(
    "--within",
    type=Exact(positive=True),
    metavar="DELTA",
    help="Do outputs differ by no more, a number above 0? Else, by how much do they?",
)
@click.option(
    "--accuracy",
    type=Share(),
    default="10%",
    show_default=True,
    metavar="A",
    help="Without --within: how near what is certified is to be to what is found.",
)
@data_options
@click.option("--range", "selection", type=Range(), metavar="A:B", help="Only images A to B - 1.")
@method_option
@timeout_option("Seconds for each image.", default=60.0)
@journal_options
@proof_options
@device_option
@deterministic_option
def difference(a: Path, b: Path, images: Path, selection: slice | None, **options: Any) -> int:
    """Do the outputs of A and B (ONNX) differ by at most DELTA for every input within EPS of each of labelled IMAGES?

    A and B have the same inputs and as many outputs: a model, and a copy of it that was pruned, quantised, or trained a
    little more. Without --within, the smallest DELTA that is certified is given, and the largest difference found.
    Exit code 3 if something unforeseen failed on any image, 0 otherwise.
    """
    from krelax.cli import DONE, SOME_FAILED
    from krelax.cli.printing import certificates_line
    from krelax.errors import InputError, failed
    from krelax.network.onnx import load_onnx
    from krelax.run.certificates import Certificates
    from krelax.run.difference import DifferenceOptions
    from krelax.run.difference import difference as find
    from krelax.run.journal import digest_of_network
    from krelax.run.progress import Progress

    journal, resume, overwrite = (options.pop(name) for name in ("jsonl", "resume", "overwrite"))
    folder, check = (options.pop(name) for name in ("certificates", "check"))
    proofs = kept(folder, check, "real")
    about = Asked.taken(options)
    check_journal(journal, resume, overwrite)
    if options["eps"] is None:
        raise InputError("give the radius of the perturbation with --eps")
    asked = DifferenceOptions(**options, scaling=about.scaling)
    networks = [load_onnx(path) for path in (a, b)]
    for path, network in zip((a, b), networks, strict=True):
        tell(path, network.notes)
    data = about.load(images, networks[0])
    indices = chosen(selection, len(data))
    settings = {"model": digest_of_network(a), "other": digest_of_network(b), **about.facts(images, data), **proofs}
    keeper = None if folder is None else Certificates(folder, a, check, others=(b,))
    with Progress(len(indices), "differences") as bar:

        def seen(record: dict[str, Any]) -> None:
            bar.seen({"verdict": record.get("verdict") or record["reason"]})
            for attempt in record["tries"]:
                warn(f"image {record['index']}", attempt["reason"])

        found = find(
            networks[0],
            networks[1],
            data,
            indices,
            asked,
            journal=journal,
            resume=resume,
            overwrite=overwrite,
            settings=settings,
            seen=seen,
            certificates=keeper,
        )
    records = [found[i] for i in indices]
    _print((a, b, images), asked.within, records)
    if keeper is not None:
        certificates_line(keeper)
    return SOME_FAILED if any(failed(t["reason"]) for r in records for t in r["tries"]) else DONE


def _print(paths: tuple[Path, Path, Path], within: Fraction | None, records: list[dict[str, Any]]) -> None:
    """A row for each image, and what is true of all."""
    from krelax.cli.printing import so_many, table
    from krelax.report.shown import shown

    one, other, images = (path.name for path in paths)
    asked = "the smallest difference" if within is None else f"within {float(within):.6g}"
    click.echo(f"{one} and {other} on {images}: {so_many(len(records))}, {asked}")
    rows = [
        (
            str(r["index"]),
            "-" if r["certified"] is None else shown(r["certified"], up=True),
            shown(r["found"], up=False) if "counterexample" in r else "-",
            *([] if within is None else [r["verdict"]]),
            r["reason"],
            f"{r['seconds']:.2f}",
        )
        for r in records
    ]
    verdict = [] if within is None else ["verdict"]
    click.echo(table(("image", "at most", "at least", *verdict, "why it ended", "seconds"), rows))
    if within is not None:
        counts = {name: sum(r["verdict"] == name for r in records) for name in ("holds", "violated", "unknown")}
        click.echo(", ".join(f"{count} {name}" for name, count in counts.items()))
        return
    known = [r["certified"] for r in records if r["certified"] is not None]
    if len(known) == len(records):
        click.echo(f"no two outputs differ by more than {shown(max(known), up=True)} around these images")
