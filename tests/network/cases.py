"""One operator alone in a model, and whether what krelax reads computes what ONNX Runtime computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from tests.run.files import Shape, model, node, save, tensor

from krelax.network.graph import Network
from krelax.network.onnx import load_onnx

X = object()  # the network's input among the operands of a node


def agrees(proto: onnx.ModelProto, folder: Path) -> Network:
    """Import the model and compare it with ONNX Runtime at inputs that leave every operator's trivial range."""
    network = load_onnx(save(proto, folder / "model.onnx"))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    kind = np.float64 if "double" in session.get_inputs()[0].type else np.float32
    x = 2 * np.random.default_rng(7).standard_normal((4, *network.input_shape)).astype(np.float32)
    theirs = np.stack([session.run(None, {session.get_inputs()[0].name: np.asarray(sample, kind)})[0] for sample in x])
    ours = network(torch.from_numpy(x).double()).numpy()
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    return network


def weights(*shape: int, seed: int = 0) -> Any:
    """Float32 constants of both signs."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Any:
    return np.abs(weights(*shape)) + np.float32(0.5)


@dataclass
class Case:
    """One operator with its operands: `X` is the network's input, None is left out, the rest are constants."""

    op: str
    operands: Sequence[Any] = (X,)
    shape: Shape = (1, 4)
    opset: int = 17
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [f"{k}={v}".replace(" ", "") for k, v in self.attributes.items()]
        sizes = ["x" if o is X else "-" if o is None else "x".join(map(str, np.shape(o))) for o in self.operands]
        return f"{self.op}-{self.opset}({' '.join([*sizes, *words])})"

    def model(self) -> onnx.ModelProto:
        names = ["x" if o is X else "" if o is None else f"c{i}" for i, o in enumerate(self.operands)]
        constants = {name: o for name, o in zip(names, self.operands, strict=True) if name.startswith("c")}
        return model(
            [node(self.op, *names, "y", **self.attributes)], constants, [tensor("x", self.shape)], opset=self.opset
        )


def case(op: str, *operands: Any, shape: Shape = (1, 4), opset: int = 17, **attributes: Any) -> Case:
    return Case(op, operands or (X,), shape, opset, attributes)


def integers(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


SQUARE, LINE, CUBE = (1, 2, 6, 6), (1, 2, 9), (1, 2, 4, 5, 4)
