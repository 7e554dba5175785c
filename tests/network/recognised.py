"""Functions of one number as exporters write them in products, quotients and sums of others: both readers are tried.

Each is a list of nodes from `x` to `y`, constants by name, and the activations that krelax is to read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto
from tests.run.files import model, node, tensor

CONSTANTS: dict[str, Any] = {
    name: np.float32(value)
    for name, value in {
        "0.5": 0.5, "1": 1, "2": 2, "3": 3, "6": 6, "0": 0, "sqrt2": 2**0.5, "1/sqrt2": 0.5**0.5, "1/6": 1 / 6,
        "gain": (2 / np.pi) ** 0.5, "cube": 0.044715, "1.702": 1.702, "-1": -1, "-0.5": -0.5, "0.1": 0.1,
    }.items()
}  # fmt: skip


def nodes(*steps: str) -> list[NodeProto]:
    """Nodes as they are written: `y = Op(a, b)`."""
    made = []
    for step in steps:
        result, call = step.split(" = ")
        op, operands = call.rstrip(")").split("(")
        made.append(node(op, *operands.split(", "), result))
    return made


_ERF = ("d = Div(x, sqrt2)", "e = Erf(d)", "f = Add(e, 1)")
_CLIPPED = ("a = Add(x, 3)", "c = Clip(a, 0, 6)")
_TANH = ("t = Pow(x, 3)", "u = Mul(t, cube)", "v = Add(x, u)", "w = Mul(v, gain)", "s = Tanh(w)", "p = Add(s, 1)")
_HALF_TANH = ("k = Mul(x, 0.5)", "t = Tanh(k)", "p = Add(t, 1)", "m = Mul(x, p)", "y = Mul(m, 0.5)")
_SOFT = ("e = Exp(x)", "p = Add(e, 1)", "l = Log(p)")
FORMS: dict[str, tuple[list[NodeProto], list[str]]] = {
    "swish": (nodes("s = Sigmoid(x)", "y = Mul(x, s)"), ["SiLU"]),
    "swish, scaled": (nodes("k = Mul(x, 1.702)", "s = Sigmoid(k)", "y = Mul(s, x)"), ["SiLU"]),
    "swish of exp": (nodes("n = Neg(x)", "e = Exp(n)", "p = Add(1, e)", "y = Div(x, p)"), ["SiLU"]),
    "swish, turned": (nodes("s = Sigmoid(x)", "g = Sub(1, s)", "y = Mul(g, x)"), ["SiLU"]),
    "swish of tanh": (nodes(*_HALF_TANH), ["SiLU"]),
    "gelu of torch": (nodes(*_ERF, "m = Mul(x, f)", "y = Mul(m, 0.5)"), ["GELU"]),
    "gelu, half first": (nodes("h = Mul(0.5, x)", *_ERF, "y = Mul(h, f)"), ["GELU"]),
    "gelu, half of the gate": (nodes(*_ERF, "g = Mul(f, 0.5)", "y = Mul(x, g)"), ["GELU"]),
    "gelu, times 1 / sqrt(2)": (
        nodes("d = Mul(x, 1/sqrt2)", "e = Erf(d)", "f = Add(1, e)", "h = Mul(x, 0.5)", "y = Mul(f, h)"), ["GELU"]
    ),
    "gelu, turned": (nodes("d = Div(x, sqrt2)", "e = Erf(d)", "f = Sub(1, e)", "y = Mul(x, f)"), ["GELU"]),
    "gelu of tanh": (nodes(*_TANH, "h = Mul(x, 0.5)", "y = Mul(h, p)"), ["TanhGELU"]),
    "gelu of tanh, products": (
        nodes("q = Mul(x, x)", "t = Mul(q, x)", *_TANH[1:], "m = Mul(x, p)", "y = Mul(m, 0.5)"), ["TanhGELU"]
    ),
    "gelu of tanh, factored": (
        nodes("g = Mul(x, gain)", "c = Mul(x, cube)", "q = Mul(c, x)", "o = Add(q, 1)", "w = Mul(g, o)", "s = Tanh(w)",
               "p = Add(s, 1)", "h = Mul(x, 0.5)", "y = Mul(h, p)"), ["TanhGELU"]
    ),
    "mish": (nodes("o = Softplus(x)", "t = Tanh(o)", "y = Mul(x, t)"), ["Mish"]),
    "mish of log": (nodes(*_SOFT, "t = Tanh(l)", "y = Mul(x, t)"), ["Mish"]),
    "hard swish of torch": (nodes(*_CLIPPED, "m = Mul(x, c)", "y = Div(m, 6)"), ["HardSwish"]),
    "hard swish of a gate": (nodes(*_CLIPPED, "g = Mul(c, 1/6)", "y = Mul(x, g)"), ["HardSwish"]),
    "hard swish of hard sigmoid": (
        [node("HardSigmoid", "x", "g", alpha=1 / 6), *nodes("y = Mul(x, g)")], ["HardSwish"]
    ),
    "softplus": (nodes(*_SOFT, "y = Mul(l, 1)"), ["Softplus"]),
    "log-sigmoid": (nodes("s = Sigmoid(x)", "y = Log(s)"), ["Softplus"]),
    "sigmoid": (nodes("n = Neg(x)", "e = Exp(n)", "p = Add(e, 1)", "y = Div(1, p)"), ["Sigmoid"]),
    "sigmoid, reciprocal": (nodes("n = Neg(x)", "e = Exp(n)", "p = Add(e, 1)", "y = Reciprocal(p)"), ["Sigmoid"]),
    "softsign": (nodes("b = Abs(x)", "p = Add(b, 1)", "y = Div(x, p)"), ["Softsign"]),
    "softsign, scaled": (nodes("k = Mul(x, 2)", "b = Abs(k)", "p = Add(b, 1)", "y = Div(x, p)"), ["Softsign"]),
    "softsign of a negative": (
        nodes("k = Mul(x, -0.5)", "b = Abs(k)", "p = Add(b, 1)", "y = Div(x, p)"), ["Softsign"]
    ),
    "power of a base": (nodes("y = Pow(2, x)"), ["Exp"]),
    "unit length": ([node("LpNormalization", "x", "y")], ["Square", "ReciprocalSqrt", "Product"]),
    "unit sum": ([node("LpNormalization", "x", "y", axis=0, p=1)], ["ReLU", "ReLU", "Reciprocal", "Product"]),
    "logarithm of a sum": ([*nodes("e = Exp(x)"), node("ReduceLogSum", "e", "y", axes=[1])], ["Exp", "Log"]),
    "tangent": (nodes("t = Tanh(x)", "y = Tan(t)"), ["Tanh", "Tan"]),
    "inverse sine": (nodes("t = Tanh(x)", "y = Asin(t)"), ["Tanh", "Asin"]),
    "inverse cosine": (nodes("t = Tanh(x)", "y = Acos(t)"), ["Tanh", "Asin"]),
    "inverse hyperbolic tangent": (nodes("t = Sin(x)", "h = Mul(t, 0.5)", "y = Atanh(h)"), ["Sin", "Atanh"]),
    "step": (nodes("c = Greater(x, 0.1)", "y = Where(c, 1, -1)"), ["Step"]),
    "step, not below": (nodes("c = GreaterOrEqual(x, 0.5)", "d = Not(c)", "y = Where(d, 2, 1)"), ["Step"]),
    "both": (
        nodes("c = Greater(x, 0.1)", "d = Less(x, 0.5)", "a = And(c, d)", "y = Where(a, 1, -1)"),
        ["Step", "Step", "ReLU"],
    ),
    "either": (
        nodes("c = LessOrEqual(x, -0.5)", "d = Less(0.5, x)", "a = Or(c, d)", "y = Where(a, x, 0)"),
        ["Step", "Step", "ReLU", "Product"],
    ),
    "leaky relu, chosen": (nodes("c = Greater(x, 0)", "k = Mul(x, 0.1)", "y = Where(c, x, k)"), ["ReLU"]),
    "relu, chosen": (nodes("c = Less(x, 0)", "y = Where(c, 0, x)"), ["ReLU"]),
    "absolute value, chosen": (nodes("c = Less(x, 0)", "n = Neg(x)", "y = Where(c, n, x)"), ["ReLU"]),
    "relu, masked": ([*nodes("c = Greater(x, 0)"), node("Cast", "c", "m", to=1), *nodes("y = Mul(x, m)")], ["ReLU"]),
    "threshold, chosen": (nodes("c = Greater(x, 0.1)", "y = Where(c, x, 0.5)"), ["Threshold"]),
    "elu, chosen": (nodes("c = Greater(x, 0)", "e = Exp(x)", "b = Sub(e, 1)", "y = Where(c, x, b)"), ["ELU"]),
    "choice of functions": (
        nodes("c = Greater(x, 0)", "e = Tanh(x)", "f = Sin(x)", "y = Where(c, e, f)"),
        ["Step", "Tanh", "Sin", "Product"],
    ),
    "cube": (nodes("q = Mul(x, x)", "y = Mul(q, x)"), ["Power"]),
    "square": (nodes("c = Mul(x, cube)", "y = Mul(c, x)"), ["Square"]),
    "not swish": (nodes("k = Add(x, 1)", "s = Sigmoid(x)", "y = Mul(k, s)"), ["Sigmoid", "Product"]),
    "not gelu": (nodes("d = Div(x, sqrt2)", "e = Erf(d)", "f = Add(e, 2)", "y = Mul(x, f)"), ["Erf", "Product"]),
    "not softsign": (
        nodes("k = Mul(x, -0.5)", "b = Abs(k)", "c = Mul(b, -0.5)", "p = Add(c, 1)", "y = Div(x, p)"),
        ["ReLU", "ReLU", "Reciprocal", "Product"],
    ),
    "not softplus": (nodes("e = Exp(x)", "p = Add(e, 2)", "y = Log(p)"), ["Exp", "Log"]),
    "not hard swish": (nodes("a = Add(x, 2)", "c = Clip(a, 0, 6)", "y = Mul(x, c)"), ["ReLU", "ReLU", "Product"]),
}  # fmt: skip


def form(name: str) -> ModelProto:
    """The model of a form."""
    nodes = FORMS[name][0]
    used = {operand for n in nodes for operand in n.input}
    constants = {key: value for key, value in CONSTANTS.items() if key in used}
    return model(nodes, constants, [tensor("x", (2, 3))], opset=17)
