"""Random tiny networks decided in every way that writes certificates, which both arithmetics must accept.

python -m tests.certificate.agreement COUNT [FIRST_SEED]
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import helper, numpy_helper
from tests.certificate.proofs import as_file
from tests.certificate.test_mutations import mutate

from krelax.bounds.branching import Effort
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.multineuron import MultiNeuron
from krelax.bounds.optimise import Ascent
from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.schema import Certificate
from krelax.certificate.onnx.reader import read_network
from krelax.hull.grouping import Grouping
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries
from krelax.problem.region import Ball, Box, Region
from krelax.run.required import required_for_real
from krelax.search.effort import Complete, Pass
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict

Random = np.random.Generator

_SHORT = Ascent(6, 0.3, 0.9)
_QUICK = Effort(leaves=32, rounds=10**9, depth=24, root=_SHORT, leaf=Ascent(2, 0.1, 0.8), partial=False)
_SWEEPS = tuple(replace(_QUICK, rounds=rounds, partial=True) for rounds in (0, 3, 10))
_NEURONS = Complete(
    split=("neurons",), branching=_QUICK, passes=(), turn=0.3, between=0.1, sweeps=(Effort(rounds=0, root=_SHORT),)
)

# Activations that are defined for all numbers, do not grow faster than them, and have no parameters that are needed.
_TOTAL = (
    "LeakyRelu",
    "Sigmoid",
    "Tanh",
    "Softplus",
    "Elu",
    "Selu",
    "Erf",
    "Atan",
    "Softsign",
    "HardSwish",
    "Sin",
    "Cos",
)


def _grouped(size: int, **more: Any) -> Any:
    multi_neuron = MultiNeuron(
        Grouping(size, neurons=6, overlap=1), _SHORT, _SHORT, _SHORT, more.pop("splitting", None)
    )
    return replace(METHODS["alpha"], multi_neuron=(multi_neuron,), **more)


# Ways to bound margins, whose proofs are to be accepted whatever they prove.
BOUNDING = {
    **{name: METHODS[name] for name in METHODS if name not in {"krelu4", "split"} and not METHODS[name].multi_neuron},
    "pairs": _grouped(2),
    "triples": _grouped(3),
    "cuts": _grouped(2, program=True),
    "split": _grouped(3, splitting=replace(_QUICK, rounds=4, partial=True)),
}
# Ways to decide questions.
DECIDING = {
    "boxes": Complete(split=("inputs",)),
    "branching": _NEURONS,
    "clips": replace(_NEURONS, branching=replace(_QUICK, clips=0.0)),
    "passes": replace(
        _NEURONS,
        turn=0.05,
        passes=(Pass(MultiNeuron(None, splitting=replace(_QUICK, rounds=4, partial=True)), 0.0, 0),),
    ),
    "contradictions": replace(_NEURONS, turn=0.0, hope=0.0, judged=0, promising=0.0, share=0.02, sweeps=_SWEEPS),
}


class Author:
    """A random network, written node by node."""

    def __init__(self, rng: Random) -> None:
        self.rng, self.nodes, self.constants = rng, list[Any](), list[Any]()
        self.style = rng.choice(["smooth", "dyadic", "plain", "sparse"])
        self.shape: tuple[int, ...] = (int(rng.integers(2, 7)),)
        if rng.random() < 0.4:
            self.shape = (int(rng.integers(1, 3)), int(rng.integers(3, 6)), int(rng.integers(3, 6)))
        self.input_shape, self.last, self.count = self.shape, "x", 0

    def weights(self, *shape: int, fan: int = 1) -> Any:
        """Weights of a style: of all digits or of few, many of them zero or equal."""
        w = self.rng.normal(0, 1.2 / np.sqrt(fan), shape)
        if self.style == "dyadic":
            w = np.round(w * 8) / 8
        elif self.style == "sparse":
            w = w * (self.rng.random(shape) < 0.4)
        elif self.style == "plain":
            w = np.round(w, 1)
        return w.astype(np.float32)

    def bias(self, size: int) -> Any:
        zero = self.rng.random() < 0.4
        return np.zeros(size, np.float32) if zero else self.weights(size, fan=4)

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self.count += 1
        self.nodes.append(helper.make_node(kind, list(inputs), [f"n{self.count}"], **attributes))
        return f"n{self.count}"

    def constant(self, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(value, f"c{len(self.constants)}"))
        return f"c{len(self.constants) - 1}"

    def affine(self, size: int) -> None:
        if len(self.shape) == 3:
            (channels, *_), outputs = self.shape, int(self.rng.integers(1, 4))
            k, pad = int(self.rng.integers(1, 4)), int(self.rng.integers(0, 2))
            k = min(k, *(n + 2 * pad for n in self.shape[1:]))
            w = self.weights(outputs, channels, k, k, fan=channels * k * k)
            self.last = self.add("Conv", self.last, self.constant(w), self.constant(self.bias(outputs)), pads=[pad] * 4)
            self.shape = (outputs, *(n + 2 * pad - k + 1 for n in self.shape[1:]))
            return
        w, b = self.weights(size, *self.shape, fan=self.shape[0]), self.bias(size)
        self.last = self.add("Gemm", self.last, self.constant(w), self.constant(b), transB=1)
        self.shape = (size,)

    def flatten(self) -> None:
        if len(self.shape) == 3:
            self.last, self.shape = self.add("Flatten", self.last), (int(np.prod(self.shape)),)

    def pool(self) -> None:
        k, stride = 2, int(self.rng.integers(1, 3))
        if min(self.shape[1:]) < k:
            return
        kind = self.rng.choice(["MaxPool", "MaxPool", "AveragePool"])
        self.last = self.add(kind, self.last, kernel_shape=[k, k], strides=[stride, stride])
        self.shape = (self.shape[0], *((n - k) // stride + 1 for n in self.shape[1:]))

    def activation(self) -> None:
        x, kinds = self.last, ["Relu", "Relu", *_TOTAL, "Abs", "Clip", "Max", "Mul", "MatMul"]
        match self.rng.choice(kinds):
            case "LeakyRelu":
                self.last = self.add("LeakyRelu", x, alpha=float(self.rng.choice([0.01, 0.125, 0.3])))
            case "Clip":
                low, high = (self.constant(np.float32(v)) for v in (-0.5, 0.75))
                self.last = self.add("Clip", x, low, high)
            case "Max":
                other = self.add("Mul", x, self.constant(np.float32(-0.5)))
                self.last = self.add("Max", x, other)
            case "Mul":
                other = self.add("Relu", self.add("Add", x, self.constant(self.weights(*self.shape))))
                self.last = self.add("Mul", x, other)
            case "MatMul":
                self._outer()
            case kind:
                self.last = self.add(str(kind), x)

    def _outer(self) -> None:
        """All products of the entries of a vector, summed up along both axes after a step."""
        if len(self.shape) == 3:
            return
        column = self.add("Transpose", self.last, perm=[1, 0])
        every = self.add("MatMul", column, self.last)
        self.last = self.add("MatMul", self.last, self.add("Relu", every))

    def block(self) -> None:
        before, shape = self.last, self.shape
        self.affine(int(self.rng.integers(2, 8)))
        self.activation()
        if len(self.shape) == 3 and self.rng.random() < 0.5:
            self.pool()
        if self.shape == shape and before != "x" and self.rng.random() < 0.6:
            self.last = self.add(str(self.rng.choice(["Add", "Add", "Mul"])), self.last, before)

    def write(self, path: Path) -> None:
        for _ in range(int(self.rng.integers(1, 4))):
            self.block()
            if min(self.shape) < 2 and len(self.shape) == 3:
                break
        self.flatten()
        self.affine(int(self.rng.integers(1, 4)))
        path.write_bytes(as_file(self.nodes, self.constants, (1, *self.input_shape), self.last))


def region_of(rng: Random, shape: tuple[int, ...]) -> Region:
    """A box or a ball; of some boxes not all inputs vary, and some lie around zero."""
    centre = np.zeros(shape) if rng.random() < 0.3 else np.round(rng.normal(0, 0.5, shape), 2)
    eps = float(rng.choice([0.05, 0.2, 0.5, 1.0]))
    middle = torch.from_numpy(centre)[None]
    if rng.random() < 0.2:
        return Ball(middle - eps, middle + eps, middle, eps, int(rng.choice([1, 2])))
    radius = torch.from_numpy(eps * (rng.random(shape) < rng.choice([0.5, 1.0])))[None]
    return Box(middle - radius, middle + radius)


@dataclass(frozen=True, eq=False)
class Case:
    """A question about a network, in a file, to be decided some way; `least` is its margin at the worst of points."""

    path: Path
    network: Network
    questions: Questions
    way: str
    plan: Plan
    least: float


def points_of(rng: Random, region: Region, count: int = 2000) -> torch.Tensor:
    """Points of a region, many of them in its corners."""
    t = rng.random((count, *region.lower.shape[1:]))
    t[: count // 2] = np.round(t[: count // 2])
    x = region.lower + (region.upper - region.lower) * torch.from_numpy(t)
    if isinstance(region, Ball):
        step = (x - region.centre).flatten(1)
        length = torch.linalg.vector_norm(step, region.p, 1, keepdim=True) / region.eps
        x = region.centre + (step / length.clamp(min=1)).view_as(x)
    return x


def least_margin(network: Network, queries: Queries, x: torch.Tensor) -> float:
    return float(queries.margin(queries.values(network(x).unsqueeze(0))).min())


def case_of(seed: int, folder: Path) -> Case:
    """The case with a number."""
    rng = np.random.default_rng(seed)
    path = folder / f"{seed}.onnx"
    Author(rng).write(path)
    network = load_onnx(path)
    region = region_of(rng, network.input_shape)
    outputs, members = int(np.prod(network.output_shape)), rng.integers(1, 4, size=rng.integers(1, 3))
    clause = np.repeat(np.arange(len(members)), members)
    rows = np.round(rng.normal(size=(len(clause), outputs)) * 4) / 4
    tensors = (torch.from_numpy(a)[None] for a in (rows, np.zeros(len(clause)), clause))
    queries = Queries(*tensors, len(members))  # type: ignore[call-arg]
    way = str(rng.choice([*BOUNDING, *DECIDING, *DECIDING]))
    x = points_of(rng, region)
    small = float(10 ** rng.uniform(-9, -1))
    instance = Instance.of(network, region)
    method = BOUNDING.get(way, METHODS["crown"])
    found = bound(instance, queries, method).value
    if way in BOUNDING:
        plan, reached = Plan((method,)), found
    else:  # on the way from what is easily proven to what is true
        plan, values = Plan((METHODS["interval"], DECIDING[way])), queries.values(network(x).unsqueeze(0))
        proven, true = queries.clause_values(found), queries.clause_values(values).amin(1)
        reached = (proven + float(rng.choice([0.1, 0.4, 0.8, 1.0])) * (true - proven))[:, queries.clause[0]]
    offsets = small * (1 + found.abs()) - reached
    queries = replace(queries, offsets=offsets)
    questions = Questions(region, queries, lambda i, x, y: False)
    return Case(path, network, questions, way, plan, least_margin(network, queries, x))


def decided(case: Case, seconds: float) -> Outcome:
    """As a run decides it that writes certificates."""
    outcomes: list[Outcome] = []
    required = required_for_real(read_network(case.path.read_bytes()), case.questions)
    decide(
        case.network,
        case.questions,
        case.plan,
        lambda i, o: outcomes.append(o),
        seconds,
        proofs=True,
        required=required,
    )
    return outcomes[0]


def tampered(made: Certificate, rng: Random) -> Certificate:
    """The certificate with a random change of its proof, about the same question."""
    broken, asked = deepcopy(made), made.questions[0]
    mutate(rng, broken)
    own = {name: getattr(asked, name) for name in ("region", "rows", "offsets", "clause")}
    return replace(broken, questions=[replace(broken.questions[0], **own)])


def checked(made: Certificate, data: bytes, exact: bool, path: Path) -> float | str:
    """The margin that the checker finds, through a file, or what it says instead."""
    try:
        write(path, made)
    except (TypeError, ValueError) as error:  # which do not fit each other
        return str(error)
    try:
        return check(read(path), data, exact)[0]
    except (Rejected, Malformed) as error:
        return f"{'exact' if exact else 'float64'}: {error}"


def examine(case: Case, folder: Path, seconds: float = 2.0, changes: int = 0) -> tuple[Outcome, str]:
    """The outcome of a case, and what is wrong about it, if anything. So many random changes of its certificate are
    to be refused, too, or prove no more than is true."""
    outcome = decided(case, seconds)
    if outcome.verdict is not Verdict.HOLDS:
        return outcome, ""
    tolerance = 1e-9 * (1 + abs(case.least))
    if case.least < -tolerance:
        return outcome, f"holds, although the margin is {case.least:.3g} somewhere"
    data, path = case.path.read_bytes(), folder / "c.zip"
    made = Certificate(hashlib.sha256(data).hexdigest(), "real", "test", list(outcome.proofs))
    margins = [checked(made, data, exact, path) for exact in (False, True)]
    for margin in margins:
        if isinstance(margin, str):
            return outcome, f"{outcome.reason}, {outcome.margin:.3g} found, {margin}"
    low, high = map(float, margins)
    if not low <= high <= case.least + tolerance:
        return outcome, f"float64 {low!r}, exact {high!r}, true {case.least!r}"
    return outcome, _forged(made, data, case.least, tolerance, changes, path)


def _forged(made: Certificate, data: bytes, least: float, tolerance: float, changes: int, path: Path) -> str:
    """What is wrong about forgeries, if anything: the question with a margin that is too large, and changed proofs."""
    rng = np.random.default_rng(len(data))
    asked = replace(made.questions[0], offsets=made.questions[0].offsets - least - 10 * tolerance)
    forged = [(replace(made, questions=[asked]), -9 * tolerance)]
    forged += [(tampered(made, rng), least + tolerance) for _ in range(changes)]
    for false, truth in forged:
        for exact in (False, True):
            margin = checked(false, data, exact, path)
            if isinstance(margin, float) and margin > truth:
                return f"forged: {margin!r} above {truth!r}"
    return ""


def main(count: int, first: int) -> int:
    """Examine many cases; the number of those with something wrong."""
    began, wrong, holding = time.perf_counter(), 0, 0
    tally: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(first, first + count):
            way = ""
            try:
                case = case_of(seed, folder)
                way = case.way
                outcome, problem = examine(case, folder, changes=3)
                holds = outcome.verdict is Verdict.HOLDS
            except Exception as error:  # every one of them is a finding
                holds, problem = False, f"{type(error).__name__}: {error}"
            holding += holds
            row = tally.setdefault(way, [0, 0, 0])
            for place, counts in enumerate((True, holds, bool(problem))):
                row[place] += counts
            if problem:
                wrong += 1
                print(f"seed {seed} ({way}): {problem}", flush=True)
            (folder / f"{seed}.onnx").unlink(missing_ok=True)
    for way, (tried, held, bad) in sorted(tally.items()):
        print(f"  {way}: {tried} tried, {held} held, {bad} wrong")
    print(f"{count} networks, {holding} certificates, {wrong} wrong, {time.perf_counter() - began:.0f} s")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)))
