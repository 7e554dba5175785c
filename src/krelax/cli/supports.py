"""`krelax supports`: what this version can read and do, one bare word a line."""

from __future__ import annotations

from collections.abc import Callable

import click

# What the VNN-LIB standard asks for by name, and the answers; the theories of each kind, the simplest one first.
_FACTS = {
    "onnx-opset-versions": ("8", "21"),
    "onnx-element-types": ("real", "float32", "float64"),
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


@click.command()
@click.option("--onnx-operators", is_flag=True, help="Operators the ONNX reader knows.")
@click.option("--methods", is_flag=True, help="Bounding methods.")
@_options
def supports(onnx_operators: bool, methods: bool, **asked: bool) -> None:
    """List what is supported."""
    if onnx_operators:
        from krelax.network.onnx_operators import READERS

        click.echo("\n".join(sorted({*READERS, "Constant", "ConstantOfShape", "Shape"})))
    for name, answers in _FACTS.items():
        if asked[name.replace("-", "_")]:
            click.echo("\n".join(answers))
    if methods:
        from krelax.bounds.methods import METHODS

        click.echo("\n".join(("auto", *METHODS)))
    if not (onnx_operators or methods or any(asked.values())):
        raise click.UsageError("say what to list")
