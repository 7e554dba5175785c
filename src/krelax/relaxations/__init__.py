"""Which relaxation belongs to which activation: the one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from krelax.network.activations import Activation, LeakyReLU, Max, ReLU, Sigmoid, Tanh
from krelax.relaxations.base import Lines, Relaxation, Rule, Support
from krelax.relaxations.maximum import Maximum
from krelax.relaxations.piecewise import Triangle
from krelax.relaxations.sshaped import SShaped

__all__ = ["RELAXATIONS", "Lines", "Relaxation", "Rule", "Support", "relax"]

RELAXATIONS: dict[type[Activation], Callable[[Any, Tensor, Tensor], Relaxation]] = {
    ReLU: lambda op, lower, upper: Triangle(lower, upper),
    LeakyReLU: lambda op, lower, upper: Triangle(lower, upper, op.negative_slope),
    Sigmoid: lambda op, lower, upper: SShaped(lower, upper, 1.0, 1.0, 0.0),
    Tanh: lambda op, lower, upper: SShaped(lower, upper, 2.0, 2.0, -1.0),
    Max: lambda op, lower, upper: Maximum(lower, upper),
}


def relax(op: Activation, lower: Tensor, upper: Tensor) -> Relaxation:
    """The single-neuron relaxation of `op` over `lower <= z <= upper`, both `(batch, *shape)`."""
    return RELAXATIONS[type(op)](op, lower, upper)
