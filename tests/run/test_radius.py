"""Radii are certified and refuted where they are said to be, and near to each other."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.marks import at_night_after
from tests.run.files import random_dense, save

from krelax.network.onnx import load_onnx
from krelax.problem.images import Images
from krelax.problem.scaling import Scaling
from krelax.run.attacked import Refuted, attacked, from_counterexample, rounded
from krelax.run.certificates import Certificates
from krelax.run.certify import CertifyOptions, certify
from krelax.run.journal import read_journal
from krelax.run.known import State
from krelax.run.radius import RadiusOptions, _Radii, radius
from krelax.search.around import Around
from krelax.search.pipeline import Plan
from krelax.search.verdict import Counterexample
from krelax.watch import counted

RNG = np.random.default_rng(0)
COUNT = 4


def linear(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Two scores that are linear in three inputs, whose radii are known."""
    from tests.run.files import dense

    weight = np.array([[1.0, -0.5, 0.25], [-0.5, 0.75, 0.5]], np.float32)
    save(dense((weight, np.array([0.0, 0.125], np.float32)), shape=(1, 3)), path)
    return weight[0] - weight[1], np.array([-0.125])


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", np.inf)])
@pytest.mark.parametrize("accuracy", at_night_after(1, [Fraction(1, 100), Fraction(1, 1000)]))
def test_radii_of_a_linear_classifier_are_those_of_the_formula(
    tmp_path: Path, norm: str, dual: float, accuracy: Fraction
) -> None:
    row, offset = linear(tmp_path / "net.onnx")
    network = load_onnx(tmp_path / "net.onnx")
    x = RNG.random((COUNT, 1, 3), dtype=np.float32)
    values = x[:, 0].astype(np.float64) @ row + offset
    labels = np.where(values > 0, 0, 1)
    options = RadiusOptions(accuracy, norm, clip=None)
    found = radius(network, Images(x, labels), range(COUNT), options)
    for i, value in enumerate(values):
        true = abs(value) / np.linalg.norm(row, ord=dual)
        record = found[i]
        assert record["certified"] <= true * (1 + 1e-6)
        assert record["refuted"] >= true * (1 - 1e-6)
        assert record["refuted"] <= record["certified"] * (1 + float(accuracy)) * (1 + 1e-12), record
        assert record["reason"] == "found"


@pytest.mark.parametrize("scaling", [None, Scaling((Fraction(1, 4),), (Fraction(1, 2),))])
def test_radii_are_proven_and_refuted(tmp_path: Path, scaling: Scaling | None) -> None:
    """Certificates are about the radius that is given, which certifying confirms; the model is wrong at the other."""
    network = load_onnx(save(random_dense([4, 16, 16, 3], seed=1), tmp_path / "net.onnx"))
    x = RNG.random((COUNT, 1, 4), dtype=np.float32)
    given = x if scaling is None else scaling.nearest(x, (1, 4))
    labels = network(torch.from_numpy(given).double())[:, 0].argmax(1).numpy()
    labels[0] = (labels[0] + 1) % 3
    images, journal = Images(x, labels), tmp_path / "run.jsonl"
    options = RadiusOptions(scaling=scaling)
    proofs = Certificates(tmp_path / "proofs", tmp_path / "net.onnx", check=True)
    found = radius(network, images, range(COUNT), options, journal=journal, certificates=proofs)
    assert found[0]["certified"] is None
    for i, record in found.items():
        if record["certified"] is not None:
            eps = Fraction(repr(record["certified"]))
            again = certify(network, images, range(i, i + 1), CertifyOptions(eps, scaling=scaling))
            assert again.verdicts[i] == "holds", record
        if record["refuted"] is None:
            assert record["reason"] == "everywhere"
            continue
        around = Around(x[[i]], (Fraction(repr(record["refuted"])),), "linf", (Fraction(0), Fraction(1)), scaling)
        point = np.array(record["counterexample"]["x"], np.float32).reshape(1, 4)
        assert around.contains(0, point)
        assert network.replay is not None
        scores = network.replay(point).flatten()
        assert np.delete(scores, labels[i]).max() >= scores[labels[i]]
        assert record["certified"] is None or (tmp_path / "proofs" / record["certificate"]["file"]).is_file()
    resumed = radius(network, images, range(COUNT), options, journal=journal, resume=True)
    assert [r["certified"] for r in resumed.values()] == [r["certified"] for r in found.values()]
    assert len(read_journal(journal)[1]) == COUNT


def test_a_weak_method_gives_what_it_can(tmp_path: Path) -> None:
    network = load_onnx(save(random_dense([4, 16, 16, 3], seed=1), tmp_path / "net.onnx"))
    x = RNG.random((COUNT, 1, 4), dtype=np.float32)
    labels = network(torch.from_numpy(x).double())[:, 0].argmax(1).numpy()
    weak = radius(network, Images(x, labels), range(COUNT), RadiusOptions(method="interval"))
    strong = radius(network, Images(x, labels), range(COUNT), RadiusOptions())
    for i in range(COUNT):
        assert weak[i]["certified"] > 0
        for refuted in (weak[i]["refuted"], strong[i]["refuted"]):
            assert refuted is None or weak[i]["certified"] < refuted
    assert {r["reason"] for r in weak.values()} & {"open in between", "found"}


def test_a_limit_of_time_is_counted_where_runs_are_deterministic(tmp_path: Path) -> None:
    network = load_onnx(save(random_dense([4, 16, 16, 3], seed=1), tmp_path / "net.onnx"))
    x = RNG.random((COUNT, 1, 4), dtype=np.float32)
    labels = network(torch.from_numpy(x).double())[:, 0].argmax(1).numpy()
    options = RadiusOptions(timeout=0.3, deterministic=True)
    first, second = (radius(network, Images(x, labels), range(COUNT), options) for _ in range(2))
    assert first == second
    assert all(record["seconds"] < 0.4 for record in first.values())


def test_attacks_end_when_their_time_is_over(tmp_path: Path) -> None:
    row, offset = linear(tmp_path / "net.onnx")
    network, x = load_onnx(tmp_path / "net.onnx"), RNG.random((COUNT, 1, 3), dtype=np.float32)
    labels = np.where(x[:, 0] @ row + offset > 0, 0, 1)

    def around(index: Sequence[int], radii: Sequence[Fraction]) -> Around:
        return Around(x[list(index)], tuple(radii), "linf")

    options, limits, nothing = RadiusOptions(), (Fraction(1, 10**6), None), [None] * COUNT
    with counted():
        late = attacked(network, labels, around, nothing, nothing, limits, options, 0.0)
        found = attacked(network, labels, around, nothing, nothing, limits, options, None)
    assert late == nothing
    assert None not in found


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_distances_are_rounded_up(norm: str) -> None:
    image = RNG.random((1, 1, 5), dtype=np.float32)
    x = image[0] + np.float32(0.01) * RNG.normal(size=(1, 5)).astype(np.float32)
    around = Around(image, (Fraction(1),), norm)
    found = from_counterexample(around, 0, Counterexample(x, np.zeros(2)), 4)
    steps = np.abs(x.astype(np.float64) - image[0])
    size = np.linalg.norm(steps.flatten(), ord={"linf": np.inf, "l2": 2, "l1": 1}[norm])
    assert size <= float(found.radius) <= size * 1.0011
    assert Around(image, (found.radius,), norm).contains(0, x)


def search_of(path: Path, timeout: float | None = 60.0) -> _Radii:
    """A search that has not begun."""
    network = load_onnx(save(random_dense([4, 3]), path / "net.onnx"))
    images = Images(np.zeros((1, 1, 4), np.float32), np.zeros(1, int))
    return _Radii(network, images, RadiusOptions(timeout=timeout), Plan.of("auto"), lambda _: None, None)


def state_of(
    certified: str | None = None, *, open: dict[str, float] | None = None, refuted: str | None = None, **known: float
) -> State:
    """What is known of an image: radii, and the margins that were missing where it was given up after ten seconds."""
    radius = None if certified is None else Fraction(certified)
    state = State(0, 0, 0, certified=radius, clean=1.0, **known)  # type: ignore[arg-type]
    state.refuted = None if refuted is None else Refuted(Fraction(refuted), Counterexample(np.zeros(4), np.zeros(3)))
    for place, margin in (open or {}).items():
        state.give_up(Fraction(place), 10.0, margin)
    return state


@pytest.mark.parametrize(
    ("certified", "margins", "expected"),
    [
        (None, {"1": -0.25}, (4 / 5) ** 0.5),  # between where the chord from 1 is zero, and where it did not do
        (None, {"1": -9.0}, 4 / 5),
        (None, {"1": -1e-9}, 100 / 101),
        (None, {"1": -1e-9, "0.9": -1e-9, "0.8": -1e-9}, 0.8 * (100 / 101) ** 4),
        (None, {"1": -np.inf}, 4 / 5),
        ("0.5", {"1": -0.25}, (4 / 5) ** 0.5),
        ("0.5", {"1": -9.0}, (1 / 2) ** 0.5),  # it is certified above the chord
        ("0.5", {"1": -np.inf}, (1 / 2) ** 0.5),
        ("0.985", {"1": -9.0}, 100 / 101),  # near to 1: the search ends if that is certified
        ("0.995", {"1": -9.0}, 1.0),  # given up after less time than there is now
    ],
)
def test_radii_below_one_that_stays_open(
    tmp_path: Path, certified: str | None, margins: dict[str, float], expected: float
) -> None:
    found = search_of(tmp_path).target(state_of(certified, open=margins))
    assert float(found) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("state", "seconds", "why"),
    [
        (state_of(), 20.0, ""),
        (state_of("0.5", cost=15.0), 30.0, ""),  # longer than the largest certified radius took
        (state_of("0.5", cost=25.0, seconds=30.0), 30.0, "timeout"),  # there is no time for much more than that
        (state_of("0.5", refuted="0.505"), 20.0, "found"),
        (state_of("0.5", refuted="1", open={"0.6": -1.0}), 20.0, ""),
        (state_of("0.5", refuted="1", open={"0.58": -1.0}), 20.0, "open in between"),  # little of what is open
        (state_of("0.5", open={"0.52": -1.0}), 20.0, ""),
        (state_of("0.5", open={"0.504": -1.0}), 20.0, "open in between"),
        (state_of("0.5", open={"0.504": -1.0}, cost=15.0), 30.0, ""),  # it may be tried again for longer
        (state_of(refuted="1", open={"0.00001": -1.0}), 20.0, "the method is too weak"),
    ],
)
def test_how_long_a_try_takes_and_when_there_is_none(tmp_path: Path, state: State, seconds: float, why: str) -> None:
    search = search_of(tmp_path)
    assert search.seconds(state) == seconds
    assert search.end(state) == why


def test_what_more_time_does_not_mend_is_as_near_as_was_asked(tmp_path: Path) -> None:
    search, state = search_of(tmp_path), state_of("0.5", refuted="1")
    state.give_up(Fraction(52, 100), np.inf)
    assert not search.end(state)
    state.give_up(Fraction(504, 1000), np.inf)
    assert search.end(state) == "open in between"


def test_without_a_limit_what_was_given_up_is_not_tried_again(tmp_path: Path) -> None:
    search, state = search_of(tmp_path, None), state_of("0.5", open={"0.504": -1.0})
    assert search.seconds(state) is None
    assert search.end(state) == "open in between"


def test_what_is_known_is_in_order() -> None:
    state = state_of(open={"0.8": -1.0, "0.6": -1.0, "0.9": -1.0})
    assert state.lowest is not None
    assert state.lowest.radius == Fraction(6, 10)
    state.certify(Fraction(7, 10), 1.0)
    assert state.lowest.radius == Fraction(8, 10)
    state.refute(Refuted(Fraction(85, 100), Counterexample(np.zeros(4), np.zeros(3))))
    assert [o.radius for o in state.open] == [Fraction(8, 10)]
    state.give_up(Fraction(8, 10), 20.0, -0.5)
    assert [(o.seconds, o.margin) for o in state.open] == [(20.0, -0.5)]


def test_rounding() -> None:
    assert rounded(Fraction(12345, 10**7), 3, up=True) == Fraction("0.00124")
    assert rounded(Fraction(12345, 10**7), 3, up=False) == Fraction("0.00123")
    assert rounded(Fraction(5), 3, up=True) == 5
    assert rounded(Fraction(0), 3, up=True) == 0
