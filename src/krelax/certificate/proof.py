"""The proof of one question: bounds of every node, layer by layer, then the margins."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.activations import KINDS, Ends
from krelax.certificate.arithmetic import Arithmetic, Array, Floats, Rows
from krelax.certificate.boxes import Box, halves, leaves_of
from krelax.certificate.claims import Leaves, check_crossings, check_forms, choose, grow
from krelax.certificate.clips import Lines, Narrowed, Scaled
from krelax.certificate.crossing import Choice, Part, cross
from krelax.certificate.format import Boxes, Case, Claim, Crossing, Forms, Layer, Malformed, Question, Shares, Step
from krelax.certificate.groups import Groups, key, polytopes
from krelax.certificate.kernel import Bounds, Contradiction, Crossed, Rejected
from krelax.certificate.maxima import with_assumed, with_maxima
from krelax.certificate.network import Network
from krelax.certificate.region import Region

_RULES = ("adaptive", "parallel")
# Boxes that are cut although the certificate does not.
_MOST_CUTS = 1000
# Of clips at one activation.
_MOST_MULTIPLIERS = 1 << 26


@dataclass
class _ByRule:
    """Every activation crossed by a rule; `which` are the regions of the forms."""

    proof: Proof
    rule: str
    which: Rows

    def __call__(self, j: int, coeff: Array | None) -> Crossed | None:
        if coeff is None:
            return None
        return cross(self.proof.bounds, j, coeff, self.proof.ends(j), Choice(self.rule), self.which)


@dataclass
class _ByClaim:
    """Every activation crossed as a claim chooses for some of its leaves, of which those are `empty` whose splits
    contradict what is known."""

    proof: Proof
    leaves: Leaves
    batch: NDArray[np.int64]
    crossings: dict[int, Crossing]
    narrowed: Narrowed | None
    empty: NDArray[np.bool_]

    def __call__(self, j: int, coeff: Array | None) -> Crossed | None:
        proof, network, rows = self.proof, self.proof.network, len(self.batch)
        splits = self.leaves.splits(self.batch, network.offsets[j], network.offsets[j + 1])
        if coeff is None:
            if not len(splits.leaf):
                return None
            coeff = proof.ar.number(np.zeros((rows, network.activation(j).size)))
        ends, crossing = proof.ends(j), self.crossings.get(j)
        if self.narrowed is not None:
            ends = self.narrowed.ends(j, ends, self.batch)
        choice = choose(crossing, self.batch, network, j)
        if len(splits.leaf):
            ends, choice.tables["lowered"] = splits.cut(ends, rows), splits.lowered(rows)
            choice.tables["own"] = splits.own(rows, network.activation(j).negative_slope)
            self.empty |= (ends[0] > ends[1]).any(1)
        if crossing is not None:
            choice.parts = [self._part(j, shares) for shares in crossing.groups]
        return cross(proof.bounds, j, coeff, ends, choice, slice(None))

    def _part(self, j: int, shares: Shares) -> Part:
        here = self.batch
        stored = shares.coeff[here], shares.slope[here]
        coeff, slope = (self.proof.ar.number(x.astype(np.float64)) for x in stored)
        basis = None if shares.basis is None else shares.basis[here]
        active = ((stored[0] != 0) | (stored[1] != 0)).any((1, 2))
        return Part(self.proof.groups[j][shares.set], coeff, slope, basis, active)


class Proof:
    """The proof of one question. `errors`, `(margins, outputs + 1)`, bound how far its rows and offsets are from what
    is meant. Raises Malformed and Rejected."""

    def __init__(
        self, network: Network, question: Question, ar: Arithmetic, float32: bool, errors: Floats | None = None
    ) -> None:
        self.ar, self._float32, self._errors = ar, float32, errors
        self._assumed: int | None = None  # a neuron behind the outputs, inactive in every leaf
        self.groups: list[list[Groups]] = []
        self._lines: dict[int, Lines] = {}
        region = Region.of(question.region, network.size(0))
        if question.rows.shape[1] != network.size(len(network.nodes) - 1) or not len(question.rows):
            raise Malformed("margins that do not fit the outputs")
        clauses = np.unique(question.clause)
        if not np.array_equal(clauses, np.arange(len(clauses))):
            raise Malformed("clauses that are not numbered from 0")
        self._outputs, self._clause = len(network.nodes) - 1, question.clause
        if question.maxima:
            network, question = with_maxima(network, question, ar)
        self.network, self.question = network, question
        self._activations = [network.activation(j) for j in range(len(network.activations))]
        self.bounds = Bounds(network, region, ar, float32)

    def margin(self) -> float:
        """What is proven of the weakest clause."""
        question, claim = self.question, self.question.margins
        if question.boxes is not None:
            other = question.layers or claim is not None or question.maxima or question.cases
            if other or self.bounds.region.kind != "box":
                raise Malformed("boxes with another proof, or of a region that is no box")
            return self._over_boxes(question.boxes)
        if claim is None or claim.forms is not None or len(question.layers) != len(self._activations):
            raise Malformed("a layer for each activation, and a claim of margins without forms, are needed")
        self._derive(question.layers)
        values = self._claim(claim, len(self._activations))
        for case in question.cases or ():
            if not 0 <= case.margin < len(values):
                raise Malformed("a case of a margin that does not exist")
            values[case.margin] = np.maximum(values[case.margin], self._by_contradiction(case))
        return float(self._weakest(values[None])[0])

    def _by_contradiction(self, case: Case) -> float:
        """What a case proves of its margin."""
        count = len(self._activations)
        if not case.level > 0 or any(not 0 <= s.activation < count for s in (*case.steps, *(case.lines or ()))):
            raise Malformed("a case at a level that is not positive, or about an activation that does not exist")
        here = self._assuming(case)
        try:
            for step in case.steps:
                here._narrow(step)
        except Contradiction:
            return case.level
        if case.claim is None or case.claim.forms is not None:
            raise Rejected("a case without a claim of its margin, whose bounds do not contradict each other")
        here.network, here._activations, here._assumed = self.network, self._activations, None
        here.bounds = here.bounds.of(self.network)
        here._lines = {step.activation: here._straight(step.claim, step.activation) for step in case.lines or ()}
        return float(np.minimum(here._claim(case.claim, count)[0], case.level))  # which NaN passes

    def _assuming(self, case: Case) -> Proof:
        """The same with a neuron that is inactive where the margin of a case is at most its level."""
        here, question = copy(self), self.question
        here.network = with_assumed(self.network, question, case, self.ar)
        here._activations = [*self._activations, here.network.activation(len(self._activations))]
        here._assumed = int(here.network.offsets[-2])
        here.bounds = self.bounds.of(here.network)
        here.groups, here._lines = [[]] * len(here._activations), {}
        only, layers = slice(case.margin, case.margin + 1), [Layer("interval")] * len(here._activations)
        rows, offsets, clause = question.rows[only], question.offsets[only], np.zeros(1, np.int32)
        here.question = replace(question, rows=rows, offsets=offsets, clause=clause, layers=layers)
        return here

    def _narrow(self, step: Step) -> None:
        """Better bounds of a pre-activation, and of all that comes after it."""
        z = self.network.before(step.activation)
        self._learn(z, step.claim, self._claim(step.claim, step.activation), {})
        for i in range(z + 1, len(self.network.nodes)):
            self.bounds.renew(i)

    def ends(self, j: int) -> Ends:
        """Bounds of activation j's pre-activation."""
        z = self.network.before(j)
        return self.bounds.lower[z], self.bounds.upper[z]

    def _weakest(self, values: Floats) -> Floats:
        """For each region the smallest over all clauses of their largest margins, `(regions, margins)`."""
        if self._errors is not None:
            outputs = np.append(self.bounds.largest(self._outputs), np.ones((len(values), 1)), 1)
            errors = outputs @ self._errors.T
            if self.question.maxima:
                errors = _by_clause(errors, self._clause)
            values = np.nextafter(values - errors * (1 + 2.0**-30), -np.inf)
        return _by_clause(values, self.question.clause).min(1)

    def _derive(self, layers: Sequence[Layer]) -> None:
        """Bounds of all nodes."""
        number = {i: j for j, i in enumerate(self.network.activations)}
        for i in range(1, len(self.network.nodes)):
            if i in number:
                self._layer(number[i], layers[number[i]])
            self.bounds.advance()

    def _layer(self, j: int, layer: Layer) -> None:
        z, node, forms = self.network.before(j), self._activations[j], dict[Any, float]()
        if layer.base != "interval":
            self._base(j, layer.base)
        for claim in layer.claims:
            self._learn(z, claim, self._claim(claim, j), forms)
        if layer.groups and node.kind != "relu":
            raise Malformed(f"groups of an activation of kind {node.kind}")
        if layer.lines is not None:
            self._lines[j] = self._straight(layer.lines, j)
        ends = (self.bounds.lower[z][0], self.bounds.upper[z][0])
        self.groups.append([polytopes(s, forms, ends, node.negative_slope) for s in layer.groups])

    def _base(self, j: int, rule: str) -> None:
        """One pass for all undecided entries of a pre-activation, by a rule."""
        z, node = self.network.before(j), self._activations[j]
        undecided = np.nonzero(KINDS[node.kind].undecided(node, self.ends(j)))
        self.bounds.tighten(z, *self._sides(z, undecided, rule))

    def _sides(self, z: int, entries: tuple[NDArray[np.int64], ...], rule: str) -> Ends:
        """Bounds of some entries, `(regions, entries)`, of a pre-activation by a rule; infinite for the others."""
        shape = self.bounds.lower[z].shape
        found = (np.full(shape, -np.inf), np.full(shape, np.inf))
        for batch in self._batches(len(entries[0])):
            which, places = (x[batch.start : batch.stop] for x in entries)
            for sign, side in zip((1.0, -1.0), found, strict=True):
                form = np.zeros((len(batch), shape[1]))
                form[np.arange(len(batch)), places] = sign
                side[which, places] = sign * self._bound(z, form, np.zeros(len(batch)), rule, which)
        return found

    def _bound(self, node: int, form: Floats, constant: Floats, rule: str, which: NDArray[np.int64]) -> Floats:
        """Lower bounds of forms of a node by a rule, each over the region named."""
        rows: Rows = slice(None) if len(self.bounds.lower[0]) == 1 else which
        numbers = self.ar.number(form), self.ar.number(constant)
        return self.bounds.minimise({node: numbers[0]}, numbers[1], _ByRule(self, rule, rows), rows)

    @cached_property
    def _portion(self) -> int:
        """How many rows fit the memory: each has a number for every entry of a node, and for every row of a group."""
        sizes = [self.network.size(i) for i in range(len(self.network.nodes))]
        sets = [s for layer in self.question.layers for s in layer.groups]
        return max(1, self.ar.entries // max([*sizes, *(len(s.members) * (len(s.rows) + 1) for s in sets)]))

    def _batches(self, rows: int) -> list[range]:
        return [range(i, min(i + self._portion, rows)) for i in range(0, rows, self._portion)]

    def _claim(self, claim: Claim, before: int) -> Floats:
        """The bounds of a claim's forms, `(forms,)`: over an activation's pre-activation, or margins after the last."""
        margins = before == len(self._activations)
        node = len(self.network.nodes) - 1 if margins else self.network.before(before)
        count = len(self.question.rows) if margins else check_forms(claim.forms, self.network.size(node))
        reach = before if self._assumed is None else len(self._activations)
        relu = [np.full(self.network.size(a.inputs[0]), a.kind == "relu") for a in self._activations[:reach]]
        leaves = grow(claim, count, np.concatenate([np.zeros(0, bool), *relu]), self._assumed)
        check_crossings(claim, len(leaves), self.network, [layer.groups for layer in self.question.layers[:reach]])
        crossings, values = {c.activation: c for c in claim.crossings}, np.empty(len(leaves))
        narrowed = self._narrowed(claim, leaves, crossings) if len(leaves.clips) else None
        for wave in leaves.waves():
            for part in self._batches(len(wave)):
                batch = wave[part.start : part.stop]
                step = _ByClaim(self, leaves, batch, crossings, narrowed, np.zeros(len(batch), bool))
                coeff, rest = self._over_inputs(claim, node, step)
                values[batch] = np.where(step.empty, np.inf, self.bounds.least(coeff, rest))
                if narrowed is not None:
                    narrowed.clip(self.ar, self.bounds.region, batch, coeff, rest)
        if narrowed is not None:
            values = narrowed.counted(values)
        result = np.full(count, np.inf)
        np.minimum.at(result, leaves.form, values)
        return result

    def _over_inputs(self, claim: Claim, node: int, step: _ByClaim) -> tuple[Array | None, Array]:
        """The affine bounds that some leaves of a claim about a node choose."""
        form, constant = self._forms(claim.forms, step.leaves.form[step.batch], self.network.size(node))
        return self.bounds.over_inputs({node: form}, constant, step)

    def _narrowed(self, claim: Claim, leaves: Leaves, crossings: dict[int, Crossing]) -> Narrowed:
        """Where the clips of a claim of margins keep what they narrow."""
        if claim.forms is not None or claim.level is None or claim.level <= 0:
            raise Malformed("clips of forms that are no margins, or at a level that is not positive")
        multipliers = {j: c.clips for j, c in crossings.items() if c.clips is not None}
        if any(j not in self._lines or len(self._lines[j].entry) != x.shape[1] for j, x in multipliers.items()):
            raise Malformed("multipliers of lines that do not exist")
        if any(len(x) != len(leaves.clips) or x.size > _MOST_MULTIPLIERS for x in multipliers.values()):
            raise Malformed("multipliers for more or fewer clips than there are, or too many")
        lines = {j: self._lines[j] for j in multipliers}
        return Narrowed(leaves, claim.level, {j: self.ends(j) for j in lines}, lines, multipliers)

    def _straight(self, claim: Claim, j: int) -> Lines:
        """The affine bounds of a layer's lines."""
        node = self.network.before(j)
        count, forms = check_forms(claim.forms, self.network.size(node)), claim.forms
        assert forms is not None
        single = len(forms.entry) == count and (abs(forms.coefficient) == 1).all() and claim.level is None
        if self.bounds.region.kind != "box" or not single:
            raise Malformed("lines over a region that is no box, or that are not about single entries")
        leaves = grow(claim, count, np.zeros(0, bool))
        check_crossings(claim, count, self.network, [layer.groups for layer in self.question.layers[:j]])
        crossings, inputs = {c.activation: c for c in claim.crossings}, self.network.size(0)
        coeffs, constants = [], []
        for part in self._batches(count):
            batch = np.arange(part.start, part.stop)
            step = _ByClaim(self, leaves, batch, crossings, None, np.zeros(len(batch), bool))
            coeff, constant = self._over_inputs(claim, node, step)
            coeffs.append(self.ar.number(np.zeros((len(batch), inputs))) if coeff is None else coeff)
            constants.append(constant)
        entry = forms.entry.astype(np.int64)
        bounds = Scaled.of(self.ar, self.bounds.region, self.ar.join(coeffs), self.ar.join(constants))
        return Lines(entry, forms.coefficient, bounds)

    def _forms(self, forms: Forms | None, which: NDArray[np.int64], size: int) -> tuple[Array, Array]:
        """Coefficients `(rows, size)` and constants of forms with the numbers `which`, or of margins."""
        if forms is None:
            return self.ar.number(self.question.rows[which]), self.ar.number(self.question.offsets[which])
        first, last = int(which[0]), int(which[-1])
        terms = slice(*np.searchsorted(forms.form, [first, last + 1]))
        rows = np.zeros((last - first + 1, size))
        rows[forms.form[terms] - first, forms.entry[terms]] = forms.coefficient[terms]
        return self.ar.number(rows[which - first]), self.ar.number(np.zeros(len(which)))

    def _learn(self, z: int, claim: Claim, found: Floats, known: dict[Any, float]) -> None:
        """Tighten the interval by forms of one entry, and note the others."""
        assert claim.forms is not None
        lower, upper = self.bounds.lower[z].copy(), self.bounds.upper[z].copy()
        starts = np.searchsorted(claim.forms.form, np.arange(len(found) + 1))
        for value, start, end in zip(found.tolist(), starts[:-1], starts[1:], strict=True):
            entry, coefficient = claim.forms.entry[start:end], claim.forms.coefficient[start:end]
            if len(entry) == 1 and coefficient[0] == 1:
                lower[0, entry[0]] = max(lower[0, entry[0]], value)
            elif len(entry) == 1 and coefficient[0] == -1:
                upper[0, entry[0]] = min(upper[0, entry[0]], -value)
            else:
                name = key(entry, coefficient)
                known[name] = max(value, known.get(name, -np.inf))
        self.bounds.tighten(z, lower, upper)

    def _over_boxes(self, boxes: Boxes) -> float:
        """The smallest margin over the leaves of a tree of boxes. Those that prove nothing are cut in halves, unless
        they are too many: their finder may have had other slopes."""
        leaves, waiting, cuts, worst = leaves_of(boxes, self.bounds.region), list[Box](), _MOST_CUTS, np.inf
        while part := waiting[: self._portion] or list(islice(leaves, self._portion)):
            del waiting[: self._portion]
            lower, upper = (np.array(side) for side in zip(*part, strict=True))
            margins = self._of_boxes(lower, upper)
            failed = np.flatnonzero(~(margins > 0) & (lower < upper).any(1))
            if len(failed) > cuts:
                return float(margins.min())
            waiting += [half for i in failed for half in halves(part[i], self.bounds.region)]
            cuts -= len(failed)
            margins[failed] = np.inf
            worst = float(np.minimum(worst, margins.min()))  # which NaN, that nothing is proven, passes
        return worst

    def _of_boxes(self, lower: Floats, upper: Floats) -> Floats:
        """What is proven of the weakest clause in each box."""
        here = copy(self)
        here.groups, here._lines = [], {}
        here.bounds = Bounds(self.network, Region(lower, upper), self.ar, self._float32)
        here._derive_in_boxes()
        return here._by_rules()

    def _derive_in_boxes(self) -> None:
        """Bounds of all nodes in boxes: of pre-activations what parallel lines say, whether interval arithmetic would
        say more or not, so that lines are those of the search that cut the boxes. What overflows stays as it is."""
        number = {i: j for j, i in enumerate(self.network.activations)}
        for i in range(1, len(self.network.nodes)):
            if i in number:
                z = self.network.before(number[i])
                every = np.nonzero(np.ones(self.bounds.lower[z].shape, bool))
                sides = self._sides(z, every, "parallel"), (self.bounds.lower[z], self.bounds.upper[z])
                self.bounds.replace(z, *(np.where(np.isfinite(new), new, old) for new, old in zip(*sides, strict=True)))
            self.bounds.advance()

    def _by_rules(self) -> Floats:
        """What is proven of the weakest clause in each region, each margin by the better rule."""
        regions, count, last = len(self.bounds.lower[0]), len(self.question.rows), len(self.network.nodes) - 1
        values = np.empty(regions * count)
        for batch in self._batches(regions * count):
            which, form = np.divmod(np.arange(batch.start, batch.stop), count)
            rows, offsets = self.question.rows[form], self.question.offsets[form]
            both = (self._bound(last, rows, offsets, rule, which) for rule in _RULES)
            values[batch.start : batch.stop] = np.maximum(*both)
        return self._weakest(values.reshape(regions, count))


def _by_clause(values: Floats, clause: NDArray[np.int32]) -> Floats:
    """The largest of every clause's members, `(regions, clauses)`."""
    return np.stack([values[:, clause == n].max(1) for n in range(int(clause.max()) + 1)], 1)
