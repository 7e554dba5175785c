"""The ONNX operators LSTM, GRU and RNN, unrolled over time (`krelax.network.recurrent`): they join `READERS`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from krelax.activations import ReLU, Tanh
from krelax.errors import InputError, UnsupportedError
from krelax.network import recurrent
from krelax.network.compose import Operand, reshape, take_slice
from krelax.network.constants import Constant
from krelax.network.contractions import transpose
from krelax.network.onnx_operators import reads
from krelax.network.onnx_reader import Reader
from krelax.network.recurrent import Cell, State, Weights

_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_KINDS = {"Tanh": Tanh(), "Relu": ReLU()}


@dataclass(frozen=True, eq=False)
class _Layer:
    """A call: its kind, the directions, and the sizes of the sequence, `(time, batch)`, and of the state."""

    r: Reader
    kind: str
    directions: Sequence[bool]
    batch_first: bool
    size: int

    @classmethod
    def of(cls, r: Reader) -> _Layer:
        kind, direction = r.node.op_type, r.attribute("direction")
        directions = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(direction)
        if directions is None:
            raise InputError(f"direction {direction!r}")
        if len(r.shape()) != 3:
            raise InputError(f"a sequence of shape {list(r.shape())}, not of three axes")
        for name in ("clip", "activation_alpha", "activation_beta", "input_forget"):
            if r.attribute(name):
                raise UnsupportedError(f"attribute {name}; export without it")
        size = r.shape(2)[-1]
        if r.attribute("hidden_size") not in {None, size}:
            raise InputError(f"hidden_size {r.attribute('hidden_size')} for weights of shape {list(r.shape(2))}")
        if kind == "LSTM" and r.has(7):
            raise UnsupportedError("peepholes; export without them")
        layer = cls(r, kind, directions, bool(r.attribute("layout")), size)
        layer._check_lengths()
        return layer

    @property
    def sizes(self) -> tuple[int, int]:
        """The length of the sequence, and of the batch."""
        first, second, _ = self.r.shape()
        return (second, first) if self.batch_first else (first, second)

    def _check_lengths(self) -> None:
        lengths = self.r.literal(4)
        if lengths is not None and (lengths.integers != self.sizes[0]).any():
            raise UnsupportedError("sequences of several lengths; export with one")

    def sequence(self) -> int:
        """`(time, batch, inputs)`."""
        x = self.r.value()
        return transpose(self.r.builder, x, (1, 0, 2)) if self.batch_first else x

    def cell(self, number: int) -> Cell:
        """The cell of a direction."""
        r, gates, size = self.r, _GATES[self.kind], self.size
        shapes = [(len(self.directions), gates * size, n) for n in (r.shape()[2], size)]
        if [r.shape(1), r.shape(2)] != shapes or (r.has(3) and r.shape(3) != (*shapes[0][:1], 2 * gates * size)):
            raise InputError(f"weights of shapes {list(r.shape(1))} and {list(r.shape(2))}")
        bias = r.constant(3)
        both = (None, None) if bias is None else (bias[number, : gates * size], bias[number, gates * size :])
        weights = Weights(r.weight(1)[number], r.weight(2)[number], *both)
        own = len(_ACTIVATIONS[self.kind])
        given = r.attribute("activations") or _ACTIVATIONS[self.kind] * len(self.directions)
        names = [name.decode() if isinstance(name, bytes) else name for name in given][
            own * number : own * (number + 1)
        ]
        if self.kind == "RNN" and names and names[0] in _KINDS:
            return recurrent.plain(weights, _KINDS[names[0]])
        if names != _ACTIVATIONS[self.kind]:
            raise UnsupportedError(f"activations {', '.join(names)}; export with {', '.join(_ACTIVATIONS[self.kind])}")
        if self.kind == "LSTM":
            return recurrent.lstm(weights)
        return recurrent.gru(weights, bool(r.attribute("linear_before_reset")))

    def start(self, place: int, number: int) -> Operand:
        """The state at the beginning, `(batch, hidden)`: zero, unless an operand says so."""
        r, batch = self.r, self.sizes[1]
        if not r.has(place):
            return Constant.of(torch.zeros(batch, self.size, dtype=torch.float64))
        directions = len(self.directions)
        shape = (batch, directions, self.size) if self.batch_first else (directions, batch, self.size)
        if r.shape(place) != shape:
            raise InputError(f"a state of shape {list(r.shape(place))}, not {list(shape)}")
        operand, axis = r.operand(place), int(self.batch_first)
        if isinstance(operand, Constant):
            return operand.moved(lambda t: t.select(axis, number))
        part = take_slice(r.builder, operand, axis, [number])
        return reshape(r.builder, part, (batch, self.size))


# Their first result may be left out.
RECURRENT = frozenset(_GATES)


@reads(*_GATES)
def _recurrent(r: Reader) -> int:
    layer = _Layer.of(r)
    x, outputs, last = layer.sequence(), list[list[int]](), list[State]()
    for number, backwards in enumerate(layer.directions):
        state: State = (layer.start(5, number),)
        if layer.kind == "LSTM":
            state = (*state, layer.start(6, number))
        every, state = recurrent.unrolled(r.builder, layer.cell(number), x, state, backwards)
        outputs.append(every)
        last.append(state)
    axis, build = int(layer.batch_first), r.builder
    per_direction = [recurrent.stacked(build, every, axis) for every in outputs]  # time and batch in their places
    results = [recurrent.stacked(build, per_direction, 2 if layer.batch_first else 1)]
    results += [recurrent.stacked(build, [state[i] for state in last], axis) for i in range(len(last[0]))]
    named = [(name, result) for name, result in zip(r.node.output, results, strict=False) if name]
    r.known.values.update(named)
    return results[0]
