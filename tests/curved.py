"""Small dense networks of curved activations, as files, over boxes, and their margins at many inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from onnx import helper, numpy_helper
from tests.certificate.proofs import as_file
from torch import Tensor

from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries
from krelax.problem.region import Box


@dataclass(frozen=True, eq=False)
class Problem:
    """A network in a file, a box and margins."""

    path: Path
    network: Network
    box: Box
    queries: Queries

    def inputs(self, count: int, seed: int = 0) -> Tensor:
        """Random inputs of the box, corners among them."""
        draw = torch.Generator().manual_seed(seed)
        share = torch.rand(count, *self.network.input_shape, generator=draw).double()
        share[: count // 4] = share[: count // 4].round()
        return self.box.lower + share * (self.box.upper - self.box.lower)

    def moved(self, offset: float) -> Problem:
        """With so much added to all margins."""
        rows, offsets, clause, clauses = self.queries.rows, self.queries.offsets, self.queries.clause, 1
        return Problem(self.path, self.network, self.box, Queries(rows, offsets + offset, clause, clauses))

    def margins(self, x: Tensor) -> Tensor:
        """The margins at inputs, `(inputs, margins)`."""
        return self.network(x).flatten(1) @ self.queries.rows[0].T + self.queries.offsets


def problem(path: Path, seed: int, kinds: str, width: int = 4, inputs: int = 3, radius: float = 1.0) -> Problem:
    """Activations of the kinds s (sigmoid), t (tanh), r (ReLU), a layer for each, and one margin of one output."""
    rng, name, nodes, constants, size = np.random.default_rng(seed), "x", [], [], inputs
    for layer, kind in enumerate([*kinds, ""]):
        out = width if kind else 1
        weight, bias = rng.normal(0, 2 / size**0.5, (out, size)), rng.normal(0, 0.4, out)
        numbers = (("w", weight), ("b", bias))
        constants += [numpy_helper.from_array(t.astype(np.float32), f"{n}{layer}") for n, t in numbers]
        nodes.append(helper.make_node("Gemm", [name, f"w{layer}", f"b{layer}"], [f"z{layer}"], transB=1))
        name, size = f"z{layer}", out
        if kind:
            op = {"s": "Sigmoid", "t": "Tanh", "r": "Relu"}[kind]
            nodes.append(helper.make_node(op, [name], [f"a{layer}"]))
            name = f"a{layer}"
    path.write_bytes(as_file(nodes, constants, (1, inputs), name))
    box = Box(*(torch.full((1, 1, inputs), side * radius).double() for side in (-1, 1)))
    rows = torch.ones(1, 1, 1).double()
    return Problem(path, load_onnx(path), box, Queries(rows, torch.zeros(1, 1).double(), torch.zeros(1, 1).long(), 1))
