"""What the search writes down, the checker derives again: every method, splits, groups and boxes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from tests.certificate.proofs import as_file
from tests.exact_cells import least_margin
from tests.marks import at_night_after
from tests.run.files import random_dense, save

from krelax.bounds.bounded import Bounded
from krelax.bounds.branching import Effort
from krelax.bounds.evaluator import Evaluator
from krelax.bounds.instance import Instance
from krelax.bounds.leaves import Leaves
from krelax.bounds.methods import METHODS, Method, bound
from krelax.bounds.multineuron import MultiNeuron
from krelax.bounds.optimise import Ascent
from krelax.certificate.check import check
from krelax.certificate.errors import Rejected
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.schema import Certificate, Question
from krelax.certificate.kernel.arithmetic import Float64
from krelax.certificate.kernel.question import check_question
from krelax.certificate.onnx.reader import read_network
from krelax.hull.grouping import Grouping
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries, classification
from krelax.problem.region import Box, ball
from krelax.proof.encode import question
from krelax.proof.log import Lemma, ProofLog
from krelax.search.attack import Attack
from krelax.search.clauses import pose
from krelax.search.effort import Complete
from krelax.search.margins import Margins, Probe
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict

DATA = Path(str(files("krelax") / "data"))
SHORT = Ascent(8, 0.3, 0.9)


def joined(size: int, splitting: Effort | None = None) -> Method:
    """A method with few groups, for a test."""
    multi_neuron = MultiNeuron(Grouping(size, neurons=12 if size < 4 else 6, overlap=1), SHORT, SHORT, SHORT, splitting)
    return replace(METHODS["alpha"], name=f"groups of {size}", multi_neuron=(multi_neuron,))


METHODS_TRIED = {
    "crown": METHODS["crown"],
    "alpha": METHODS["alpha"],
    "lp": METHODS["lp"],
    "pairs": joined(2),
    "triples": joined(3),
    "fours": joined(4),
    "cuts": replace(joined(2), name="cuts", program=True),
    "splitting": joined(3, Effort(leaves=32, rounds=6)),
}


def asked(name: str, eps: float, offset: float = 0.0, norm: str = "linf") -> tuple[Instance, Queries, bytes]:
    """The margins of the first digit, each plus `offset`."""
    path = DATA / f"{name}.onnx"
    network, data = load_onnx(path), np.load(DATA / "digits_test.npz")
    x = torch.from_numpy(data["images"][:1] / 255.0).double().reshape(1, *network.input_shape)
    queries = classification(torch.from_numpy(data["labels"][:1]).long(), 10)
    queries = replace(queries, offsets=queries.offsets + offset)
    return Instance.of(network, ball(x, eps, norm)), queries, path.read_bytes()


def proof_of(instance: Instance, queries: Queries, log: ProofLog, found: Bounded) -> Question:
    """What was found, with its proof."""
    conclusion = found.conclusion()
    assert conclusion is not None
    return question(instance.network, instance.region, queries, log, conclusion)


def checked(instance: Instance, queries: Queries, log: ProofLog, found: Bounded, model: bytes, path: Path) -> float:
    """The margin that the checker finds in a certificate, through its file."""
    written = proof_of(instance, queries, log, found)
    write(path, Certificate(hashlib.sha256(model).hexdigest(), "real", "test", [written]))
    return check(read(path), model)[0]


NAMES = ("digits_conv", "digits_dense")
# every method always, on one of the networks; fours are like triples
USUAL = [method for method in METHODS_TRIED if method != "fours"]
TRIED = [(method, NAMES[(i + j) % 2]) for j in range(2) for i, method in enumerate(USUAL)]
TRIED += [("fours", name) for name in NAMES]


@pytest.mark.parametrize(("method", "name"), at_night_after(len(USUAL), TRIED))
def test_the_checker_finds_the_margin_of_every_method(name: str, method: str, tmp_path: Path) -> None:
    instance, queries, model = asked(name, 0.07)
    before = float(bound(instance, queries, METHODS_TRIED[method]).value.min())
    log = ProofLog()
    instance, queries, model = asked(name, 0.07, 0.125 - before)
    found = bound(replace(instance, logs=(log,)), queries, METHODS_TRIED[method])
    margin = checked(instance, queries, log, found, model, tmp_path / "c.zip")
    # claims of earlier passes are worth about the same over what later ones know, or more
    assert -2e-4 <= margin - float(found.value.min()) <= 0.02
    worse = replace(queries, offsets=queries.offsets - 0.25)
    with pytest.raises(Rejected, match="smallest margin"):
        checked(instance, worse, log, found, model, tmp_path / "c.zip")


@pytest.mark.parametrize("seed", at_night_after(1, range(4)))
def test_no_bound_that_a_proof_rests_on_is_lost(seed: int, tmp_path: Path) -> None:
    """Later passes tighten what earlier claims rest on: slopes chosen anew there could prove less."""
    path = save(random_dense([6, 24, 24, 24, 24, 3], seed), tmp_path / "deep.onnx")
    network, log = load_onnx(path), ProofLog()
    centre = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 1, 6)))
    instance = replace(Instance.of(network, ball(centre, 0.3, clip=None)), logs=(log,))
    queries = classification(torch.tensor([0]), 3)
    found = bound(instance, queries, METHODS_TRIED["splitting"])
    bounds = found.bounds
    written = proof_of(instance, queries, log, found)
    proof = check_question(read_network(path.read_bytes()).over(Float64()), written, Float64())
    assert proof.margin >= float(found.value.min()) - 1e-6
    for j, i in enumerate(network.activations()):
        lower, upper = (t[network.nodes[i].inputs[0]].flatten().numpy() for t in (bounds.lower, bounds.upper))
        proven = proof.context.ends(j)
        assert (proven[1][0] <= upper + 1e-6).all()
        assert (proven[0][0] >= lower - 1e-6)[upper > 0].all()


@pytest.mark.parametrize("method", [n for n, m in METHODS.items() if not m.separate])
def test_deep_networks_rest_on_nothing_that_is_not_noted(method: str, tmp_path: Path) -> None:
    """What a bound says of neurons that are decided anyway would make the intervals of later layers narrower."""
    path = save(random_dense([3, 12, 12, 12, 12, 12, 12, 3], 3), tmp_path / "deep.onnx")
    network, log = load_onnx(path), ProofLog()
    region = ball(torch.from_numpy(np.random.default_rng(3).normal(size=(1, 1, 3))), 0.2, clip=None)
    instance = replace(Instance.of(network, region), logs=(log,))
    queries = classification(torch.tensor([1]), 3)
    found = bound(instance, queries, METHODS[method])
    least, written = float(found.value.min()), proof_of(instance, queries, log, found)
    proof = check_question(read_network(path.read_bytes()).over(Float64()), written, Float64())
    assert proof.margin >= least - 1e-6 * (1 + abs(least))


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_balls(norm: str, tmp_path: Path) -> None:
    instance, queries, model = asked("digits_dense", 0.2, norm=norm)
    log = ProofLog()
    found = bound(replace(instance, logs=(log,)), queries, METHODS["alpha"])
    margin = checked(instance, queries, log, found, model, tmp_path / "c.zip")
    assert margin == pytest.approx(float(found.value.min()), rel=1e-4)


def test_lines_that_all_margins_share(tmp_path: Path) -> None:
    """Nothing is optimised at a maximum over windows, so that all queries cross it on the same lines."""
    path = Path(__file__).parent.parent / "certificate" / "networks" / "window.onnx"
    network, log = load_onnx(path), ProofLog()
    instance = Instance.of(network, Box(torch.full((1, 1, 2), -1.0).double(), torch.ones(1, 1, 2).double()))
    queries = classification(torch.tensor([0]), 4)
    queries = replace(queries, offsets=queries.offsets + 2.0)
    found = bound(replace(instance, logs=(log,)), queries, METHODS["alpha"])
    margin = checked(instance, queries, log, found, path.read_bytes(), tmp_path / "c.zip")
    assert margin == pytest.approx(float(found.value.min()), rel=1e-4)


def test_bounds_are_what_their_lemmas_say() -> None:
    instance, queries, _ = asked("digits_dense", 0.07)
    log = ProofLog()
    found = bound(replace(instance, logs=(log,)), queries, joined(2))
    assert found.lemmas is not None
    values = [said(log, number) for number in found.lemmas[0].tolist()]
    assert torch.equal(torch.tensor(values, dtype=torch.float64), found.value[0])
    node = instance.network.nodes[max(instance.network.activations())].inputs[0]
    below, above = found.bounds.lemmas_of(node)
    for bounds, lemmas, sign in ((found.bounds.lower, below, 1), (found.bounds.upper, above, -1)):
        proven = lemmas.flatten() > 0
        assert bool(proven.any())
        values = [said(log, number) for number in lemmas.flatten()[proven].tolist()]
        assert torch.equal(sign * bounds[node].flatten()[proven], torch.tensor(values, dtype=torch.float64))


def said(log: ProofLog, number: int) -> float:
    """What a lemma says of its form."""
    lemma = log[number]
    assert isinstance(lemma, Lemma)
    return lemma.value


def searched(
    name: str, eps: float, plan: Plan, which: slice = slice(10), device: str = "cpu"
) -> tuple[list[Outcome], bytes]:
    """Outcomes of a search for some digits, by default the first ones, with proofs."""
    path, data = DATA / f"{name}.onnx", np.load(DATA / "digits_test.npz")
    network = load_onnx(path)
    x = torch.from_numpy(data["images"][which] / 255.0).double().reshape(-1, *network.input_shape)
    queries = classification(torch.from_numpy(data["labels"][which]).long(), 10)
    outcomes: dict[int, Outcome] = {}
    questions = Questions(ball(x, eps), queries, lambda i, x, y: False)
    decide(network, questions, plan, outcomes.__setitem__, 100, device, proofs=True)
    return [outcomes[i] for i in sorted(outcomes)], path.read_bytes()


@pytest.mark.usefixtures("both_evaluators")
@pytest.mark.parametrize("name", at_night_after(1, ["digits_conv", "digits_dense"]))
def test_everything_that_a_search_proves_is_accepted(name: str, tmp_path: Path) -> None:
    branching = Complete(split=("neurons",), turn=0.5)
    outcomes, model = searched(name, 0.06, Plan((METHODS["crown"], METHODS["alpha"], branching)))
    holding = [o for o in outcomes if o.verdict is Verdict.HOLDS]
    assert {o.reason for o in holding} >= {"crown", "branching"}
    for outcome in holding:
        accepted(outcome, model, tmp_path / "c.zip")


@pytest.mark.usefixtures("both_evaluators")
@pytest.mark.parametrize("image", at_night_after(1, [2, 8]))
def test_clips_are_accepted_too(image: int, tmp_path: Path) -> None:
    """Searches whose leaves narrow intervals from the beginning; without that, what they prove is refused."""
    branching = Complete(split=("neurons",), passes=(), branching=replace(Complete().branching, clips=0.0))
    plan = Plan((METHODS["crown"], METHODS["alpha"], branching))
    (outcome,), model = searched("digits_conv", 0.07, plan, slice(image, image + 1))
    accepted(outcome, model, tmp_path / "c.zip")
    margins = outcome.proofs[0].margins
    assert margins is not None
    assert (margins.tree == -2).sum() >= 2
    assert outcome.margin is not None
    assert 0 < outcome.margin < 0.01
    for crossing in margins.crossings:
        crossing.clips = None
    with pytest.raises(Rejected):
        accepted(outcome, model, tmp_path / "c.zip")


@pytest.mark.usefixtures("both_evaluators")
@pytest.mark.parametrize(
    ("clips", "name"),
    at_night_after(2, [(None, "digits_conv"), (0.0, "digits_dense"), (0.0, "digits_conv"), (None, "digits_dense")]),
)
def test_pairs_in_leaves_are_accepted_too(name: str, clips: float | None, tmp_path: Path) -> None:
    """A search whose leaves pay for pairs of neurons together. Without their shares what they prove is refused."""
    before = float(bound(*asked(name, 0.07)[:2], joined(2)).value.min())
    instance, queries, model = asked(name, 0.07, -0.125 - before)
    log = ProofLog()
    instance = replace(instance, logs=(log,))
    effort = replace(Complete().branching, groups=True, clips=clips)
    found = bound(instance, queries, joined(2))
    assert float(found.value.min()) <= 0
    probe = Probe(instance, queries, Attack(), lambda points: None)
    search = Margins(instance, queries, found, effort, probe)
    search.run(torch.inf)
    found = search.found
    assert float(found.value.min()) > 0
    margin = checked(instance, queries, log, found, model, tmp_path / "c.zip")
    assert margin >= 0.999 * float(found.value.min()) - 1e-5
    written = proof_of(instance, queries, log, found)
    assert written.margins is not None
    shares = [s for c in written.margins.crossings for s in c.groups if s.share is not None]
    assert sum(int(s.share.any()) for s in shares if s.share is not None)
    for s in shares:
        s.share = np.zeros_like(s.share)
    write(tmp_path / "c.zip", Certificate(hashlib.sha256(model).hexdigest(), "real", "test", [written]))
    with pytest.raises(Rejected):
        check(read(tmp_path / "c.zip"), model)


def accepted(outcome: Outcome, model: bytes, path: Path) -> None:
    """The checker finds about the margin of an outcome in its certificate."""
    write(path, Certificate(hashlib.sha256(model).hexdigest(), "real", "test", list(outcome.proofs)))
    # the best claim of every form may come from different stages, so that together they prove more
    assert outcome.margin is not None
    assert check(read(path), model)[0] >= 0.999 * outcome.margin - 1e-5


def narrow(path: Path, seed: int, margin: float) -> tuple[Questions, float]:
    """A question about a small network on a box whose margin is about so small, and the smallest one on a grid."""
    save(random_dense([2, 8, 8, 1], seed), path)
    network = load_onnx(path)
    region = Box(torch.full((1, 1, 2), -1.0).double(), torch.ones(1, 1, 2).double())
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 401).double()] * 2).reshape(-1, 1, 2)
    offset = torch.full((1, 1), margin - float(network(grid).min())).double()
    queries = Queries(torch.ones(1, 1, 1).double(), offset, torch.zeros(1, 1).long(), 1)
    return Questions(region, queries, lambda i, x, y: False), margin


def decided(path: Path, questions: Questions, search: Complete, device: str = "cpu") -> tuple[Outcome, float]:
    """The outcome of a search, and the margin that the checker finds in its certificate."""
    outcomes: list[Outcome] = []
    limit = 900  # seconds of a machine that is busy with other things; alone none of these searches takes 60
    decide(load_onnx(path), questions, Plan((search,)), lambda i, o: outcomes.append(o), limit, device, proofs=True)
    assert outcomes[0].verdict is Verdict.HOLDS
    model, proof = path.read_bytes(), path.with_suffix(".zip")
    write(proof, Certificate(hashlib.sha256(model).hexdigest(), "real", "test", list(outcomes[0].proofs)))
    return outcomes[0], check(read(proof), model)[0]


def test_leaves_that_linear_programs_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are proven by slopes outright, others to be empty."""
    solved: list[float] = []
    solve = Evaluator.solve

    def watched(self: Evaluator, leaves: Leaves, until: float | None = None) -> Any:
        result = solve(self, leaves, until)
        solved.extend(result[0].tolist())
        return result

    monkeypatch.setattr(Evaluator, "solve", watched)
    questions, margin = narrow(tmp_path / "small.onnx", 9, 1e-3)
    outcome, found = decided(tmp_path / "small.onnx", questions, Complete(split=("neurons",), passes=()))
    assert sum(value > 0 for value in solved) >= 10
    assert 0 < found <= margin
    assert found == pytest.approx(outcome.margin, rel=1e-3)


def several(path: Path, seed: int) -> Questions:
    """A question about a small network with a clause of two margins, of which no one is positive at every input."""
    generator = np.random.default_rng(seed)
    save(random_dense([2, 6, 4, 3], seed), path)
    network, box = load_onnx(path), Box(torch.full((1, 1, 2), -1.0).double(), torch.ones(1, 1, 2).double())
    rows = generator.integers(-4, 5, size=(3, 3)) / 4
    rows[1] = -rows[0]
    clauses = [(rows[:2], np.zeros(2)), (rows[2:], np.zeros(1))]
    least = [float(least_margin(network, box.lower[0], box.upper[0], [c]).value) for c in clauses]
    offsets = np.array([0.01 - least[0], 0.01 - least[0], 0.01 - least[1]])
    tensors = [torch.from_numpy(a)[None] for a in (rows, offsets, np.array([0, 0, 1]))]
    queries = Queries(tensors[0], tensors[1], tensors[2], 2)
    return Questions(box, queries, lambda i, x, y: False)


@pytest.mark.usefixtures("both_evaluators")
@pytest.mark.parametrize("seed", at_night_after(2, [0, 4, 2, 5]))
def test_clauses_of_several_margins(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    outcome, found = decided(path, several(path, seed), Complete(split=("neurons",), passes=()))
    (proof,) = outcome.proofs
    assert proof.joint is not None
    assert proof.joint.tolist() == [0]
    assert outcome.margin is not None
    assert 0.999 * outcome.margin <= found <= 0.01 + 1e-9
    certificate = read(path.with_suffix(".zip"))
    assert found <= check(certificate, path.read_bytes(), exact=True)[0] <= 0.01 + 1e-9
    broken = replace(proof, offsets=proof.offsets - 0.011)
    with pytest.raises(Rejected):
        check(Certificate(hashlib.sha256(path.read_bytes()).hexdigest(), "real", "test", [broken]), path.read_bytes())


@pytest.mark.parametrize("seed", [0, 2])
def test_what_is_known_of_other_clauses_stays_where_one_is_bounded_jointly(seed: int, tmp_path: Path) -> None:
    """Before anything is searched."""
    path, log = tmp_path / "small.onnx", ProofLog()
    asked = several(path, seed)
    instance = replace(Instance.of(load_onnx(path), asked.region), logs=(log,))
    found = bound(instance, asked.queries, METHODS["alpha"])
    posed = pose(instance, asked.queries, found)
    conclusion = posed.found.conclusion()
    assert conclusion is not None
    assert conclusion.joint == (0,)
    assert float(posed.found.value[0, 0]) == float(found.value[0, 2])
    written = question(instance.network, instance.region, asked.queries, log, conclusion)
    proof = check_question(read_network(path.read_bytes()).over(Float64()), written, Float64())
    assert proof.margin == pytest.approx(float(posed.queries.margin(posed.found.value)), abs=1e-6)


@pytest.mark.parametrize(("seed", "clips"), at_night_after(1, [(0, None), (2, None), (2, 0.0)]))
def test_proposals_in_double_precision_are_written_in_single(
    seed: int, clips: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers beyond float32 are searched in float64; what is proven with is what is written, all the same."""
    monkeypatch.setattr("krelax.bounds.instance._fits", lambda *_: False)
    search = Complete(split=("neurons",), passes=(), branching=replace(Complete().branching, clips=clips))
    path, inner = tmp_path / "small.onnx", tmp_path / "inner.onnx"
    for questions in (several(path, seed), narrow(inner, 4, 0.05)[0]):
        outcome, found = decided(path, questions, search)
        assert outcome.margin is not None
        assert found >= 0.999 * outcome.margin
        assert outcome.proofs[0].margins is not None
        assert len(outcome.proofs[0].margins.multipliers)
        path = inner


def test_boxes_are_written_as_a_tree(tmp_path: Path) -> None:
    questions, margin = narrow(tmp_path / "small.onnx", 4, 0.05)
    outcome, found = decided(tmp_path / "small.onnx", questions, Complete(("inputs",)))
    assert outcome.proofs[0].boxes is not None
    assert (outcome.proofs[0].boxes.cut >= 0).sum() >= 2
    assert outcome.margin is not None
    assert outcome.margin - 1e-9 <= found <= margin


def test_overlapping_pools(tmp_path: Path) -> None:
    """Many windows whose members are zero or more: search and checker see the same one in front."""
    rng = np.random.default_rng(8)
    shapes = {"v": (2, 1, 3, 3), "b": (2,), "w": (2, 2, 2, 2), "c": (2,), "m": (1, 72)}
    scales = {"v": 0.5, "b": 0.2, "w": 0.5, "c": 0.2, "m": 0.15}
    constants = [numpy_helper.from_array(rng.normal(0, scales[n], s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "v", "b"], ["z"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["z"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2]),
        helper.make_node("Conv", ["p", "w", "c"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "m"], ["y"], transB=1),
    ]
    path = tmp_path / "pools.onnx"
    path.write_bytes(as_file(nodes, constants, (1, 1, 8, 8), "y"))
    network, x = load_onnx(path), torch.from_numpy(rng.random((1, 1, 1, 8, 8)))
    region = Box(x - 0.04, x + 0.04)
    asked = Queries(torch.ones(1, 1, 1).double(), torch.zeros(1, 1).double(), torch.zeros(1, 1).long(), 1)
    bounds = bound(Instance.of(network, region), asked, METHODS["alpha"]).value
    asked = replace(asked, offsets=-bounds - 0.005)  # not enough for alpha
    questions = Questions(region, asked, lambda i, x, y: False)
    outcome, found = decided(path, questions, Complete(split=("neurons",)))
    assert outcome.reason == "branching"
    assert found == pytest.approx(outcome.margin, rel=1e-6)
