"""Parts of a search's tree that others work on: nothing that is lost on the way counts as proven."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.exact_cells import least_margin
from tests.run.files import random_dense, save
from torch import Tensor

from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS
from krelax.certificate.check import check
from krelax.certificate.format.schema import Certificate
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search import divided
from krelax.search.boxes import BoxResult, InputSplitting, Splitting, work_on
from krelax.search.divided import Came
from krelax.search.effort import Complete
from krelax.search.exchange import Exchange, exchange, shared_by
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome
from krelax.watch import counted

INPUTS, SIDE = 3, 0.5
SMALL = Splitting(batch=8)


class AtOnce(Exchange):
    """Somebody who wants one part at any time, and has `work` done before the search goes on."""

    def __init__(self, work: Callable[[bytes], bytes | None] = work_on) -> None:
        super().__init__(hard=-1.0)
        self.work, self.parts = work, 0

    @property
    def wanted(self) -> int:
        return 1

    def give(self, part: bytes) -> str:
        name, self.parts = super().give(part), self.parts + 1
        self.trade({name: self.work(part)}, 1)
        return name


class Nobody(AtOnce):
    """Somebody who takes parts and is not heard of again, but for answers to parts that nobody gave."""

    def give(self, part: bytes) -> str:
        self.parts += 1
        self.trade({"another": b"what would fail if it were read"}, 1)
        return Exchange.give(self, part)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(random_dense([INPUTS, 12, 12, 3], seed=1), tmp_path_factory.mktemp("model") / "net.onnx")


@pytest.fixture(scope="module")
def network(model: Path) -> Network:
    return load_onnx(model)


def region(network: Network) -> Box:
    side = torch.full((1, *network.input_shape), SIDE, dtype=torch.float64)
    return Box(-side, side)


def asked(network: Network, above: float) -> Queries:
    """One clause of two margins, which is as much above zero."""
    rows, clause = torch.tensor([[[1.0, -1, 0], [1, 0, -1]]], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.int64)
    side = np.full(INPUTS, SIDE)
    least = float(least_margin(network, -side, side, [(rows[0].numpy(), np.zeros(2))]).value)
    return Queries(rows, torch.full((1, 2), above - least, dtype=torch.float64), clause, 1)


def search(network: Network, queries: Queries, shared: Exchange | None, seconds: float | None = None) -> BoxResult:
    def confirm(points: Tensor) -> bool:
        return bool((queries.margin(queries.values(network(points)[None])) <= 0).any())

    if shared is None:
        return InputSplitting(Instance.of(network, region(network)), queries, SMALL, confirm).run(seconds)
    with shared_by(shared):
        return InputSplitting(Instance.of(network, region(network)), queries, SMALL, confirm).run(seconds)


def test_what_is_divided_has_the_same_answer(network: Network) -> None:
    shared = AtOnce()
    found = search(network, asked(network, 1e-4), shared)
    assert found.holds
    assert 0 < found.margin <= 1e-4
    assert shared.parts > 1
    assert not search(network, asked(network, -1e-4), AtOnce()).holds


def test_boxes_that_come_back_as_they_were_are_still_to_be_closed(network: Network) -> None:
    shared, queries = AtOnce(lambda part: None), asked(network, 1e-4)
    found, alone = search(network, queries, shared), search(network, queries, None)
    assert found.holds
    assert shared.parts > 1
    assert 0 < found.margin <= 1e-4
    assert found.boxes >= alone.boxes > 64


def test_boxes_that_are_lost_do_not_count_as_proven(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = asked(network, 1e-4)
    found = search(network, queries, Nobody(), 0.2)
    assert (found.holds, found.violated, found.reason) == (False, False, "timeout")
    assert found.margin == -torch.inf
    monkeypatch.setattr(divided, "_LATE", 0.0)
    assert search(network, queries, Nobody()).holds


@pytest.mark.parametrize("closed", [float("nan"), -torch.inf, -1.0])
def test_what_others_did_not_close_is_still_to_be_closed(network: Network, closed: float) -> None:
    """A smallest bound that closes nothing, of whatever is left out."""

    def work(part: bytes) -> bytes | None:
        came: Came = pickle.loads(work_on(part) or b"")
        none = came.open.select(torch.zeros(0, dtype=torch.int64))
        bound = torch.tensor([closed], dtype=torch.float64)
        return pickle.dumps(replace(came, closed=bound, open=none, points=came.points[:0]))

    shared = AtOnce(work)
    with shared_by(shared):
        splitting = InputSplitting(Instance.of(network, region(network)), asked(network, -1e-3), SMALL, lambda _: False)
    assert not splitting.run(None, 12).holds
    assert shared.parts > 1


def test_what_a_part_takes_for_a_counterexample_is_asked_of_the_model(network: Network) -> None:
    queries, shared, shown = asked(network, -0.01), AtOnce(), list[Tensor]()

    def confirm(points: Tensor) -> bool:
        shown.extend(points)
        return answer

    for answer in (True, False):
        shared.parts = 0
        shown.clear()
        with shared_by(shared):
            instance = Instance.of(network, region(network))
            # what is found here is not asked about
            whole = InputSplitting(instance, queries, SMALL, lambda points: False)
        assert whole._away is not None
        whole._replay.asks = confirm
        whole._replay._vain, whole._replay._best = 10**9, -torch.inf
        found = whole.run(None, 40)
        assert found.violated is answer
        assert not found.holds
        assert len(shown) > 0
        assert bool((queries.margin(queries.values(network(torch.stack(shown))[None])) <= 0).all())
        assert answer or shared.parts < 40  # such a helper is not asked any more


def test_the_trees_of_parts_are_one_certificate(network: Network, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krelax.search.boxes.SECONDS", 0.005)  # so that parts leave something
    queries, found, shared = asked(network, 1e-3), list[Outcome](), AtOnce()
    questions = Questions(region(network), queries, lambda i, x, y: False)
    plan = Plan((METHODS["interval"], Complete(("inputs",), boxes=SMALL)))
    with shared_by(shared):
        decide(network, questions, plan, lambda _, outcome: found.append(outcome), 30.0, proofs=True)
    proof, data = found[0].proofs[0], model.read_bytes()
    assert shared.parts > 1
    assert proof.boxes is not None
    assert proof.boxes.weights is not None
    assert len(proof.boxes.weights) == (proof.boxes.cut < 0).sum()
    made = Certificate(hashlib.sha256(data).hexdigest(), "real", "test", [proof])
    assert 0 < check(made, data)[0] <= 1e-3 + 1e-9


def test_nothing_is_given_before_a_question_is_hard_and_where_work_is_counted() -> None:
    with shared_by(Exchange()):
        found = exchange()
        assert found is not None
        found.trade({}, 3)
        assert found.wanted == 0
        with counted():
            assert exchange() is None
    assert exchange() is None
