"""A folder of good files, and the command line called from within the test's process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.run.files import images, random_dense, save, specification

from krelax.cli import main


@dataclass(frozen=True)
class Ran:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def krelax(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command line; what C libraries print is seen too."""
    torch.set_num_threads(1)

    def run(*arguments: Any) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        assert isinstance(stop.value.code, int)
        return Ran(stop.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a network of two inputs and two outputs, a specification, images, and a list."""
    monkeypatch.chdir(tmp_path)
    save(random_dense([2, 4, 2]), tmp_path / "good.onnx")
    spec = specification([0, 0], [0.01, 0.01], "(assert (<= Y_0 -100))")
    (tmp_path / "good.vnnlib").write_text(spec, encoding="utf-8")
    images(tmp_path / "good.npz", np.full((3, 2), 0.5, np.float32), [0, 1, 0])
    lines = "onnx,vnnlib,timeout_s,expected\ngood.onnx,good.vnnlib,5,unsat\n"
    (tmp_path / "good.csv").write_text(lines, encoding="utf-8")
    return tmp_path
