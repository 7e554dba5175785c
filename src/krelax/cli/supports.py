"""`krelax supports`: what this version can read and do, as a page, or one bare word a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

_WIDTH = 100
# Ways out of what is not read, for most files that are refused.
_REMEDIES = (
    ("an operator that is not listed", "export again with the constants folded, or write the model without it"),
    ("functions, dynamic axes", "functions are inlined, unknown axes count as one"),
    ("casts that round", "let the model compute in one type, or in float16 where it casts to that"),
    ("several outputs", "the first of floating-point numbers is read; choose another with --output NAME"),
    ("a softmax at the end", "left out by itself where outputs are only compared"),
)


# What the VNN-LIB standard asks for by name, and the answers; the theories of each kind, the simplest one first.
_FACTS = {
    "onnx-opset-versions": ("8", "21"),
    "onnx-element-types": (
        *("real", "float32", "float64", "float16", "bfloat16", "bool"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    ),
    "vnnlib-versions": ("1.0", "2.0"),
    "hidden-node-theories": ("NH", "H"),
    "multiple-input-output-theories": ("SIO", "MIO"),
    "multiple-network-theories": ("SNET", "MNET", "MENET", "MINET"),
    "multiple-node-comparison-theories": ("SNC", "MNC"),
    "arithmetic-complexity-theories": ("BND", "OUTC", "LIN", "POLY"),
    "optimised-disjunctive-reasoning": ("false",),
    "serialise-assignments": ("true",),
    "unsat-proofs": ("false",),
}
_HELP = {
    "onnx-opset-versions": "The oldest and the newest operator set the ONNX reader is tested with.",
    "onnx-element-types": "Element types of inputs, hidden nodes and outputs.",
    "vnnlib-versions": "The oldest and the newest version of VNN-LIB.",
    "hidden-node-theories": "Queries without and with hidden nodes.",
    "multiple-input-output-theories": "Queries with one input and output, or several.",
    "multiple-network-theories": "Queries about one network, or several.",
    "multiple-node-comparison-theories": "Comparisons within a node, and between nodes.",
    "arithmetic-complexity-theories": "Bounds, comparisons of outputs, linear and polynomial arithmetic.",
    "optimised-disjunctive-reasoning": "Whether disjunctions are more than a list of cases.",
    "serialise-assignments": "Whether counterexamples are saved as tensors.",
    "unsat-proofs": "Whether proofs in the standard's format are written.",
}


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for name, text in reversed(_HELP.items()):
        command = click.option(f"--{name}", is_flag=True, help=text)(command)
    return command


@click.command(short_help="List what is read, asked and done.")
@click.option("--onnx-operators", is_flag=True, help="Operators the ONNX reader knows.")
@click.option("--methods", is_flag=True, help="Bounding methods.")
@_options
def supports(onnx_operators: bool, methods: bool, **asked: bool) -> None:
    """List what is supported: everything on one page, or what an option names, one word a line."""
    if onnx_operators:
        click.echo("\n".join(_onnx_operators()))
    for name, answers in _FACTS.items():
        if asked[name.replace("-", "_")]:
            click.echo("\n".join(answers))
    if methods:
        click.echo("\n".join(_methods()))
    if not (onnx_operators or methods or any(asked.values())):
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

    every = _onnx_operators()  # which fills the table
    own, ml = _parted(READERS, "ai.onnx.ml.")
    constants = sorted(set(every) - set(READERS))
    yield from _paragraph("ONNX operators (operator sets 7 to 24)", own)
    yield from _paragraph("ONNX operators of constants only", constants)
    yield from _paragraph("scikit-learn's operators (ai.onnx.ml)", ml)
    yield from _paragraph("PyTorch operators (aten), as torch.export writes them", _plain(supported_operators()))
    yield from _paragraph("activations, with bounds, splits and certificates", sorted(ACTIVATIONS))
    yield from _paragraph("methods (--method)", _methods())
    yield from _paragraph(
        "regions",
        [
            "linf, l2, l1 balls around images",
            "transformations, patches, single pixels and categories (--region)",
            "what VNN-LIB 1.0 and 2.0 can say",
        ],
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
