"""Tiny models of every structure that people export, as ONNX files: each takes any activation.

A structure enters the crossings by its decorator. Activations come from the kit of the relaxations' contract, where
each has a line, and their ONNX operators from the reader's table, by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.activations.kit import ELEMENTWISE, Elementwise

from krelax.activations.curve import Curve
from krelax.network.onnx_operators import READERS

# Attributes of an activation's ONNX operator, for activations that have fields.
_ATTRIBUTES = {"negative_slope": "alpha"}

# Structures put any numbers into their activations, and some are of type float64: these curves are bounded, and ONNX
# Runtime has them in both types.
_CURVES = {"sin", "cos"}
ACTIVATIONS: dict[str, Elementwise] = {
    a.name: a for a in ELEMENTWISE if a.op.leak is not None or a.name in {"sigmoid", "tanh"} | _CURVES
}


def representatives() -> list[str]:
    """One activation of every class, but of curves, which are all relaxed by one class, only some: the middle one."""
    classes: dict[type, list[str]] = {}
    for name, activation in ACTIVATIONS.items():
        kind = Curve if isinstance(activation.op, Curve) else type(activation.op)
        classes.setdefault(kind, []).append(name)
    return [names[len(names) // 2] for names in classes.values()]


class Sketch:
    """Collects the nodes and constants of a model; `act` adds the activation that the model is to have."""

    def __init__(self, activation: Elementwise, seed: int, double: bool = False) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.double = double
        self._activation, self._rng = activation, np.random.default_rng(seed)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float64 if self.double else np.float32)
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def random(self, *shape: int) -> NDArray[np.float64]:
        return self._rng.normal(0, 1, shape)

    def act(self, x: str) -> str:
        op = self._activation.op
        attributes = {_ATTRIBUTES[f.name]: getattr(op, f.name) for f in fields(op)}
        operator = next(name for name in READERS if name.lower() == type(op).__name__.lower())
        return self.node(operator, x, **attributes)

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        weight, bias = 1.5 * self.random(outputs, inputs) / inputs**0.5, self.random(outputs) / 4
        return self.node("Gemm", x, self.constant(weight), self.constant(bias), transB=1)

    def conv(self, x: str, *weight: int, **attributes: Any) -> str:
        scale = 1.5 * float(np.prod(weight[1:])) ** -0.5
        parts = [self.constant(self.random(*weight) * scale), self.constant(self.random(weight[0]) / 4)]
        return self.node("Conv", x, *parts, **attributes)

    def flat(self, x: str) -> str:
        return self.node("Flatten", x)

    def model(self, shape: tuple[int, ...], output: str) -> ModelProto:
        kind = TensorProto.DOUBLE if self.double else TensorProto.FLOAT
        ends = [helper.make_tensor_value_info("x", kind, shape)]
        outs = [helper.make_tensor_value_info(output, kind, None)]
        graph = helper.make_graph(self.nodes, "g", ends, outs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@dataclass(frozen=True)
class Structure:
    """How a model is built, and of which inputs. `external`: its constants lie in a second file."""

    name: str
    shape: tuple[int, ...]
    build: Callable[[Sketch, str], str]
    double: bool = False
    external: bool = False

    def model(self, activation: str, seed: int = 0) -> ModelProto:
        sketch = Sketch(ACTIVATIONS[activation], seed, self.double)
        return sketch.model(self.shape, self.build(sketch, "x"))


STRUCTURES: dict[str, Structure] = {}


def structure(*shape: int, **options: bool) -> Callable[[Callable[[Sketch, str], str]], Callable[[Sketch, str], str]]:
    def enter(build: Callable[[Sketch, str], str]) -> Callable[[Sketch, str], str]:
        name = build.__name__.replace("_", "-")
        STRUCTURES[name] = Structure(name, shape, build, **options)
        return build

    return enter


@structure(1, 3)
def dense(g: Sketch, x: str) -> str:
    return g.dense(g.act(g.dense(g.act(g.dense(x, 3, 5)), 5, 4)), 4, 2)


@structure(1, 3, double=True)
def float64(g: Sketch, x: str) -> str:
    return dense(g, x)


@structure(1, 3, external=True)
def external_data(g: Sketch, x: str) -> str:
    return dense(g, x)


@structure(1, 3)
def bottleneck(g: Sketch, x: str) -> str:
    narrow = g.node("Reshape", g.dense(x, 3, 2), g.ints(2, 1, 1))
    wide = g.conv(g.node("Transpose", narrow, perm=[1, 0, 2]), 4, 2, 1)
    return g.dense(g.act(g.flat(wide)), 4, 2)


@structure(1, 3)
def residual(g: Sketch, x: str) -> str:
    first = g.act(g.dense(x, 3, 4))
    second = g.act(g.dense(first, 4, 4))
    return g.dense(g.node("Add", first, g.dense(second, 4, 4)), 4, 2)


@structure(1, 2)
def same_operand_twice(g: Sketch, x: str) -> str:
    a = g.act(g.dense(x, 2, 4))
    return g.dense(g.node("Concat", g.node("Add", a, a), g.node("Sub", a, g.act(a)), axis=1), 8, 2)


@structure(1, 2)
def branches(g: Sketch, x: str) -> str:
    left, right = g.act(g.dense(x, 2, 3)), g.dense(x, 2, 2)
    return g.dense(g.node("Concat", left, right, g.act(right), axis=1), 7, 3)


@structure(1, 1, 3, 3)
def conv(g: Sketch, x: str) -> str:
    return g.dense(g.flat(g.act(g.conv(x, 2, 1, 2, 2))), 8, 2)


@structure(1, 3, 3, 1)
def channels_last(g: Sketch, x: str) -> str:
    z = g.node("Transpose", g.conv(g.node("Transpose", x, perm=[0, 3, 1, 2]), 2, 1, 2, 2), perm=[0, 2, 3, 1])
    a = g.node("Transpose", g.act(z), perm=[0, 3, 1, 2])
    z = g.node("Transpose", g.conv(a, 2, 2, 1, 2), perm=[0, 2, 3, 1])
    return g.dense(g.flat(g.act(z)), 4, 2)


@structure(1, 2, 4)
def conv_of_one_axis(g: Sketch, x: str) -> str:
    return g.dense(g.flat(g.act(g.conv(x, 3, 2, 2, strides=[2]))), 6, 2)


@structure(1, 1, 2, 2, 2)
def conv_of_three_axes(g: Sketch, x: str) -> str:
    return g.dense(g.flat(g.act(g.conv(x, 2, 1, 2, 1, 2))), 4, 2)


@structure(1, 2, 3, 3)
def conv_with_all_attributes(g: Sketch, x: str) -> str:
    z = g.conv(x, 4, 1, 2, 2, group=2, dilations=[2, 1], strides=[1, 2], pads=[1, 0, 0, 1])
    return g.dense(g.flat(g.act(z)), 16, 2)


@structure(1, 2, 2, 2)
def transposed_conv(g: Sketch, x: str) -> str:
    weight, bias = g.constant(g.random(2, 1, 2, 2) / 2), g.constant(g.random(1) / 4)
    z = g.node("ConvTranspose", g.act(x), weight, bias, strides=[1, 2], output_padding=[0, 1])
    return g.dense(g.flat(g.act(z)), 15, 2)


@structure(1, 1, 4, 4)
def max_pool(g: Sketch, x: str) -> str:
    a = g.act(g.conv(x, 1, 1, 1, 1))
    return g.dense(g.flat(g.node("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2])), 4, 2)


@structure(1, 1, 3, 3)
def overlapping_max_pool(g: Sketch, x: str) -> str:
    pooled = g.node("MaxPool", g.conv(x, 1, 1, 1, 1), kernel_shape=[2, 2], pads=[1, 0, 0, 0])
    return g.dense(g.flat(g.act(pooled)), 6, 2)


@structure(1, 1, 4, 2)
def average_pool(g: Sketch, x: str) -> str:
    pooled = g.node("AveragePool", g.act(g.conv(x, 2, 1, 2, 1)), kernel_shape=[2, 1])
    return g.dense(g.flat(g.act(pooled)), 8, 2)


@structure(1, 2)
def no_constants(g: Sketch, x: str) -> str:
    return g.act(x)


@structure(1, 2)
def no_activation(g: Sketch, x: str) -> str:
    return g.dense(x, 2, 3)


@structure(1, 2)
def output_is_the_input(g: Sketch, x: str) -> str:
    return g.node("Identity", x)


@structure(1, 2)
def scalar_output(g: Sketch, x: str) -> str:
    return g.node("ReduceSum", g.dense(g.act(g.dense(x, 2, 3)), 3, 2), keepdims=0)


@structure()
def scalar_input(g: Sketch, x: str) -> str:
    return g.dense(g.act(g.dense(g.node("Unsqueeze", g.act(x), g.ints(0, 1)), 1, 3)), 3, 2)


@structure(2)
def scalars_throughout(g: Sketch, x: str) -> str:
    a = g.act(g.node("Reshape", g.node("Gather", g.act(x), g.ints(1)), g.ints()))
    return g.act(g.node("Sub", g.node("Mul", a, g.constant(np.array(1.5))), g.node("ReduceSum", x, keepdims=0)))


@structure(1, 1)
def one_neuron(g: Sketch, x: str) -> str:
    return g.dense(g.act(g.dense(x, 1, 1)), 1, 1)


@structure(1, 2)
def activation_first_and_last(g: Sketch, x: str) -> str:
    return g.act(g.dense(g.act(x), 2, 3))


@structure(1, 2)
def two_in_a_row(g: Sketch, x: str) -> str:
    return g.dense(g.act(g.act(g.dense(x, 2, 3))), 3, 2)


@structure(2, 2)
def two_images(g: Sketch, x: str) -> str:
    z = g.act(g.node("MatMul", x, g.constant(g.random(2, 3))))
    return g.act(g.node("MatMul", z, g.constant(g.random(3, 2))))


@structure(1, 3)
def unused_inputs_and_a_constant_output(g: Sketch, x: str) -> str:
    weight = g.random(3, 3)
    weight[:, 1] = 0  # nobody reads this input
    a = g.act(g.node("Gemm", x, g.constant(weight), transB=1))
    last = g.random(2, 3)
    last[1] = 0
    return g.node("Gemm", a, g.constant(last), g.constant([0.25, -0.5]), transB=1)


@structure(1, 4)
def five_axes(g: Sketch, x: str) -> str:
    wide = g.node("Transpose", g.node("Reshape", g.dense(x, 4, 4), g.ints(1, 2, 1, 2, 1)), perm=[3, 4, 1, 0, 2])
    a = g.node("Transpose", g.act(wide), perm=[1, 3, 4, 0, 2])
    return g.dense(g.act(g.node("Reshape", a, g.ints(1, 4))), 4, 2)


@structure(1, 2)
def maxima_and_clips(g: Sketch, x: str) -> str:
    left, right = g.dense(x, 2, 3), g.act(g.dense(x, 2, 3))
    best = g.node("Abs", g.node("Max", left, right))
    return g.dense(g.node("Clip", best, g.constant(np.array(0.1)), g.constant(np.array(0.8))), 3, 2)


@structure(1, 2)
def sums_over_axes(g: Sketch, x: str) -> str:
    wide = g.node("Reshape", g.act(g.dense(x, 2, 6)), g.ints(1, 2, 3))
    mean = g.node("ReduceMean", wide, axes=[2], keepdims=1)
    return g.dense(g.act(g.flat(g.node("Sub", wide, mean))), 6, 2)


@structure(1, 3)
def shares(g: Sketch, x: str) -> str:
    weights = g.node("Softmax", g.act(g.dense(x, 3, 4)), axis=1)
    return g.dense(g.act(g.dense(weights, 4, 3)), 3, 2)
