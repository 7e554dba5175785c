"""LSTM, GRU and RNN, unrolled over time: composed as krelax composes them. A state that is zero is None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from krelax.certificate.kernel.activations import ReLU, Rule, Sigmoid, Tanh
from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.onnx.activations import activation
from krelax.certificate.onnx.affine import add, matrix, scaled
from krelax.certificate.onnx.enclosures import fold
from krelax.certificate.onnx.operator import (
    FLAG,
    INT,
    Attribute,
    Context,
    Tensor,
    Value,
    Wide,
    form,
    numbers,
    only,
    reads,
    text,
)
from krelax.certificate.onnx.products import products
from krelax.certificate.onnx.shapes import joined
from krelax.certificate.onnx.tensors import Shape
from krelax.errors import InputError, UnsupportedError

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATIONS = {"LSTM": [b"Sigmoid", b"Tanh", b"Tanh"], "GRU": [b"Sigmoid", b"Tanh"], "RNN": [b"Tanh"]}
_KINDS: dict[bytes, type[Rule]] = {b"Tanh": Tanh, b"Relu": ReLU}
_DIRECTIONS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
_INT32 = np.dtype(np.int32)

# What depends on the input, a constant, or None for zero.
Part = Value | Wide | Floats | None
State = tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class _Weights:
    """Of one direction: `(gates * hidden, inputs)`, `(gates * hidden, hidden)`, and biases of both."""

    inputs: Floats
    hidden: Floats
    biases: tuple[Floats, Floats] | None

    @property
    def size(self) -> int:
        return int(self.hidden.shape[1])

    def recurrent(self, c: Context, h: Part, rows: slice = slice(None)) -> Part:
        """What some gates see of the state."""
        bias, weight = None if self.biases is None else self.biases[1][rows], self.hidden[rows].T
        if h is None or isinstance(h, Value):
            return bias if h is None else matrix(c, h, weight, bias)
        operands = [h, weight] if bias is None else [h, weight, bias]
        made: Part = fold(
            c, lambda x: x[0] @ x[1] + x[2] if len(x) > 2 else x[0] @ x[1], operands, prod(h.shape) * weight.size
        )
        return made


_Step = Callable[[Context, Value, State], State]


def _lstm(w: _Weights) -> _Step:
    n = w.size

    def step(c: Context, gates: Value, state: State) -> State:
        h, cell = state
        gates = _plus(c, gates, w.recurrent(c, h))
        opened, candidate = (
            _act(c, _columns(c, gates, 0, 3 * n), Sigmoid()),
            _act(c, _columns(c, gates, 3 * n, n), Tanh()),
        )
        let_in, let_out, keep = (_columns(c, opened, i * n, n) for i in range(3))
        kept = None if cell is None else _times(c, keep, cell)
        new = products(c, let_in, candidate)
        cell = new if kept is None else add(c, kept, new, 1)
        return products(c, let_out, _act(c, cell, Tanh())), cell

    return step


def _gru(w: _Weights, reset_behind: bool) -> _Step:
    n = w.size
    first, last = slice(0, 2 * n), slice(2 * n, 3 * n)

    def step(c: Context, gates: Value, state: State) -> State:
        (h,) = state
        opened = _act(c, _plus(c, _columns(c, gates, 0, 2 * n), w.recurrent(c, h, first)), Sigmoid())
        update, reset = (_columns(c, opened, i * n, n) for i in range(2))
        if reset_behind:
            inner = w.recurrent(c, h, last)
            through: Part = None if inner is None else _times(c, reset, inner)
        else:
            through = w.recurrent(c, None if h is None else _times(c, reset, h), last)
        candidate = _act(c, _plus(c, _columns(c, gates, 2 * n, n), through), Tanh())
        rest = scaled(c, candidate, -1.0) if h is None else add(c, h, candidate, -1)
        return (add(c, candidate, products(c, update, rest), 1),)

    return step


def _rnn(w: _Weights, rule: Rule) -> _Step:
    def step(c: Context, gates: Value, state: State) -> State:
        return (_act(c, _plus(c, gates, w.recurrent(c, state[0])), rule),)

    return step


def _act(c: Context, x: Value, rule: Rule) -> Value:
    return activation(c, x, rule, x.shape)


def _columns(c: Context, x: Value, start: int, size: int) -> Value:
    return c.moved(numbers(x.shape)[:, start : start + size], x)


def _plus(c: Context, x: Value, other: Part) -> Value:
    return x if other is None else add(c, x, other, 1)


def _times(c: Context, x: Value, other: Value | Wide | Floats) -> Value:
    return products(c, x, other) if isinstance(other, Value) else scaled(c, x, other)


_FORM = {
    "activations": Attribute("strings"),
    "direction": text(*_DIRECTIONS),
    "hidden_size": INT,
}
_LATER = {**_FORM, "layout": FLAG}
_RESET = {"linear_before_reset": FLAG}
_COUPLED = {"input_forget": only(0)}


@reads("LSTM", forms=[form(7, 3, 7, 3, **_FORM, **_COUPLED), form(14, 3, 7, 3, **_LATER, **_COUPLED)])
@reads("GRU", forms=[form(7, 3, 6, 2, **_FORM, **_RESET), form(14, 3, 6, 2, **_LATER, **_RESET)])
@reads("RNN", forms=[form(7, 3, 6, 2, **_FORM), form(14, 3, 6, 2, **_LATER)])
def _recurrent(c: Context) -> list[Tensor]:
    x, batch_first = c.value(), bool(c.get("layout"))
    if len(x.shape) != 3:
        raise InputError(f"a sequence of shape {list(x.shape)}, not of three axes")
    x = c.moved(numbers(x.shape).swapaxes(0, 1), x) if batch_first else x
    directions, kind = _DIRECTIONS[c.get("direction")], c.call.op
    weights = _weights(c, len(directions), x.shape[2])
    _check_lengths(c, x.shape[0])
    outputs, last = list[Value](), list[State]()
    for number, (w, step, backwards) in enumerate(zip(weights, _steps(c, weights), directions, strict=True)):
        places = (5, 6) if kind == "LSTM" else (5,)
        state: State = tuple(_start(c, p, number, (len(directions), x.shape[1], w.size), batch_first) for p in places)
        bias = None if w.biases is None else w.biases[0]
        every, found = matrix(c, x, w.inputs.T, bias), dict[int, Value]()
        for t in range(x.shape[0])[:: -1 if backwards else 1]:
            state = step(c, c.moved(numbers(every.shape)[t], every), state)
            assert isinstance(state[0], Value)
            found[t] = state[0]
        outputs.append(_stacked(c, [found[t] for t in range(x.shape[0])], int(batch_first)))
        last.append(state)
    states = [[s for state in last if isinstance(s := state[i], Value)] for i in range(len(last[0]))]
    whole = _stacked(c, outputs, 2 if batch_first else 1)
    return [whole, *(_stacked(c, each, int(batch_first)) for each in states)]


def _stacked(c: Context, parts: list[Value], axis: int) -> Value:
    """Values of one shape joined along a new axis."""
    shape = (*parts[0].shape[:axis], 1, *parts[0].shape[axis:])
    each: list[Tensor] = [Value(v.node, shape, v.dtype) for v in parts]
    return joined(c, each, axis) if len(parts) > 1 else Value(parts[0].node, shape, parts[0].dtype)


def _weights(c: Context, directions: int, inputs: int) -> list[_Weights]:
    w, r, b, gates = c.weight(1), c.weight(2), c.weight(3, optional=True), _GATES[c.call.op]
    size = r.shape[-1] if r.ndim else 0
    if c.get("hidden_size") not in {None, size}:
        raise InputError(f"hidden_size {c.get('hidden_size')} for weights of shape {list(r.shape)}")
    wanted: list[Shape] = [(directions, gates * size, inputs), (directions, gates * size, size)]
    if [w.shape, r.shape] != wanted or (b is not None and b.shape != (directions, 2 * gates * size)):
        raise InputError(f"weights of shapes {list(w.shape)} and {list(r.shape)}")
    halves = [None if b is None else (b[i, : gates * size], b[i, gates * size :]) for i in range(directions)]
    return [_Weights(w[i], r[i], halves[i]) for i in range(directions)]


def _check_lengths(c: Context, times: int) -> None:
    """Sequences are whole."""
    lengths = c.constant(4, _INT32)
    if lengths is not None and (lengths != times).any():
        raise UnsupportedError("sequences of several lengths")


def _start(c: Context, place: int, number: int, shape: Shape, batch_first: bool) -> Part:
    """The state of a direction at the beginning, `(batch, hidden)`; `shape` is that of all directions."""
    if place >= len(c.operands) or c.operands[place] is None:
        return None
    x = c.operand(place)
    wanted = (shape[1], shape[0], shape[2]) if batch_first else shape
    if x.shape != wanted:
        raise InputError(f"a state of shape {list(x.shape)}, not {list(wanted)}")
    if isinstance(x, Value):
        return c.moved(numbers(x.shape)[:, number] if batch_first else numbers(x.shape)[number], x)
    start: Floats = c.weight(place).take(number, int(batch_first))
    return start if start.any() else None


def _steps(c: Context, weights: list[_Weights]) -> list[_Step]:
    kind = c.call.op
    own = len(_ACTIVATIONS[kind])
    names = c.get("activations") or _ACTIVATIONS[kind] * len(weights)
    if len(names) != own * len(weights):
        raise InputError(f"{len(names)} activations")
    each = [names[own * i : own * (i + 1)] for i in range(len(weights))]
    if kind == "RNN" and all(n in _KINDS for (n,) in each):
        return [_rnn(w, _KINDS[n]()) for w, (n,) in zip(weights, each, strict=True)]
    if any(n != _ACTIVATIONS[kind] for n in each):
        raise UnsupportedError("activations other than those that the operator has by default")
    return [_lstm(w) if kind == "LSTM" else _gru(w, bool(c.get("linear_before_reset"))) for w in weights]
