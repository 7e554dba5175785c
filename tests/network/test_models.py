"""Models as people write them in PyTorch: each is read, computes what it computes, and is certified around a point."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.network.torch import from_torch
from krelax.problem.queries import Queries, classification
from krelax.problem.region import Box


class Residual(nn.Module):
    """A residual block with batch normalisation and GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2, self.act = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.norm1(self.first(x)))
        return x + self.norm2(self.second(y))


class Inverted(nn.Module):
    """A block of MobileNet: wide, depthwise, gated by its channels' means, and narrow again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1), nn.BatchNorm2d(wide), nn.Hardswish())
        self.depth = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide), nn.BatchNorm2d(wide), nn.Hardswish()
        )
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, wide, 1), nn.Hardsigmoid())
        self.narrow = nn.Sequential(nn.Conv2d(wide, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.depth(self.expand(x))
        return x + self.narrow(y * self.gate(y))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8) * 0.1)
        self.places = nn.Parameter(torch.randn(1, 5, 8) * 0.1)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        scores: Tensor = self.head(self.norm(self.layer(x))[:, 0])
        return scores


class Recurrent(nn.Module):
    """A classifier of sequences by the last state of an LSTM or a GRU."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.cells, self.head = kind(3, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.cells(x)
        scores: Tensor = self.head(outputs[:, -1])
        return scores


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.out = nn.Conv2d(12, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.down1(x))
        second = F.relu(self.down2(F.max_pool2d(first, 2)))
        wide = F.interpolate(second, scale_factor=2, mode="bilinear", align_corners=False)
        pixels: Tensor = self.out(F.relu(self.up(torch.cat([first, wide], 1))))
        return pixels


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.head = nn.LayerNorm(6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.tokens = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.channels = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norm2(x))
        scores: Tensor = self.head(x.mean(1))
        return scores


class Waves(nn.Module):
    """A physics-informed network: sines, and a boundary that holds by construction."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 16), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(torch.sin(self.b(torch.sin(2 * self.a(x)))))
        return y * x[:, :1] * (1 - x[:, :1])


class DeepSets(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
        self.all = nn.Sequential(nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.each(x)
        scores: Tensor = self.all(torch.cat([h.sum(1), h.max(1).values], -1))
        return scores


class Through(torch.autograd.Function):
    """A sign whose gradient goes straight through."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.sign(x)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


class Binary(nn.Module):
    """A binarised layer with latent weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(Through.apply(x), Through.apply(self.weight))


def binarised() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), Binary(12, 12), nn.BatchNorm1d(12), Binary(12, 3))


class Quantised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.layers = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.dequant(self.layers(self.quant(x)))
        return result


def quantisation_aware() -> nn.Module:
    """Trained for a moment, so that it has scales."""
    module = Quantised()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")  # type: ignore[assignment]
        torch.ao.quantization.prepare_qat(module.train(), inplace=True)
        for _ in range(4):
            module(torch.rand(32, 6))
    return module


def residual() -> nn.Module:
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), Residual(4), *head)


def mobile() -> nn.Module:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.Hardswish(), Inverted(4), *head)


def autoencoder() -> nn.Module:
    down = (
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.ELU(),
        nn.Flatten(),
        nn.Linear(64, 6),
        nn.SiLU(),
        nn.Linear(6, 64),
    )
    return nn.Sequential(*down, nn.Unflatten(1, (4, 4, 4)), nn.ConvTranspose2d(4, 1, 4, 2, 1), nn.Sigmoid())


IMAGE, WORDS, POINTS, VECTOR = (1, 1, 8, 8), (1, 4, 3), (1, 5, 3), (1, 6)
# The model, its input's shape, and how far inputs move.
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "residual": (residual, IMAGE, 0.01),
    "mobile": (mobile, IMAGE, 0.003),
    "vision transformer": (VisionTransformer, IMAGE, 0.0005),
    "lstm": (lambda: Recurrent(nn.LSTM), WORDS, 0.02),
    "gru": (lambda: Recurrent(nn.GRU), WORDS, 0.02),
    "autoencoder": (autoencoder, IMAGE, 0.01),
    "u-net": (UNet, IMAGE, 0.005),
    "mixer": (Mixer, (1, 4, 6), 0.002),
    "waves": (Waves, (1, 2), 0.01),
    "quantisation-aware": (quantisation_aware, VECTOR, 0.005),
    "binarised": (binarised, VECTOR, 0.0001),
    "sets": (DeepSets, POINTS, 0.01),
}  # fmt: skip
# The exporter has no operator for what observes the data.
NOT_EXPORTED = {"quantisation-aware"}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """A model and an input, always the same."""
    torch.manual_seed(7)
    module = MODELS[name][0]()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(part.bias, std=0.3)
            part.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return module.eval(), torch.rand(MODELS[name][1])


@cache
def captured(name: str) -> Network:
    """The model as a network. Captures take most of the time here."""
    return from_torch(*made(name))


def agree(network: Network, shape: tuple[int, ...]) -> None:
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    assert network.replay is not None
    wanted = torch.stack([torch.from_numpy(network.replay(point.numpy())) for point in x]).double()
    torch.testing.assert_close(network(x.double()), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_read_and_certified(name: str) -> None:
    """Bounds contain the outputs of points, and the largest of few outputs stays the largest."""
    _, x = made(name)
    network = captured(name)
    agree(network, MODELS[name][1])
    eps = MODELS[name][2]
    centre = x.double()[None]
    instance = Instance.of(network, Box(centre - eps, centre + eps))
    scores = network(centre).flatten(1)
    if scores.shape[1] == 3:
        found = bound(instance, classification(scores.argmax(1), 3), METHODS["crown"])
        assert (found.value > 0).all()
    rows = torch.eye(scores.shape[1], dtype=torch.float64)[:3]
    queries = Queries(
        rows[None], torch.zeros(1, len(rows), dtype=torch.float64), torch.arange(len(rows))[None], len(rows)
    )
    least = bound(instance, queries, METHODS["crown"]).value
    points = centre + eps * (2 * torch.rand(50, *x.shape, dtype=torch.float64) - 1)
    values = network(points).flatten(1)[:, : len(rows)]
    assert (least <= values + 1e-12).all()
    assert (least >= values.amin(0) - 0.5 * (1 + values.abs().amax())).all()


@pytest.mark.parametrize("name", [n for n in MODELS if n not in NOT_EXPORTED])
def test_exported_models_are_read(name: str, tmp_path: Path) -> None:
    module, x = made(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), tmp_path / "made.onnx", dynamo=False, opset_version=17)
    network = load_onnx(tmp_path / "made.onnx")
    agree(network, MODELS[name][1])
    torch.testing.assert_close(network(x.double()[None]), captured(name)(x.double()[None]), rtol=1e-6, atol=1e-7)


def test_a_converted_model_says_what_to_give_instead() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = torch.ao.quantization.convert(quantisation_aware().eval())
    with pytest.raises(InputError, match="before it is converted"):
        from_torch(converted, torch.rand(VECTOR))
