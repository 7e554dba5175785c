"""Masks of minus infinity before a softmax, as people and exporters write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.network.cases import agrees, weights
from tests.run.files import model, node, tensor
from torch import Tensor, nn

from krelax.errors import UnsupportedError
from krelax.network.torch import from_torch

MASK = torch.tensor([[True, False, True, True]])
ENDLESS = torch.zeros(4).masked_fill(~MASK, -torch.inf)


class Function(nn.Module):
    """A function of inputs, a mask, and what is added in its place; older PyTorch exports no tensors but a module's."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("mask", MASK)
        self.register_buffer("endless", ENDLESS)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.mask, self.endless)


class Causal(nn.Module):
    """A layer of a decoder, with the mask that PyTorch makes for it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x, src_mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1]))
        return y


MODULES: dict[str, nn.Module] = {
    "filled": Function(lambda x, mask, _: F.softmax(x.masked_fill(~mask, float("-inf")), -1)),
    "added": Function(lambda x, _, endless: F.softmax(2 * x + endless, -1)),
    "chosen": Function(lambda x, mask, _: F.softmax(torch.where(mask, x, -torch.inf), -1)),
    "causal": Causal(),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str) -> None:
    shape = (1, 3, 4)
    network = from_torch(MODULES[name], torch.rand(shape))
    x = 2 * torch.randn(1, *shape, generator=torch.Generator().manual_seed(2))
    assert network.replay is not None
    wanted = torch.from_numpy(network.replay(x[0].numpy())).double()
    torch.testing.assert_close(network(x.double())[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", ["Add", "Where"])
def test_files(op: str, tmp_path: Path) -> None:
    constants = {"w": weights(4, 4), "m": ENDLESS.numpy(), "c": MASK.numpy(), "n": np.float32(-np.inf)}
    step = node("Add", "s", "m", "t") if op == "Add" else node("Where", "c", "s", "n", "t")
    used = {k: v for k, v in constants.items() if k == "w" or k in step.input}
    agrees(
        model([node("MatMul", "x", "w", "s"), step, node("Softmax", "t", "y")], used, [tensor("x", (2, 4))]), tmp_path
    )


def test_only_a_softmax_takes_them() -> None:
    with pytest.raises(UnsupportedError, match="only a softmax"):
        from_torch(Function(lambda x, _, endless: torch.exp(x + endless)), torch.rand(1, 4))
    with pytest.raises(UnsupportedError, match="only a softmax"):
        from_torch(Function(lambda x, _, endless: x + endless), torch.rand(1, 4))
