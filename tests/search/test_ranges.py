"""Numbers far outside single precision, or on the edge of double: every method answers, and is never wrong."""

from __future__ import annotations

import threading
from fractions import Fraction
from math import inf

import numpy as np
import pytest
import torch
from tests.exact_cells import least_margin
from tests.marks import ALIKE, at_night_after

from krelax.activations import LeakyReLU, Max, ReLU, Sigmoid
from krelax.bounds.instance import Instance, one_core_each
from krelax.bounds.methods import METHODS
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.network.ops import Take
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict

# Sizes of the weights of three layers.
SIZES = [
    (1e39, 1e39, 1.0),
    (1e-50, 1e-50, 1.0),
    (1e150, 1e150, 1e-150),
    (1e200, 1e37, 1e-200),
    (1e-300, 1e300, 1e-300),
    (1e300, 1e300, 1e-300),
    (5e-324, 1.0, 1e300),
    (0.0, 0.0, 0.0),
]
USUAL = sorted(set(METHODS) - ALIKE)
SIDES = [(0.0, 1.5), (-1e30, 1e30), (0.25, 0.25), (-1e-320, 1e-320), (-1e300, 1e300)]


def network(sizes: tuple[float, ...], seed: int, windows: bool = False) -> Network:
    """Two inputs, two hidden layers of four neurons, three outputs."""
    rng, builder = np.random.default_rng(seed), Builder((2,))
    last, widths = 0, (2, 4, 4, 3)
    for size, n, m in zip(sizes, widths, widths[1:], strict=False):
        weight, bias = (torch.from_numpy(np.clip(rng.normal(size=s) * size, -1e308, 1e308)) for s in ((m, n), (m,)))
        last = builder.add(Dense(weight, bias), last)
        if m == 4:
            last = builder.add(ReLU() if rng.random() < 0.7 else LeakyReLU(0.01), last)
            if windows:
                last = builder.add(Max(), builder.add(Take(torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]])), last))
    return builder.build(last)


def asked(lower: float, upper: float, offset: float) -> Questions:
    """Is one output, or the difference of two, above an offset over a square?"""
    box = Box(*(torch.full((1, 2), v, dtype=torch.float64) for v in (lower, upper)))
    rows = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]]], dtype=torch.float64)
    queries = Queries(rows, torch.full((1, 2), offset, dtype=torch.float64), torch.tensor([[0, 0]]), 1)
    return Questions(box, queries, lambda i, x, y: False)


def answer(network: Network, questions: Questions, method: str) -> Outcome:
    answers: list[Outcome] = []
    decide(network, questions, Plan.of(method), lambda i, outcome: answers.append(outcome), timeout=1.0, each=0.25)
    (found,) = answers
    return found


EVERY = ["auto", *USUAL, *sorted(ALIKE)]
# every method with half of the sizes always, all sizes with half of the methods
HALVED = [(method, (i + j) % 2) for j in range(2) for i, method in enumerate(EVERY)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning:krelax.search.replay")
@pytest.mark.parametrize(("method", "half"), at_night_after(len(USUAL) + 1, HALVED))
def test_every_method_answers_outside_the_range(method: str, half: int) -> None:
    for place, sizes in list(enumerate(SIZES))[half::2]:
        sides = SIDES[(place + len(method)) % len(SIDES)]
        made, offset = network(sizes, place, windows=place % 3 == 2), 0.5 * (-1) ** place
        found = answer(made, asked(*sides, offset), method)
        rows = [[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]]
        truth = least_margin(made, np.full(2, sides[0]), np.full(2, sides[1]), [(rows, [offset] * 2)]).value
        assert found.verdict is not Verdict.VIOLATED  # nothing can be replayed
        assert found.verdict is Verdict.UNKNOWN or truth > 0, (sizes, sides)
        assert found.margin is None or found.margin == -inf or Fraction(found.margin) <= truth, (sizes, sides)


@pytest.mark.parametrize("method", ["crown", "alpha", "krelu", "krelu3", "lp"])
def test_sizes_that_cancel_are_bounded_well(method: str) -> None:
    """Where single precision has no numbers for a layer, proposals are made in double precision."""
    plain, scaled = (network(s, 5) for s in ((1.0, 1.0, 1.0), (1e60, 1e-100, 1.0)))
    # the same weights but for their sizes; biases get those of their layers' outputs
    nodes = list(scaled.nodes)
    for i, size in ((1, 1e60), (3, 1e-40), (5, 1e-40)):
        op = plain.nodes[i].op
        assert isinstance(op, Dense)
        assert op.bias is not None
        factor = {1: 1e60, 3: 1e-100, 5: 1.0}[i]
        nodes[i] = type(nodes[i])(Dense(op.weight * factor, op.bias * size), nodes[i].inputs, nodes[i].shape)
    results = []
    for made, unit in ((plain, 1.0), (Network(tuple(nodes)), 1e-40)):
        questions = asked(0.0, 1.5, -1e3 * unit)  # too much to be proven, so that every stage has its turn
        results.append(answer(made, questions, method).margin)
    assert results[0] is not None
    assert results[1] is not None
    assert results[1] == pytest.approx(results[0] * 1e-40, rel=1e-3)


@pytest.mark.parametrize(
    ("weight", "side", "expected"),
    [
        (1.0, 1.0, torch.float32),
        (1e39, 1.0, torch.float64),
        (1e-50, 1.0, torch.float64),
        (1e20, 1e20, torch.float64),
        (1.0, 1e-40, torch.float64),
        (0.0, 1.0, torch.float32),
        (1.0, 0.0, torch.float32),
    ],
)
def test_proposals_are_made_in_a_type_that_has_the_numbers(weight: float, side: float, expected: torch.dtype) -> None:
    builder = Builder((1,))
    made = builder.build(builder.add(Sigmoid(), builder.add(Dense(torch.tensor([[weight]], dtype=torch.float64)), 0)))
    box = Box(*(torch.tensor([[v]], dtype=torch.float64) for v in (-side, side)))
    assert Instance.of(made, box).fast_region.lower.dtype is expected


def test_subnormal_numbers_count_whatever_the_program_has_switched_off() -> None:
    """Flushed to zero, a weight of 2e-308 / 2 would make a margin positive that is not."""
    seen = []
    torch.set_flush_denormal(True)
    try:
        with one_core_each(torch.device("cpu")):
            thread = threading.Thread(target=lambda: seen.append(float(torch.tensor(3e-308).double() * 0 + 1e-310)))
            thread.start()
            thread.join()
            seen.append(float(torch.tensor([1e-310], dtype=torch.float64) * 1))
        # `5e-324 > 0` is false where subnormal numbers are taken for zero
        after = float(torch.tensor([1e-310], dtype=torch.float64) * 1)
        flushed = after == 0
    finally:
        torch.set_flush_denormal(False)
    assert flushed
    assert seen[1] == 1e-310
