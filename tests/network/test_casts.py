"""Whole numbers that a narrower type does not hold wrap around: nothing is proven of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from tests.certificate.proofs import as_file

from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.certificate.errors import Rejected
from krelax.certificate.kernel.arithmetic import Float64, Floats
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.region import Region
from krelax.certificate.onnx.reader import read_network
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries
from krelax.problem.region import Box


def cast_twice() -> bytes:
    """`5e9 relu(x - 3)` as int64, and then as int32: beyond that where x is more than 3.43."""
    constants = [numpy_helper.from_array(np.float32(v), n) for n, v in (("three", 3), ("many", 5e9))]
    nodes = [
        helper.make_node("Sub", ["x", "three"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("Mul", ["r", "many"], ["m"]),
        helper.make_node("Cast", ["m"], ["long"], to=7),
        helper.make_node("Cast", ["long"], ["short"], to=6),
        helper.make_node("Cast", ["short"], ["y"], to=1),
    ]
    return as_file(nodes, constants, (1, 2), "y")


@pytest.mark.parametrize(("ends", "fits"), [((3.1, 3.2), True), ((3.4, 3.5), False)])
def test_int64_is_int32_only_where_that_holds_it(ends: tuple[float, float], fits: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(cast_twice())
    lower, upper = (np.full((1, 2), end) for end in ends)
    network, one = load_onnx(path), torch.ones(1, 1).double()
    region = Box(*(torch.from_numpy(end)[None] for end in (lower, upper)))
    queries = Queries(torch.ones(1, 1, 2).double(), 0 * one, 0 * one.long(), 1)
    value = float(bound(Instance.of(network, region), queries, METHODS["crown"]).value)
    assert np.isfinite(value) == fits
    assert not fits or 9e8 < value < 1e9
    assert accepted(lower, upper) == fits


def accepted(lower: Floats, upper: Floats) -> bool:
    """Whether the checker bounds the network over a box."""
    read = read_network(cast_twice())
    bounds = LayerBounds.of(read, Region(lower, upper), Float64(), False)
    try:
        while len(bounds.lower) < len(read.nodes):
            bounds = bounds.advanced()
    except Rejected:
        return False
    return True
