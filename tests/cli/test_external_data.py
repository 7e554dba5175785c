"""Networks whose constants lie in another file, as PyTorch writes them: certified, and their certificates checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.run.files import dense, images

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
