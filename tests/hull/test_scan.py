"""The kernel behind every pass with groups finds the largest product, in both types, with and without compilation."""

from __future__ import annotations

import pytest
import torch

from krelax.hull import scan as module
from krelax.hull.scan import scan


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("compiled", [True, False])
def test_it_is_the_largest_product(dtype: torch.dtype, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILED", compiled and module.COMPILED)  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(1, 7, 13, 4, generator=generator, dtype=dtype)
    direction = torch.randn(1, 7, 5, 4, generator=generator, dtype=dtype).mT  # not contiguous
    value, index = scan(points, direction)
    products = points @ direction
    assert torch.allclose(value, products.amax(2), rtol=1e-5, atol=1e-6)
    assert torch.allclose(products.gather(2, index.unsqueeze(2))[:, :, 0], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("at", range(3))
def test_one_product_that_is_not_a_number_leaves_no_value(
    at: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest of the other products would be no upper bound: the point may be infinitely far away."""
    monkeypatch.setattr(module, "COMPILED", compiled and module.COMPILED)  # type: ignore[attr-defined]
    points = torch.ones(1, 1, 3, 2)
    points[0, 0, at] = torch.tensor([torch.inf, -torch.inf])
    value, _ = scan(points, torch.ones(1, 1, 2, 4))
    assert value.isnan().all()
