"""Intervals with derivatives contain what 60-digit arithmetic finds: no tolerance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch

from krelax.activations.spans import Jet, Span

Exact = Callable[..., Any]
OPERATIONS: dict[str, tuple[Callable[..., Jet], Exact]] = {
    "sum": (lambda x, y: x + y, lambda x, y: x + y),
    "difference": (lambda x, y: 0.3 - (x - y) + 1.7, lambda x, y: mpmath.mpf(0.3) - (x - y) + mpmath.mpf(1.7)),
    "product": (lambda x, y: x * y * 0.1, lambda x, y: x * y * mpmath.mpf(0.1)),
    "square": (lambda x, y: x * x, lambda x, y: x * x),
    "cos": (lambda x, y: (x * y).cos(), lambda x, y: mpmath.cos(x * y)),
    "sin": (lambda x, y: (x + 3.0 * y).sin(), lambda x, y: mpmath.sin(x + 3 * y)),
    "reciprocal": (lambda x, y: (x * x + 0.5).reciprocal(), lambda x, y: 1 / (x * x + mpmath.mpf(0.5))),
    "clamp": (lambda x, y: (x * y).clamp(-0.5, 0.25), lambda x, y: min(max(x * y, mpmath.mpf(-0.5)), mpmath.mpf(0.25))),
}


def points(lower: torch.Tensor, upper: torch.Tensor, count: int) -> torch.Tensor:
    """Points of boxes `(boxes,)`, their ends among them: `(count, boxes)`."""
    share = torch.rand(count, len(lower), dtype=torch.float64)
    share[0], share[1] = 0.0, 1.0
    return (lower + share * (upper - lower)).clamp(lower, upper)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("width", [0.0, 1e-12, 1e-3, 1.0, 7.0])
def test_values_and_their_differences_are_enclosed(name: str, width: float) -> None:
    """The mean value theorem holds with the derivatives: it is all that is made of them."""
    torch.manual_seed(0)
    jet, exact = OPERATIONS[name]
    lower = 6 * torch.rand(2, 12, dtype=torch.float64) - 3
    upper = lower + width * torch.rand(2, 12, dtype=torch.float64)
    found = jet(*(Jet.parameter(low, high, i, 2) for i, (low, high) in enumerate(zip(lower, upper, strict=True))))
    x, y = points(lower[0], upper[0], 8), points(lower[1], upper[1], 8)
    with mpmath.workdps(60):
        for box in range(12):
            values = [
                exact(mpmath.mpf(float(a)), mpmath.mpf(float(b))) for a, b in zip(x[:, box], y[:, box], strict=True)
            ]
            ends = [mpmath.mpf(float(t.expand(12)[box])) for t in (found.value.lower, found.value.upper)]
            assert all(ends[0] <= v <= ends[1] for v in values)
            for i in range(1, 8):
                low = high = mpmath.mpf(0)
                for slope, t in zip(found.slopes, (x, y), strict=True):
                    if slope is not None:
                        step = mpmath.mpf(float(t[i, box])) - mpmath.mpf(float(t[0, box]))
                        both = [mpmath.mpf(float(s.expand(12)[box])) * step for s in (slope.lower, slope.upper)]
                        low, high = low + min(both), high + max(both)
                assert low <= values[i] - values[0] <= high


def test_infinite_derivatives_are_no_numbers_that_are_missing() -> None:
    everything = Span(torch.tensor([-torch.inf]).double(), torch.tensor([torch.inf]).double())
    product = everything * Span.of(torch.zeros(1))
    assert not product.lower.isnan().any()
    assert not product.upper.isnan().any()
    whole = Span(torch.tensor([-1.0]).double(), torch.tensor([1.0]).double()).reciprocal()
    assert (whole.lower.item(), whole.upper.item()) == (-torch.inf, torch.inf)
