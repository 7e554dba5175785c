"""The checker's part of a network that varies: proves what the whole network proves, and never more than the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.certificate.values import evaluate
from tests.rows import COLUMNS, ROWS, rows_model

from krelax.certificate.format.schema import Boxes, Question, Region
from krelax.certificate.kernel import families
from krelax.certificate.kernel.activations import ReLU
from krelax.certificate.kernel.arithmetic import Exact, Float64
from krelax.certificate.kernel.families import check_family
from krelax.certificate.kernel.linear import Dense, Scale
from krelax.certificate.kernel.network import Activation, Affine, Network
from krelax.certificate.kernel.part import part_of
from krelax.certificate.onnx.reader import read_network

COUNT, FREE = 40, 4
CLAIMS = np.array([[1.0, -0.5], [-2.0, 1.0]])


@pytest.fixture(scope="module")
def network() -> Network:
    return read_network(rows_model())


def questions(width: float, other: float = 0.0) -> list[Question]:
    """Each about one number of another table, cut in halves; another input lies between two numbers, too."""
    rng, found = np.random.default_rng(7), []
    for at in rng.uniform(-1, 1, (COUNT, ROWS * COLUMNS)):
        upper = at.copy()
        upper[FREE] += width
        upper[0] += other
        boxes = Boxes(np.array([FREE, -1, -1], np.int32), np.array([(at[FREE] + upper[FREE]) / 2, 0.0, 0.0]))
        clause = np.arange(2, dtype=np.int32)
        found.append(Question(Region("box", at, upper), CLAIMS, np.full(2, 9.0), clause, boxes=boxes))
    return found


def test_the_part_proves_what_the_whole_network_does(network: Network, monkeypatch: Any) -> None:
    asked, ar = questions(0.2), Float64()
    assert part_of(network, ar, np.array([FREE]), COUNT) is not None
    found = check_family(network, asked, ar, False, None)
    monkeypatch.setattr(families, "part_of", lambda *_: None)
    whole = check_family(network, asked, ar, False, None)
    assert (found > 0).any()
    np.testing.assert_allclose(found, whole, rtol=1e-9)


@pytest.mark.parametrize("other", [0.0, 0.1])
def test_no_margin_is_above_a_value(network: Network, other: float) -> None:
    asked, rng = questions(0.3, other), np.random.default_rng(8)
    found = check_family(network, asked, Float64(), False, None)
    for q, margin in zip(asked, found.tolist(), strict=True):
        for share in rng.random((5, ROWS * COLUMNS)):
            x = q.region.lower + share * (q.region.upper - q.region.lower)
            values = q.rows @ evaluate(network, x[None])[-1][0] + q.offsets
            assert margin <= values.min() + 1e-12


def test_there_is_no_part_where_much_varies_and_of_exact_numbers(network: Network) -> None:
    assert part_of(network, Float64(), np.arange(0, ROWS * COLUMNS, COLUMNS), COUNT) is None
    assert part_of(network.over(Exact()), Exact(), np.array([FREE]), COUNT) is None


def test_a_bias_of_zero_may_have_an_error() -> None:
    """It is a part of what does not vary: bounds of it are as wide as the error."""
    index, factor = np.arange(6), Scale(np.ones(1))
    bias, size = np.zeros(6), np.full(6, 1e3)
    nodes = (
        None,
        Affine((0,), (factor,), 6, bias, size, fuzz=2.0**-48, sizes=(factor,)),
        Activation((1,), ReLU(), 6),
        Affine((2,), (Dense(np.ones((1, 1, 1, 6))),), 1),
    )
    network, free = Network(nodes, 6), index[:1]
    part = part_of(network, Float64(), free, COUNT)
    assert part is not None
    lower, upper = part.given(Float64(), np.zeros((1, 6)), np.zeros((1, 6)))
    assert (lower < -1e3 * 2.0**-49).any()
    assert (upper > 1e3 * 2.0**-49).any()
    assert 0 in part.slots[1]
