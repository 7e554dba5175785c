"""How far functions of ONNX Runtime and PyTorch are off, in the units of `--semantics float32:N`.

    python benchmarks/units.py

Prints the largest error that is found for some millions of arguments in each function's range, for the table in
docs/certificates.md: in units of 2**-23 times the exact value, or of 2**-23 where that is below one. Needs scipy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before it is imported

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from scipy import special

Function = Callable[[Any], Any]

_COUNT = 4_000_000
# Exact to float64, the range of arguments, and PyTorch's.
FUNCTIONS: dict[str, tuple[Function, float, float, Function]] = {
    "Sigmoid": (special.expit, -100, 100, torch.sigmoid),
    "Tanh": (np.tanh, -100, 100, torch.tanh),
    "Exp": (np.exp, -100, 80, torch.exp),
    "Log": (np.log, 1e-30, 1e10, torch.log),
    "Sin": (np.sin, -1000, 1000, torch.sin),
    "Cos": (np.cos, -1000, 1000, torch.cos),
    "Atan": (np.arctan, -1e4, 1e4, torch.atan),
    "Erf": (special.erf, -10, 10, torch.erf),
    "Softplus": (lambda z: np.logaddexp(z, 0), -100, 100, lambda t: torch.logaddexp(t, torch.zeros(()))),
    "Elu": (lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), -100, 100, F.elu),
    "Gelu": (lambda z: z * special.ndtr(z), -20, 20, F.gelu),
    "Mish": (lambda z: z * np.tanh(np.logaddexp(z, 0)), -50, 50, F.mish),
    "HardSwish": (lambda z: z * np.clip(z / 6 + 0.5, 0, 1), -50, 50, F.hardswish),
    "Sqrt": (np.sqrt, 0, 1e10, torch.sqrt),
    "Reciprocal": (lambda z: 1 / z, 1e-3, 1e6, torch.reciprocal),
}


def arguments(low: float, high: float) -> Any:
    """Half of them uniform, half of all sizes and both signs."""
    rng, most = np.random.default_rng(0), np.log10(max(-low, high))
    sizes = rng.choice([-1.0, 1.0], _COUNT // 2) * 10 ** rng.uniform(-8, most, _COUNT // 2)
    x = np.concatenate([rng.uniform(low, high, _COUNT // 2), sizes]).astype(np.float32)
    return x[(x >= low) & (x <= high)]


def units(found: Any, exact: Any) -> float:
    return float(np.max(np.abs(found.astype(np.float64) - exact) / np.maximum(1, np.abs(exact))) * 2**23)


def by_runtime(operator: str, x: Any) -> Any:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "one", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def main() -> None:
    print("| | ONNX Runtime | PyTorch |\n|---|---|---|")
    for operator, (function, low, high, other) in FUNCTIONS.items():
        x = arguments(low, high)
        exact = function(x.astype(np.float64))
        ours = units(by_runtime(operator, x), exact), units(other(torch.from_numpy(x)).numpy(), exact)
        print(f"| {operator} | {ours[0]:.1f} | {ours[1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
