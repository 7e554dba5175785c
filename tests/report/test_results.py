"""What can be counted from results, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.report.runs import SETTINGS, pixels, record, results

from krelax.errors import InputError
from krelax.report.results import Results, curve

IMAGES = pixels(12)


def test_counts() -> None:
    found = results(IMAGES)
    assert found.counts == {"holds": 6, "violated": 3, "unknown": 3}
    assert found.answers[-1] == ("unknown", "timeout", 3)
    assert found.first == "crown"
    assert [verdict for verdict, _ in found.bounds()].count("violated") == 3
    assert found.only({1, 5, 99}).indices == {1, 5}


def test_a_curve_is_about_the_images_that_all_runs_have() -> None:
    near = results(IMAGES, (("holds", "crown"),), eps=0.01)
    far = results(IMAGES, (("holds", "crown"), ("violated", "attack"), ("unknown", "timeout")), eps=0.1)
    assert curve([near]) == (12, [])
    assert curve([near, near]) == (12, [])
    shared, points = curve([far, near.only(set(range(6)))])
    assert shared == 6
    assert [(p.eps, p.certified) for p in points] == [(0.01, 1.0), (0.1, 2 / 6)]
    assert [p.unrefuted for p in points] == pytest.approx([1.0, 4 / 6])
    assert curve([near.only({1}), far.only({2})]) == (0, [])


def test_what_one_method_refutes_counts_for_all() -> None:
    weak = results(IMAGES, (("unknown", "timeout"),), method="crown")
    strong = results(IMAGES, (("violated", "attack"),))
    other = results(IMAGES, (("holds", "crown"),), eps=0.01)
    _, points = curve([weak, strong, other])
    assert [(p.method, p.unrefuted) for p in points] == [("auto", 1.0), ("crown", 0.0), ("auto", 0.0)]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"index": 12}, "there are 12 images"),
        ({"index": -1}, "there are 12 images"),
        ({"label": "3"}, "label"),
        ({"verdict": "maybe"}, "verdict"),
        ({"seconds": None}, "seconds"),
        ({"seconds": float("nan")}, "finite"),
        ({"margin": float("inf")}, "finite"),
        ({"margin": "1"}, "finite"),
        ({"stages": 3}, "stages"),
        ({"stages": [{"name": "crown"}]}, "stages"),
        ({"counterexample": [1]}, "counterexample"),
        ({"counterexample": {"x": [0.5], "y": [1.0, 2.0]}}, "counterexample"),
        ({"counterexample": {"x": [0.5] * 64, "y": []}}, "counterexample"),
        ({"counterexample": {"x": [0.5] * 64, "y": ["a", "b"]}}, "counterexample"),
        ({"counterexample": {"x": [10**400] * 64, "y": [1.0, 2.0]}}, "counterexample"),
        ({"certificate": {"file": 3}}, "certificate"),
        ({"certificate": {"file": "c.zip", "bytes": 10**400}}, "certificate"),
    ],
)
def test_damaged_records_are_refused(change: dict[str, Any], word: str) -> None:
    damaged = record(0, "holds", "crown", IMAGES[0]) | change
    with pytest.raises(InputError, match=word):
        Results.of("run.jsonl", SETTINGS, [damaged], 64, 12)


@pytest.mark.parametrize(
    "change", [{"eps": None}, {"images": 3}, {"clip": [0]}, {"clip": "none"}, {"eps": 10**400}, {"eps": float("inf")}]
)
def test_settings_of_other_runs_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="data-set run"):
        Results.of("run.jsonl", SETTINGS | change, [], 64, 12)
