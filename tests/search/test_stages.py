"""Boxes between the stages of a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.search.asking import Question, answers
from tests.search.small import _dense
from tests.search.test_boxes import chain

from krelax.activations import ReLU
from krelax.bounds.boxed import Bounder
from krelax.bounds.methods import METHODS
from krelax.network.graph import Builder, Network
from krelax.network.linear import Conv
from krelax.network.ops import Reshape
from krelax.problem.images import Images
from krelax.search import inputs
from krelax.search.attack import Attack
from krelax.search.boxes import BoxResult, InputSplitting, Splitting
from krelax.search.complete import OFF_COURSE
from krelax.search.effort import Complete
from krelax.search.neurons import Neurons
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import about_images
from krelax.search.run import Run
from krelax.search.verdict import Outcome, Verdict

BOXES = Splitting()
Searches = list[InputSplitting]


def loose() -> tuple[Network, Question]:
    """A question that crown leaves open and boxes decide."""
    network = chain(seed=7, act=ReLU(), width=12)
    x = torch.linspace(-1, 1, 201, dtype=torch.float64)
    y = network(torch.cartesian_prod(x, x))
    rows = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    offset = 0.2 - float((y @ rows.T).min())
    return network, Question(-torch.ones(2).numpy(), torch.ones(2).numpy(), ((rows.numpy(), [offset]),))


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> Searches:
    """The searches over boxes that were begun."""
    begun: Searches = []
    whole = InputSplitting.__init__

    def init(self: InputSplitting, *args: object) -> None:
        begun.append(self)
        whole(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(InputSplitting, "__init__", init)
    return begun


def ask(monkeypatch: pytest.MonkeyPatch, spent: float, *stages: object) -> Outcome:
    """The answer where other stages have taken so many seconds."""
    monkeypatch.setattr(Run, "spent", lambda self, index, name=None: 0.0 if name else spent)
    network, question = loose()
    (outcome,) = answers(network, [question], Plan((METHODS["crown"], *stages)))  # type: ignore[arg-type]
    return outcome


def test_boxes_that_are_cheap_come_before_dearer_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = ask(monkeypatch, 60.0, Attack(), BOXES, METHODS["alpha"])
    assert (outcome.verdict, outcome.reason) == (Verdict.HOLDS, "boxes")
    assert [stage.name for stage in outcome.stages] == ["crown", "attack", "boxes"]


def test_boxes_that_are_dear_do_not(monkeypatch: pytest.MonkeyPatch, searches: Searches) -> None:
    outcome = ask(monkeypatch, 0.0, BOXES)
    assert outcome.verdict is Verdict.UNKNOWN
    assert not searches


@pytest.mark.parametrize("dear", [True, False])
def test_boxes_go_before_passes_that_are_dear(monkeypatch: pytest.MonkeyPatch, dear: bool, searches: Searches) -> None:
    if dear:
        monkeypatch.setattr(inputs, "_DEAR", 0.0)
        monkeypatch.setattr(inputs, "PRODUCTS", 1.0)
        monkeypatch.setattr(Bounder, "passes", 1e9)
    network, question = loose()
    (outcome,) = answers(network, [question], Plan((replace(BOXES, ahead=True), METHODS["crown"])))
    assert [stage.name for stage in outcome.stages] == (["boxes"] if dear else ["crown"])
    assert outcome.verdict is (Verdict.HOLDS if dear else Verdict.UNKNOWN)
    assert len(searches) == dear


def test_boxes_that_passes_would_undercut_stop_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_DEAR", 0.0)
    monkeypatch.setattr(inputs, "PRODUCTS", 1.0)
    monkeypatch.setattr(Bounder, "passes", 0.0)
    network, question = loose()
    (outcome,) = answers(network, [question], Plan((replace(BOXES, ahead=True), METHODS["crown"])))
    assert [stage.name for stage in outcome.stages] == ["boxes", "crown"]
    assert outcome.verdict is Verdict.UNKNOWN


def test_boxes_go_on_where_they_stopped(monkeypatch: pytest.MonkeyPatch, searches: Searches) -> None:
    run, allowed = InputSplitting.run, iter([0.0, 0.0])
    ran: list[InputSplitting] = []

    def short(self: InputSplitting, seconds: float | None, rounds: float) -> BoxResult:
        ran.append(self)
        return run(self, next(allowed, seconds), rounds)

    monkeypatch.setattr(InputSplitting, "run", short)
    outcome = ask(monkeypatch, 60.0, BOXES, BOXES, Complete(("inputs",)))
    assert (outcome.verdict, outcome.reason) == (Verdict.HOLDS, "boxes")
    assert len(ran) >= 3
    assert len(searches) == 1


def test_boxes_that_fail_leave_the_question_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: InputSplitting, seconds: float | None, rounds: float) -> BoxResult:
        raise torch.OutOfMemoryError("not enough")

    monkeypatch.setattr(InputSplitting, "run", fail)
    outcome = ask(monkeypatch, 60.0, BOXES, Complete(("neurons",)))
    assert outcome.verdict is Verdict.HOLDS


def pixels(side: int) -> Network:
    """Two convolutions of a picture."""
    builder, kernel, node = Builder((1, 1, side, side)), torch.ones(1, 1, 3, 3).double(), 0
    for _ in range(2):
        node = builder.add(ReLU(), builder.add(Conv(kernel, None, (1, 1), (1, 1), (1, 1)), node))
    return builder.build(builder.add(Reshape((side * side,)), node))


@pytest.mark.parametrize(("side", "first"), [(6, "crown"), (110, "attack")])
def test_an_attack_goes_before_passes_that_are_far_dearer(side: int, first: str) -> None:
    """Two passes for each neuron, or a thousand in all."""
    network = pixels(side)
    attack, plan = Attack(), Plan.of("auto")
    arranged = plan.arranged(network)
    kept = [stage for stage in arranged.stages if stage in (METHODS["crown"], attack)]
    assert kept == ([METHODS["crown"], attack] if first == "crown" else [attack, METHODS["crown"]])
    assert [s for s in arranged.stages if s != attack] == [s for s in plan.stages if s != attack]
    for cheap in ("interval", "zonotope", "crown-ibp"):
        assert Plan.of(cheap).arranged(network) == Plan.of(cheap)


@pytest.mark.parametrize("patience", [0.05, torch.inf])
def test_a_search_that_is_off_course_ends_early_and_says_how_much_was_missing(
    patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Neurons, "ahead", torch.inf)
    rng = np.random.default_rng(5)
    network = _dense(rng, 16, ReLU(), (24, 24, 24))
    inputs = rng.normal(size=(1, 16)).astype(np.float32)
    label = network(torch.from_numpy(inputs).double()).argmax(1).numpy()
    questions = about_images(network, Images(inputs, label), 0.7, "linf", None)
    found: list[Outcome] = []
    plan = Plan((METHODS["crown"], Complete(split=("neurons",), patience=patience)))
    decide(network, questions, plan, lambda _, outcome: found.append(outcome), 1.0, each=1.0, deterministic=True)
    (outcome,) = found
    assert (outcome.reason, outcome.seconds < 0.5) == ((OFF_COURSE, True) if patience < 1 else ("timeout", False))
    assert outcome.margin is not None
    assert outcome.worst < 0
    assert outcome.margin < outcome.worst + 1e-3  # it is proposed, not proven
