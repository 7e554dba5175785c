"""Numbers of element types, against NumPy's own types, and what is computed with whole ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from tests.run.files import model, node, save, tensor

from krelax.elements import WHOLE, Elements
from krelax.errors import InputError, UnsupportedError
from krelax.network.graph import Builder, as_elements
from krelax.network.onnx import load_onnx
from krelax.network.onnx_ranges import to_half
from krelax.search.whole import outputs

OWN: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}


@pytest.mark.parametrize("name", OWN)
@settings(deadline=None)
@given(st.floats(allow_nan=False, width=64) | st.floats(-70000, 70000))
def test_neighbours_in_a_type_are_its_own_numbers_with_none_between(name: str, x: float) -> None:
    elements = Elements((name,))
    down, up, near = (elements.rounded(np.array([x]), way)[0] for way in ("down", "up", "nearest"))  # type: ignore[arg-type]
    assert down <= x <= up
    assert near in {down, up}
    for value in (down, up):
        assert float(np.float64(value).astype(np.float32).astype(OWN[name])) == value
    if np.isfinite([down, up]).all():
        assert abs(near - x) == min(abs(down - x), abs(up - x))
        assert down == up or float(np.nextafter(OWN[name](down), OWN[name](np.inf))) == up


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_end_where_their_type_does(name: str) -> None:
    low, high = WHOLE[name]
    elements, x = Elements((name,)), np.array([low - 1.5, low, 0.5, float(high), 4.0 * high + 3])
    down, near, up = (elements.rounded(x, way) for way in ("down", "nearest", "up"))  # type: ignore[arg-type]
    most = [int(v) for v in (near[-1], down[-1], down[3])]
    assert len(set(most)) == 1
    assert high - 2**11 < most[0] <= high
    assert (near[0], up[0], near[1]) == (low, low, low)
    assert (down[2], near[2], up[2]) == (0, 0, 1)
    assert up[-1] == np.inf
    with pytest.raises(ValueError, match=f"numbers that {name} does not hold"):
        as_elements(np.array([0.5]), elements)
    with pytest.raises(ValueError, match="does not hold"):
        as_elements(np.array([4.0 * high + 3]), elements)


def test_entries_that_are_equal_are_numbers_of_both_types() -> None:
    elements = Elements.joined([("int8", 2), ("float32", 1), ("float64", 1)])
    assert elements.whole(4).tolist() == [True, True, False, False]
    assert elements.holder is np.float64
    merged = elements.merged([0, 1, 1, 2])
    assert merged.kinds(3) == ["int8", "int8 in float32", "float64"]
    assert merged.rounded(np.array([0.4, 0.6, 0.1]), "nearest").tolist() == [0, 1, 0.1]
    with pytest.raises(UnsupportedError, match="float16 that equals one of type bfloat16"):
        Elements.joined([("float16", 1), ("bfloat16", 1)]).merged([0, 0])


def test_casts_to_half_precision_are_those_of_numpy() -> None:
    """Between its numbers, halfway, and where it has few digits."""
    rng = np.random.default_rng(0)
    halves = rng.integers(0, 0x7BFF, 400).astype(np.uint16).view(np.float16).astype(np.float64)
    above = np.nextafter(halves.astype(np.float16), np.float16(np.inf)).astype(np.float64)
    x = np.concatenate([halves, (halves + above) / 2, halves + (above - halves) * rng.random(400)])
    x = np.concatenate([x, -x, [0.0, 65504.0, 2.0**-25, 3 * 2.0**-25]])
    builder = Builder((1,))
    network = builder.build(to_half(builder, 0))
    found = network(torch.from_numpy(x[:, None]))[:, 0].numpy()
    np.testing.assert_array_equal(found, x.astype(np.float16).astype(np.float64))
    with pytest.raises(UnsupportedError, match="a cast of 2000 numbers to float16, which rounds"):
        to_half(Builder((2000,)), 0)


@pytest.mark.parametrize("scale", [0.5, 0.1])
def test_outputs_are_on_the_grid_that_they_are_said_to_be_on(tmp_path: Path, scale: float) -> None:
    """Of whole inputs: a multiple of the last bit of a float32 weight, if it is that of 0.1."""
    nodes = [node("Cast", "x", "z", to=TensorProto.FLOAT), node("Gemm", "z", "w", "b", "a", transB=1)]
    nodes += [node("Relu", "a", "r"), node("ReduceMax", "r", "m", keepdims=1), node("Mul", "m", "m", "y")]
    constants = {"w": np.asarray([[scale, 2], [1, -4]], np.float32), "b": np.asarray([0.25, 3], np.float32)}
    ends = [tensor("x", [1, 2], TensorProto.INT16)], [tensor("y", [1, 1])]
    network = load_onnx(save(model(nodes, constants, *ends), tmp_path / "model.onnx"))
    grid = outputs(network).item()
    assert grid == (-4 if scale == 0.5 else -54)
    y = network(torch.from_numpy(np.random.default_rng(0).integers(-99, 99, (50, 1, 2)).astype(float)))
    if scale == 0.5:
        assert bool((y * 16 == (y * 16).round()).all())


REFUSED = {
    "a quotient of two inputs": ([node("Div", "x", "x", "y")], {}, "divide by a constant"),
    "division by zero": ([node("Div", "x", "c", "y")], {"c": np.int32([1, 0])}, "division by zero"),
    "a mean": ([node("ReduceMean", "x", "y", keepdims=1)], {}, "ReduceMean with a result of type int32"),
    "a large power": ([node("Pow", "x", "c", "y")], {"c": np.int32([9, 1])}, "powers of whole numbers other than"),
    "a shift": ([node("BitwiseAnd", "x", "c", "y")], {"c": np.int32([1, 1])}, "BitwiseAnd is not supported"),
    "a large constant": ([node("Add", "x", "c", "y")], {"c": np.int64([2**60, 1])}, "operand 1 of type int64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_of_whole_numbers_is_named(tmp_path: Path, name: str) -> None:
    nodes, constants, reason = REFUSED[name]
    ends = [tensor("x", [2], TensorProto.INT32)], [tensor("y", None, TensorProto.INT32)]
    with pytest.raises(InputError, match=reason):
        load_onnx(save(model(nodes, constants, *ends, opset=18), tmp_path / "model.onnx"))
