"""`krelax supports`: what this version can read and do, one bare word a line."""

from __future__ import annotations

import click


@click.command()
@click.option("--onnx-operators", is_flag=True, help="Operators the ONNX reader knows.")
@click.option("--onnx-opset-versions", is_flag=True, help="Operator sets the ONNX reader is tested with.")
@click.option("--vnnlib-versions", is_flag=True, help="Versions of VNN-LIB.")
@click.option("--methods", is_flag=True, help="Bounding methods.")
def supports(onnx_operators: bool, onnx_opset_versions: bool, vnnlib_versions: bool, methods: bool) -> None:
    """List what is supported."""
    if onnx_operators:
        from krelax.network.onnx_operators import READERS

        click.echo("\n".join(sorted({*READERS, "Constant", "ConstantOfShape", "Shape"})))
    if onnx_opset_versions:
        click.echo("\n".join(str(version) for version in range(8, 22)))
    if vnnlib_versions:
        click.echo("1.0\n2.0")
    if methods:
        from krelax.bounds.methods import METHODS

        click.echo("\n".join(("auto", *METHODS)))
    if not (onnx_operators or onnx_opset_versions or vnnlib_versions or methods):
        raise click.UsageError("say what to list")
