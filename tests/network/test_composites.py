"""What is composed of products and functions of one number: agreement with PyTorch and ONNX Runtime, bounds against
dense sampling, and certificates."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from tests.certificate.proofs import as_file
from torch import Tensor, nn

from krelax.activations import Activation, LogSumExp, Product, Reciprocal, ReciprocalSqrt, Share, Square
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.optimise import Ascent
from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.schema import Certificate
from krelax.errors import UnsupportedError
from krelax.network.check import import_error
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.network.torch import from_torch
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict


class Function(nn.Module):
    """A function of the input as a module, with whatever modules it calls."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


def last(cell: nn.Module) -> nn.Module:
    """The last output of a recurrent layer, and its last state."""
    return Function(lambda x, m: m(x)[0][:, -1], cell)


def attending() -> nn.Module:
    return Function(lambda x, m: m(x, x, x)[0], nn.MultiheadAttention(4, 2, batch_first=True))


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "softmax": (lambda: nn.Softmax(1), (2, 4, 3)),
    "log_softmax": (lambda: nn.LogSoftmax(-1), (2, 4)),
    "softmax of one": (lambda: nn.Softmax(-1), (2, 1)),
    "layer_norm": (lambda: nn.LayerNorm((3, 4)), (2, 3, 4)),
    "rms_norm": (lambda: nn.RMSNorm(4), (2, 3, 4)),
    "group_norm": (lambda: nn.GroupNorm(2, 4), (2, 4, 3)),
    "instance_norm": (lambda: nn.InstanceNorm1d(2, affine=True), (1, 2, 5)),
    "attention": (attending, (1, 3, 4)),
    "causal": (lambda: Function(lambda x: F.scaled_dot_product_attention(x, 2 * x, x, is_causal=True)), (1, 4, 2)),
    "encoder": (lambda: nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), (1, 3, 4)),
    "lstm": (lambda: last(nn.LSTM(2, 3, 2, batch_first=True)), (1, 3, 2)),
    "gru": (lambda: last(nn.GRU(2, 3, bidirectional=True, batch_first=True)), (1, 3, 2)),
    "rnn": (lambda: last(nn.RNN(2, 3, nonlinearity="relu", bias=False)), (3, 2, 2)),
    "cells": (lambda: Function(lambda x, m, n: m(x)[0] + n(x), nn.LSTMCell(2, 3), nn.GRUCell(2, 3)), (2, 2)),
    "einsum": (lambda: Function(lambda x: torch.einsum("bij,bkj->bik", x, x.flip(1))), (1, 3, 2)),
    "quotient": (lambda: Function(lambda x: x.roll(1, 1) / (1 + x.abs()) + 2 / (x * x + 1).sqrt()), (1, 4)),
    "glu": (nn.GLU, (1, 4)),
    "norms": (lambda: Function(lambda x: F.normalize(x, dim=-1) + x.var(1, keepdim=True) + x.logsumexp(1)), (1, 4)),
    "baddbmm": (lambda: Function(lambda x: torch.baddbmm(x, x, x, beta=0.5, alpha=-2)), (2, 2, 2)),
}


def read(name: str) -> Network:
    torch.manual_seed(0)
    make, shape = MODULES[name]
    return from_torch(make().eval(), torch.randn(*shape))


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    """All of them, read once."""
    return {name: read(name) for name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_modules_agree_with_pytorch(name: str, networks: dict[str, Network]) -> None:
    assert import_error(networks[name]) < 1e-5


@pytest.mark.parametrize("name", MODULES)
def test_bounds_hold_for_dense_samples_and_are_not_worse_than_intervals(
    name: str, networks: dict[str, Network]
) -> None:
    network = networks[name]
    draw = torch.Generator().manual_seed(1)
    centre = torch.randn(1, *network.input_shape, generator=draw).double()
    radius = 0.02 if name == "encoder" else 0.1  # normalised twice
    box = Box(centre - radius, centre + radius)
    share = torch.rand(2000, *network.input_shape, generator=draw).double()
    share[:1000] = share[:1000].round()
    values = network(box.lower + share * (box.upper - box.lower)).flatten(1)
    outputs = values.shape[1]
    rows = torch.cat([torch.eye(outputs), -torch.eye(outputs)]).double()[None]
    clause = torch.zeros(1, 2 * outputs).long()
    asked = Queries(rows, torch.zeros(1, 2 * outputs).double(), clause, 1)
    sampled = torch.cat([values, -values], 1).amin(0)
    found = {m: bound(Instance.of(network, box), asked, METHODS[m]).value[0] for m in ("interval", "crown", "zonotope")}
    for value in found.values():
        assert bool((value <= sampled).all())
    assert bool(found["crown"].isfinite().all())
    loose = (sampled - found["crown"]).clamp(min=0).mean()
    assert loose <= (sampled - found["interval"]).mean() + 1e-9
    assert loose < 0.5 * (1 + values.abs().amax())


def test_a_square_is_not_a_product() -> None:
    """Of a number with itself, however it is written; of numbers that only look alike it is one."""
    network = from_torch(Function(lambda x: x * x.reshape(2, 3).reshape(3, 2) + x * x.flip(0)), torch.randn(3, 2))
    kinds = [type(n.op) for n in network.nodes if isinstance(n.op, Activation)]
    assert sorted(kinds, key=str) == sorted([Square, Product], key=str)


def test_a_quotient_by_a_root_is_one_function() -> None:
    network = from_torch(Function(lambda x: x / (x.abs() + 1).sqrt()), torch.randn(1, 3))
    assert ReciprocalSqrt in {type(n.op) for n in network.nodes}
    assert Reciprocal not in {type(n.op) for n in network.nodes}


def test_softmax_lies_between_zero_and_one_whatever_is_known() -> None:
    network = from_torch(nn.Softmax(-1), torch.randn(1, 5))
    assert [type(n.op) for n in network.nodes if isinstance(n.op, Activation)] == [LogSumExp, Share]
    box = Box(torch.full((1, 1, 5), -5.0).double(), torch.full((1, 1, 5), 5.0).double())
    rows = torch.cat([torch.eye(5), -torch.eye(5)]).double()[None]
    asked = Queries(rows, torch.zeros(1, 10).double(), torch.zeros(1, 10).long(), 1)
    found = bound(Instance.of(network, box), asked, METHODS["interval"]).value[0]
    assert bool((found[:5] >= 0).all())
    assert bool((found[5:] >= -1 - 1e-13).all())  # less the rounding that is charged for


def test_a_denominator_that_may_be_zero_proves_nothing() -> None:
    network = from_torch(Function(lambda x: x / x.roll(1, 1)), torch.full((1, 2), 2.0))
    box = Box(torch.full((1, 1, 2), -1.0).double(), torch.full((1, 1, 2), 1.0).double())
    asked = Queries(torch.eye(2).double()[None], torch.ones(1, 2).double(), torch.zeros(1, 2).long(), 1)
    for method in ("interval", "crown", "alpha", "zonotope", "lp"):
        found = bound(Instance.of(network, box), asked, METHODS[method]).value
        assert bool((found == -torch.inf).all()), method


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (nn.LSTM(2, 3, proj_size=1), (2, 1, 2), "projection of the state"),
        (Function(lambda x: torch.linalg.vector_norm(x, 0.5)), (1, 3), "norm of order 0.5"),
        (Function(lambda x: x @ x.t()), (3000, 2), "products of numbers that depend on the input; at most"),
    ],
)
def test_what_is_not_composed_is_refused(module: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        from_torch(Function(lambda x, m: y[0] if isinstance(y := m(x), tuple) else y, module), torch.randn(*shape))


# --- certificates


def model(kind: str) -> tuple[bytes, tuple[int, ...]]:
    """A small file with one composition behind a product with weights."""
    rng = np.random.default_rng(len(kind))
    constants, nodes = list[Any](), list[Any]()

    def constant(*shape: int) -> str:
        constants.append(numpy_helper.from_array(rng.normal(0, 0.7, shape).astype(np.float32), f"c{len(constants)}"))
        return constants[-1].name

    def call(op: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"n{len(nodes)}"], **attributes))
        return f"n{len(nodes) - 1}"

    shape = (2, 1, 2) if kind in {"LSTM", "GRU"} else (3, 2)
    x = call("MatMul", "x", constant(2, 2))
    if kind == "attention":
        keys = call("Transpose", call("MatMul", "x", constant(2, 2)), perm=[1, 0])
        y = call("MatMul", call("Softmax", call("MatMul", x, keys), axis=1), call("MatMul", "x", constant(2, 2)))
    elif kind == "LayerNormalization":
        y = call(kind, x, constant(2), constant(2), epsilon=0.1)
    elif kind in {"LSTM", "GRU"}:
        gates = 8 if kind == "LSTM" else 6
        weights = constant(1, gates, 2), constant(1, gates, 2), constant(1, 2 * gates)
        y = call(kind, x, *weights, hidden_size=2)
    elif kind == "Div":
        y = call("Div", call("MatMul", "x", constant(2, 2)), call("Exp", x))
    else:
        y = call("Mul", x, call("Sigmoid", x))
    flat = call("Flatten", y, axis=0)
    return as_file(nodes, constants, shape, flat), shape


KINDS = ["Mul", "Div", "attention", "LayerNormalization", "LSTM", "GRU"]


@pytest.mark.parametrize("method", ["crown", "alpha", "fast-lin"])
@pytest.mark.parametrize("kind", KINDS)
def test_certificates_are_accepted_and_forged_ones_are_not(kind: str, method: str, tmp_path: Path) -> None:
    data, shape = model(kind)
    (tmp_path / "net.onnx").write_bytes(data)
    network = load_onnx(tmp_path / "net.onnx")
    draw = torch.Generator().manual_seed(3)
    centre = torch.randn(1, *shape, generator=draw).double()
    box = Box(centre - 0.05, centre + 0.05)
    outputs = int(np.prod(network.output_shape))
    rows = torch.randn(1, 1, outputs, generator=draw).double()
    plain = Queries(rows, torch.zeros(1, 1).double(), torch.zeros(1, 1).long(), 1)
    way = replace(METHODS[method], outer=Ascent(10, 0.3, 0.9)) if method == "alpha" else METHODS[method]
    proven = bound(Instance.of(network, box), plain, way).value
    asked = replace(plain, offsets=0.01 - proven)
    outcomes: list[Outcome] = []
    questions = Questions(box, asked, lambda i, x, y: False)
    decide(network, questions, Plan((way,)), lambda i, o: outcomes.append(o), 60.0, proofs=True)
    assert outcomes[0].verdict is Verdict.HOLDS
    made = Certificate(hashlib.sha256(data).hexdigest(), "real", "test", list(outcomes[0].proofs))
    (margin,) = check(made, data)
    share = torch.rand(500, *shape, generator=draw).double().round()
    values = network(box.lower + share * (box.upper - box.lower)).flatten(1) @ rows[0, 0] + asked.offsets[0, 0]
    assert 0 < margin <= float(values.min())
    below = replace(made.questions[0], offsets=made.questions[0].offsets - float(values.min()) - 1e-6)
    with pytest.raises((Rejected, Malformed)):
        check(replace(made, questions=[below]), data)
