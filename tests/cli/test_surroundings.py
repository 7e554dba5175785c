"""Where a command is started, and what lies there, changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SHADOWS = ("torch", "numpy", "onnx", "onnxruntime", "highspy", "numba", "click", "sitecustomize", "json", "csv")
RANGE = ["--range", "8:12"]  # one of them needs a search, in helpers


def test_nothing_in_the_current_folder_is_executed(tmp_path: Path) -> None:
    """`python -m` looks there first, if nobody stops it."""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write({name!r})")
    command = [sys.executable, "-m", "krelax", "certify", *RANGE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "executed").exists()


def test_a_path_that_was_asked_for_stays(tmp_path: Path) -> None:
    """With -P the first place is one that the user has named."""
    (tmp_path / "click.py").write_text("raise SystemExit(77)")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-P", "-m", "krelax", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 77
