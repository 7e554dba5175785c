"""What a node of an ONNX file may look like: a closed list of operators and of the versions that krelax models.

ONNX says for every version of an operator which attributes, operands and element types it has. Whatever a node has
beyond that is refused, and so is a version that is not in `VERSIONS`: each of those was read when its reader was
written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from krelax.errors import InputError, UnsupportedError
from krelax.network.nonlinear import ONNX

# Operator: versions of its definition, by the operator set that brought it. Those of activations are in `ONNX`.
VERSIONS: dict[str, set[int]] = {
    "Abs": {6, 13},
    "Acos": {7, 22},
    "Acosh": {9, 22},
    "Add": {7, 13, 14},
    "And": {7},
    "ArgMax": {1, 11, 12, 13},
    "ArgMin": {1, 11, 12, 13},
    "Asinh": {9, 22},
    "AveragePool": {7, 10, 11, 19, 22},
    "BatchNormalization": {7, 9, 14, 15},
    "Cast": {6, 9, 13, 19, 21, 23, 24, 25},
    "CastLike": {15, 19, 21, 23, 24, 25},
    "Clip": {6, 11, 12, 13},
    "Col2Im": {18},
    "Compress": {9, 11},
    "Concat": {4, 11, 13},
    "Constant": {1, 9, 11, 12, 13, 19, 21, 23, 24, 25},
    "ConstantOfShape": {9, 20, 21, 23, 24, 25},
    "Conv": {1, 11, 22},
    "ConvInteger": {10},
    "ConvTranspose": {1, 11, 22},
    "CumSum": {11, 14},
    "DepthToSpace": {1, 11, 13},
    "DequantizeLinear": {10, 13, 19, 21, 23, 24, 25},
    "Div": {7, 13, 14},
    "Dropout": {7, 10, 12, 13, 22},
    "DynamicQuantizeLinear": {11},
    "Einsum": {12},
    "Equal": {7, 11, 13, 19},
    "Expand": {8, 13},
    "EyeLike": {9, 22},
    "Flatten": {1, 9, 11, 13, 21, 23, 24, 25},
    "Gather": {1, 11, 13},
    "GatherElements": {11, 13},
    "GatherND": {11, 12, 13},
    "Gemm": {7, 9, 11, 13},
    "GlobalAveragePool": {1, 22},
    "GlobalLpPool": {2, 22},
    "GlobalMaxPool": {1, 22},
    "Greater": {7, 9, 13},
    "GreaterOrEqual": {12, 16},
    "GridSample": {16, 20, 22},
    "GroupNormalization": {18, 21},
    "GRU": {7, 14, 22},
    "Hardmax": {1, 11, 13},
    "HardSigmoid": {6, 22},
    "Identity": {1, 13, 14, 16, 19, 21, 23, 24, 25},
    "InstanceNormalization": {6, 22},
    "IsInf": {10, 20},
    "IsNaN": {9, 13, 20},
    "LayerNormalization": {17},
    "Less": {7, 9, 13},
    "LessOrEqual": {12, 16},
    "LogSoftmax": {1, 11, 13},
    "LpNormalization": {1, 22},
    "LpPool": {2, 11, 18, 22},
    "LRN": {1, 13},
    "LSTM": {7, 14, 22},
    "MatMul": {1, 9, 13},
    "MatMulInteger": {10},
    "Max": {6, 8, 12, 13},
    "MaxPool": {1, 8, 10, 11, 12, 22},
    "Mean": {6, 8, 13},
    "MeanVarianceNormalization": {9, 13},
    "Min": {6, 8, 12, 13},
    "Mod": {10, 13},
    "Mul": {7, 13, 14},
    "Neg": {6, 13},
    "NonZero": {9, 13},
    "Not": {1},
    "OneHot": {9, 11},
    "Or": {7},
    "Pad": {2, 11, 13, 18, 19, 21, 23, 24, 25},
    "Pow": {7, 12, 13, 15},
    "PRelu": {7, 9, 16},
    "QLinearConv": {10},
    "QLinearMatMul": {10, 21},
    "QuantizeLinear": {10, 13, 19, 21, 23, 24, 25},
    "Range": {11},
    "ReduceL1": {1, 11, 13, 18},
    "ReduceL2": {1, 11, 13, 18},
    "ReduceLogSum": {1, 11, 13, 18},
    "ReduceLogSumExp": {1, 11, 13, 18},
    "ReduceMax": {1, 11, 12, 13, 18, 20},
    "ReduceMean": {1, 11, 13, 18},
    "ReduceMin": {1, 11, 12, 13, 18, 20},
    "ReduceProd": {1, 11, 13, 18},
    "ReduceSum": {1, 11, 13},
    "ReduceSumSquare": {1, 11, 13, 18},
    "Reshape": {5, 13, 14, 19, 21, 23, 24, 25},
    "Resize": {10, 11, 13, 18, 19},
    "RMSNormalization": {23},
    "RNN": {7, 14, 22},
    "Scatter": {9, 11},
    "ScatterElements": {11, 13, 16, 18},
    "ScatterND": {11, 13, 16, 18},
    "Shape": {1, 13, 15, 19, 21, 23, 24, 25},
    "Size": {1, 13, 19, 21, 23, 24, 25},
    "Slice": {1, 10, 11, 13},
    "Softmax": {1, 11, 13},
    "SpaceToDepth": {1, 13},
    "Split": {2, 11, 13, 18},
    "Squeeze": {1, 11, 13, 21, 23, 24, 25},
    "Sub": {7, 13, 14},
    "Sum": {6, 8, 13},
    "Tile": {6, 13},
    "TopK": {1, 10, 11, 24},
    "Transpose": {1, 13, 21, 23, 24, 25},
    "Trilu": {14},
    "Unsqueeze": {1, 11, 13, 21, 23, 24, 25},
    "Upsample": {7, 9},
    "Where": {9, 16},
    "Xor": {7},
}
# The same of other domains, of which every operator set up to the newest is taken for that.
_MOST_OTHER = 5
_OTHERS = {f"ai.onnx.ml.{op}": {1} for op in ("LinearClassifier", "LinearRegressor", "Normalizer", "Scaler")}
_KINDS = {f"tensor({name.lower()})": number for name, number in onnx.TensorProto.DataType.items()}
_NAMES = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}


def kind_name(kind: int) -> str:
    """An ONNX element type as files and messages call it."""
    return _NAMES.get(kind, f"number {kind}")


def full_name(node: onnx.NodeProto) -> str:
    """The operator with its domain, which is left out for the standard ones."""
    return node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"


def schema_of(node: onnx.NodeProto, version: int) -> onnx.defs.OpSchema:
    """The definition of a node's operator in an operator set. Raises UnsupportedError if krelax does not model it."""
    op, domain = full_name(node), "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, version if not domain else _MOST_OTHER, domain)
    except onnx.defs.SchemaError as error:
        raise UnsupportedError(f"operator set {version} has no operator {op}") from error
    if schema.since_version not in (ONNX[op].versions if op in ONNX else {**VERSIONS, **_OTHERS}[op]):
        raise UnsupportedError(
            f"{op} as operator set {schema.since_version} defines it; export with another operator set, such as 17"
        )
    return schema


def check_node(node: onnx.NodeProto, schema: onnx.defs.OpSchema, version: int) -> None:
    """Raises InputError for attributes, or numbers of operands and results, that the operator does not have."""
    names = [a.name for a in node.attribute]
    for name in names:
        if name not in schema.attributes:
            raise InputError(f"attribute {name!r}, which {node.op_type} does not have in operator set {version}")
    if len(set(names)) < len(names):
        raise InputError("an attribute that is given twice")
    for a in node.attribute:
        definition: Any = schema.attributes[a.name]
        wanted = onnx.AttributeProto.AttributeType.Value(definition.type.name)
        if a.ref_attr_name or a.type != wanted:
            raise InputError(f"attribute {a.name!r} has another type than ONNX gives it")
    context = onnx.checker.C.CheckerContext()
    context.ir_version = onnx.IR_VERSION
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    plain.domain = "" if node.domain == "ai.onnx" else node.domain
    context.opset_imports = {"": version} | ({plain.domain: _MOST_OTHER} if plain.domain else {})
    try:
        onnx.checker.check_node(plain, context)
    except onnx.checker.ValidationError as error:
        raise InputError(str(error).strip().splitlines()[0]) from error


def results(schema: onnx.defs.OpSchema, operands: Sequence[int | None], count: int) -> list[int | None]:
    """Element types of the first `count` results, None where an attribute says, from those of the operands (None where
    one is left out). Raises UnsupportedError for a type that it does not take there."""
    allowed = {c.type_param_str: [_KINDS.get(t) for t in c.allowed_type_strs] for c in schema.type_constraints}
    bound: dict[str, int] = {}
    for position, kind in enumerate(operands):
        if kind is None:
            continue
        name = schema.inputs[min(position, len(schema.inputs) - 1)].type_str
        if kind not in allowed.get(name, [_KINDS.get(name)]) or bound.setdefault(name, kind) != kind:
            raise UnsupportedError(f"operand {position} of type {kind_name(kind)}, which ONNX does not allow there")
    found: list[int | None] = []
    for position in range(count):
        name = schema.outputs[min(position, len(schema.outputs) - 1)].type_str
        fixed = allowed.get(name, [_KINDS.get(name)])
        found.append(bound.get(name, fixed[0] if len(fixed) == 1 else None))
    return found
