"""The checker: a certificate against the network in an ONNX file, or networks in several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from krelax.certificate.errors import Malformed, Rejected, TooClose
from krelax.certificate.format.families import kinds
from krelax.certificate.format.schema import Certificate, Question, System
from krelax.certificate.format.semantics import MOST_UNITS
from krelax.certificate.format.systems import places_of, terms_of
from krelax.certificate.kernel.arithmetic import Arithmetic, Exact, Float64, Floats, Unbounded
from krelax.certificate.kernel.bounds import check_executable
from krelax.certificate.kernel.families import check_family
from krelax.certificate.kernel.network import Affine, Network
from krelax.certificate.kernel.question import check_question
from krelax.certificate.onnx.builder import Interface
from krelax.certificate.onnx.joint import Source, Used, read_joint
from krelax.certificate.onnx.model import Model
from krelax.certificate.onnx.reader import read_file
from krelax.errors import one_line

# Products of a proof that float64 leaves open and exact numbers then decide: some seconds of them.
_MOST_EXACT = 1e8


# What files were found to be: the ends of one network, or the uses of a system.
Found = Interface | tuple[Used, ...]


def check(
    certificate: Certificate,
    model: Model | bytes | Sequence[Model],
    exact: bool = False,
    errors: Sequence[Floats] | None = None,
    fits: Callable[[Found], None] | None = None,
) -> list[float]:
    """The smallest margin of every question, all of them positive, for the network in a model, or networks in several.

    `errors`, `(margins, outputs + 1)` for every question, bound how far rows and offsets are from what is meant.
    `fits` is shown what the files were found to be, and raises what it has against it. Raises Rejected if the
    certificate is about other networks, or proves less; Malformed if it does not fit; InputError for a file that is no
    network.
    """
    models = [model] if isinstance(model, Model) else [Model(model)] if isinstance(model, bytes) else list(model)
    if not certificate.questions:
        raise Malformed("no questions")
    ar: Arithmetic = Exact() if exact else Float64()
    plain, found = network_of(certificate, models, any(e.any() for e in errors or ()))
    if fits is not None:
        fits(found)
    float32 = certificate.semantics == "float32"
    if certificate.units is not None:
        if not float32 or not 1 <= certificate.units <= MOST_UNITS:
            raise Malformed(f"units {certificate.units} with semantics {certificate.semantics}")
        plain = plain.executing(certificate.units)
    networks = _Networks(plain)
    if float32:
        check_executable(networks.over(ar), ar)
    known, margins = _together(networks, certificate.questions, ar, float32, errors), []
    for number, question in enumerate(certificate.questions):
        own = None if errors is None else errors[number]
        try:
            margins.append(known.get(number) or _Checked(networks, question, float32, own).margin(ar))
        except (Malformed, Rejected) as error:
            raise type(error)(f"question {number}: {error}") from None
    return margins


def network_of(certificate: Certificate, models: Sequence[Model], off: bool = False) -> tuple[Network, Found]:
    """What a certificate is about: a function of the inputs of its regions. Raises Rejected where models are others, or
    one is missing, or is not needed. `off` says whether what is meant is off from what is asked."""
    by_hash, system = {m.hash: m for m in models}, certificate.system
    if (certificate.network is None) == (system is None):
        raise Malformed("neither a network nor a system of networks, or both")
    wanted = [certificate.network] if system is None else [part.network for part in system.parts]
    other = [digest for digest in by_hash if digest not in wanted]
    for digest in wanted:
        if digest is None or digest not in by_hash:
            given = f", not {other[0][:12]}..." if other else ", too; give its file with --network"
            raise Rejected(f"about the network {one_line((digest or '')[:12])}...{given}")
    if other:
        raise Rejected(f"not about the network {other[0][:12]}...")
    if system is None:
        (model,) = by_hash.values()
        # what is meant compares nothing if it is off from what is asked: a head keeps which is larger, and no ratios
        scores = all(map(compares, certificate.questions)) and not off
        return read_file(model, certificate.output, scores)
    if certificate.semantics != "real" or certificate.output is not None:
        raise Malformed("a system of networks with semantics other than real, or with the name of an output")
    return joint_of(system, models)


def joint_of(system: System, models: Sequence[Model]) -> tuple[Network, tuple[Used, ...]]:
    """The networks of a system as one, from the models that it is about."""
    places, by_hash = places_of(system), {m.hash: m for m in models}
    sources = [
        Source(by_hash[part.network], {g.name: g.places.astype(np.int64) for g in part.inputs}, tuple(part.values))
        for part in system.parts
    ]
    return read_joint(sources, terms_of(system), int(places.max()) + 1, bool(system.apart))


def _together(
    networks: _Networks, questions: Sequence[Question], ar: Arithmetic, float32: bool, errors: Sequence[Floats] | None
) -> dict[int, float]:
    """The margins of questions that are checked together, where they are positive. Nothing is said of others, nor of
    those beside one that does not fit."""
    known: dict[int, float] = {}
    for numbers in kinds(questions):
        if len(numbers) < 2:
            continue
        own = None if errors is None else [errors[n] for n in numbers]
        try:
            with np.errstate(all="ignore"):
                found = check_family(networks.over(ar), [questions[n] for n in numbers], ar, float32, own)
        except (Malformed, Rejected):
            continue
        known |= {n: m for n, m in zip(numbers, found.tolist(), strict=True) if m > 0}
    return known


def compares(question: Question) -> bool:
    """Whether a question only asks which of two outputs is larger: whatever keeps their order, keeps its answer."""
    rows, free = question.rows, ~question.rows.any(1)
    pair = ((rows != 0).sum(1) == 2) & (rows.sum(1) == 0) & (question.offsets == 0)
    return bool((free | pair).all())


class _Networks:
    """A network with its constants as numbers of every arithmetic that is asked for."""

    def __init__(self, network: Network) -> None:
        self.plain, self._known = network, dict[str, Network]()

    def over(self, ar: Arithmetic) -> Network:
        """The network in an arithmetic."""
        if ar.name not in self._known:
            self._known[ar.name] = self.plain.over(ar)
        return self._known[ar.name]


@dataclass(frozen=True, eq=False)
class _Checked:
    """A question with its proof, to be checked in any arithmetic."""

    networks: _Networks
    question: Question
    float32: bool
    errors: Floats | None

    def margin(self, ar: Arithmetic) -> float:
        """The smallest margin, which is positive. Where float64 only lacks what rounding may have taken, exact numbers
        decide, if the proof is not large. Raises Rejected."""
        margin = self._proven(ar)
        if isinstance(ar, Float64) and margin <= 0 and self._proven(Unbounded()) > 0:
            if self._work() > _MOST_EXACT:
                raise TooClose(
                    f"too close to call in float64, where rounding may take more than there is ({margin:.3g})"
                )
            margin = self._proven(Exact())
        if not margin > 0:
            raise Rejected(f"what is proven of the smallest margin is {margin:.6g}")
        return margin

    def _proven(self, ar: Arithmetic) -> float:
        with np.errstate(all="ignore"):
            return check_question(self.networks.over(ar), self.question, ar, self.float32, self.errors).margin

    def _work(self) -> float:
        """Products that checking the proof takes, about."""
        network, q = self.networks.plain, self.question
        affine = [node for node in network.nodes if isinstance(node, Affine)]
        row = sum(node.size * node.terms for node in affine)
        forms = 2 * sum(network.size(network.before(j)) for j in range(len(network.activations))) + 2 * len(q.rows)
        if q.boxes is not None:
            return float(row) * forms * len(q.boxes.cut)
        lemmas = [lemma for layer in q.layers for lemma in (*layer.claims, layer.lines)]
        for case in q.cases or ():
            lemmas += [*(step.claim for step in (*case.steps, *(case.lines or ()))), case.claim]
        return float(row) * (forms + sum(len(lemma.tree) for lemma in (*lemmas, q.margins) if lemma is not None))
