"""How steeply the outputs of a network rise in one of its inputs, as a network of the same inputs.

Every node has its value and its rate, the partial derivative of that. Affine operators do to rates what they do to
values, without what they add; the rate of an activation is its derivative times the rate of its operand. A ReLU has a
step for a derivative. So rates are made of operators that there are already, and every method and search bounds them.

Where an operand is zero a ReLU has no derivative, which does not matter: networks are locally Lipschitz, so between two
points what is gained is the integral of the rate, and rates count almost everywhere. Where an operand is zero on a set
that is more than that, its own rate is zero almost everywhere in it, and so is the product, whatever the step is.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch

from krelax.activations import Activation, Exp, LeakyReLU, Product, ReLU, Sigmoid, Square, Step, Tanh
from krelax.errors import InputError, UnsupportedError
from krelax.network.compose import reshape, scale_shift
from krelax.network.constants import Constant
from krelax.network.difference import homogeneous
from krelax.network.graph import Builder, Network
from krelax.network.linear import Scale
from krelax.network.ops import Concat, Linear
from krelax.op import Op


def slope(network: Network, feature: int) -> Network:
    """The partial derivatives of all outputs by an input.

    Args:
        network: Of affine operators, ReLU, leaky ReLU, sigmoid, tanh, exp and squares.
        feature: The input's place in a flattened item.

    Returns:
        A network with the same inputs and as many outputs, the same `replay` and notes: what is replayed is the model
        itself. Almost everywhere its outputs are the derivatives.

    Raises:
        InputError: There is no such input.
        UnsupportedError: The network has another operator.

    Sound: yes. Whatever bounds it between two points bounds what the network gains there, divided by their distance.
    """
    count = prod(network.input_shape)
    if not 0 <= feature < count:
        raise InputError(f"there is no input {feature}; inputs of an item are numbered from 0 to {count - 1}")
    builder = Builder(network.input_shape)
    start = torch.zeros(network.input_shape, dtype=torch.float64)
    unit = start.clone()
    unit.view(-1)[feature] = 1
    value, rate = [0], [builder.add(Scale(start, unit), 0)]
    for node in network.nodes[1:]:
        value.append(builder.add(node.op, *(value[j] for j in node.inputs), name=node.name))
        if isinstance(node.op, Activation):
            factor = _derivative(builder, node.op, value[node.inputs[0]], value[-1])
            rate.append(_times(builder, factor, rate[node.inputs[0]]))
        else:
            rate.append(builder.add(_affine(node.op), *(rate[j] for j in node.inputs)))
    found = builder.build(rate[-1])
    return Network(found.nodes, network.replay, network.elements, notes=network.notes, output=network.output)


def _affine(op: Op) -> Linear:
    found = homogeneous(op) if isinstance(op, Linear) else None
    if found is None:
        raise UnsupportedError(f"the slope of {type(op).__name__} is not known; only that of affine operators is")
    return found


def _times(builder: Builder, factor: int, rate: int) -> int:
    shape = builder.shape(rate)
    pairs = [reshape(builder, x, (*shape, 1)) for x in (factor, rate)]
    return builder.add(Product(), builder.add(Concat(len(shape)), *pairs))


def _derivative(builder: Builder, op: Activation, operand: int, value: int) -> int:
    """Of an activation at its operand."""
    make = _DERIVATIVES.get(type(op))
    if make is None:
        known = ", ".join(kind.name for kind in _DERIVATIVES)
        raise UnsupportedError(f"the slope of the activation {op.name} is not known; that of {known} is")
    return make(builder, op, operand, value)


def _of_rectifier(builder: Builder, op: Activation, operand: int, value: int) -> int:
    step, leak = builder.add(Step(), operand), op.leak
    if not leak:
        return step
    rest = Constant.of(1.0) - Constant.of(leak)
    return scale_shift(builder, step, rest, Constant.of(leak))


def _of_sigmoid(builder: Builder, op: Activation, operand: int, value: int) -> int:
    """`s (1 - s)`, as `1/4 - (s - 1/2) ** 2`, which is one number of one number."""
    middle = builder.add(Square(), scale_shift(builder, value, None, Constant.of(-0.5)))
    return scale_shift(builder, middle, Constant.of(-1.0), Constant.of(0.25))


def _of_tanh(builder: Builder, op: Activation, operand: int, value: int) -> int:
    return scale_shift(builder, builder.add(Square(), value), Constant.of(-1.0), Constant.of(1.0))


def _of_exp(builder: Builder, op: Activation, operand: int, value: int) -> int:
    return value


def _of_square(builder: Builder, op: Activation, operand: int, value: int) -> int:
    return scale_shift(builder, operand, Constant.of(2.0), None)


_DERIVATIVES: dict[type[Activation], Callable[[Builder, Activation, int, int], int]] = {
    ReLU: _of_rectifier,
    LeakyReLU: _of_rectifier,
    Sigmoid: _of_sigmoid,
    Tanh: _of_tanh,
    Exp: _of_exp,
    Square: _of_square,
}
