"""The closed table of activations: one file for each, one line here."""

from __future__ import annotations

from krelax.certificate.kernel.activations.exponential import Exp, Log, Softplus
from krelax.certificate.kernel.activations.leaky_relu import LeakyReLU
from krelax.certificate.kernel.activations.maximum import Maximum
from krelax.certificate.kernel.activations.power import Power, Reciprocal, Sqrt, Square
from krelax.certificate.kernel.activations.relu import ReLU
from krelax.certificate.kernel.activations.rule import Ends, Rule
from krelax.certificate.kernel.activations.sigmoid import Sigmoid
from krelax.certificate.kernel.activations.tanh import Tanh

# By the names of ONNX's operators. Those that are no dataclasses have no parameters.
RULES: dict[str, type[Rule]] = {
    "Relu": ReLU,
    "LeakyRelu": LeakyReLU,
    "Sigmoid": Sigmoid,
    "Tanh": Tanh,
    "Exp": Exp,
    "Log": Log,
    "Softplus": Softplus,
    "Sqrt": Sqrt,
    "Reciprocal": Reciprocal,
    "MaxPool": Maximum,
}

__all__ = ["RULES", "Ends", "LeakyReLU", "Maximum", "Power", "ReLU", "Rule", "Sigmoid", "Square", "Tanh"]
