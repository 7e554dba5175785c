"""Clauses of several margins, bounded jointly: never above their exact minimum, in searches, boxes and certificates."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.certificate.bases import MODELS
from tests.exact_cells import least_margin
from tests.marks import at_night_after

from krelax.activations import ReLU
from krelax.bounds.backward import outputs
from krelax.bounds.boxed import Bounder, shared_weights
from krelax.bounds.convex import convex_activations
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.mixtures import UNIT
from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.schema import Certificate
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.network.onnx import load_onnx
from krelax.problem.extensions import with_maxima
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.clauses import mixed, pose
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict

ROWS = torch.tensor(
    [[1, -1], [-1, 1], [0.5, 0.25], [-0.25, -0.5], [0, 0], [1, 1], [-1, -1], [0.5, -1], [-1, 0.5]]
).double()
# Margins by their rows above, in clauses: opposite ones, equal ones, rows of zeros, two to nine, and single ones.
CLAUSES: dict[str, Any] = {
    "opposite": [(0, 1)],
    "three": [(0, 1, 5)],
    "five and one": [(0, 2, 4, 6, 7), (1,)],
    "nine": [tuple(range(9))],
    "several": [(3,), (0, 1), (5, 6, 2), (7, 8, 7, 7)],
    "equal": [(2, 2), (3, 3, 0)],
}
# By how much questions hold.
SLACK = 0.5
NETWORKS = ("convolutional", "residual", "pooled")
REGION = Box(torch.full((1, 2), -0.5).double(), torch.full((1, 2), 0.75).double())


def asked(clauses: list[tuple[int, ...]], offset: float = 0.0) -> Queries:
    rows = ROWS[[row for clause in clauses for row in clause]]
    number = torch.tensor([n for n, clause in enumerate(clauses) for _ in clause])
    return Queries(rows[None], torch.full((1, len(rows)), offset).double(), number[None], len(clauses))


def exact(network: Network, region: Box, queries: Queries) -> Fraction:
    parts = [(queries.clause[0] == n).numpy() for n in range(queries.clauses)]
    clauses = [(queries.rows[0].numpy()[p], queries.offsets[0].numpy()[p]) for p in parts]
    shape = network.input_shape
    lower, upper = (t[0].reshape(shape).numpy() for t in (region.lower, region.upper))
    return least_margin(network, lower, upper, clauses).value


def loaded(name: str, folder: Path) -> tuple[Network, Box, Path]:
    path = folder / f"{name}.onnx"
    path.write_bytes(MODELS[name])
    network = load_onnx(path)
    return network, REGION.shaped(network.input_shape), path


def settled(network: Network, region: Box, queries: Queries, plan: Plan) -> Outcome:
    outcomes: list[Outcome] = []
    questions = Questions(region, queries, lambda i, x, y: False)
    decide(network, questions, plan, lambda i, o: outcomes.append(o), 900, proofs=True)
    return outcomes[0]


# every kind of clauses always, on one of the networks; maxima of windows are not split
INPUTS = [(c, NETWORKS[(i + j) % 3], "inputs") for j in range(3) for i, c in enumerate(CLAUSES)]
NEURONS = [(c, NETWORKS[(i + j) % 2], "neurons") for j in range(2) for i, c in enumerate(CLAUSES)]
PROGRAMS = [(c, NETWORKS[i % 2], "programs") for i, c in enumerate(CLAUSES)]


@pytest.mark.parametrize(("clauses", "name", "way"), at_night_after(2 * len(CLAUSES), PROGRAMS + INPUTS))
def test_what_holds_is_proven_and_written_down(clauses: str, name: str, way: Any, tmp_path: Path) -> None:
    proven_and_written_down(clauses, name, way, tmp_path)


@pytest.mark.usefixtures("both_evaluators")
@pytest.mark.parametrize(("clauses", "name", "way"), at_night_after(len(CLAUSES), NEURONS))
def test_what_leaves_show_is_proven_and_written_down(clauses: str, name: str, way: Any, tmp_path: Path) -> None:
    proven_and_written_down(clauses, name, way, tmp_path)


def proven_and_written_down(clauses: str, name: str, way: Any, tmp_path: Path) -> None:
    """The checker derives what a search finds, exactly, too, and nothing that is false."""
    network, region, path = loaded(name, tmp_path)
    least = exact(network, region, asked(CLAUSES[clauses]))
    queries = asked(CLAUSES[clauses], SLACK - float(least))
    outcome = settled(network, region, queries, Plan((Complete(split=(way,), passes=()),)))
    assert outcome.verdict is Verdict.HOLDS
    assert outcome.margin is not None
    truth = exact(network, region, queries)
    assert 0 < Fraction(outcome.margin) <= truth
    certificate = Certificate(hashlib.sha256(path.read_bytes()).hexdigest(), "real", "test", list(outcome.proofs))
    write(tmp_path / "c.zip", certificate)
    certificate = read(tmp_path / "c.zip")
    assert 0 < Fraction(check(certificate, path.read_bytes())[0]) <= truth
    assert 0 < Fraction(check(certificate, path.read_bytes(), exact=True)[0]) <= truth
    (proof,) = certificate.questions
    broken = replace(proof, offsets=proof.offsets - SLACK)
    with pytest.raises(Rejected):
        check(replace(certificate, questions=[broken]), path.read_bytes(), exact=True)


EVERY = [*product(CLAUSES, ("crown", "alpha")), ("several", "lp"), ("three", "krelu")]


@pytest.mark.parametrize(("clauses", "method"), EVERY)
def test_methods_are_below_the_minimum(clauses: str, method: str, tmp_path: Path) -> None:
    """Also where members tie at zero everywhere."""
    network, region, _ = loaded("residual", tmp_path)
    queries = asked(CLAUSES[clauses])
    least, instance = exact(network, region, queries), Instance.of(network, region)
    with torch.no_grad():
        posed = pose(instance, queries, bound(instance, queries, METHODS["crown"]))
        found = bound(posed.instance, posed.queries, METHODS[method], found=posed.found)
    assert Fraction(float(posed.queries.margin(found.value))) <= least


def test_a_tie_of_opposite_margins_is_decided_by_their_sum() -> None:
    """Alone each goes far below zero. Their sum is a constant. Slopes that are written down come close to a half, and a
    split reaches it."""
    network = Builder((2,)).build(0)
    region = Box(torch.full((1, 2), -1.0).double(), torch.ones(1, 2).double())
    queries = asked([(0, 1)], 2.0**-20)
    instance = Instance.of(network, region)
    with torch.no_grad():
        alone = bound(instance, queries, METHODS["alpha"])
        posed = pose(instance, queries, alone)
        jointly = bound(posed.instance, posed.queries, METHODS["alpha"], found=posed.found)
        boxed = Bounder(instance, queries).bound(region.lower, region.upper)
        outcome = settled(network, region, queries, Plan((Complete(split=("neurons",), passes=()),)))
    assert float(alone.value.max()) < -1
    assert -2 / 255 < float(jointly.value) <= 2.0**-20
    assert outcome.verdict is Verdict.HOLDS
    assert 0 < float(boxed.value) <= 2.0**-20


def test_maxima_are_those_of_clauses(tmp_path: Path) -> None:
    network, region, _ = loaded("pooled", tmp_path)
    x = region.lower + torch.rand(64, *network.input_shape, dtype=torch.float64) * (region.upper - region.lower)
    queries = asked([clause for clauses in CLAUSES.values() for clause in clauses]).distinct()[0]
    expected = queries.clause_values(queries.values(network(x)[None]))
    several = [c for c in range(queries.clauses) if int((queries.clause == c).sum()) > 1]
    for joint in (several, several[1::2], several[:1]):
        longer, margins = with_maxima(network, queries, joint)
        assert [n.op for n in longer.nodes[1 : len(network.nodes)]] == [n.op for n in network.nodes[1:]]
        found = margins.clause_values(margins.values(longer(x)[None]))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_of_equal_rows_the_largest_offset_stays() -> None:
    rows = ROWS[[0, 2, 0, 2, 0]][None]
    queries = Queries(rows, torch.tensor([[1.0, 2, 3, 4, 5]]).double(), torch.tensor([[0, 0, 0, 1, 1]]), 2)
    distinct, kept = queries.distinct()
    assert kept.tolist() == [2, 1, 3, 4]
    assert distinct.offsets.tolist() == [[3.0, 2.0, 4.0, 5.0]]
    assert distinct.rows.tolist() == queries.rows[:, kept].tolist()
    assert distinct.clause.tolist() == [[0, 0, 1, 1]]


def test_only_open_clauses_of_several_margins_are_extended() -> None:
    network = Builder((2,)).build(0)
    instance = Instance.of(network, Box(torch.full((1, 2), -1.0).double(), torch.ones(1, 2).double()))
    queries = asked([(0,), (0, 1), (2, 5), (3, 3)])
    queries = replace(queries, offsets=torch.tensor([[9.0, 0, 0, 9, 0, 0, 0]]).double())
    with torch.no_grad():
        found = bound(instance, queries, METHODS["crown"])
        assert mixed(queries, found) == (1,)
        posed = pose(instance, queries, found)
    assert posed.found.joint == (1,)
    assert posed.queries.clause.tolist() == [[0, 2, 2, 3, 1]]
    assert posed.found.value[0, :4].tolist() == found.value[0, [0, 3, 4, 5]].tolist()


def test_forms_are_convex_in_what_joint_clauses_add(tmp_path: Path) -> None:
    network, region, _ = loaded("residual", tmp_path)
    queries, instance = asked(CLAUSES["nine"]), Instance.of(network, region)
    with torch.no_grad():
        posed = pose(instance, queries, bound(instance, queries, METHODS["crown"]))
    longer, asked_ = posed.instance.network, posed.queries
    added = {i for i in longer.activations() if i >= len(network.nodes)}
    assert len(added) == 4
    assert convex_activations(longer, outputs(longer, asked_.rows, asked_.offsets)) == added
    assert convex_activations(longer, outputs(longer, -asked_.rows, asked_.offsets)) == set()


def test_a_network_of_positive_weights_is_convex() -> None:
    builder = Builder((2,))
    first = builder.add(ReLU(), builder.add(Dense(torch.tensor([[1.0, -2.0], [-1.0, 0.5]]).double()), 0))
    second = builder.add(ReLU(), builder.add(Dense(torch.tensor([[1.0, 2.0], [0.5, 0.0]]).double()), first))
    network, none = builder.build(second), torch.zeros(1, 2).double()
    positive, mixed_ = (torch.tensor([rows]).double() for rows in ([[1, 0], [2, 1]], [[1, 0], [2, -1]]))
    assert convex_activations(network, outputs(network, positive, none)) == {2, 4}
    assert convex_activations(network, outputs(network, mixed_, none)) == set()


def test_weights_of_a_clause_add_up_and_are_the_best() -> None:
    generator = torch.Generator().manual_seed(0)
    clause = torch.tensor([0, 1, 0, 2, 0, 1])
    centre, error = (
        torch.randn(50, 6, generator=generator).double(),
        torch.rand(50, 6, generator=generator).double() / 8,
    )
    symbols = torch.randn(50, 4, 6, generator=generator).double()
    weights = shared_weights(centre, symbols, error, clause)
    assert bool((weights == weights.round()).all())
    assert bool((weights >= 0).all())
    for n in range(3):
        mine = clause == n
        assert bool((weights[:, mine].sum(1) == UNIT).all())

        def worth(share: torch.Tensor, mine: torch.Tensor = mine) -> torch.Tensor:
            mixed = (symbols[:, :, mine] * share.unsqueeze(1)).sum(2).abs().sum(1)
            return ((centre - error)[:, mine] * share).sum(1) - mixed

        ours = worth(weights[:, mine] / UNIT)
        for corner in torch.eye(int(mine.sum())).double():
            assert bool((ours >= worth(corner.expand(50, -1)) - 1e-3).all())


def test_weights_that_do_not_add_up_are_malformed(tmp_path: Path) -> None:
    network, region, path = loaded("residual", tmp_path)
    queries = asked([(0, 1), (5,)], 4.0)
    outcome = settled(network, region, queries, Plan((Complete(split=("inputs",)),)))
    (proof,) = outcome.proofs
    assert proof.boxes is not None
    assert proof.boxes.weights is not None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert check(Certificate(digest, "real", "test", [proof]), path.read_bytes())[0] > 0
    weights = proof.boxes.weights
    for wrong in (weights + np.int16(1), weights * np.int16(0), -weights, weights[:, :2], weights[:0]):
        broken = replace(proof, boxes=replace(proof.boxes, weights=wrong))
        with pytest.raises(Malformed):
            check(Certificate(digest, "real", "test", [broken]), path.read_bytes())


def test_regions_with_different_clauses_in_one_batch(tmp_path: Path) -> None:
    network, region, _ = loaded("residual", tmp_path)
    sides = (torch.cat([t, t + 0.25, t, t - 0.125]) for t in (region.lower, region.upper))
    region = Box(*sides)
    every = [
        asked([(0, 1, 5), (5, 6)]),
        asked([(2, 3, 7), (5, 6)]),
        asked([(0, 1, 5), (5, 6)]),
        asked([(5, 5, 5), (6, 6)]),
    ]
    least = [float(exact(network, region.select(torch.tensor([i])), q)) for i, q in enumerate(every)]
    offsets = torch.cat([q.offsets - m + SLACK for q, m in zip(every, least, strict=True)])
    rows, clause = (torch.cat([getattr(q, name) for q in every]) for name in ("rows", "clause"))
    questions = Questions(region, Queries(rows, offsets, clause, 2), lambda i, x, y: False)
    outcomes: dict[int, Outcome] = {}
    plan = Plan((METHODS["crown"], METHODS["alpha"], Complete(split=("neurons",), passes=())))
    decide(network, questions, plan, outcomes.__setitem__, 900, proofs=True)
    model = (tmp_path / "residual.onnx").read_bytes()
    for i in range(4):
        assert outcomes[i].verdict is Verdict.HOLDS
        margin = outcomes[i].margin
        assert margin is not None
        assert 0 < margin <= SLACK + 1e-12
        written = Certificate(hashlib.sha256(model).hexdigest(), "real", "test", list(outcomes[i].proofs))
        assert check(written, model, exact=True)[0] > 0
