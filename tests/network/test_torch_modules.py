"""Modules as users write them: krelax computes what they compute, or says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from krelax.errors import InputError, UnsupportedError
from krelax.network.torch import from_torch

IMAGE, SIGNAL, VECTOR = (1, 2, 4, 6), (1, 2, 8), (1, 8)
MASK, ORDER = torch.tensor([True, False] * 4), torch.tensor([[3, 1, 0, 2, 4, 5, 7, 6]])


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.parts)


def constant(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


MATRIX, STACK, ROW = constant(8, 3), constant(2, 4, 3), constant(8)


def resized(x: Tensor) -> Tensor:
    """Every mode of an image, side by side."""
    parts = [F.interpolate(x, scale_factor=2), F.interpolate(x, size=(7, 5), mode="nearest-exact"),
             F.interpolate(x, scale_factor=1.5, mode="bilinear"), F.interpolate(x, size=(2, 3), mode="area"),
             F.interpolate(x, size=(7, 3), mode="bilinear", align_corners=True),
             F.interpolate(x, scale_factor=2, mode="bicubic")]  # fmt: skip
    return torch.cat([part.flatten() for part in parts])


def padded(x: Tensor) -> Tensor:
    return torch.cat(
        [F.pad(x, (1, 2, 1, 0), mode=m).flatten() for m in ("reflect", "replicate", "circular", "constant")]
    )


def largest(x: Tensor) -> Tensor:
    parts = [x.amax((2, 3)), x.amin((2, 3)), x.max(dim=3).values, torch.min(x, 2, keepdim=True)[0], x.max()]
    return torch.cat([part.flatten() for part in parts])


def contracted(x: Tensor) -> Tensor:
    products = [torch.einsum("bi,ij->bj", x, MATRIX), torch.tensordot(x, MATRIX, dims=1)]
    return torch.cat([*products, x.reshape(8).outer(MATRIX[0])[:1]], 1)


def moved(x: Tensor) -> Tensor:
    parts = [
        x.gather(1, ORDER[:, :3]),
        x.take(torch.tensor([1, 3])),
        torch.zeros(1, 8).scatter(1, ORDER, x),
        x.tile(2),
        x.repeat_interleave(2, 1),
        torch.hstack([x, x]),
        x.reshape(2, 4).tril(),
        x.reshape(2, 4).rot90(),
    ]
    return torch.cat([part.flatten() for part in parts])


def assigned(x: Tensor) -> Tensor:
    y, z = x.clone(), torch.zeros(1, 8)
    y[:, 0] = 0.5
    z[:, 2:4] = x[:, :2]
    return torch.cat([y, z], 1)


def chosen(x: Tensor) -> Tensor:
    return torch.cat([torch.where(MASK, x, -x), torch.where(MASK, x, 0.5), x.masked_fill(MASK, -1.0), x * MASK], 1)


def bent(x: Tensor) -> Tensor:
    parts = [F.leaky_relu(x, 1.5), F.threshold(x, 0.25, 0.25), F.relu6(x), F.hardtanh(x)]
    return torch.cat([*parts, torch.max(x, -x), x.clamp(min=0.3)], 1)


def summed(x: Tensor) -> Tensor:
    parts = [x.cumsum(1), x.diff(dim=1), torch.lerp(x, torch.ones(8), 0.3), x.reshape(2, 4).trace()[None, None]]
    return torch.cat([*parts, torch.addcmul(x, torch.ones(8), ROW)], 1)


MODULES: dict[str, tuple[tuple[int, ...], nn.Module]] = {
    "resizing": (IMAGE, Function(resized)),
    "resizing a signal": (SIGNAL, nn.Upsample(scale_factor=1.5, mode="linear")),
    "padding": (IMAGE, Function(padded)),
    "convolution, circular": (IMAGE, nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")),
    "largest": (IMAGE, Function(largest)),
    "contractions": (VECTOR, Function(contracted)),
    "stacks of matrices": ((2, 5, 4), Function(lambda x: torch.baddbmm(torch.ones(2, 5, 3), x, STACK))),
    "moves": (VECTOR, Function(moved)),
    "windows": (IMAGE, nn.Unfold(3, padding=1)),
    "assignments": (VECTOR, Function(assigned)),
    "masks": (VECTOR, Function(chosen)),
    "bends": (VECTOR, Function(bent)),
    "sums": (VECTOR, Function(summed)),
    "slopes of channels": (IMAGE, nn.PReLU(2)),
    "adaptive pools": (IMAGE, nn.Sequential(nn.AdaptiveAvgPool2d((3, 4)), nn.AdaptiveMaxPool2d((2, 3)))),
    "embedding": (VECTOR, Function(lambda x, e: x + e(torch.tensor([2])), nn.Embedding(5, 8))),
    "weight norm": (VECTOR, torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 3))),
    "weight norm of old": (VECTOR, torch.nn.utils.weight_norm(nn.Linear(8, 3))),
    "spectral norm": (VECTOR, torch.nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3))),
    "scripted": (VECTOR, torch.jit.script(nn.Sequential(nn.Linear(8, 4), nn.ReLU()))),
    "traced": (VECTOR, torch.jit.trace(nn.Sequential(nn.Linear(8, 4), nn.ReLU()), torch.zeros(1, 8))),
    "a dictionary": (VECTOR, Function(lambda x, m: {"logits": m(x)}, nn.Linear(8, 3))),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_compute_what_krelax_reads(name: str) -> None:
    """Importing compares them at points of the unit box; here beyond it."""
    shape, module = MODULES[name]
    network = from_torch(module, torch.rand(shape))
    x = 3 * torch.randn(1, *shape, generator=torch.Generator().manual_seed(2))
    assert network.replay is not None
    wanted = torch.from_numpy(network.replay(x[0].numpy())).double()
    torch.testing.assert_close(network(x.double())[0], wanted, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_read_says_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match=r"float\(\), whose weights are the same numbers"):
        from_torch(nn.Linear(8, 3).bfloat16(), torch.rand(VECTOR))
    with pytest.raises(InputError, match="wrap it to return one tensor"):
        from_torch(Function(lambda x: (x, x * 2)), torch.rand(VECTOR))
