"""Aten operators that are composed of others (`krelax.network.composites`, `.recurrent`): they join `READERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, isinf, sqrt

import numpy as np
import torch

from krelax.activations import ReLU, Sigmoid, Sqrt, Step, Tanh
from krelax.errors import UnsupportedError
from krelax.network import compose, composites, decisions, recurrent
from krelax.network.compose import Operand
from krelax.network.constants import Constant
from krelax.network.contractions import einsum, reduce_max, transpose, where
from krelax.network.products import matmul, multiply
from krelax.network.recurrent import Cell, State, Weights
from krelax.network.spatial import lp_norm
from krelax.network.torch_moves import move
from krelax.network.torch_operators import reads, scaled
from krelax.network.torch_reader import Branch, Call


@reads("softmax", "_softmax", "log_softmax", "_log_softmax")
def _softmax(c: Call) -> int:
    return composites.softmax(c.builder, c.x, c["dim"] % max(1, len(c.input_shape)), "log" in c.name)


@reads("logsumexp")
def _log_sum_exp(c: Call) -> int:
    return composites.log_sum_exp(c.builder, c.x, _axes(c), c["keepdim"])


def _axes(c: Call) -> list[int]:
    """The axes that are reduced; all of them if none are named."""
    given = c.arguments.get("dim")
    given = [given] if isinstance(given, int) else given
    return list(given) if given else list(range(len(c.input_shape)))


@reads("var", "std")
def _variance(c: Call) -> int:
    return _spread(c)


def _spread(c: Call) -> int:
    correction = c.arguments.get("correction", 1.0 if c.arguments.get("unbiased", True) else 0.0)
    correction = 1.0 if correction is None else float(correction)
    found = composites.variance(c.builder, c.x, _axes(c), c.arguments.get("keepdim", False), correction)
    return c.builder.add(Sqrt(), found) if c.name.startswith("std") else found


@reads("linalg_vector_norm", "norm")
def _norm(c: Call) -> int:
    order, keep, axes = c.arguments.get("ord", c.arguments.get("p", 2)), c.arguments.get("keepdim", False), _axes(c)
    order = 2.0 if order is None else float(order)
    if order == 2:
        return composites.norm(c.builder, c.x, axes, keep)
    if isinf(order):
        return reduce_max(c.builder, compose.absolute(c.builder, c.x), axes, keep, 1 if order > 0 else -1)
    return lp_norm(c.builder, c.x, order, lambda x: compose.reduce_sum(c.builder, x, axes, keep))


def _epsilon(c: Call) -> float:
    given = c["eps"]
    if given is None:
        return float(torch.finfo(c.dtype).eps)
    return float(c.number(given).value.item())


@reads("layer_norm", "rms_norm")
def _layer_norm(c: Call) -> int:
    count, bias = len(c["normalized_shape"]), c.optional("bias") if c.name == "layer_norm" else None
    axes = range(len(c.input_shape) - count, len(c.input_shape))
    weight, centred = c.optional("weight"), c.name == "layer_norm"
    return composites.normalise(c.builder, c.x, axes, _epsilon(c), weight, bias, centred)


@reads("group_norm", "instance_norm")
def _group_norm(c: Call) -> int:
    if c.arguments.get("use_input_stats") is False:
        names = {"mean": "running_mean", "var": "running_var", "weight": "weight", "bias": "bias"}
        given = {name: c.optional(place) for name, place in names.items()}
        mean, var = given["mean"], given["var"]
        assert mean is not None
        assert var is not None
        parts = {"weight": given["weight"], "bias": given["bias"]}
        return compose.batch_norm(c.builder, c.x, **parts, mean=mean, var=var, eps=_epsilon(c))
    groups = c.arguments.get("num_groups", c.input_shape[1])
    return composites.group_norm(c.builder, c.x, groups, _epsilon(c), c.optional("weight"), c.optional("bias"))


@reads("scaled_dot_product_attention")
def _attention(c: Call) -> int:
    query, key, value = (c.operand(name) for name in ("query", "key", "value"))
    if c["dropout_p"] or c.arguments.get("enable_gqa"):
        raise UnsupportedError("attention with dropout or grouped queries")
    (rows, size), columns = c.shape_of(query)[-2:], c.shape_of(key)[-2]
    scale = c.number(1 / sqrt(size) if c["scale"] is None else c["scale"])
    mask = c["attn_mask"]
    if isinstance(mask, Branch):
        raise UnsupportedError("a mask that depends on the input")
    if c["is_causal"]:
        mask = torch.ones(rows, columns, dtype=torch.bool).tril()
    if isinstance(mask, torch.Tensor) and mask.dtype == torch.bool:
        kept = np.asarray(mask.numpy(), np.bool_)
        return composites.attention(c.builder, query, key, value, scale, kept)
    return composites.attention(c.builder, query, key, value, scale, None if mask is None else c.constant("attn_mask"))


@reads("einsum")
def _einsum(c: Call) -> int:
    return einsum(c.builder, c["equation"], c.operands("tensors"))


@reads("baddbmm")
def _baddbmm(c: Call) -> int:
    product = matmul(c.builder, c.operand("batch1"), c.operand("batch2"))
    return compose.add(c.builder, scaled(c, product, c["alpha"]), scaled(c, c.operand("self"), c["beta"]))


@reads("glu")
def _glu(c: Call) -> int:
    axis = c["dim"] % len(c.input_shape)
    half = c.input_shape[axis] // 2
    first, second = (compose.take_slice(c.builder, c.x, axis, range(i * half, (i + 1) * half)) for i in (0, 1))
    return multiply(c.builder, first, c.builder.add(Sigmoid(), second))


# The places of the gates in the order of `krelax.network.recurrent`.
_LSTM, _GRU = (0, 3, 1, 2), (1, 0, 2)
_CELLS: dict[str, Callable[[Weights], Cell]] = {
    "lstm": lambda w: recurrent.lstm(w.ordered(_LSTM)),
    "gru": lambda w: recurrent.gru(w.ordered(_GRU), True),
    "rnn_tanh": lambda w: recurrent.plain(w, Tanh()),
    "rnn_relu": lambda w: recurrent.plain(w, ReLU()),
}


@reads(*_CELLS)
def _recurrent(c: Call) -> list[int]:
    """Layers over one another, each of one direction or two: the outputs at all times, and the last states."""
    first, hidden = c.operand("input"), c["hx"]
    if not isinstance(first, int) or len(c.builder.shape(first)) != 3:
        raise UnsupportedError("a sequence that is constant, or packed")
    states = c.operands("hx") if isinstance(hidden, Sequence) else [c.operand("hx")]
    cells, directions = _cells(c), 1 + bool(c["bidirectional"])
    x = transpose(c.builder, first, (1, 0, 2)) if c["batch_first"] else first
    last: list[State] = []
    for layer in range(c["num_layers"]):
        outputs = []
        for way in range(directions):
            number = layer * directions + way
            state = tuple(_state(c, s, number) for s in states)
            every, state = recurrent.unrolled(c.builder, cells[number], x, state, way == 1)
            outputs.append(recurrent.stacked(c.builder, every, 0))
            last.append(state)
        x = outputs[0] if directions == 1 else compose.concat(c.builder, outputs, 2)
    x = transpose(c.builder, x, (1, 0, 2)) if c["batch_first"] else x
    return [x, *(recurrent.stacked(c.builder, [state[i] for state in last], 0) for i in range(len(states)))]


def _cells(c: Call) -> list[Cell]:
    """The cells of all layers and directions."""
    params, each = c.operands("params"), 4 if c["has_biases"] else 2
    count = c["num_layers"] * (1 + bool(c["bidirectional"]))
    if len(params) != each * count:
        raise UnsupportedError("a projection of the state; set proj_size=0")
    if any(not isinstance(p, Constant) for p in params):
        raise UnsupportedError("weights that depend on the input")
    return [_CELLS[c.name](_weights(params[each * i : each * (i + 1)])) for i in range(count)]


def _weights(params: Sequence[Operand | None]) -> Weights:
    inputs, hidden, *biases = params
    assert isinstance(inputs, Constant)
    assert isinstance(hidden, Constant)
    one, two = biases if biases else (None, None)
    assert not isinstance(one, int)
    assert not isinstance(two, int)
    return Weights(inputs, hidden, one, two)


def _state(c: Call, state: Operand, number: int) -> Operand:
    """The state of a layer and direction at the beginning."""
    if isinstance(state, Constant):
        return state[number]
    part = compose.take_slice(c.builder, state, 0, [number])
    return compose.reshape(c.builder, part, c.builder.shape(state)[1:])


@reads("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def _cell(c: Call) -> int | list[int]:
    """One step."""
    cell = _CELLS[c.name.removesuffix("_cell")](
        _weights([None if c.arguments.get(n) is None else c.constant(n) for n in ("w_ih", "w_hh", "b_ih", "b_hh")])
    )
    x = c.operand("input")
    if not isinstance(x, int) or len(c.builder.shape(x)) != 2:
        raise UnsupportedError("an input that is constant, or without an axis for the batch")
    states = c.operands("hx") if c.name == "lstm_cell" else [c.operand("hx")]
    gates = compose.dense(c.builder, x, cell.weights.inputs, cell.weights.input_bias)
    found = [s for s in cell.step(c.builder, gates, tuple(states)) if isinstance(s, int)]
    return found if len(found) > 1 else found[0]


@reads("gt", "ge", "lt", "le")
def _compare(c: Call) -> int:
    a, b = c.pair
    return decisions.compare(c.builder, c.name, a, b)


@reads("logical_not", "bitwise_not")
def _not(c: Call) -> int:
    return decisions.opposite(c.builder, c.x)


@reads("logical_and", "bitwise_and", "__and__", "logical_or", "bitwise_or", "__or__")
def _joined(c: Call) -> int:
    join = decisions.both if "and" in c.name else decisions.either
    return join(c.builder, *c.pair)


@reads("heaviside")
def _heaviside(c: Call) -> int:
    at = c.constant("values")
    if at.error is None and at.value.unique().numel() == 1 and float(at.value.reshape(-1)[0]) in {0, 1}:
        return c.add(Step(float(at.value.reshape(-1)[0])))
    # between: `step0(z) + at * (step1(z) - step0(z))`
    above, reached = c.add(Step(0.0)), c.add(Step(1.0))
    there = compose.scale_shift(c.builder, compose.add(c.builder, reached, above, -1), at, None)
    return compose.add(c.builder, above, there)


@reads("where", "masked_fill")
def _choose(c: Call) -> int | list[int]:
    """Entries of two tensors by a truth; one that does not depend on the input only moves them."""
    name = "mask" if c.name == "masked_fill" else "condition"
    if not isinstance(c[name], Branch):
        a, b = (c.operand(n) for n in (("value", "self") if c.name == "masked_fill" else ("self", "other")))
        endless = any(isinstance(o, Constant) and bool((o.value == -inf).all()) for o in (a, b))
        return where(c.builder, np.asarray(c[name].numpy(), np.bool_), a, b) if endless else move(c)
    if c.name == "masked_fill":
        return decisions.choose(c.builder, c[name].index, c.operand("value"), c.operand("self"))
    return decisions.choose(c.builder, c[name].index, c.operand("self"), c.operand("other"))


@reads("var_mean", "std_mean")
def _variance_and_mean(c: Call) -> list[int]:
    mean = compose.reduce_mean(c.builder, c.x, _axes(c), c.arguments.get("keepdim", False))
    return [_spread(c), mean]
