"""Paths crossed with each other: every pair of activation, plan, region, clauses, proofs and questions, structures in
turns; every pair with a structure, too, at night.

No answer contradicts what is true, every certificate is accepted, and nothing is raised. Methods make little effort
here. All crossings, with all of it, are the nightly `python -m tests.crossings.everything`.
"""

from __future__ import annotations

import pickle
from dataclasses import asdict
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
import torch
from tests.crossings.cover import every_pair, pairs_of, pairwise
from tests.crossings.runs import ASKED, CLAUSES, PLANS, PROOFS, QUICK, REGIONS, Crossing, loaded, run
from tests.crossings.sketches import ACTIVATIONS, STRUCTURES, representatives
from tests.marks import ALIKE, at_night_after

from krelax.activations import Activation, Difference, Product
from krelax.activations.curve import Curve
from krelax.activations.transformed import Transformed
from krelax.bounds.methods import METHODS
from krelax.network.scalars import with_axes
from krelax.search.effort import Complete
from krelax.search.processes import pickled

OTHERS = {
    "plan": [plan for plan in PLANS if plan not in ALIKE],
    "activation": representatives(),
    "region": list(REGIONS),
    "clauses": list(CLAUSES),
    "proofs": list(PROOFS),
    "asked": list(ASKED),
}
FACTORS = {"structure": list(STRUCTURES), **OTHERS}


@cache
def by_day() -> list[Crossing]:
    return [Crossing(FACTORS["structure"][i % len(STRUCTURES)], **row) for i, row in enumerate(pairwise(OTHERS))]


@cache
def at_night() -> list[Crossing]:
    return [Crossing(**row) for row in pairwise(FACTORS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crossings")


def test_every_pair_of_values_occurs() -> None:
    seen = set().union(*(pairs_of(asdict(row)) for row in at_night()))
    assert seen == every_pair(FACTORS)
    assert len(seen) == sum(len(FACTORS[a]) * len(FACTORS[b]) for a, b in combinations(FACTORS, 2))
    seen = set().union(*(pairs_of(asdict(row)) for row in by_day()))
    assert seen >= every_pair(OTHERS)
    assert {row.structure for row in by_day()} == set(STRUCTURES)


def test_every_method_and_activation_is_crossed(folder: Path) -> None:
    """A new method, and a new activation with its line in the kit, enter by themselves."""
    assert set(METHODS) <= set(PLANS)
    assert {_kind(type(a.op)) for a in ACTIVATIONS.values()} == {
        _kind(type(ACTIVATIONS[n].op)) for n in representatives()
    }
    networks = (loaded(s, a, folder)[1] for s in STRUCTURES for a in representatives())
    crossed = {_kind(type(n.op)) for network in networks for n in network.nodes if isinstance(n.op, Activation)}
    # operators of two operands, and what no file can hold, have tests of their own
    assert crossed == {_kind(op) for op in _concrete()} - {Difference, Product, Transformed}


def _kind(op: type[Activation]) -> type[Activation]:
    """Curves are all relaxed by one class."""
    return Curve if issubclass(op, Curve) else op


@pytest.mark.parametrize(
    ("seconds", "proofs"),
    at_night_after(4, [*((1e-6, proofs) for proofs in PROOFS), (0.02, "written"), (0.02, "none"), (0.02, "float32")]),
)
def test_time_that_is_over_at_once(seconds: float, proofs: str, folder: Path) -> None:
    """Every question has one answer, which contradicts nothing."""
    rows = [Crossing("channels-last", "relu", plan, "box", "several members", proofs, "together") for plan in PLANS]
    wrong = {str(row): found for row in rows if (found := run(row, folder, seconds))}
    assert not wrong


@pytest.mark.parametrize("structure", list(STRUCTURES))
def test_helper_processes_get_the_same_network(structure: str, folder: Path) -> None:
    network = with_axes(loaded(structure, representatives()[0], folder)[1])
    sent = pickled(network, Complete())
    assert sent is not None
    there, _ = pickle.loads(sent)
    x = torch.rand(3, *network.input_shape, dtype=torch.float64)
    assert there.dtype == network.dtype
    assert torch.equal(there(x), network(x))


def _concrete(kind: type = Activation) -> list[type]:
    """The activations that krelax defines."""
    kinds: list[type] = kind.__subclasses__()
    below = [c for k in kinds for c in _concrete(k)]
    return below + [kind] * (not kind.__subclasses__() and kind.__module__.startswith("krelax."))


def wrong_of(rows: list[Crossing], structure: str, folder: Path) -> dict[str, list[str]]:
    """What is wrong with the crossings of a structure."""
    mine = [row for row in rows if row.structure == structure]
    return {str(row): found for row in mine if (found := run(row, folder, 0.5, QUICK))}


@pytest.mark.parametrize("structure", list(STRUCTURES))
def test_no_crossing_is_wrong(structure: str, folder: Path) -> None:
    assert not wrong_of(by_day(), structure, folder)


@pytest.mark.slow
@pytest.mark.parametrize("structure", list(STRUCTURES))
def test_no_crossing_with_the_structure_is_wrong(structure: str, folder: Path) -> None:
    assert not wrong_of(at_night(), structure, folder)
