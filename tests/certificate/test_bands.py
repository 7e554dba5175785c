"""Pairs of curves in certificates: what the checker makes them pay, and what searches prove with them."""

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
from tests.activations.test_banded import CURVES, NORMALS, inside, octagons
from tests.curved import problem
from tests.marks import at_night_after

from krelax.activations.banded import Banded
from krelax.bounds.methods import METHODS
from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.schema import Certificate, GroupSet
from krelax.certificate.kernel.activations import ELU, GELU, RULES, Rule, SiLU, Square
from krelax.certificate.kernel.arithmetic import Exact, Float64
from krelax.certificate.kernel.bands import Bands
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict

PLAIN = {n.lower(): RULES[n]() for n in ("Sigmoid", "Tanh", "Exp", "Softplus", "Sqrt", "Reciprocal", "Sin", "Sign")}
OURS: dict[str, Rule] = {**PLAIN, "gelu": GELU(), "silu": SiLU(), "elu": ELU(0.7, 1.0, 1.0), "square": Square()}
ROWS = 5
FEW = {"sigmoid", "square", "sign"}


def pairs(octagon: np.ndarray[Any, Any], rule: Rule) -> tuple[Bands, tuple[Any, Any]]:
    """Pairs of neurons next to each other, which know what octagons `(groups, 8)` know, and their intervals."""
    count = len(octagon)
    stored = GroupSet(np.arange(2 * count, dtype=np.int32).reshape(-1, 2), NORMALS.numpy().astype(np.int8))
    ends = -octagon[:, [1, 3]].reshape(-1), octagon[:, [6, 4]].reshape(-1)
    return Bands(stored, octagon, ends, rule), ends


# Exact numbers with a curve, what has no rest, and a jump always; with all of them at night.
BOTH = [
    pytest.param(ar, name, id=f"{ar.name}-{name}", marks=[pytest.mark.slow] * (ar.name == "exact" and name not in FEW))
    for ar in (Float64(), Exact())
    for name in CURVES
]


@pytest.mark.parametrize(("ar", "name"), BOTH)
def test_no_point_of_the_graph_is_above_a_price(name: str, ar: Any) -> None:
    """To 60 digits, without tolerance; and searches pay as much."""
    op, exact, interval = CURVES[name]
    rng = np.random.default_rng(len(name))
    octagon = octagons(rng, interval).numpy()
    coeff, slope = (rng.normal(size=(ROWS, len(octagon), 2)) for _ in range(2))
    coeff[0], slope[1] = 0, 0
    with np.errstate(all="ignore"):  # as checks do
        bands, ends = pairs(octagon, OURS[name])
        own = tuple(end[None] for end in ends)
        price = ar.floats(bands.support(ar, ar.number(coeff), ar.number(slope), own, None))
    for g in range(len(octagon)):
        forms = [[mpmath.mpf(v) for v in (*slope[r, g].tolist(), *coeff[r, g].tolist())] for r in range(ROWS)]
        most = [mpmath.mpf(float(p)) * (1 + mpmath.sign(p) * mpmath.mpf(2) ** -53) for p in price[:, g]]
        for z in inside(rng, octagon[g].tolist()):
            (t, a), (u, b) = [(mpmath.mpf(v), exact(mpmath.mpf(v))) for v in z]
            for (c, d, e, f), limit in zip(forms, most, strict=True):
                assert c * t + d * u - e * a - f * b <= limit
    theirs = Banded(op, NORMALS, torch.from_numpy(octagon)[None])
    found = theirs.support(*(torch.from_numpy(t).permute(1, 2, 0)[None] for t in (slope, coeff))).value[0].T.numpy()
    assert abs(price - found).max() < 1e-9 * (1 + abs(price).max())


def test_intervals_of_leaves_are_heeded() -> None:
    """What a leaf cuts off costs nothing: the price is at most that of members alone over what is left."""
    rng = np.random.default_rng(1)
    octagon, ar = octagons(rng, (-4.0, 4.0)).numpy(), Float64()
    bands, ends = pairs(octagon, OURS["sigmoid"])
    coeff, slope = (rng.normal(size=(ROWS, len(octagon), 2)) for _ in range(2))
    middle = (ends[0] + ends[1]) / 2
    whole = bands.support(ar, coeff, slope, (ends[0][None], ends[1][None]), None)
    half = bands.support(ar, coeff, slope, (ends[0][None], middle[None]), None)
    assert (half <= whole + 1e-12).all()
    assert (half < whole - 1e-3).any()


def test_where_nothing_is_known_there_is_no_price() -> None:
    octagon = np.array([[4.0, 1.0, 4.0, 1.0, 2.0, 4.0, 2.0, 4.0]])  # both signs
    bands, ends = pairs(octagon, OURS["reciprocal"])
    coeff, slope = np.ones((2, 1, 2)), np.ones((2, 1, 2))
    coeff[1], slope[1] = 0, 0
    with np.errstate(all="ignore"):
        price = bands.support(Float64(), coeff, slope, (ends[0][None], ends[1][None]), None)
    assert price[0, 0] == np.inf
    assert abs(price[1, 0]) < 1e-290


@pytest.mark.parametrize(("kinds", "seed"), at_night_after(1, [("ss", 1), ("st", 3), ("tt", 2)]))
def test_what_pairs_prove_is_accepted(kinds: str, seed: int, tmp_path: Path) -> None:
    """A margin between what single neurons prove and the truth, in both arithmetics, through the file."""
    case = problem(tmp_path / "model.onnx", seed, kinds, width=8)
    truth = float(case.margins(case.inputs(100000)).min())

    def decided(method: str) -> Outcome:
        found: list[Outcome] = []
        questions = Questions(case.box, case.queries, lambda i, x, y: False)
        decide(case.network, questions, Plan((METHODS[method],)), lambda _, o: found.append(o), 60.0, proofs=True)
        return found[0]

    bounds = [decided(method).margin for method in ("alpha", "krelu")]
    assert None not in bounds
    assert bounds[1] > bounds[0] + 0.05 * (truth - bounds[0])
    case = case.moved(0.02 * (bounds[1] - bounds[0]) - bounds[1])
    assert decided("alpha").verdict is Verdict.UNKNOWN
    outcome = decided("krelu")
    assert outcome.verdict is Verdict.HOLDS
    model = case.path.read_bytes()
    write(tmp_path / "c.zip", Certificate(hashlib.sha256(model).hexdigest(), "real", "test", list(outcome.proofs)))
    kept = read(tmp_path / "c.zip")
    assert all(layer.groups for layer in kept.questions[0].layers[1:])
    least = float(case.margins(case.inputs(100000)).min())
    for exact in (False, True):
        assert 0 < min(check(kept, model, exact=exact)) <= least
    _refuse_others(kept, model, least)


def _refuse_others(kept: Certificate, model: bytes, truth: float) -> None:
    """Other rows and members prove something true, or are refused; triples are none."""
    question, rng = kept.questions[0], np.random.default_rng(0)
    layer = question.layers[-1]
    (stored,) = layer.groups
    for _ in range(6):
        rows = rng.integers(-1, 2, stored.rows.shape).astype(np.int8)
        members = rng.permuted(np.tile(np.arange(8, dtype=np.int32), (len(stored.members), 1)), axis=1)[:, :2].copy()
        for other in (GroupSet(stored.members, rows), GroupSet(members, stored.rows)):
            changed = replace(question, layers=[*question.layers[:-1], replace(layer, groups=[other])])
            with suppress(Rejected):
                assert min(check(replace(kept, questions=[changed]), model)) <= truth
    three = GroupSet(np.arange(3, dtype=np.int32)[None], np.eye(3, dtype=np.int8))
    changed = replace(question, layers=[*question.layers[:-1], replace(layer, groups=[three])])
    with pytest.raises(Malformed):
        check(replace(kept, questions=[changed]), model)
