"""Networks whose constants lie in another file, as PyTorch writes them: certified, and their certificates checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.run.files import dense, images, specification

from krelax.cli import main


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_certificates_are_about_all_files(capfd: Any, tmp_path: Path) -> None:
    net, proofs = tmp_path / "net.onnx", tmp_path / "proofs"
    model = dense((np.eye(2), [0.0, 0.0]), ([[1, 0], [0, 1]], [0.5, 0.0]))
    onnx.save_model(model, net, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    data = images(tmp_path / "data.npz", np.float32([[0.75, 0.25]]), [0])
    options = ("--eps", 0.125, "--certificates", proofs, "--check", "--semantics", "float32")
    assert run("certify", net, data, *options) == 0
    assert "holds         1  100.0 %" in capfd.readouterr().out
    (proof,) = proofs.iterdir()
    assert run("check", proof, "--network", net) == 0
    out = capfd.readouterr().out
    assert "y[0] > y[j] for every other j: the label is 0" in out
    assert "accepted: questions 1, semantics float32" in out
    weights = tmp_path / "net.onnx.data"
    weights.write_bytes(b"\0" * weights.stat().st_size)
    assert run("check", proof, "--network", net) == 1
    assert "rejected: about the network" in capfd.readouterr().err


LOCATIONS: dict[str, tuple[list[tuple[str, str]], str]] = {
    "zero byte": ([("location", "weights\0.bin")], "unprintable"),
    "line feed": ([("location", "weights\n")], "unprintable"),
    "two places": ([("location", "weights"), ("offset", "0"), ("offset", "16")], "say twice what its offset is"),
    "two files": ([("location", "weights"), ("location", "other")], "say twice what its location is"),
}


@pytest.mark.parametrize("name", LOCATIONS)
def test_places_that_readers_may_take_differently(capfd: Any, tmp_path: Path, name: str) -> None:
    """Nothing is guessed, and a list with such a network goes on."""
    entries, words = LOCATIONS[name]
    model = dense((np.eye(2), [0.0, 0.0]))
    (weight, _), net = model.graph.initializer, tmp_path / "net.onnx"
    (tmp_path / "weights").write_bytes(weight.raw_data * 2)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries:
        weight.external_data.add(key=key, value=value)
    net.write_bytes(model.SerializeToString())
    data = images(tmp_path / "data.npz", np.float32([[0.75, 0.25]]), [0])
    assert run("certify", net, data, "--eps", 0.125, "--jsonl", tmp_path / "results.jsonl") == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    (tmp_path / "q.vnnlib").write_text(specification([0, 0], [1, 1], "(assert (<= Y_0 -1))"), encoding="utf-8")
    (tmp_path / "list.csv").write_text("net.onnx,q.vnnlib,5\n", encoding="utf-8")
    assert run("bench", tmp_path / "list.csv", "--jsonl", tmp_path / "bench.jsonl") == 3
    assert words in capfd.readouterr().out
