"""Products over octagons in certificates: what the checker makes them pay, and what krelu proves with them."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from tests.activations.test_banded import NORMALS, inside, octagons
from tests.marks import at_night_after

from krelax.activations.operands import Operands
from krelax.bounds.methods import METHODS
from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.schema import Certificate, GroupSet, Shares
from krelax.certificate.kernel.arithmetic import Exact, Float64
from krelax.certificate.kernel.saddles import Saddles
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict

ROWS = 7


def operands(count: int) -> np.ndarray[Any, Any]:
    return np.arange(2 * count, dtype=np.int32).reshape(-1, 2)


def prices(rng: np.random.Generator, octagon: np.ndarray[Any, Any], exponents: np.ndarray[Any, Any], ar: Any) -> Any:
    """Coefficients and slopes of products, and their prices here and in searches."""
    count = len(octagon)
    coeff, slope = rng.normal(size=(ROWS, count)), 3 * rng.normal(size=(ROWS, count, 2))
    coeff[0], slope[1], slope[2] = 0, 0, 0.1 * slope[2]
    stored = GroupSet(operands(count), NORMALS.numpy().astype(np.int8), exponents.astype(np.int8))
    alone = np.full((ROWS, count), 2.0**200)
    numbers = (ar.number(t) for t in (alone, coeff, slope.reshape(ROWS, -1)))
    price = ar.floats(Saddles(stored, octagon).least(ar, *numbers))
    joint = Operands(NORMALS, torch.from_numpy(octagon)[None], torch.from_numpy(exponents))
    given = (torch.from_numpy(t).permute(1, 2, 0)[None] for t in (slope, coeff[..., None]))
    return coeff, slope, price, joint.support(*given).value[0].T.numpy()


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("interval", [(-3.0, 5.0), (0.5, 2.0), (-1e-3, 1e6)])
def test_no_point_of_the_graph_is_above_a_price(interval: tuple[float, float], ar: Any) -> None:
    """Exactly, without tolerance, for the checker's prices and for those of searches; and these are the same."""
    rng = np.random.default_rng(int(interval[1]))
    octagon = octagons(rng, interval).numpy()
    exponents = rng.integers(-3, 4, len(octagon))
    coeff, slope, *both = prices(rng, octagon, exponents, ar)
    for g in range(len(octagon)):
        for z0, scaled in inside(rng, octagon[g].tolist()):
            x, y = mpmath.mpf(z0), mpmath.mpf(scaled) / mpmath.mpf(2) ** int(exponents[g])
            for r in range(ROWS):
                s, t = map(mpmath.mpf, slope[r, g].tolist())
                value = s * x + t * y - mpmath.mpf(float(coeff[r, g])) * x * y
                for price in both:
                    most = mpmath.mpf(float(price[r, g]))
                    assert value <= most * (1 + mpmath.sign(most) * mpmath.mpf(2) ** -53)
    assert abs(both[0] - both[1]).max() < 1e-9 * (1 + abs(both[0]).max())


def test_prices_are_attained() -> None:
    """At a point of the octagon: so the hull is exact. Corners alone would not do."""
    rng = np.random.default_rng(3)
    octagon = octagons(rng, (-3.0, 5.0))
    joint = Operands(NORMALS, octagon[None], torch.zeros(len(octagon), dtype=torch.int64))
    slope, coeff = (torch.from_numpy(rng.normal(size=(1, len(octagon), k, 50))) for k in (2, 1))
    found = joint.support(slope, coeff)
    value = (slope * found.z).sum(2) - (coeff * found.z.prod(2, keepdim=True)).sum(2)
    assert torch.allclose(value, found.value, atol=1e-9)
    assert (torch.einsum("ri,bgiq->bgrq", NORMALS, found.z) <= octagon[None, ..., None] + 1e-9).all()
    inner = (torch.einsum("ri,bgiq->bgrq", NORMALS, found.z) > octagon[None, ..., None] - 1e-9).sum(2) == 1
    assert inner.any()


def test_where_nothing_is_known_the_box_pays() -> None:
    octagon = np.full((2, 8), np.inf)
    octagon[1] = 1.0
    stored = GroupSet(operands(2), NORMALS.numpy().astype(np.int8), np.zeros(2, np.int8))
    price = Saddles(stored, octagon).least(Float64(), np.full((1, 2), 5.0), np.ones((1, 2)), np.zeros((1, 4)))
    assert price[0, 0] == 5.0
    assert price[0, 1] < 1.0


def gated(path: Path, seed: int) -> Box:
    """A network that multiplies what it makes of its four inputs, twice, and its box."""
    rng, width = np.random.default_rng(seed), 6
    shapes = {"w": (width, 4), "v": (width, 4), "u": (width, width), "t": (width, width), "o": (1, width)}
    sizes = {"w": 1.0, "v": 0.1, "u": 0.5, "t": 4.0, "o": 1.0}
    weights = {n: (sizes[n] * rng.normal(size=s)).astype(np.float32) for n, s in shapes.items()}
    nodes = [
        *(helper.make_node("Gemm", ["x", w], [w + "x"], transB=1) for w in ("w", "v")),
        helper.make_node("Mul", ["wx", "vx"], ["p"]),
        *(helper.make_node("Gemm", ["p", w], [w + "p"], transB=1) for w in ("u", "t")),
        helper.make_node("Mul", ["up", "tp"], ["q"]),
        helper.make_node("Gemm", ["q", "o"], ["y"], transB=1),
    ]
    inputs, outputs = (helper.make_tensor_value_info(n, 1, [1, k]) for n, k in (("x", 4), ("y", 1)))
    stored = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "g", [inputs], [outputs], stored)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    )
    centre = torch.from_numpy(rng.uniform(-1, 1, (1, 1, 4)))
    return Box(centre - 0.3, centre + 0.3)


@pytest.mark.parametrize("seed", at_night_after(1, [3, 1, 2]))
def test_what_octagons_prove_is_accepted(seed: int, tmp_path: Path) -> None:
    """A margin between what boxes prove and the truth, in both arithmetics, through the file."""
    box = gated(tmp_path / "m.onnx", seed)
    network = load_onnx(tmp_path / "m.onnx")
    draw = torch.Generator().manual_seed(0)
    x = box.lower + torch.rand(20000, *box.lower.shape[1:], generator=draw, dtype=torch.float64) * (
        box.upper - box.lower
    )
    truth = float(network(x).min())

    def asked(offset: float) -> Queries:
        one = torch.ones(1, 1, 1, dtype=torch.float64)
        return Queries(one, torch.full((1, 1), offset, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.int64), 1)

    def decided(method: str, offset: float) -> Outcome:
        found: list[Outcome] = []
        questions = Questions(box, asked(offset), lambda i, x, y: False)
        decide(network, questions, Plan((METHODS[method],)), lambda _, o: found.append(o), 60.0, proofs=True)
        return found[0]

    bounds = [decided(method, 0.0).margin for method in ("alpha", "krelu")]
    assert None not in bounds
    assert bounds[1] > bounds[0] + 0.1 * (truth - bounds[0])
    offset = 0.02 * (bounds[1] - bounds[0]) - bounds[1]
    assert decided("alpha", offset).verdict is Verdict.UNKNOWN
    outcome = decided("krelu", offset)
    assert outcome.verdict is Verdict.HOLDS
    model = (tmp_path / "m.onnx").read_bytes()
    write(tmp_path / "c.zip", Certificate(hashlib.sha256(model).hexdigest(), "real", "test", list(outcome.proofs)))
    kept = read(tmp_path / "c.zip")
    assert any(layer.groups for layer in kept.questions[0].layers)
    for exact in (False, True):
        assert 0 < min(check(kept, model, exact=exact)) <= truth + offset
    _refuse_others(kept, model, truth + offset)


def _refuse_others(kept: Certificate, model: bytes, truth: float) -> None:
    """Other rows, members and exponents prove something true, or are refused; so are shares of what is whole."""
    question, rng = kept.questions[0], np.random.default_rng(0)
    j = next(j for j, layer in enumerate(question.layers) if layer.groups)
    (stored,) = question.layers[j].groups
    assert stored.exponents is not None

    def changed(groups: GroupSet) -> Certificate:
        layers = [replace(layer, groups=[groups]) if i == j else layer for i, layer in enumerate(question.layers)]
        return replace(kept, questions=[replace(question, layers=layers)])

    for _ in range(4):
        rows = rng.integers(-1, 2, stored.rows.shape).astype(np.int8)
        exponents = rng.integers(-3, 4, stored.exponents.shape).astype(np.int8)
        members = rng.permutation(stored.members)
        for other in (
            replace(stored, rows=rows),
            replace(stored, exponents=exponents),
            replace(stored, members=members),
        ):
            with suppress(Rejected):
                assert min(check(changed(other), model)) <= truth
    beside = stored.members + 1
    for other in (replace(stored, members=beside), replace(stored, exponents=None)):
        with pytest.raises(Malformed):
            check(changed(other), model)
    assert question.margins is not None
    crossing = next(c for c in question.margins.crossings if c.activation == j)
    leaves = (question.margins.tree < 0).sum()
    none = np.zeros((leaves, *stored.members.shape), np.int16)
    crossings = [
        replace(c, groups=[Shares(0, share=none, tilt=none)]) if c is crossing else c
        for c in question.margins.crossings
    ]
    with pytest.raises(Malformed):
        check(
            replace(kept, questions=[replace(question, margins=replace(question.margins, crossings=crossings))]), model
        )
