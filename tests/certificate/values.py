"""What the checker's networks compute, in float64, rounded, or exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from krelax.certificate.kernel.activations import LeakyReLU, Maximum, Product, ReLU, Rule, Sigmoid, Tanh
from krelax.certificate.kernel.activations.curve import Curve
from krelax.certificate.kernel.activations.difference import Difference
from krelax.certificate.kernel.activations.log_sum_exp import LogSumExp
from krelax.certificate.kernel.activations.steps import Jumping
from krelax.certificate.kernel.activations.wave import Sin
from krelax.certificate.kernel.arithmetic import Exact, Float64
from krelax.certificate.kernel.network import Affine, Network

ACTIVATIONS: dict[type[Rule], Callable[[Any, Any], Any]] = {
    ReLU: lambda rule, z: np.maximum(z, 0),
    LeakyReLU: lambda rule, z: np.maximum(z, rule.negative_slope * z),
    Sigmoid: lambda rule, z: 0.5 + 0.5 * np.tanh(z / 2),
    Tanh: lambda rule, z: np.tanh(z),
    Product: lambda rule, z: z[:, 0::2] * z[:, 1::2],
    Difference: lambda rule, z: _rectified(rule, z[:, 0::2] + z[:, 1::2]) - _rectified(rule, z[:, 0::2]),
    Maximum: lambda rule, z: z.reshape(len(z), -1, rule.window).max(2),
    LogSumExp: lambda rule, z: np.logaddexp.reduce(z.reshape(len(z), -1, rule.window), axis=2),
}


def _rectified(rule: Any, z: Any) -> Any:
    return np.maximum(z, rule.leak * z)


def evaluate(network: Network, x: Any) -> list[Any]:
    """Values of all nodes for inputs `(batch, size)`."""
    values = [x]
    for node in network.nodes[1:]:
        assert node is not None
        inputs = [values[j] for j in node.inputs]
        if isinstance(node, Affine):
            values.append(node.forward(Float64(), inputs))
        else:
            rule = node.rule
            values.append(value_of(rule, inputs[0]))
    return values


def value_of(rule: Rule, z: Any) -> Any:
    if isinstance(rule, Curve | Sin):
        return rule.act(z)
    return sum(rule.act(z)) if isinstance(rule, Jumping) else ACTIVATIONS[type(rule)](rule, z)


def evaluate_exactly(network: Network, x: Any) -> Any | None:
    """Outputs for inputs `(batch, size)`, rounded once; None where there are other activations than ReLUs."""
    ar = Exact()
    values = [ar.number(x)]
    for node in network.nodes[1:]:
        assert node is not None
        inputs = [values[j] for j in node.inputs]
        if isinstance(node, Affine):
            values.append(node.over(ar).forward(ar, inputs))
        elif isinstance(node.rule, ReLU):
            values.append(ar.maximum(inputs[0], ar.number(np.zeros(inputs[0].shape))))
        else:
            return None
    return ar.floats(values[-1])
