"""Where a command is started, and what lies there, changes nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.cli.conftest import Ran
from tests.cli.test_bad_input import check_refusal

from krelax.explore.answers import Answers

Run = Callable[..., Ran]
VERIFY = ["verify", "good.vnnlib", "--network", "good.onnx"]
CERTIFY = ["certify", "good.onnx", "good.npz", "--eps", "0.1"]
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


def test_nobody_is_told_and_the_home_stays_empty(tmp_path: Path) -> None:
    """ONNX Runtime would write an identity of the machine and a record of every session there, and send it."""
    code = "import krelax; from krelax.cli.shared import bundled; krelax.load_onnx(bundled('digits_dense.onnx'))"
    environment = {k: v for k, v in os.environ.items() if k not in {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}}
    environment |= {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=300, check=True)
    assert [p.name for p in tmp_path.rglob("*")] == []


def test_a_path_that_was_asked_for_stays(tmp_path: Path) -> None:
    """With -P the first place is one that the user has named."""
    (tmp_path / "click.py").write_text("raise SystemExit(77)")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-P", "-m", "krelax", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 77


@pytest.mark.skipif(find_spec("yaml") is None, reason="numba reads such files with yaml, which is missing")
def test_compiled_code_is_not_read_from_where_the_current_folder_says(tmp_path: Path) -> None:
    (tmp_path / ".numba_config.yaml").write_text(f"cache_dir: {tmp_path}\n")
    code = "import krelax.hull.jit, numba; print(repr(numba.config.CACHE_DIR))"
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "''\n"


@pytest.mark.parametrize("name", ["good.onnx", "good.vnnlib", "good.npz", "folder", "/dev/full"])
def test_a_certificate_replaces_nothing_but_certificates(krelax: Run, good: Path, name: str) -> None:
    (good / "folder").mkdir()
    before = {p.name: p.read_bytes() for p in good.iterdir() if p.is_file()}
    check_refusal(krelax(*VERIFY, "--certificate", name), name)
    assert {p.name: p.read_bytes() for p in good.iterdir() if p.is_file()} == before


def test_a_certificate_replaces_a_certificate(krelax: Run, good: Path) -> None:
    for _ in range(2):
        assert krelax(*VERIFY, "--certificate", "proof.zip", "--check").code == 0
    (good / "new.zip").touch()
    assert krelax(*VERIFY, "--certificate", "new.zip").code == 0
    (good / "new.zip").write_text("mine")
    (good / "proofs").mkdir()
    for number in range(3):
        (good / "proofs" / f"image-{number}.zip").write_text("mine")
    check_refusal(krelax(*CERTIFY, "--certificates", "proofs"), "image-", "not a certificate")
    assert [path.read_text() for path in (good / "proofs").iterdir()] == ["mine"] * 3


WRITING = {
    "page.html": ["explore", "good.onnx", "good.npz", "--eps", "0.1", "--export", "page.html"],
    "report.html": [*CERTIFY, "--report", "report.html"],
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of which not everything has to be computed."""
    monkeypatch.setattr(Answers, "everything", lambda *_: {})


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize("before", [b"", b"<!doctype html>an older one"])
def test_no_half_page_is_left_where_there_is_no_room(
    krelax: Run, good: Path, monkeypatch: pytest.MonkeyPatch, name: str, before: bytes
) -> None:
    """What was there before stays."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (good / name).write_bytes(before)
    files = sorted(good.iterdir())
    monkeypatch.setattr(os, "fsync", full)
    ran = krelax(*WRITING[name])
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith(f"krelax: {name}: cannot be written (No space left on device)")
    assert (good / name).read_bytes() == before
    assert sorted(good.iterdir()) == files


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["good.onnx", "folder", "loop"])
def test_a_page_replaces_nothing_but_pages(krelax: Run, good: Path, name: str) -> None:
    (good / "folder").mkdir()
    (good / "loop").symlink_to("loop")
    before = (good / "good.onnx").read_bytes()
    ran = krelax(*WRITING["page.html"][:-1], name)
    if name == "loop":  # a link to nothing is nothing
        assert ran.code == 0
    else:
        check_refusal(ran, name)
    assert (good / "good.onnx").read_bytes() == before


@pytest.mark.parametrize("clip", ["nan:1", "0:inf", "-inf:inf"])
def test_limits_of_pixels_are_numbers(krelax: Run, good: Path, clip: str) -> None:
    """A journal could not say others."""
    check_refusal(krelax(*CERTIFY, "--clip", clip, "--jsonl", "j.jsonl"), "--clip")


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", LONG, "--network", "good.onnx"],
        ["verify", "good.vnnlib", "--network", LONG],
        [*VERIFY, "--certificate", LONG],
        [*VERIFY, "--serialise-assignments", LONG],
        ["certify", "good.onnx", LONG, "--eps", "0.1"],
        [*CERTIFY, "--jsonl", LONG],
        [*CERTIFY, "--report", LONG],
        [*CERTIFY, "--certificates", LONG],
        ["bench", LONG],
        ["report", LONG, "--network", "good.onnx", "--images", "good.npz", "--output", "page.html"],
        ["check", LONG, "--network", "good.onnx"],
        ["explore", "good.onnx", "good.npz", "--eps", "0.1", "--export", LONG],
    ],
)
def test_names_that_are_too_long(krelax: Run, good: Path, arguments: list[str]) -> None:
    """What the system says of a path is for the user to mend."""
    ran = krelax(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    assert LONG in ran.err
