"""Float32 executions by ONNX Runtime, with its optimisations off and on, against what is certified of them all.

Chains of affine operators that a runtime folds into one another, with numbers of very different sizes.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from tests.fuzz.graphs import DOUBLE, FLOAT, Maker, Random
from tests.fuzz.readers import OFF, ON, checker, runtime

from krelax.certificate.errors import Rejected
from krelax.certificate.format.schema import Layer, Lemma, Question, Region
from krelax.certificate.kernel.arithmetic import Float64
from krelax.certificate.kernel.bounds import check_executable
from krelax.certificate.kernel.question import check_question


def _sized(rng: Random, *shape: int, power: float = 0.0, dtype: Any = FLOAT) -> Any:
    """Numbers about a power of ten."""
    with np.errstate(over="ignore", under="ignore"):
        values = (rng.choice([-1, 1], shape) * 10.0 ** (power + rng.uniform(-1, 1, shape))).astype(dtype)
    return np.where(np.isfinite(values) & (values != 0), values, dtype.type(1))


def _powers(rng: Random, count: int, most: float) -> Any:
    """Powers of ten of factors, the input's first, that may be extreme while all together are moderate, or small:
    then some of them together may be subnormal."""
    spread = rng.choice([1, 4, 12, most, most])
    powers = rng.uniform(-spread, spread, count)
    if rng.random() < 0.8:
        powers[rng.integers(count)] -= powers.sum() + rng.uniform(0, min(25, spread))
    return np.clip(powers, -1.2 * most, most)


def chain(rng: Random, dtype: Any = FLOAT, rational: bool = False) -> tuple[bytes, Any]:
    """Convolutions, products, normalisations, scalings and shifts, one after the other, and ReLUs; and a point. All
    values are rational numbers if that is asked for."""
    m = Maker(rng, int(rng.integers(13, 23)))
    m.dtype = dtype
    sized = partial(_sized, rng, dtype=dtype)
    flat = rng.random() < 0.4
    m.shape = [1, int(rng.integers(1, 4))] if flat else [1, int(rng.integers(1, 4)), 2, 2]
    m.input_shape = list(m.shape)
    channels, tail = m.shape[1], [] if flat else [1, 1]
    first, *powers = _powers(rng, int(rng.choice([2, 3, 3, 3, 4, 5])), 36 if dtype == FLOAT else 250)
    for power in powers:
        op = m.some("product", "product", "Div" if rational else "BatchNormalization", "Mul", "Div", "Add", "Relu")
        if op == "product":
            outputs = int(rng.integers(1, 4))
            scales = {"alpha": float(_sized(rng, power=max(-power / 2, -30)))} if flat and rng.random() < 0.4 else {}
            weight = sized(outputs, channels, *tail, power=power * (1.5 if scales else 1))
            if flat:
                m.apply("Gemm", m.constant(weight), transB=1, **scales)
            else:
                bias = [m.constant(sized(outputs, power=-9))] if rng.random() < 0.3 else []
                m.apply("Conv", m.constant(weight), *bias)
            channels = outputs
        elif op == "BatchNormalization":
            scale, variance = (
                sized(channels, power=power),
                sized(channels, power=rng.choice([0, 2 * power])),
            )
            zero = m.constant(np.zeros(channels))
            m.apply(op, m.constant(scale), zero, zero, m.constant(abs(variance)))
        elif op in {"Mul", "Div", "Add"}:
            shape = m.some((channels, *tail), (1,), ())
            m.apply(op, m.constant(sized(*shape, power={"Mul": power, "Div": -power, "Add": -9}[op])))
        else:
            m.apply(op)
    return m.model(), sized(*m.input_shape, power=first)


def outside(rng: Random) -> tuple[str, bytes | None]:
    """A chain is "refused", "rejected" or "inside"; or "OUTSIDE", with its file, if an execution leaves what is
    certified."""
    data, x = chain(rng)
    read = checker(data)
    if read is None:
        return "refused", None
    network = read[0]
    try:
        with np.errstate(all="ignore"):
            check_executable(network, Float64())
            ends = [sign * least(network, sign, x, Float64(), True) for sign in (1.0, -1.0)]
    except Rejected:
        return "rejected", None
    for level in (OFF, ON):
        for flush in (False, True):
            y = runtime(data, x, level, flush)
            if y is None or not ((ends[0] <= y) & (y <= ends[1])).all():
                return "OUTSIDE", data
    return "inside", None


def least(network: Any, sign: float, x: Any, ar: Any, float32: bool) -> Any:
    """Certified lower bounds of all outputs, or of their negatives, at a point."""
    point, outputs = x.reshape(-1).astype(np.float64), network.size(len(network.nodes) - 1)
    found = []
    for row in sign * np.eye(outputs):
        claim = Lemma(np.full(1, -1, np.int32), np.zeros(0, np.float32))
        question = Question(Region("box", point, point), row[None], np.zeros(1), np.zeros(1, np.int32))
        question.layers, question.margins = [Layer("interval") for _ in network.activations], claim
        found.append(check_question(network, question, ar, float32).margin)
    return np.array(found)


def exact(data: bytes, x: Any) -> Any:
    """What a chain computes, in rational numbers."""
    graph = onnx.load_from_string(data).graph
    values = {t.name: _fractions(numpy_helper.to_array(t)) for t in graph.initializer} | {"x": _fractions(x)}
    for node in graph.node:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            values[node.output[0]] = _fractions(numpy_helper.to_array(given["value"]))
            continue
        a, *more = (values[name] for name in node.input)
        values[node.output[0]] = _COMPUTED[node.op_type](given, a, *more)
    return values[graph.output[0].name].reshape(-1)


def _fractions(x: Any) -> Any:
    return np.vectorize(Fraction, otypes=[object])(np.asarray(x, np.float64))


def _convolved(_: Any, a: Any, weight: Any, bias: Any = None) -> Any:
    y = np.einsum("oi,ni...->no...", weight[:, :, 0, 0], a)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


_COMPUTED: dict[str, Any] = {
    "Mul": lambda _, a, b: a * b,
    "Div": lambda _, a, b: a / b,
    "Add": lambda _, a, b: a + b,
    "Relu": lambda _, a: np.maximum(a, Fraction(0)),  # type: ignore[call-overload]
    "Gemm": lambda given, a, w: Fraction(given.get("alpha", 1.0)) * (a @ w.T),
    "Conv": _convolved,
}


def wrong(rng: Random, ar: Any) -> tuple[str, bytes | None]:
    """A chain is "refused", "rejected" or "inside"; or "OUTSIDE", with its file, if its exact value is not within what
    is certified of the function of real numbers."""
    data, x = chain(rng, rng.choice([FLOAT, DOUBLE]), True)
    read = checker(data)
    if read is None:
        return "refused", None
    try:
        with np.errstate(all="ignore"):
            ends = [sign * least(read[0].over(ar), sign, x, ar, False) for sign in (1.0, -1.0)]
    except Rejected:
        return "rejected", None
    true = exact(data, x)
    good = all(low <= y <= high for low, y, high in zip(ends[0], true, ends[1], strict=True))
    return ("inside", None) if good else ("OUTSIDE", data)
