"""Random tiny networks with adversarial numbers, against exact truth: no bound too high, no wrong verdict, no crash.

`python -m tests.fuzz.bounds` goes on where this ends, with more methods for each network.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from tests.fuzz.bounds import CHEAP, DEAR, findings
from tests.marks import at_night_after
from tests.random_networks import random_case

from krelax.bounds import methods

PART, PARTS = 50, 40


@pytest.mark.parametrize("part", at_night_after(1, range(PARTS)))
def test_no_bound_is_above_the_truth(part: int) -> None:
    """A cheap method for each network, a dear one for one in eight, a search for a verdict for one in forty."""
    wrong = [what for seed in range(PART * part, PART * (part + 1)) for what in findings(seed, 8, 40)]
    assert wrong == []


def test_all_methods_have_their_turns() -> None:
    assert {*CHEAP, *DEAR} == set(methods.METHODS)


@pytest.mark.parametrize("charge", ["gamma", "underflow"])
def test_without_a_charge_bounds_are_too_high(charge: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that cannot fail shows nothing."""

    def nothing(terms: int, of: object) -> object:
        return 0.0 if charge == "gamma" else torch.zeros(1, 1, dtype=torch.float64)

    for module in ("rounding", "backward", "zonotope", *(["layers"] if charge == "gamma" else [])):
        monkeypatch.setattr(f"krelax.bounds.{module}.{charge}", nothing)
    assert any(findings(seed, 10**9, 10**9) for seed in range(1, 100))


def test_the_truth_is_what_networks_compute() -> None:
    """Where numbers are ordinary, floating point agrees with the exact values of all nodes."""
    compared = 0
    for seed in range(60):
        case = random_case(seed)
        for nodes in case.seen:
            exact = [np.array([float((a + b) / 2) if _is_ordinary(b) else np.nan for a, b in n]) for n in nodes]
            if not all(np.isfinite(n).all() for n in exact):
                continue
            x = torch.from_numpy(exact[0]).reshape(1, *case.network.input_shape)
            for ours, theirs, node in zip(case.network.values(x), exact, case.network.nodes, strict=True):
                size = max(np.abs(n).max(initial=1) for n in exact)
                np.testing.assert_allclose(ours.flatten().numpy(), theirs, atol=1e-9 * size, err_msg=repr(node))
            compared += 1
    assert compared > 50


def _is_ordinary(value: Fraction) -> bool:
    return value == 0 or 1e-20 < abs(value) < 1e8
