"""What is the largest of some linear forms says so, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from tests.activations.kit import ELEMENTWISE, WINDOWED, Elementwise, Windowed

from krelax.activations import Max


@pytest.mark.parametrize("entry", [*ELEMENTWISE, *WINDOWED], ids=lambda entry: entry.name)
def test_a_piece_is_the_largest_form(entry: Elementwise | Windowed) -> None:
    """Exact: slopes are 0, 1 or the leak, so products are those that the activation computes."""
    shape = (40, entry.size) if isinstance(entry, Windowed) else (40, 1)
    z, other = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z[0] = other[1] = 0.0
    piece = entry.op.piece(z)
    assert (piece is None) == (entry.op.leak is None and not isinstance(entry.op, Max))
    if piece is not None:
        assert piece.shape == z.shape
        assert torch.equal((piece * z).sum(-1), entry.op.forward(z).reshape(40))
        assert bool(((piece * other).sum(-1) <= entry.op.forward(other).reshape(40)).all())
