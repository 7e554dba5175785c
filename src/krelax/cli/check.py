"""`krelax check`: check a certificate, without the rest of krelax."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from krelax.cli.shared import FILE, name_and_file, named, networks_option

if TYPE_CHECKING:
    from krelax.certificate.check import Found
    from krelax.certificate.format.schema import Certificate
    from krelax.certificate.onnx.model import Model
    from krelax.problem.files import Files
    from krelax.problem.query import Specification

_MOST_QUESTIONS = 10


@click.command(short_help="Check a certificate.")
@click.argument("certificate", type=FILE)
@networks_option("The ONNX network it is about.")
@click.option("--spec", "specification", type=FILE, metavar="FILE", help="A VNN-LIB property that it must prove.")
@click.option("--exact", is_flag=True, help="Compute with exact numbers instead of bounding rounding errors.")
@click.option("--full", is_flag=True, help="Show every question and every number, however many there are.")
def check(certificate: Path, networks: tuple[str, ...], specification: Path | None, exact: bool, full: bool) -> int:
    """Check a CERTIFICATE: derive every bound of its proofs anew, by a small program that shares no code with those
    that search for proofs. What is proven is shown in words and numbers.

    Exit code 0 if it is accepted, 1 if it is rejected: it is about another network or another property, or proves
    less than it should. Exit code 2 if it is malformed, or about a network that the checker does not read.
    """
    from krelax.certificate.errors import Malformed, Rejected
    from krelax.cli import BAD_INPUT, DISAGREEMENT, DONE
    from krelax.errors import one_line

    try:
        for line in _lines(certificate, networks, specification, exact, full):
            click.echo(line)
    except Malformed as error:
        click.echo(one_line(f"malformed: {error}"), err=True)
        return BAD_INPUT
    except Rejected as error:
        click.echo(one_line(f"rejected: {error}"), err=True)
        return DISAGREEMENT
    return DONE


def _lines(path: Path, networks: tuple[str, ...], specification: Path | None, exact: bool, full: bool) -> list[str]:
    """What was proved, in words."""
    import time

    from krelax.certificate.check import check as check_certificate
    from krelax.certificate.format.archive import read
    from krelax.certificate.format.semantics import named as in_a_word
    from krelax.certificate.format.specification import match
    from krelax.certificate.format.statement import is_vacuous, semantics, statement
    from krelax.certificate.onnx.model import read_model
    from krelax.problem.vnnlib import read_vnnlib

    began = time.perf_counter()
    certificate = read(path)
    models = {file: read_model(file) for _, file in map(name_and_file, networks)}
    asked = None if specification is None else read_vnnlib(specification)
    errors = None if asked is None else match(certificate, asked)
    _check_files(certificate, networks, models, asked, specification)
    seen: list[Found] = []

    def fits(found: Found) -> None:
        seen.append(found)
        if asked is not None:
            _check_fit(certificate, asked, found)

    margins = check_certificate(certificate, list(models.values()), exact, errors, fits)
    lines = [*_about(certificate, seen[0], full), semantics(certificate)]
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
        f"semantics {in_a_word(certificate.semantics, certificate.units)}",
        f"arithmetic {'exact' if exact else 'float64'}",
        f"smallest margin {min(margins):.6g}",
        f"{time.perf_counter() - began:.2f} s",
    ]
    return [*lines, "accepted: " + ", ".join(filter(None, facts))]


def _check_files(
    certificate: Certificate,
    networks: tuple[str, ...],
    models: dict[Path, Model],
    asked: Specification | None,
    specification: Path | None,
) -> None:
    """Raises Rejected where a network of a system is another file than the one that is given for its name, or stands
    for in a specification; InputError where that names other networks than those that are given."""
    from krelax.certificate.format.declared import check_files
    from krelax.errors import InputError
    from krelax.problem.files import matched

    if asked is None:  # names are not needed, because files are known by their hashes
        files: Files = named(tuple(n for n in networks if name_and_file(n)[0] is not None))
    else:
        try:
            files = matched(asked, named(networks))
        except InputError as error:
            raise type(error)(f"{specification}: {error}") from error
    if certificate.system is not None:
        check_files(certificate.system, {name: models[file].hash for name, file in files.items()})


def _about(certificate: Certificate, found: Found, full: bool) -> list[str]:
    """Which networks, and what of them was proven."""
    from krelax.certificate.format.statement import parts
    from krelax.errors import one_line

    if isinstance(found, tuple):
        assert certificate.system is not None
        return list(parts(certificate.system, [[t.shape for t in use.values] for use in found], full))
    lines = [f"network {certificate.network}"]
    if certificate.output is not None:
        lines.append(one_line(f"output {certificate.output!r}"))
    if found.head:
        left = ", ".join(op.rpartition(".")[2] for op in found.head)
        lines.append(f"proven of the scores before {left}: y[i] > y[j] if and only if that is so of the scores")
    return lines


def _specification(path: Path | None, asked: Specification | None) -> tuple[str, list[str]]:
    """What of a specification was shown, in a word; and in lines, where it asks nothing of a network."""
    if asked is None:
        return "", []
    if asked.cases:
        return "the specification", []
    says = f"specification {path}: every input x and output y with the assertions is unsafe"
    reasons = [f"  VACUOUS: {reason}; this holds of every network, and says nothing of it" for reason in asked.warnings]
    return "the specification, which is VACUOUS", [says, *reasons]


def _check_fit(certificate: Certificate, asked: Specification, found: Found) -> None:
    """Raises InputError or Rejected for a specification of another network."""
    from krelax.certificate.format.declared import check_tensors
    from krelax.errors import InputError, one_line
    from krelax.problem.query import check_fit

    if isinstance(found, tuple):
        assert certificate.system is not None
        check_tensors(certificate.system, asked.networks, found)
        return
    check_fit(asked, *found.shapes, (found.element, ""))
    for said, own in zip(asked.labels, found.names, strict=True):
        if said not in {None, own}:
            raise InputError(one_line(f"the specification says that the network has {said!r}, which is called {own!r}"))
