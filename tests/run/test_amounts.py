"""How much of a transformation an image stands: certified and refuted amounts, near to each other."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.run.files import dense, save
from tests.run.test_regions import UNIT, check_counterexample, image, network, predicted

from krelax.errors import InputError, UnsupportedError
from krelax.network.onnx import load_onnx
from krelax.problem.images import Images
from krelax.problem.regions import Transformed, read_region, transformation
from krelax.run import amounts
from krelax.run.certificates import Certificates
from krelax.run.certify import CertifyOptions, certify
from krelax.run.journal import read_journal
from krelax.run.radius import RadiusOptions, radius
from krelax.search.transformed import Surroundings
from krelax.search.verdict import Counterexample, Outcome, Verdict

torch.set_num_threads(1)


def region(text: str) -> Transformed:
    return transformation(text)


def test_amounts_of_a_linear_classifier_are_those_of_the_formula(tmp_path: Path) -> None:
    """Two scores that are linear in nine values, whose brightness is raised as far as they stand it."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 9)).astype(np.float32)
    save(dense((weight, np.zeros(2, np.float32)), shape=(1, 9)), tmp_path / "net.onnx")
    x = rng.random((2, 1, 9), dtype=np.float32)
    difference = (weight[0] - weight[1]).astype(np.float64)
    margins = x[:, 0].astype(np.float64) @ difference
    labels = np.where(margins > 0, 0, 1)
    options = RadiusOptions(Fraction(1, 10), clip=None, region=region("brightness:20"))
    found = radius(load_onnx(tmp_path / "net.onnx"), Images(x, labels), range(2), options)
    for i, margin in enumerate(margins):
        true = abs(margin / difference.sum())
        assert found[i]["certified"] <= true * (1 + 1e-6)
        assert found[i]["refuted"] >= true * (1 - 1e-4)  # an input in the region is rounded to float32
        assert found[i]["refuted"] <= found[i]["certified"] * 1.1 * (1 + 1e-12)
        assert found[i]["reason"] == "found"


def test_certifying_confirms_amounts(tmp_path: Path) -> None:
    """What is certified holds as a region of its own; the counterexample lies in that of the refuted amount."""
    model, x = network(1), np.stack([image(seed) for seed in range(3)])
    images = Images(x, np.array([predicted(model, one) for one in x]))
    whole = region("rotate:-90:90")
    options = RadiusOptions(Fraction(1, 10), clip=UNIT, region=whole, timeout=30.0, deterministic=True)
    found = radius(model, images, range(3), options, journal=tmp_path / "j.jsonl")
    header, records = read_journal(tmp_path / "j.jsonl")
    assert header["region"] == "rotate angle -90:90"
    assert len(records) == 3
    assert {r["reason"] for r in found.values()} & {"found", "everywhere"}
    for i, record in found.items():
        if record["certified"]:
            part = whole.part(Fraction(record["certified"]))
            asked = CertifyOptions(Fraction(0), clip=UNIT, region=part)
            assert certify(model, images, range(i, i + 1), asked).verdicts[i] == Verdict.HOLDS
        if record["refuted"] is not None:
            around = Surroundings(
                model, x[i], int(images.labels[i]), whole.part(Fraction(record["refuted"])), ends=UNIT
            )
            told = record["counterexample"]
            shown = np.array(told["x"], np.float32).reshape(x[i].shape)
            counterexample = Counterexample(shown, np.array(told["y"]), parameters=told["parameters"])
            check_counterexample(Outcome(Verdict.VIOLATED, "", counterexample=counterexample), around, model,
                                 int(images.labels[i]))  # fmt: skip


def test_parts_of_regions() -> None:
    both = region("rotate:10+brightness:-0.1:0.3")
    assert both.amount == 1
    assert both.part(Fraction(1, 2)) == region("rotate:5+brightness:-0.05:0.15")
    assert both.reached([Fraction(5), Fraction(3, 10)]) == 1
    assert both.reached([Fraction(-5), Fraction(-1, 20)]) == Fraction(1, 2)
    assert region("scale:0.2").amount == Fraction(1, 5)
    assert region("scale:0.2").part(Fraction(1, 10)) == region("scale:0.1")
    with pytest.raises(InputError, match="does not contain 0"):
        _ = region("rotate:5:10").amount
    with pytest.raises(InputError, match="transformations"):
        transformation(read_region("patch:3"))


@pytest.mark.parametrize("text", ["rotate:10", "translate:2", "rotate:10+brightness:-0.1:0.3", "scale:1:1.3"])
def test_what_is_beyond_a_part_is_the_rest(text: str) -> None:
    """Boxes of parameters that have no inside in common with it, and of which the volume is what is left."""
    whole, third = region(text), Fraction(1, 3)
    inner, outer = third * whole.amount, 2 * third * whole.amount
    parts = [whole.part(inner), *whole.beyond(inner, outer)]
    for one, other in combinations(parts, 2):
        assert any(a[1] <= b[0] or b[1] <= a[0] for a, b in zip(one.ranges, other.ranges, strict=True))
    for part in parts:
        ends = zip(part.ranges, whole.part(outer).ranges, strict=True)
        assert all(high[0] <= low[0] < low[1] <= high[1] for low, high in ends)
    assert sum(volume(part) for part in parts) == volume(whole.part(outer))


def volume(part: Transformed) -> Fraction:
    return prod((high - low for low, high in part.ranges), start=Fraction(1))


def test_nothing_is_certified_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(1), image(0)
    decided = list[tuple[Transformed, Verdict]]()
    original = amounts.decide_image  # type: ignore[attr-defined]

    def decide(*given: Any) -> Outcome:
        outcome = original(*given)
        decided.append((given[3], outcome.verdict))
        return outcome

    monkeypatch.setattr(amounts, "decide_image", decide)
    options = RadiusOptions(Fraction(1, 10), clip=UNIT, region=region("brightness:1"), timeout=30.0, deterministic=True)
    found = radius(model, Images(x[None], np.array([predicted(model, x)])), range(1), options)[0]
    certified = Fraction(repr(found["certified"]))
    held = [part.ranges[0] for part, verdict in decided if verdict is Verdict.HOLDS]
    inside = [(low, high) for low, high in held if -certified <= low and high <= certified]
    assert len(inside) > 2
    assert sum(high - low for low, high in inside) == 2 * certified


def test_time_is_counted_where_runs_are_deterministic() -> None:
    model, x = network(1), image(0)
    images = Images(x[None], np.array([predicted(model, x)]))
    whole = region("rotate:20")
    options = RadiusOptions(Fraction(1, 2), clip=UNIT, region=whole, timeout=5.0, deterministic=True)
    first, second = (radius(model, images, range(1), options)[0] for _ in range(2))
    assert first == second
    assert first["seconds"] > 0


def test_certificates_are_refused(tmp_path: Path) -> None:
    options = RadiusOptions(region=region("rotate:5"))
    images = Images(image(0)[None], np.array([0]))
    with pytest.raises(UnsupportedError, match="certificates"):
        radius(network(0), images, range(1), options, certificates=Certificates(tmp_path, tmp_path / "no.onnx"))
