"""The GitHub Action at the root: its steps are carried out as a runner does, on the bundled networks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from krelax.cli.shared import bundled

ROOT = Path(__file__).parents[2]
yaml = pytest.importorskip("yaml")
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="steps are for bash")


def action() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    return found


def test_scripts_are_given_inputs_by_the_environment_only() -> None:
    """What stands in a script itself would be executed."""
    for step in action()["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        named = re.findall(r"inputs\.(\w+)", str(step))
        assert set(named) <= set(action()["inputs"])
    assert set(re.findall(r"inputs\.(\w+)", str(action()["runs"]))) == set(action()["inputs"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("digits_conv.onnx", "digits_dense.onnx", "digits_test.npz"):
        shutil.copy(bundled(name), tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "krelax").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m krelax "$@"\n')
    (tools / "krelax").chmod(0o755)
    return tmp_path


def carry_out(folder: Path, **given: str) -> tuple[int, str]:
    """The exit code of the first step that fails, or 0; and what stands in the summary of the job."""
    described = action()
    inputs = {name: str(about.get("default", "")) for name, about in described["inputs"].items()} | given
    github = {"GITHUB_OUTPUT": str(folder / "outputs"), "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    for step in described["runs"]["steps"][1:]:  # krelax is there
        if "run" not in step:
            continue
        named = {k: inputs[re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", v)[1]] for k, v in step["env"].items()}  # type: ignore[index]
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | named | github | {"PATH": path, "OMP_NUM_THREADS": "1"}
        shell = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]]
        ended = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            return ended.returncode, ended.stdout + ended.stderr
    return 0, (folder / "summary.md").read_text(encoding="utf-8")


def certified(folder: Path, model: str, **more: str) -> tuple[int, str]:
    same = {"images": "digits_test.npz", "range": "0:8", "timeout": "1", "options": "--method crown"}
    return carry_out(folder, model=model, eps="0.06", **same, **more)


@needs_bash
def test_a_model_is_certified_and_a_worse_one_is_refused(folder: Path) -> None:
    """The dense network loses an image that the convolutional one keeps."""
    code, said = certified(folder, "digits_conv.onnx")
    assert code == 0, said
    assert (folder / "outputs").read_text() == "results=krelax-report/results.jsonl\n"
    shutil.copy(folder / "krelax-report" / "results.jsonl", folder / "baseline.jsonl")
    code, said = certified(folder, "digits_dense.onnx", baseline="baseline.jsonl")
    assert code == 1, said
    assert "held before and do not now (images " in (folder / "summary.md").read_text(encoding="utf-8")
    assert {p.name for p in (folder / "krelax-report").iterdir()} == {
        "results.jsonl", "report.html", "summary.html", "table.csv", "said.txt",
    }  # fmt: skip


@needs_bash
@pytest.mark.slow
def test_the_same_model_is_no_regression(folder: Path) -> None:
    """By day the command alone is asked that."""
    assert certified(folder, "digits_conv.onnx")[0] == 0
    shutil.copy(folder / "krelax-report" / "results.jsonl", folder / "baseline.jsonl")
    code, said = certified(folder, "digits_conv.onnx", baseline="baseline.jsonl")
    assert code == 0, said
    assert "0 held before and do not now" in said
