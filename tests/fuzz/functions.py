"""Float32 executions of functions, products and scalings, against what is certified of them if functions are right.

Constants are often nearly those that runtimes know functions and normalisations by.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
from onnx import helper, numpy_helper
from tests.certificate.proofs import as_file
from tests.fuzz.executions import least
from tests.fuzz.readers import OFF, ON, checker, runtime

from krelax.certificate.errors import Rejected
from krelax.certificate.kernel.arithmetic import Float64
from krelax.certificate.kernel.bounds import check_executable

Random = np.random.Generator
# By how many units functions are off at most, with something to spare.
_UNITS = 4
_MOST_ENTRIES = 12
_FUNCTIONS = (
    "Sigmoid", "Tanh", "Exp", "Softplus", "Erf", "Atan", "Sin", "Cos", "HardSwish", "Elu", "Selu", "Celu", "Gelu",
    "Mish", "Softsign", "Sqrt", "Log", "Reciprocal", "Sinh", "Cosh", "Asinh", "Tan", "Relu", "LeakyRelu", "HardSigmoid",
    "Abs", "Neg",
)  # fmt: skip


class _Author:
    """A graph of small matrices that grows: each operator is of one or two that are there, often of the last one."""

    def __init__(self, rng: Random) -> None:
        self.rng, self.nodes, self.constants = rng, list[Any](), list[Any]()
        self.tensors: list[tuple[str, tuple[int, int]]] = [("x", (1, int(rng.integers(1, 5))))]

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def sized(self) -> float:
        """A number of any size that is still moderate."""
        most = self.rng.choice([0.3, 0.3, 1.0, 5.0, 15.0])
        return float(self.rng.choice([-1, 1]) * 10.0 ** self.rng.uniform(-most, most))

    def near(self, *values: float) -> str:
        """A constant that is one of these numbers, or nearly so."""
        return self.constant(self.rng.choice(values) * (1 + self.rng.choice([0, 0, 5e-6, -5e-6, 1e-7])))

    def step(self) -> None:
        """One more tensor, unless it is large."""
        x, shape = self.tensors[-1] if self.rng.random() < 0.7 else self.tensors[self.rng.integers(len(self.tensors))]
        steps: list[Callable[[str, tuple[int, int]], tuple[str, tuple[int, int]]]] = [
            self.function, self.function, self.affine, self.scaled, self.joined, self.joined, self.crossed, self.gate,
            self.gelu,
        ]  # fmt: skip
        made, size = steps[self.rng.integers(len(steps))](x, shape)
        if np.prod(size) <= _MOST_ENTRIES:
            self.tensors.append((made, size))

    def function(self, x: str, shape: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        if self.rng.random() < 0.15:
            return self.add("Pow", x, self.near(2, 3, 0.5, -0.5)), shape
        return self.add(str(self.rng.choice(_FUNCTIONS)), x), shape

    def affine(self, x: str, shape: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        width = int(self.rng.integers(1, 5))
        weight = self.constant(self.rng.normal(size=(shape[1], width)) * self.sized())
        if self.rng.random() < 0.5:
            return self.add("MatMul", x, weight), (shape[0], width)
        bias = self.constant(self.rng.normal(size=width))
        return self.add("Gemm", x, weight, bias, alpha=abs(self.sized())), (shape[0], width)

    def scaled(self, x: str, shape: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        by = self.near(1, 0.5, sqrt(2), 3, 6) if self.rng.random() < 0.5 else self.constant(self.sized())
        return self.add(str(self.rng.choice(["Mul", "Div", "Add", "Sub"])), x, by), shape

    def joined(self, x: str, shape: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        others = [name for name, size in self.tensors if size == shape]
        pair = [x, others[self.rng.integers(len(others))]]
        self.rng.shuffle(pair)
        return self.add(str(self.rng.choice(["Mul", "Mul", "Add", "Sub", "Max", "Min", "Div"])), *pair), shape

    def crossed(self, x: str, shape: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        """A product of matrices, with scalings around it."""
        left, right = x, self.add("Transpose", x, perm=[1, 0])
        sides = [
            self.add("Mul", t, self.constant(self.sized())) if self.rng.random() < 0.6 else t for t in (left, right)
        ]
        made = self.add("MatMul", *sides)
        if self.rng.random() < 0.5:
            made = self.add("Mul", made, self.constant(self.sized()))
        return made, (shape[0], shape[0])

    def gate(self, x: str, shape: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        inner = self.add("Mul", x, self.near(1, 1.702)) if self.rng.random() < 0.6 else x
        return self.add("Mul", x, self.add(str(self.rng.choice(["Sigmoid", "Tanh", "HardSigmoid"])), inner)), shape

    def gelu(self, x: str, shape: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        inside = self.add("Erf", self.add("Div", x, self.near(sqrt(2))))
        total, half = self.add("Add", inside, self.near(1)), self.near(0.5)
        if self.rng.random() < 0.5:
            return self.add("Mul", self.add("Mul", x, total), half), shape
        return self.add("Mul", self.add("Mul", x, half), total), shape


def outside_functions(rng: Random) -> tuple[str, bytes | None]:
    """As `tests.fuzz.executions.outside`, of graphs of functions and products."""
    author = _Author(rng)
    for _ in range(int(rng.integers(2, 8))):
        author.step()
    if author.tensors[-1][0] == "x":
        return "refused", None
    shape, most = author.tensors[0][1], rng.choice([0.0, 0.0, 1.0, 4.0])
    data = as_file(author.nodes, author.constants, shape, author.tensors[-1][0], 20)
    x = (rng.normal(size=shape) * 10.0 ** rng.uniform(-most, most / 2)).astype(np.float32)
    read = checker(data)
    if read is None:
        return "refused", None
    network = read[0].executing(_UNITS)
    try:
        with np.errstate(all="ignore"):
            check_executable(network, Float64())
            ends = [sign * least(network, sign, x, Float64(), True) for sign in (1.0, -1.0)]
    except Rejected:
        return "rejected", None
    for level in (OFF, ON):
        for flush in (False, True):
            y = runtime(data, x, level, flush)
            if y is None:
                return "refused", None
            # of what is not bounded nothing is said, and it may be no number
            if not (((ends[0] <= y) | np.isinf(ends[0])) & ((y <= ends[1]) | np.isinf(ends[1]))).all():
                return "OUTSIDE", data
    return "inside", None
