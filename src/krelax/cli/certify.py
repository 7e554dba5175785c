"""`krelax certify` and `krelax demo`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from krelax.cli.clusters import Spread, cluster_option
from krelax.cli.shared import (
    BUNDLED_EPS,
    FILE,
    Asked,
    Range,
    bundled,
    certificate_options,
    check_journal,
    chosen,
    data_options,
    deterministic_option,
    device_option,
    exactly,
    journal_options,
    kept,
    method_option,
    output_option,
    region_options,
    tell,
    timeout_option,
    warn,
    warn_of_obstacle,
)

if TYPE_CHECKING:
    from krelax.run.certify import Summary


@click.command(short_help="Certify a network on labelled images.")
@click.argument("model", type=FILE, required=False)
@click.argument("images", type=FILE, required=False)
@region_options
@click.option(
    "--eps-file", type=FILE, metavar="FILE", help="A radius for each input (CSV), 0 for those that are fixed."
)
@click.option("--region", metavar="SPEC", help="What may happen to an image instead of, or beside, --eps: see below.")
@data_options
@output_option
@click.option("--range", "selection", type=Range(), metavar="A:B", help="Only images A to B - 1.")
@method_option
@timeout_option("Seconds for each image.", default=60.0)
@journal_options
@click.option("--report", type=FILE, metavar="FILE", help="Write a page about the run to FILE (HTML).")
@certificate_options
@click.option("--hints", type=FILE, metavar="FILE", help="Points (.npz) that may be counterexamples: replayed first.")
@device_option
@deterministic_option
@cluster_option
def certify(
    model: Path | None, images: Path | None, eps_file: Path | None, region: str | None, selection: slice | None,
    **options: Any,
) -> int:  # fmt: skip
    """Certify MODEL (ONNX) on labelled IMAGES: is every image within EPS classified as its label?

    IMAGES are a folder of PNG or JPEG files, an .npz or .npy file, or a CSV of features.
    Without MODEL and IMAGES, a bundled digit classifier is certified on real images. Exit code 3 if something
    unforeseen failed on any image, which is unknown then, 0 otherwise.

    \b
    SPEC of a region is one of
      rotate:10         by up to 10 degrees to either side, or rotate:-5:10
      translate:2       by up to 2 pixels along both axes; translate-x, translate-y
      scale:0.1         by a factor of 0.9 to 1.1
      shear:0.1         rows by up to 0.1 of their distance from the centre
      brightness:0.1    a number is added to all values
      contrast:0.2      a factor of 0.8 to 1.2, around the image's mean
      saturation:0.2    a factor of 0.8 to 1.2, around the grey of each pixel
      gamma:0.2         values to a power of 0.8 to 1.2
      blur:1            by a Gaussian of up to one pixel
      patch:3           3 x 3 pixels, wherever they are, get any values; patch:2x4
      pixels:1          one pixel, whichever it is, gets any values
      categories:0-3    one of inputs 0 to 3 is 1, the others of them are 0
    Transformations can be combined, up to four parameters in all, as
    rotate:10+brightness:0.1, and --eps is noise on what they make.
    """
    from krelax.errors import InputError

    if model is None:
        model, images = bundled("digits_conv.onnx"), bundled("digits_test.npz")
        if options["eps"] is None and region is None:
            options["eps"] = exactly(str(BUNDLED_EPS))
    if images is None:
        raise InputError("give labelled images after the model: a folder, or a file (.npz, .npy, .csv)")
    if eps_file is not None:
        if options["eps"] is not None:
            raise InputError("--eps is one radius, --eps-file one for each input; give one of them")
        options["eps"] = _radii(eps_file)
    if region is not None:
        from krelax.problem.regions import read_region

        options["region"] = read_region(region)
        options["eps"] = Fraction(0) if options["eps"] is None else options["eps"]
    if options["eps"] is None:
        raise InputError("give the radius of the perturbation with --eps, or what may happen with --region")
    return run(model, images, selection, options)


def _radii(path: Path) -> tuple[Fraction, ...]:
    """The radii in a table, row by row, behind a header if there is one. Raises InputError, which names the row."""
    from krelax.errors import InputError
    from krelax.problem.tables import Table

    try:
        table = Table.read(path)
    except InputError as error:
        raise InputError(f"{error}; give a CSV file with a radius for each input") from error
    begin = int(len(table.rows) > 1 and all(exactly(cell) is None for cell in table.rows[0]))
    found: list[Fraction] = []
    for number in range(begin, len(table.rows)):
        for cell in table.rows[number]:
            radius = exactly(cell)
            if radius is None or radius < 0:
                raise InputError(f"{table.where(number)}: {cell!r} is not a radius, a number >= 0")
            found.append(radius)
    return tuple(found)


@click.command(short_help="Certify a bundled network on real images.")
@click.option("--dense", is_flag=True, help="The fully connected network instead of the convolutional one.")
def demo(dense: bool) -> int:
    """Certify a bundled digit classifier on real handwritten digits."""
    model = bundled("digits_dense.onnx" if dense else "digits_conv.onnx")
    options = {
        "eps": exactly(str(BUNDLED_EPS)),
        "norm": "linf",
        "clip": (exactly("0"), exactly("1")),
        "output": None,
        "method": "auto",
        "timeout": 60.0,
        "device": "cpu",
        "deterministic": False,
        "jsonl": None,
        "resume": False,
        "overwrite": False,
        "report": None,
        "certificates": None,
        "check": False,
        "semantics": "real",
        "hints": None,
        "cluster": None,
    }
    return run(model, bundled("digits_test.npz"), None, options)


def run(model: Path, images: Path, selection: slice | None, options: dict[str, Any]) -> int:
    """Load, certify with a progress bar, and print the summary. The exit code says whether anything failed."""
    from krelax._version import __version__
    from krelax.cli import DONE, SOME_FAILED
    from krelax.cli.printing import certificates_line, certify_summary
    from krelax.cli.report import reporting
    from krelax.errors import failed
    from krelax.network.onnx import load_onnx
    from krelax.run.certificates import Certificates
    from krelax.run.certify import CertifyOptions, identity
    from krelax.run.certify import certify as certify_images
    from krelax.run.hints import read_hints
    from krelax.run.journal import digest_of_network

    journal, resume, overwrite = (options.pop(name) for name in ("jsonl", "resume", "overwrite"))
    report, hints, output, address = (options.pop(name) for name in ("report", "hints", "output", "cluster"))
    about = Asked.taken(options)
    folder, check, semantics = (options.pop(name) for name in ("certificates", "check", "semantics"))
    check_journal(journal, resume, overwrite)
    asked = CertifyOptions(**options, scaling=about.scaling)
    network = load_onnx(model, output=output, scores=True)
    tell(model, network.notes)
    data = about.load(images, network)
    indices = chosen(selection, len(data))
    settings = {"model": digest_of_network(model), **about.facts(images, data), **kept(folder, check, semantics)}
    settings |= {} if output is None else {"output": output}
    keeper = None if folder is None else Certificates(folder, model, check, semantics, output)
    warn_of_obstacle(keeper)
    header = {"krelax": __version__, **identity(asked, settings)}
    points = None if hints is None else read_hints(hints, data, asked.region)
    certifying = partial(certify_images, network, data, indices, asked, journal=journal, resume=resume,
                         overwrite=overwrite, settings=settings, certificates=keeper, hints=points,
                         say=_ignored)  # fmt: skip
    spread = Spread(address, model, output)
    with reporting(report, model, images, header, indices, journal, folder, about.files) as note:
        summary = _with_progress(len(indices), note, partial(certifying, decide_images=spread))
        certify_summary(model, images, asked, summary)
        if spread.story:
            click.echo(f"  {spread.story}")
        if keeper is not None:
            certificates_line(keeper)
    if report is not None:
        click.echo(f"  report in {report}")
    return SOME_FAILED if any(map(failed, summary.reasons.values())) else DONE


def _ignored(line: str) -> None:
    click.echo(f"krelax: {line}", err=True)


def _with_progress(
    count: int, note: Callable[[Mapping[str, Any]], None], certifying: Callable[..., Summary]
) -> Summary:
    """Certify so many images with a progress bar; `note` is called with each result, too."""
    from krelax.run.progress import Progress

    with Progress(count, "certifying") as progress:

        def seen(record: dict[str, Any]) -> None:
            note(record)
            progress.seen(record)
            warn(f"image {record['index']}", record["reason"])

        return certifying(seen=seen)
