"""`krelax explore`: an interactive page about relaxations, a network, and one image."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from krelax.cli.shared import (
    BUNDLED_EPS,
    FILE,
    Asked,
    bundled,
    data_options,
    exactly,
    output_option,
    region_options,
    tell,
)

if TYPE_CHECKING:
    from krelax.explore.answers import Answers
    from krelax.explore.model import Question


@click.command(short_help="An interactive page about relaxations, a network, and one image.")
@click.argument("model", type=FILE, required=False)
@click.argument("images", type=FILE, required=False)
@click.option("--index", type=click.IntRange(min=0), default=0, show_default=True, metavar="I", help="Which image.")
@region_options
@data_options
@output_option
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="P", help="Port of the page; a free one.")
@click.option("--no-browser", is_flag=True, help="Only say where the page is.")
@click.option("--export", type=FILE, metavar="FILE", help="Write the page to FILE, which needs no server, and end.")
def explore(
    model: Path | None, images: Path | None, port: int, no_browser: bool, export: Path | None, **options: Any
) -> None:
    """Explore what relaxations know: of one neuron, of a group, of a network, and with every method.

    The page is served on this machine until Ctrl-C. Without MODEL and IMAGES it is about a bundled digit classifier.
    """
    from krelax.explore.answers import Answers

    if export is not None:
        from krelax.report.writing import check_output

        check_output(export, "page")
    answers = Answers(_question(model, images, **options))
    if export is not None:
        _write(answers, export)
    else:
        _serve(answers, port, no_browser)


def _question(
    model: Path | None,
    images: Path | None,
    index: int,
    eps: Fraction | None,
    norm: str,
    clip: Any,
    output: str | None,
    **about: Any,
) -> Question:
    from krelax.errors import InputError
    from krelax.explore.model import ask
    from krelax.network.onnx import load_onnx

    if model is None:
        model, images = bundled("digits_dense.onnx"), bundled("digits_test.npz")
        eps = exactly(str(BUNDLED_EPS)) if eps is None else eps
    if images is None:
        raise InputError("give labelled images after the model: a folder, or a file (.npz, .npy, .csv)")
    if eps is None:
        raise InputError("give the radius of the perturbation with --eps")
    network = load_onnx(model, output=output, scores=True)
    tell(model, network.notes)
    asked = Asked.taken(about)
    return ask(network, asked.load(images, network), index, eps, norm, clip, model.name, asked.scaling)


def _write(answers: Answers, path: Path) -> None:
    """Compute everything, say what is done on stderr, and write the file."""
    from krelax.errors import InputError
    from krelax.explore.page import page
    from krelax.run.files import replacing

    def say(done: str) -> None:
        click.echo(f"  {done}", err=True)

    try:
        with replacing(path) as file:
            html = page(answers.question, answers.everything(say)).encode()
            file.write(html)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another file for the page") from None
    click.echo(f"{path}: {len(html) / 1000:.0f} kB, opens in any browser, without a network")


def _serve(answers: Answers, port: int, no_browser: bool) -> None:
    """Serve until Ctrl-C."""
    import webbrowser

    from krelax.explore.server import Server

    with Server(answers, port) as server:
        click.echo(f"krelax explore: {server.url} (Ctrl-C ends it)")
        if not no_browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("", err=True)
        finally:
            answers.close()
