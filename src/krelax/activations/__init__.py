"""Everything true of an activation, in one file each, and the closed table of them."""

from __future__ import annotations

from krelax.activations.base import Activation, Lines, Relaxation, Rule, Splits, Support
from krelax.activations.exponential import Exp, Log, Softplus
from krelax.activations.leaky_relu import LeakyReLU
from krelax.activations.maximum import Max
from krelax.activations.power import Power, Reciprocal, ReciprocalSqrt, Sqrt, Square
from krelax.activations.relu import ReLU
from krelax.activations.sigmoid import Sigmoid
from krelax.activations.tanh import Tanh

ACTIVATIONS: dict[str, type[Activation]] = {
    a.name: a
    for a in (ReLU, LeakyReLU, Sigmoid, Tanh, Max, Exp, Log, Softplus, Square, Sqrt, Reciprocal, ReciprocalSqrt, Power)
}

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Exp",
    "LeakyReLU",
    "Lines",
    "Log",
    "Max",
    "Power",
    "ReLU",
    "Reciprocal",
    "ReciprocalSqrt",
    "Relaxation",
    "Rule",
    "Sigmoid",
    "Softplus",
    "Splits",
    "Sqrt",
    "Square",
    "Support",
    "Tanh",
]
