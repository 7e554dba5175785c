"""Quantised operators, each with what is quantised around it: both readers are tried on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from tests.network.cases import weights
from tests.run.files import model, node, tensor

_SCALE, _SCALES = np.float32(0.0625), np.array([0.03, 0.11], np.float32)


def whole(*shape: int, low: int = -127, high: int = 127, seed: int = 3, kind: Any = np.int8) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(low, high, shape, endpoint=True).astype(kind)


def _there_and_back(
    scale: Any, zero: Any, shape: tuple[int, ...] = (1, 2, 3), opset: int = 21, **more: Any
) -> ModelProto:
    constants = {"s": scale} | ({} if zero is None else {"z": zero})
    operands = ["s"] if zero is None else ["s", "z"]
    nodes = [node("QuantizeLinear", "x", *operands, "q", **more), node("DequantizeLinear", "q", *operands, "y", **more)]
    return model(nodes, constants, [tensor("x", shape)], opset=opset)


def _convolved(op: str, zero: int, *per_channel: bool) -> ModelProto:
    """A convolution of whole numbers, back in float32."""
    scales = np.array([0.01, 0.02], np.float32) if per_channel else np.float32(0.01)
    points = np.zeros(2, np.int8) if per_channel else np.int8(0)
    constants = {"s": _SCALE, "z": np.uint8(zero), "w": whole(2, 2, 3, 3), "ws": scales, "wz": points}
    nodes = [node("QuantizeLinear", "x", "s", "z", "q")]
    pads: dict[str, Any] = {"pads": [1, 1, 1, 1]}
    if op == "ConvInteger":
        nodes += [node(op, "q", "w", "z", "n", **pads), node("Cast", "n", "f", to=1), node("Mul", "f", "s", "y")]
    else:
        constants |= {"ys": np.float32(0.25), "yz": np.uint8(70), "b": whole(2, low=-90, high=90, kind=np.int32)}
        nodes += [node(op, "q", "s", "z", "w", "ws", "wz", "ys", "yz", "b", "n", **pads)]
        nodes += [node("MaxPool", "n", "m", kernel_shape=[2, 2]), node("DequantizeLinear", "m", "ys", "yz", "y")]
    return model(nodes, constants, [tensor("x", (1, 2, 4, 4))], opset=13)


def _multiplied(op: str) -> ModelProto:
    constants = {"s": _SCALE, "z": np.uint8(130), "w": whole(4, 3), "ws": np.float32(0.02), "wz": np.int8(3)}
    nodes = [node("QuantizeLinear", "x", "s", "z", "q")]
    if op == "MatMulInteger":
        nodes += [node(op, "q", "w", "z", "wz", "n"), node("Cast", "n", "f", to=1), node("Mul", "f", "s", "y")]
    else:
        constants |= {"ys": np.float32(0.5), "yz": np.uint8(100)}
        nodes += [
            node(op, "q", "s", "z", "w", "ws", "wz", "ys", "yz", "n"),
            node("DequantizeLinear", "n", "ys", "yz", "y"),
        ]
    return model(nodes, constants, [tensor("x", (2, 4))], opset=13)


def _weights_in_the_graph() -> ModelProto:
    """Weights that are quantised and dequantised in the file, as exporters of fake quantisation write them."""
    constants = {"w": weights(4, 3), "s": np.float32(0.017), "z": np.int8(0)}
    nodes = [
        node("QuantizeLinear", "w", "s", "z", "q"),
        node("DequantizeLinear", "q", "s", "z", "d"),
        node("MatMul", "x", "d", "y"),
    ]
    return model(nodes, constants, [tensor("x", (2, 4))], opset=13)


QUANTISED: dict[str, ModelProto] = {
    "uint8": _there_and_back(_SCALE, np.uint8(10)),
    "uint8 by default": _there_and_back(_SCALE, None),
    "int8, odd zero": _there_and_back(np.float32(0.013), np.int8(-3)),
    "int16": _there_and_back(np.float32(0.0001), np.int16(5)),
    "channels": _there_and_back(_SCALES, np.array([2, -4], np.int8), axis=1),
    "channels of the last axis": _there_and_back(_SCALES, np.zeros(2, np.uint8), (1, 3, 2), axis=-1),
    "ConvInteger": _convolved("ConvInteger", 128),
    "QLinearConv": _convolved("QLinearConv", 17),
    "QLinearConv, channels": _convolved("QLinearConv", 128, True),
    "MatMulInteger": _multiplied("MatMulInteger"),
    "QLinearMatMul": _multiplied("QLinearMatMul"),
    "weights": _weights_in_the_graph(),
}  # fmt: skip
