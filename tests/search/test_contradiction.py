"""Proofs by contradiction: no input at which a margin is small falls out of what is known there, bounds contradict each
other only where there is no such input, and what is proven is accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.bounds.test_ascent import convolution, residual
from tests.bounds.test_branching import bounds_of, of_box
from tests.bounds.test_clipping import dyadic_layers, grid
from tests.exact import minimum
from tests.marks import at_night_after
from tests.search.test_writing import accepted, searched
from torch import Tensor

from krelax.bounds.branching import Effort
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.methods import METHODS, bound
from krelax.certificate.errors import Rejected
from krelax.certificate.format.schema import Refutation
from krelax.certificate.kernel.arithmetic import Exact
from krelax.certificate.kernel.question import check_question
from krelax.certificate.onnx.reader import read_network
from krelax.network.graph import Network
from krelax.problem.extensions import Assumption
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.complete import decide_question
from krelax.search.contradiction import Contradiction
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan
from krelax.search.verdict import Verdict

# Nothing but contradictions, and branching behind them at the very end.
ALONE = Complete(split=("neurons",), passes=(), turn=0.0, hope=0.0, judged=0, promising=0.0, portion=0.01)
SWEEPS = (Effort(rounds=0), Effort(leaves=16, rounds=6), Effort(leaves=16, rounds=6))


def swept(instance: Instance, assumption: Assumption) -> Iterator[tuple[bool, Contradiction]]:
    """Sweeps until bounds contradict each other: whether they do, and what is known then."""
    search = Contradiction(instance, bounds_of(instance), assumption)
    for effort in SWEEPS:
        found = search.sweep(effort, float("inf"))
        yield found, search
        if found:
            return


@pytest.mark.parametrize("share", at_night_after(1, [0.05, 0.0, 0.002]))
@pytest.mark.parametrize("seed", at_night_after(1, range(8)))
def test_no_input_with_a_small_margin_is_lost(seed: int, share: float) -> None:
    """Float64 computes these networks exactly at the points of the grid, so that there is no tolerance."""
    instance = of_box(dyadic_layers(seed, 2, 6, 5, 4, 2), [-0.5, -0.5], [0.5, 0.5])
    values, row = instance.network.values(grid()), torch.tensor([1.0, -1.0]).double()
    margins = values[-1] @ row
    offset, level = torch.tensor(0.25).double() - margins.quantile(share), 0.25
    here = margins + offset <= level
    widths = [float((u - l).sum()) for l, u in zip(*ends(bounds_of(instance)), strict=True)]
    for contradict, search in swept(instance, Assumption(row, offset, level)):
        assert not contradict
        for value, lower, upper in zip(values, *ends(search.bounds), strict=True):
            assert (value[here] >= lower).all()
            assert (value[here] <= upper).all()
    narrowed = [float((u - l).sum()) for l, u in zip(*ends(search.bounds), strict=True)]
    assert narrowed < widths


def ends(bounds: LayerBounds) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    return bounds.lower, bounds.upper


@pytest.mark.parametrize("seed", at_night_after(1, range(12)))
def test_contradictions_are_the_truth(seed: int) -> None:
    """The exact minimum of the margin says whether bounds may contradict each other."""
    layers = dyadic_layers(seed, 2, 5, 4, 2)
    instance = of_box(layers, [-0.5, -0.5], [0.5, 0.5])
    least = minimum(layers, [1.0, -1.0], 0.0, [-0.5, -0.5], [0.5, 0.5])
    row = torch.tensor([1.0, -1.0]).double()
    found = {}
    for gap in (Fraction(-1, 16), Fraction(0), Fraction(1, 64), Fraction(2)):
        offset = torch.tensor(float(gap - least)).double()  # the least margin is now about the gap
        *_, (found[gap], _) = swept(instance, Assumption(row, offset, 2.0**-10))
    assert not found[Fraction(-1, 16)]
    assert not found[Fraction(0)]
    assert found[Fraction(2)]


@pytest.mark.parametrize("build", [residual, convolution])
@pytest.mark.parametrize("seed", at_night_after(1, range(3)))
def test_other_networks_lose_no_input_either(build: Callable[[np.random.Generator], Network], seed: int) -> None:
    """Rounding of the values themselves is far below the tolerance."""
    network = build(np.random.default_rng(seed))
    half = torch.full((1, *network.input_shape), 0.5).double()
    instance = Instance.of(network, Box(-half, half))
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(20000, *network.input_shape, generator=generator, dtype=torch.float64) - 0.5
    values = network.values(x)
    row = torch.zeros(values[-1][0].numel()).double()
    row[0] = 1.0
    margins = values[-1].flatten(1) @ row
    offset = torch.tensor(0.5).double() - margins.quantile(0.01)
    here = margins + offset <= 0.5
    for contradict, search in swept(instance, Assumption(row, offset, 0.5)):
        assert not contradict
        for value, lower, upper in zip(values, *ends(search.bounds), strict=True):
            assert (value[here] >= lower - 1e-12).all()
            assert (value[here] <= upper + 1e-12).all()


@pytest.mark.parametrize("seed", at_night_after(1, range(3)))
def test_members_of_settled_clauses_are_left_alone(seed: int) -> None:
    """One that is never positive is nearer to zero than the margin that is to be proven."""
    layers = dyadic_layers(seed, 2, 6, 5, 4, 2)
    instance = of_box(layers, [-0.5, -0.5], [0.5, 0.5])
    least = minimum(layers, [1.0, -1.0], 0.0, [-0.5, -0.5], [0.5, 0.5])
    rows = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [1.0, -1.0]]]).double()
    offsets = torch.tensor([[1.0, -(2.0**-10), float(Fraction(1, 16) - least)]]).double()
    queries = Queries(rows, offsets, torch.tensor([[0, 0, 1]]), 2)
    found = bound(instance, queries, METHODS["interval"])
    assert found.value[0, 2] < found.value[0, 1] < 0
    assert 0 < decide_question(instance, queries, found, ALONE, lambda _: None).margin <= 1 / 16


@pytest.mark.parametrize("name", at_night_after(1, ["digits_conv", "digits_dense"]))
def test_what_contradictions_prove_is_accepted(name: str, tmp_path: Path) -> None:
    """In rational arithmetic, too; and nothing that they say can be left out."""
    outcomes, model = searched(name, 0.08, Plan((METHODS["crown"], METHODS["alpha"], ALONE)), slice(5, 8))
    assert all(o.verdict is Verdict.HOLDS for o in outcomes)
    proven = [o for o in outcomes if o.proofs[0].cases]
    assert proven
    for outcome in proven:
        accepted(outcome, model, tmp_path / "c.zip")
        question = outcome.proofs[0]
        for case in question.cases or []:
            without = [Refutation(case.margin, case.level) if c is case else c for c in question.cases or []]
            with pytest.raises(Rejected):
                accepted(replace(outcome, proofs=(replace(question, cases=without),)), model, tmp_path / "c.zip")
    assert check_question(read_network(model).over(Exact()), proven[0].proofs[0], Exact()).margin > 0
