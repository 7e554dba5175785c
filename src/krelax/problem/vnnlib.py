"""Read VNN-LIB 1.0 and 2.0 specifications, plain or gzip-compressed.

What a file means here
    The assertions are a conjunction and describe the *unsafe* set, which is brought into disjunctive
    normal form, one :class:`Case` per disjunct. Inputs may be bounded by single-variable comparisons,
    outputs by linear ones. A strict inequality is read as its closure: the unsafe set can only grow, so
    "the property holds" stays true of the file; a counterexample on the edge of the closure is the only
    difference. Disjuncts whose input bounds contradict each other, judged exactly, are dropped.

How bounds become floating-point numbers
    Numbers in the file are exact decimals. With down(d) and up(d) the float64 neighbours of d (both d
    itself if it is representable), a box side is ``min(down(d), float32(down(d)))`` for a lower bound
    and ``max(up(d), float32(up(d)))`` for an upper one. Rounding to float32 is monotone, so the box
    contains the exact bound and the float32 nearest to it, whichever of them a network is fed with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import chain, product
from pathlib import Path

import numpy as np

from krelax.errors import InputError, UnsupportedError
from krelax.problem._forms import Fault, Form, Node, Source, head, is_word, quote
from krelax.problem._terms import Declarations, Linear, check_range, number, total
from krelax.problem.query import (
    Bound,
    Boxes,
    Case,
    Conflict,
    Halfspace,
    Specification,
    element_name,
    intersect_bounds,
)

_MAX_CASES = 5_000_000
_MAX_LITERALS = 50_000_000
_MAX_BOX_ENTRIES = 50_000_000

# Each comparison as the signs s for which s * (left - right) <= 0 is required.
_COMPARISONS = {"<=": (1,), "<": (1,), ">=": (-1,), ">": (-1,), "=": (1, -1), "==": (1, -1)}

# A literal names an inequality: k >= 0 the k-th input bound, k < 0 the half-space number -1 - k.
# Conjunctions are lists of literals, formulas in disjunctive normal form are lists of conjunctions.
_Conjunction = list[int]
_Disjunction = list[_Conjunction]


def read_vnnlib(path: str | Path) -> Specification:
    """Read the specification in ``path``; the module's description says what is understood and how.

    Raises UnsupportedError for a well-formed file that needs more than krelax offers (several networks,
    constraints over several inputs, and so on) and InputError for everything else that prevents a
    reading. Both name the file, the line where one is known, and the remedy.
    """
    source = Source(Path(path))
    document = _Document()
    try:
        for command in source.commands():
            document.execute(command)
        return document.specification()
    except Fault as fault:
        raise source.error(fault) from None


class _LiteralCache(dict[Form, _Conjunction]):
    """The literals of each innermost comparison by its text, computed when first asked for."""

    def __init__(self, compute: Callable[[Form], _Conjunction]) -> None:
        self._compute = compute

    def __missing__(self, comparison: Form) -> _Conjunction:
        literals = self[comparison] = self._compute(comparison)
        return literals


class _Document:
    """The commands executed so far, with the assertions in disjunctive normal form."""

    def __init__(self) -> None:
        self._version = ""
        self._started = False
        self._declarations = Declarations()
        self._bounds: list[Bound] = []
        self._halfspaces: list[Halfspace] = []
        self._literals = _LiteralCache(self._compare)
        # The assertions are the conjunction of ``_common`` and of one conjunction from each choice.
        self._common: _Conjunction = []
        self._choices: list[_Disjunction] = []

    def execute(self, command: Node) -> None:
        """Process one top-level command; raises Fault."""
        keyword, operands = head(command)
        if keyword == "assert":
            self._assert(operands, command)
        elif keyword == "declare-const" and not self._version:
            self._declarations.declare_scalar(operands, command)
        elif keyword == "declare-network" and self._version:
            self._declarations.declare_network(operands, command)
        elif keyword == "vnnlib-version" and not self._started:
            self._declare_version(operands, command)
        else:
            raise Fault(*_misplaced(keyword, command))
        self._started = True

    def _declare_version(self, operands: Sequence[Form], where: Form) -> None:
        version = str(operands[0]) if len(operands) == 1 else ""
        if not re.fullmatch("<2[.][0-9]+>", version):
            message = "only (vnnlib-version <2.0>) and files without a version, 1.0, are supported"
            raise Fault(message, where, UnsupportedError)
        self._version = version

    def _assert(self, operands: Sequence[Form], where: Form) -> None:
        if len(operands) != 1:
            raise Fault(f"assert takes one formula, not {len(operands)}; combine them by (and ...)", where)
        disjunction = self._formula(operands[0], where)
        if len(disjunction) == 1:
            self._common += disjunction[0]
        else:
            self._choices.append(disjunction)

    def _formula(self, form: Form, where: Form) -> _Disjunction:
        """The disjunctive normal form of ``form``; ``where`` is what encloses it."""
        if is_word(form):
            raise Fault(f"found {quote(form)} where a comparison, 'and' or 'or' was expected", where)
        if isinstance(form, str):
            return [self._literals[form]]
        keyword, operands = head(form)
        if keyword not in ("and", "or") or not operands:
            return [self._compare(form)]
        if keyword == "and" and set(map(type, operands)) == {str}:
            return [list(chain.from_iterable(map(self._literals.__getitem__, operands)))]
        disjunctions = [self._formula(operand, form) for operand in operands]
        return _conjoin(disjunctions, form) if keyword == "and" else list(chain.from_iterable(disjunctions))

    def _compare(self, comparison: Form) -> _Conjunction:
        operator, operands = head(comparison)
        if operator not in _COMPARISONS or len(operands) != 2:
            message = f"{quote(comparison)} is not a comparison; write (<= TERM TERM) or with >=, <, >, ="
            raise Fault(message, comparison, UnsupportedError if operator == "!=" else InputError)
        left, right = operands
        signs = _COMPARISONS[operator]
        bound = self._plain_bound(left, right, comparison) if len(signs) == 1 else None
        if bound is not None:
            return [self._bound_literal(bound[0], signs[0] > 0, bound[1])]
        terms = [self._declarations.term(operand, comparison) for operand in operands]
        difference = total((terms[0], terms[1].scaled(-1)))
        return [self._literal(difference.scaled(sign), comparison) for sign in signs]

    def _plain_bound(self, left: Form, right: Form, where: Form) -> tuple[int, Fraction] | None:
        """Index and limit if an input is compared with a number, which most comparisons do."""
        if not (is_word(left) and is_word(right)):
            return None
        place = self._declarations.place(left, where)
        limit = None if place is None or place.is_output else number(right, where)
        return None if place is None or limit is None else (place.element, limit)

    def _bound_literal(self, variable: int, is_upper: bool, limit: Fraction) -> int:
        self._bounds.append(Bound(variable, is_upper, limit))
        return len(self._bounds) - 1

    def _literal(self, linear: Linear, where: Form) -> int:
        """The literal that says ``linear <= 0``."""
        check_range((*linear.inputs.values(), *linear.outputs.values(), linear.constant), where)
        if linear.is_constant():
            raise Fault("a comparison without variables; remove it", where)
        if not linear.inputs:
            self._halfspaces.append(Halfspace(linear.outputs, linear.constant))
            return -len(self._halfspaces)
        if linear.outputs or len(linear.inputs) > 1:
            what = "both inputs and outputs" if linear.outputs else "several inputs"
            message = f"a constraint on {what} is not supported; bound each input by constants"
            raise Fault(message, where, UnsupportedError)
        ((variable, factor),) = linear.inputs.items()
        limit = -linear.constant / factor
        check_range((limit,), where)
        return self._bound_literal(variable, factor > 0, limit)

    def specification(self) -> Specification:
        """What the commands amount to; raises Fault if anything is missing or contradictory."""
        input_name, input_shape, inputs = self._declarations.side(is_output=False)
        output_name, output_shape, outputs = self._declarations.side(is_output=True)
        if not self._halfspaces:
            raise Fault("no assertion constrains an output; say which outputs are unsafe")
        conjunctions = [self._common, *_conjoin(self._choices)]
        boxes, box_of = _boxes(self._bounds, conjunctions, inputs)
        _check_boxes(boxes, box_of, lambda i: element_name(input_name, input_shape, i))
        return Specification(
            inputs=inputs,
            outputs=outputs,
            cases=tuple(self._cases(conjunctions, boxes, box_of)),
            input_name=input_name,
            output_name=output_name,
            input_shape=input_shape,
            output_shape=output_shape,
            network=self._declarations.network,
        )

    def _cases(self, conjunctions: _Disjunction, boxes: Boxes, box_of: list[int]) -> Iterable[Case]:
        common, *own = (
            tuple(self._halfspaces[-1 - literal] for literal in conjunction if literal < 0)
            for conjunction in conjunctions
        )
        lower, upper = list(boxes.lower), list(boxes.upper)
        for box, halfspaces in zip(box_of[1:], own, strict=True):
            if box not in boxes.conflicts:
                yield Case(lower[box], upper[box], common + halfspaces)


def _misplaced(keyword: str, command: Node) -> tuple[str, Node, type[InputError]]:
    """The arguments of the Fault for a command that cannot be executed at this place."""
    places = {
        "declare-const": "belongs to VNN-LIB 1.0; use declare-network, or remove the version",
        "declare-network": "belongs to VNN-LIB 2.0; start the file with (vnnlib-version <2.0>)",
        "vnnlib-version": "must be the first command and the only one of its kind",
    }
    if keyword in places:
        return f"{keyword} {places[keyword]}", command, InputError
    return f"{quote(command)} is not a supported command; remove it", command, UnsupportedError


def _conjoin(disjunctions: Sequence[_Disjunction], where: Form | None = None) -> _Disjunction:
    """The disjunctive normal form of a conjunction."""
    size = math.prod(map(len, disjunctions))
    literals = sum(size // len(part) * sum(map(len, part)) for part in disjunctions)
    if size > _MAX_CASES or literals > _MAX_LITERALS:
        message = f"the disjunctive normal form has {size} cases with {literals} comparisons in all; at most"
        limits = f"{_MAX_CASES} with {_MAX_LITERALS} are supported; split the specification"
        raise Fault(f"{message} {limits}", where, UnsupportedError)
    return [list(chain.from_iterable(choice)) for choice in product(*disjunctions)]


def _boxes(bounds: Sequence[Bound], conjunctions: _Disjunction, inputs: int) -> tuple[Boxes, list[int]]:
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


def _check_boxes(boxes: Boxes, box_of: Sequence[int], name: Callable[[int], str]) -> None:
    """Raise Fault if the union of the boxes is empty or a non-empty box is unbounded."""
    used = {box for box in box_of[1:] if box not in boxes.conflicts}
    if 0 in boxes.conflicts or not used:
        conflict = boxes.conflicts.get(0) or boxes.conflicts[box_of[1]]
        raise Fault(f"empty input region: {_describe(conflict, name)}; correct the bounds")
    unbounded = np.isinf(boxes.lower) | np.isinf(boxes.upper)
    for box in np.flatnonzero(unbounded.any(axis=1)).tolist():
        if box in used:
            variable = int(unbounded[box].argmax())
            side = "lower" if np.isinf(boxes.lower[box, variable]) else "upper"
            raise Fault(f"{name(variable)} has no {side} bound; bound every input on both sides")


def _describe(conflict: Conflict, name: Callable[[int], str]) -> str:
    lower, upper = (
        str(value) if Fraction(text := repr(float(value))) != value else text
        for value in (conflict.lower, conflict.upper)
    )
    return f"{name(conflict.variable)} has lower bound {lower} > upper bound {upper}"
