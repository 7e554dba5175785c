"""Aten operators that are composed of others (`krelax.network.composites`, `.recurrent`): they join `READERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod, sqrt

import numpy as np
import torch

from krelax.activations import Erf, Exp, Floor, ReLU, Sigmoid, Softplus, Sqrt, Square, Step, Tanh
from krelax.errors import UnsupportedError
from krelax.network import compose, composites, decisions, recurrent
from krelax.network.compose import Operand
from krelax.network.constants import Constant
from krelax.network.contractions import einsum, transpose, where
from krelax.network.products import matmul, multiply
from krelax.network.recurrent import Cell, State, Weights
from krelax.network.torch_moves import move
from krelax.network.torch_operators import reads, scaled
from krelax.network.torch_reader import Branch, Call


@reads("div")
def _divide(c: Call) -> int:
    if c.arguments.get("rounding_mode") is not None:
        raise UnsupportedError("division that rounds")
    return composites.divide(c.builder, *c.pair)


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
    correction = c.arguments.get("correction", 1.0 if c.arguments.get("unbiased", True) else 0.0)
    correction = 1.0 if correction is None else float(correction)
    found = composites.variance(c.builder, c.x, _axes(c), c.arguments.get("keepdim", False), correction)
    return c.builder.add(Sqrt(), found) if c.name == "std" else found


@reads("linalg_vector_norm", "norm")
def _norm(c: Call) -> int:
    order = c.arguments.get("ord", c.arguments.get("p", 2))
    keep = c.arguments.get("keepdim", False)
    if order == 1:
        return compose.reduce_sum(c.builder, compose.absolute(c.builder, c.x), _axes(c), keep)
    if order not in (None, 2):
        raise UnsupportedError(f"a norm of order {order}; those of order 1 and 2 are supported")
    return composites.norm(c.builder, c.x, _axes(c), keep)


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
    if not isinstance(query, int) or not isinstance(key, int):
        raise UnsupportedError("attention with constant queries or keys")
    if c["dropout_p"] or c.arguments.get("enable_gqa"):
        raise UnsupportedError("attention with dropout or grouped queries")
    size, rows, columns = c.builder.shape(query)[-1], c.builder.shape(query)[-2], c.builder.shape(key)[-2]
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


@reads("reciprocal")
def _reciprocal(c: Call) -> int:
    return composites.reciprocal(c.builder, c.x)


@reads("log", "log2", "log10", "log1p")
def _logarithm(c: Call) -> int:
    """Logarithms of another base are divided by that of the base."""
    x = compose.scale_shift(c.builder, c.x, None, Constant.of(1.0)) if c.name == "log1p" else c.x
    y, base = composites.logarithm(c.builder, x), {"log2": 2.0, "log10": 10.0}.get(c.name)
    return (
        y if base is None else compose.scale_shift(c.builder, y, Constant.of(base).function("log").reciprocal(), None)
    )


@reads("exp2", "expm1", "erfc")
def _shifted(c: Call) -> int:
    """`exp(log(2) z)`, `exp(z) - 1`, `1 - erf(z)`."""
    if c.name == "exp2":
        return c.add(Exp(), compose.scale_shift(c.builder, c.x, Constant.of(2.0).function("log"), None))
    if c.name == "expm1":
        return compose.scale_shift(c.builder, c.add(Exp()), None, Constant.of(-1.0))
    return compose.scale_shift(c.builder, c.add(Erf()), Constant.of(-1.0), Constant.of(1.0))


@reads("gt", "ge", "lt", "le")
def _compare(c: Call) -> int:
    a, b = c.pair
    return decisions.compare(c.builder, c.name, a, b)


@reads("logical_not", "bitwise_not")
def _not(c: Call) -> int:
    return decisions.opposite(c.builder, c.x)


@reads("logical_and", "bitwise_and", "logical_or", "bitwise_or")
def _joined(c: Call) -> int:
    join = decisions.both if c.name.endswith("and") else decisions.either
    return join(c.builder, *c.pair)


@reads("heaviside")
def _heaviside(c: Call) -> int:
    at = c.constant("values")
    if at.error is not None or not bool(((at.value == 0) | (at.value == 1)).all()) or at.value.unique().numel() != 1:
        raise UnsupportedError("a step that is neither 0 nor 1 at zero")
    return c.add(Step(float(at.value.reshape(-1)[0])))


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


@reads("acos", "arccos")
def _arc_cosine(c: Call) -> int:
    return composites.arc_cosine(c.builder, c.x)


@reads("logaddexp")
def _log_add_exp(c: Call) -> int:
    """`a + log(1 + exp(b - a))`."""
    a, b = c.pair
    away = compose.add(c.builder, b, a, -1)
    return compose.add(c.builder, c.builder.add(Softplus(), away), a)


@reads("hypot")
def _hypotenuse(c: Call) -> int:
    first, second = (o * o if isinstance(o, Constant) else c.builder.add(Square(), o) for o in c.pair)
    return c.builder.add(Sqrt(), compose.add(c.builder, first, second))


@reads("prod")
def _product(c: Call) -> int:
    """Products along an axis, one after the other."""
    dim = c.arguments.get("dim")
    x = c.x if dim is not None else compose.reshape(c.builder, c.x, (prod(c.input_shape),))
    axis = 0 if dim is None else dim % len(c.input_shape)
    shape = c.builder.shape(x)
    parts = [compose.take_slice(c.builder, x, axis, [i]) for i in range(shape[axis])]
    result = parts[0]
    for part in parts[1:]:
        result = multiply(c.builder, result, part)
    return compose.reshape(c.builder, result, c.shape)


@reads("trunc", "fix", "frac")
def _truncated(c: Call) -> int:
    """Towards zero: `floor(relu(z)) - floor(relu(-z))`."""
    up, down = (c.builder.add(Floor(), c.builder.add(ReLU(), x)) for x in (c.x, compose.negate(c.builder, c.x)))
    whole = compose.add(c.builder, up, down, -1)
    return whole if c.name != "frac" else compose.add(c.builder, c.x, whole, -1)


@reads("remainder", "fmod")
def _remainder(c: Call) -> int:
    """`x - m floor(x / m)`; towards zero for fmod is not read."""
    modulus = c.constant("other")
    if c.name == "fmod":
        raise UnsupportedError("a remainder with the sign of what is divided; use torch.remainder")
    whole = c.builder.add(Floor(), compose.scale_shift(c.builder, c.x, modulus.reciprocal(), None))
    return compose.add(c.builder, c.x, compose.scale_shift(c.builder, whole, modulus, None), -1)


@reads("cdist", "_cdist_forward")
def _distances(c: Call) -> int:
    """Euclidean distances of all rows of one operand to all rows of the other."""
    if c["p"] != 2:
        raise UnsupportedError(f"distances of order {c['p']}; those of order 2 are supported")
    first, second = c.pair
    one, two = (_with_axis(c, o, place) for o, place in ((first, -2), (second, -3)))
    away = compose.add(c.builder, one, two, -1)
    return composites.norm(c.builder, away, [len(c.builder.shape(away)) - 1], False)


def _with_axis(c: Call, x: Operand, place: int) -> Operand:
    shape = list(x.shape if isinstance(x, Constant) else c.builder.shape(x))
    shape.insert(len(shape) + place + 1, 1)
    return x.reshape(*shape) if isinstance(x, Constant) else compose.reshape(c.builder, x, shape)
