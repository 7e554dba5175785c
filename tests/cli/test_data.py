"""Commands take data as it lies: folders of pictures, tables, labels beside, normalised inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tests.cli.conftest import Ran
from tests.run.files import model, node, random_dense, save, tensor

from krelax.network.onnx import load_onnx

Run = Callable[..., Ran]


def normalising() -> onnx.ModelProto:
    """A network on three channels that takes normalised images."""
    weight = np.random.default_rng(5).normal(size=(3, 12)).astype(np.float32)
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f", "w", "h", transB=1), node("Relu", "h", "y")]
    return model(nodes, {"w": weight}, [tensor("x", [1, 3, 2, 2])])


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


MEAN, STD = "0.485,0.456,0.406", "0.229,0.224,0.225"


@pytest.fixture
def folder(good: Path) -> Path:
    """A network of normalised images, and pictures that it classifies as the names of their folders say."""
    image = pytest.importorskip("PIL.Image")
    save(normalising(), good / "net.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (12, 2, 2, 3), dtype=np.uint8)
    mean, std = (np.array([float(v) for v in text.split(",")]) for text in (MEAN, STD))
    given = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    network = load_onnx(good / "net.onnx")
    assert network.replay is not None
    for i, x in enumerate(given):
        label = int(network.replay(x[None]).argmax())
        (good / f"data/{label}").mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels[i]).save(good / f"data/{label}/{i}.png")
    return good


def test_a_folder_of_pictures_for_a_model_of_normalised_inputs(krelax: Run, folder: Path) -> None:
    command = ("certify", "net.onnx", "data", "--mean", MEAN, "--std", STD, "--eps", "8/255", "--jsonl", "run.jsonl")
    ran = krelax(*command, "--certificates", "proofs", "--check", "--report", "report.html")
    assert (ran.code, ran.err) == (0, "")
    header, *results = records(folder / "run.jsonl")
    assert header.items() >= {"layout": "nhwc", "mean": [0.485, 0.456, 0.406], "eps_exact": "8/255"}.items()
    assert {r["predicted"] == r["label"] for r in results} == {True}
    assert {r["verdict"] for r in results} == {"holds", "violated"}
    for r in results:
        if r["verdict"] == "holds":
            proof = folder / "proofs" / r["certificate"]["file"]
            assert krelax("check", proof, "--network", "net.onnx").code == 0
    page = (folder / "report.html").read_bytes()
    again = ("report", "run.jsonl", "--network", "net.onnx", "--images", "data", "--output", "again.html")
    assert krelax(*again).code == 0
    assert page.count(b"<img") == (folder / "again.html").read_bytes().count(b"<img") > 12
    (folder / "data/0/extra.png").write_bytes(next((folder / "data").rglob("*.png")).read_bytes())
    ran = krelax(*again[:-1], "other.html")
    assert ran.code == 2
    assert "another file" in ran.err


def test_a_table_for_a_tabular_model(krelax: Run, good: Path) -> None:
    save(random_dense([4, 8, 3]), good / "table.onnx")
    rows = np.round(np.random.default_rng(0).normal(size=(10, 4)), 2)
    labels = load_onnx(good / "table.onnx")
    classes = labels(torch.from_numpy(rows)[:, None].float().double())[:, 0].argmax(1).tolist()
    text = "\n".join(",".join([*map(str, row), "abc"[c]]) for row, c in zip(rows, classes, strict=True))
    (good / "data.csv").write_text("one,two,three,four,what\n" + text + "\n")
    (good / "names.txt").write_text("a\nb\nc\n")
    command = ("certify", "table.onnx", "data.csv", "--eps", "1/100", "--clip", "none", "--classes", "names.txt")
    ran = krelax(*command, "--labels", "what")
    assert (ran.code, ran.err) == (0, "")
    assert "0 misclassified" in ran.out
    ran = krelax(*command)
    assert (ran.code, ran.out) == (2, "")
    assert "data.csv: which column has the labels" in ran.err


def test_radii_of_their_own_and_fixed_inputs(krelax: Run, good: Path) -> None:
    (good / "eps.csv").write_text("first,category\n1/100,0\n")
    command = ("certify", "good.onnx", "good.npz", "--eps-file", "eps.csv", "--jsonl")
    assert krelax(*command, "run.jsonl").code == 0
    header, *results = records(good / "run.jsonl")
    assert (header["eps"], header["radii"]) == (0.01, [0.01, 0.0])
    for found in (r["counterexample"]["x"] for r in results if "counterexample" in r):
        assert found[1] == 0.5
    for text, words in (
        ("1,2,3", "3 radii for 2 inputs"), ("1,-2", "eps.csv, line 1: '-2' is not a radius"), ("", "no rows"),
    ):  # fmt: skip
        (good / "eps.csv").write_text(text)
        ran = krelax(*command, "other.jsonl")
        assert (ran.code, ran.out) == (2, "")
        assert words in ran.err
    assert "give one of them" in krelax(*command, "other.jsonl", "--eps", "0.1").err
    np.save(good / "eps.npy", np.full(2, 0.1))
    ran = krelax("certify", "good.onnx", "good.npz", "--eps-file", "eps.npy")
    assert (ran.code, ran.out) == (2, "")
    assert "give a CSV file with a radius for each input" in ran.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--eps", "8/0"), "'8/0' is not a finite decimal number"),
        (("--eps", "1e-400"), "'1e-400' is not a finite decimal number, or too small for float64"),
        (("--eps", "8/255", "--std", "0"), "std must be positive"),
        (("--eps", "8/255", "--mean", "0,x"), "'0,x' is not a number"),
        (("--eps", "8/255", "--mean", "1,2,3"), "which are no axis of [1, 2]"),
        (("--eps", "8/255", "--labels", "none.csv"), "none.csv: no such file"),
        (("--eps", "8/255", "--classes", "none.txt"), "none.txt: cannot be read"),
    ],
)
def test_options_that_do_not_fit(krelax: Run, good: Path, options: tuple[str, ...], words: str) -> None:
    ran = krelax("certify", "good.onnx", "good.npz", *options)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert len(ran.err.splitlines()) == 1


def test_points_of_other_programs_are_replayed_first(krelax: Run, good: Path) -> None:
    command = ("certify", "good.onnx", "good.npz", "--eps", "0.5", "--jsonl")
    assert krelax(*command, "first.jsonl").code == 0
    found = {r["index"]: r["counterexample"]["x"] for r in records(good / "first.jsonl")[1:] if "counterexample" in r}
    assert found
    points = np.array([*found.values(), [0.5, 7.0]])
    np.savez(good / "points.npz", points=points, index=np.array([*found, next(iter(set(range(3)) - set(found)), 0)]))
    ran = krelax(*command, "second.jsonl", "--hints", "points.npz", "--method", "interval")
    assert ran.code == 0
    second = {r["index"]: r for r in records(good / "second.jsonl")[1:]}
    assert {i for i, r in second.items() if r["reason"] == "given"} == set(found)
    if set(range(3)) - set(found):
        assert "is ignored: it lies outside the region, by 6" in ran.err
    np.savez(good / "points.npz", points=points[:, :1])
    ran = krelax(*command, "third.jsonl", "--hints", "points.npz")
    assert ran.code == 2
    assert "points must be numbers in the shape of the inputs, [1, 2]" in ran.err
    np.savez(good / "points.npz", points=points[:0], index=np.arange(0))
    assert krelax(*command, "fourth.jsonl", "--hints", "points.npz", "--range", "0").code == 0


def test_radii_with_a_page_and_a_figure(krelax: Run, good: Path) -> None:
    pytest.importorskip("matplotlib")
    command = ("radius", "good.onnx", "good.npz", "--accuracy", "5%", "--jsonl", "run.jsonl")
    ran = krelax(*command, "--report", "page.html", "--figure", "curve.svg")
    assert ran.code == 0
    assert "of 3 radii found\n  report in page.html\n  figure in curve.svg" in ran.out
    assert ran.out.startswith("good.onnx on good.npz: 3 images, linf radii to 5 %")
    assert (good / "page.html").read_bytes().startswith(b"<!doctype html>")
    assert b"certified by auto" in (good / "page.html").read_bytes()
    assert (good / "curve.svg").stat().st_size > 1000
    header, *results = records(good / "run.jsonl")
    assert (header["kind_of_run"], len(results)) == ("radius", 3)
    again = ("report", "run.jsonl", "--network", "good.onnx", "--images", "good.npz", "--output", "again.html")
    assert krelax(*again).out == "report in again.html\n"
    assert (good / "again.html").read_bytes() == (good / "page.html").read_bytes()
    assert krelax(*command, "--resume").out.splitlines()[:6] == ran.out.splitlines()[:6]
    (good / "run.jsonl").write_text((good / "run.jsonl").read_text().replace('"certified":', '"certain":'))
    ran = krelax(*again)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "is damaged" in ran.err
    for accuracy in ("1e-400", "0%"):
        ran = krelax("radius", "good.onnx", "good.npz", "--accuracy", accuracy)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "not a positive share" in ran.err


def test_the_difference_of_two_networks(krelax: Run, good: Path) -> None:
    other = onnx.load(str(good / "good.onnx"))
    bias = next(t for t in other.graph.initializer if t.name == "b1")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.25), "b1"))
    onnx.save(other, str(good / "other.onnx"))
    command = ("difference", "good.onnx", "other.onnx", "good.npz", "--eps", "0.1")
    ran = krelax(*command)
    assert ran.code == 0
    assert ran.out.startswith("good.onnx and other.onnx on good.npz: 3 images, the smallest difference")
    assert "no two outputs differ by more than 0.25" in ran.out
    ran = krelax(*command, "--within", "0.3", "--jsonl", "run.jsonl")
    assert ran.out.splitlines()[-1] == "3 holds, 0 violated, 0 unknown"
    header, *results = records(good / "run.jsonl")
    assert (header["kind_of_run"], len(results)) == ("difference", 3)
    assert krelax(*command, "--within", "0.2").out.splitlines()[-1] == "0 holds, 3 violated, 0 unknown"
    ran = krelax(*command, "--within", "0")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "'0' must be a finite number > 0" in ran.err


def test_networks_that_cannot_be_subtracted(krelax: Run, good: Path) -> None:
    save(random_dense([3, 4, 2]), good / "wide.onnx")
    save(random_dense([2, 4, 3]), good / "long.onnx")
    for name, says in (("wide", "inputs of shapes [1, 2] and [1, 3]"), ("long", "have 2 and 3 outputs")):
        ran = krelax("difference", "good.onnx", f"{name}.onnx", "good.npz", "--eps", "0.1")
        assert (ran.code, ran.out) == (2, "")
        assert says in ran.err
        assert ran.err.count("\n") == 1
    ran = krelax("difference", "good.onnx", "good.onnx", "good.npz")
    assert ran.code == 2
    assert "--eps" in ran.err
