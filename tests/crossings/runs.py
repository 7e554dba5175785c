"""One crossing of a model, a plan, a region, questions and proofs; and what is wrong with the answers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from tests.bounds.problems import short
from tests.crossings.sketches import STRUCTURES
from tests.crossings.truth import LOST, Area, Clause, bracket, margins, outputs

from krelax.bounds.methods import METHODS
from krelax.certificate.check import check
from krelax.certificate.format.archive import read
from krelax.certificate.onnx.model import read_model
from krelax.errors import KrelaxError
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries
from krelax.problem.region import Box, ball
from krelax.run.certificates import Certificates
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict

REGIONS = ("box", "point", "l2", "l1")
PROOFS = ("none", "written", "float32")
# One of the questions about a region alone, or all of them at a time.
ASKED = ("together", "easy", "hard", "near", "false")
CLAUSES = ("one", "several", "several members", "zero rows")

# Every method by itself, the staged run, and each way of a complete search that it would only take on larger questions.
_SEARCHES = {
    "boxes": Complete(split=("inputs",)),
    "neurons": Complete(split=("neurons",), passes=()),
    "clips": Complete(split=("neurons",), passes=(), branching=replace(Complete().branching, clips=0.0)),
    "contradictions": Complete(split=("neurons",), passes=(), turn=0.0, hope=0.0, judged=0, promising=0.0),
    "passes": Complete(split=("neurons",), sweeps=(), turn=0.05),
    "programs": Complete(split=("programs",)),
    "bottlenecks": Complete(split=("bottleneck",)),
}
PLANS: dict[str, Plan] = {
    **{name: Plan.of(name) for name in ("auto", *METHODS)},
    **{name: Plan((METHODS["crown"], search)) for name, search in _SEARCHES.items()},
}
# The same, with as little effort as shows that the parts of a method work.
QUICK = PLANS | {name: Plan((short(m), *Plan.of(name).stages[1:])) for name, m in METHODS.items()}
# Seconds for the questions of one crossing, a quarter of them for each in a complete search. Then the rest is unknown.
_SECONDS = 1.0
# Why a search ends without an answer.
_REASONS_TO_END = {"timeout", "memory", "nothing is left", "nothing is left to split", "a box cannot be split further"}
# How far the smallest margins are from zero: easily true, hardly true, false.
_EASY, _HARD, _FALSE = 1.0, 0.01, -0.05


@dataclass(frozen=True)
class Crossing:
    """One value of every factor. Factors are the fields."""

    structure: str
    activation: str
    plan: str
    region: str
    clauses: str
    proofs: str
    asked: str

    def __str__(self) -> str:
        return "/".join(v.replace(" ", "-") for v in astuple(self))


class Asked(NamedTuple):
    """A question, and whether it holds, None where samples say too little; `above` is not less than its margin."""

    name: str
    clauses: list[Clause]
    holds: bool | None
    above: float


def seed_of(*names: str) -> int:
    return zlib.crc32("/".join(names).encode())


@cache
def loaded(structure: str, activation: str, folder: Path) -> tuple[Path, Network]:
    """The model in a file of the folder, and read from there."""
    path = folder / f"{structure}-{activation}.onnx"
    made = STRUCTURES[structure]
    model = made.model(activation, seed_of(structure, activation))
    if made.external:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    else:
        onnx.save(model, path)
    return path, load_onnx(path)


def area(network: Network, kind: str, seed: int) -> Area:
    """A region around an input in [0, 1]; boxes vary in three inputs at most."""
    rng, count = np.random.default_rng(seed), int(np.prod(network.input_shape))
    centre = rng.uniform(0.2, 0.8, count).astype(np.float32).astype(np.float64)
    if kind in {"box", "point"}:
        half = np.zeros(count)
        if kind == "box":
            half[rng.permutation(count)[:3]] = rng.uniform(0.4, 0.8)
        lower, upper = ((centre + side * half).astype(np.float32).astype(np.float64) for side in (-1, 1))
        return Area(lower, upper, centre)
    eps = float(rng.uniform(0.2, 0.5))
    made = ball(torch.from_numpy(centre).reshape(1, *network.input_shape), eps, kind)
    return Area(made.lower.flatten().numpy(), made.upper.flatten().numpy(), centre, eps, int(kind[1]))


def clauses(kind: str, count: int, seed: int) -> list[Clause]:
    """Random margins of `count` outputs."""
    rng = np.random.default_rng(seed)

    def members(n: int) -> Clause:
        return np.round(rng.normal(0, 1, (n, count)) * 8) / 8, np.round(rng.normal(0, 0.5, n) * 8) / 8

    if kind == "zero rows":
        return [(np.zeros((1, count)), np.zeros(1)), (np.zeros((2, count)), np.array([0.5, -0.25])), members(2)]
    if kind == "several members":
        return [members(3), members(2)]
    return [members(1) for _ in range(1 if kind == "one" else 3)]


@cache
def questions(structure: str, activation: str, region: str, kind: str, folder: Path) -> tuple[Area, list[Asked]]:
    """Questions about one region, with margins moved so that their answers are known."""
    network, seed = loaded(structure, activation, folder)[1], seed_of(structure, activation, region, kind)
    here = area(network, region, seed)
    rows = clauses(kind, int(np.prod(network.output_shape)), seed)
    below, above = bracket(network, here, rows, seed)
    found = []
    kinds = (True, _EASY - below), (True, _HARD - below), (None, -(below + above) / 2), (False, _FALSE - above)
    for name, (holds, move) in zip(ASKED[1:], kinds, strict=True):
        moved = [(r, offsets + move) for r, offsets in rows]
        found.append(Asked(name, moved, holds, above + move + LOST))
    return here, found


def run(crossing: Crossing, folder: Path, seconds: float = _SECONDS, plans: Mapping[str, Plan] = PLANS) -> list[str]:
    """What is wrong: nothing, if all is well."""
    path, network = loaded(crossing.structure, crossing.activation, folder)
    here, every = questions(crossing.structure, crossing.activation, crossing.region, crossing.clauses, folder)
    asked = [question for question in every if crossing.asked in {"together", question.name}]
    outcomes: dict[int, list[Outcome]] = {i: [] for i in range(len(asked))}
    try:
        keeper = None
        if crossing.proofs != "none":
            keeper = Certificates(folder, path, True, "float32" if crossing.proofs == "float32" else "real")
        put = put_together(network, here, asked)
        required = None if keeper is None else keeper.required_margins(put)

        def report(i: int, outcome: Outcome) -> None:
            outcomes[i].append(outcome)

        plan, written = plans[crossing.plan], keeper is not None
        decide(network, put, plan, report, seconds, "cpu", seconds / 4, written, required)
        return [
            f"[{question.name}] {what}"
            for i, question in enumerate(asked)
            for what in judge_all(network, here, question, outcomes[i], keeper, crossing)
        ]
    except Exception as error:
        return [f"{type(error).__name__}: {error} ({_place(error)})"]


def judge_all(
    network: Network,
    here: Area,
    question: Asked,
    outcomes: list[Outcome],
    keeper: Certificates | None,
    crossing: Crossing,
) -> Iterator[str]:
    """What is wrong with the answers to a question, of which there should be one."""
    if len(outcomes) != 1:
        yield f"{len(outcomes)} answers"
    for outcome in outcomes:
        yield from judge(network, here, question, outcome)
        if keeper is not None:
            yield from judge_proof(keeper, f"{seed_of(str(crossing))}.zip", question, outcome, crossing)


def _place(error: BaseException) -> str:
    """Where an exception comes from."""
    trace, where = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "krelax" in name:
            where = f"{Path(name).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return where


def put_together(network: Network, here: Area, asked: list[Asked]) -> Questions:
    """The questions as `decide` takes them, about the same region."""
    shape = network.input_shape
    lower, upper, centre = (
        torch.from_numpy(t).reshape(1, *shape).repeat(len(asked), *[1] * len(shape))
        for t in (here.lower, here.upper, here.centre)
    )
    region = Box(lower, upper) if here.p is None else ball(centre, here.eps, f"l{here.p}")
    rows, offsets = (
        torch.from_numpy(np.stack([np.concatenate([clause[k] for clause in q.clauses]) for q in asked])) for k in (0, 1)
    )
    clause = torch.tensor([i for i, (r, _) in enumerate(asked[0].clauses) for _ in r]).expand(len(asked), -1)

    def violated(i: int, x: Any, y: Any) -> bool:
        return here.contains(x) and exact_margin(y, asked[i].clauses) <= 0

    return Questions(region, Queries(rows, offsets, clause, len(asked[0].clauses)), violated)


def exact_margin(y: Any, clauses: list[Clause]) -> Fraction:
    """The margin at an output, in rational arithmetic."""
    values = [Fraction(float(v)) for v in np.asarray(y).flatten()]
    rows = ([(*row, offset) for row, offset in zip(r.tolist(), o.tolist(), strict=True)] for r, o in clauses)
    return min(
        max(sum((Fraction(c) * v for c, v in zip(row, [*values, 1], strict=True)), Fraction(0)) for row in clause)
        for clause in rows
    )


def judge(network: Network, here: Area, question: Asked, outcome: Outcome) -> Iterator[str]:
    """What is wrong with an answer."""
    if outcome.verdict is Verdict.HOLDS and question.holds is False:
        yield f"holds by {outcome.reason}, but there is an input with margin {question.above}"
    if outcome.verdict is Verdict.VIOLATED and question.holds:
        yield f"violated by {outcome.reason}, but it holds"
    if outcome.verdict is not Verdict.UNKNOWN and outcome.reason in _REASONS_TO_END:
        yield f"{outcome.verdict} by {outcome.reason}"
    if outcome.margin is not None and outcome.margin > question.above:
        yield f"margin {outcome.margin} of {outcome.reason}, but some input has {question.above}"
    if outcome.verdict is Verdict.VIOLATED:
        yield from judge_point(network, here, question, outcome)


def judge_point(network: Network, here: Area, question: Asked, outcome: Outcome) -> Iterator[str]:
    found = outcome.counterexample
    if found is None or network.replay is None:
        yield "violated without a counterexample"
        return
    if found.x.size != len(here.centre) or not here.contains(found.x):
        yield f"a counterexample outside of the region: {found.x.flatten()}"
        return
    if not np.array_equal(network.replay(found.x), found.y) or exact_margin(found.y, question.clauses) > 0:
        yield f"a counterexample that is none: {found.y.flatten()}"
    real = margins(outputs(network, found.x.astype(np.float64).reshape(1, -1)), question.clauses)[0]
    if real > 1e-4:
        yield f"a counterexample of margin {real}"


def judge_proof(
    keeper: Certificates, name: str, question: Asked, outcome: Outcome, crossing: Crossing
) -> Iterator[str]:
    """What is wrong with the certificate of an answer that holds; with exact numbers for some."""
    checked, written = keeper.write(name, outcome)
    if outcome.verdict is not Verdict.HOLDS:
        return
    path = keeper.folder / name
    if checked.verdict is not Verdict.HOLDS:
        if not _may_refuse(crossing, checked.reason):
            yield f"{checked.reason} (margin {outcome.margin} by {outcome.reason})"
    elif written is None or written.margin is None:
        yield "no certificate"
    elif written.margin > question.above:
        yield f"the checker has {written.margin}, but some input has {question.above}"
    elif keeper.semantics == "real" and seed_of(str(crossing)) % 4 == 0:
        yield from judge_exactly(path, keeper.model, question)
    path.unlink()


def judge_exactly(path: Path, model: Path, question: Asked) -> Iterator[str]:
    try:
        margin = min(check(read(path), read_model(model), exact=True))
    except KrelaxError as error:
        yield f"with exact numbers: {error}"
        return
    if margin > question.above:
        yield f"with exact numbers the checker has {margin}, but some input has {question.above}"


def _may_refuse(crossing: Crossing, reason: str) -> bool:
    """Of executions in float32 less is true."""
    return crossing.proofs == "float32" and reason.startswith(("not shown", "certificate not checked: float32"))
