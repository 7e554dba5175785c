"""Four readers of an ONNX file: what each computes at a point, or that it refuses."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx.reference import ReferenceEvaluator
from tests.certificate.values import evaluate, evaluate_exactly

import krelax
from krelax.certificate.onnx.graph import parse
from krelax.certificate.onnx.reader import read_network
from krelax.errors import KrelaxError

logging.getLogger("onnx").setLevel(logging.ERROR)
OFF = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
ON = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def checker(data: bytes) -> tuple[Any, Any] | None:
    """The checker's network, and what it has read; None if it refuses. Nothing but KrelaxErrors may be raised."""
    try:
        return read_network(data), parse(data)
    except KrelaxError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return None


def values(network: Any, x: Any) -> Any:
    """The checker's outputs."""
    with np.errstate(all="ignore"):
        return evaluate(network, x.reshape(1, -1).astype(np.float64))[-1][0]


def runtime(data: bytes, x: Any, level: Any = OFF, flush: bool = False) -> Any:
    """What ONNX Runtime computes; None if it refuses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.graph_optimization_level = 1, 4, level
    if flush:
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    try:
        session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
        return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0]).reshape(-1)
    except Exception:  # its own types
        return None


def reference(data: bytes, x: Any) -> Any:
    """What the reference implementation computes; None if it refuses."""
    try:
        model = onnx.load_from_string(data)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})
            return np.asarray(found[0]).reshape(-1)
    except Exception:  # whatever NumPy raises
        return None


def importer(data: bytes, x: Any) -> Any:
    """What krelax's own network computes; None if it refuses."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(data)
        try:
            network = krelax.load_onnx(path, check=False)
        except KrelaxError:
            return None
        point = torch.from_numpy(x.astype(np.float64)).reshape(1, *network.input_shape)
        return network.values(point)[-1].flatten().numpy()


def agree(mine: Any, theirs: Any) -> bool:
    """Whether values are the same but for rounding."""
    if mine.shape != theirs.shape:
        return False
    theirs = theirs.astype(np.float64)
    if not np.isfinite(theirs).all():  # float32 overflows, real numbers do not
        return True
    return bool(np.allclose(mine, theirs, rtol=1e-4, atol=1e-4 * max(1.0, float(abs(theirs).max(initial=0)))))


_DOUBTFUL = {
    "GlobalMaxPool",
    "MaxPool",
    "BatchNormalization",
    "ConvTranspose",
    "LRN",
    "QLinearConv",
    "QLinearMatMul",
    "Resize",
}


def _doubtful(graph: Any) -> bool:
    """Whether the reference implementation has faults here that ONNX Runtime does not share: global maxima, maxima with
    SAME or uneven padding, normalisation before version 14 and over channels, softmax and hardmax before version 13,
    transposed convolutions of groups with a bias, operators on whole numbers that round, and sizes that are no whole
    numbers."""
    if graph.version < 13 and {call.op for call in graph.calls} & {"Softmax", "LogSoftmax", "Hardmax"}:
        return True
    return bool({call.op for call in graph.calls} & _DOUBTFUL)


def disagreements(data: bytes, rng: np.random.Generator, others: bool = True) -> list[str]:
    """Which readers compute something else than the checker; first of all "accepted", and nothing if it refuses. A file
    that nobody else reads is "unread"."""
    read = checker(data)
    if read is None:
        return []
    network, graph = read
    x = rng.uniform(-2, 2, graph.shape).astype(graph.inputs[0].dtype)
    mine = values(network, x)
    theirs = {"runtime": runtime(data, x), "runtime, optimised": runtime(data, x, ON), "reference": None}
    if not _doubtful(graph):
        theirs["reference"] = reference(data, x)
    found = ["accepted"]
    if all(y is None for y in theirs.values()):
        found.append("unread")
    if others:
        theirs["importer"] = importer(data, x)
    others_say = {name: y for name, y in theirs.items() if y is not None}
    if not all(agree(mine, y) for y in others_say.values()):
        # numbers as large as a clip's bounds may have cancelled
        exact = evaluate_exactly(network, x.reshape(1, -1).astype(np.float64))
        mine = mine if exact is None else exact[0]
    return found + [name for name, y in others_say.items() if not agree(mine, y)]
