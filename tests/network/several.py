"""Operators with several results, or that need others around them: both readers are tried on them. The shape of the
input, the nodes from x to y, their constants, and the operator set."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper
from tests.network.cases import integers
from tests.run.files import node

SEVERAL: dict[str, tuple[list[int], list[Any], dict[str, Any], int]] = {
    "top k": ([2, 5], [helper.make_node("TopK", ["x", "k"], ["y", "i"], axis=1)], {"k": integers(3)}, 17),
    "top k, smallest": ([7], [helper.make_node("TopK", ["x", "k"], ["y", "i"], largest=0)], {"k": integers(7)}, 17),
    **{op: ([2, 4], [node(op, "x", "i", axis=1), node("Cast", "i", "y", to=1)], {}, 17) for op in ("ArgMax", "ArgMin")},
    "place of the last": ([2, 4], [node("ArgMax", "x", "i", axis=0, keepdims=0, select_last_index=1),
                                   node("Cast", "i", "y", to=1)], {}, 17),
    "acosh": ([2, 3], [node("Exp", "x", "t"), node("Add", "t", "one", "u"), node("Acosh", "u", "y")],
              {"one": np.float32(1)}, 17),
    "power of two": ([2, 3], [node("Exp", "x", "t"), node("Pow", "t", "x", "y")], {}, 17),
    "casts to whole numbers": ([2, 3], [
        node("Mul", "x", "k", "t"), node("Cast", "t", "i", to=7), node("Cast", "i", "y", to=1)],
        {"k": np.float32(5)}, 17),
    "a cast to truths": ([2, 3], [
        node("Relu", "x", "t"), node("Cast", "t", "b", to=9), node("Cast", "b", "y", to=1)], {}, 17),
    "quantised by its own range": ([2, 3], [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", "q", "w", "z", "v", "p"), node("Cast", "p", "f", to=1), node("Mul", "f", "s", "y")],
        {"w": np.arange(-5, 7, dtype=np.int8).reshape(3, 4), "v": np.int8(0)}, 17),
    "guard against no number": ([2, 3], [
        node("Softmax", "x", "t", axis=1), node("IsNaN", "t", "n"), node("Where", "n", "zero", "t", "y")],
        {"zero": np.float32(0)}, 17),
    "a causal mask": ([2, 3, 3], [node("Add", "x", "m", "t"), node("Softmax", "t", "y", axis=-1)],
                      {"m": np.triu(np.full((3, 3), -np.inf, np.float32), 1)}, 17),
    "a mask by choice": ([2, 3], [
        node("Where", "b", "least", "x", "t"), node("Softmax", "t", "y", axis=1)],
        {"b": np.array([[True, False, False], [False, True, False]]), "least": np.float32(-np.inf)}, 17),
    "a mask that is computed": ([2, 3, 3], [
        node("Where", "b", "zero", "least", "m"), node("Unsqueeze", "m", "axes", "n"), node("Cast", "n", "o", to=1),
        node("Add", "x", "o", "t"), node("Softmax", "t", "y", axis=-1)],
        {"b": np.tril(np.ones((3, 3), bool)), "zero": np.float32(0), "least": np.float32(-np.inf),
         "axes": integers(0)}, 17),
    "like another": ([2, 3], [node("CastLike", "x", "i", "t"), node("CastLike", "t", "x", "y")],
                     {"i": integers(1)}, 17),
    "windows of one": ([1, 2, 3], [
        helper.make_node("MaxPool", ["x"], ["t"], kernel_shape=[1], strides=[1]), node("Relu", "t", "r"),
        node("Concat", "t", "r", "y", axis=-1)], {}, 17),
    "guard against infinity": ([2, 3], [node("IsInf", "x", "n"), node("Where", "n", "zero", "x", "y")],
                               {"zero": np.float32(0)}, 17),
}  # fmt: skip
