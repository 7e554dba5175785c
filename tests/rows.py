"""A network over the rows of a table, each by itself until they are added up: few entries vary with one number."""

from __future__ import annotations

import numpy as np
from tests.run.files import model, node, tensor

ROWS, COLUMNS = 4, 3


def rows_model(seed: int = 0) -> bytes:
    """Two layers for each row, weighed by its last column; the sum over all rows goes through a layer of two."""
    rng = np.random.default_rng(seed)
    weights = {
        "a": rng.normal(size=(COLUMNS, 6)),
        "b": rng.normal(size=6),
        "c": rng.normal(size=(6, 5)),
        "d": rng.normal(size=(5, 4)),
        "e": rng.normal(size=(4, 2)),
    }
    constants = {name: value.astype(np.float32) for name, value in weights.items()}
    constants |= {name: np.array([value]) for name, value in {"two": 2, "three": 3, "one": 1}.items()}
    nodes = [
        node("MatMul", "x", "a", "1"),
        node("Add", "1", "b", "2"),
        node("Relu", "2", "3"),
        node("MatMul", "3", "c", "4"),
        node("Tanh", "4", "5"),
        node("Slice", "x", "two", "three", "two", "6"),
        node("Mul", "5", "6", "7"),
        node("ReduceSum", "7", "one", "8", keepdims=0),
        node("MatMul", "8", "d", "9"),
        node("Relu", "9", "10"),
        node("MatMul", "10", "e", "y"),
    ]
    return bytes(model(nodes, constants, [tensor("x", [1, ROWS, COLUMNS])]).SerializeToString())
