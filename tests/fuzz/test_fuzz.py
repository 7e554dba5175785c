"""A thousand random files of those that `make nightly` tries, and some of its questions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from tests.fuzz.graphs import PIECES, random_graph
from tests.fuzz.nightly import coupled, executions, functions, graphs, mutations, reals
from tests.fuzz.wire import mutated, read, varint

from krelax.certificate.onnx.operator import OPERATORS


def test_whatever_the_checker_reads_means_what_others_say() -> None:
    seen, wrong = graphs(600, 1)
    assert not wrong, wrong[0]
    assert seen["accepted"] > 300
    assert all(seen[f"accepted: {piece.__name__}"] for piece in PIECES)


def test_damaged_files_mean_what_others_say() -> None:
    seen, wrong = mutations(150, 1)
    assert not wrong, wrong[0]
    assert seen["accepted"] > 5


def test_executions_are_inside_what_is_certified() -> None:
    seen, wrong = executions(25, 1)
    assert not wrong, wrong[0]
    assert seen["inside"] > 5
    assert seen["rejected"] > 1


def test_executions_of_functions_and_products_are_inside_what_is_certified() -> None:
    seen, wrong = functions(16, 1)
    assert not wrong, wrong[0]
    assert seen["inside"] > 2
    assert seen["rejected"] > 2


def test_exact_values_are_inside_what_is_certified_of_real_numbers() -> None:
    seen, wrong = reals(25, 1)
    assert not wrong, wrong[0]
    assert seen["inside float64"] > 10
    assert seen["inside exact"] > 10


def test_questions_about_two_networks_are_answered_rightly() -> None:
    seen, wrong = coupled(8, 1)
    assert not wrong, wrong[0]
    assert seen["sat"] > 1
    assert seen["unsat"] > 1


def _called(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


@pytest.mark.slow
def test_random_graphs_have_every_operator_in_every_version() -> None:
    found = Counter[tuple[str, int]]()
    for i in range(4000):
        model = onnx.load_from_string(random_graph(np.random.default_rng([2, i]))[0])
        found.update((_called(node), model.opset_import[0].version) for node in model.graph.node)
    # of the first three random numbers are hardly ever in the domain, and the last one is newer
    assert {op for op, _ in found} >= OPERATORS.keys() - {"Log", "Reciprocal", "Pow", "RMSNormalization"}
    assert {version for _, version in found} == set(range(7, 23))


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**63, 2**64 - 1])
def test_fields_are_written_as_they_were_read(value: int) -> None:
    data = random_graph(np.random.default_rng(3))[0]
    assert b"".join(entry.encode() for entry in read("Model", data)) == data
    assert len(varint(value, 2)) == len(varint(value)) + 2
    assert any(mutated(np.random.default_rng(i), data) != data for i in range(5))
