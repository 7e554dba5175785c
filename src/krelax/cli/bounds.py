"""`krelax bounds` and `krelax compare`: what the methods say about one image."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from krelax.cli.shared import FILE, Asked, data_options, device_option, output_option, region_options, tell

if TYPE_CHECKING:
    from krelax.bounds.bounded import Bounded
    from krelax.bounds.methods import Method
    from krelax.search.questions import Questions


def _image_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in (
        device_option,
        output_option,
        data_options,
        region_options,
        click.option("--index", type=click.IntRange(min=0), required=True, metavar="I", help="Which image."),
        click.argument("images", type=FILE),
        click.argument("model", type=FILE),
    ):
        function = decorate(function)
    return function


@click.command(short_help="Bounds of every layer around one image.")
@_image_arguments
@click.option("--method", default="alpha", show_default=True, metavar="NAME", help="See `krelax supports --methods`.")
def bounds(method: str, **options: Any) -> None:
    """Bounds of every layer and margin of MODEL around one image of IMAGES."""
    from krelax.bounds.methods import METHODS
    from krelax.cli.printing import table
    from krelax.errors import InputError

    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: use one of {', '.join(METHODS)}")
    questions, found, seconds, label = _bound(METHODS[method], **options)
    rows = [
        (f"{i} {kind}", str(total), str(unstable), f"{width:.4g}") for i, kind, total, unstable, width in _layers(found)
    ]
    click.echo(table(("activation", "neurons", "unstable", "mean width"), rows) + "\n")
    others = [c for c in range(questions.queries.rows.shape[-1]) if c != label]
    margins = zip(others, found.value[0].tolist(), strict=True)
    click.echo(table(("margin", "lower bound"), [(f"y[{label}] - y[{c}]", f"{m:.6g}") for c, m in margins]))
    worst = float(found.value.min())
    word = "holds: no perturbation changes the class" if worst > 0 else "not proven by this method"
    click.echo(f"\n{method}: worst margin {worst:.6g}, {word} ({seconds:.2f} s)")


@click.command(short_help="Every method on one image.")
@_image_arguments
def compare(**options: Any) -> None:
    """One row for every method: worst margin, unstable neurons, seconds."""
    from krelax.bounds.methods import METHODS
    from krelax.cli.printing import table

    rows = []
    for name, method in METHODS.items():
        _, found, seconds, _ = _bound(method, **options)
        worst = float(found.value.min())
        unstable = sum(layer[3] for layer in _layers(found))
        rows.append((name, f"{worst:.6g}", "holds" if worst > 0 else "-", str(unstable), f"{seconds:.3f}"))
    click.echo(table(("method", "worst margin", "verdict", "unstable", "seconds"), rows))


def _bound(
    method: Method,
    *,
    model: Path,
    images: Path,
    index: int,
    eps: Fraction | None,
    norm: str,
    clip: Any,
    output: str | None,
    device: str,
    **about: Any,
) -> tuple[Questions, Bounded, float, int]:
    """Questions about one image, what `method` finds, the seconds it took, and the image's label."""
    import time

    import torch

    from krelax.bounds.instance import Instance
    from krelax.bounds.methods import bound
    from krelax.errors import InputError
    from krelax.network.onnx import load_onnx
    from krelax.problem.images import Images
    from krelax.run.certify import check_device
    from krelax.search.questions import about_images

    if eps is None:
        raise InputError("give the radius of the perturbation with --eps")
    check_device(device)
    network = load_onnx(model, output=output, scores=True)
    tell(model, network.notes)
    asked = Asked.taken(about)
    data = asked.load(images, network)
    if index >= len(data):
        raise InputError(f"--index {index}: there are only {len(data)} images")
    one = Images(data.images[index : index + 1], data.labels[index : index + 1])
    questions = about_images(network, one, eps, norm, clip, asked.scaling)
    instance = Instance.of(network, questions.region.to(torch.float64, device))
    began = time.perf_counter()
    found = bound(instance, questions.queries.to(torch.float64, device), method)
    return questions, found, time.perf_counter() - began, int(one.labels[0])


def _layers(found: Bounded) -> list[tuple[int, str, int, int, float]]:
    """Node, kind, neurons, unstable neurons and mean width of the pre-activation of every activation."""
    result = []
    for node, relaxation in found.bounds.relaxations.items():
        width = float((relaxation.upper - relaxation.lower).mean())
        unstable = int(relaxation.unstable().sum())
        result.append((node, relaxation.op.name, relaxation.lower[0].numel(), unstable, width))
    return result
