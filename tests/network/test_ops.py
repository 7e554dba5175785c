"""Every affine operator: against PyTorch, and the identities that backward bounds rest on."""

from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from krelax.activations import LeakyReLU, Max, Product, ReLU, Sigmoid, Tanh
from krelax.bounds.backward import neurons
from krelax.errors import UnsupportedError
from krelax.network.graph import Builder
from krelax.network.linear import Add, Conv, ConvTranspose, Dense, Scale, Sum, Within, dense_rows
from krelax.network.ops import (
    Concat,
    Expand,
    Gather,
    Pad,
    Reshape,
    Source,
    Take,
    Transpose,
    normal_axes,
    one_hot,
)

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=GENERATOR)


def conv(weight, stride, padding, dilation, groups=1, bias=True):
    rank = len(weight) - 2
    sizes = ((n,) * rank if isinstance(n, int) else n for n in (stride, padding, dilation))
    return Conv(normal(*weight), normal(weight[0]) if bias else None, *sizes, groups)  # type: ignore[call-arg]


def transposed(weight, stride, padding, dilation, extra=0, groups=1, bias=True):
    rank = len(weight) - 2
    sizes = ((n,) * rank if isinstance(n, int) else n for n in (stride, padding, dilation, extra))
    shift = normal(weight[1] * groups) if bias else None
    return ConvTranspose(normal(*weight), shift, *sizes, groups)  # type: ignore[call-arg]


# name: operator, input shapes, plain PyTorch on batched operands (None where forward is that very call)
CASES: dict[str, tuple[Any, Any, Any]] = {
    "reshape": (Reshape((2, 6)), [(1, 3, 4)], lambda x: x.view(-1, 2, 6)),
    "reshape to nothing": (Reshape(()), [(1, 1)], lambda x: x[:, 0, 0]),
    "transpose": (Transpose((2, 0, 1)), [(2, 3, 4)], lambda x: torch.einsum("nabc->ncab", x)),
    "gather": (Gather(1, torch.tensor([2, 0])), [(2, 3, 4)], lambda x: x[:, :, [2, 0]]),
    "gather repeats": (Gather(0, torch.tensor([1, 1, 0, 1])), [(2, 3)], lambda x: x[:, [1, 1, 0, 1]]),
    "gather one": (Gather(2, torch.tensor([3])), [(2, 3, 4)], lambda x: x[..., 3:]),
    "take": (Take(torch.tensor([[5, 0], [0, 3]])), [(2, 3)], lambda x: x.flatten(1)[:, [5, 0, 0, 3]].view(-1, 2, 2)),
    "concat": (Concat(1), [(2, 3), (2, 1), (2, 2)], lambda *x: torch.cat(x, -1)),
    "concat first axis": (Concat(0), [(1, 3), (2, 3)], lambda *x: torch.cat(x, 1)),
    "pad": (Pad((0, 1, 2), (1, 0, 0)), [(1, 2, 3)], lambda x: F.pad(x, (2, 0, 1, 0, 0, 1))),
    "pad and crop": (Pad((-1, 2), (1, -2)), [(2, 3)], lambda x: F.pad(x[:, 1:, :1], (2, 0, 0, 1))),
    "expand": (Expand((2, 3, 4)), [(1, 3, 1)], lambda x: x.repeat(1, 2, 1, 4)),
    "expand nothing": (Expand((2, 3)), [(2, 3)], lambda x: x),
    "dense": (Dense(normal(3, 5), normal(3)), [(5,)], None),
    "dense rows": (Dense(normal(6, 2)), [(1, 4, 2)], None),
    "dense bias by row": (Dense(normal(3, 5), normal(4, 3)), [(4, 5)], None),
    "dense bias full": (Dense(normal(3, 5), normal(2, 1, 3)), [(2, 4, 5)], None),
    "conv1d": (conv((4, 3, 2), 1, 0, 1), [(1, 3, 5)], None),
    "conv1d strided": (conv((2, 1, 3), 3, 1, 2), [(2, 1, 11)], None),
    "conv2d": (conv((4, 3, 3, 2), 1, 0, 1), [(1, 3, 5, 6)], None),
    "conv2d strided": (conv((4, 3, 3, 3), 2, 1, 1), [(3, 3, 6, 7)], None),
    "conv2d uneven": (conv((2, 1, 3, 2), (3, 2), (0, 1), (1, 2), bias=False), [(1, 1, 9, 8)], None),
    "conv2d many channels": (conv((3, 6, 3, 3), 1, 1, 1), [(1, 6, 5, 4)], None),
    "conv2d many channels, strided": (conv((4, 5, 3, 3), 2, 1, 1), [(3, 5, 6, 7)], None),
    "conv2d many channels, uneven": (conv((2, 6, 3, 2), (3, 2), (0, 1), (1, 2), bias=False), [(1, 6, 9, 8)], None),
    "conv2d many channels, kernel skips": (conv((2, 5, 1, 1), 3, 0, 1), [(1, 5, 6, 5)], None),
    "conv2d many channels, kernel in the padding": (conv((2, 5, 2, 3), 2, (3, 4), 1), [(1, 5, 2, 3)], None),
    "conv2d groups": (conv((6, 2, 2, 2), 2, 1, 1, groups=3), [(2, 6, 5, 4)], None),
    "conv2d depthwise": (conv((3, 1, 3, 3), 2, 0, 1, groups=3), [(1, 3, 8, 8)], None),
    "conv2d kernel skips": (conv((2, 2, 1, 1), 3, 0, 1), [(1, 2, 6, 5)], None),
    "conv3d": (conv((2, 2, 2, 1, 3), (1, 2, 2), (1, 0, 1), (2, 1, 1)), [(2, 2, 4, 3, 5)], None),
    "conv_transpose1d": (transposed((2, 3, 3), 2, 1, 1, extra=1), [(1, 2, 4)], None),
    "conv_transpose2d": (transposed((3, 2, 2, 3), (2, 1), (0, 1), (1, 2)), [(2, 3, 3, 4)], None),
    "conv_transpose groups": (transposed((4, 3, 2, 2), 2, 0, 1, groups=2, bias=False), [(1, 4, 3, 2)], None),
    "conv_transpose gaps": (transposed((1, 1, 2, 2), 3, 1, 1, extra=(2, 0)), [(1, 1, 3, 3)], None),
    "conv_transpose3d": (transposed((2, 1, 2, 2, 1), 2, 1, 1), [(1, 2, 2, 3, 2)], None),
    "scale": (Scale(normal(3, 1), normal(4)), [(2, 3, 4)], None),
    "scale only": (Scale(normal(2, 3)), [(2, 3)], None),
    "scale by number": (Scale(torch.tensor(-2.0).double()), [(2, 3)], lambda x: -2 * x),
    "shift only": (Scale(None, normal(3)), [(2, 3)], None),
    "add": (Add((1, 1)), [(2, 3), (2, 3)], lambda a, b: a + b),
    "add signs": (Add((-1, 1, -1)), [(4,), (4,), (4,)], lambda a, b, c: b - a - c),
    "sum": (Sum((1,), 3), [(2, 3, 4)], lambda x: x.sum(2, keepdim=True)),
    "sum all": (Sum((0, 1), 6), [(2, 3)], lambda x: x.sum((1, 2), keepdim=True)),
}
all_cases = pytest.mark.parametrize("name", CASES)


def reference(op, x):
    """The value of an arithmetic operator on unbatched `x`, written differently."""
    if isinstance(op, Dense):
        result = torch.einsum("...i,oi->...o", x, op.weight)
        return result if op.bias is None else result + op.bias
    if isinstance(op, Conv):
        name = f"conv{op.weight.dim() - 2}d"
        return getattr(F, name)(x, op.weight, op.bias, op.stride, op.padding, op.dilation, op.groups)
    if isinstance(op, ConvTranspose):
        call = getattr(F, f"conv_transpose{op.weight.dim() - 2}d")
        return call(x, op.weight, op.bias, op.stride, op.padding, op.output_padding, op.groups, op.dilation)
    factor, shift = (torch.zeros(()) if t is None else t for t in (op.factor, op.shift))
    return x * (1 if op.factor is None else factor) + shift


@all_cases
def test_forward_and_shape(name):
    op, shapes, plain = CASES[name]
    operands = [normal(3, *shape) for shape in shapes]
    value = op.forward(*operands)
    assert op.shape(*shapes) == tuple(value.shape[1:])
    expected = plain(*operands) if plain else torch.stack([reference(op, x) for x in operands[0]])
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@all_cases
def test_forward_is_linear_part_and_bias(name):
    op, shapes, _ = CASES[name]
    zero = op.forward(*(torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes))[0]
    bias = op.constant()
    expected = torch.zeros(op.shape(*shapes)).double() if bias is None else bias.expand(op.shape(*shapes))
    torch.testing.assert_close(zero, expected)
    operands = [normal(2, *shape) for shape in shapes]
    torch.testing.assert_close(op.linear(*operands), op.forward(*operands) - zero, rtol=1e-12, atol=1e-12)


@all_cases
def test_adjoint_identity(name):
    op, shapes, _ = CASES[name]
    operands = [normal(1, *shape) for shape in shapes]
    coeff = normal(5, *op.shape(*shapes))
    pulled = op.adjoint(coeff, *shapes)
    assert [tuple(p.shape) for p in pulled] == [(5, *shape) for shape in shapes]
    left = (coeff * op.linear(*operands)).reshape(5, -1).sum(1)
    right = sum((p * x).reshape(5, -1).sum(1) for p, x in zip(pulled, operands, strict=True))
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


def test_the_adjoint_of_many_is_that_of_each():
    """Convolutions in double precision are pulled back in pieces."""
    op, shape = conv((4, 6, 3, 3), 2, 1, 1), (1, 6, 5, 4)
    coeff = normal(300, *op.shape(shape))
    each = torch.cat([op.adjoint(part, shape)[0] for part in coeff.split(1)])
    torch.testing.assert_close(op.adjoint(coeff, shape)[0], each, rtol=1e-12, atol=1e-12)


@all_cases
def test_absolute_bounds_every_value(name):
    op, shapes, _ = CASES[name]
    operands = [normal(20, *shape) for shape in shapes]
    bound = op.absolute().forward(*(x.abs() for x in operands))
    assert (op.forward(*operands).abs() <= bound + 1e-12).all()


def jacobian(op, shapes):
    """Rows of the linear part, `(outputs, inputs)`."""
    coeff = torch.eye(prod(op.shape(*shapes)), dtype=torch.float64).reshape(-1, *op.shape(*shapes))
    return torch.cat([p.flatten(1) for p in op.adjoint(coeff, *shapes)], 1)


@all_cases
def test_absolute_is_the_absolute_jacobian(name):
    op, shapes, _ = CASES[name]
    torch.testing.assert_close(jacobian(op.absolute(), shapes), jacobian(op, shapes).abs())


@all_cases
def test_terms_cover_every_sum(name):
    op, shapes, _ = CASES[name]
    used = jacobian(op, shapes) != 0
    assert op.terms >= max(int(used.sum(0).max()), int(used.sum(1).max())) or isinstance(op, Add | Concat)
    if isinstance(op, Add):
        assert op.terms == int(used.sum(1).max())


@all_cases
def test_operators_that_only_move_are_exact(name):
    op, shapes, _ = CASES[name]
    if op.moves_only:
        rows = jacobian(op, shapes)
        assert set(rows.unique().tolist()) <= {0.0, 1.0}
        assert (rows.sum(1) <= 1).all()


@all_cases
def test_conversion_keeps_the_structure(name):
    op, shapes, _ = CASES[name]
    single = op.to(torch.float32, "cpu")
    assert type(single) is type(op)
    assert single.shape(*shapes) == op.shape(*shapes)
    assert all(t.dtype in {torch.float32, torch.int64} for t in single.parameters())
    assert single.forward(*(torch.ones(1, *shape) for shape in shapes)).dtype == torch.float32


@all_cases
def test_batch_entries_do_not_mix(name):
    op, shapes, _ = CASES[name]
    operands = [normal(3, *shape) for shape in shapes]
    alone = torch.cat([op.forward(*(x[i : i + 1] for x in operands)) for i in range(3)])
    torch.testing.assert_close(op.forward(*operands), alone, rtol=1e-12, atol=1e-12)


ACTIVATIONS = {
    "relu": (ReLU(), torch.relu),
    "leaky": (LeakyReLU(0.2), lambda z: torch.where(z > 0, z, 0.2 * z)),
    "sigmoid": (Sigmoid(), lambda z: 1 / (1 + torch.exp(-z))),
    "tanh": (Tanh(), lambda z: 2 / (1 + torch.exp(-2 * z)) - 1),
    "product": (Product(), lambda z: z[..., :2].prod(-1)),
    "max": (Max(), lambda z: z.sort(-1).values[..., -1]),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    op, plain = ACTIVATIONS[name]
    z = 3 * normal(2, 3, 5)
    assert op.shape((3, 5)) == tuple(op.forward(z).shape[1:])
    torch.testing.assert_close(op.forward(z), plain(z))


@pytest.mark.parametrize("slope", [-0.5, -1e-300, 1 + 2**-52, 1.5, float("inf"), float("nan")])
def test_a_leaky_relu_that_is_not_monotone_or_not_convex_is_refused(slope):
    """However the network is made: relaxations would not enclose it."""
    with pytest.raises(UnsupportedError, match=f"leaky ReLU with a negative slope of {slope:g};"):
        LeakyReLU(slope)


@pytest.mark.parametrize("slope", [0.0, 1e-300, 1.0])
def test_a_leaky_relu_is_a_maximum(slope):
    z = normal(2, 5)
    assert torch.equal(LeakyReLU(slope).forward(z), z.maximum(slope * z))


def test_source_has_no_value_of_its_own():
    with pytest.raises(NotImplementedError):
        Source().shape()
    with pytest.raises(NotImplementedError):
        Source().forward()


def test_normal_axes():
    assert normal_axes([-1, 0, 2], 3) == (0, 2)


def test_one_hot_picks_entries():
    x = normal(2, 3)
    units = one_hot(torch.tensor([5, 0]), (2, 3), torch.float64)
    assert (units * x).flatten(1).sum(1).tolist() == [x[1, 2].item(), x[0, 0].item()]


def test_dense_rows_are_rows_of_dense_operators_only():
    op = Dense(normal(3, 5))
    index = torch.tensor([[2, 0]])
    assert torch.equal(dense_rows(op, index), op.weight[index])
    assert dense_rows(Scale(normal(5)), index) is None


def with_errors():
    """A dense operator whose first weight and second bias are not those of the model."""
    error = torch.tensor([[2.0**-50, 0.0, 0.0], [0.0, 0.0, 0.0]]).double(), torch.tensor([0.0, 2.0**-40]).double()
    return Dense(torch.tensor([[1.0, -2.0, 0.0], [3.0, 0.0, 5.0]]).double(), torch.tensor([-1.0, 0.0]).double(), *error)


def test_sizes_have_room_for_the_errors_of_constants():
    op = with_errors()
    sizes, absolute = op.sizes(), op.absolute()
    assert not op.is_exact
    assert absolute.is_exact
    assert sizes.is_exact
    one = torch.ones(1, 3).double()
    # an error of e counts for e / (32 * 2**-53)
    torch.testing.assert_close(sizes.forward(one) - absolute.forward(one), torch.tensor([[0.25, 2.0**8]]).double())


def test_exact_operators_have_the_sizes_of_their_absolute_values():
    op = Dense(torch.tensor([[1.0, -2.0]]).double(), torch.tensor([-3.0]).double())
    assert op.is_exact
    assert op.sizes().forward(torch.ones(1, 2).double()).item() == 6


def test_only_float64_keeps_the_errors_of_constants():
    op = with_errors()
    kept, dropped = op.to(torch.float64, "cpu"), op.to(torch.float32, "cpu")
    assert torch.equal(kept.weight_error, op.weight_error)
    assert torch.equal(kept.bias_error, op.bias_error)
    assert dropped.is_exact
    assert dropped.weight.dtype == torch.float32


def test_a_pass_from_an_operator_with_errors_starts_at_its_node():
    """Where it is charged: its rows are not the model's."""
    builder = Builder((3,))
    network = builder.build(builder.add(with_errors(), 0))
    assert list(neurons(network, 1, torch.tensor([[0]])).coeff) == [1]
    builder = Builder((3,))
    network = builder.build(builder.add(replace(with_errors(), weight_error=None, bias_error=None), 0))
    assert list(neurons(network, 1, torch.tensor([[0]])).coeff) == [0]


def test_what_goes_beyond_is_charged_without_bound():
    x = torch.tensor([[1.0, -2.0, 3.0]]).double()
    op = Within(2.0)
    assert torch.equal(op.forward(x), x)
    assert op.sizes().forward(x.abs()).tolist() == [[1.0, 2.0, float("inf")]]


def test_a_network_without_constants_has_the_type_it_was_converted_to():
    builder = Builder((3,))
    network = builder.build(builder.add(ReLU(), 0))
    assert network.dtype == torch.float64
    assert network.to(torch.float32).dtype == torch.float32
    assert network.to(torch.float32).to(torch.float64).dtype == torch.float64
