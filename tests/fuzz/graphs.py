"""Random small ONNX files: an operator with random attributes and operands in a random version, between others.

Many are not valid: readers have to agree, or to refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.fuzz import converters, places, quantised

from krelax.network.nonlinear import ONNX

OLDEST, NEWEST = 7, 22
Random = np.random.Generator
FLOAT, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


class Maker:
    """A graph that grows: the tensor `last`, of shape `shape`, depends on the input."""

    def __init__(self, rng: Random, version: int) -> None:
        self.rng, self.version = rng, version
        self.dtype = DOUBLE if rng.random() < 0.1 else FLOAT
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.count = 0
        self.last, self.shape = "x", self.random_shape()

    def random_shape(self) -> list[int]:
        rank = int(self.rng.choice([0, 1, 2, 3, 4, 5], p=[0.02, 0.1, 0.3, 0.23, 0.3, 0.05]))
        return [int(n) for n in self.rng.integers(1, 5, rank)]

    def image(self) -> None:
        """From here on an image, or a signal."""
        self.shape = [int(n) for n in self.rng.integers(1, 6, self.rng.choice([3, 4, 4, 5]))]
        self.shape[:2] = [int(self.rng.integers(1, 3)), int(self.rng.choice([1, 2, 4]))]

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def constant(self, value: Any, dtype: Any = None) -> str:
        """A constant of some encoding, stored or in a node."""
        array, name = np.asarray(value, dtype or self.dtype), self.name()
        stored = numpy_helper.from_array(array, name)
        if self.rng.random() < 0.2 and array.dtype != np.float16:
            stored = helper.make_tensor(name, stored.data_type, array.shape, array.reshape(-1).tolist())
        if self.rng.random() < 0.2:
            self.nodes.append(helper.make_node("Constant", [], [name], value=stored))
        else:
            self.constants.append(stored)
        return name

    def whole(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64), np.int64)

    def floats(self, *shape: int) -> Any:
        values = self.rng.normal(0, 1, shape)
        return np.where(self.rng.random(shape) < 0.1, 0, values)

    def call(self, op: str, *operands: str, outputs: int = 1, domain: str = "", **attributes: Any) -> list[str]:
        names = [self.name() for _ in range(outputs)]
        made = helper.make_node(op, list(operands), names, domain=domain)
        kinds = {k: _list_kind(v) if isinstance(v, list) else None for k, v in attributes.items()}
        made.attribute.extend(
            helper.make_attribute(k, v, attr_type=kinds[k]) for k, v in attributes.items() if v is not None
        )
        self.nodes.append(made)
        return names

    def apply(self, op: str, *operands: str, **attributes: Any) -> None:
        """An operator of the last tensor, which its result takes the place of."""
        (self.last,) = self.call(op, self.last, *operands, **attributes)

    def some(self, *values: Any) -> Any:
        return values[self.rng.integers(len(values))]

    def model(self) -> bytes:
        rng, kind = self.rng, TensorProto.DOUBLE if self.dtype == DOUBLE else TensorProto.FLOAT
        ends = [helper.make_tensor_value_info("x", kind, self.input_shape)]
        outs = [helper.make_tensor_value_info(self.last, kind, None)]
        graph = helper.make_graph(self.nodes, "g", ends, outs, self.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid(rng.choice(["", "ai.onnx"]), self.version)])
        if any(n.domain for n in self.nodes):
            made.opset_import.append(helper.make_opsetid(converters.ML, 3))
        made.ir_version = int(rng.integers(4, 11))
        return bytes(made.SerializeToString())

    input_shape: list[int]
    dtype_out: int | None = None

    def begin(self) -> None:
        """The piece's input, of the shape that it has chosen."""
        self.input_shape = list(self.shape)
        if self.rng.random() < 0.4:
            self.apply(self.some("Relu", "Neg", "Identity"))


def _list_kind(values: list[Any]) -> Any:
    """Of what kind an attribute is that has a list, perhaps of nothing."""
    kinds = {str: onnx.AttributeProto.STRINGS, float: onnx.AttributeProto.FLOATS}
    return kinds.get(type(next(iter(values), 0)), onnx.AttributeProto.INTS)


def _axis(m: Maker, rank: int) -> int:
    return (
        int(m.rng.integers(-rank - 1, rank + 2)) if m.rng.random() < 0.2 else int(m.rng.integers(-rank, max(rank, 1)))
    )


def _axes(m: Maker, rank: int) -> list[int]:
    axes = [int(a) for a in m.rng.permutation(rank)[: m.rng.integers(0, rank + 1)]]
    return [a - rank if m.rng.random() < 0.3 else a for a in axes] + ([_axis(m, rank)] if m.rng.random() < 0.1 else [])


def _like(m: Maker) -> Any:
    """Numbers that are broadcast with the last tensor, or not."""
    shape = [n if m.rng.random() < 0.6 else 1 for n in m.shape[int(m.rng.integers(0, len(m.shape) + 1)) :]]
    if m.rng.random() < 0.1:
        shape = [int(n) for n in m.rng.integers(1, 4, m.rng.integers(0, 4))]
    return m.floats(*shape)


def _window(m: Maker, kernel: list[int], pool: bool) -> dict[str, Any]:
    """Attributes of a convolution or a pool."""
    rng, rank = m.rng, len(kernel)
    found: dict[str, Any] = {}
    if rng.random() < 0.6:
        found["strides"] = [int(n) for n in rng.integers(1, 4, rank)]
    if rng.random() < 0.5:
        found["pads"] = [int(n) for n in rng.integers(0 if rng.random() < 0.95 else -1, 3, 2 * rank)]
    if rng.random() < 0.25:
        found["auto_pad"] = m.some("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER", "SAME")
        if rng.random() < 0.7:
            found.pop("pads", None)
    if rng.random() < 0.3:
        found["dilations"] = [int(n) for n in rng.integers(1, 3, rank)]
    if pool and rng.random() < 0.3:
        found["ceil_mode"] = m.some(0, 1, 1)
    if pool or rng.random() < 0.5:
        found["kernel_shape"] = kernel
    return found


def gemm(m: Maker) -> None:
    m.shape = [int(n) for n in m.rng.integers(1, 5, 2)]
    m.begin()
    first, outputs = bool(m.rng.random() < 0.3), int(m.rng.integers(1, 4))  # whether the constant is the first factor
    own, other = m.some(None, None, 0, 1), m.some(None, 0, 1)
    inner, free = m.shape if bool(own) != first else m.shape[::-1]
    weight = m.floats(outputs, inner) if bool(other) != first else m.floats(inner, outputs)
    rows, columns = (outputs, free) if first else (free, outputs)
    bias = m.some(None, m.floats(columns), m.floats(1), m.floats(rows, columns), m.floats(), m.floats(rows, 1))
    more = [] if bias is None else [m.constant(bias)]
    alpha, beta = (m.some(None, 1.0, 0.5, 0.0, -0.3, 2.0) for _ in range(2))
    factors, turned = [m.last, m.constant(weight)], [own, other]
    if first:
        factors, turned = factors[::-1], turned[::-1]
    m.last = m.call("Gemm", *factors, *more, transA=turned[0], transB=turned[1], alpha=alpha, beta=beta)[0]


def matmul(m: Maker) -> None:
    m.begin()
    weight = m.floats(m.shape[-1] if m.shape else 1, int(m.rng.integers(1, 4)))
    if m.rng.random() < 0.5:
        m.apply("MatMul", m.constant(m.some(weight, weight[:, 0], weight[None])))
        return
    left = m.floats(int(m.rng.integers(1, 4)), m.shape[-2] if len(m.shape) > 1 else m.shape[-1] if m.shape else 1)
    m.last = m.call("MatMul", m.constant(m.some(left, left, left[0])), m.last)[0]


def conv(m: Maker) -> None:
    m.image()
    m.begin()
    groups = m.some(1, 1, 2)
    kernel = [int(n) for n in m.rng.integers(1, 4, len(m.shape) - 2)]
    weight = m.floats(2 * m.some(1, 2), max(m.shape[1] // groups, 1), *kernel)
    bias = [m.constant(m.floats(len(weight)))] if m.rng.random() < 0.5 else []
    m.apply("Conv", m.constant(weight), *bias, group=m.some(None, groups) if groups == 1 else groups,
            **_window(m, kernel, False))  # fmt: skip


def conv_transpose(m: Maker) -> None:
    m.image()
    m.begin()
    groups = m.some(1, 1, 2)
    kernel = [int(n) for n in m.rng.integers(1, 4, len(m.shape) - 2)]
    weight = m.floats(m.shape[1], m.some(1, 2), *kernel)
    bias = [m.constant(m.floats(weight.shape[1] * groups))] if m.rng.random() < 0.5 else []
    extra = [int(n) for n in m.rng.integers(0, 3, len(kernel))] if m.rng.random() < 0.3 else None
    m.apply("ConvTranspose", m.constant(weight), *bias, group=groups, output_padding=extra,
            **_window(m, kernel, False))  # fmt: skip


def pool(m: Maker) -> None:
    m.image()
    m.begin()
    op = m.some("MaxPool", "AveragePool")
    found = _window(m, [int(n) for n in m.rng.integers(1, 4, len(m.shape) - 2)], True)
    if op == "AveragePool":
        found["count_include_pad"] = m.some(None, 0, 1)
        if m.rng.random() < 0.7:
            found.pop("dilations", None)
    elif m.rng.random() < 0.1:
        found["storage_order"] = m.some(0, 1)
    m.apply(op, **found)


def global_pool(m: Maker) -> None:
    m.image()
    m.begin()
    m.apply(m.some("GlobalAveragePool", "GlobalMaxPool"))


def batch_norm(m: Maker) -> None:
    if m.rng.random() < 0.8:
        m.image()
    m.begin()
    channels = m.shape[1] if len(m.shape) > 1 else 1
    values = [m.constant(m.floats(channels)) for _ in range(3)]
    more = {"spatial": m.some(None, 0, 1)} if m.version < 9 else {}
    if m.version >= 14:
        more = {"training_mode": m.some(None, None, 0, 1)}
    m.apply("BatchNormalization", *values, m.constant(abs(m.floats(channels))),
            epsilon=m.some(None, 1e-5, 0.01), momentum=m.some(None, 0.5), **more)  # fmt: skip


def arithmetic(m: Maker) -> None:
    m.begin()
    op = m.some("Add", "Sub", "Mul", "Div")
    constant = m.constant(np.where(abs(value := _like(m)) < 0.1, 0.5, value) if op == "Div" else _like(m))
    pair = [constant, m.last] if op != "Div" and m.rng.random() < 0.4 else [m.last, constant]
    if op in {"Add", "Sub"} and m.rng.random() < 0.2:
        pair = [m.last, m.call("Neg", m.last)[0]]
    m.last = m.call(op, *pair)[0]


def products(m: Maker) -> None:
    """Of two branches, or of one and itself."""
    m.begin()
    op = m.some("Mul", "Mul", "MatMul", "MatMul", "Gemm")
    other = m.last if m.rng.random() < 0.3 else m.call(m.some("Relu", "Neg"), m.last)[0]
    if m.rng.random() < 0.2:
        other = m.call("Add", other, m.constant(_like(m)))[0]
    if m.rng.random() < (0.2 if op == "Mul" else 0.7):
        other = m.call("Transpose", other)[0]
    more: dict[str, Any] = {}
    if op == "Gemm":
        more = {"alpha": m.some(None, 0.5), "transA": m.some(None, 1), "transB": m.some(None, 1)}
    needed = op == "Gemm" and (m.version < 11 or m.rng.random() < 0.3)
    bias = [m.constant(m.floats(1))] if needed else []
    m.last = m.call(op, *m.some([m.last, other], [other, m.last]), *bias, **more)[0]


def composites(m: Maker) -> None:
    """Quotients, softmax, normalisations, norms."""
    m.begin()
    op = m.some("Div", "Div", "Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization",
                "GroupNormalization", "ReduceSumSquare", "ReduceL2", "ReduceLogSumExp", "Einsum")  # fmt: skip
    rank = len(m.shape)
    if op == "Div":
        positive = m.call("Add", m.call("Abs", m.last)[0], m.constant(0.5))[0]
        below = m.some(positive, m.call("Sqrt", positive)[0])
        m.last = m.call("Div", m.some(m.last, m.constant(_like(m))), below)[0]
    elif op in {"Softmax", "LogSoftmax"}:
        m.apply(op, axis=m.some(None, _axis(m, rank)))
    elif op.endswith("Normalization"):
        _normalised(m, op)
    elif op == "Einsum":
        equations = ("ij,kj->ik", "ij,ij->i", "...i,...i", "i,j->ij", "ijk,ijl->ikl", "ij,jk", "ij,kl->ik")
        m.last = m.call(op, m.last, m.call("Neg", m.last)[0], equation=m.some(*equations))[0]
    else:
        keep, axes = m.some(None, 0, 1), _axes(m, rank) or None
        if m.version >= 18:
            m.apply(op, *([m.whole(*axes)] if axes else []), keepdims=keep)
        else:
            m.apply(op, axes=axes, keepdims=keep)


def _normalised(m: Maker, op: str) -> None:
    rank = len(m.shape)
    if op == "LayerNormalization":
        axis = _axis(m, rank)
        shape = m.shape[axis:] if -rank <= axis < rank else m.shape
        more = [m.constant(m.floats(*shape))] if m.rng.random() < 0.5 else []
        m.apply(op, m.constant(m.floats(*m.some(shape, shape[-1:]))), *more, axis=axis, epsilon=m.some(None, 0.01))
        return
    channels = m.shape[1] if rank > 1 else 1
    groups = m.some(1, channels)
    size = groups if op[0] == "G" and m.version < 21 else channels
    attributes = {"num_groups": groups} if op[0] == "G" else {}
    m.apply(op, m.constant(m.floats(size)), m.constant(m.floats(size)), **attributes)


def recurrent(m: Maker) -> None:
    m.shape = [int(n) for n in m.rng.integers(1, 4, 3)]
    m.begin()
    kind, size = m.some("LSTM", "GRU", "RNN"), int(m.rng.integers(1, 4))
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    direction = m.some(None, "forward", "reverse", "bidirectional")
    ways = 2 if direction == "bidirectional" else 1
    layout = m.some(None, None, 0) if m.version >= 14 else None
    weights = [m.constant(m.floats(ways, gates * size, n)) for n in (m.shape[2], size)]
    bias = [m.constant(m.floats(ways, 2 * gates * size))] if m.rng.random() < 0.7 else []
    more: dict[str, Any] = {"linear_before_reset": m.some(None, 0, 1)} if kind == "GRU" else {}
    if m.rng.random() < 0.2:
        usual = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": [m.some("Tanh", "Relu")]}
        more["activations"] = usual[kind] * ways
    names = m.call(kind, m.last, *weights, *bias, outputs=3 if kind == "LSTM" else 2,
                   direction=direction, layout=layout, hidden_size=size, **more)  # fmt: skip
    m.last = m.some(*names)


def extremum(m: Maker) -> None:
    m.begin()
    others = [m.constant(_like(m)) for _ in range(m.rng.integers(0, 3))]
    if m.rng.random() < 0.3:
        others.append(m.call("Neg", m.last)[0])
    operands = [m.last, *others]
    m.last = m.call(m.some("Max", "Min"), *[operands[i] for i in m.rng.permutation(len(operands))])[0]


def elementwise(m: Maker) -> None:
    m.begin()
    total = [op for op in ONNX if op not in {"Log", "Sqrt", "Reciprocal", "Pow"}]
    op = m.some(*total, "Abs", "Neg", "Identity", "Dropout", "Clip", "Clip", "Cast")
    if op == "LeakyRelu":
        m.apply(op, alpha=m.some(None, 0.1, 0.0, 1.0, 1.5, -0.5))
    elif op == "Clip" and m.version < 11:
        m.apply(op, min=m.some(None, -0.3, 0.0, -3.4028235e38), max=m.some(None, 0.4, 1.0, -1.0, 3.4028235e38))
    elif op == "Clip":
        bounds = [
            m.some("", m.constant(-0.3), m.constant([-0.5])),
            m.some("", m.constant(0.4), m.constant(-1.0), m.constant(3.4028235e38)),
        ]
        m.apply(op, *bounds[: m.rng.integers(0, 3)])
    elif op == "Dropout" and m.version >= 12:
        m.apply(op, *[m.constant(0.5), m.constant(m.some(False, False, True), np.bool_)][: m.rng.integers(0, 3)])
    elif op == "Cast":
        m.apply(op, to=m.some(1, 11, 11, 10, 7, 6))
        m.dtype_out = m.nodes[-1].attribute[0].i
    else:
        m.apply(op)


def reshape(m: Maker) -> None:
    m.begin()
    size = int(np.prod(m.shape))
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    first = int(m.some(*divisors))
    targets = [first, size // first], [first, -1], [-1], [0, -1], [1, first, -1], [size], [-1, first, 1]
    target = m.some(*targets, [0, 0, -1], [-1, -1], [first, size])
    m.apply("Reshape", m.whole(*target), allowzero=m.some(None, 0, 1) if m.version >= 14 else None)


def axes_of(m: Maker) -> None:
    """Squeeze, Unsqueeze, reductions: axes as an attribute or an operand."""
    op = m.some("Squeeze", "Unsqueeze", "ReduceSum", "ReduceMean")
    if op == "Squeeze":
        m.shape = [n if m.rng.random() < 0.5 else 1 for n in m.shape]
    m.begin()
    axes: Any = m.some(_axes(m, len(m.shape) + (op == "Unsqueeze")), _axes(m, len(m.shape)), None)
    if op == "Squeeze" and axes is not None and m.rng.random() < 0.8:
        axes = [a for a in axes if -len(m.shape) <= a < len(m.shape) and m.shape[a] == 1]
    more: dict[str, Any] = {"keepdims": m.some(None, 0, 1)} if op.startswith("Reduce") else {}
    since = {"ReduceMean": 18}.get(op, 13)
    if m.version >= since:
        if more and m.rng.random() < 0.3:
            more["noop_with_empty_axes"] = m.some(0, 1)
        m.apply(op, *([] if axes is None else [m.whole(*axes)]), **more)
    else:
        m.apply(op, axes=axes, **more)


def movement(m: Maker) -> None:
    m.begin()
    rank = len(m.shape)
    op = m.some("Flatten", "Transpose", "Gather", "Expand", "Shape")
    if op == "Flatten":
        m.apply(op, axis=m.some(None, _axis(m, rank)))
    elif op == "Transpose":
        m.apply(op, perm=m.some(None, [int(a) for a in m.rng.permutation(rank)], _axes(m, rank)) or None)
    elif op == "Gather":
        axis = _axis(m, rank)
        size = m.shape[axis] if -rank <= axis < rank else 1
        index = m.rng.integers(-size if m.rng.random() < 0.3 else 0, size + (m.rng.random() < 0.1),
                               m.some((), (2,), (1, 2)))  # fmt: skip
        m.apply(op, m.constant(index, m.some(np.int64, np.int32)), axis=m.some(None, axis, axis))
    elif op == "Expand":
        target = [n if m.rng.random() < 0.5 else 1 for n in m.shape]
        m.apply(op, m.whole(*m.some([2, *target], target, [3] * rank, target[1:])))
    else:
        start, end = m.some(None, 0, -1, 1, -7), m.some(None, 2, -1, 9)
        found = m.call("Shape", m.last, **({"start": start, "end": end} if m.version >= 15 else {}))[0]
        m.apply("Mul", m.call("Cast", found, to=11 if m.dtype == DOUBLE else 1)[0])


def slices(m: Maker) -> None:
    m.begin()
    rank = len(m.shape)
    axes = list(dict.fromkeys(a % rank for a in _axes(m, rank))) if rank else []
    axes = [a - rank if m.rng.random() < 0.2 else a for a in axes]
    starts, ends = ([int(n) for n in m.rng.integers(-6, 7, len(axes))] for _ in range(2))
    if m.version < 10:
        m.apply("Slice", starts=starts, ends=ends, axes=m.some(axes, axes, None))
        return
    steps = [int(m.some(1, 2, -1, -2)) for _ in axes]
    kind = m.some(np.int64, np.int32)
    operands = [m.constant(np.array(v, kind), kind) for v in (starts, ends, axes, steps)]
    m.apply("Slice", *operands[: m.rng.integers(2, 5)])


def split(m: Maker) -> None:
    m.begin()
    rank, axis = len(m.shape), _axis(m, len(m.shape))
    size = m.shape[axis] if -rank <= axis < rank else 2
    parts = int(m.rng.integers(1, 4))
    cuts = np.sort(m.rng.integers(0, size + 1, parts - 1))
    sizes = [int(n) for n in np.diff([0, *cuts, size])]
    operands, more = [m.last], {"axis": m.some(None, axis, axis)}
    if m.rng.random() < 0.5:
        if m.version < 13:
            more["split"] = sizes
        else:
            operands.append(m.whole(*sizes))
    elif m.version >= 18:
        more["num_outputs"] = m.some(parts, parts, parts, parts + 1)
    names = m.call("Split", *operands, outputs=parts, **more)
    m.last = m.call("Concat", *[m.call("Neg", n)[0] if m.rng.random() < 0.5 else n for n in names],
                    axis=axis)[0]  # fmt: skip


def concat(m: Maker) -> None:
    m.begin()
    axis, rank = _axis(m, len(m.shape)), len(m.shape)
    shape = list(m.shape)
    if -rank <= axis < rank:
        shape[axis] = int(m.rng.integers(1, 3))
    operands = [m.last, *[m.constant(m.floats(*shape)) for _ in range(m.rng.integers(0, 3))], m.call("Neg", m.last)[0]]
    m.last = m.call("Concat", *[operands[i] for i in m.rng.permutation(len(operands))], axis=axis)[0]


def pad(m: Maker) -> None:
    m.begin()
    rank = len(m.shape)
    axes = (
        [int(a) for a in m.rng.permutation(rank)[: m.rng.integers(0, rank + 1)]]
        if m.version >= 18
        else list(range(rank))
    )
    with_axes = m.version >= 18 and m.rng.random() < 0.5
    count = len(axes) if with_axes else rank
    pads = [int(n) for n in m.rng.integers(-1 if m.rng.random() < 0.3 else 0, 3, 2 * count)]
    mode = m.some(None, None, "constant", "edge", "reflect")
    if m.version < 11:
        m.apply("Pad", pads=pads, value=m.some(None, 0.5), mode=mode)
        return
    value = m.some("", m.constant(0.5), m.constant([0.0]))
    more = [m.constant([a - rank * (m.rng.random() < 0.3) for a in axes], np.int64)] if with_axes else []
    m.apply("Pad", m.whole(*pads), *([value, *more] if with_axes or value else []), mode=mode)


def constants(m: Maker) -> None:
    """Constants that are computed: casts, whole numbers, shapes."""
    m.begin()
    kinds = [1, 2, 3, 6, 7, 9, 10, 11, 16]
    name = m.constant(m.some([0.5], [0.1], [-1.5], [2.0], [300.0], [1e10], [0.0]))
    for kind in m.rng.choice(kinds, m.rng.integers(0, 3)):
        name = m.call("Cast", name, to=int(kind))[0]
    if m.rng.random() < 0.6:
        kind = m.some(np.int64, np.int32, np.int8)
        values = [
            m.constant(m.some([7], [-7], [2], [-2], [3], [2**30 if kind != np.int8 else 99]), kind) for _ in range(2)
        ]
        name = m.call(m.some("Add", "Sub", "Mul", "Div"), *values)[0]
    name = m.call("Cast", name, to=11 if m.dtype == DOUBLE else 1)[0]
    m.apply(m.some("Mul", "Add"), name)


PIECES: list[Callable[[Maker], None]] = [
    gemm, matmul, conv, conv_transpose, pool, pool, global_pool, batch_norm, arithmetic, products, composites,
    composites, recurrent, extremum, elementwise, elementwise, reshape, axes_of, axes_of,
    movement, movement, slices, split, concat, pad, constants, *converters.PIECES,
    *quantised.PIECES, *places.PIECES,
]  # fmt: skip


def random_graph(rng: Random) -> tuple[bytes, list[int], str]:
    """The file, the shape of its input, and the name of its piece."""
    version = int(rng.integers(OLDEST, NEWEST + 1))
    m = Maker(rng, version)
    piece = PIECES[rng.integers(len(PIECES))]
    piece(m)
    if m.dtype_out is not None and m.dtype_out != (11 if m.dtype == DOUBLE else 1):
        m.apply("Cast", to=11 if m.dtype == DOUBLE else 1)
    if rng.random() < 0.3:
        m.apply(m.some("Relu", "Abs", "Neg"))
    return m.model(), m.input_shape, piece.__name__


def to_text(data: bytes) -> str:
    """A graph in words, for messages."""
    return str(onnx.printer.to_text(onnx.load_from_string(data)))
