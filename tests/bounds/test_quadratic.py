"""Sums of products over boxes to second order: never above exact values, and as good as they should be."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from tests.marks import at_night_after
from torch import Tensor

from krelax.activations import ReLU
from krelax.bounds import boxed
from krelax.bounds.boxed import Bounder
from krelax.bounds.instance import Instance
from krelax.bounds.mixtures import UNIT, improve, whole
from krelax.bounds.quadratic import Rows
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Dense
from krelax.network.ops import Concat
from krelax.network.products import multiply
from krelax.problem.queries import Queries
from krelax.problem.region import Box


def grid(t: Tensor) -> Tensor:
    return (t * 32).round() / 32


def forms(matrices: list[Tensor], shift: Tensor, kinks: bool = False) -> Network:
    """`z^T P z + shift z` for each matrix P, where z is the input x, or `x + relu(x)`; and z itself."""
    builder, ones, none = Builder(tuple(shift.shape)), torch.ones_like(shift)[None], torch.zeros_like(shift)
    z = builder.add(Add((1, 1)), 0, builder.add(ReLU(), 0)) if kinks else 0
    ends = []
    for matrix in matrices:
        product = multiply(builder, z, builder.add(Dense(matrix, none), z))
        linear = builder.add(Dense(shift[None], none[:1]), z)
        ends.append(builder.add(Add((1, 1)), builder.add(Dense(ones, none[:1]), product), linear))
    return builder.build(builder.add(Concat(0), *ends) if len(ends) > 1 else ends[0])


def value(matrix: Tensor, shift: Tensor, x: Tensor, kinks: bool) -> Fraction:
    z = [Fraction(v) for v in x.tolist()]
    z = [v + max(v, Fraction(0)) for v in z] if kinks else z
    rows, count = matrix.tolist(), len(z)
    every = [Fraction(rows[i][j]) * z[i] * z[j] for i in range(count) for j in range(count)]
    return sum([*every, *(Fraction(s) * v for s, v in zip(shift.tolist(), z, strict=True))], Fraction(0))


def bounder(network: Network, lower: Tensor, upper: Tensor, clause: list[int], offsets: list[float]) -> Bounder:
    count = len(clause)
    rows, members = torch.eye(count, dtype=torch.float64)[None], torch.tensor([clause])
    queries = Queries(rows, torch.tensor([offsets]).double(), members, max(clause) + 1)
    return Bounder(Instance.of(network, Box(lower[None], upper[None])), queries)


@pytest.mark.parametrize("scale", [1.0, 2.0**-20, 2.0**12])
@pytest.mark.parametrize("kinks", [False, True])
@pytest.mark.parametrize("seed", at_night_after(1, range(4)))
def test_bounds_are_never_above_exact_values(seed: int, kinks: bool, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    count = 2 + seed % 3
    matrix, shift, centre = (grid(torch.randn(*s, generator=g).double()) for s in ((count, count), (count,), (count,)))
    if seed % 2:
        matrix = grid(matrix @ matrix.T)
    radius = grid(torch.rand(count, generator=g).double()) * scale
    lower, upper = centre - radius, centre + radius
    found = bounder(forms([matrix], shift, kinks), lower, upper, [0], [0.0]).bound(lower[None], upper[None])
    share = torch.randint(0, 9, (60, count), generator=g).double() / 8
    share[:30] = share[:30].round()
    least = min(value(matrix, shift, x, kinks) for x in lower + share * (upper - lower))
    assert Fraction(float(found.value[0, 0])) <= least


def test_a_box_in_which_nothing_varies_is_bounded() -> None:
    """With a clause of two margins, which is mixed to second order elsewhere: both are -0.75 there."""
    one, at = torch.eye(2).double(), torch.tensor([0.5, -1]).double()
    asked = bounder(forms([one, -one], torch.zeros(2).double()), at, at, [0, 0], [-2, 0.5])
    assert float(asked.bound(at[:0][None], at[:0][None]).value) == pytest.approx(-0.75)


def plain(bounder: Bounder, lower: Tensor, upper: Tensor, patch: pytest.MonkeyPatch) -> Tensor:
    """What bounds are without the second order."""
    with patch.context() as without:
        without.setattr(boxed.Products, "of", lambda *_: None)  # type: ignore[attr-defined]
        return bounder.bound(lower[None], upper[None]).value


def test_what_is_convex_together_is_bounded_by_its_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products that lines lose much of add up to a form with all eigenvalues above zero."""
    g = torch.Generator().manual_seed(5)
    root = grid(torch.randn(4, 4, generator=g).double())
    matrix, shift = root @ root.T + torch.eye(4).double() / 4, grid(torch.randn(4, generator=g).double())
    lower, upper = -torch.ones(4).double(), torch.ones(4).double()
    x = torch.zeros(4).double()
    for _ in range(4000):
        x = (x - 0.02 * (2 * matrix @ x + shift)).clamp(-1, 1)
    least = float(x @ matrix @ x + shift @ x)
    asked = bounder(forms([matrix], shift), lower, upper, [0], [0.0])
    found = float(asked.bound(lower[None], upper[None]).value)
    assert found <= least + 1e-12
    assert found > least - 1e-3
    assert float(plain(asked, lower, upper, monkeypatch)) < least - 5


def test_margins_share_a_clause_to_second_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """`|x|^2 > 1 or 1.5 > |x|^2` holds by the sum of both, although each fails somewhere, and lines prove neither."""
    one, none = torch.eye(2).double(), torch.zeros(2).double()
    asked: Any = bounder(
        forms([one, -one], none), -2 * torch.ones(2).double(), 2 * torch.ones(2).double(), [0, 0], [-1, 1.5]
    )
    lower, upper = -2 * torch.ones(2).double(), 2 * torch.ones(2).double()
    found = asked.bound(lower[None], upper[None])
    assert float(found.value) > 0.2
    assert found.weights.sum() == UNIT
    assert float(plain(asked, lower, upper, monkeypatch)) < 0


def test_weights_are_whole_numbers_of_the_same_sum() -> None:
    weights = whole(torch.tensor([[UNIT / 3, UNIT * 2 / 3], [0.2, UNIT - 0.2], [UNIT, 0.0]], dtype=torch.float64))
    assert (weights == weights.round()).all()
    assert (weights >= 0).all()
    assert (weights.sum(1) == UNIT).all()


@pytest.mark.parametrize("given", [[UNIT, 0], [0, UNIT], [UNIT // 2, UNIT // 2], [UNIT - 1, 1]])
@pytest.mark.parametrize("steep", [1.0, 300.0])
def test_the_best_mixture_is_found_from_any_weights(given: list[int], steep: float) -> None:
    """`steep e` and `0.5 - e` for e in [-1, 1]: a mixture without e is `0.5 steep / (1 + steep)` everywhere."""
    none = torch.zeros(1, 2).double()
    margins = Rows(torch.tensor([[0, 0.5]]).double(), torch.tensor([[[steep, -1.0]]]).double(), none)
    members, shares = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 1, 1).double()
    best, weights = improve(margins, torch.tensor([given]).double(), members, [], shares)
    assert 0.4 * steep / (1 + steep) < float(best.value) <= 0.5 * steep / (1 + steep)
    assert float(weights.sum()) == UNIT
