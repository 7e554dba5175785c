"""Trees of linear programs: complete on small networks, never above the exact minimum, and accepted as certificates."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from tests.certificate.proofs import as_file
from tests.exact_cells import least_margin
from tests.marks import at_night_after

from krelax.activations import LeakyReLU, ReLU
from krelax.bounds.backward import outputs
from krelax.bounds.convex import convex_neurons
from krelax.bounds.instance import Instance
from krelax.bounds.lp_leaves import Infeasible, LeafPrograms
from krelax.bounds.methods import METHODS, bound
from krelax.certificate.check import check
from krelax.certificate.format.schema import Certificate
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.network.onnx import load_onnx
from krelax.op import Op
from krelax.problem.queries import Queries
from krelax.problem.region import Box, ball
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan, decide
from krelax.search.programs import Tree
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict

ALONE = Plan((Complete(split=("programs",)),))


def drawn(seed: int, act: Op, widths: tuple[int, ...] = (2, 5, 4, 1)) -> Network:
    """Coefficients are eighths, so that nothing rounds."""
    rng, builder, last = np.random.default_rng(seed), Builder((widths[0],)), 0
    for n, m in pairwise(widths):
        weight, bias = (torch.from_numpy(rng.integers(-8, 9, size=s) / 8) for s in ((m, n), (m,)))
        last = builder.add(Dense(weight, bias), last)
        if m > 1:
            last = builder.add(act, last)
    return builder.build(last)


def satisfiability(clauses: list[tuple[int, ...]], variables: int) -> tuple[Network, Queries, Box]:
    """Is no vector of zeros and ones between them such that every clause has a literal that is true? Literals are
    numbered from 1, negative ones below zero. A variable x costs `min(x, 1 - x)`, a clause what it lacks."""
    weight, bias = torch.zeros(len(clauses) + 2 * variables, variables).double(), []
    for row, clause in enumerate(clauses):
        for literal in clause:
            weight[row, abs(literal) - 1] = -1 if literal > 0 else 1
        bias.append(1.0 - sum(literal < 0 for literal in clause))
    for x in range(variables):
        weight[len(clauses) + 2 * x, x], weight[len(clauses) + 2 * x + 1, x] = 1, 2
        bias += [0.0, -1.0]
    lacks = torch.tensor([1.0] * len(clauses) + [0.0] * 2 * variables).double()
    between = torch.tensor([0.0] * len(clauses) + [1.0, -1.0] * variables).double()
    builder = Builder((variables,))
    hidden = builder.add(ReLU(), builder.add(Dense(weight, torch.tensor(bias).double()), 0))
    network = builder.build(builder.add(Dense(torch.stack([lacks, between])), hidden))
    queries = Queries(torch.eye(2).double()[None], torch.zeros(1, 2).double(), torch.zeros(1, 2).long(), 1)
    return network, queries, Box(torch.zeros(1, variables).double(), torch.ones(1, variables).double())


def parity(variables: int, odd: bool) -> list[tuple[int, ...]]:
    """That neighbours in a ring differ, which they cannot if it is odd."""
    ring = [(x + 1, (x + 1) % variables + 1) for x in range(variables)]
    differ: list[tuple[int, ...]] = [clause for a, b in ring for clause in ((a, b), (-a, -b))]
    return differ + ([] if odd else [(1, 2)])


def random_clauses(seed: int, variables: int, count: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(rng.choice(variables, 3, replace=False) + 1) * rng.choice([-1, 1], 3) for _ in range(count)]


def satisfiable(clauses: list[Any], variables: int) -> bool:
    signs = np.array(list(product([-1, 1], repeat=variables)))
    true = [np.any([signs[:, abs(l) - 1] * l > 0 for l in clause], axis=0) for clause in clauses]
    return bool(np.all(true, axis=0).any())


def settled(network: Network, region: Box, queries: Queries, plan: Plan = ALONE) -> Outcome:
    outcomes: list[Outcome] = []

    def run(x: Any) -> Any:
        return network(torch.from_numpy(x).double()[None])[0].numpy()

    def unsafe(i: int, x: Any, y: Any) -> bool:
        return bool((queries.rows[0].numpy() @ y.flatten() + queries.offsets[0].numpy() <= 0).all())

    network = replace(network, replay=run)
    decide(network, Questions(region, queries, unsafe), plan, lambda i, o: outcomes.append(o), 900, proofs=True)
    return outcomes[0]


def about(offset: float) -> Queries:
    return Queries(torch.ones(1, 1, 1).double(), torch.tensor([[offset]]).double(), torch.zeros(1, 1).long(), 1)


def exact(network: Network, region: Box, queries: Queries) -> Fraction:
    clauses = [(queries.rows[0].numpy(), queries.offsets[0].numpy())]
    return least_margin(network, region.lower[0].numpy(), region.upper[0].numpy(), clauses).value


SQUARE = Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double())


@pytest.mark.parametrize("act", [ReLU(), LeakyReLU(0.25)], ids=["relu", "leaky"])
@pytest.mark.parametrize("seed", at_night_after(2, range(6)))
def test_small_networks_are_decided_up_to_rounding(seed: int, act: Op) -> None:
    """Questions that hold by as little as a thousandth hold, and those that do not never do."""
    network = drawn(seed, act)
    least = exact(network, SQUARE, about(0.0))
    queries = about(1 / 1024 - float(least))
    outcome = settled(network, SQUARE, queries)
    assert outcome.verdict is Verdict.HOLDS
    assert outcome.margin is not None
    assert 0 < Fraction(outcome.margin) <= exact(network, SQUARE, queries)
    assert settled(network, SQUARE, about(-float(least))).verdict is not Verdict.HOLDS
    assert settled(network, SQUARE, about(-1 / 1024 - float(least))).verdict is Verdict.VIOLATED


@pytest.mark.parametrize("seed", at_night_after(2, range(6)))
def test_leaves_are_below_the_minimum_behind_their_splits(seed: int) -> None:
    """Whatever the slopes are, what a leaf proves is not above the form at any point where its splits hold."""
    network, rng = drawn(seed, ReLU(), (3, 6, 5, 1)), np.random.default_rng(seed)
    region = Box(-torch.ones(1, 3).double(), torch.ones(1, 3).double())
    instance, queries = Instance.of(network, region), about(0.0)
    x = torch.from_numpy(rng.uniform(-1, 1, size=(4000, 3)))
    values = [x]
    for node in network.nodes[1:]:
        values.append(node.op.forward(*(values[j] for j in node.inputs)))
    with torch.no_grad():
        found = bound(instance, queries, METHODS["crown"])
        # a level that the form goes below somewhere, so that some leaves are closed and others are not
        level = float(values[-1].min()) + 0.25
        programs = LeafPrograms(instance, found.bounds, queries.rows[0, 0], -level)
        for _ in range(12):
            chosen = rng.permutation(len(programs.nodes))[: rng.integers(0, 4)].tolist()
            path = [(neuron, int(rng.choice([-1, 1]))) for neuron in chosen]
            leaf = programs.solve(path)
            mine = torch.ones(len(x), dtype=torch.bool)
            for neuron, side in path:
                z = values[network.nodes[int(programs.nodes[neuron])].inputs[0]]
                mine &= z[:, int(programs.entries[neuron])] * side >= 0
            slopes = leaf.slopes if isinstance(leaf, Infeasible) else {}
            noise = {i: s + torch.from_numpy(rng.normal(size=tuple(s.shape))) for i, s in slopes.items()}
            for choice in (slopes, noise) if slopes else ():
                proven = float(programs.prove([path], [choice])[0])
                assert not bool(mine.any()) or proven <= float(values[-1][mine].min()) - level
            if isinstance(leaf, Infeasible):
                assert float(programs.prove([path], [slopes])[0]) > 0


@pytest.mark.parametrize("variables", [3, 5, 8])
def test_parity_is_decided(variables: int) -> None:
    network, queries, region = satisfiability(parity(variables, odd=True), variables)
    outcome = settled(network, region, queries)
    assert outcome.verdict is (Verdict.HOLDS if variables % 2 else Verdict.VIOLATED)


@pytest.mark.parametrize("seed", at_night_after(2, range(6)))
def test_clauses_are_decided_as_by_trying(seed: int) -> None:
    clauses = random_clauses(seed, 9, 36 if seed % 2 else 52)
    network, queries, region = satisfiability(clauses, 9)
    outcome = settled(network, region, queries)
    assert outcome.verdict is (Verdict.VIOLATED if satisfiable(clauses, 9) else Verdict.HOLDS)


def test_convex_neurons_are_those_behind_coefficients_that_are_never_negative() -> None:
    network, queries, region = satisfiability(parity(3, odd=True), 3)
    instance, total = (
        Instance.of(network, region),
        Queries(torch.ones(1, 1, 2).double(), torch.zeros(1, 1).double(), torch.zeros(1, 1).long(), 1),
    )
    with torch.no_grad():
        found = bound(instance, queries, METHODS["crown"])
        form = outputs(network, total.rows, total.offsets)
        (convex,) = convex_neurons(network, form, found.bounds).values()
    assert convex.tolist() == [True] * 6 + [True, False] * 3


def test_a_part_that_closes_without_a_split_closes_the_other_side_too() -> None:
    """Clauses about three variables contradict each other, whatever the others are."""
    every = [tuple(s * (v + 1) for v, s in enumerate(signs)) for signs in product([-1, 1], repeat=3)]
    network, queries, region = satisfiability(every, 6)
    instance = Instance.of(network, region)
    total = torch.tensor([1.0, 1.0]).double()
    with torch.no_grad():
        found = bound(instance, queries, METHODS["crown"])
        programs = LeafPrograms(instance, found.bounds, total, 0.0)
        tree = Tree(programs)
        tree._score[:] = [0, 0, 0, 3, 2, 1]  # those that do not matter first
        tree._choose = lambda found: int(  # type: ignore[method-assign]
            max(set(range(6)) - {n for n, _ in tree._path}, key=lambda n: tree._score[n])
        )
        while not tree.done:
            tree.advance()
        assert all({neuron for neuron, _ in leaf.path} <= {0, 1, 2} for leaf in tree.leaves)
        paths, slopes = [leaf.path for leaf in tree.leaves], [leaf.slopes for leaf in tree.leaves]
        assert bool((programs.prove(paths, slopes) > 0).all())


def _keep(found: list[Outcome], index: int, outcome: Outcome) -> None:
    found.append(outcome)


KINDS, NORMS = [("Relu", "Relu"), ("Sigmoid", "Relu"), ("LeakyRelu", "Sigmoid")], ("linf", "l2", "l1")
# all kinds and norms always, and all pairs at night
NORMED = [(kinds, NORMS[(i + j) % 3]) for j in range(3) for i, kinds in enumerate(KINDS)]


@pytest.mark.parametrize(("kinds", "norm"), at_night_after(3, NORMED))
def test_certificates_are_accepted_in_every_norm(kinds: tuple[str, str], norm: str, tmp_path: Path) -> None:
    """Also where activations that are not split lie before or behind those that are."""
    proven = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        weights = [rng.normal(size=shape).astype(np.float32) for shape in ((6, 3), (5, 6), (2, 5))]
        biases = [rng.normal(size=len(w)).astype(np.float32) / 3 for w in weights]
        named = {f"{kind}{i}": t for kind, ts in (("w", weights), ("b", biases)) for i, t in enumerate(ts)}
        nodes, last = [], "x"
        for i, kind in enumerate((*kinds, "Identity")):
            nodes += [helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"z{i}"], transB=1),
                      helper.make_node(kind, [f"z{i}"], [f"a{i}"])]  # fmt: skip
            last = f"a{i}"
        data = as_file(nodes, [numpy_helper.from_array(t, n) for n, t in named.items()], [1, 3], last)
        path = tmp_path / "small.onnx"
        path.write_bytes(data)
        network, region = load_onnx(path), ball(torch.zeros(1, 1, 3).double(), 0.6, norm, clip=None)
        points = region.project(torch.rand(1, 5000, 1, 3, dtype=torch.float64) * 1.2 - 0.6)[0]
        offset = 0.15 - float(network(points).flatten(1)[:, 0].min())
        clause = torch.zeros(1, 1, dtype=torch.int64)
        asked = Queries(torch.tensor([[[1.0, 0.0]]]).double(), torch.tensor([[offset]]).double(), clause, 1)
        found = list[Outcome]()
        plan = Plan((METHODS["crown"], Complete(("programs",))))
        questions = Questions(region, asked, lambda i, x, y: False)
        decide(network, questions, plan, partial(_keep, found), 3.0, proofs=True)
        if found[0].reason == "linear programs":
            proven += 1
            certificate = Certificate(hashlib.sha256(data).hexdigest(), "real", "test", list(found[0].proofs))
            assert 0 < check(certificate, data)[0] <= 0.15 + 1e-9
    assert proven or kinds != ("Relu", "Relu")
