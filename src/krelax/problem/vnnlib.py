"""Read VNN-LIB 1.0 and 2.0 specifications, plain or gzip-compressed.

What a file means here
    The assertions are a conjunction and describe the *unsafe* set, which is brought into disjunctive normal form, one
    :class:`Case` per disjunct. Inputs may be bounded by single-variable comparisons, outputs by linear ones. Numbers
    are the exact decimals that are written, and strict inequalities are strict. Disjuncts that no input can satisfy,
    judged exactly, are dropped; if none is left the specification has no cases, and holds.

How bounds become floating-point numbers
    A box side that bounds are computed with is the float64 nearest to the decimal that does not make the box smaller,
    and strict inequalities are closed: "the property holds" is then true of the file, too. Counterexamples are judged
    by the float64 numbers that lie inside, and by half-spaces in rational arithmetic.

Whatever is not understood is refused: nothing in a file is skipped but comments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from krelax.errors import InputError, UnsupportedError
from krelax.problem._boxes import Bound, Boxes, Conflict, intersect_bounds
from krelax.problem._declarations import Declarations, Tensor
from krelax.problem._forms import Fault, Form, Node, Source, head, is_word, quote
from krelax.problem._formulas import Conjunction, Disjunction, Formulas, conjoin
from krelax.problem._text import Check
from krelax.problem.query import Case, Specification, element_name

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
    source = Source(Path(path), check)
    document = _Document(check)
    try:
        for command in source.commands():
            document.execute(command)
        return document.specification()
    except Fault as fault:
        raise source.error(fault) from None


class _Document:
    """The commands executed so far, with the assertions in disjunctive normal form."""

    def __init__(self, check: Check) -> None:
        self._version = ""
        self._started = False
        self._check = check
        self._declarations = Declarations()
        self._formulas = Formulas(self._declarations, check)
        # The assertions are the conjunction of ``_common`` and of one conjunction from each choice.
        self._common: Conjunction = []
        self._choices: list[Disjunction] = []

    def execute(self, command: Node) -> None:
        """Process one top-level command; raises Fault."""
        keyword, operands = head(command)
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
        disjunction = self._formulas.normal_form(operands[0], where)
        if len(disjunction) == 1:
            self._common += disjunction[0]
        else:
            self._choices.append(disjunction)

    def specification(self) -> Specification:
        """What the commands amount to; raises Fault if anything is missing."""
        given, result = self._declarations.side(is_output=False), self._declarations.side(is_output=True)
        conjunctions = [self._common, *conjoin(self._choices)]
        self._check()
        boxes, box_of = _boxes(self._formulas.bounds, conjunctions, given.size)
        self._check()
        name = _Namer(given)
        used = {box for box in box_of[1:] if box not in boxes.conflicts}
        _check_bounded(boxes, used, name)
        return Specification(
            inputs=given.size,
            outputs=result.size,
            cases=tuple(self._cases(conjunctions, boxes, box_of)),
            input_name=given.name,
            output_name=result.name,
            input_shape=given.shape,
            output_shape=result.shape,
            network=self._declarations.network,
            element=given.element,
            labels=(given.label, result.label),
            warnings=() if used else (_emptiness(boxes, box_of, name),),
        )

    def _cases(self, conjunctions: Disjunction, boxes: Boxes, box_of: list[int]) -> Iterable[Case]:
        halfspaces = self._formulas.halfspaces
        common, *own = (
            tuple(halfspaces[-1 - literal] for literal in conjunction if literal < 0) for conjunction in conjunctions
        )
        lower, upper, least, most = (list(a) for a in (boxes.lower, boxes.upper, boxes.least, boxes.most))
        for count, (box, parts) in enumerate(zip(box_of[1:], own, strict=True)):
            if not count & 0xFFF:
                self._check()
            if box not in boxes.conflicts:
                between = boxes.between.get(box, {})
                yield Case(lower[box], upper[box], common + parts, least[box], most[box], between)


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

    def __init__(self, given: Tensor) -> None:
        self._given = given

    def __call__(self, index: int) -> str:
        return element_name(self._given.name, self._given.shape, index)


def _check_bounded(boxes: Boxes, used: set[int], name: Callable[[int], str]) -> None:
    """Raise Fault if a box that is used is unbounded."""
    unbounded = np.isinf(boxes.lower) | np.isinf(boxes.upper)
    for box in np.flatnonzero(unbounded.any(axis=1)).tolist():
        if box in used:
            variable = int(unbounded[box].argmax())
            side = "lower" if np.isinf(boxes.lower[box, variable]) else "upper"
            raise Fault(f"{name(variable)} has no {side} bound; bound every input on both sides")


def _emptiness(boxes: Boxes, box_of: Sequence[int], name: Callable[[int], str]) -> str:
    """Why no input satisfies the assertions."""
    if 0 in boxes.conflicts:
        return f"no input satisfies the assertions: {_describe(boxes.conflicts[0], name)}"
    if len(box_of) > 1:
        return f"no input satisfies the assertions: {_describe(boxes.conflicts[box_of[1]], name)}"
    return "no input and output satisfy the assertions: they contradict each other whatever the network is"


def _describe(conflict: Conflict, name: Callable[[int], str]) -> str:
    lower, upper = (
        f"{'>' if not bound.is_upper else '<'}{'' if bound.strict else '='} {bound.limit.exact}"
        for bound in (conflict.lower, conflict.upper)
    )
    variable = name(conflict.variable)
    return f"{variable} {lower} contradicts {variable} {upper}"
