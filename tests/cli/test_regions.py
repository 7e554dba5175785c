"""Regions of images on the command line and in one call: what is asked, written down, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tests.cli.conftest import Ran
from tests.cli.test_bad_input import check_refusal
from tests.run.files import images, node, save, tensor
from tests.run.files import model as built

import krelax as library

Run = Callable[..., Ran]
RNG = np.random.default_rng(1)


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a convolutional network, `net.onnx`, and six images that it classifies as labelled."""
    monkeypatch.chdir(tmp_path)
    kernel, weight = RNG.normal(size=(2, 1, 3, 3)), RNG.normal(size=(3, 32))
    nodes = [node("Conv", "x", "k", "c", pads=[1, 1, 1, 1], strides=[1, 1]), node("Relu", "c", "a"),
             node("Flatten", "a", "f"), node("Gemm", "f", "w", "y", transB=1)]  # fmt: skip
    constants = {"k": kernel.astype(np.float32), "w": (weight / 4).astype(np.float32)}
    model = built(nodes, constants, [tensor("x", [1, 1, 4, 4])])
    save(model, tmp_path / "net.onnx")
    x = RNG.random((6, 1, 4, 4), dtype=np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    y = [int(session.run(None, {"x": one[None]})[0].argmax()) for one in x]
    images(tmp_path / "images.npz", x, y)
    return tmp_path


def records(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    header, *rest = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return header, rest


def test_counterexamples_are_written_with_their_parameters(seen: Path, krelax: Run) -> None:
    ran = krelax("certify", "net.onnx", "images.npz", "--region", "rotate:-90:90", "--jsonl", "j.jsonl",
                 "--report", "r.html")  # fmt: skip
    assert ran.code == 0
    assert "6 images, rotate angle -90:90, method auto" in ran.out
    header, found = records(seen / "j.jsonl")
    assert header["region"] == "rotate angle -90:90"
    assert header["eps"] == 0
    wrong = [r for r in found if r["verdict"] == "violated"]
    assert wrong
    session = onnxruntime.InferenceSession("net.onnx")
    for record in wrong:
        assert -90 <= record["counterexample"]["parameters"]["angle"] <= 90
        x = np.array(record["counterexample"]["x"], np.float32).reshape(1, 1, 4, 4)
        assert session.run(None, {"x": x})[0].argmax() != record["label"]
    assert "rotate angle -90:90" in (seen / "r.html").read_text(encoding="utf-8")
    again = krelax("certify", "net.onnx", "images.npz", "--region", "rotate:-90:90", "--jsonl", "j.jsonl", "--resume")
    assert "6 resumed" in again.out
    other = krelax("certify", "net.onnx", "images.npz", "--region", "rotate:5", "--jsonl", "j.jsonl", "--resume")
    check_refusal(other, "j.jsonl")


def test_noise_comes_on_top(seen: Path, krelax: Run) -> None:
    ran = krelax("certify", "net.onnx", "images.npz", "--region", "brightness:0", "--eps", "0.001")
    ball = krelax("certify", "net.onnx", "images.npz", "--eps", "0.001")
    assert "brightness 0:0, and linf ball of radius 0.001" in ran.out
    assert ran.out.splitlines()[1][:30] == ball.out.splitlines()[1][:30]


def test_patches_have_certificates(seen: Path, krelax: Run) -> None:
    session = onnxruntime.InferenceSession("net.onnx")
    x = (0.45 + 0.1 * RNG.random((4, 1, 4, 4))).astype(np.float32)
    images(seen / "grey.npz", x, [int(session.run(None, {"x": one[None]})[0].argmax()) for one in x])
    ran = krelax("certify", "net.onnx", "grey.npz", "--region", "patch:1", "--clip", "0.4:0.6",
                 "--certificates", "proofs", "--check", "--jsonl", "j.jsonl")  # fmt: skip
    assert ran.code == 0
    held = [r for r in records(seen / "j.jsonl")[1] if r["verdict"] == "holds"]
    assert held
    for record in held:
        assert record["certificate"]["checked"] > 0
        path = seen / "proofs" / record["certificate"]["file"]
        assert krelax("check", path, "--network", "net.onnx").code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--region", "spin:3"], ["unknown region 'spin'", "rotate"]),
        (["--region", "rotate"], ["rotate:AMOUNT"]),
        (["--region", "rotate:5", "--norm", "l2", "--eps", "0.1"], ["linf"]),
        (["--region", "rotate:5", "--certificates", "c"], ["--certificates"]),
        (["--region", "patch:9"], ["larger than the image", "4 x 4"]),
        (["--region", "saturation:0.1"], ["3 colours"]),
        (["--region", "rotate:5", "--clip", "0:0.1"], ["outside the range"]),
        (["--region", "patch:1", "--clip", "none"], ["--clip"]),
        (["--region", "categories:0-99"], ["inputs 0 to 15"]),
        (["--region", "rotate:5", "--eps-file", "e.csv"], ["one radius"]),
        ([], ["--eps", "--region"]),
    ],
)
def test_what_does_not_fit_is_one_line(seen: Path, krelax: Run, options: list[str], words: list[str]) -> None:
    (seen / "e.csv").write_text(",".join(["0.1"] * 16), encoding="utf-8")
    check_refusal(krelax("certify", "net.onnx", "images.npz", *options), *words)


def test_help_says_what_regions_there_are(krelax: Run) -> None:
    text = krelax("certify", "--help").out
    for name in ("rotate:10", "patch:3", "categories:0-3", "rotate:10+brightness:0.1"):
        assert name in text


def test_one_call_takes_regions(seen: Path) -> None:
    by_text = library.certify("net.onnx", "images.npz", region="rotate:30", progress=False)
    spec = library.read_region("rotate:30")
    by_object = library.certify("net.onnx", "images.npz", region=spec, progress=False)
    assert by_text.verdicts == by_object.verdicts
    assert "6 items, rotate angle -30:30" in repr(by_text)
    assert library.certify("net.onnx", "images.npz", region=library.Patch(1, 1), progress=False).verdicts
    for region, words in (("spin:1", "unknown region"), (3, "region is a int"), (None, "eps, or a region")):
        with pytest.raises(library.InputError, match=words):
            library.certify("net.onnx", "images.npz", region=region, progress=False)  # type: ignore[arg-type]


def test_radii_of_their_own_go_with_categories(seen: Path, krelax: Run) -> None:
    rows = ["0.01" if i > 3 else "0" for i in range(16)]
    (seen / "e.csv").write_text(",".join(rows), encoding="utf-8")
    ran = krelax("certify", "net.onnx", "images.npz", "--region", "categories:0-3", "--eps-file", "e.csv")
    assert ran.code == 0
    assert "categories 0-3, and linf ball of radius 0.01 at most" in ran.out
