"""`krelax check`: check a certificate, without the rest of krelax."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from krelax.cli.shared import FILE

if TYPE_CHECKING:
    from krelax.certificate.onnx.builder import Interface
    from krelax.problem.query import Specification

_MOST_QUESTIONS = 10


@click.command(short_help="Check a certificate.")
@click.argument("certificate", type=FILE)
@click.option("--network", "model", type=FILE, required=True, metavar="FILE", help="The ONNX network it is about.")
@click.option("--spec", "specification", type=FILE, metavar="FILE", help="A VNN-LIB property that it must prove.")
@click.option("--exact", is_flag=True, help="Compute with exact numbers instead of bounding rounding errors.")
@click.option("--full", is_flag=True, help="Show every question and every number, however many there are.")
def check(certificate: Path, model: Path, specification: Path | None, exact: bool, full: bool) -> int:
    """Check a CERTIFICATE: derive every bound of its proofs anew, by a small program that shares no code with those
    that search for proofs. What is proven is shown in words and numbers.

    Exit code 0 if it is accepted, 1 if it is rejected: it is about another network or another property, or proves
    less than it should. Exit code 2 if it is malformed, or about a network that the checker does not read.
    """
    from krelax.certificate.errors import Malformed, Rejected
    from krelax.cli import BAD_INPUT, DISAGREEMENT, DONE
    from krelax.errors import one_line

    try:
        for line in _lines(certificate, model, specification, exact, full):
            click.echo(line)
    except Malformed as error:
        click.echo(one_line(f"malformed: {error}"), err=True)
        return BAD_INPUT
    except Rejected as error:
        click.echo(one_line(f"rejected: {error}"), err=True)
        return DISAGREEMENT
    return DONE


def _lines(path: Path, model: Path, specification: Path | None, exact: bool, full: bool) -> list[str]:
    """What was proved, in words."""
    import time

    from krelax.certificate.check import check as check_certificate
    from krelax.certificate.format.archive import read
    from krelax.certificate.format.semantics import named
    from krelax.certificate.format.specification import match
    from krelax.certificate.format.statement import is_vacuous, semantics, statement
    from krelax.certificate.onnx.model import read_model
    from krelax.errors import UnsupportedError
    from krelax.problem.vnnlib import read_vnnlib

    began = time.perf_counter()
    certificate = read(path)
    files = read_model(model)
    asked = None if specification is None else read_vnnlib(specification)
    if asked is not None and asked.terms is not None:
        what = "relates inputs, or is about hidden nodes, several tensors or several networks, or products"
        raise UnsupportedError(f"{specification}: {what}; certificates say nothing of that")
    errors = None if asked is None else match(certificate, asked.cases)
    seen: list[Interface] = []

    def fits(interface: Interface) -> None:
        seen.append(interface)
        if asked is not None:
            _check_fit(asked, interface)

    margins = check_certificate(certificate, files, exact, errors, fits)
    lines = [f"network {certificate.network}", *_about(certificate.output, seen[0]), semantics(certificate)]
    shown = len(margins) if full else _MOST_QUESTIONS
    for number, (question, margin) in enumerate(zip(certificate.questions[:shown], margins, strict=False)):
        clauses = int(question.clause.max()) + 1
        lines.append(f"question {number}: {question.region.describe()}; clauses {clauses}; margin {margin:.6g}")
        lines += [f"  {line}" for line in statement(question, full)]
    if len(margins) > shown:
        lines.append(f"... {len(margins) - shown} more questions; --full shows them")
    about, said = _specification(specification, asked)
    lines += said
    vacuous = sum(map(is_vacuous, certificate.questions))
    facts = [
        f"questions {len(margins)}",
        f"of which {vacuous} VACUOUS" if vacuous else "",
        about,
        f"semantics {named(certificate.semantics, certificate.units)}",
        f"arithmetic {'exact' if exact else 'float64'}",
        f"smallest margin {min(margins):.6g}",
        f"{time.perf_counter() - began:.2f} s",
    ]
    return [*lines, "accepted: " + ", ".join(filter(None, facts))]


def _about(output: str | None, file: Interface) -> list[str]:
    """Which output, if the certificate says so, and what of it was proven."""
    from krelax.errors import one_line

    named = [] if output is None else [one_line(f"output {output!r}")]
    if not file.head:
        return named
    left = ", ".join(op.rpartition(".")[2] for op in file.head)
    return [*named, f"proven of the scores before {left}: y[i] > y[j] if and only if that is so of the scores"]


def _specification(path: Path | None, asked: Specification | None) -> tuple[str, list[str]]:
    """What of a specification was shown, in a word; and in lines, where it asks nothing of a network."""
    if asked is None:
        return "", []
    if asked.cases:
        return "the specification", []
    says = f"specification {path}: every input x and output y with the assertions is unsafe"
    reasons = [f"  VACUOUS: {reason}; this holds of every network, and says nothing of it" for reason in asked.warnings]
    return "the specification, which is VACUOUS", [says, *reasons]


def _check_fit(specification: Specification, file: Interface) -> None:
    """Raises InputError for a specification of another network."""
    from krelax.errors import InputError, one_line
    from krelax.problem.query import check_fit

    check_fit(specification, *file.shapes, (file.element, ""))
    for said, own in zip(specification.labels, file.names, strict=True):
        if said not in {None, own}:
            raise InputError(one_line(f"the specification says that the network has {said!r}, which is called {own!r}"))
