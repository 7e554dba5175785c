"""Evaluates an ONNX file itself, in its own types: with ONNX Runtime, or, where that has not implemented an operator in
its type, with ONNX's own reference implementation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from krelax.elements import Elements
from krelax.errors import InputError
from krelax.network.graph import Replay, as_elements
from krelax.network.onnx_file import first_line

Feeds = Callable[[NDArray[Any]], dict[str, NDArray[Any]]]


# The values of some tensors, from those of all inputs by name.
Runner = Callable[[dict[str, NDArray[Any]]], list[NDArray[Any]]]


def replay_of(
    model: onnx.ModelProto, path: Path, source: Path | bytes, feeds: Feeds, tensor: str, elements: Elements
) -> Replay:
    """Values of a tensor of the model in the file `path`, whose content is `source`; the session is made at the first
    call. Of a tensor that is not the only output, the model is run up to there."""
    run = runner_of(model, path, source, [tensor])

    def replay(x: NDArray[Any]) -> NDArray[Any]:
        return run(feeds(as_elements(x, elements)))[0]

    return replay


def runner_of(model: onnx.ModelProto, path: Path, source: Path | bytes, tensors: Sequence[str]) -> Runner:
    """As `replay_of`, for several tensors."""
    sessions: list[Any] = []

    def run(feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        if not sessions:
            sessions.append(_session(path, model, tensors, source))
        session = sessions[0]
        wanted = {given if isinstance(given, str) else given.name for given in _inputs_of(session)}
        try:
            found = session.run(list(tensors), {name: x for name, x in feeds.items() if name in wanted})
        except Exception as error:  # both raise types of their own
            raise InputError(
                f"{path}: {_name_of(session)} cannot evaluate the network ({first_line(error)})"
            ) from error
        return [_known(np.asarray(value)) for value in found]

    return run


def _known(values: NDArray[Any]) -> NDArray[Any]:
    """The values, with NaN for whole numbers that float64 does not have, of which nothing can be said that is exact."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8:
        return values
    near = values.astype(np.float64)
    # a number next to the largest one cannot be turned back
    inside = np.abs(near) < 2.0**63
    exact = np.where(inside, near, 0.0).astype(values.dtype) == np.where(inside, values, 0)
    kept = exact & inside
    return values if kept.all() else np.where(kept, near, np.nan)


def _inputs_of(session: Any) -> Sequence[Any]:
    return session.input_names if hasattr(session, "input_names") else session.get_inputs()


def _name_of(session: Any) -> str:
    return "ONNX's reference implementation" if hasattr(session, "input_names") else "ONNX Runtime"


def _session(path: Path, model: onnx.ModelProto, tensors: Sequence[str], source: Path | bytes) -> Any:
    """What runs the model as far as these tensors."""
    given = _up_to(model, tensors, source)
    kinds = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    if onnx.TensorProto.BFLOAT16 not in kinds:  # which ONNX Runtime does not take from NumPy
        try:
            return _fast_session(path, given)
        except NotImplementedError:
            pass
    from onnx.reference import ReferenceEvaluator

    try:
        return ReferenceEvaluator(given)
    except Exception as error:
        raise InputError(f"{path}: ONNX's reference implementation cannot run it ({first_line(error)})") from error


def _up_to(model: onnx.ModelProto, tensors: Sequence[str], source: Path | bytes) -> str | bytes:
    """What is run: the file as it is, or the model with other outputs."""
    if {o.name for o in model.graph.output} == set(tensors):
        return source if isinstance(source, bytes) else _text(source)
    other = onnx.ModelProto()
    other.CopyFrom(model)
    own = [o for o in model.graph.output if o.name in tensors]
    declared = {o.name for o in own}
    del other.graph.output[:]
    other.graph.output.extend(
        [*own, *(onnx.ValueInfoProto(name=t) for t in dict.fromkeys(tensors) if t not in declared)]
    )
    return other.SerializeToString()


def _runtime() -> Any:
    """ONNX Runtime, that sends nothing and gives the machine no identity: builds of others do both by default."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # looked at when it is imported
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # where it was imported before
    return onnxruntime


def _fast_session(path: Path, given: str | bytes) -> Any:
    """A session of ONNX Runtime. Raises NotImplementedError if it knows an operator, but not in that type."""
    onnxruntime = _runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # weights that are dequantised would be multiplied as integers, and activations rounded that the file does not round
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:  # without the fallback, which prints
        return onnxruntime.InferenceSession(given, options, ["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error):
            raise NotImplementedError from error
        raise InputError(f"{path}: ONNX Runtime cannot run the file ({first_line(error)})") from error


def _text(path: Path) -> str:
    """A path as ONNX Runtime takes it."""
    try:
        return str(path).encode().decode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: a path that is not UTF-8, which ONNX Runtime does not open; rename it") from error
