"""Functions of one number, a case for each operator: both readers are tried on them."""

from __future__ import annotations

import numpy as np
from tests.network.cases import X, case

FUNCTIONS = [
    *(case(op) for op in ("Exp", "Softplus", "Softsign", "Erf", "Atan", "Sin", "Cos", "Sign", "Round", "Floor")),
    *(case(op) for op in ("Ceil", "Elu", "Selu", "Celu", "HardSwish", "ThresholdedRelu", "Shrink")),
    case("Elu", alpha=0.5),
    case("Selu", alpha=1.5, gamma=0.75),
    case("Celu", alpha=2.0),
    case("ThresholdedRelu", alpha=0.25),
    case("Shrink", lambd=0.25, bias=0.125),
    case("Mish", opset=18),
    case("Gelu", opset=20),
    case("Gelu", opset=20, approximate="tanh"),
    case("Pow", X, np.float32(2)),
    case("Pow", X, np.float32(3)),
    case("Pow", X, np.int64(2)),
]
FUNCTIONS += [case(op) for op in ("Sinh", "Cosh")]
# Not defined for all numbers.
POSITIVE = [case(op) for op in ("Log", "Sqrt", "Reciprocal")]
BETWEEN = [case(op) for op in ("Tan", "Asin", "Acos", "Atanh")]
