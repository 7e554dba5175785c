"""Quantised models: krelax computes what ONNX Runtime and PyTorch compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, numpy_helper
from tests.network.cases import agrees
from tests.network.quantised import QUANTISED
from tests.run.files import save
from torch import Tensor, nn

from krelax.certificate.onnx.reader import read_network
from krelax.errors import InputError, UnsupportedError
from krelax.network.constants import Constant
from krelax.network.onnx import load_onnx
from krelax.network.quantised import on_grid
from krelax.network.torch import from_torch


@pytest.mark.parametrize("name", QUANTISED)
def test_onnx_runtime_agrees(name: str, tmp_path: Path) -> None:
    agrees(QUANTISED[name], tmp_path)


def test_sums_that_int32_may_not_hold_are_refused(tmp_path: Path) -> None:
    """A shift near its largest number, and a product more: by krelax, and by the checker."""
    model = ModelProto()
    model.CopyFrom(QUANTISED["QLinearConv"])
    (shift,) = (t for t in model.graph.initializer if t.name == "b")
    shift.CopyFrom(numpy_helper.from_array(np.array([2**31 - 1, 0], np.int32), "b"))
    with pytest.raises(UnsupportedError, match="int32"):
        load_onnx(save(model, tmp_path / "m.onnx"))
    with pytest.raises(UnsupportedError, match="int32"):
        read_network(model.SerializeToString())


class Faked(nn.Module):
    """Fake quantisation of an activation and of weights, with one scale or one for each channel."""

    def __init__(self, channels: bool) -> None:
        super().__init__()
        self.layer, self.channels = nn.Linear(6, 4), channels
        self.register_buffer("scale", torch.linspace(0.01, 0.06, 6))
        self.register_buffer("zero", torch.tensor([3, 0, -2, 1, 7, -5], dtype=torch.int32))

    def forward(self, x: Tensor) -> Any:
        scale, zero = self.scale, self.zero
        assert isinstance(scale, Tensor)
        assert isinstance(zero, Tensor)
        if self.channels:
            x = torch.fake_quantize_per_channel_affine(x, scale, zero, 1, -128, 127)
            zeros = torch.zeros(4, dtype=torch.int32)
            w = torch.fake_quantize_per_channel_affine(self.layer.weight, scale[:4], zeros, 0, -127, 127)
        else:
            x = torch.fake_quantize_per_tensor_affine(x, 0.05, 3, 0, 255)
            w = torch.fake_quantize_per_tensor_affine(self.layer.weight, 0.011, 0, -127, 127)
        return nn.functional.linear(x, w, self.layer.bias)


@pytest.mark.parametrize("channels", [False, True])
def test_fake_quantisation(channels: bool) -> None:
    torch.manual_seed(0)
    network = from_torch(Faked(channels), torch.rand(2, 6))
    x = 3 * torch.randn(2, 6)
    assert network.replay is not None
    wanted = torch.from_numpy(network.replay(x.numpy())).double()
    torch.testing.assert_close(network(x.double()[None])[0], wanted, rtol=1e-5, atol=1e-5)


def test_what_is_no_grid_is_refused() -> None:
    one = Constant.of(torch.tensor([0.5]))
    with pytest.raises(InputError, match="not positive"):
        on_grid(one, Constant.of(0.0), Constant.of(0.0), (0, 255))
    between = Constant(torch.tensor([0.5], dtype=torch.float64), torch.tensor([1e-9], dtype=torch.float64))
    with pytest.raises(UnsupportedError, match="halfway"):
        on_grid(between, Constant.of(1.0), Constant.of(0.0), (0, 255))
