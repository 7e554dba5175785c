"""Crafted mutations of certificates: what a forger, or a mistake in the writer, might change.

Every edit is tried on every certificate that has such a part, on all such parts at once. What comes of it must be
"malformed", "rejected" (which may also be malformed), or "true": whatever is accepted is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
from tests.certificate.corpus import i4
from tests.certificate.edits import MALFORMED, TRUE, Edit
from tests.certificate.proofs import plain

from krelax.certificate.format.schema import (
    Boxes,
    Certificate,
    Choices,
    Forms,
    GroupSet,
    Layer,
    Lemma,
    Question,
    Refutation,
    Region,
    Shares,
    Step,
)


class Mutation(NamedTuple):
    """A certificate with a change, and what must come of it."""

    name: str
    expected: str
    made: Certificate


class Change(NamedTuple):
    """An edit of whole parts of one kind, those that it applies to."""

    expected: str
    kind: type
    edit: Edit
    applies: Callable[[Any], Any] = lambda part: True


def put(**values: Any) -> Edit:
    """Set fields, to values or to what functions make of the part."""

    def edit(part: Any) -> None:
        for name, value in values.items():
            setattr(part, name, value(part) if callable(value) else value)

    return edit


def mirrored(tree: Any) -> Any:
    """The sides of every split exchanged, but not what was chosen for them."""

    def subtree(place: int) -> tuple[list[int], int]:
        if tree[place] == -2:
            inner, behind = subtree(place + 1)
            return [-2, *inner], behind
        if tree[place] < 0:
            return [-1], place + 1
        first, behind = subtree(place + 1)
        second, behind = subtree(behind)
        return [int(tree[place]), *second, *first], behind

    result: list[int] = []
    place = 0
    while place < len(tree):
        one, place = subtree(place)
        result += one
    return i4(*result)


def _of_neighbours(tree: Any) -> Any:
    return np.where(tree > 0, tree - 1, np.where(tree == 0, 1, tree)).astype(np.int32)


def _all_bases(shares: Shares) -> Any:
    groups, k = shares.coeff.shape[1:]
    return np.ones((len(shares.coeff), groups, 2**k, k + 1), np.uint8)


def _sums(claim: Lemma) -> Forms:
    """Forms of two entries each."""
    assert claim.forms is not None
    count = int(claim.forms.form.max()) + 1
    form, entry = np.repeat(np.arange(count), 2), np.tile([0, 1], count)
    return Forms(form.astype(np.int32), entry.astype(np.int32), np.ones(2 * count))


def _of_other_layers(case: Refutation) -> None:
    """Every step about the layer of the next one."""
    numbers = [step.activation for step in case.steps]
    for step, number in zip(case.steps, [*numbers[1:], numbers[0]], strict=True):
        step.activation = number


def _of_the_last(tree: Any) -> Any:
    """Splits of later neurons: of one behind the layer that a step is about, of the margin's, or of none."""
    return np.where(tree >= 0, tree + 6, tree).astype(np.int32)


def _exchanged(shares: Shares) -> None:
    shares.coeff, shares.slope = shares.slope, shares.coeff
    shares.share, shares.tilt = shares.tilt, shares.share


def _zeros(shares: Shares) -> Any:
    return np.zeros(shares.coeff.shape, np.int16)


def _outright(shares: Shares) -> bool:
    return shares.coeff is not None


def _claims(question: Question) -> list[Lemma]:
    return [claim for layer in question.layers for claim in layer.claims]


def _of_the_next_layer(question: Question) -> None:
    claims = [layer.claims for layer in question.layers]
    for layer, own in zip(question.layers, [*claims[1:], claims[0]], strict=True):
        layer.claims = own


def _crossing_itself(question: Question) -> None:
    """Claims about a pre-activation that cross the activation behind it."""
    for j, layer in enumerate(question.layers):
        for claim in layer.claims:
            claim.crossings = [*claim.crossings, Choices(j)]


def _by_own_groups(question: Question) -> None:
    """The bounds of groups rest on the groups."""
    for j, layer in enumerate(question.layers):
        for claim in layer.claims if layer.groups else []:
            nothing = np.zeros((int((claim.tree < 0).sum()), *layer.groups[0].members.shape), np.float32)
            claim.crossings = [*claim.crossings, Choices(j, groups=[Shares(0, nothing, nothing)])]


def _many_cuts(question: Question) -> Boxes:
    return Boxes(i4(*[0] * 200, *[-1] * 201), np.append(np.full(200, 0.125), np.zeros(201)))


def _one_sided(weights: Any) -> Any:
    """All weight on the first of two members, then on the second."""
    found = weights.copy()
    found[::2, :2], found[1::2, :2] = (16384, 0), (0, 16384)
    return found


def _negative(weights: Any) -> Any:
    """A clause's weights that add up, but one is negative."""
    found = weights.copy()
    found[:, :2] = 16385, -1
    return found


def _has_weights(boxes: Boxes) -> bool:
    return boxes.weights is not None


_ONE_BOX = put(boxes=lambda q: Boxes(i4(-1), np.zeros(1)))
_TABLES = ("slopes", "lines", "absolute")

CHANGES: dict[str, Change] = {
    "sides of splits exchanged": Change("true", Lemma, put(tree=lambda c: mirrored(c.tree))),
    "splits of other neurons": Change("true", Lemma, put(tree=lambda c: _of_neighbours(c.tree))),
    "no choices": Change("true", Lemma, put(crossings=lambda c: []), lambda c: c.crossings),
    "a crossing twice": Change("malformed", Lemma, lambda c: c.crossings.append(c.crossings[0]), lambda c: c.crossings),
    "crossings reversed": Change("malformed", Lemma, lambda c: c.crossings.reverse(), lambda c: len(c.crossings) > 1),
    "rows without tables": Change("malformed", Choices, put(**dict.fromkeys(_TABLES)), lambda c: c.row is not None),
    "upper lines without owners": Change("malformed", Choices, put(owner=None), lambda c: c.owner is not None),
    "owners without upper lines": Change("malformed", Choices, put(upper=None), lambda c: c.upper is not None),
    "upper lines alone": Change("malformed", Choices, put(slopes=None), lambda c: c.upper is not None),
    "tables without rows": Change("malformed", Choices, put(row=None), lambda c: c.row is not None),
    "no lines": Change("malformed", Layer, put(lines=None), lambda l: l.lines),
    "lines of a margin": Change("malformed", Layer, lambda l: put(forms=None)(l.lines), lambda l: l.lines),
    "lines with a level": Change("malformed", Layer, lambda l: put(level=1.0)(l.lines), lambda l: l.lines),
    "lines of sums": Change("malformed", Layer, lambda l: put(forms=_sums(l.lines))(l.lines), lambda l: l.lines),
    "lines as claims": Change("true", Layer, put(claims=lambda l: [*l.claims, l.lines]), lambda l: l.lines),
    "lines of a ball": Change(
        "malformed",
        Question,
        lambda q: put(kind="l2", centre=q.region.lower, eps=0.5)(q.region),
        lambda q: any(l.lines for l in q.layers) and q.region.kind == "box",
    ),
    "clips without a level": Change("malformed", Lemma, put(level=None), lambda c: (c.tree == -2).any()),
    "clips at level zero": Change("malformed", Lemma, put(level=0.0), lambda c: (c.tree == -2).any()),
    "clips at a level below": Change("malformed", Lemma, put(level=-1.0), lambda c: (c.tree == -2).any()),
    "a clip of nothing": Change(
        "malformed", Lemma, put(tree=lambda c: np.append(c.tree, i4(-2))), lambda c: c.level is not None
    ),
    "a clip instead of a leaf": Change(
        "malformed", Lemma, put(tree=lambda c: np.append(c.tree[:-1], i4(-2))), lambda c: c.level is not None
    ),
    "clips in claims of layers": Change(
        "malformed", Layer, lambda l: put(tree=i4(-2, *l.claims[0].tree), level=1.0)(l.claims[0]), lambda l: l.claims
    ),
    "multipliers without lines": Change(
        "malformed",
        Lemma,
        lambda c: c.crossings.insert(0, Choices(0, clips=np.ones((2, 4), np.uint8))),
        lambda c: c.level is not None,
    ),
    "steps about other layers": Change("true", Refutation, _of_other_layers, lambda c: len(c.steps) > 1),
    "steps without forms": Change("malformed", Step, lambda s: put(forms=None)(s.claim)),
    "a claim of the margin with forms": Change(
        "rejected", Refutation, lambda c: put(forms=c.steps[0].claim.forms)(c.claim), lambda c: c.claim and c.steps
    ),
    "a claim of a step for the margin": Change(
        "rejected", Refutation, put(claim=lambda c: c.steps[0].claim), lambda c: c.steps
    ),
    "the case twice": Change("true", Question, put(cases=lambda q: q.cases * 2), lambda q: q.cases),
    "no cases": Change("rejected", Question, put(cases=None), lambda q: q.cases),
    "an empty case": Change("rejected", Question, put(cases=lambda q: [Refutation(0, 1.0)]), lambda q: q.cases),
    "splits of later neurons": Change("true", Step, lambda s: put(tree=_of_the_last(s.claim.tree))(s.claim)),
    "coefficients and slopes exchanged": Change("true", Shares, _exchanged),
    "no bases": Change("true", Shares, put(basis=None), lambda s: s.basis is not None),
    "bases of the second row": Change("true", Shares, put(basis=_all_bases), _outright),
    "shares of both kinds": Change("malformed", Shares, put(share=_zeros, tilt=_zeros), _outright),
    "shares of neither kind": Change("malformed", Shares, put(coeff=None, slope=None), _outright),
    "base interval": Change("true", Layer, put(base="interval")),
    "base adaptive": Change("true", Layer, put(base="adaptive")),
    "base parallel": Change("true", Layer, put(base="parallel")),
    "no claims": Change("true", Layer, put(claims=lambda l: []), lambda l: l.claims),
    "claims twice": Change("true", Layer, put(claims=lambda l: l.claims * 2), lambda l: l.claims),
    "claims without forms": Change("malformed", Layer, lambda l: put(forms=None)(l.claims[0]), lambda l: l.claims),
    "no groups": Change("true", Layer, put(groups=lambda l: []), lambda l: l.groups),
    "groups twice": Change("true", Layer, put(groups=lambda l: l.groups * 2), lambda l: l.groups),
    "groups without rows": Change("true", GroupSet, put(rows=lambda s: s.rows[:0])),
    "claims of the next layer": Change(
        "true", Question, _of_the_next_layer, lambda q: len(q.layers) > 1 and _claims(q)
    ),
    "claims that rest on themselves": Change("malformed", Question, _crossing_itself, _claims),
    "groups that rest on themselves": Change(
        "malformed", Question, _by_own_groups, lambda q: any(l.groups and l.claims for l in q.layers)
    ),
    "forms of margins": Change(
        "malformed", Lemma, put(forms=lambda c: Forms(i4(0), i4(0), np.ones(1))), lambda c: c.forms is None
    ),
    "no claim of margins": Change("malformed", Question, put(margins=None), lambda q: q.margins),
    "margins without choices": Change("true", Question, put(margins=lambda q: plain(len(q.rows))), lambda q: q.margins),
    "another claim for the margins": Change("malformed", Question, put(margins=lambda q: _claims(q)[0]), _claims),
    "layers reversed": Change("true", Question, lambda q: q.layers.reverse(), lambda q: len(q.layers) > 1),
    "layers without anything": Change("true", Question, put(layers=lambda q: [Layer("interval") for _ in q.layers])),
    "joint": Change("true", Question, put(joint=i4(0)), lambda q: q.joint is None and q.layers),
    "not joint": Change("malformed", Question, put(joint=None), lambda q: q.joint is not None),
    "joint clauses that do not exist": Change("malformed", Question, put(joint=lambda q: i4(int(q.clause.max()) + 1))),
    "joint clauses twice": Change("malformed", Question, put(joint=i4(0, 0))),
    "no joint clauses": Change("malformed", Question, put(joint=i4())),
    "joint boxes": Change("malformed", Question, put(joint=i4(0)), lambda q: q.boxes),
    "other weights": Change("true", Boxes, put(weights=lambda b: _one_sided(b.weights)), _has_weights),
    "no weights": Change("true", Boxes, put(weights=None), _has_weights),
    "more weight": Change("malformed", Boxes, put(weights=lambda b: b.weights + np.int16(1)), _has_weights),
    "negative weights": Change("malformed", Boxes, put(weights=lambda b: _negative(b.weights)), _has_weights),
    "weights of fewer leaves": Change("malformed", Boxes, put(weights=lambda b: b.weights[:-1]), _has_weights),
    "weights of fewer margins": Change("malformed", Boxes, put(weights=lambda b: b.weights[:, :-1]), _has_weights),
    "boxes, too": Change("malformed", Question, _ONE_BOX, lambda q: q.margins),
    "layers, too": Change("malformed", Question, put(layers=lambda q: [Layer("interval")]), lambda q: q.boxes),
    "one box": Change("true", Question, _ONE_BOX, lambda q: q.boxes),
    "many cuts at one place": Change("true", Question, put(boxes=_many_cuts), lambda q: q.boxes),
    "sides of cuts exchanged": Change("true", Boxes, put(cut=lambda b: mirrored(b.cut))),
    "no margins": Change(
        "malformed", Question, lambda q: put(rows=q.rows[:0], offsets=q.offsets[:0], clause=q.clause[:0])(q)
    ),
    "a ball as large as can be": Change("true", Region, put(eps=1e308), lambda r: r.eps),
    "a ball of one point": Change("true", Region, put(eps=0.0), lambda r: r.eps),
    "the other ball": Change("true", Region, put(kind=lambda r: {"l1": "l2", "l2": "l1"}[r.kind]), lambda r: r.eps),
    "a ball without a centre": Change("malformed", Region, put(kind="l1"), lambda r: r.kind == "box"),
    "no questions": Change("malformed", Certificate, put(questions=lambda c: [])),
    "every question twice": Change("true", Certificate, put(questions=lambda c: c.questions * 2)),
    "another network": Change("rejected", Certificate, put(network="0" * 64)),
    "no network": Change("rejected", Certificate, put(network="")),
    "a network in capitals": Change("rejected", Certificate, put(network=lambda c: c.network.upper())),
    "a network with more behind": Change("rejected", Certificate, put(network=lambda c: c.network + "\n")),
    "the other semantics": Change(
        "true", Certificate, put(semantics=lambda c: {"real": "float32", "float32": "real"}[c.semantics])
    ),
    "another tool": Change("true", Certificate, put(tool="\x00\u2028 bound: 1e9")),
}


def objects(value: Any) -> Iterator[Any]:
    """All dataclass instances in a certificate."""
    yield value
    for f in fields(value):
        item = getattr(value, f.name)
        for inner in item if isinstance(item, list) else [item]:
            if is_dataclass(inner):
                yield from objects(inner)


def mutations(made: Certificate, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Mutation]:
    """All crafted mutations of a certificate that change it, of those whose name is wanted."""
    for expected, table in (("true", TRUE), ("malformed", MALFORMED)):
        for (kind, field), edits in table.items():
            for name, edit in edits.items():
                if not wanted(f"{field}: {name}"):
                    continue
                changed = deepcopy(made)
                edited = [_edit_field(o, field, edit) for o in list(objects(changed)) if type(o) is kind]
                if any(edited):
                    yield Mutation(f"{field}: {name}", expected, changed)
    for name, change in CHANGES.items():
        if not wanted(name):
            continue
        changed = deepcopy(made)
        parts = [o for o in objects(changed) if type(o) is change.kind and change.applies(o)]
        for part in parts:
            change.edit(part)
        if parts:
            yield Mutation(name, change.expected, changed)


def _edit_field(owner: Any, field: str, edit: Edit) -> bool:
    """Edit a field, if there is anything in it; whether that changes it."""
    value = getattr(owner, field)
    if value is None or (isinstance(value, np.ndarray) and not value.size):
        return False
    new = edit(value)
    if isinstance(value, np.ndarray) and new is not None:
        new = np.ascontiguousarray(new, dtype=value.dtype)
    setattr(owner, field, new)
    if isinstance(new, np.ndarray):
        return bool(new.shape != value.shape or new.tobytes() != value.tobytes())
    return new is not value
