"""The closed table of activations: one class for each, one line here."""

from __future__ import annotations

from krelax.certificate.kernel.activations.bounded import Atan, Erf, Softsign
from krelax.certificate.kernel.activations.exponential import ELU, Exp, Log, Softplus
from krelax.certificate.kernel.activations.hyperbolic import Acosh, Asin, Atanh, Cosh, Sinh, Tan
from krelax.certificate.kernel.activations.leaky_relu import LeakyReLU
from krelax.certificate.kernel.activations.maximum import Maximum
from krelax.certificate.kernel.activations.power import Power, Reciprocal, Sqrt, Square
from krelax.certificate.kernel.activations.product import Product
from krelax.certificate.kernel.activations.relu import ReLU
from krelax.certificate.kernel.activations.rule import Ends, Rule
from krelax.certificate.kernel.activations.sigmoid import Sigmoid
from krelax.certificate.kernel.activations.steps import Ceil, Floor, Quantise, Round, Shrink, Sign, Step, Threshold
from krelax.certificate.kernel.activations.swish import GELU, HardSwish, Mish, SiLU, TanhGELU
from krelax.certificate.kernel.activations.tanh import Tanh
from krelax.certificate.kernel.activations.wave import Cos, Sin

# By the names of ONNX's operators. Those that are no dataclasses are elementwise, and have no parameters.
RULES: dict[str, type[Rule]] = {
    "Relu": ReLU,
    "LeakyRelu": LeakyReLU,
    "Sigmoid": Sigmoid,
    "Tanh": Tanh,
    "MaxPool": Maximum,
    "Exp": Exp,
    "Log": Log,
    "Softplus": Softplus,
    "Elu": ELU,
    "Sqrt": Sqrt,
    "Reciprocal": Reciprocal,
    "Pow": Power,
    "Mul": Product,
    "Erf": Erf,
    "Atan": Atan,
    "Softsign": Softsign,
    "Mish": Mish,
    "HardSwish": HardSwish,
    "Sinh": Sinh,
    "Cosh": Cosh,
    "Tan": Tan,
    "Asin": Asin,
    "Acosh": Acosh,
    "Atanh": Atanh,
    "Sin": Sin,
    "Cos": Cos,
    "Floor": Floor,
    "Ceil": Ceil,
    "Round": Round,
    "Sign": Sign,
    "ThresholdedRelu": Threshold,
    "Shrink": Shrink,
    "QuantizeLinear": Quantise,
    "Greater": Step,
}

__all__ = [
    "ELU",
    "GELU",
    "RULES",
    "Ends",
    "HardSwish",
    "LeakyReLU",
    "Maximum",
    "Mish",
    "Power",
    "Product",
    "Quantise",
    "ReLU",
    "Rule",
    "Shrink",
    "SiLU",
    "Sigmoid",
    "Square",
    "Step",
    "Tanh",
    "TanhGELU",
    "Threshold",
]
