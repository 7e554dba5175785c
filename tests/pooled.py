"""Small networks with maxima over windows, as files, over boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import helper, numpy_helper
from tests.certificate.proofs import as_file
from tests.curved import Problem

from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries
from krelax.problem.region import Box


def pooled(
    path: Path,
    seed: int,
    kernel: int = 3,
    stride: int = 3,
    pad: int = 0,
    relu: bool = True,
    order: tuple[int, ...] | None = None,
) -> Problem:
    """Three inputs, a dense layer of 6 or 9, of which entries may be taken in an order, some of them twice, a pool, a
    layer of three ReLUs and one margin."""
    rng, size, wide = np.random.default_rng(seed), 3, 9 if kernel == 3 else 6
    order = order or tuple(range(wide))
    windows = (len(order) + 2 * pad - kernel) // stride + 1
    constants, nodes, name = list[Any](), list[Any](), "x"

    def dense(rows: int, columns: int, tag: str) -> None:
        nonlocal name
        numbers = (("w", rng.normal(0, 2 / columns**0.5, (rows, columns))), ("b", rng.normal(0, 0.4, rows)))
        constants.extend(numpy_helper.from_array(t.astype(np.float32), f"{n}{tag}") for n, t in numbers)
        nodes.append(helper.make_node("Gemm", [name, f"w{tag}", f"b{tag}"], [f"z{tag}"], transB=1))
        name = f"z{tag}"

    dense(wide, size, "0")
    if relu:
        nodes.append(helper.make_node("Relu", [name], ["a0"]))
        name = "a0"
    constants += [
        numpy_helper.from_array(np.array(s, np.int64), n)
        for n, s in (("wide", [1, 1, -1]), ("flat", [1, -1]), ("o", order))
    ]
    nodes += [
        helper.make_node("Reshape", [name, "wide"], ["r"]),
        helper.make_node("Gather", ["r", "o"], ["t"], axis=2),
        helper.make_node("MaxPool", ["t"], ["p"], kernel_shape=[kernel], strides=[stride], pads=[pad, pad]),
        helper.make_node("Reshape", ["p", "flat"], ["f"]),
    ]
    name = "f"
    dense(3, windows, "1")
    nodes.append(helper.make_node("Relu", [name], ["a1"]))
    name = "a1"
    dense(1, 3, "2")
    path.write_bytes(as_file(nodes, constants, (1, size), name))
    box = Box(*(torch.full((1, 1, size), side).double() for side in (-1.0, 1.0)))
    rows = torch.ones(1, 1, 1).double()
    return Problem(path, load_onnx(path), box, Queries(rows, torch.zeros(1, 1).double(), torch.zeros(1, 1).long(), 1))
