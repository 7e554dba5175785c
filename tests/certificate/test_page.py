"""The checker that docs/certificates.md writes down: it runs, and finds what krelax's finds."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from krelax.certificate.check import check
from krelax.certificate.format.archive import read
from krelax.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "certificates.md"
COMMAND = re.compile(r"^    krelax (certify .*)$", re.MULTILINE)
SNIPPET = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def test_a_checker_of_ones_own_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("digits_dense.onnx", "digits_test.npz"):
        shutil.copy(str(files("krelax") / "data" / name), tmp_path)
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    (command,), ((code, expected),) = COMMAND.findall(page), SNIPPET.findall(page)
    with pytest.raises(SystemExit, match="0"):
        main(command.split())
    assert "krelax" not in code
    printed, namespace = io.StringIO(), dict[str, object]()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/certificates.md", "exec"), namespace)
    assert printed.getvalue() == expected
    (found,) = check(read("proofs/image-1.zip"), Path("digits_dense.onnx").read_bytes())
    assert found == pytest.approx(float(namespace["margins"].min()), abs=1e-9)  # type: ignore[attr-defined]
