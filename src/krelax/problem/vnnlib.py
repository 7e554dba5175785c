"""Read VNN-LIB 1.0 and 2.0 specifications, plain or gzip-compressed.

What a file means here
    The assertions are a conjunction and describe the *unsafe* set, which is brought into disjunctive normal form, one
    :class:`Case` per disjunct. Comparisons of single inputs with numbers bound a box; all others, of polynomials in
    inputs, hidden nodes and outputs of one or several networks, are half-spaces over their monomials. Numbers
    are the exact decimals that are written, and strict inequalities are strict. Disjuncts that no input can satisfy,
    judged exactly, are dropped; if none is left the specification has no cases, and holds.

How bounds become floating-point numbers
    A box side that bounds are computed with is the float64 nearest to the decimal that does not make the box smaller,
    and strict inequalities are closed: "the property holds" is then true of the file, too. Counterexamples are judged
    by the float64 numbers that lie inside, and by half-spaces in rational arithmetic.

Whatever is not understood is refused: nothing in a file is skipped but comments.
"""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np

from krelax.errors import InputError, UnsupportedError
from krelax.problem._boxes import Bound, Boxes, Conflict, intersect_bounds
from krelax.problem._declarations import Declarations
from krelax.problem._forms import Fault, Form, Node, Source, head, is_word, quote
from krelax.problem._formulas import Formulas
from krelax.problem._normal import Disjunction, Formula
from krelax.problem._relations import Relations
from krelax.problem._text import Check
from krelax.problem.exact import Ends
from krelax.problem.interface import Declared, Kind
from krelax.problem.query import Case, Halfspace, Specification

_MAX_BOX_ENTRIES = 50_000_000


def _no_limit() -> None:
    """Reading takes as long as it takes."""


def read_vnnlib(path: str | Path, check: Check = _no_limit) -> Specification:
    """The property in a VNN-LIB file, of version 1.0 or 2.0.

    Args:
        path: The file, which may be compressed with gzip. The description of this module says what is understood and
            how.
        check: Is called many times a second; what it raises ends the reading. So a limit of time is kept.

    Returns:
        The property as cases that would be unsafe.

    Raises:
        UnsupportedError: The file is well formed and needs more than krelax offers, such as several networks.
        InputError: Anything else prevents a reading. Both name the file, the line where one is known, and the remedy.

    Reference: VNN-LIB, https://www.vnnlib.org.
    """
    with _uncollected():
        source = Source(Path(path), check)
        document = _Document(check)
        try:
            for command in source.commands():
                document.execute(command)
            return document.specification()
        except Fault as fault:
            raise source.error(fault) from None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without looking for cyclic garbage: there is none, and each look visits all the lists of a large file."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Document:
    """The commands executed so far, with the formulas that are asserted."""

    def __init__(self, check: Check) -> None:
        self._version = ""
        self._started = False
        self._check = check
        self._declarations = Declarations()
        self._formulas = Formulas(self._declarations, check)
        self._asserted: list[Formula] = []

    def execute(self, command: Node) -> None:
        """Process one top-level command; raises Fault."""
        keyword, operands = head(command)
        if keyword == "declare-network" and not self._started:
            self._version = "<2.0>"  # which examples of the standard leave out
        if keyword == "assert":
            self._assert(operands, command)
        elif keyword in ("declare-const", "declare-fun") and not self._version:
            self._declarations.declare_scalar(keyword, operands, command)
        elif keyword == "declare-network" and self._version:
            self._declarations.declare_network(operands, command)
        elif keyword == "vnnlib-version" and not self._started:
            self._declare_version(operands, command)
        else:
            raise Fault(*_misplaced(keyword, command))
        self._started = True

    def _declare_version(self, operands: Sequence[Form], where: Form) -> None:
        version = operands[0] if len(operands) == 1 and is_word(operands[0]) else ""
        if not re.fullmatch("<2[.][0-9]+>", version):
            message = "only (vnnlib-version <2.0>) and files without a version, 1.0, are supported"
            raise Fault(message, where, UnsupportedError)
        self._version = version

    def _assert(self, operands: Sequence[Form], where: Form) -> None:
        if len(operands) != 1:
            raise Fault(f"assert takes one formula, not {len(operands)}; combine them by (and ...)", where)
        self._asserted.append(self._formulas.formula(operands[0], where))

    def specification(self) -> Specification:
        """What the commands amount to; raises Fault if anything is missing."""
        networks = self._declarations.declared()
        inputs = sum(v.size for network in networks for v in network.of(Kind.INPUT))
        common, alternatives = self._formulas.cases(self._asserted)
        conjunctions = [common, *alternatives]
        self._check()
        boxes, box_of = _boxes(self._formulas.bounds, conjunctions, inputs)
        self._check()
        name = _Namer(networks)
        simple = len(networks) == 1 and networks[0].is_simple
        relations = Relations(self._formulas, simple, self._check)
        cases = tuple(relations.applied(self._cases(conjunctions, boxes, box_of, relations.halfspaces), inputs))
        empty = () if cases else (_emptiness(boxes, box_of, name),)
        (given, *_), (result, *_) = (networks[0].of(kind) for kind in (Kind.INPUT, Kind.OUTPUT))
        plain = simple and not relations.terms
        return Specification(
            inputs=inputs,
            outputs=result.size if plain else len(relations.terms),
            cases=cases,
            input_name=given.name,
            output_name=result.name,
            input_shape=given.shape,
            output_shape=result.shape,
            network=networks[0].name,
            element=given.element,
            labels=(given.label, result.label),
            warnings=empty,
            networks=networks,
            terms=None if plain else relations.terms,
        )

    def _cases(
        self, conjunctions: Disjunction, boxes: Boxes, box_of: list[int], halfspaces: Sequence[Halfspace]
    ) -> Iterable[tuple[Case, Sequence[int], Sequence[int]]]:
        """The cases, with the numbers of the half-spaces of all of them, and of their own."""
        numbers = [[-1 - literal for literal in conjunction if literal < 0] for conjunction in conjunctions]
        common = tuple(halfspaces[number] for number in numbers[0])
        lower, upper, least, most = (list(a) for a in (boxes.lower, boxes.upper, boxes.least, boxes.most))
        ends: list[Ends | None] = [None] * len(lower)
        for count, (box, own) in enumerate(zip(box_of[1:], numbers[1:], strict=True)):
            if not count & 0xFFF:
                self._check()
            if box not in boxes.conflicts:
                parts = common + tuple(halfspaces[number] for number in own)
                between = boxes.between.get(box, {})
                ends[box] = ends[box] or boxes.ends(box)
                case = Case(lower[box], upper[box], parts, least[box], most[box], between, ends=ends[box])
                yield case, numbers[0], own


def _misplaced(keyword: str, command: Node) -> tuple[str, Node, type[InputError]]:
    """The arguments of the Fault for a command that cannot be executed at this place."""
    scalar = "belongs to VNN-LIB 1.0; use declare-network, or remove the version"
    places = {
        "declare-const": scalar,
        "declare-fun": scalar,
        "declare-network": "belongs to VNN-LIB 2.0; start the file with (vnnlib-version <2.0>)",
        "vnnlib-version": "must be the first command and the only one of its kind",
    }
    if keyword in places:
        return f"{keyword} {places[keyword]}", command, InputError
    return f"{quote(command)} is not a supported command; remove it", command, UnsupportedError


def _boxes(bounds: Sequence[Bound], conjunctions: Disjunction, inputs: int) -> tuple[Boxes, list[int]]:
    """The input boxes of the conjunctions, and the box of each; the first conjunction holds in all.

    Conjunctions without bounds of their own share box 0, that of the first conjunction.
    """
    lengths = [len(conjunction) for conjunction in conjunctions]
    literals = np.fromiter(chain.from_iterable(conjunctions), dtype=np.int64, count=sum(lengths))
    owners = np.repeat(np.arange(len(conjunctions)), lengths)[literals >= 0]
    has_own = np.bincount(owners, minlength=len(conjunctions)) > 0
    has_own[0] = True
    box_of = np.where(has_own, np.cumsum(has_own) - 1, 0)
    shape = (int(has_own.sum()), inputs)
    if math.prod(shape) > _MAX_BOX_ENTRIES:
        message = f"{shape[0]} boxes of {inputs} inputs exceed the limit of {_MAX_BOX_ENTRIES} bounds in all"
        raise Fault(f"{message}; split the specification", kind=UnsupportedError)
    return intersect_bounds(bounds, box_of[owners], literals[literals >= 0], shape), box_of.tolist()


class _Namer:
    """How the file spells its inputs."""

    def __init__(self, networks: Sequence[Declared]) -> None:
        self._inputs = [v for network in networks for v in network.of(Kind.INPUT)]

    def __call__(self, index: int) -> str:
        variable = next(v for v in reversed(self._inputs) if v.start <= index)
        return variable.element_name(index - variable.start)


def _emptiness(boxes: Boxes, box_of: Sequence[int], name: Callable[[int], str]) -> str:
    """Why no input satisfies the assertions."""
    if 0 in boxes.conflicts:
        return f"no input satisfies the assertions: {_describe(boxes.conflicts[0], name)}"
    if len(box_of) > 1 and box_of[1] in boxes.conflicts:
        return f"no input satisfies the assertions: {_describe(boxes.conflicts[box_of[1]], name)}"
    if len(box_of) > 1:
        return "no input satisfies the assertions: what they say of several inputs excludes each other"
    return "no input and output satisfy the assertions: they contradict each other whatever the network is"


def _describe(conflict: Conflict, name: Callable[[int], str]) -> str:
    lower, upper = (
        f"{'>' if not bound.is_upper else '<'}{'' if bound.strict else '='} {bound.limit.exact}"
        for bound in (conflict.lower, conflict.upper)
    )
    variable = name(conflict.variable)
    return f"{variable} {lower} contradicts {variable} {upper}"
