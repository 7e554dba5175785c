"""Questions with a known answer, put to `decide`, and what any answer must satisfy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.exact_cells import Clause, least_margin

from krelax.network.graph import Network
from krelax.problem.query import Case, Halfspace, Specification
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import about_specification
from krelax.search.verdict import Outcome, Verdict

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Question:
    """A box of inputs, `input_shape`, and the clauses that must all have a positive entry everywhere in it."""

    lower: Array
    upper: Array
    clauses: tuple[Clause, ...]

    def cases(self) -> list[Case]:
        """The same as unsafe cases: one for each clause, half-spaces with exact coefficients."""
        lower, upper = self.lower.flatten(), self.upper.flatten()
        return [
            Case(lower, upper, tuple(_halfspace(*member) for member in zip(*clause, strict=True)))
            for clause in self.clauses
        ]


def _halfspace(row: Any, offset: float) -> Halfspace:
    return Halfspace({i: Fraction(float(c)) for i, c in enumerate(row) if c}, Fraction(float(offset)))


def replayed(network: Network) -> Network:
    """The network with its own evaluation in float32 as the original model."""
    single = network.to(torch.float32)
    return replace(network, replay=lambda x: single(torch.from_numpy(x)[None])[0].numpy())


def specification(network: Network, questions: Sequence[Question]) -> Specification:
    """All questions in one; they must have different boxes to stay apart."""
    inputs, outputs = (int(np.prod(shape)) for shape in (network.input_shape, network.output_shape))
    return Specification(inputs, outputs, tuple(case for question in questions for case in question.cases()))


def answers(
    network: Network,
    questions: Sequence[Question],
    plan: str | Plan = "auto",
    timeout: float | None = None,
    device: str = "cpu",
) -> list[Outcome]:
    """The outcome of every question; each must be reported exactly once."""
    asked = about_specification(network, specification(network, questions))
    assert len(asked) == len(questions)
    found: dict[int, Outcome] = {}

    def report(index: int, outcome: Outcome) -> None:
        assert index not in found
        found[index] = outcome

    decide(network, asked, Plan.of(plan) if isinstance(plan, str) else plan, report, timeout, device)
    return [found[i] for i in range(len(questions))]


def check_counterexample(outcome: Outcome, network: Network, question: Question) -> None:
    """VIOLATED comes with a float32 input of the box whose replayed output is unsafe, in rational arithmetic."""
    found = outcome.counterexample
    assert outcome.verdict is Verdict.VIOLATED
    assert found is not None
    assert network.replay is not None
    assert found.x.dtype == np.float32
    assert found.x.shape == network.input_shape
    np.testing.assert_array_equal(network.replay(found.x), found.y)
    assert any(case.contains(found.x.flatten(), found.y.flatten()) for case in question.cases())


def margin_at(network: Network, question: Question, x: Any) -> Fraction:
    """The exact margin of the network of real numbers at one input; piecewise-linear networks only."""
    return least_margin(network, x, x, question.clauses).value
