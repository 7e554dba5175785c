"""What goes through a bottleneck is cut in the place of inputs, and never proves more than is true."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from tests.certificate.proofs import as_file
from tests.exact_cells import least_margin
from tests.marks import at_night_after
from torch import Tensor

from krelax.activations import ReLU
from krelax.bounds.methods import METHODS
from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.schema import Boxes, Certificate, Question, Region
from krelax.network.bottleneck import behind, bottleneck
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Dense
from krelax.network.onnx import load_onnx
from krelax.network.ops import Reshape
from krelax.problem.queries import Queries
from krelax.problem.region import Box, ball
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict

GRID = 2.0**-6
ONLY = Plan((METHODS["interval"], Complete(("bottleneck",))))


def numbers(generator: torch.Generator, *shape: int) -> Tensor:
    """On a grid, which keeps exact arithmetic short."""
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) / GRID).round() * GRID


def narrowed(seed: int, disjoint: bool) -> list[tuple[Tensor, Tensor]]:
    """Six inputs become two numbers, which eight neurons and three outputs depend on. If the numbers depend on inputs
    of their own, there are inputs that lead to any pair of values between their bounds."""
    generator = torch.Generator().manual_seed(seed)
    first = numbers(generator, 2, 6) / 2
    if disjoint:
        first *= torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    shapes = ((8, 2), (3, 8))
    return [(first, numbers(generator, 2)), *((numbers(generator, m, n), numbers(generator, m)) for m, n in shapes)]


def chain(layers: list[tuple[Tensor, Tensor]]) -> Network:
    builder = Builder((6,))
    x = builder.add(Dense(*layers[1]), builder.add(Dense(*layers[0]), 0))
    return builder.build(builder.add(Dense(*layers[2]), builder.add(ReLU(), x)))


def asked(offset: float, size: float = 0.5) -> Questions:
    rows = torch.tensor([[[1.0, -1.0, 0.0]]], dtype=torch.float64)
    queries = Queries(rows, torch.tensor([[offset]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.int64), 1)
    side = torch.full((1, 6), size, dtype=torch.float64)
    return Questions(Box(-side, side), queries, lambda i, x, y: False)


def least(network: Network, questions: Questions) -> Fraction:
    region, queries = questions.region, questions.queries
    clauses = [(queries.rows[0].numpy(), queries.offsets[0].numpy())]
    return least_margin(network, region.lower[0].numpy(), region.upper[0].numpy(), clauses).value


def decided(network: Network, questions: Questions, plan: Plan = ONLY, proofs: bool = False) -> Outcome:
    found: list[Outcome] = []
    decide(network, questions, plan, lambda _, outcome: found.append(outcome), 30.0, proofs=proofs)
    return found[0]


@pytest.mark.parametrize("disjoint", [True, False])
@pytest.mark.parametrize("seed", at_night_after(2, range(6)))
def test_what_holds_is_true(seed: int, disjoint: bool) -> None:
    network = chain(narrowed(seed, disjoint))
    worst = float(least(network, asked(0.0)))
    for gap in (0.05, 1.0):
        outcome = decided(network, asked(gap - worst))
        assert outcome.verdict is Verdict.HOLDS or not disjoint
        assert outcome.margin is not None
        assert outcome.margin <= gap + 1e-9
        assert decided(network, asked(-gap - worst)).verdict is Verdict.UNKNOWN


def test_values_that_no_input_leads_to_are_no_counterexample() -> None:
    """Both numbers are the same, but as boxes know them they need not be: y = |u - v| is not always small then."""
    same = torch.ones(1, 6, dtype=torch.float64) / 8
    difference = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    layers = [
        (torch.cat([same, same]), torch.zeros(2).double()),
        (difference, torch.zeros(2).double()),
        (torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]).double(), torch.zeros(3).double()),
    ]
    network = chain(layers)
    outcome = decided(network, asked(0.125))
    assert outcome.verdict is Verdict.UNKNOWN
    assert outcome.reason != "timeout"
    assert decided(network, asked(0.125), Plan.of("auto")).verdict is Verdict.HOLDS


def test_the_narrowest_place_before_the_first_activation() -> None:
    a, b = torch.zeros(2, 6).double(), torch.zeros(5, 2).double()
    builder = Builder((6,))
    narrow = builder.add(Reshape((2, 1)), builder.add(Dense(a), 0))
    wide = builder.add(Dense(b), builder.add(Reshape((2,)), narrow))
    network = builder.build(builder.add(Dense(torch.zeros(1, 5).double()), builder.add(ReLU(), wide)))
    assert bottleneck(network, 6) == narrow + 1
    assert bottleneck(network, 2) is None
    x = torch.randn(4, 2).double()
    assert torch.equal(behind(network, narrow + 1)(x), network.nodes[-1].op.forward(torch.relu(x @ b.T)))


def test_what_leads_past_is_no_bottleneck() -> None:
    builder = Builder((6,))
    narrow = builder.add(Dense(torch.ones(2, 6).double()), 0)
    past = builder.add(Dense(torch.ones(4, 6).double()), 0)
    both = builder.add(Add((1, 1)), builder.add(Dense(torch.ones(4, 2).double()), narrow), past)
    network = builder.build(builder.add(Dense(torch.ones(1, 4).double()), builder.add(ReLU(), both)))
    assert bottleneck(network, 6) == both
    assert bottleneck(network, 4) is None


def test_balls_have_no_boxes() -> None:
    """A certificate about boxes is about a region that is one."""
    network, questions = chain(narrowed(1, True)), asked(0.02 - float(least(chain(narrowed(1, True)), asked(0.0))))
    for norm, found in (("linf", True), ("l2", False)):
        region = ball(torch.zeros(1, 6).double(), 0.5, norm, clip=None)
        outcome = decided(network, replace(questions, region=region), ONLY, proofs=True)
        assert any(proof.boxes is not None for proof in outcome.proofs) == found


def written(path: Path, seed: int = 1) -> tuple[bytes, Question, Questions]:
    """A file, and a certified question about it."""
    layers = narrowed(seed, True)
    names = ("a", "b", "c", "d", "e", "f")
    constants = [numpy_helper.from_array(t.numpy().astype(np.float32), n)
                 for n, t in zip(names, (t for layer in layers for t in layer), strict=True)]  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["u"], transB=1),
        helper.make_node("Gemm", ["u", "c", "d"], ["z"], transB=1),
        helper.make_node("Relu", ["z"], ["h"]),
        helper.make_node("Gemm", ["h", "e", "f"], ["y"], transB=1),
    ]
    data = as_file(nodes, constants, [1, 6], "y")
    path.write_bytes(data)
    questions = asked(0.02 - float(least(chain(layers), asked(0.0))))
    network = load_onnx(path)
    outcome = decided(network, replace(questions, region=questions.region.shaped((1, 6))), ONLY, proofs=True)
    assert outcome.verdict is Verdict.HOLDS
    return data, outcome.proofs[0], questions


def certificate(data: bytes, proof: Question, semantics: Any = "real") -> Certificate:
    return Certificate(hashlib.sha256(data).hexdigest(), semantics, "test", [proof])


def test_the_checker_accepts_what_is_written(tmp_path: Path) -> None:
    data, proof, _ = written(tmp_path / "narrow.onnx")
    assert proof.boxes is not None
    assert proof.boxes.width == 2
    assert (proof.boxes.cut >= 0).any()
    write(tmp_path / "c.zip", certificate(data, proof))
    assert 0 < check(read(tmp_path / "c.zip"), data)[0] <= 0.02 + 1e-9
    assert 0 < check(read(tmp_path / "c.zip"), data, exact=True)[0] <= 0.02 + 1e-9


def test_the_checker_rejects_what_is_not_so(tmp_path: Path) -> None:
    data, proof, _ = written(tmp_path / "narrow.onnx")
    assert proof.boxes is not None
    with pytest.raises(Rejected, match="smallest margin"):
        check(certificate(data, replace(proof, offsets=proof.offsets - 0.03)), data)
    with pytest.raises(Rejected, match="float32"):
        check(certificate(data, proof, "float32"), data)
    for width in (3, 0, 8):
        with pytest.raises((Malformed, Rejected)):
            check(certificate(data, replace(proof, boxes=replace(proof.boxes, width=width))), data)
    for broken in (replace(proof.boxes, cut=proof.boxes.cut[:-1], at=proof.boxes.at[:-1]),
                   replace(proof.boxes, at=proof.boxes.at + 100 * (proof.boxes.cut >= 0))):  # fmt: skip
        with pytest.raises(Malformed):
            check(certificate(data, replace(proof, boxes=broken)), data)
    larger = replace(proof.region, lower=4 * proof.region.lower, upper=4 * proof.region.upper)
    with pytest.raises(Rejected):
        check(certificate(data, replace(proof, region=larger)), data)


def test_clauses_of_several_margins_are_weighed(tmp_path: Path) -> None:
    data, _, questions = written(tmp_path / "narrow.onnx")
    network = load_onnx(tmp_path / "narrow.onnx")
    rows, offset = questions.queries.rows, questions.queries.offsets
    # the second member alone holds nowhere
    both = torch.cat([rows, -rows], 1), torch.cat([offset, -offset - 100], 1)
    queries = Queries(*both, torch.zeros(1, 2, dtype=torch.int64), 1)
    outcome = decided(
        network, replace(questions, region=questions.region.shaped((1, 6)), queries=queries), ONLY, proofs=True
    )
    assert outcome.verdict is Verdict.HOLDS
    boxes = outcome.proofs[0].boxes
    assert boxes is not None
    assert boxes.width == 2
    assert boxes.weights is not None
    assert 0 < check(certificate(data, outcome.proofs[0]), data)[0] <= 0.02 + 1e-9


@pytest.mark.parametrize("first", ["MatMul", "Conv", "AveragePool", "Transpose"])
def test_files_of_other_exporters_have_the_same_bottleneck(first: str, tmp_path: Path) -> None:
    """What reads files for the search and what reads them for the checker may make other nodes of them."""
    rng = np.random.default_rng(3)
    named: dict[str, Any] = {"k": rng.normal(size=(1, 1, 2, 2)), "b": rng.normal(size=4)}
    named |= {"m": np.kron(np.eye(4), rng.normal(size=(4, 1)))}  # each number of pixels of its own
    named |= {"c": rng.normal(size=(4, 8)), "d": rng.normal(size=8), "e": rng.normal(size=(8, 3)) / 2}
    constants = [numpy_helper.from_array(t.astype(np.float32), n) for n, t in named.items()]
    flat = helper.make_node("Flatten", ["u"], ["v"])
    before = {
        "MatMul": [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "m"], ["u"]), flat],
        "Conv": [helper.make_node("Conv", ["x", "k"], ["u"], strides=[2, 2]), flat],
        "AveragePool": [helper.make_node("AveragePool", ["x"], ["u"], kernel_shape=[2, 2], strides=[2, 2]), flat],
        "Transpose": [helper.make_node("AveragePool", ["x"], ["t"], kernel_shape=[2, 2], strides=[2, 2]),
                      helper.make_node("Transpose", ["t"], ["u"], perm=[0, 3, 2, 1]), flat],
    }[first]  # fmt: skip
    rest = [
        helper.make_node("Add", ["v", "b"], ["w"]),
        helper.make_node("MatMul", ["w", "c"], ["p"]),
        helper.make_node("Add", ["p", "d"], ["z"]),
        helper.make_node("Relu", ["z"], ["h"]),
        helper.make_node("MatMul", ["h", "e"], ["y"]),
    ]
    data = as_file([*before, *rest], constants, [1, 1, 4, 4], "y")
    (tmp_path / "other.onnx").write_bytes(data)
    network = load_onnx(tmp_path / "other.onnx")
    side = torch.full((1, *network.input_shape), 2.0, dtype=torch.float64)
    node = bottleneck(network, 16)
    assert node is not None
    signs = torch.from_numpy(rng.choice([-2.0, 2.0], size=(5_000, *network.input_shape)))
    values = network.values(signs)[node].flatten(1)
    grid = torch.cartesian_prod(*(torch.linspace(float(v.min()), float(v.max()), 13).double() for v in values.T))
    found = behind(network, node)(grid.reshape(-1, *network.nodes[node].shape)).flatten(1)
    worst = float((found @ torch.tensor([1.0, -1, 0]).double()).min())
    outcome = decided(network, replace(asked(0.5 - worst), region=Box(-side, side)), ONLY, proofs=True)
    assert outcome.verdict is Verdict.HOLDS
    boxes = outcome.proofs[0].boxes
    assert boxes is not None
    assert boxes.width == 4
    assert check(certificate(data, outcome.proofs[0]), data)[0] > 0


@pytest.mark.parametrize("outputs", [2, 3])
def test_weighed_margins_are_no_bottleneck_of_a_network_without_activations(outputs: int) -> None:
    """Two margins follow the outputs as one more node with two entries. Behind that nothing would be left that errors
    of the property's coefficients multiply: the outputs are large."""
    weight, bias = np.zeros((outputs, 1), np.float32), np.full(outputs, 2.0**20, np.float32)
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    data = as_file([helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], constants, [1, 1], "y")
    rows, clause = np.repeat(np.eye(2, outputs)[:1] - np.eye(2, outputs)[1:], 2, 0), np.zeros(2, np.int32)
    boxes = Boxes(np.array([-1], np.int32), np.zeros(1), np.full((1, 2), 8192, np.int16))
    region = Region("box", np.zeros(1), np.ones(1))
    errors = [np.full((2, outputs + 1), 2.0**-30)]
    for width in (None, 2):
        proof = Question(region, rows, np.full(2, 2.0**-10), clause, boxes=replace(boxes, width=width))
        with pytest.raises((Rejected, Malformed)):
            check(certificate(data, proof), data, errors=errors)
    few = replace(proof, offsets=proof.offsets + 2.0**-8, boxes=boxes)
    assert check(certificate(data, few), data, errors=errors)[0] > 0


@pytest.mark.parametrize("exact", [False, True])
def test_an_affine_network_is_cut_where_the_search_cuts_it(exact: bool, tmp_path: Path) -> None:
    """The outputs are as many as the entries of the bottleneck before them."""
    weights = [np.float32([[1, 1, 0], [0, 1, -1]]), np.float32([[1, 0], [-1, 0]])]
    constants = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    nodes = [helper.make_node("Gemm", [a, w], [b], transB=1) for a, w, b in (("x", "w0", "u"), ("u", "w1", "y"))]
    data = as_file(nodes, constants, [1, 3], "y")
    (tmp_path / "affine.onnx").write_bytes(data)
    # one of y and -y is above -1/4, though neither always is
    rows, clause = torch.eye(2, dtype=torch.float64)[None], torch.zeros(1, 2, dtype=torch.int64)
    queries = Queries(rows, torch.full((1, 2), 0.25, dtype=torch.float64), clause, 1)
    side = torch.ones(1, 1, 3, dtype=torch.float64)
    questions = Questions(Box(-side, side), queries, lambda i, x, y: False)
    outcome = decided(load_onnx(tmp_path / "affine.onnx"), questions, ONLY, proofs=True)
    assert outcome.verdict is Verdict.HOLDS
    boxes = outcome.proofs[0].boxes
    assert boxes is not None
    assert boxes.width == 2
    assert check(certificate(data, outcome.proofs[0]), data, exact=exact)[0] > 0
