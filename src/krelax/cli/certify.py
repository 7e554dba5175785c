"""`krelax certify` and `krelax demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from krelax.cli.shared import (
    BUNDLED_EPS,
    FILE,
    Range,
    bundled,
    certificate_options,
    chosen,
    device_option,
    kept,
    method_option,
    region_options,
    timeout_option,
    warn_of_obstacle,
    warn_refused,
)


@click.command(short_help="Certify a network on labelled images.")
@click.argument("model", type=FILE, required=False)
@click.argument("images", type=FILE, required=False)
@region_options
@click.option("--range", "selection", type=Range(), metavar="A:B", help="Only images A to B - 1.")
@method_option
@timeout_option("Seconds for each image.", default=60.0)
@click.option("--jsonl", type=FILE, metavar="FILE", help="Write every result to FILE as it comes.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run with the same --jsonl stopped.")
@click.option("--report", type=FILE, metavar="FILE", help="Write a page about the run to FILE (HTML).")
@certificate_options
@device_option
def certify(model: Path | None, images: Path | None, selection: slice | None, **options: Any) -> None:
    """Certify MODEL (ONNX) on labelled IMAGES (.npz): is every image within EPS classified as its label?

    Without MODEL and IMAGES, a bundled digit classifier is certified on real images.
    """
    from krelax.errors import InputError

    if model is None:
        model, images = bundled("digits_conv.onnx"), bundled("digits_test.npz")
        options["eps"] = BUNDLED_EPS if options["eps"] is None else options["eps"]
    if images is None:
        raise InputError("give a file of labelled images (.npz) after the model")
    if options["eps"] is None:
        raise InputError("give the radius of the perturbation with --eps")
    run(model, images, selection, options)


@click.command(short_help="Certify a bundled network on real images.")
@click.option("--dense", is_flag=True, help="The fully connected network instead of the convolutional one.")
def demo(dense: bool) -> None:
    """Certify a bundled digit classifier on real handwritten digits."""
    model = bundled("digits_dense.onnx" if dense else "digits_conv.onnx")
    options = {
        "eps": BUNDLED_EPS,
        "norm": "linf",
        "clip": (0.0, 1.0),
        "method": "auto",
        "timeout": 60.0,
        "device": "cpu",
        "jsonl": None,
        "resume": False,
        "report": None,
        "certificates": None,
        "check": False,
        "semantics": "real",
    }
    run(model, bundled("digits_test.npz"), None, options)


def run(model: Path, images: Path, selection: slice | None, options: dict[str, Any]) -> None:
    """Load, certify with a progress bar, and print the summary."""
    import numpy as np

    from krelax._version import __version__
    from krelax.cli.printing import Progress, certify_summary
    from krelax.cli.report import reporting
    from krelax.errors import InputError
    from krelax.network.onnx import load_onnx
    from krelax.problem.images import load_images
    from krelax.run.certificates import Certificates
    from krelax.run.certify import CertifyOptions, identity
    from krelax.run.certify import certify as certify_images
    from krelax.run.journal import digest

    journal, resume, report = (options.pop(name) for name in ("jsonl", "resume", "report"))
    folder, check, semantics = (options.pop(name) for name in ("certificates", "check", "semantics"))
    if resume and journal is None:
        raise InputError("--resume needs the --jsonl file of the run to go on with")
    asked = CertifyOptions(**options)
    network = load_onnx(model)
    data = load_images(images, network.input_shape, int(np.prod(network.output_shape)))
    indices = chosen(selection, len(data))
    settings = {"model": digest(model), "images": digest(images), **kept(folder, check, semantics)}
    keeper = None if folder is None else Certificates(folder, model, check, semantics)
    warn_of_obstacle(keeper)
    header = {"krelax": __version__, **identity(asked, settings)}
    with reporting(report, model, images, header, indices, journal, folder) as note:
        with Progress(len(indices), "certifying") as progress:

            def seen(record: dict[str, Any]) -> None:
                note(record)
                progress.seen(record)
                warn_refused(f"image {record['index']}", record["reason"])

            summary = certify_images(
                network,
                data,
                indices,
                asked,
                journal=journal,
                resume=resume,
                settings=settings,
                seen=seen,
                certificates=keeper,
            )
        certify_summary(model, images, asked, summary)
        if keeper is not None:
            click.echo(f"  certificates in {folder}" + (", checked as they were written" if keeper.checks else ""))
    if report is not None:
        click.echo(f"  report in {report}")
