"""Everything true of an activation, in one file each, and the closed table of them."""

from __future__ import annotations

from krelax.activations.base import Activation, Lines, Relaxation, Rule, Splits, Support
from krelax.activations.leaky_relu import LeakyReLU
from krelax.activations.maximum import Max
from krelax.activations.product import Product
from krelax.activations.relu import ReLU
from krelax.activations.sigmoid import Sigmoid
from krelax.activations.tanh import Tanh

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "LeakyReLU",
    "Lines",
    "Max",
    "Product",
    "ReLU",
    "Relaxation",
    "Rule",
    "Sigmoid",
    "Splits",
    "Support",
    "Tanh",
]

ACTIVATIONS: dict[str, type[Activation]] = {a.name: a for a in (ReLU, LeakyReLU, Sigmoid, Tanh, Max, Product)}
