"""Recurrent networks, unrolled over time: LSTM, GRU, and plain ones. Built as in `krelax.network.compose`.

Every step is a few affine operators, sigmoids and tanh, and products: of a gate with what it lets through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from krelax.activations import Activation, Sigmoid, Tanh
from krelax.errors import InputError
from krelax.network.compose import Operand, add, concat, dense, reshape, scale_shift, take_slice
from krelax.network.constants import Constant
from krelax.network.graph import Builder
from krelax.network.products import multiply

State = tuple[Operand, ...]


@dataclass(frozen=True, eq=False)
class Weights:
    """Of one direction: `(gates * hidden, inputs)`, `(gates * hidden, hidden)`, and biases `(gates * hidden,)` of both.

    Gates come in the order input, output, forget, cell for an LSTM, and update, reset, candidate for a GRU.
    """

    inputs: Constant
    hidden: Constant
    input_bias: Constant | None
    hidden_bias: Constant | None

    def ordered(self, order: Sequence[int]) -> Weights:
        """With the gates, given in another order, in this one: `order` names the places where they are."""
        size = self.hidden.shape[1]
        rows = np.concatenate([np.arange(size) + size * i for i in order])
        place = torch.from_numpy(rows)
        each = (self.inputs, self.hidden, self.input_bias, self.hidden_bias)
        return Weights(*(None if c is None else c[place] for c in each))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Cell:
    """What is left to do in a step: from the builder, the inputs' part of all gates, `(batch, gates * hidden)`, and the
    state to the next state, the output first."""

    weights: Weights
    step: Callable[[Builder, int, State], State]

    @property
    def size(self) -> int:
        return self.weights.hidden.shape[1]


def lstm(weights: Weights) -> Cell:
    """`c = forget * c + input * tanh(cell)` and `h = output * tanh(c)`."""
    size = weights.hidden.shape[1]

    def step(builder: Builder, gates: int, state: State) -> State:
        h, c = state
        gates = _joined(builder, gates, _recurrent(builder, h, weights.hidden, weights.hidden_bias))
        open_ = builder.add(Sigmoid(), _part(builder, gates, 0, 3 * size))
        cell = builder.add(Tanh(), _part(builder, gates, 3 * size, size))
        let_in, let_out, keep = (_part(builder, open_, i * size, size) for i in range(3))
        kept = None if _is_zero(c) else multiply(builder, keep, c)
        c = multiply(builder, let_in, cell) if kept is None else add(builder, kept, multiply(builder, let_in, cell))
        return multiply(builder, let_out, builder.add(Tanh(), c)), c

    return Cell(weights, step)


def gru(weights: Weights, reset_behind: bool) -> Cell:
    """`h = n + update * (h - n)`, where n is the candidate. It sees what reset lets through of h, or `reset_behind` the
    weights, of its product with them."""
    size = weights.hidden.shape[1]
    rows = torch.arange(2 * size), torch.arange(2 * size, 3 * size)
    bias = weights.hidden_bias
    parts = [(weights.hidden[r], None if bias is None else bias[r]) for r in rows]

    def step(builder: Builder, gates: int, state: State) -> State:
        (h,) = state
        open_ = _joined(builder, _part(builder, gates, 0, 2 * size), _recurrent(builder, h, *parts[0]))
        open_ = builder.add(Sigmoid(), open_)
        update, reset = (_part(builder, open_, i * size, size) for i in range(2))
        if reset_behind:
            inner = _recurrent(builder, h, *parts[1])
            through: Operand | None = None if inner is None else multiply(builder, reset, inner)
        else:
            through = _recurrent(builder, h if _is_zero(h) else multiply(builder, reset, h), *parts[1])
        candidate = builder.add(Tanh(), _joined(builder, _part(builder, gates, 2 * size, size), through))
        rest = add(builder, h, candidate, -1)
        return (add(builder, candidate, multiply(builder, update, rest)),)

    return Cell(weights, step)


def plain(weights: Weights, activation: Activation) -> Cell:
    """`h = activation(W x + R h + b)`."""

    def step(builder: Builder, gates: int, state: State) -> State:
        (h,) = state
        total = _joined(builder, gates, _recurrent(builder, h, weights.hidden, weights.hidden_bias))
        return (builder.add(activation, total),)

    return Cell(weights, step)


def unrolled(builder: Builder, cell: Cell, x: int, state: State, backwards: bool) -> tuple[list[int], State]:
    """The outputs at all times, `(batch, hidden)` each, and the last state, of a sequence `(time, batch, inputs)`."""
    times, batch, inputs = builder.shape(x)
    if inputs != cell.weights.inputs.shape[1]:
        raise InputError(f"a sequence of {inputs} inputs for weights of shape {list(cell.weights.inputs.shape)}")
    every = dense(builder, x, cell.weights.inputs, cell.weights.input_bias)
    outputs: dict[int, int] = {}
    for t in range(times)[:: -1 if backwards else 1]:
        now = take_slice(builder, every, 0, [t])
        state = cell.step(builder, reshape(builder, now, (batch, builder.shape(every)[2])), state)
        assert isinstance(state[0], int)
        outputs[t] = state[0]
    return [outputs[t] for t in range(times)], state


def stacked(builder: Builder, nodes: Sequence[Operand], axis: int) -> int:
    """Nodes of one shape joined along a new axis."""
    first = nodes[0]
    shape = first.shape if isinstance(first, Constant) else builder.shape(first)
    parts: list[Operand] = []
    for x in nodes:
        wanted = (*shape[:axis], 1, *shape[axis:])
        parts.append(x.reshape(*wanted) if isinstance(x, Constant) else reshape(builder, x, wanted))
    return (
        reshape(builder, parts[0], wanted)
        if len(parts) == 1 and isinstance(parts[0], int)
        else concat(builder, parts, axis)
    )


def _part(builder: Builder, x: int, start: int, size: int) -> int:
    """Some columns."""
    return take_slice(builder, x, 1, range(start, start + size))


def _is_zero(x: Operand) -> bool:
    return isinstance(x, Constant) and x.error is None and not bool(x.value.any())


def _recurrent(builder: Builder, h: Operand, weight: Constant, bias: Constant | None) -> Operand | None:
    """`h @ weight.T + bias`; None for zero."""
    if isinstance(h, int):
        return dense(builder, h, weight, bias)
    if _is_zero(h):
        return None if bias is None else bias[None].expand(h.shape[0], bias.shape[0])
    product = h.matmul(weight.mT)
    return product if bias is None else product + bias


def _joined(builder: Builder, x: int, other: Operand | None) -> int:
    if other is None:
        return x
    return scale_shift(builder, x, None, other) if isinstance(other, Constant) else add(builder, x, other)
