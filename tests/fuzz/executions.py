"""Float32 executions by ONNX Runtime, with its optimisations off and on, against what is certified of them all.

Chains of affine operators that a runtime folds into one another, with numbers of very different sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.fuzz.graphs import FLOAT, Graph, Random
from tests.fuzz.readers import OFF, ON, checker, runtime

from krelax.certificate.arithmetic import Float64
from krelax.certificate.format import Claim, Layer, Question, Region
from krelax.certificate.kernel import Rejected, check_executable
from krelax.certificate.proof import Proof


def _sized(rng: Random, *shape: int, power: float = 0.0) -> Any:
    """Float32 numbers about a power of ten."""
    with np.errstate(over="ignore", under="ignore"):
        values = (rng.choice([-1, 1], shape) * 10.0 ** (power + rng.uniform(-1, 1, shape))).astype(np.float32)
    return np.where(np.isfinite(values), values, np.float32(1))


def _powers(rng: Random, count: int) -> Any:
    """Powers of ten of factors, the input's first, that may be extreme while all together are moderate, or small:
    then some of them together may be subnormal."""
    spread = rng.choice([1, 4, 12, 36, 36])
    powers = rng.uniform(-spread, spread, count)
    if rng.random() < 0.8:
        powers[rng.integers(count)] -= powers.sum() + rng.uniform(0, min(25, spread))
    return np.clip(powers, -44, 37)


def chain(rng: Random) -> tuple[bytes, Any]:
    """Convolutions, products, normalisations, scalings and shifts, one after the other, and ReLUs; and a point."""
    m = Graph(rng, int(rng.integers(13, 23)))
    m.dtype = FLOAT
    flat = rng.random() < 0.4
    m.shape = [1, int(rng.integers(1, 4))] if flat else [1, int(rng.integers(1, 4)), 2, 2]
    m.input_shape = list(m.shape)
    channels, tail = m.shape[1], [] if flat else [1, 1]
    first, *powers = _powers(rng, int(rng.choice([2, 3, 3, 3, 4, 5])))
    for power in powers:
        op = m.some("product", "product", "BatchNormalization", "Mul", "Div", "Add", "Relu")
        if op == "product":
            outputs = int(rng.integers(1, 4))
            scales = {"alpha": float(_sized(rng, power=-power / 2))} if flat and rng.random() < 0.4 else {}
            weight = _sized(rng, outputs, channels, *tail, power=power * (1.5 if scales else 1))
            if flat:
                m.apply("Gemm", m.constant(weight), transB=1, **scales)
            else:
                bias = [m.constant(_sized(rng, outputs, power=-9))] if rng.random() < 0.3 else []
                m.apply("Conv", m.constant(weight), *bias)
            channels = outputs
        elif op == "BatchNormalization":
            scale, variance = (
                _sized(rng, channels, power=power),
                _sized(rng, channels, power=rng.choice([0, 2 * power])),
            )
            zero = m.constant(np.zeros(channels))
            m.apply(op, m.constant(scale), zero, zero, m.constant(abs(variance)))
        elif op in {"Mul", "Div", "Add"}:
            shape = m.some((channels, *tail), (1,), ())
            m.apply(op, m.constant(_sized(rng, *shape, power={"Mul": power, "Div": -power, "Add": -9}[op])))
        else:
            m.apply(op)
    return m.model(), _sized(rng, *m.input_shape, power=first)


def outside(rng: Random) -> tuple[str, bytes | None]:
    """ "refused", "rejected", "inside"; or "OUTSIDE" with the file, if an execution leaves what is certified."""
    data, x = chain(rng)
    read = checker(data)
    if read is None:
        return "refused", None
    network = read[0]
    try:
        with np.errstate(all="ignore"):
            check_executable(network, Float64())
            ends = [sign * _least(network, sign, x) for sign in (1.0, -1.0)]
    except Rejected:
        return "rejected", None
    for level in (OFF, ON):
        for flush in (False, True):
            y = runtime(data, x, level, flush)
            if y is None or not ((ends[0] <= y) & (y <= ends[1])).all():
                return "OUTSIDE", data
    return "inside", None


def _least(network: Any, sign: float, x: Any) -> Any:
    """Certified lower bounds of all outputs, or of their negatives, at a point."""
    point, outputs = x.reshape(-1).astype(np.float64), network.size(len(network.nodes) - 1)
    found = []
    for row in sign * np.eye(outputs):
        claim = Claim(np.full(1, -1, np.int32), np.zeros(0, np.float32))
        question = Question(Region("box", point, point), row[None], np.zeros(1), np.zeros(1, np.int32))
        question.layers, question.margins = [Layer("interval") for _ in network.activations], claim
        found.append(Proof(network, question, Float64(), float32=True).margin())
    return np.array(found)
