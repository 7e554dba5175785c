"""The checker: derives every bound of a certificate's proofs anew, up to the margins."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.arithmetic import Arithmetic, Array, Exact, Float64, Floats, Rows
from krelax.certificate.claims import Leaves, check_crossings, check_forms, grow, tables
from krelax.certificate.format import Boxes, Certificate, Claim, Crossing, Forms, Layer, Malformed, Question
from krelax.certificate.groups import Groups, key, polytopes
from krelax.certificate.kernel import Bounds, Crossed, Rejected, Step
from krelax.certificate.network import Network
from krelax.certificate.operators import read_network
from krelax.certificate.region import Region
from krelax.certificate.steps import Tables, adaptive, chord, price, slopes

# Rules by which slopes are chosen where a certificate says no more.
RULES: dict[str, Callable[..., Floats]] = {"adaptive": adaptive, "parallel": chord}


def check(
    certificate: Certificate, model: bytes, exact: bool = False, errors: Sequence[Floats] | None = None
) -> list[float]:
    """The smallest margin of every question, all of them positive, for the network in an ONNX file.

    `errors`, `(margins, outputs + 1)` for every question, bound how far rows and offsets are from what is meant.
    Raises Rejected if the certificate is about another network, or proves less; Malformed if it does not fit.
    """
    digest = hashlib.sha256(model).hexdigest()
    if certificate.network != digest:
        raise Rejected(f"about the network {certificate.network[:12]}..., not {digest[:12]}...")
    ar: Arithmetic = Exact() if exact else Float64()
    network = read_network(model).over(ar)
    margins = []
    for number, question in enumerate(certificate.questions):
        proof = partial(Proof, network, question, ar, certificate.semantics == "float32")
        with np.errstate(all="ignore"):
            margin = _margin(number, proof if errors is None else partial(proof, errors=errors[number]))
        margins.append(margin)
        if not margin > 0:
            raise Rejected(f"question {number}: the smallest margin that is proven is {margin:.6g}")
    return margins


def _margin(number: int, proof: Callable[[], Proof]) -> float:
    try:
        return proof().margin()
    except Malformed as error:
        raise Malformed(f"question {number}: {error}") from None
    except OverflowError as error:
        raise Rejected(f"question {number}: numbers too large ({error})") from error


@dataclass
class _Rule:
    """Slopes by rule, the same for all rows of a batch but for the regions they are about."""

    proof: Proof
    rule: str
    which: Rows

    def __call__(self, j: int, coeff: Array | None) -> Crossed | None:
        if coeff is None:
            return None
        node, (lower, upper) = self.proof.network.activation(j), self.proof.interval(j, self.which)
        return self.proof.cross(j, coeff, (lower, upper), Tables(RULES[self.rule](node, lower, upper)), self.which)


@dataclass
class _Choices:
    """The choices of a claim for some of its leaves."""

    proof: Proof
    leaves: Leaves
    batch: range
    crossings: dict[int, Crossing]

    def __call__(self, j: int, coeff: Array | None) -> Crossed | None:
        proof, offsets = self.proof, self.proof.network.offsets
        rows, columns, sides, multipliers = self.leaves.splits(self.batch, offsets[j], offsets[j + 1])
        if coeff is None:
            if not len(rows):
                return None
            coeff = proof.ar.number(np.zeros((len(self.batch), proof.network.activation(j).size)))
        lower, upper = proof.interval(j)
        crossing = self.crossings.get(j)
        chosen = tables(crossing, self.batch, proof.network, j, lower, upper)
        lowered = None
        if len(rows):
            lower, upper = (np.repeat(z, len(self.batch), 0) for z in (lower, upper))
            lower[rows, columns] = np.where(sides > 0, np.maximum(lower[rows, columns], 0), lower[rows, columns])
            upper[rows, columns] = np.where(sides < 0, np.minimum(upper[rows, columns], 0), upper[rows, columns])
            lowered = np.zeros(lower.shape)
            lowered[rows, columns] = sides * multipliers
        taken = [] if crossing is None else [self._taken(j, shares) for shares in crossing.groups]
        return proof.cross(j, coeff, (lower, upper), chosen, slice(None), lowered, taken)

    def _taken(self, j: int, shares: Any) -> tuple[Groups, Array, Array, Any]:
        """A set of groups with what it takes over in these leaves."""
        here = slice(self.batch.start, self.batch.stop)
        parts = (self.proof.ar.number(part[here].astype(np.float64)) for part in (shares.coeff, shares.slope))
        return (self.proof.groups[j][shares.set], *parts, None if shares.basis is None else shares.basis[here])


class Proof:
    """The proof of one question, layer by layer."""

    def __init__(
        self, network: Network, question: Question, ar: Arithmetic, float32: bool, errors: Floats | None = None
    ) -> None:
        self.network, self.question, self.ar, self.float32, self._errors = network, question, ar, float32, errors
        self.groups: list[list[Groups]] = []
        last = len(network.nodes) - 1
        self.region = Region.of(question.region, network.size(0))
        if question.rows.shape[1] != network.size(last) or (question.margins is None) == (question.boxes is None):
            raise Malformed("margins that do not fit the outputs, or not one proof")
        clauses = np.unique(question.clause)
        if not len(clauses) or not np.array_equal(clauses, np.arange(len(clauses))):
            raise Malformed("clauses that are not numbered from 0")
        kinds = {network.activation(j).kind for j in range(len(network.activations))}
        if not kinds <= {"relu"}:
            raise Rejected(f"activations that the checker does not know: {', '.join(sorted(kinds - {'relu'}))}")
        self.bounds = Bounds(network, self.region, ar, float32)

    def margin(self) -> float:
        """What is proven of the weakest clause."""
        if self.question.boxes is not None:
            return self._over_boxes(self.question.boxes)
        claim = self.question.margins
        if claim is None or claim.forms is not None or len(self.question.layers) != len(self.network.activations):
            raise Malformed("a layer for each activation, and a claim of margins without forms, are needed")
        self.derive(self.question.layers)
        return self.weakest(self._claim(claim, len(self.network.activations), None)[None])

    def weakest(self, values: Floats) -> float:
        """The smallest over all regions and clauses of their largest margins, `(regions, margins)`."""
        clause = self.question.clause
        if self._errors is not None:
            last = len(self.network.nodes) - 1
            outputs = np.append(self.bounds.largest(last), np.ones((len(values), 1)), 1)
            values = np.nextafter(values - (outputs @ self._errors.T) * (1 + 2.0**-30), -np.inf)
        best = [values[..., clause == n].max(-1) for n in range(int(clause.max()) + 1)]
        return float(np.min(best))

    def derive(self, layers: Sequence[Layer]) -> None:
        """Bounds of all nodes."""
        activations = {i: j for j, i in enumerate(self.network.activations)}
        for i in range(1, len(self.network.nodes)):
            if i in activations:
                self._layer(activations[i], layers[activations[i]])
            self.bounds.advance()

    def interval(self, j: int, which: Rows = slice(None)) -> tuple[Floats, Floats]:
        """Bounds of activation j's pre-activation."""
        z = self.network.before(j)
        return self.bounds.lower[z][which], self.bounds.upper[z][which]

    def _layer(self, j: int, layer: Layer) -> None:
        z, node = self.network.before(j), self.network.activation(j)
        size = self.network.size(z)
        if layer.base != "interval":
            self._base(j, layer.base)
        forms: dict[Any, float] = {}
        for claim in layer.claims:
            found = self._claim(claim, j, check_forms(claim.forms, size))
            assert claim.forms is not None
            self._learn(z, claim.forms, found, forms)
        ends = (self.bounds.lower[z][0], self.bounds.upper[z][0])
        self.groups.append([polytopes(s, forms, ends, node.negative_slope) for s in layer.groups])

    def _base(self, j: int, rule: str) -> None:
        """One pass for all undecided entries of a pre-activation, by a rule."""
        z = self.network.before(j)
        lower, upper = self.interval(j)
        regions, entries = np.nonzero((lower < 0) & (upper > 0))
        better = (np.full(lower.shape, -np.inf), np.full(lower.shape, np.inf))
        for batch in self.batches(len(entries)):
            here = slice(batch.start, batch.stop)
            which, places = regions[here], entries[here]
            for sign, side in zip((1.0, -1.0), better, strict=True):
                form = np.zeros((len(batch), lower.shape[1]))
                form[np.arange(len(batch)), places] = sign
                side[which, places] = sign * self._bound(z, form, np.zeros(len(batch)), rule, which)
        self.bounds.tighten(z, *better)

    def _bound(self, node: int, form: Floats, constant: Floats, rule: str, which: NDArray[np.int64]) -> Floats:
        """Lower bounds of forms of a node by a rule, each over the region named."""
        which_rows: Rows = slice(None) if len(self.bounds.lower[0]) == 1 else which
        step: Step = _Rule(self, rule, which_rows)
        return self.bounds.minimise({node: self.ar.number(form)}, self.ar.number(constant), step, which_rows)

    def batches(self, rows: int) -> list[range]:
        """Rows in portions that fit the memory."""
        widest = max(self.network.size(i) for i in range(len(self.network.nodes)))
        portion = max(1, self.ar.entries // widest)
        return [range(i, min(i + portion, rows)) for i in range(0, rows, portion)]

    def _claim(self, claim: Claim, before: int, forms: int | None) -> Floats:
        """The bounds of a claim's forms, `(forms,)`: over the pre-activation of an activation, or margins."""
        margins = self.question.rows
        count = len(margins) if forms is None else forms
        first = self.network.offsets[before]
        leaves = grow(claim, count, np.ones(first, bool))
        sets = [layer.groups for layer in self.question.layers[:before]]
        check_crossings(claim, len(leaves), self.network, before, sets)
        crossings = {c.activation: c for c in claim.crossings}
        values = np.empty(len(leaves))
        for batch in self.batches(len(leaves)):
            which = leaves.form[batch.start : batch.stop]
            if forms is None:
                node, form, constant = len(self.network.nodes) - 1, margins[which], self.question.offsets[which]
            else:
                assert claim.forms is not None
                node, constant = self.network.before(before), np.zeros(len(which))
                form = _dense(claim.forms, which, self.network.size(node))
            step: Step = _Choices(self, leaves, batch, crossings)
            values[batch.start : batch.stop] = self.bounds.minimise(
                {node: self.ar.number(form)}, self.ar.number(constant), step
            )
        values[self._empty(leaves, first)] = np.inf
        result = np.full(count, np.inf)
        np.minimum.at(result, leaves.form, values)
        return result

    def _empty(self, leaves: Leaves, neurons: int) -> NDArray[np.int64]:
        """Leaves that contradict what is known."""
        ends = [self.interval(j) for j in range(len(self.groups))]
        lower, upper = (np.concatenate([np.zeros(0), *(e[k][0] for e in ends)])[:neurons] for k in (0, 1))
        wrong = np.where(leaves.side > 0, upper[leaves.neuron] < 0, lower[leaves.neuron] > 0)
        return np.repeat(np.arange(len(leaves)), np.diff(leaves.start))[wrong]

    def _learn(self, z: int, forms: Forms, found: Floats, known: dict[Any, float]) -> None:
        """Tighten the interval by forms of one entry, and note the others."""
        lower, upper = self.bounds.lower[z].copy(), self.bounds.upper[z].copy()
        starts = np.searchsorted(forms.form, np.arange(len(found) + 1))
        for value, start, end in zip(found.tolist(), starts[:-1], starts[1:], strict=True):
            entry, coefficient = forms.entry[start:end], forms.coefficient[start:end]
            if len(entry) == 1 and coefficient[0] == 1:
                lower[0, entry[0]] = max(lower[0, entry[0]], value)
            elif len(entry) == 1 and coefficient[0] == -1:
                upper[0, entry[0]] = min(upper[0, entry[0]], -value)
            else:
                name = key(entry, coefficient)
                known[name] = max(value, known.get(name, -np.inf))
        self.bounds.tighten(z, lower, upper)

    def cross(
        self,
        j: int,
        coeff: Array,
        ends: tuple[Floats, Floats],
        chosen: Tables,
        which: Rows,
        lowered: Floats | None = None,
        taken: Sequence[tuple[Groups, Array, Array, Any]] = (),
    ) -> Crossed:
        """Cross activation j: `coeff` are the coefficients behind it, `ends` the intervals before it, cut by splits.

        Groups take over parts of coefficients and slopes; what is left is paid for by the neurons alone, whose slopes
        are `lowered` by the multipliers of splits.
        """
        ar, node = self.ar, self.network.activation(j)
        rest, slope_of_groups, total = coeff, None, ar.number(np.zeros(()))
        sizes, slope_sizes = abs(coeff), ar.number(np.zeros(()))
        for groups, part, slope, basis in taken:
            flat, flat_slope = (x.reshape(len(x), -1) for x in (part, slope))
            rest = rest - groups.place.adjoint(ar, flat)
            joint = groups.place.adjoint(ar, flat_slope)
            slope_of_groups = joint if slope_of_groups is None else slope_of_groups + joint
            cut = tuple(e[:, groups.members] for e in ends)
            total = total + groups.support(ar, part, slope, (cut[0], cut[1]), basis).sum(1)
            if ar.unit:
                sizes = sizes + groups.place.adjoint(ar, abs(flat))
                slope_sizes = slope_sizes + groups.place.adjoint(ar, abs(flat_slope))
        wanted = slopes(node, ar.floats(rest), *ends, chosen)
        alone = ar.choice(wanted if lowered is None else wanted - lowered)
        total = total + price(ar, node, rest, alone, *ends).sum(1)
        terms: Array = ar.number(np.zeros(()))
        if ar.unit:
            z, a = self.network.before(j), self.network.activations[j]
            terms = ar.dot(sizes, self.bounds.largest(a)[which])
            terms = terms + ar.dot(abs(alone) + slope_sizes, self.bounds.largest(z)[which])
        if self.float32 and node.negative_slope:  # the product with the slope rounds
            error = 2.0**-23 * node.negative_slope * np.maximum(-ends[0], 0) + 2.0**-140
            total = total + ar.dot(abs(coeff), ar.number(error))
        return Crossed(alone if slope_of_groups is None else alone + slope_of_groups, total, terms)

    def _over_boxes(self, boxes: Boxes) -> float:
        """The smallest margin over the leaves of a tree of boxes."""
        if self.question.layers or self.region.kind != "box":
            raise Malformed("boxes with layers, or of a region that is no box")
        lower, upper = _cut(boxes, self.region)
        worst = np.inf
        layers = [Layer("parallel")] * len(self.network.activations)
        for batch in self.batches(len(lower)):
            part = Proof.__new__(Proof)
            part.__dict__.update(self.__dict__, groups=[])
            here = slice(batch.start, batch.stop)
            part.bounds = Bounds(self.network, Region(lower[here], upper[here]), self.ar, self.float32)
            part.derive(layers)
            worst = min(worst, part._margin_by_rules())
        return worst

    def _margin_by_rules(self) -> float:
        """The smallest margin in a region."""
        regions, count, last = len(self.bounds.lower[0]), len(self.question.rows), len(self.network.nodes) - 1
        values = np.empty(regions * count)
        for batch in self.batches(regions * count):
            which, form = np.divmod(np.arange(batch.start, batch.stop), count)
            rows, offsets = self.question.rows[form], self.question.offsets[form]
            values[batch.start : batch.stop] = np.maximum(
                *(self._bound(last, rows, offsets, rule, which) for rule in RULES)
            )
        return self.weakest(values.reshape(regions, count))


def _dense(forms: Forms, which: NDArray[np.int64], size: int) -> Floats:
    """Some forms, in increasing order, with repeats, as rows `(len(which), size)`."""
    first, last = int(which[0]), int(which[-1])
    terms = slice(*np.searchsorted(forms.form, [first, last + 1]))
    rows = np.zeros((last - first + 1, size))
    rows[forms.form[terms] - first, forms.entry[terms]] = forms.coefficient[terms]
    return rows[which - first]


def _cut(boxes: Boxes, region: Region) -> tuple[Floats, Floats]:
    """The leaves of a tree of boxes, `(leaves, inputs)`."""
    lower, upper = [], []
    waiting = [(region.lower[0], region.upper[0])]
    for cut, at in zip(boxes.cut.tolist(), boxes.at.tolist(), strict=True):
        if not waiting or not -1 <= cut < region.lower.shape[1]:
            raise Malformed("a tree of boxes with too many nodes, or cuts of inputs that are none")
        low, high = waiting.pop()
        if cut < 0:
            lower.append(low)
            upper.append(high)
            continue
        if not low[cut] <= at <= high[cut]:
            raise Malformed("a box that is cut outside")
        left, right = high.copy(), low.copy()
        left[cut] = right[cut] = at
        waiting += [(right, high), (low, left)]
    if waiting:
        raise Malformed("a tree of boxes that is not complete")
    return np.array(lower), np.array(upper)
