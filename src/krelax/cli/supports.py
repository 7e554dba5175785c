"""`krelax supports`: what this version can read and do, as a page, or one bare word a line."""

from __future__ import annotations

from collections.abc import Iterable

import click

_WIDTH = 100
# Ways out of what is not read, for most files that are refused.
_REMEDIES = (
    ("an operator that is not listed", "export again with the constants folded, or write the model without it"),
    ("functions, dynamic axes, casts", "functions are inlined, unknown axes count as one, casts may not round"),
    ("half precision", "convert the model to float32, which holds the same weights"),
    ("several outputs", "choose one with --output NAME"),
    ("a softmax at the end", "left out by itself where outputs are only compared"),
)


@click.command()
@click.option("--onnx-operators", is_flag=True, help="Operators the ONNX reader knows.")
@click.option("--onnx-opset-versions", is_flag=True, help="Operator sets the ONNX reader is tested with.")
@click.option("--vnnlib-versions", is_flag=True, help="Versions of VNN-LIB.")
@click.option("--methods", is_flag=True, help="Bounding methods.")
def supports(onnx_operators: bool, onnx_opset_versions: bool, vnnlib_versions: bool, methods: bool) -> None:
    """List what is supported: everything on one page, or what an option names, one word a line."""
    if onnx_operators:
        click.echo("\n".join(_onnx_operators()))
    if onnx_opset_versions:
        click.echo("\n".join(str(version) for version in range(8, 22)))
    if vnnlib_versions:
        click.echo("1.0\n2.0")
    if methods:
        click.echo("\n".join(_methods()))
    if not (onnx_operators or onnx_opset_versions or vnnlib_versions or methods):
        click.echo("\n".join(_page()))


def _onnx_operators() -> list[str]:
    from krelax.network.onnx import supported_operators

    return supported_operators()


def _methods() -> list[str]:
    from krelax.bounds.methods import METHODS

    return ["auto", *METHODS]


def _page() -> Iterable[str]:
    """Everything, in paragraphs."""
    from krelax.activations import ACTIVATIONS
    from krelax.network.onnx_operators import READERS
    from krelax.network.torch import supported_operators

    own, ml = _parted(READERS, "ai.onnx.ml.")
    constants = sorted(set(_onnx_operators()) - set(READERS))
    yield from _paragraph("ONNX operators (operator sets 7 to 24)", own)
    yield from _paragraph("ONNX operators of constants only", constants)
    yield from _paragraph("scikit-learn's operators (ai.onnx.ml)", ml)
    yield from _paragraph("PyTorch operators (aten), as torch.export writes them", _plain(supported_operators()))
    yield from _paragraph("activations, with bounds, splits and certificates", sorted(ACTIVATIONS))
    yield from _paragraph("methods (--method)", _methods())
    yield from _paragraph(
        "regions", ["linf, l2, l1 balls around images", "boxes and unions of them (VNN-LIB 1.0, 2.0)"]
    )
    yield from _paragraph(
        "files", ["ONNX, gzip too, with external data", "exporters: PyTorch, TensorFlow and Keras, scikit-learn"]
    )
    yield "what is refused, and what helps"
    yield from (f"  {what}: {help_}" for what, help_ in _REMEDIES)


def _parted(names: Iterable[str], domain: str) -> tuple[list[str], list[str]]:
    """Names without and with a domain, which is left out."""
    plain, other = list[str](), list[str]()
    for name in sorted(names):
        (other if name.startswith(domain) else plain).append(name.removeprefix(domain))
    return plain, other


def _plain(names: Iterable[str]) -> list[str]:
    return [name.removeprefix("aten.") for name in names]


def _paragraph(title: str, words: Iterable[str]) -> Iterable[str]:
    """A title, and words in lines of some width."""
    import textwrap

    yield title
    yield from textwrap.wrap(", ".join(words), _WIDTH, initial_indent="  ", subsequent_indent="  ")
    yield ""
