"""`krelax verify`: one VNN-LIB property, in the manner of the VNN-LIB standard's command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from krelax.cli.shared import (
    FILE,
    check_option,
    deterministic_option,
    device_option,
    kept,
    method_option,
    named,
    networks_option,
    output_option,
    program_began,
    semantics_option,
    tell,
    timeout_option,
    warn,
    warn_of_obstacle,
)

if TYPE_CHECKING:
    from krelax.network.graph import Network
    from krelax.problem.query import Specification
    from krelax.run.certificates import Certificates
    from krelax.search.verdict import Counterexample, Outcome


@click.command(short_help="Decide one VNN-LIB property.")
@click.argument("query", type=FILE)
@networks_option("The ONNX network.")
@output_option
@timeout_option("Seconds before giving up.")
@click.option("--serialise-assignments", "folder", type=FILE, metavar="DIR", help="Also save a counterexample in DIR.")
@click.option("--certificate", type=FILE, metavar="FILE", help="Write a proof to FILE if the property holds.")
@semantics_option
@check_option
@method_option
@device_option
@deterministic_option
def verify(
    query: Path,
    networks: tuple[str, ...],
    output: str | None,
    timeout: float | None,
    folder: Path | None,
    certificate: Path | None,
    check: bool,
    semantics: str,
    method: str,
    device: str,
    deterministic: bool,
) -> int:
    """Decide QUERY (VNN-LIB 1.0 or 2.0, .gz too) for a network.

    The first line on stdout is sat (a counterexample exists; it follows), unsat (the property holds), unknown or
    timed-out; the reason goes to stderr. Exit code 0 for unsat, 10 for sat, 20 for unknown, 30 for timed-out. The
    seconds count from the start of the program.
    """
    from krelax.cli import DONE, INTERNAL_ERROR, TIMED_OUT, UNKNOWN, VIOLATED
    from krelax.cli.patience import Patience
    from krelax.network.onnx import load_onnx
    from krelax.run.certificates import Certificates, check_target
    from krelax.run.verify import Clock, VerifyOptions, verify_file

    files = named(networks)
    if folder is not None:
        _make(folder)
    kept(certificate, check, semantics)
    if certificate is not None:
        check_target(certificate)
    keeper = None
    if certificate is not None:
        model, *others = files.values()
        keeper = Certificates(certificate.parent, model, check, semantics, output, tuple(others))
    clock = Clock(None if deterministic else timeout, program_began())

    def load(file: Path, scores: bool) -> Network:
        with Patience(clock.left(), _too_late, TIMED_OUT):
            network = load_onnx(file, output=output, scores=scores)
        tell(file, network.notes)
        warn_of_obstacle(keeper)
        return network

    # a proof that was found is written down, however late it is
    with Patience(clock.left() if keeper is None else None, _too_late, TIMED_OUT):
        left = timeout if deterministic else clock.left()
        options = VerifyOptions(method, left, device, deterministic=deterministic)
        specification, outcome = verify_file(query, files, load, options, keeper)
    for warning in () if specification is None else specification.warnings:
        click.echo(f"krelax: {query}: warning: {warning}", err=True)
    if keeper is not None and certificate is not None:
        outcome = _keep(keeper, certificate, query, outcome)
    codes = {"unsat": DONE, "sat": VIOLATED, "unknown": UNKNOWN, "timed-out": TIMED_OUT, "error": INTERNAL_ERROR}
    return codes[_show(outcome, specification, folder)]


def _show(outcome: Outcome, specification: Specification | None, folder: Path | None) -> str:
    """Print the answer, with a counterexample and the reason; which answer it is."""
    from krelax.run.bench import answer

    word = answer(outcome)
    click.echo("unknown" if word == "error" else word)
    if outcome.counterexample is not None and specification is not None:
        _assignments(specification, outcome.counterexample, folder)
    margin = "" if outcome.margin is None else f", margin bounded by {outcome.margin:.6g}"
    click.echo(f"krelax: {outcome.verdict.value} ({outcome.reason}{margin}, {outcome.seconds:.2f} s)", err=True)
    return word


def _keep(keeper: Certificates, certificate: Path, query: Path, outcome: Outcome) -> Outcome:
    """Write the proof of what holds; the outcome, which the checker may have changed."""
    from krelax.run.verify import EMPTY

    if outcome.reason == EMPTY:
        click.echo(f"krelax: {certificate}: not written, because there is nothing to prove", err=True)
        return outcome
    outcome, _ = keeper.write(certificate.name, outcome)
    warn(query.name, outcome.reason)
    return outcome


def _too_late() -> None:
    """What is said where the search does not end in time."""
    click.echo("timed-out")
    click.echo("krelax: unknown (timeout, while reading or in a step that cannot be interrupted)", err=True)


def _make(folder: Path) -> None:
    """The folder, before any work is done; InputError if it cannot be made."""
    from krelax.errors import InputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--serialise-assignments {folder}: cannot be a folder ({error.strerror})") from error


def _assignments(specification: Specification, found: Counterexample, folder: Path | None) -> None:
    """Save the counterexample, a tensor each; then print it, one value a line, every number exactly, and what it cannot
    say."""
    from krelax.run.assignment import assigned

    tensors = assigned(specification, found)
    for tensor in tensors:
        if folder is not None:
            (folder / f"{tensor.name}.pb").write_bytes(tensor.proto())
        click.echo("\n".join([f"{tensor.name} {tensor.element} [{','.join(map(str, tensor.shape))}]", *tensor.numbers]))
    if found.exact:
        kind = found.x.dtype.name
        names = [" and ".join(t.name for t in tensors if t.given is given) for given in (True, False)]
        click.echo(f"krelax: {names[0]} lies between {kind} numbers; {names[1]} is for the nearest ones", err=True)
