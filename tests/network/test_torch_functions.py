"""Functions of one number in PyTorch modules: each is read, computes what the module does, and has bounds that hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import krelax
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.errors import UnsupportedError
from krelax.problem.queries import Queries
from krelax.problem.region import Box


class _Between(nn.Module):
    """A function between two dense layers of three neurons."""

    def __init__(self, function: Callable[[Tensor], Tensor], shift: float = 0.0) -> None:
        super().__init__()
        self.first, self.function, self.second = nn.Linear(2, 3), function, nn.Linear(3, 2)
        nn.init.constant_(self.first.bias, shift)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.function(self.first(x)))
        return result


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "atan": torch.atan,
    "ceil": torch.ceil,
    "celu": nn.CELU(1.5),
    "cos": torch.cos,
    "elu": nn.ELU(2.0),
    "erf": torch.erf,
    "exp": torch.exp,
    "fake-quantize": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.25, 3, -8, 7),
    "floor": torch.floor,
    "gelu": nn.GELU(),
    "gelu-tanh": nn.GELU("tanh"),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardswish": nn.Hardswish(),
    "hardtanh": nn.Hardtanh(-0.5, 0.75),
    "leaky-2": nn.LeakyReLU(2.0),
    "leaky-negative": nn.LeakyReLU(-0.5),
    "logsigmoid": nn.LogSigmoid(),
    "mish": nn.Mish(),
    "power-3": lambda x: x**3,
    "prelu": nn.PReLU(3),
    "prelu-one": nn.PReLU(init=1.5),
    "relu6": nn.ReLU6(),
    "round": torch.round,
    "selu": nn.SELU(),
    "sign": torch.sign,
    "silu": nn.SiLU(),
    "sin": torch.sin,
    "softplus": nn.Softplus(threshold=50),
    "softplus-beta": nn.Softplus(2.0, 50),
    "square": torch.square,
    "threshold": nn.Threshold(0.2, -0.1),
}
POSITIVE: dict[str, Callable[[Tensor], Tensor]] = {
    "log": torch.log,
    "power-1.5": lambda x: x**1.5,
    "power--2": lambda x: x**-2,
    "reciprocal": torch.reciprocal,
    "rsqrt": torch.rsqrt,
    "sqrt": torch.sqrt,
}


# Several at once, because most of the time goes into tracing a module; each has layers and outputs of its own.
SETS = [names[i : i + 8] for names in map(list, (FUNCTIONS, POSITIVE)) for i in range(0, len(names), 8)]


class _Beside(nn.Module):
    """The outputs of several modules with the same input, one after the other."""

    def __init__(self, *parts: _Between) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], -1)


def between(name: str) -> _Between:
    module = _Between((FUNCTIONS | POSITIVE)[name], 0.0 if name in FUNCTIONS else 4.0).double()
    if isinstance(module.function, nn.PReLU) and module.function.num_parameters > 1:
        module.function.weight.data = torch.tensor([0.5, 1.5, -0.25]).double()
    return module


@pytest.mark.parametrize("names", SETS, ids=lambda names: f"{names[0]} to {names[-1]}")
def test_functions_are_read_and_bounded(names: list[str]) -> None:
    torch.manual_seed(1)
    module = _Beside(*map(between, names))
    net = krelax.from_torch(module, torch.zeros(1, 2, dtype=torch.float64))
    x = torch.rand(500, 1, 2).double() * 2 - 1
    with torch.no_grad():
        y = module(x[:, 0])
    torch.testing.assert_close(net(x)[:, 0], y, rtol=1e-12, atol=1e-12)
    end, count = torch.ones(1, 1, 2).double(), 2 * len(names)
    rows = torch.block_diag(*[torch.tensor([[1.0, 0.0], [-1.0, 0.5]])] * len(names)).double()[None]
    asked = Queries(rows, torch.zeros(1, count).double(), torch.zeros(1, count, dtype=torch.long), 1)
    lowest = (y @ rows[0].T).amin(0)
    for method in ("interval", "crown", "alpha"):
        found = bound(Instance.of(net, Box(-end, end)), asked, METHODS[method]).value[0]
        off = [names[i // 2] for i in range(count) if not lowest[i] - 8 < found[i] <= lowest[i] + 1e-12]
        assert not off, method


REFUSED: dict[str, tuple[nn.Module | Callable[[Tensor], Tensor], str]] = {
    "beta": (nn.Softplus(-1.0), "must be positive"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_quite_it_is_refused(name: str) -> None:
    function, reason = REFUSED[name]
    with pytest.raises(UnsupportedError, match=reason):
        krelax.from_torch(_Between(function).double(), torch.zeros(1, 2, dtype=torch.float64))
