"""Composite constructions against PyTorch and NumPy, most of all where importers other than PyTorch's differ."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bounds.problems import bounded

from krelax.errors import InputError, UnsupportedError
from krelax.network import compose
from krelax.network.constants import Constant
from krelax.network.graph import Builder
from krelax.network.linear import Scale
from krelax.network.pooling import Window, average_pool, max_pool
from krelax.problem.region import Box


def normal(*shape, seed=0):
    return 2 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def exact(tensor):
    return None if tensor is None else Constant(tensor)


def build(shape, make):
    """The network that `make(builder, input)` describes."""
    builder = Builder(shape)
    return builder.build(make(builder, 0))


def same(shape, make, plain, batch=4):
    """Compare with a function of one unbatched input."""
    network = build(shape, make)
    x = normal(batch, *shape)
    expected = torch.stack([plain(sample) for sample in x])
    assert network.output_shape == tuple(expected.shape[1:])
    torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)
    return network


@st.composite
def windows(draw):
    """A pooling window, and the sizes of the axes it moves over, that every implementation accepts."""
    rank = draw(st.integers(1, 2))
    axes = [
        draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2), st.integers(1, 2)))
        for _ in range(rank)
    ]
    axes = [(k, s, min(b, k - 1), min(a, k - 1), d) for k, s, b, a, d in axes]
    kernel, stride, before, after, dilation = zip(*axes, strict=True)
    sizes = tuple(draw(st.integers(d * (k - 1) + 1, 7)) for k, d in zip(kernel, dilation, strict=True))
    return Window(kernel, stride, before, after, dilation), sizes


def onnx_max_pool(window, x):
    """What ONNX Runtime makes of the pooling operator."""
    node = onnx.helper.make_node(
        "MaxPool",
        ["x"],
        ["y"],
        kernel_shape=window.kernel,
        strides=window.stride,
        pads=[*window.before, *window.after],
        dilations=window.dilation,
    )
    io = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.DOUBLE, None) for n in "xy"]
    graph = onnx.helper.make_graph([node], "pool", io[:1], io[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 12)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


@settings(max_examples=60, deadline=None)
@given(windows())
def test_max_pool_with_uneven_padding(case):
    window, sizes = case
    same(
        (1, 2, *sizes),
        lambda b, x: max_pool(b, x, window),
        lambda x: onnx_max_pool(window, x),
        batch=2,
    )


@settings(max_examples=60, deadline=None)
@given(windows(), st.booleans())
def test_average_pool_with_uneven_padding(case, counted):
    window, sizes = case
    same(
        (1, 2, *sizes),
        lambda b, x: average_pool(b, x, window, count_padding=counted),
        lambda x: direct_average(window, x, counted),
        batch=2,
    )


def direct_average(window, x, counted):
    """Average pooling by the definition, one window at a time."""
    axes = window.places(tuple(x.shape[2:]))
    result = torch.zeros(*x.shape[:2], *(len(p) for p in axes), dtype=x.dtype)
    for place in np.ndindex(*result.shape[2:]):
        grid = np.stack(np.meshgrid(*(p[i] for p, i in zip(axes, place, strict=True)), indexing="ij"))
        entries = grid.reshape(len(axes), -1).T
        inside = [tuple(e) for e in entries if all(0 <= i < n for i, n in zip(e, x.shape[2:], strict=True))]
        total = sum(x[(..., *entry)] for entry in inside)
        result[(..., *place)] = total / (len(entries) if counted else len(inside))
    return result


@pytest.mark.parametrize("size", range(3, 10))
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (2, 3, 1), (3, 1, 1), (1, 2, 0)])
@pytest.mark.parametrize("counted", [False, True])
def test_pools_with_ceil_agree_with_torch(size, kernel, stride, padding, counted):
    window = Window((kernel,), (stride,), (padding,), (padding,), (1,), ceil=True)
    same(
        (2, 3, size),
        lambda b, x: average_pool(b, x, window, count_padding=counted),
        lambda x: F.avg_pool1d(x, kernel, stride, padding, ceil_mode=True, count_include_pad=counted),
    )
    same(
        (2, 3, size),
        lambda b, x: max_pool(b, x, window),
        lambda x: F.max_pool1d(x, kernel, stride, padding, ceil_mode=True),
    )


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_pools_refuse_windows_without_entries(pool):
    builder = Builder((1, 1, 3))
    with pytest.raises(InputError, match="larger than the padded axis"):
        pool(builder, 0, Window((5,), (1,), (0,), (1,), (1,)))
    with pytest.raises(UnsupportedError, match="wholly in the padding"):
        pool(builder, 0, Window((2,), (1,), (3,), (0,), (1,)))


@pytest.mark.parametrize(("before", "after"), [((1, 0), (0, 2)), ((1, 1), (1, 1)), ((0, 0), (0, 0))])
def test_convolution_pads_each_side(before, after):
    weight, bias = normal(4, 1, 2, 3), normal(4)
    same(
        (2, 2, 4, 5),
        lambda b, x: compose.convolution(
            b, x, exact(weight), exact(bias), stride=(1, 2), before=before, after=after, dilation=(2, 1), groups=2
        ),
        lambda x: F.conv2d(F.pad(x, (before[1], after[1], before[0], after[0])), weight, bias, (1, 2), 0, (2, 1), 2),
    )


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1.0, 0.5), (None, 0.5), (-1.0, None), (None, None), (1.0, 1.0), (2.0, -1.0), (-math.inf, math.inf)],
)
def test_clip(low, high):
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    same((3, 7), lambda b, x: compose.clip(b, x, low, high), lambda x: x.clamp(*bounds))


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize("limits", [(-LARGEST, LARGEST), (None, LARGEST), (-LARGEST, None)])
def test_clip_at_the_largest_float_is_no_clip(limits):
    network = same((3,), lambda b, x: compose.clip(b, x, *limits), lambda x: x)
    assert not network.activations()


@pytest.mark.parametrize("method", ["interval", "zonotope", "crown"])
@pytest.mark.parametrize(("centre", "proven"), [(1e38, True), (-1e38, True), (1e39, False), (-1e39, False)])
def test_nothing_is_proven_beyond_a_clip_at_the_largest_float(method, centre, proven):
    network = build((1, 2), lambda b, x: compose.clip(b, x, -LARGEST, LARGEST))
    point = torch.full((1, 1, 2), centre, dtype=torch.float64)
    rows = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]).double()
    value = bounded(network, Box(point, point), rows, torch.zeros(1, 2).double(), method).value
    assert bool(value.isfinite().any()) is proven
    assert proven or bool((value == -math.inf).all())


def test_clip_without_limits_adds_no_node():
    assert len(build((3,), lambda b, x: compose.clip(b, x, -math.inf, math.inf)).nodes) == 1
    assert len(build((3,), lambda b, x: compose.clip(b, x, None, None)).nodes) == 1


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 1), (2, 1, 3), ()])
@pytest.mark.parametrize("sign", [1, -1])
def test_constants_broadcast_both_ways(shape, sign):
    c = normal(*shape, seed=1)
    same((4, 3), lambda b, x: compose.add(b, x, exact(c), sign), lambda x: x + sign * c)
    same((4, 3), lambda b, x: compose.add(b, exact(c), x, sign), lambda x: c + sign * x)
    same((4, 3), lambda b, x: compose.scale_shift(b, x, exact(c), exact(c + 1)), lambda x: x * c + c + 1)
    same((4, 3), lambda b, x: compose.maximum(b, x, exact(c)), lambda x: torch.maximum(x, c))
    same((4, 3), lambda b, x: compose.minimum(b, exact(c), x), lambda x: torch.minimum(x, c))


def test_branches_broadcast():
    def make(b, x):
        return compose.maximum(b, compose.reduce_sum(b, x, [0], keepdims=False), compose.absolute(b, x))

    same((2, 3, 4), make, lambda x: torch.maximum(x.sum(0), x.abs()))


def test_shapes_that_do_not_broadcast_are_an_input_error():
    with pytest.raises(InputError, match=r"\(4, 3\), \(2,\) do not broadcast"):
        compose.add(Builder((4, 3)), 0, exact(normal(2)))


@pytest.mark.parametrize("axes", [(0,), (-1,), (0, 2), (0, 1, 2), ()])
@pytest.mark.parametrize("keep", [True, False])
def test_reductions(axes, keep):
    same(
        (2, 3, 4),
        lambda b, x: compose.reduce_sum(b, x, axes, keep),
        lambda x: x.sum(axes, keepdim=keep) if axes else x,
    )
    same(
        (2, 3, 4),
        lambda b, x: compose.reduce_mean(b, x, axes, keep),
        lambda x: x.mean(axes, keepdim=keep) if axes else x,
    )


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(affine):
    mean, weight, bias = normal(3, 3) if affine else (normal(3), None, None)
    var = normal(3, seed=2) ** 2
    same(
        (2, 3, 4),
        lambda b, x: compose.batch_norm(
            b, x, weight=exact(weight), bias=exact(bias), mean=exact(mean), var=exact(var), eps=1e-3
        ),
        lambda x: F.batch_norm(x, mean, var, weight, bias, eps=1e-3),
    )


@pytest.mark.parametrize("given", [(4,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("constant", [(4,), (4, 5), (1, 4, 5), (1, 1, 1, 4, 5)])
def test_matmul_on_the_right(given, constant):
    c = normal(*constant, seed=3)
    same(given, lambda b, x: compose.matmul(b, x, exact(c)), lambda x: x @ c)


@pytest.mark.parametrize("given", [(3,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("constant", [(3,), (5, 3), (1, 5, 3), (1, 1, 1, 5, 3)])
def test_matmul_on_the_left(given, constant):
    c = normal(*constant, seed=3)
    same(given, lambda b, x: compose.matmul(b, exact(c), x), lambda x: c @ x)


@pytest.mark.parametrize(("given", "stack"), [((3,), (2, 3, 4)), ((5, 3), (2, 3, 4)), ((2, 5, 3), (4, 1, 3, 2))])
def test_matmul_with_a_stack_of_matrices(given, stack):
    c = normal(*stack, seed=3)
    same(given, lambda b, x: compose.matmul(b, x, exact(c)), lambda x: x @ c)


def test_products_that_are_not_affine():
    builder = Builder((3, 3))
    with pytest.raises(UnsupportedError, match="depend on the input"):
        compose.matmul(builder, 0, 0)
    with pytest.raises(UnsupportedError, match="constants"):
        compose.add(builder, exact(normal(3)), exact(normal(3)))


def test_concat_puts_constants_where_they_belong():
    first, last = normal(2, 1), normal(2, 2)
    same(
        (2, 3),
        lambda b, x: compose.concat(b, [exact(first), x, exact(last), compose.negate(b, x)], 1),
        lambda x: torch.cat([first, x, last, -x], 1),
    )


def test_pad_with_a_value_crops_too():
    same(
        (2, 3),
        lambda b, x: compose.pad(b, x, (1, -1), (0, 2), 5.0),
        lambda x: F.pad(x[:, 1:], (0, 2, 1, 0), value=5.0),
    )


def test_steps_that_change_nothing_add_no_node():
    def make(b, x):
        x = compose.reshape(b, x, (2, 3))
        x = compose.broadcast(b, x, (2, 3))
        x = compose.take_slice(b, x, -1, range(3))
        x = compose.pad(b, x, (0, 0), (0, 0))
        return compose.scale_shift(b, x, None, None)

    assert len(build((2, 3), make).nodes) == 1


def test_full_windows_need_no_count_correction():
    network = build(
        (1, 1, 4, 4),
        lambda b, x: average_pool(b, x, Window((2, 2), (2, 2), (0, 0), (0, 0), (1, 1))),
    )
    assert not any(isinstance(node.op, Scale) for node in network.nodes)
