"""Modules become networks that compute the same function, or errors that say why not."""

import copy
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from krelax.activations import Activation, Max
from krelax.errors import InputError, UnsupportedError
from krelax.network.graph import Network
from krelax.network.linear import Conv, Dense, Scale
from krelax.network.torch import from_torch, supported_operators


class Function(nn.Module):
    """A function of the input as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def operator(network: Network) -> Any:
    """The only one, of whatever kind."""
    return network.nodes[1].op


def constant(*shape):
    return torch.linspace(-1.0, 2.0, math.prod(shape), dtype=torch.float64).reshape(shape)


def agrees(module, *shape):
    """Import in float64, compare at random inputs, and return the network."""
    torch.manual_seed(1)
    module = module.double().eval()
    network = from_torch(module, torch.zeros(shape, dtype=torch.float64))
    x = 2 * torch.randn(4, *shape, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([module(sample) for sample in x])
    assert network.output_shape == tuple(expected.shape[1:])
    torch.testing.assert_close(network(x), expected, rtol=1e-11, atol=1e-11)
    return network


def function_agrees(function, *shape):
    return agrees(Function(function), *shape)


class Normalised(nn.Module):
    """Convolution and batch normalisation with statistics that matter."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
        nn.init.uniform_(self.norm.weight, 0.5, 2.0)
        nn.init.normal_(self.norm.bias)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x):
        return self.norm(self.conv(x))


class Residual(nn.Module):
    """Two residual blocks, the second with a strided shortcut."""

    def __init__(self):
        super().__init__()
        self.stem = Normalised()
        self.inner = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.wide, self.short = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 1, 2)
        self.head = nn.Linear(4 * 9, 5)

    def forward(self, x):
        x = F.relu(self.stem(x), inplace=True)
        x = F.relu(x + self.inner(x))
        x = F.relu(self.wide(x) + self.short(x))
        return self.head(x.flatten(1))


MODULES = {
    "dense": (nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)), (1, 3, 4)),
    "dense vector": (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False)), (4,)),
    "dense rows": (nn.Sequential(nn.Linear(4, 5), nn.Sigmoid()), (2, 3, 4)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (1, 4, 11)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), (2, 4, 7, 6)),
    "conv3d": (nn.Conv3d(1, 2, 2, stride=2, padding=1), (1, 1, 4, 5, 4)),
    "conv same": (nn.Conv2d(2, 3, (3, 4), padding="same", dilation=(1, 3)), (1, 2, 5, 6)),
    "conv valid": (nn.Conv1d(2, 3, 3, padding="valid"), (1, 2, 6)),
    "conv unbatched": (nn.Conv2d(2, 3, 3), (2, 5, 5)),
    "conv_transpose1d": (nn.ConvTranspose1d(2, 4, 3, 2, 1, output_padding=1, groups=2), (1, 2, 5)),
    "conv_transpose2d": (nn.ConvTranspose2d(2, 3, (2, 3), 2, 1, dilation=2), (2, 2, 4, 3)),
    "conv_transpose3d": (nn.ConvTranspose3d(1, 2, 2, 2), (1, 1, 2, 3, 2)),
    "batch_norm": (Normalised(), (1, 2, 6, 5)),
    "batch_norm plain": (nn.BatchNorm1d(5, affine=False, eps=0.1), (2, 5)),
    "residual": (Residual(), (1, 2, 8, 8)),
    "max_pool2d": (nn.MaxPool2d(3, 2, padding=1), (1, 2, 7, 6)),
    "max_pool2d ceil": (nn.MaxPool2d((2, 3), 2, dilation=(2, 1), ceil_mode=True), (2, 2, 8, 6)),
    "max_pool1d": (nn.MaxPool1d(3, 3, padding=1), (1, 2, 8)),
    "max_pool3d": (nn.MaxPool3d(2), (1, 1, 4, 4, 2)),
    "avg_pool1d": (nn.AvgPool1d(3, 2, padding=1), (1, 2, 7)),
    "avg_pool2d": (nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), (2, 2, 7, 6)),
    "avg_pool2d ceil": (nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), (1, 2, 6, 8)),
    "avg_pool2d ceil 2": (nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), (1, 2, 5, 4)),
    "avg_pool2d divisor": (nn.AvgPool2d(2, divisor_override=3), (1, 2, 5, 4)),
    "avg_pool3d": (nn.AvgPool3d(2, 1), (1, 1, 3, 4, 2)),
    "adaptive": (nn.AdaptiveAvgPool2d((2, 3)), (1, 2, 4, 9)),
    "adaptive one": (nn.AdaptiveAvgPool2d(1), (1, 2, 4, 9)),
    "adaptive 1d": (nn.AdaptiveAvgPool1d(2), (2, 2, 8)),
    "adaptive 3d": (nn.AdaptiveAvgPool3d((1, 2, None)), (1, 2, 2, 4, 3)),
    "leaky_relu": (nn.LeakyReLU(0.3), (1, 5)),
    "relu6": (nn.Sequential(nn.Linear(3, 9), nn.ReLU6()), (1, 3)),
    "hardtanh": (nn.Hardtanh(-0.5, 1.5), (1, 20)),
    "hardsigmoid": (nn.Sequential(nn.Linear(1, 20), nn.Hardsigmoid()), (3, 1)),
    "products": (Function(lambda x: x * x.roll(1, 1) + (x @ x.transpose(1, 2)) @ x), (2, 3, 4)),
    "dropout": (nn.Sequential(nn.Dropout(), nn.Identity(), nn.ReLU()), (1, 5)),
    "padding": (nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), nn.ConstantPad2d((0, -1, 2, 1), 3.0)), (1, 2, 3, 3)),
    "pixel_shuffle": (nn.PixelShuffle(2), (1, 8, 2, 3)),
    "unflatten": (nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, 3, 2))), (1, 3, 4)),
}


class SideBySide(nn.Module):
    """Modules that get one piece of a vector each. Most of the time of an import is that of a capture, whatever of."""

    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ModuleList(copy.deepcopy(module) for module, _ in parts)
        self.shapes = [shape for _, shape in parts]
        self.sizes = [math.prod(shape) for shape in self.shapes]

    def forward(self, x):
        pieces = zip(self.parts, x.split(self.sizes), self.shapes, strict=True)
        return torch.cat([part(piece.reshape(shape)).flatten() for part, piece, shape in pieces])


THIRDS = [list(MODULES)[i::3] for i in range(3)]


@pytest.mark.parametrize("names", THIRDS, ids=range(3))
def test_modules(names):
    together = SideBySide([MODULES[name] for name in names])
    agrees(together, sum(together.sizes))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_module_alone(name):
    module, shape = MODULES[name]
    agrees(copy.deepcopy(module), *shape)


FUNCTIONS = {
    "constants": lambda x: (2 * x - constant(3, 1)) / constant(2, 1, 4) + 1,
    "reversed": lambda x: 3 - (constant(3, 4) - x) - torch.sub(x, constant(4), alpha=3),
    "alpha": lambda x: torch.add(x, x * 2, alpha=-2) + torch.add(constant(3, 4), x, alpha=3),
    "rank of a constant": lambda x: x[0, 0] * constant(2, 1, 4) + constant(2, 3, 1),
    "branches": lambda x: (x[:, :1] - x) + (x[:, :, :1] + x[0, 0]),
    "negative": lambda x: -x.neg().abs(),
    "matmul": lambda x: (constant(2, 3) @ x @ constant(4, 5)) @ constant(5),
    "matmul ranks": lambda x: x @ constant(1, 1, 1, 4, 2) + (constant(3) @ x)[..., :2],
    "mm": lambda x: torch.mm(x[0], constant(4, 2)) + torch.addmm(constant(2), x[0], constant(4, 2), alpha=2),
    "mv": lambda x: torch.mv(x[0], constant(4)) + torch.mv(constant(3, 3), x[0, :, 0]),
    "bmm": lambda x: torch.bmm(x, constant(1, 4, 2)) + torch.bmm(constant(1, 3, 3), x)[..., :2],
    "views": lambda x: x.squeeze(0).unsqueeze(-1).reshape(2, -1).view(6, 2).flatten(),
    "axes": lambda x: x.permute(2, 0, 1).transpose(0, 2).squeeze(1).t().contiguous().movedim(0, 1).clone(),
    "expand": lambda x: x[:, :1].expand(2, 3, 4) + x.unsqueeze(2).expand(-1, -1, 2, -1)[:, :, 0],
    "cat": lambda x: torch.cat([x, -x, x[..., :2]], dim=-1),
    "cat constants": lambda x: torch.cat([constant(1, 1, 4), x, constant(1, 2, 4), 2 * x], 1),
    "cat one": lambda x: torch.cat([constant(1, 1, 4), x], 1),
    "stack": lambda x: torch.stack([x, 2 * x, constant(1, 3, 4)], -2),
    "slice": lambda x: x[:, 1:, ::2] + x[:, :-1, 0:1] - x.narrow(1, 0, 2)[..., -2:],
    "select": lambda x: x.select(1, -1) + x[:, 0] * x.new_ones(4),
    "split": lambda x: x.split([1, 3], 2)[1].sum(2) + sum(p.sum(2) for p in x.chunk(2, 2)),
    "unbind": lambda x: x.unbind(1)[2] - x.unbind(1)[0],
    "index": lambda x: x[:, [2, 0, 0]] + x.index_select(1, torch.tensor([1, 1, 2]))[:, [0, 0, 1]],
    "index pairs": lambda x: x[:, [0, 2], [1, 3]],
    "moves": lambda x: x.flip(1, 2).roll(1, 2).repeat(1, 2, 1) + x.unfold(2, 3, 1).sum(-1).repeat(1, 2, 2),
    "pad": lambda x: F.pad(x, (1, 2), value=-1.5) + F.pad(x, (2, 1, 0, 0)),
    "mean": lambda x: x.mean() + x.mean((0, 2), keepdim=True) + x.mean(-1, keepdim=True),
    "sum": lambda x: x.sum() - x.sum(1) + x.sum((0, 2)).sum(0, keepdim=True),
    "clamp": lambda x: x.clamp(-1, 0.5) + x.clamp(min=0.25) + x.clamp(max=-0.25) + x.clamp_min(1.0),
    "clamp crossed": lambda x: x.clamp(1.0, -1.0),
    "clamp tensors": lambda x: torch.clamp(x, min=constant(4) - 1, max=x[:, :1]),
    "extrema": lambda x: torch.maximum(x, 2 * x + 1) - torch.minimum(x, constant(4)) + torch.minimum(x, -x),
    "constant arithmetic": lambda x: x * (torch.arange(4.0, dtype=x.dtype).pow(2).reshape(1, 4) @ constant(4, 4)),
}


@pytest.mark.parametrize("third", range(3))
def test_functions(third):
    functions = list(FUNCTIONS.values())[third::3]
    function_agrees(lambda x: torch.cat([function(x).flatten() for function in functions]), 1, 3, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_alone(name):
    function_agrees(FUNCTIONS[name], 1, 3, 4)


def test_affine_layers_absorb_normalisation_and_bias():
    network = agrees(Residual(), 1, 2, 8, 8)
    kinds = [type(node.op).__name__ for node in network.nodes]
    assert "Scale" not in kinds
    assert kinds.count("Conv") == 4


def test_pooling_window_of_one_entry_needs_no_maximum():
    network = agrees(nn.MaxPool2d(1, 2), 1, 1, 4, 4)
    assert not any(isinstance(node.op, Max) for node in network.nodes)


def test_unused_computation_is_dropped():
    network = function_agrees(lambda x: (torch.relu(x), x @ constant(4, 2))[1], 1, 4)
    assert not any(isinstance(node.op, Activation) for node in network.nodes)


def test_constants_are_float64_copies_and_replay_is_float32():
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).train()
    network = from_torch(module, torch.zeros(1, 3))
    x = np.ones((1, 3), dtype=np.float32)
    assert network.replay is not None
    before = network.replay(x)
    nn.init.zeros_(module[0].weight)
    assert module.training
    assert network.dtype == torch.float64
    assert network.input_shape == (1, 3)
    after = network.replay(x)
    assert after.dtype == np.float32
    assert after.shape == (1, 2)
    np.testing.assert_array_equal(before, after)
    np.testing.assert_allclose(network(torch.ones(1, 1, 3, dtype=torch.float64))[0], after, rtol=1e-6)


class Deep(nn.Module):
    """A network whose unsupported operator is two modules down."""

    def __init__(self, module):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.Sequential(module))

    def forward(self, x):
        return self.body(x)


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.i0(x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Bessel(), r"in module 'body.1.0' \(Bessel\)"),
        (Function(lambda x: torch.fft.fft(x).real), "fft"),
        (Function(lambda x: torch.where(torch.isnan(x), x, -x)), "aten.isnan"),
        (Function(lambda x: x + torch.rand(4)), "random numbers"),
    ],
)
def test_unsupported(module, message):
    with pytest.raises(UnsupportedError, match=message):
        from_torch(Deep(module), torch.zeros(1, 4))


def test_output_padding_beyond_the_stride_is_unsupported():
    module = nn.ConvTranspose1d(1, 1, 3, stride=1, dilation=2, output_padding=1)
    with pytest.raises(UnsupportedError, match="output_padding"):
        from_torch(module, torch.zeros(1, 1, 5))


def test_module_that_writes_to_a_buffer_is_unsupported():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls.add_(1)
            return x + self.calls

    with pytest.raises(UnsupportedError, match="changes its buffers"):
        from_torch(Counter(), torch.zeros(1, 4))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_must_be_finite(bad):
    module = Deep(nn.ReLU())
    with torch.no_grad():
        module.body[0].weight[0, 1] = bad
    with pytest.raises(InputError, match=r"'body.0.weight' holds NaN or infinity"):
        from_torch(module, torch.zeros(1, 4))


def test_constants_must_stay_finite():
    with pytest.raises(InputError, match="division by zero"):
        from_torch(Function(lambda x: x / torch.zeros(4)), torch.zeros(1, 4))


def test_unused_weights_may_be_anything():
    module = nn.Linear(4, 2)
    module.register_buffer("mask", torch.tensor([float("-inf")]))
    assert from_torch(module, torch.zeros(1, 4)).output_shape == (1, 2)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: torch.ones(2), "does not depend on its input"),
        (lambda x: torch.zeros_like(x) + 1, "does not depend on its input"),
        (lambda x: x if x.sum() > 0 else -x, "cannot capture the module"),
        (lambda x: x.reshape(3), "cannot capture the module"),
        (lambda x: x.no_such_method(), "no_such_method"),
    ],
)
def test_unusable_modules(function, message):
    with pytest.raises(InputError, match=message) as caught:
        from_torch(Function(function), torch.zeros(1, 4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.bfloat16])
def test_examples_of_other_types_are_refused(dtype):
    with pytest.raises(InputError, match="give a tensor of float32 or float64"):
        from_torch(nn.Linear(2, 2), torch.zeros(1, 2, dtype=dtype))


def test_a_float64_module_is_replayed_in_float64():
    network = from_torch(nn.Linear(1, 1, bias=False).double(), torch.zeros(1, 1, dtype=torch.float64))
    assert network.elements.holder is np.float64
    weight = operator(network).weight.item()
    assert network.replay is not None
    result = network.replay(np.array([[0.1]]))
    assert (result.dtype, result.item()) == (np.float64, weight * 0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_of_a_module_take_the_type_of_its_tensors(dtype):
    network = from_torch(Function(lambda x: x * 0.1), torch.zeros(1, 2, dtype=dtype))
    assert operator(network).factor.item() == torch.tensor(0.1, dtype=dtype).item()
    network = from_torch(nn.LeakyReLU(0.01), torch.zeros(1, 2, dtype=dtype))
    assert operator(network).negative_slope == torch.tensor(0.01, dtype=dtype).item()


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lambda x: x / 3, Fraction(1, 3)),
        (lambda x: x.reshape(1, 3, 1).mean(1) * torch.tensor(7.0), Fraction(7, 3)),
        (lambda x: x * (torch.tensor(1.0) / torch.tensor(3.0)), Fraction(1, 3)),
        (lambda x: x * (torch.tensor(1e8) + torch.tensor(2.0**-30)), 10**8 + Fraction(1, 2**30)),
        (lambda x: x @ (torch.full((3, 3), 3.0) @ torch.tensor([[1e4], [1.0], [-1e4]])), Fraction(3)),
        (lambda x: x * torch.sqrt(torch.tensor(2.0)), None),
    ],
)
def test_constants_enclose_real_arithmetic(function, exact):
    """A product of the factors of all operators, with their errors, holds what the module means."""
    network = from_torch(Function(function), torch.zeros(1, 3))
    low = high = Fraction(1)
    for op in (n.op for n in network.nodes if isinstance(n.op, Scale | Dense)):
        value, error = (op.factor, op.factor_error) if isinstance(op, Scale) else (op.weight, op.weight_error)
        exactly, off = Fraction(value.flatten()[0].item()), 0 if error is None else Fraction(error.flatten()[0].item())
        low, high = low * (exactly - off), high * (exactly + off)
    if exact is None:
        assert low**2 < 2 < high**2
    else:
        assert low <= exact <= high
    assert high - low <= abs(high) * Fraction(1, 2**30)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.half().float(), "rounded to torch.float16"),
        (lambda x: x.bfloat16().float(), "rounded to torch.bfloat16"),
        (lambda x: x.double().float(), "rounded to torch.float32"),
        (lambda x: x * (torch.tensor(1.0) / 3).double().half().float(), "rounded to another type"),
        (lambda x: x * torch.tensor(2.0).lgamma(), "not a computation of constants"),
        (lambda x: x * (torch.tensor(1.0) / 3 * 3 > 1), "a comparison of computed constants that are nearly equal"),
    ],
)
def test_what_rounds_or_decides_is_refused(function, message):
    with pytest.raises(UnsupportedError, match=message) as caught:
        from_torch(Function(function), torch.zeros(1, 2))
    assert "\n" not in str(caught.value)


def test_a_result_in_double_precision_is_not_rounded():
    network = from_torch(Function(lambda x: x.double() / 3), torch.zeros(1, 1))
    assert network.replay is not None
    result = network.replay(np.ones((1, 1), np.float32))
    assert (network.elements.holder, result.dtype, result.item()) == (np.float32, np.float64, 1 / 3)


def test_import_check_catches_a_module_that_disagrees_with_its_graph():
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    with pytest.raises(InputError):
        from_torch(Stateful(), torch.zeros(1, 4))


def test_supported_operators_are_listed():
    names = supported_operators()
    assert names == sorted(names)
    assert {"aten.conv2d", "aten.relu", "aten.max_pool2d"} <= set(names)


def test_network_structure_of_a_small_net():
    network = agrees(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)), 1, 1, 4, 4)
    kinds = [type(node.op) for node in network.nodes]
    assert kinds[1] is Conv
    assert kinds[-1] is Dense
