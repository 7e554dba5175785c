"""Trees that compare members of windows: which of two is at least as large as the other."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.certificate.corpus import i4
from tests.certificate.test_split_points import decided
from tests.marks import at_night_after
from tests.pooled import pooled

from krelax.bounds.methods import METHODS
from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.lemmas import Slot, leaves_of
from krelax.certificate.format.schema import Certificate, Lemma
from krelax.certificate.kernel.activations.maximum import Maximum
from krelax.certificate.kernel.arithmetic import Float64
from krelax.certificate.kernel.choices import _Comparisons
from krelax.search.attack import Attack
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan
from krelax.search.verdict import Verdict

SEARCH = Plan((METHODS["alpha"], Attack(), Complete(split=("neurons",))))


# Windows behind ReLUs, that share members, and with a member twice; the last are the plainest.
SHAPES: list[tuple[int, dict[str, Any]]] = [
    (3, {"kernel": 2, "stride": 2}),
    (3, {"stride": 2, "pad": 1, "relu": False}),
    (5, {"kernel": 4, "stride": 4, "relu": False, "order": (0, 1, 2, 0, 3, 4, 5, 4)}),
    (5, {"relu": False}),
]


@pytest.mark.parametrize(("seed", "shape"), at_night_after(3, SHAPES))
def test_what_comparisons_decide_is_accepted(seed: int, shape: dict[str, Any], tmp_path: Path) -> None:
    """A margin between what is proven without splits and the truth; in both arithmetics, through the file. Certificates
    of what is not true are refused, whatever is compared with what."""
    case = pooled(tmp_path / "model.onnx", seed, **shape)
    alpha, truth = Plan((METHODS["alpha"],)), float(case.margins(case.inputs(100000)).min())
    before = decided(case, alpha).margin
    assert before is not None
    case = case.moved(0.2 * -before - 0.8 * truth)
    truth = float(case.margins(case.inputs(100000)).min())
    assert decided(case, alpha).verdict is Verdict.UNKNOWN
    outcome = decided(case, SEARCH)
    assert outcome.verdict is Verdict.HOLDS
    model = case.path.read_bytes()
    write(tmp_path / "c.zip", Certificate(hashlib.sha256(model).hexdigest(), "real", "test", list(outcome.proofs)))
    kept = read(tmp_path / "c.zip")
    lemma = kept.questions[0].margins
    assert lemma is not None
    assert lemma.points is not None
    assert (lemma.points > 0).any()
    for exact in (False, True):
        assert 0 < min(check(kept, model, exact=exact)) <= truth
    refuse_what_is_changed(kept, lemma, model, truth)


def refuse_what_is_changed(kept: Certificate, lemma: Lemma, model: bytes, truth: float) -> None:
    """Other members, other multipliers, sides in each other's place: proofs of something true, or refused."""
    rng, question, refused = np.random.default_rng(0), kept.questions[0], 0
    splits = np.flatnonzero(lemma.tree >= 0)
    assert lemma.points is not None
    for n in range(24):
        points, tree, multipliers = lemma.points.copy(), lemma.tree.copy(), lemma.multipliers.copy()
        some = rng.choice(splits, min(2, len(splits)))
        if n % 2:
            points[some] = rng.integers(0, 3, len(some))
        else:
            tree[some] = rng.choice(tree[splits], len(some))
        multipliers *= rng.choice([1.0, 3.0, 0.0])
        changed = replace(question, margins=replace(lemma, points=points, tree=tree, multipliers=multipliers))
        try:
            assert min(check(replace(kept, questions=[changed]), model)) <= truth
        except (Rejected, Malformed):
            refused += 1
    assert refused > 2
    with pytest.raises(Rejected):
        check(replace(kept, questions=[replace(question, offsets=question.offsets - truth)]), model)


# --- the format


@pytest.mark.parametrize("point", [1.0, 3.0, -1.0, 0.5])
def test_members_are_compared_with_other_members(point: float) -> None:
    slots = [Slot(6, False, members=3)]
    lemma = Lemma(i4(4, -1, -1), np.zeros(2, np.float32), points=np.array([point, 0, 0], np.float32))
    with pytest.raises(Malformed, match="no other member"):
        leaves_of(lemma, 1, slots)


# --- the rule


def test_circles_of_comparisons_leave_one_that_is_largest() -> None:
    """Whoever lost to one that was out already is not out."""
    i8 = lambda *x: np.array(x, np.int64)  # noqa: E731
    circle = _Comparisons(i8(0, 0, 0), i8(0, 1, 2), i8(1, 2, 0), np.zeros(3), 3)
    assert circle.out(1, i8(0, 1, 2)).tolist() == [[True, True, False]]
    both = _Comparisons(i8(0, 0), i8(0, 1), i8(1, 0), np.zeros(2), 3)
    assert both.out(1, i8(0, 1, 2)).tolist() == [[False, True, False]]
    path = _Comparisons(i8(0, 0, 1), i8(0, 2, 2), i8(1, 0, 1), np.zeros(3), 3)
    assert path.out(2, i8(0, 1, 2)).tolist() == [[True, True, False], [False, True, False]]
    copies = _Comparisons(i8(0, 0), i8(2, 0), i8(1, 1), np.zeros(2), 3)
    assert copies.out(1, i8(0, 0, 2)).tolist() == [[False, True, False]]


def test_prices_are_supports_of_what_comparisons_leave() -> None:
    """Against points: those that are out anywhere in their intervals, the maximum of the others."""
    rng, share = np.random.default_rng(0), np.linspace(0, 1, 5)
    grid = np.stack(np.meshgrid(share, share, share, share, indexing="ij"), -1).reshape(-1, 4)
    for _ in range(100):
        lower = rng.normal(size=(1, 4))
        upper, out = lower + rng.exponential(size=(1, 4)), rng.random((1, 4)) < 0.4
        out[0, rng.integers(4)] = False
        slope, coeff = rng.normal(size=(1, 4)), rng.normal(size=(1, 1))
        rule = Maximum(4).without(out)
        price = float(rule.price(Float64(), rule.behind(coeff), slope, (lower, upper)).sum())
        z = lower + grid * (upper - lower)
        value = z @ slope[0] - coeff[0, 0] * np.where(out, -np.inf, z).max(1)
        assert price >= value.max() - 1e-12
        if coeff[0, 0] <= 0:  # attained at corners
            assert price <= value.max() + 1e-12
